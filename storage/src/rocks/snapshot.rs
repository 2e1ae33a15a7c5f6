//! Taking all rows of a shard out of the store, and putting all rows of a shard into it.

use std::{
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
};

use bytes::Bytes;
use rocksdb::{DBRawIteratorWithThreadMode, ReadOptions, WriteBatch, WriteOptions};

use super::{Db, LOG, META, RAFT, ROWS, RocksStore, Shared, error, u32_of};
use crate::{Chunks, ShardId, StoreError, key, key::Kind, snapshot};

type Iterator<'a> = DBRawIteratorWithThreadMode<'a, rocksdb::DB>;

/// Chunks read ahead of whoever takes them.
const AHEAD: usize = 2;

/// The rows of a shard as chunks. A thread reads them once the first is asked for (RocksDB's iterators borrow from their
/// database, so they cannot be kept here).
pub(super) fn export(db: &Arc<Db>, shard: ShardId) -> Chunks {
    Box::new(Export {
        db: Arc::clone(db),
        shard,
        reading: None,
    })
}

struct Export {
    db: Arc<Db>,
    shard: ShardId,
    reading: Option<Reading>,
}

type Reading = (mpsc::Receiver<Result<Bytes, StoreError>>, thread::JoinHandle<()>);

impl Export {
    fn start(&mut self) -> std::io::Result<()> {
        let (sender, receiver) = mpsc::sync_channel(AHEAD);
        let (db, shard) = (Arc::clone(&self.db), self.shard);
        let thread = thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            if let Err(error) = read_rows(&db, shard, &sender) {
                // When nobody takes chunks any more, there is nobody to tell.
                let _ = sender.send(Err(error));
            }
        })?;
        self.reading = Some((receiver, thread));
        Ok(())
    }
}

impl std::iter::Iterator for Export {
    type Item = Result<Bytes, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reading.is_none()
            && let Err(error) = self.start()
        {
            return Some(Err(StoreError::Io(error.to_string())));
        }
        let (chunks, _) = self.reading.as_ref()?;
        chunks.recv().ok()
    }
}

impl Drop for Export {
    /// The thread holds the store; it ends as soon as its next chunk finds nobody.
    fn drop(&mut self) {
        if let Some((chunks, thread)) = self.reading.take() {
            drop(chunks);
            // A panic has been reported where it happened.
            let _ = thread.join();
        }
    }
}

fn read_rows(db: &Db, shard: ShardId, chunks: &mpsc::SyncSender<Result<Bytes, StoreError>>) -> Result<(), StoreError> {
    let view = db.rocks.snapshot();
    let raft = db.family(RAFT);
    let kept = |kind| view.get_cf(&raft, key::raft(shard, kind)).map_err(error);
    let generation = kept(Kind::Generation)?.map_or(Ok(0), |generation| u32_of(&generation))?;
    let applied = kept(Kind::Applied)?.map(Bytes::from).unwrap_or_default();

    let (mut writer, header) = snapshot::Writer::start(shard, applied);
    // A receiver that is gone has lost interest.
    let send = |chunk| chunks.send(Ok(chunk)).is_ok();
    if !send(header) {
        return Ok(());
    }
    let mut options = ReadOptions::default();
    options.set_snapshot(&view);
    options.fill_cache(false);
    let mut iterator = db.rocks.raw_iterator_cf_opt(&db.family(ROWS), options);
    let mut from = Some(0);
    while let Some(slot) = from.and_then(|from| seek_slot(&mut iterator, from, generation)) {
        while let Some((disk, value)) = iterator.item() {
            if key::row_place(disk) != Some((slot, generation)) {
                break;
            }
            let Some(row) = key::row_key(disk) else { break };
            if let Some(chunk) = writer.row(row, Bytes::copy_from_slice(value))
                && !send(chunk)
            {
                return Ok(());
            }
            iterator.next();
        }
        from = slot.checked_add(1);
    }
    iterator.status().map_err(error)?;
    for chunk in writer.end() {
        if !send(chunk) {
            break;
        }
    }
    Ok(())
}

/// The first slot, `from` or above, that has rows of a generation; the iterator then stands on the first of them.
fn seek_slot(iterator: &mut Iterator<'_>, from: u16, generation: u32) -> Option<u16> {
    let mut slot = from;
    loop {
        iterator.seek(key::row_first(slot, generation));
        let found = iterator.key().and_then(key::row_place)?;
        match found {
            (there, that) if that == generation => return Some(there),
            // Rows of an older generation come first in their slot, those of a newer one say that ours has none there.
            (there, that) if there > slot && that < generation => slot = there,
            (there, _) => slot = there.checked_add(1)?,
        }
    }
}

impl Shared {
    /// Writes a snapshot's rows beside the current ones, as a new generation, and makes it the current one.
    pub(super) fn import(&self, shard: ShardId, chunks: Chunks) -> Result<Bytes, StoreError> {
        let (mut reader, applied) = snapshot::SnapshotReader::start(chunks)?;
        let generation = self.begin_generation()?;
        let rows = self.family(ROWS);
        loop {
            let chunk = match reader.rows() {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => {
                    self.remove_generation(generation)?;
                    return Err(error);
                }
            };
            let mut batch = WriteBatch::default();
            for row in chunk {
                let Some(disk) = key::row(&row.key, generation) else {
                    self.remove_generation(generation)?;
                    return Err(StoreError::Corrupt("a snapshot has a row without a slot".to_owned()));
                };
                batch.put_cf(&rows, disk, row.value);
            }
            self.write(batch)?;
        }
        // Everything before the switch is on disk before it: one log, and this write is synced.
        let current = self.generation(shard);
        let old = current.load(Ordering::Acquire);
        let (meta, raft) = (self.family(META), self.family(RAFT));
        let mut batch = WriteBatch::default();
        batch.put_cf(&raft, key::raft(shard, Kind::Generation), generation.to_be_bytes());
        batch.put_cf(&raft, key::raft(shard, Kind::Applied), &applied);
        batch.delete_cf(&meta, key::doomed(generation));
        if old != 0 {
            batch.put_cf(&meta, key::doomed(old), []);
        }
        self.write_synced(batch)?;
        current.store(generation, Ordering::Release);
        if old != 0 {
            self.remove_generation(old)?;
        }
        Ok(applied)
    }

    /// Forgets a shard; its rows become nobody's first.
    pub(super) fn remove_shard(&self, shard: ShardId) -> Result<(), StoreError> {
        let (meta, raft, log) = (self.family(META), self.family(RAFT), self.family(LOG));
        let current = self.generation(shard);
        let old = current.load(Ordering::Acquire);
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(&log, &key::log(shard, 0)[..], &key::log(shard, u64::MAX)[..]);
        for kind in Kind::ALL {
            batch.delete_cf(&raft, key::raft(shard, kind));
        }
        if old != 0 {
            batch.put_cf(&meta, key::doomed(old), []);
        }
        self.write_synced(batch)?;
        current.store(0, Ordering::Release);
        if old != 0 {
            self.remove_generation(old)?;
        }
        Ok(())
    }

    /// A new generation that is nobody's yet: were the process to die now, its rows would be removed at the next start.
    fn begin_generation(&self) -> Result<u32, StoreError> {
        let _generations = self.generations();
        let mut batch = WriteBatch::default();
        let generation = self.new_generation(&mut batch)?;
        batch.put_cf(&self.family(META), key::doomed(generation), []);
        self.write_synced(batch)?;
        Ok(generation)
    }

    fn remove_generation(&self, generation: u32) -> Result<(), StoreError> {
        let rows = self.family(ROWS);
        let mut batch = WriteBatch::default();
        {
            let mut iterator = self.db.rocks.raw_iterator_cf(&rows);
            let mut from = Some(0);
            while let Some(slot) = from.and_then(|from| seek_slot(&mut iterator, from, generation)) {
                let first = key::row_first(slot, generation);
                let end = key::successor(&first).unwrap_or_else(|| vec![0xff; 7]);
                batch.delete_range_cf(&rows, &first[..], &end[..]);
                from = slot.checked_add(1);
            }
            iterator.status().map_err(error)?;
        }
        batch.delete_cf(&self.family(META), key::doomed(generation));
        self.write(batch)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        self.db.rocks.write(batch).map_err(|failure| self.fail(error(failure)))
    }

    pub(super) fn write_synced(&self, batch: WriteBatch) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db
            .rocks
            .write_opt(batch, &options)
            .map_err(|failure| self.fail(error(failure)))
    }
}

impl RocksStore {
    /// Removes what an interrupted import, or an interrupted removal, has left.
    pub(super) fn remove_doomed(&self) -> Result<(), StoreError> {
        let shared = &self.shared;
        let mut doomed = Vec::new();
        {
            let mut iterator = shared.db.rocks.raw_iterator_cf(&shared.family(META));
            iterator.seek(key::META_DOOMED);
            while let Some(generation) = iterator.key().and_then(key::doomed_generation) {
                doomed.push(generation);
                iterator.next();
            }
            iterator.status().map_err(error)?;
        }
        for generation in doomed {
            tracing::info!(generation, "removing rows of an unfinished snapshot");
            shared.remove_generation(generation)?;
        }
        Ok(())
    }
}
