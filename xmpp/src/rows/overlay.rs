//! Rows as an entity must see them: what is applied, and over it what is evaluated but not yet committed.

use std::collections::{BTreeMap, VecDeque};

use super::{Key, Rows, RowsError, Value, Write};

/// The writes of batches in flight.
#[derive(Debug, Default)]
pub struct Overlay {
    rows: BTreeMap<Key, Pending>,
    /// Keys by batch, oldest batch first, so that a commit touches only its own.
    keys: VecDeque<(u64, Key)>,
}

#[derive(Debug)]
struct Pending {
    batch: u64,
    /// `None` for a row that is removed.
    value: Option<Value>,
}

impl Overlay {
    /// Makes a write visible to later evaluations; `batch` numbers never decrease.
    pub fn write(&mut self, batch: u64, write: &Write) {
        let (key, value) = match write {
            Write::Put(key, value) => (key, Some(value.clone())),
            Write::Delete(key) => (key, None),
        };
        self.rows.insert(key.clone(), Pending { batch, value });
        self.keys.push_back((batch, key.clone()));
    }

    /// Forgets the writes of batches up to `batch`: they are applied now.
    pub fn settle(&mut self, batch: u64) {
        while let Some((_, key)) = self.keys.pop_front_if(|(written_by, _)| *written_by <= batch) {
            if self.rows.get(&key).is_some_and(|pending| pending.batch <= batch) {
                self.rows.remove(&key);
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.keys.clear();
    }

    /// Reads through the overlay into `applied`.
    pub fn over<'a>(&'a self, applied: &'a dyn Rows) -> View<'a> {
        View { overlay: self, applied }
    }
}

/// A reading of the overlay over the applied rows.
#[derive(Clone, Copy)]
pub struct View<'a> {
    overlay: &'a Overlay,
    applied: &'a dyn Rows,
}

impl Rows for View<'_> {
    fn row(&self, key: &[u8]) -> Result<Option<Value>, RowsError> {
        match self.overlay.rows.get(key) {
            Some(pending) => Ok(pending.value.clone()),
            None => self.applied.row(key),
        }
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, RowsError> {
        if self.overlay.rows.is_empty() {
            return self.applied.scan(prefix, from, limit);
        }
        let start = Key::copy_from_slice(prefix.max(from));
        let pending: BTreeMap<&Key, &Option<Value>> = self
            .overlay
            .rows
            .range(start..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, pending)| (key, &pending.value))
            .collect();
        // Each pending write hides at most one applied row, so this many applied rows leave `limit` visible ones.
        let mut rows = self.applied.scan(prefix, from, limit.saturating_add(pending.len()))?;
        rows.retain(|(key, _)| !pending.contains_key(key));
        rows.extend(
            pending
                .into_iter()
                .filter_map(|(key, value)| Some((key.clone(), value.clone()?))),
        );
        rows.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        rows.truncate(limit);
        Ok(rows)
    }

    fn scan_back(&self, prefix: &[u8], before: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, RowsError> {
        if self.overlay.rows.is_empty() {
            return self.applied.scan_back(prefix, before, limit);
        }
        let (start, end) = (Key::copy_from_slice(prefix), Key::copy_from_slice(before.max(prefix)));
        let pending: BTreeMap<&Key, &Option<Value>> = self
            .overlay
            .rows
            .range(start..end)
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, pending)| (key, &pending.value))
            .collect();
        // As above.
        let mut rows = self
            .applied
            .scan_back(prefix, before, limit.saturating_add(pending.len()))?;
        rows.retain(|(key, _)| !pending.contains_key(key));
        rows.extend(
            pending
                .into_iter()
                .filter_map(|(key, value)| Some((key.clone(), value.clone()?))),
        );
        rows.sort_unstable_by(|(left, _), (right, _)| right.cmp(left));
        rows.truncate(limit);
        Ok(rows)
    }
}
