//! Reading the applied rows of one shard.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use rocksdb::ReadOptions;

use super::{Db, ROWS};
use crate::{Key, Rows, RowsError, Value, key};

pub(super) struct RocksRows {
    pub(super) db: Arc<Db>,
    pub(super) generation: Arc<AtomicU32>,
}

impl RocksRows {
    /// Reads from the current generation; again, should a snapshot have replaced it meanwhile.
    fn read<T>(&self, read: impl Fn(u32) -> Result<T, RowsError>) -> Result<T, RowsError> {
        loop {
            let generation = self.generation.load(Ordering::Acquire);
            let result = read(generation)?;
            if self.generation.load(Ordering::Acquire) == generation {
                return Ok(result);
            }
        }
    }
}

impl Rows for RocksRows {
    fn row(&self, row: &[u8]) -> Result<Option<Value>, RowsError> {
        self.read(|generation| {
            let disk = key::row(row, generation).ok_or_else(|| RowsError("a row's key needs a slot".to_owned()))?;
            let value = self
                .db
                .rocks
                .get_pinned_cf(&self.db.family(ROWS), disk)
                .map_err(error)?;
            Ok(value.map(|value| Bytes::copy_from_slice(&value)))
        })
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, RowsError> {
        let first = prefix.max(from);
        if !first.starts_with(prefix) {
            return Ok(Vec::new());
        }
        self.read(|generation| {
            let bounds = key::row(prefix, generation).zip(key::row(first, generation));
            let (prefix, first) = bounds.ok_or_else(|| RowsError("a scan needs a slot".to_owned()))?;
            let mut options = ReadOptions::default();
            if let Some(end) = key::successor(&prefix) {
                options.set_iterate_upper_bound(end);
            }
            let mut iterator = self.db.rocks.raw_iterator_cf_opt(&self.db.family(ROWS), options);
            iterator.seek(first);
            let mut rows = Vec::new();
            while let Some((disk, value)) = iterator.item().filter(|_| rows.len() < limit) {
                let key = key::row_key(disk).ok_or_else(|| RowsError("a row's key is malformed".to_owned()))?;
                rows.push((key, Bytes::copy_from_slice(value)));
                iterator.next();
            }
            iterator.status().map_err(error)?;
            Ok(rows)
        })
    }

    fn scan_back(&self, prefix: &[u8], before: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, RowsError> {
        if before <= prefix {
            return Ok(Vec::new());
        }
        self.read(|generation| {
            let slotless = || RowsError("a scan needs a slot".to_owned());
            let prefix_key = key::row(prefix, generation).ok_or_else(slotless)?;
            // The end of the prefix, or a key within it.
            let end = match before.starts_with(prefix) {
                true => Some(key::row(before, generation).ok_or_else(slotless)?),
                false => key::successor(&prefix_key),
            };
            let mut options = ReadOptions::default();
            options.set_iterate_lower_bound(prefix_key);
            if let Some(end) = end {
                options.set_iterate_upper_bound(end);
            }
            let mut iterator = self.db.rocks.raw_iterator_cf_opt(&self.db.family(ROWS), options);
            iterator.seek_to_last();
            let mut rows = Vec::new();
            while let Some((disk, value)) = iterator.item().filter(|_| rows.len() < limit) {
                let key = key::row_key(disk).ok_or_else(|| RowsError("a row's key is malformed".to_owned()))?;
                rows.push((key, Bytes::copy_from_slice(value)));
                iterator.prev();
            }
            iterator.status().map_err(error)?;
            Ok(rows)
        })
    }
}

fn error(failure: rocksdb::Error) -> RowsError {
    RowsError(super::error(failure).to_string())
}
