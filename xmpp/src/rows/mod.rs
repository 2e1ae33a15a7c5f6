//! The port through which durable state is read and written.
//!
//! A row is a key and a value, both bytes. Keys start with the slot of the address they belong to (2 bytes, big endian;
//! slots `0..4096` are addresses, `4096 + shard` holds a shard's own rows), so that a set of slots is a set of key ranges and
//! can move between shards. What follows the slot is one byte for the table and then the table's own key; values are prost
//! messages. The order of keys is the order of their bytes.

mod overlay;
mod table;

use bytes::Bytes;

pub use overlay::{Overlay, View};
pub use table::{SHARD_SLOTS, Table, account_key, shard_key};

/// A row's key, slot first.
pub type Key = Bytes;

/// A row's value.
pub type Value = Bytes;

/// Microseconds since the Unix epoch, as a shard counts them: never less than what the shard last committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

/// One change of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Creates the row or replaces its value.
    Put(Key, Value),
    /// Removes the row; removing what is not there is no error.
    Delete(Key),
}

impl Write {
    /// The key of the row that changes.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }

    /// What this change counts against the size limit of an entry, in bytes.
    pub fn size(&self) -> usize {
        match self {
            Self::Put(key, value) => key.len() + value.len(),
            Self::Delete(key) => key.len(),
        }
    }
}

/// The row writes of one stanza: applied together or not at all, after every batch before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The shard's time when the batch was evaluated.
    pub at: Timestamp,
    /// In the order they were made; a later write to a key wins.
    pub writes: Vec<Write>,
}

impl Batch {
    /// What the batch counts against the size limit of an entry, in bytes.
    pub fn size(&self) -> usize {
        self.writes.iter().map(Write::size).sum()
    }
}

/// A reading of one shard's applied rows. Reads are synchronous and never see half a batch.
pub trait Rows {
    /// The row under `key`, if there is one.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn row(&self, key: &[u8]) -> Result<Option<Value>, RowsError>;

    /// Up to `limit` rows whose keys start with `prefix` and are `>= from`, in the order of their keys.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, RowsError>;

    /// Up to `limit` rows whose keys start with `prefix` and are `< before`, the last first.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn scan_back(&self, prefix: &[u8], before: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, RowsError>;
}

/// The store could not be read. Whoever meets this answers `internal-server-error` and gives the shard away.
#[derive(Debug, thiserror::Error)]
#[error("rows cannot be read: {0}")]
pub struct RowsError(pub String);
