//! Why a broker does not start, as the exit codes that scripts rely on.

use std::{io, net::SocketAddr, path::PathBuf};

use heronry_storage::{OpenError, StoreError};

use crate::config::ConfigError;

/// Why a broker does not start. Each is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is wrong, or asks for what does not exist.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The lock of the data directory is taken.
    #[error("{} uses the data directory {}: stop it, or name another one with --data DIR", holder(*pid), data.display())]
    DataInUse {
        /// The data directory.
        data: PathBuf,
        /// The process that holds it, where that is known.
        pid: Option<u32>,
    },
    /// What is on the disk is not what was written.
    #[error("the store in {} is damaged ({problem}): restore a backup, or start with an empty data directory", data.display())]
    StoreCorrupt {
        /// The data directory.
        data: PathBuf,
        /// What was found.
        problem: String,
    },
    /// The store's format is newer than this program.
    #[error("the store in {} has format {found}, this program reads up to {supported}: start the newer heronry that wrote it", data.display())]
    StoreNewer {
        /// The data directory.
        data: PathBuf,
        /// The store's format.
        found: u32,
        /// The newest this program reads.
        supported: u32,
    },
    /// No space left.
    #[error("the disk of {} is full: make room, or name another data directory with --data DIR", data.display())]
    DiskFull {
        /// The data directory.
        data: PathBuf,
    },
    /// The data directory cannot be made, read or written.
    #[error("the data directory {} cannot be used ({error}): name one that can be written with --data DIR", data.display())]
    DataUnusable {
        /// The data directory.
        data: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A listener cannot be opened.
    #[error(
        "cannot listen on {address} ({error}): set `{key}` to a free address, for example with --set {key}=IP:PORT"
    )]
    Listen {
        /// The key that names the address.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("{0}")]
    Tls(String),
    /// Everything else, as a sentence.
    #[error("{0}")]
    Failed(String),
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Locked { path, pid } => Self::DataInUse { data: path, pid },
            OpenError::Newer { path, found, known } => Self::StoreNewer {
                data: path,
                found,
                supported: known,
            },
            OpenError::Failed { path, error } => Self::store(path, error),
        }
    }
}

impl StartError {
    /// A store in `data` that does not work, or does not any more.
    pub fn store(data: impl Into<PathBuf>, error: StoreError) -> Self {
        let data = data.into();
        match error {
            StoreError::Full(_) => Self::DiskFull { data },
            StoreError::Corrupt(problem) => Self::StoreCorrupt { data, problem },
            StoreError::Io(error) => Self::DataUnusable {
                data,
                error: io::Error::other(error),
            },
            StoreError::Closed => Self::Failed("the store is closed".to_owned()),
        }
    }

    /// The process's exit code; the table is in the README.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Config(_) => 2,
            Self::DataInUse { .. } => 3,
            Self::StoreCorrupt { .. } => 4,
            Self::StoreNewer { .. } => 5,
            Self::DiskFull { .. } => 6,
            Self::Listen { .. } => 7,
            Self::Tls(_) => 8,
            Self::DataUnusable { .. } => 9,
        }
    }

    /// An input/output error of the data directory: a full disk is told apart.
    pub fn data(data: impl Into<PathBuf>, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { data: data.into() },
            _ => Self::DataUnusable {
                data: data.into(),
                error,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_store_says_has_a_code_and_a_sentence() {
        let path = PathBuf::from("/d");
        let failed = |error| OpenError::Failed {
            path: path.clone(),
            error,
        };
        let cases = [
            (
                OpenError::Locked {
                    path: path.clone(),
                    pid: Some(7),
                },
                3,
                "process 7 uses the data directory /d: stop it, or name another one with --data DIR",
            ),
            (
                failed(StoreError::Corrupt("no manifest".to_owned())),
                4,
                "the store in /d is damaged (no manifest): restore a backup, or start with an empty data directory",
            ),
            (
                OpenError::Newer {
                    path: path.clone(),
                    found: 2,
                    known: 1,
                },
                5,
                "the store in /d has format 2, this program reads up to 1: start the newer heronry that wrote it",
            ),
            (
                failed(StoreError::Full("ENOSPC".to_owned())),
                6,
                "the disk of /d is full: make room, or name another data directory with --data DIR",
            ),
            (
                failed(StoreError::Io("EIO".to_owned())),
                9,
                "the data directory /d cannot be used (EIO): name one that can be written with --data DIR",
            ),
        ];
        for (error, code, sentence) in cases {
            let error = StartError::from(error);
            assert_eq!((error.exit_code(), error.to_string().as_str()), (code, sentence));
        }
    }
}
