//! What a backup is of, and by what its files are checked: `manifest.json`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The file's name.
pub(in crate::cli) const MANIFEST: &str = "manifest.json";

/// Its name until it is whole.
pub(super) const MANIFEST_UNFINISHED: &str = "manifest.json.unfinished";

/// Version of the form of a backup.
pub(in crate::cli) const FORM: u32 = 1;

/// A backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct Manifest {
    /// [`FORM`].
    pub(in crate::cli) form: u32,
    /// Names the backup: 32 hexadecimal digits, at random.
    pub(in crate::cli) backup: String,
    /// When it was finished, seconds since the Unix epoch.
    pub(in crate::cli) made: u64,
    /// Of the program that the node ran.
    pub(in crate::cli) version: String,
    /// The id of the cluster that it is of.
    pub(in crate::cli) cluster: String,
    /// What operators call it.
    pub(in crate::cli) name: String,
    /// Of the map when the backup began.
    pub(in crate::cli) map_version: u64,
    /// What a cluster that takes it must be at.
    pub(in crate::cli) feature_level: u32,
    /// Whose accounts it has.
    pub(in crate::cli) domains: Vec<String>,
    /// All shards, by number.
    pub(in crate::cli) shards: Vec<Shard>,
    /// Of all fields above, 64 hexadecimal digits.
    pub(in crate::cli) sha256: String,
}

/// One shard of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct Shard {
    /// Its number.
    pub(in crate::cli) shard: u32,
    /// Where its rows are.
    pub(in crate::cli) file: String,
    /// How long that is.
    pub(in crate::cli) bytes: u64,
    /// Of the file, 64 hexadecimal digits.
    pub(in crate::cli) sha256: String,
    /// How many there are.
    pub(in crate::cli) rows: u64,
    /// How many of them are accounts.
    pub(in crate::cli) accounts: u64,
    /// The term of the last entry that they contain.
    pub(in crate::cli) term: u64,
    /// Its index in the shard's log.
    pub(in crate::cli) index: u64,
    /// The shard's time then, microseconds since the Unix epoch.
    pub(in crate::cli) at: u64,
}

/// What a manifest cannot be.
#[derive(Debug)]
pub(in crate::cli) enum Unreadable {
    /// There is none.
    Missing,
    /// It was written by a later version.
    Newer(u32),
    /// It is not as it was written, or cannot be read: a sentence.
    Damaged(String),
}

impl Manifest {
    /// Makes the directory a backup: all or nothing.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let sealed = Self {
            sha256: self.sum(),
            ..self.clone()
        };
        let unfinished = directory.join(MANIFEST_UNFINISHED);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&unfinished)?;
        serde_json::to_writer_pretty(&file, &sealed)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        // The files' names are on disk before the one that vouches for them.
        File::open(directory)?.sync_all()?;
        fs::rename(&unfinished, directory.join(MANIFEST))?;
        File::open(directory)?.sync_all()
    }

    /// Reads what [`write`](Self::write) wrote.
    pub(in crate::cli) fn read(directory: &Path) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Form {
            form: u32,
        }
        let text = match fs::read(directory.join(MANIFEST)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unreadable::Missing),
            Err(error) => return Err(Unreadable::Damaged(error.to_string())),
        };
        let damaged = |error: serde_json::Error| Unreadable::Damaged(error.to_string());
        let Form { form } = serde_json::from_slice(&text).map_err(damaged)?;
        if form > FORM {
            return Err(Unreadable::Newer(form));
        }
        let manifest: Self = serde_json::from_slice(&text).map_err(damaged)?;
        if manifest.sum() != manifest.sha256 {
            return Err(Unreadable::Damaged("its checksum is wrong".to_owned()));
        }
        Ok(manifest)
    }

    /// The backup's name in a request.
    pub(in crate::cli) fn id(&self) -> u128 {
        // Checked by the sum; another's would be refused by the broker.
        u128::from_str_radix(&self.backup, 16).unwrap_or_default()
    }

    /// Bytes, rows, accounts.
    pub(in crate::cli) fn sums(&self) -> (u64, u64, u64) {
        let sum = |of: fn(&Shard) -> u64| self.shards.iter().map(of).sum();
        (
            sum(|shard| shard.bytes),
            sum(|shard| shard.rows),
            sum(|shard| shard.accounts),
        )
    }

    fn sum(&self) -> String {
        let open = Self {
            sha256: String::new(),
            ..self.clone()
        };
        // Neither maps nor floats: it cannot fail, and it is the same each time.
        let text = serde_json::to_vec(&open).unwrap_or_default();
        hex(&Sha256::digest(text))
    }
}

/// Hexadecimal digits.
pub(in crate::cli) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            form: FORM,
            backup: "00".repeat(15) + "07",
            made: 1,
            version: "1".to_owned(),
            cluster: "c".to_owned(),
            name: "n".to_owned(),
            map_version: 2,
            feature_level: 1,
            domains: vec!["localhost".to_owned()],
            shards: Vec::new(),
            sha256: String::new(),
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_damage_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(Manifest::read(directory.path()), Err(Unreadable::Missing)));
        manifest().write(directory.path()).unwrap();
        let read = Manifest::read(directory.path()).unwrap();
        assert_eq!((read.id(), &read.domains), (7, &manifest().domains));
        let path = directory.path().join(MANIFEST);
        let text = fs::read_to_string(&path).unwrap();
        for (from, to) in [
            ("\"localhost\"", "\"localhose\""),
            ("\"form\": 1,", "\"form\": 1"),
            ("{", ""),
        ] {
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
            assert!(
                matches!(Manifest::read(directory.path()), Err(Unreadable::Damaged(_))),
                "{to}"
            );
        }
        fs::write(&path, r#"{"form": 2, "who": "knows"}"#).unwrap();
        assert!(matches!(Manifest::read(directory.path()), Err(Unreadable::Newer(2))));
    }
}
