//! What can go wrong with a store, by who can do something about it.

use std::path::PathBuf;

/// A store that worked, or should have, does not. Sticky: a store that gave one gives it for every later call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No space is left on the device. What was acknowledged is safe; free some space and start again.
    #[error("the disk is full: {0}")]
    Full(String),
    /// What was read is not what was written, or something that was written is missing.
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
    /// The operating system refused a read or a write.
    #[error("the store cannot be read or written: {0}")]
    Io(String),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

/// A data directory that cannot be opened.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by {}", .path.display(), holder(.pid))]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// The process that holds it, where it could be read.
        pid: Option<u32>,
    },
    /// A newer version of this program wrote it.
    #[error(
        "{} has the on-disk format {found}, this program knows formats up to {known}; run the newer version",
        .path.display()
    )]
    Newer {
        /// The data directory.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format this program knows.
        known: u32,
    },
    /// It is there and nobody else's, but it does not work.
    #[error("{} cannot be opened: {error}", .path.display())]
    Failed {
        /// The data directory.
        path: PathBuf,
        /// Why.
        #[source]
        error: StoreError,
    },
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
