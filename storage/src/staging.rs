//! A snapshot on its way: the sender can go on where the receiver stopped.
//!
//! The sender keeps a [`SnapshotView`], which is of one moment however often it is read. The receiver keeps a [`Staging`]: what has come of
//! the snapshot of one id. When a transfer breaks, the next one of the same id begins after the last row that is staged.

use std::fmt;

use bytes::Bytes;
use heronry_proto::raft::SnapshotRow;

use crate::{Chunks, Key, StoreError, snapshot};

/// Names a snapshot: drawn at random by whoever sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(pub u128);

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// How much of a snapshot is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Staged {
    /// Rows.
    pub rows: u64,
    /// The key of the last of them.
    pub last: Option<Key>,
}

/// The rows of a shard as they were at one moment, for other stores.
pub trait SnapshotView: Send + Sync {
    /// The position the rows are applied to.
    fn applied(&self) -> Bytes;

    /// Chunks for a [`Staging`] that has this much already: a header, the rows after it, the end.
    fn chunks(&self, after: &Staged) -> Chunks;
}

/// What has come of a snapshot. Dropped, it is kept for the next of the same id.
pub trait Staging: Send {
    /// How much is there.
    fn staged(&self) -> Staged;

    /// Takes the next chunk: a header first, whether or not something is there already. `true`: that was all.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is not the next chunk of this snapshot, and then it was not taken; otherwise when it cannot be written.
    fn take(&mut self, chunk: Bytes) -> Result<bool, StoreError>;

    /// Replaces all rows of the shard, and the position they are applied to, by those of the snapshot; returns that position. Blocks until
    /// they are durable and current. When it fails, or the process dies, the rows are what they were.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when something is missing; otherwise when the store cannot be written.
    fn install(self: Box<Self>) -> Result<Bytes, StoreError>;
}

/// Checks that chunks are those of one snapshot, in order and whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Assembly {
    pub(crate) applied: Option<Bytes>,
    pub(crate) staged: Staged,
    pub(crate) ended: bool,
    /// The header of this transfer has come.
    begun: bool,
}

impl Assembly {
    pub(crate) fn going_on(applied: Option<Bytes>, staged: Staged, ended: bool) -> Self {
        Self {
            applied,
            staged,
            ended,
            begun: false,
        }
    }

    /// The rows of the next chunk, which are taken.
    pub(crate) fn take(&mut self, chunk: Bytes) -> Result<Vec<SnapshotRow>, StoreError> {
        match snapshot::read(chunk)? {
            snapshot::Chunk::Header { applied } if !self.begun => {
                if self.applied.get_or_insert_with(|| applied.clone()) != &applied {
                    return Err(snapshot::corrupt("it is not the one that has begun"));
                }
                self.begun = true;
                Ok(Vec::new())
            }
            snapshot::Chunk::Rows(rows) if self.begun && !self.ended => {
                let mut last = self.staged.last.as_ref();
                for row in &rows {
                    if last.is_some_and(|last| *last >= row.key) {
                        return Err(snapshot::corrupt("its rows are not in order"));
                    }
                    last = Some(&row.key);
                }
                self.staged.last = last.cloned();
                self.staged.rows += rows.len() as u64;
                Ok(rows)
            }
            snapshot::Chunk::End { rows } if self.begun && rows == self.staged.rows => {
                self.ended = true;
                Ok(Vec::new())
            }
            snapshot::Chunk::End { .. } if self.begun => Err(snapshot::corrupt("rows are missing")),
            _ => Err(snapshot::corrupt("a chunk comes where none is expected")),
        }
    }

    /// The position of a whole snapshot.
    pub(crate) fn whole(&self) -> Result<Bytes, StoreError> {
        match &self.applied {
            Some(applied) if self.ended => Ok(applied.clone()),
            Some(_) => Err(snapshot::corrupt("it has no end")),
            None => Err(snapshot::corrupt("it has no header")),
        }
    }
}
