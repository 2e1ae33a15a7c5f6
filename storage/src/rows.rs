//! The applied rows of one shard, for readers.

use std::sync::Arc;

use crate::{Key, Rows, RowsError, Value};

/// A reading of the applied rows of one shard.
///
/// Cheap to clone, and to send. Every call reads what is applied at that moment, whole batches only. Prefixes given to
/// [`Rows::scan`] must contain the slot (2 bytes): what follows it on disk is not what follows it in a key.
#[derive(Clone)]
pub struct ShardRows(Arc<dyn Rows + Send + Sync>);

impl ShardRows {
    pub(crate) fn new(rows: impl Rows + Send + Sync + 'static) -> Self {
        Self(Arc::new(rows))
    }
}

impl std::fmt::Debug for ShardRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShardRows")
    }
}

impl Rows for ShardRows {
    fn row(&self, key: &[u8]) -> Result<Option<Value>, RowsError> {
        self.0.row(key)
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, RowsError> {
        self.0.scan(prefix, from, limit)
    }

    fn scan_back(&self, prefix: &[u8], before: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, RowsError> {
        self.0.scan_back(prefix, before, limit)
    }
}
