//! All rows of a shard, for whoever keeps them elsewhere: a backup.

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use heronry_storage::{Chunks, SnapshotReader, StoreError, Timestamp};

use super::{Group, Leadership, chunks, convert::Applied};

/// Why the rows of a shard cannot be exported here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// This node does not lead the shard, or has no lease: its rows may not be the latest.
    #[error("the shard is not led here")]
    NotLed,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The rows of a shard as of one moment: chunks for a [`SnapshotReader`]. One that ends early lacks its last chunk.
pub type Exported = BoxStream<'static, Result<Bytes, StoreError>>;

/// Up to where rows are applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The term of the last entry.
    pub term: u64,
    /// The index of the last entry.
    pub index: u64,
    /// The greatest time of a batch.
    pub at: Timestamp,
}

impl Position {
    /// Starts to read exported rows, and says where they stand.
    ///
    /// # Errors
    /// As [`SnapshotReader::start`].
    pub fn of(chunks: Chunks) -> Result<(SnapshotReader, Self), StoreError> {
        let (reader, applied) = SnapshotReader::start(chunks)?;
        let applied = Applied::from_bytes(applied)?;
        let position = Self {
            term: applied.log_id.map_or(0, |log_id| *log_id.leader_id),
            index: applied.log_id.map_or(0, |log_id| log_id.index),
            at: Timestamp(applied.at),
        };
        Ok((reader, position))
    }
}

impl Group {
    /// All rows of the shard as its leader has them now: everything that was ever answered, and nothing half.
    ///
    /// # Errors
    /// When this node does not lead the shard with its lease, or when the store cannot be read.
    pub async fn export(&self) -> Result<Exported, ExportError> {
        let Leadership::Leader { term } = *self.leadership().borrow() else {
            return Err(ExportError::NotLed);
        };
        let mut exported = chunks::stream(self.0.store.export(self.0.shard)?);
        let first = exported.next().await.ok_or(StoreError::Closed)??;
        // The rows are those of the moment before, and this node led in the same term then.
        if !self.has_lease(term) {
            return Err(ExportError::NotLed);
        }
        Ok(futures::stream::once(async { Ok(first) }).chain(exported).boxed())
    }
}
