//! `heronry user import FILE`: accounts from CSV with a header, `jid,password` or
//! `jid,mechanism,iterations,salt,stored_key,server_key` (the last three in base64).
//!
//! An account with keys for several mechanisms has several lines, one after the other. The whole file is read and checked before
//! anything is sent.

use std::{collections::HashSet, fs::File, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use csv::StringRecord;
use heronry_proto::admin::{
    ScramHash, ScramKeySet, ScramKeys, UserImportReply, UserImportRequest, user_import_request::Credentials,
};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Failure, client, failure, say};
use crate::config::Config;

/// Accounts that wait to be sent.
const WAITING_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PasswordLine {
    jid: String,
    password: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysLine {
    jid: String,
    mechanism: String,
    iterations: u32,
    salt: String,
    stored_key: String,
    server_key: String,
}

pub(super) fn run(file: &Path, config: &Config) -> Result<(), Failure> {
    let unusable = |problem: String| {
        Failure::new(
            failure::USAGE,
            format!("{} cannot be imported: {problem}", file.display()),
        )
    };
    let open = || File::open(file).map_err(|error| unusable(error.to_string()));
    for account in accounts(open()?) {
        account.map_err(unusable)?;
    }
    let reader = open()?;
    let (send, requests) = mpsc::channel(WAITING_MAX);
    // It has been read before; a line that cannot be read now means that somebody changes it under our hands.
    let sender = std::thread::spawn(move || -> Result<(), String> {
        for account in accounts(reader) {
            // The broker has given up; it says why itself.
            if send.blocking_send(account?).is_err() {
                break;
            }
        }
        Ok(())
    });
    let reply = client::ask_for_long(config, async |admin| {
        Ok(admin.user_import(ReceiverStream::new(requests)).await?.into_inner())
    })?;
    sender
        .join()
        .unwrap_or_else(|_| Err("it could not be read".to_owned()))
        .map_err(unusable)?;
    report(&reply)
}

fn report(reply: &UserImportReply) -> Result<(), Failure> {
    say(format_args!(
        "{} created, {} replaced, {} refused",
        reply.created, reply.replaced, reply.refused
    ));
    for refusal in &reply.refusals {
        say(format_args!("{}: {}", refusal.jid, refusal.reason));
    }
    if reply.refused == 0 {
        return Ok(());
    }
    Err(Failure::new(
        failure::REFUSED,
        format!("{} accounts were refused; the others are there", reply.refused),
    ))
}

/// The accounts of a file, in its order.
fn accounts(file: impl std::io::Read) -> impl Iterator<Item = Result<UserImportRequest, String>> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::Headers).from_reader(file);
    let header = reader.headers().cloned();
    let mut lines = reader.into_records();
    let mut seen = HashSet::new();
    let mut next: Option<UserImportRequest> = None;
    let mut over = false;
    let mut step = move || -> Result<Option<UserImportRequest>, String> {
        let header = header.as_ref().map_err(ToString::to_string)?;
        for line in lines.by_ref() {
            let line = line.map_err(|error| error.to_string())?;
            let at = |problem: String| format!("line {}: {problem}", line.position().map_or(0, csv::Position::line));
            let account = account(header, &line).map_err(at)?;
            match &mut next {
                Some(waiting) if waiting.jid == account.jid => join(waiting, account).map_err(at)?,
                _ if !seen.insert(account.jid.clone()) => {
                    return Err(at(format!(
                        "{} is in the file before; all lines of an account must be together",
                        account.jid
                    )));
                }
                waiting => {
                    if let Some(complete) = waiting.replace(account) {
                        return Ok(Some(complete));
                    }
                }
            }
        }
        Ok(next.take())
    };
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        let account = step().transpose();
        over = !matches!(account, Some(Ok(_)));
        account
    })
}

fn account(header: &StringRecord, line: &StringRecord) -> Result<UserImportRequest, String> {
    let problem = |error: csv::Error| match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => err.to_string(),
        _ => error.to_string(),
    };
    if header.iter().any(|column| column == "password") {
        let line: PasswordLine = line.deserialize(Some(header)).map_err(problem)?;
        return Ok(UserImportRequest {
            jid: line.jid,
            credentials: Some(Credentials::Password(line.password)),
        });
    }
    if !header.iter().any(|column| column == "mechanism") {
        return Err(
            "the header must be jid,password or jid,mechanism,iterations,salt,stored_key,server_key".to_owned(),
        );
    }
    let line: KeysLine = line.deserialize(Some(header)).map_err(problem)?;
    let hash = match line.mechanism.as_str() {
        "SCRAM-SHA-1" => ScramHash::Sha1,
        "SCRAM-SHA-256" => ScramHash::Sha256,
        "SCRAM-SHA-512" => ScramHash::Sha512,
        other => {
            return Err(format!(
                "the mechanism must be SCRAM-SHA-1, SCRAM-SHA-256 or SCRAM-SHA-512, not {other:?}"
            ));
        }
    };
    let bytes = |name: &str, text: &str| STANDARD.decode(text).map_err(|_| format!("{name} is not base64"));
    let keys = ScramKeys {
        hash: hash.into(),
        iterations: line.iterations,
        salt: bytes("salt", &line.salt)?.into(),
        stored_key: bytes("stored_key", &line.stored_key)?.into(),
        server_key: bytes("server_key", &line.server_key)?.into(),
    };
    Ok(UserImportRequest {
        jid: line.jid,
        credentials: Some(Credentials::Keys(ScramKeySet { keys: vec![keys] })),
    })
}

/// A further line of the same account.
fn join(account: &mut UserImportRequest, further: UserImportRequest) -> Result<(), String> {
    match (&mut account.credentials, further.credentials) {
        (Some(Credentials::Keys(all)), Some(Credentials::Keys(more))) => {
            all.keys.extend(more.keys);
            Ok(())
        }
        _ => Err(format!("{} has two passwords", account.jid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<UserImportRequest>, String> {
        accounts(text.as_bytes()).collect()
    }

    fn keys(account: &UserImportRequest) -> Vec<(ScramHash, u32)> {
        match &account.credentials {
            Some(Credentials::Keys(set)) => set.keys.iter().map(|keys| (keys.hash(), keys.iterations)).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn passwords_may_be_quoted() {
        let read = read("jid,password\na@localhost,\"p, \"\"q\"\"\"\nb@localhost, spaces \n").unwrap();
        let passwords = ["p, \"q\"", " spaces "].map(|password| Some(Credentials::Password(password.to_owned())));
        assert_eq!(
            read.iter()
                .map(|account| account.credentials.clone())
                .collect::<Vec<_>>(),
            passwords
        );
        assert_eq!(read[1].jid, "b@localhost");
    }

    #[test]
    fn lines_of_one_account_are_one_request() {
        let header = "jid,mechanism,iterations,salt,stored_key,server_key";
        let text = format!(
            "{header}\na@x,SCRAM-SHA-1,4096,c2FsdA==,AA==,AA==\na@x,SCRAM-SHA-256,8192,c2FsdA==,AA==,AA==\nb@x,SCRAM-SHA-1,4096,c2FsdA==,AA==,AA==\n"
        );
        let read = read(&text).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(keys(&read[0]), [(ScramHash::Sha1, 4096), (ScramHash::Sha256, 8192)]);
        assert_eq!(keys(&read[1]), [(ScramHash::Sha1, 4096)]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let header = "jid,mechanism,iterations,salt,stored_key,server_key";
        let cases = [
            (
                "jid\na@x\n".to_owned(),
                "line 2: the header must be jid,password or jid,mechanism,iterations,salt,stored_key,server_key",
            ),
            (
                "jid,password\na@x,p\na@x,q\n".to_owned(),
                "line 3: a@x has two passwords",
            ),
            (
                "jid,password\na@x,p\nb@x,p\na@x,q\n".to_owned(),
                "line 4: a@x is in the file before; all lines of an account must be together",
            ),
            (
                format!("{header}\na@x,PLAIN,4096,,,\n"),
                "line 2: the mechanism must be SCRAM-SHA-1, SCRAM-SHA-256 or SCRAM-SHA-512, not \"PLAIN\"",
            ),
            (
                format!("{header}\na@x,SCRAM-SHA-1,4096,!,,\n"),
                "line 2: salt is not base64",
            ),
            (
                format!("{header}\na@x,SCRAM-SHA-1,many,,,\n"),
                "line 2: field 2: invalid digit found in string",
            ),
        ];
        for (text, problem) in cases {
            assert_eq!(read(&text).unwrap_err(), problem);
        }
        assert!(read("jid,password\na@x\n").unwrap_err().contains("line: 2"));
        assert_eq!(read("jid,password\n").unwrap(), []);
    }
}
