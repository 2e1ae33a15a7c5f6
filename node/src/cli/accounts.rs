//! Accounts as CSV with a header: `jid,password`, or `jid,mechanism,iterations,salt,stored_key,server_key` (the last three in
//! base64). An account with keys for several mechanisms has several lines, one after the other.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    io::{Read, Write},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use csv::{ByteRecord, StringRecord};
use heronry_proto::admin::{ExportedUser, ImportedUser, ScramHash, ScramKeySet, ScramKeys, imported_user::Credentials};
use serde::{Deserialize, Serialize};

/// The columns of a file with keys.
pub(super) const COLUMNS: [&str; 6] = ["jid", "mechanism", "iterations", "salt", "stored_key", "server_key"];

const HEADERS: &str = "the header must be jid,password or jid,mechanism,iterations,salt,stored_key,server_key";

#[derive(Deserialize)]
struct PasswordLine {
    jid: String,
    password: String,
}

#[derive(Serialize, Deserialize)]
struct KeysLine {
    jid: String,
    mechanism: String,
    iterations: u32,
    salt: String,
    stored_key: String,
    server_key: String,
}

/// A line that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    /// Its number in the file, from 1.
    pub(super) line: u64,
    /// What is wrong with it.
    pub(super) problem: String,
}

/// Reads accounts.
pub(super) struct Accounts<R> {
    reader: csv::Reader<R>,
    header: StringRecord,
    record: ByteRecord,
    /// The account whose lines are being read.
    next: Option<ImportedUser>,
    /// Hashes of the addresses before: a million of them are 16 MB, and one in 10^13 files has two that are alike by chance.
    seen: HashSet<u64>,
    hasher: RandomState,
}

impl<R: Read> Accounts<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// When there is none that we know, as a sentence.
    pub(super) fn new(file: R) -> Result<Self, String> {
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::Headers)
            .flexible(true)
            .from_reader(file);
        let header = reader.headers().map_err(|error| error.to_string())?.clone();
        let known = ["password", "mechanism"].into_iter().any(|column| has(&header, column));
        if !known || !has(&header, "jid") {
            return Err(HEADERS.to_owned());
        }
        Ok(Self {
            reader,
            header,
            record: ByteRecord::new(),
            next: None,
            seen: HashSet::new(),
            hasher: RandomState::new(),
        })
    }

    /// Whether the file has passwords; otherwise it has keys.
    pub(super) fn has_passwords(&self) -> bool {
        has(&self.header, "password")
    }

    /// How many bytes have been read.
    pub(super) fn bytes(&self) -> u64 {
        self.reader.position().byte()
    }

    /// The next account, or a line that cannot be used; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read any further.
    pub(super) fn next(&mut self) -> Result<Option<Result<ImportedUser, BadLine>>, String> {
        loop {
            match self.reader.read_byte_record(&mut self.record) {
                Ok(true) => {}
                Ok(false) => return Ok(self.next.take().map(Ok)),
                Err(error) => return Err(error.to_string()),
            }
            let line = self.record.position().map_or(0, csv::Position::line);
            let bad = |problem| Ok(Some(Err(BadLine { line, problem })));
            let account = match self.account(line) {
                Ok(account) => account,
                Err(problem) => return bad(problem),
            };
            if let Some(waiting) = &mut self.next
                && waiting.jid == account.jid
            {
                if let Err(problem) = join(waiting, account) {
                    return bad(problem);
                }
                continue;
            }
            if !self.seen.insert(self.hasher.hash_one(&account.jid)) {
                let jid = account.jid;
                return bad(format!(
                    "{jid} is in the file before; all lines of an account must be together"
                ));
            }
            if let Some(complete) = self.next.replace(account) {
                return Ok(Some(Ok(complete)));
            }
        }
    }

    fn account(&self, number: u64) -> Result<ImportedUser, String> {
        let (fields, columns) = (self.record.len(), self.header.len());
        if fields != columns {
            return Err(format!("it has {fields} fields, the header has {columns}"));
        }
        let line = StringRecord::from_byte_record(self.record.clone()).map_err(|_| "it is not UTF-8".to_owned())?;
        let problem = |error: csv::Error| match error.kind() {
            csv::ErrorKind::Deserialize { err, .. } => {
                match err.field().and_then(|field| self.header.get(field as usize)) {
                    Some(column) => format!("{column}: {}", err.kind()),
                    None => err.kind().to_string(),
                }
            }
            _ => error.to_string(),
        };
        if self.has_passwords() {
            let line: PasswordLine = line.deserialize(Some(&self.header)).map_err(problem)?;
            return Ok(ImportedUser {
                number,
                jid: line.jid,
                credentials: Some(Credentials::Password(line.password)),
            });
        }
        let line: KeysLine = line.deserialize(Some(&self.header)).map_err(problem)?;
        let bytes = |name: &str, text: &str| STANDARD.decode(text).map_err(|_| format!("{name} is not base64"));
        let keys = ScramKeys {
            hash: hash(&line.mechanism)?.into(),
            iterations: line.iterations,
            salt: bytes("salt", &line.salt)?.into(),
            stored_key: bytes("stored_key", &line.stored_key)?.into(),
            server_key: bytes("server_key", &line.server_key)?.into(),
        };
        Ok(ImportedUser {
            number,
            jid: line.jid,
            credentials: Some(Credentials::Keys(ScramKeySet { keys: vec![keys] })),
        })
    }
}

fn has(header: &StringRecord, column: &str) -> bool {
    header.iter().any(|name| name == column)
}

fn hash(mechanism: &str) -> Result<ScramHash, String> {
    match mechanism {
        "SCRAM-SHA-1" => Ok(ScramHash::Sha1),
        "SCRAM-SHA-256" => Ok(ScramHash::Sha256),
        "SCRAM-SHA-512" => Ok(ScramHash::Sha512),
        other => Err(format!(
            "the mechanism must be SCRAM-SHA-1, SCRAM-SHA-256 or SCRAM-SHA-512, not {other:?}"
        )),
    }
}

/// A mechanism as it is written in files.
pub(super) fn mechanism(hash: ScramHash) -> &'static str {
    match hash {
        ScramHash::Sha1 => "SCRAM-SHA-1",
        ScramHash::Sha256 => "SCRAM-SHA-256",
        ScramHash::Sha512 => "SCRAM-SHA-512",
        ScramHash::Unspecified => "unknown",
    }
}

/// A further line of the same account.
fn join(account: &mut ImportedUser, further: ImportedUser) -> Result<(), String> {
    match (&mut account.credentials, further.credentials) {
        (Some(Credentials::Keys(all)), Some(Credentials::Keys(more))) => {
            if all
                .keys
                .iter()
                .any(|keys| more.keys.iter().any(|more| more.hash == keys.hash))
            {
                return Err(format!("{} has keys for this mechanism already", account.jid));
            }
            all.keys.extend(more.keys);
            Ok(())
        }
        _ => Err(format!("{} has two passwords", account.jid)),
    }
}

/// Writes an account with its keys, as [`Accounts`] reads it.
///
/// # Errors
/// What the writer says.
pub(super) fn write(user: &ExportedUser, file: &mut csv::Writer<impl Write>) -> csv::Result<()> {
    for keys in user.keys.iter().flat_map(|set| &set.keys) {
        file.serialize(KeysLine {
            jid: user.jid.clone(),
            mechanism: mechanism(keys.hash()).to_owned(),
            iterations: keys.iterations,
            salt: STANDARD.encode(&keys.salt),
            stored_key: STANDARD.encode(&keys.stored_key),
            server_key: STANDARD.encode(&keys.server_key),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "jid,mechanism,iterations,salt,stored_key,server_key";

    /// The accounts and the bad lines of a file.
    fn read(text: &[u8]) -> Result<(Vec<ImportedUser>, Vec<BadLine>), String> {
        let mut accounts = Accounts::new(text)?;
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        while let Some(account) = accounts.next()? {
            match account {
                Ok(account) => good.push(account),
                Err(line) => bad.push(line),
            }
        }
        Ok((good, bad))
    }

    fn good(text: &str) -> Vec<ImportedUser> {
        let (good, bad) = read(text.as_bytes()).unwrap();
        assert_eq!(bad, []);
        good
    }

    fn keys(account: &ImportedUser) -> Vec<(ScramHash, u32)> {
        match &account.credentials {
            Some(Credentials::Keys(set)) => set.keys.iter().map(|keys| (keys.hash(), keys.iterations)).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn passwords_may_be_quoted() {
        let read = good("jid,password\na@localhost,\"p, \"\"q\"\"\"\nb@localhost, spaces \n");
        let passwords = ["p, \"q\"", " spaces "].map(|password| Some(Credentials::Password(password.to_owned())));
        let found: Vec<_> = read.iter().map(|account| account.credentials.clone()).collect();
        assert_eq!(found, passwords);
        assert_eq!((read[1].jid.as_str(), read[1].number), ("b@localhost", 3));
    }

    #[test]
    fn lines_of_one_account_are_one_account() {
        let text = format!(
            "{HEADER}\na@x,SCRAM-SHA-1,4096,c2FsdA==,AA==,AA==\na@x,SCRAM-SHA-256,8192,c2FsdA==,AA==,AA==\nb@x,SCRAM-SHA-1,4096,c2FsdA==,AA==,AA==\n"
        );
        let read = good(&text);
        assert_eq!(read.len(), 2);
        assert_eq!(keys(&read[0]), [(ScramHash::Sha1, 4096), (ScramHash::Sha256, 8192)]);
        assert_eq!(keys(&read[1]), [(ScramHash::Sha1, 4096)]);
    }

    #[test]
    fn a_bad_line_is_named_and_the_others_are_taken() {
        let cases = [
            ("jid,password\na@x,p\na@x,q\nb@x,p\n", 3, "a@x has two passwords"),
            (
                "jid,password\na@x,p\nb@x,p\na@x,q\n",
                4,
                "a@x is in the file before; all lines of an account must be together",
            ),
            (
                "jid,password\na@x,p\nc@x\nb@x,p\n",
                3,
                "it has 1 fields, the header has 2",
            ),
            (
                &format!("{HEADER}\na@x,PLAIN,4096,,,\na@x,SCRAM-SHA-1,4096,,,\nb@x,SCRAM-SHA-1,4096,,,\n"),
                2,
                "the mechanism must be SCRAM-SHA-1, SCRAM-SHA-256 or SCRAM-SHA-512, not \"PLAIN\"",
            ),
            (
                &format!("{HEADER}\na@x,SCRAM-SHA-1,4096,,,\nb@x,SCRAM-SHA-1,4096,!,,\nb@x,SCRAM-SHA-1,4096,,,\n"),
                3,
                "salt is not base64",
            ),
            (
                &format!("{HEADER}\na@x,SCRAM-SHA-1,4096,,,\nb@x,SCRAM-SHA-1,many,,,\nb@x,SCRAM-SHA-1,1,,,\n"),
                3,
                "iterations: invalid digit found in string",
            ),
            (
                &format!("{HEADER}\na@x,SCRAM-SHA-1,1,,,\na@x,SCRAM-SHA-1,1,,,\nb@x,SCRAM-SHA-1,1,,,\n"),
                3,
                "a@x has keys for this mechanism already",
            ),
        ];
        for (text, line, problem) in cases {
            let (good, bad) = read(text.as_bytes()).unwrap();
            let problem = problem.to_owned();
            assert_eq!(bad, [BadLine { line, problem }]);
            let names: Vec<_> = good.iter().map(|account| account.jid.as_str()).collect();
            assert_eq!(names, ["a@x", "b@x"], "{text}");
        }
        let (good, bad) = read(b"jid,password\na@x,\xff\nb@x,p\n").unwrap();
        assert_eq!(
            (good.len(), bad[0].line, bad[0].problem.as_str()),
            (1, 2, "it is not UTF-8")
        );
    }

    #[test]
    fn a_file_needs_a_header_that_is_known() {
        for text in ["", "jid\na@x\n", "a@x,p\n", "password\np\n"] {
            assert_eq!(read(text.as_bytes()).unwrap_err(), HEADERS, "{text:?}");
        }
        assert_eq!(read(b"jid,password\n").unwrap(), (Vec::new(), Vec::new()));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let of = |hash: ScramHash, byte: u8| ScramKeys {
            hash: hash.into(),
            iterations: 4096 + u32::from(byte),
            salt: vec![byte; 5].into(),
            stored_key: vec![byte; 20].into(),
            server_key: vec![byte + 1; 20].into(),
        };
        let user = |jid: &str, keys| ExportedUser {
            jid: jid.to_owned(),
            keys: Some(ScramKeySet { keys }),
        };
        let users = [
            user("a@x", vec![of(ScramHash::Sha1, 1), of(ScramHash::Sha512, 2)]),
            user("\"q\",\n@x", vec![of(ScramHash::Sha256, 3)]),
        ];
        let mut file = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
        file.write_record(COLUMNS).unwrap();
        for user in &users {
            write(user, &mut file).unwrap();
        }
        let (read, bad) = read(&file.into_inner().unwrap()).unwrap();
        assert_eq!(bad, []);
        let read: Vec<_> = read.into_iter().map(|user| (user.jid, user.credentials)).collect();
        let written = users.map(|user| (user.jid, user.keys.map(Credentials::Keys)));
        assert_eq!(read, written);
    }
}
