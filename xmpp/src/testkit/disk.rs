//! The rows of one shard: what is committed survives everything.

use std::collections::BTreeMap;

use crate::rows::{Batch, Key, Rows, RowsError, Value, Write};

/// Committed rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(BTreeMap<Key, Value>);

impl Disk {
    pub(super) fn apply(&mut self, batch: &Batch) {
        for write in &batch.writes {
            match write {
                Write::Put(key, value) => self.0.insert(key.clone(), value.clone()),
                Write::Delete(key) => self.0.remove(key),
            };
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.keys()
    }
}

impl Rows for Disk {
    fn row(&self, key: &[u8]) -> Result<Option<Value>, RowsError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, RowsError> {
        let start = Key::copy_from_slice(prefix.max(from));
        let rows = self
            .0
            .range(start..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit);
        Ok(rows.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn scan_back(&self, prefix: &[u8], before: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, RowsError> {
        let range = Key::copy_from_slice(prefix)..Key::copy_from_slice(before.max(prefix));
        let rows = self.0.range(range).rev();
        let rows = rows.filter(|(key, _)| key.starts_with(prefix)).take(limit);
        Ok(rows.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
