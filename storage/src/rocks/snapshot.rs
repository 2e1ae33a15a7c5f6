//! Taking all rows of a shard out of the store, and removing them from it.

use std::{
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
};

use bytes::Bytes;
use rocksdb::{DBRawIteratorWithThreadMode, ReadOptions, WriteBatch, WriteOptions};

use super::{Db, LOG, META, RAFT, ROWS, RocksStore, Shared, error, lock::io_error, staging, u32_of};
use crate::{Chunks, ShardId, SnapshotView, Staged, StoreError, key, key::Kind, snapshot};

type Iterator<'a> = DBRawIteratorWithThreadMode<'a, rocksdb::DB>;
type Snapshot<'a> = rocksdb::SnapshotWithThreadMode<'a, rocksdb::DB>;

/// Chunks read ahead of whoever takes them.
const AHEAD: usize = 2;

/// The rows of a shard as chunks, as of the moment the first is asked for.
pub(super) fn export(db: &Arc<Db>, shard: ShardId) -> Chunks {
    let db = Arc::clone(db);
    let chunks = std::iter::once_with(move || match View::open(&db, shard) {
        Ok(view) => view.chunks(&Staged::default()),
        Err(error) => Box::new(std::iter::once(Err(error))),
    });
    Box::new(chunks.flatten())
}

/// The rows of a shard at one moment. A thread holds them, for RocksDB's snapshots and iterators borrow from their database.
pub(super) struct View {
    applied: Bytes,
    reader: Arc<Reader>,
}

struct Reader {
    /// `None` when it ends.
    wanted: Option<mpsc::Sender<Wanted>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Rows that are wanted: after these.
type Wanted = (Staged, mpsc::SyncSender<Result<Bytes, StoreError>>);

impl View {
    pub(super) fn open(db: &Arc<Db>, shard: ShardId) -> Result<Self, StoreError> {
        let (wanted, wishes) = mpsc::channel::<Wanted>();
        let (opened, opening) = mpsc::channel();
        let db = Arc::clone(db);
        let hold = move || {
            let view = db.rocks.snapshot();
            let (applied, generation) = match position(&db, &view, shard) {
                Ok(found) => found,
                Err(error) => return drop(opened.send(Err(error))),
            };
            if opened.send(Ok(applied.clone())).is_err() {
                return;
            }
            for (after, chunks) in wishes {
                let read = read_rows(&db, &view, shard, generation, &applied, &after, &chunks);
                if let Err(error) = read {
                    // When nobody takes chunks any more, there is nobody to tell.
                    let _ = chunks.send(Err(error));
                }
            }
        };
        let thread = thread::Builder::new().name("snapshot".to_owned()).spawn(hold);
        let thread = thread.map_err(|error| StoreError::Io(error.to_string()))?;
        let reader = Arc::new(Reader {
            wanted: Some(wanted),
            thread: Some(thread),
        });
        let applied = opening.recv().unwrap_or(Err(StoreError::Closed))?;
        Ok(Self { applied, reader })
    }
}

impl SnapshotView for View {
    fn applied(&self) -> Bytes {
        self.applied.clone()
    }

    fn chunks(&self, after: &Staged) -> Chunks {
        let (sender, chunks) = mpsc::sync_channel(AHEAD);
        let wanted = self.reader.wanted.as_ref();
        // Whoever asks while another reading is under way waits for its end.
        let asked = wanted.is_some_and(|wanted| wanted.send((after.clone(), sender)).is_ok());
        if !asked {
            return Box::new(std::iter::once(Err(StoreError::Closed)));
        }
        Box::new(Reading {
            chunks: Some(chunks),
            _reader: Arc::clone(&self.reader),
        })
    }
}

/// Chunks that are being read; the view lives as long.
struct Reading {
    chunks: Option<mpsc::Receiver<Result<Bytes, StoreError>>>,
    _reader: Arc<Reader>,
}

impl std::iter::Iterator for Reading {
    type Item = Result<Bytes, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.chunks.as_ref()?.recv().ok()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // First: the thread may wait for somebody to take its next chunk.
        drop(self.chunks.take());
    }
}

impl Drop for Reader {
    /// The thread holds the store; it ends as soon as nothing is wanted.
    fn drop(&mut self) {
        drop(self.wanted.take());
        if let Some(thread) = self.thread.take() {
            // A panic has been reported where it happened.
            let _ = thread.join();
        }
    }
}

/// Up to where rows are applied, and their generation.
fn position(db: &Db, view: &Snapshot<'_>, shard: ShardId) -> Result<(Bytes, u32), StoreError> {
    let raft = db.family(RAFT);
    let kept = |kind| view.get_cf(&raft, key::raft(shard, kind)).map_err(error);
    let generation = kept(Kind::Generation)?.map_or(Ok(0), |generation| u32_of(&generation))?;
    let applied = kept(Kind::Applied)?.map(Bytes::from).unwrap_or_default();
    Ok((applied, generation))
}

fn read_rows(
    db: &Db,
    view: &Snapshot<'_>,
    shard: ShardId,
    generation: u32,
    applied: &Bytes,
    after: &Staged,
    chunks: &mpsc::SyncSender<Result<Bytes, StoreError>>,
) -> Result<(), StoreError> {
    let (mut writer, header) = snapshot::Writer::start(shard, applied.clone(), after.rows);
    // A receiver that is gone has lost interest.
    let send = |chunk| chunks.send(Ok(chunk)).is_ok();
    if !send(header) {
        return Ok(());
    }
    let mut options = ReadOptions::default();
    options.set_snapshot(view);
    options.fill_cache(false);
    let mut iterator = db.rocks.raw_iterator_cf_opt(&db.family(ROWS), options);
    let last = after.last.as_ref().and_then(|last| key::row(last, generation));
    let mut from = Some(0);
    if let Some((slot, _)) = last.as_deref().and_then(key::row_place) {
        from = Some(slot);
    }
    while let Some(slot) = from.and_then(|from| seek_slot(&mut iterator, from, generation)) {
        if let Some(last) = &last
            && key::row_place(last) == Some((slot, generation))
        {
            iterator.seek([&last[..], &[0]].concat());
        }
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
        // What is coming is written by somebody, and removed by them.
        if !self.staging().contains(&shard) {
            staging::remove(&self.incoming(shard)).map_err(|error| io_error(&error))?;
        }
        Ok(())
    }

    pub(super) fn remove_generation(&self, generation: u32) -> Result<(), StoreError> {
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
        staging::remove_what_nobody_goes_on_with(&shared.path).map_err(|error| io_error(&error))?;
        for generation in doomed {
            tracing::info!(generation, "removing rows of an unfinished snapshot");
            shared.remove_generation(generation)?;
        }
        Ok(())
    }
}
