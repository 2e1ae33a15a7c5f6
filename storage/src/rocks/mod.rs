//! The store on disk: one RocksDB for all shards of a node.

mod lock;
mod open;
mod open_stores;
mod pressure;
mod rows;
mod snapshot;
mod staging;
mod sync_mark;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
};

use bytes::Bytes;
use rocksdb::{BoundColumnFamily, ErrorKind, ReadOptions, WriteBatch};

pub use self::open_stores::wait_until_closed;
use self::{
    open_stores::OpenStore,
    pressure::Pressure,
    writer::{Op, Pending, Writer},
};
use crate::{
    Batch, Chunks, Done, Health, LogState, NodeId, OpenError, Options, Record, ShardId, ShardRows, SnapshotId,
    SnapshotView, Staging, Store, StoreError, Write, key,
    key::Kind,
    metrics::{self, FamilySizes, RocksSizes},
};

/// Column families, beside the default one that stays empty.
const LOG: &str = "log";
const RAFT: &str = "raft";
const ROWS: &str = "rows";
const META: &str = "meta";

/// What RocksDB knows of itself, by its names.
const WRITE_STOPPED: &str = "rocksdb.is-write-stopped";
const DELAYED_WRITE_RATE: &str = "rocksdb.actual-delayed-write-rate";
const LEVEL0_FILES: &str = "rocksdb.num-files-at-level0";

/// A [`Store`] in a directory.
///
/// The directory holds `lock` (who has it open), `synced` (see [`sync_mark`]), `store` (RocksDB) and `incoming` (see [`staging`]). It stays locked until the
/// store and every [`ShardRows`] of it are dropped.
pub struct RocksStore {
    shared: Arc<Shared>,
    writer: Mutex<Option<Writer>>,
}

struct Shared {
    db: Arc<Db>,
    node: NodeId,
    /// The current generation of each shard; 0 before its first row.
    generations: Mutex<BTreeMap<ShardId, Arc<AtomicU32>>>,
    queue: Mutex<Option<mpsc::Sender<Pending>>>,
    pressure: Pressure,
    failure: OnceLock<StoreError>,
    options: Options,
    /// The data directory.
    path: PathBuf,
    /// Shards for which a snapshot is coming.
    staging: Mutex<BTreeSet<ShardId>>,
}

/// RocksDB, and the lock that must outlive it. Fields are dropped in this order.
struct Db {
    rocks: rocksdb::DB,
    _lock: lock::DataLock,
    _open: OpenStore,
}

impl RocksStore {
    /// Opens the store in a directory, and makes both when they are not there.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        let opened = open::open(path, &options)?;
        let shared = Arc::new(Shared {
            db: opened.db,
            node: opened.node,
            generations: Mutex::new(opened.generations),
            queue: Mutex::default(),
            pressure: Pressure::new(),
            failure: OnceLock::new(),
            options,
            path: path.to_owned(),
            staging: Mutex::default(),
        });
        let failed = |error| OpenError::Failed {
            path: path.to_owned(),
            error,
        };
        let (queue, writer) = writer::spawn(Arc::clone(&shared), opened.mark).map_err(failed)?;
        *shared.queue() = Some(queue);
        let store = Self {
            shared,
            writer: Mutex::new(Some(writer)),
        };
        store.remove_doomed().map_err(failed)?;
        Ok(store)
    }

    /// Measures the store, for metrics: some reads of memory, and of file sizes that RocksDB knows.
    pub fn measure(&self) {
        let shared = &*self.shared;
        metrics::queued(shared.pressure.queued_bytes.load(Ordering::Relaxed));
        for family in [LOG, RAFT, ROWS, META] {
            let number = |name| shared.family_number(family, name);
            metrics::family(
                family,
                &FamilySizes {
                    table_bytes: number("rocksdb.total-sst-files-size"),
                    memtable_bytes: number("rocksdb.size-all-mem-tables"),
                    level0_files: number(LEVEL0_FILES),
                    pending_compaction_bytes: number("rocksdb.estimate-pending-compaction-bytes"),
                    keys: number("rocksdb.estimate-num-keys"),
                },
            );
        }
        metrics::rocksdb(&RocksSizes {
            // One cache serves all families.
            block_cache_bytes: shared.family_number(ROWS, "rocksdb.block-cache-usage"),
            compactions: shared.number("rocksdb.num-running-compactions"),
            flushes: shared.number("rocksdb.num-running-flushes"),
            write_stopped: shared.number(WRITE_STOPPED),
            delayed_write_bytes: shared.number(DELAYED_WRITE_RATE),
        });
    }

    /// Hands something to the log writer.
    fn submit(&self, op: Op, done: Done) {
        let bytes = op.bytes();
        let pending = Pending { op, bytes, done };
        let refused = match (&self.shared.failure.get(), &*self.shared.queue()) {
            (None, Some(queue)) => {
                self.shared.pressure.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
                queue.send(pending).err().map(|mpsc::SendError(pending)| pending)
            }
            _ => Some(pending),
        };
        if let Some(pending) = refused {
            (pending.done)(Err(self.shared.failure.get().cloned().unwrap_or(StoreError::Closed)));
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Option<mpsc::Sender<Pending>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The families exist since the store was opened; were one gone, that would be our mistake.
    fn family(&self, name: &str) -> Arc<BoundColumnFamily<'_>> {
        self.db.family(name)
    }

    fn staging(&self) -> MutexGuard<'_, BTreeSet<ShardId>> {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where what comes of a snapshot is kept.
    fn incoming(&self, shard: ShardId) -> PathBuf {
        self.path.join("incoming").join(shard.to_string())
    }

    /// The disk has too little room. Where the operating system does not say, it has enough.
    fn full(&self) -> bool {
        self.pressure.full(|| {
            let Ok(found) = rustix::fs::statvfs(&self.path) else {
                return true;
            };
            let (free, size) = (found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize);
            free >= self.options.disk_reserve_bytes.min(size / 16)
        })
    }

    fn alive(&self) -> Result<(), StoreError> {
        self.failure.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// The first failure is final.
    fn fail(&self, error: StoreError) -> StoreError {
        let failure = self.failure.get_or_init(|| {
            if error != StoreError::Closed {
                tracing::error!(%error, "the store has failed");
                metrics::failed();
            }
            error
        });
        failure.clone()
    }

    fn generations(&self) -> MutexGuard<'_, BTreeMap<ShardId, Arc<AtomicU32>>> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn generation(&self, shard: ShardId) -> Arc<AtomicU32> {
        Arc::clone(self.generations().entry(shard).or_default())
    }

    /// Gives out a generation; it is as durable as `batch`. The caller holds the lock on the generations.
    fn new_generation(&self, batch: &mut WriteBatch) -> Result<u32, StoreError> {
        let meta = self.family(META);
        let last = self.db.rocks.get_cf(&meta, key::META_GENERATION).map_err(error)?;
        let last = last.map_or(Ok(0), |last| u32_of(&last))?;
        let next = last
            .checked_add(1)
            .ok_or_else(|| StoreError::Corrupt("generations have run out".to_owned()))?;
        batch.put_cf(&meta, key::META_GENERATION, next.to_be_bytes());
        Ok(next)
    }
}

impl Db {
    fn family(&self, name: &str) -> Arc<BoundColumnFamily<'_>> {
        self.rocks
            .cf_handle(name)
            .expect("column families are checked when the store is opened")
    }
}

impl Store for RocksStore {
    fn node_id(&self) -> NodeId {
        self.shared.node
    }

    fn shards(&self, shards: u16) -> Result<u16, StoreError> {
        let shared = &*self.shared;
        shared.alive()?;
        // The lock serves so that two first times are one after the other.
        let _generations = shared.generations();
        let meta = shared.family(META);
        if let Some(found) = shared.db.rocks.get_cf(&meta, key::META_SHARDS).map_err(error)? {
            let found = found
                .try_into()
                .map_err(|_| StoreError::Corrupt("a number in `meta` is malformed".to_owned()))?;
            return Ok(u16::from_be_bytes(found));
        }
        let mut batch = WriteBatch::default();
        batch.put_cf(&meta, key::META_SHARDS, shards.to_be_bytes());
        shared.write_synced(batch)?;
        Ok(shards)
    }

    fn present(&self) -> Result<Vec<ShardId>, StoreError> {
        self.shared.alive()?;
        let mut present = BTreeSet::new();
        for family in [LOG, RAFT] {
            let mut iterator = self.shared.db.rocks.raw_iterator_cf(&self.shared.family(family));
            let mut from = Some(0u16);
            while let Some(shard) = from {
                iterator.seek(shard.to_be_bytes());
                let found = iterator.key().and_then(key::shard);
                present.extend(found);
                from = found.and_then(|found| found.0.checked_add(1));
            }
            iterator.status().map_err(error)?;
        }
        Ok(present.into_iter().collect())
    }

    fn remove(&self, shard: ShardId) -> Result<(), StoreError> {
        self.shared.alive()?;
        // What is queued of it is written first.
        let (done, written) = std::sync::mpsc::channel();
        self.truncate(shard, 0, Box::new(move |result| drop(done.send(result))));
        written.recv().unwrap_or(Err(StoreError::Closed))?;
        self.shared.remove_shard(shard)
    }

    fn note(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        self.shared.alive()?;
        let note = self.shared.db.rocks.get_cf(&self.shared.family(META), key::note(name));
        note.map(|note| note.map(Bytes::from)).map_err(error)
    }

    fn set_note(&self, name: &str, note: Bytes) -> Result<(), StoreError> {
        self.shared.alive()?;
        let mut batch = WriteBatch::default();
        batch.put_cf(&self.shared.family(META), key::note(name), note);
        self.shared.write_synced(batch)
    }

    fn log_state(&self, shard: ShardId) -> Result<LogState, StoreError> {
        self.shared.alive()?;
        let rocks = &self.shared.db.rocks;
        let raft = self.shared.family(RAFT);
        let kept = |kind| {
            rocks
                .get_cf(&raft, key::raft(shard, kind))
                .map(|kept| kept.map(Bytes::from))
                .map_err(error)
        };

        let (first, last) = (key::log(shard, 0), key::log(shard, u64::MAX));
        let mut iterator = rocks.raw_iterator_cf(&self.shared.family(LOG));
        iterator.seek(first);
        let low = iterator
            .key()
            .filter(|key| key.starts_with(&first[..2]))
            .and_then(key::log_index);
        iterator.seek_for_prev(last);
        let high = iterator
            .key()
            .filter(|key| key.starts_with(&first[..2]))
            .and_then(key::log_index);
        iterator.status().map_err(error)?;
        Ok(LogState {
            range: low.zip(high),
            vote: kept(Kind::Vote)?,
            purged: kept(Kind::Purged)?,
        })
    }

    fn read_log(&self, shard: ShardId, range: Range<u64>, bytes_max: usize) -> Result<Vec<Record>, StoreError> {
        self.shared.alive()?;
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(key::log(shard, range.end));
        let mut iterator = self
            .shared
            .db
            .rocks
            .raw_iterator_cf_opt(&self.shared.family(LOG), options);
        iterator.seek(key::log(shard, range.start));
        let (mut records, mut bytes) = (Vec::new(), 0);
        while let Some((key, value)) = iterator.item() {
            bytes += value.len();
            if bytes > bytes_max && !records.is_empty() {
                break;
            }
            let index = key::log_index(key).ok_or_else(|| StoreError::Corrupt("a log key is malformed".to_owned()))?;
            records.push(Record {
                index,
                bytes: Bytes::copy_from_slice(value),
            });
            iterator.next();
        }
        iterator.status().map_err(error)?;
        Ok(records)
    }

    fn append(&self, shard: ShardId, records: Vec<Record>, done: Done) {
        self.submit(Op::Append(shard, records), done);
    }

    fn save_vote(&self, shard: ShardId, vote: Bytes, done: Done) {
        self.submit(Op::Vote(shard, vote), done);
    }

    fn truncate(&self, shard: ShardId, from: u64, done: Done) {
        self.submit(Op::Truncate(shard, from), done);
    }

    fn purge(&self, shard: ShardId, upto: u64, purged: Bytes, done: Done) {
        self.submit(Op::Purge(shard, upto, purged), done);
    }

    fn rows(&self, shard: ShardId) -> ShardRows {
        ShardRows::new(rows::RocksRows {
            db: Arc::clone(&self.shared.db),
            generation: self.shared.generation(shard),
        })
    }

    fn applied(&self, shard: ShardId) -> Result<Option<Bytes>, StoreError> {
        self.shared.alive()?;
        let applied = self
            .shared
            .db
            .rocks
            .get_cf(&self.shared.family(RAFT), key::raft(shard, Kind::Applied));
        applied.map(|applied| applied.map(Bytes::from)).map_err(error)
    }

    fn apply(&self, shard: ShardId, batches: &[Batch], applied: Bytes) -> Result<(), StoreError> {
        let shared = &*self.shared;
        shared.alive()?;
        let current = shared.generation(shard);
        let mut batch = WriteBatch::default();
        match current.load(Ordering::Acquire) {
            0 => {
                // The first rows of this shard. The lock is held until the number is written, so that none is given out twice.
                let _generations = shared.generations();
                let generation = shared.new_generation(&mut batch)?;
                batch.put_cf(
                    &shared.family(RAFT),
                    key::raft(shard, Kind::Generation),
                    generation.to_be_bytes(),
                );
                shared.write_rows(shard, generation, batch, batches, &applied)?;
                current.store(generation, Ordering::Release);
                Ok(())
            }
            generation => shared.write_rows(shard, generation, batch, batches, &applied),
        }
    }

    fn export(&self, shard: ShardId) -> Result<Chunks, StoreError> {
        self.shared.alive()?;
        Ok(snapshot::export(&self.shared.db, shard))
    }

    fn view(&self, shard: ShardId) -> Result<Arc<dyn SnapshotView>, StoreError> {
        self.shared.alive()?;
        Ok(Arc::new(snapshot::View::open(&self.shared.db, shard)?))
    }

    fn stage(&self, shard: ShardId, id: Option<SnapshotId>) -> Result<Box<dyn Staging>, StoreError> {
        self.shared.alive()?;
        Ok(Box::new(staging::RocksStaging::begin(
            Arc::clone(&self.shared),
            shard,
            id,
        )?))
    }

    fn measure(&self) {
        Self::measure(self);
    }

    fn health(&self) -> Health {
        let pressure = &self.shared.pressure;
        let queued_bytes = pressure.queued_bytes.load(Ordering::Relaxed);
        let delayed = pressure.delayed(|| self.shared.would_delay());
        Health {
            queued_bytes,
            pressed: delayed || queued_bytes > self.shared.options.queue_bytes_max,
            stalled: pressure.stalled(),
            full: self.shared.full(),
        }
    }

    fn close(&self) -> Result<(), StoreError> {
        // Without a sender the writer finishes what is queued and ends.
        drop(self.shared.queue().take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.as_ref().is_some_and(Writer::is_current) {
            return Ok(());
        }
        let ended = writer.map_or(Ok(()), Writer::join);
        match self.shared.fail(ended.err().unwrap_or(StoreError::Closed)) {
            StoreError::Closed => Ok(()),
            error => Err(error),
        }
    }
}

impl Drop for RocksStore {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the store did not close cleanly");
        }
    }
}

impl Shared {
    fn write_rows(
        &self,
        shard: ShardId,
        generation: u32,
        mut batch: WriteBatch,
        batches: &[Batch],
        applied: &Bytes,
    ) -> Result<(), StoreError> {
        let rows = self.family(ROWS);
        let mut writes = 0;
        for write in batches.iter().flat_map(|batch| &batch.writes) {
            let Some(disk) = key::row(write.key(), generation) else {
                return Err(StoreError::Corrupt("a row's key has no slot".to_owned()));
            };
            match write {
                Write::Put(_, value) => batch.put_cf(&rows, disk, value),
                Write::Delete(_) => batch.delete_cf(&rows, disk),
            }
            writes += 1;
        }
        batch.put_cf(&self.family(RAFT), key::raft(shard, Kind::Applied), applied);
        let bytes = batch.size_in_bytes();
        let _busy = self.pressure.busy(&self.pressure.applying);
        self.db
            .rocks
            .write(batch)
            .map_err(|failure| self.fail(error(failure)))?;
        metrics::applied(writes, bytes);
        Ok(())
    }

    /// A number that RocksDB knows of itself; 0 when it does not.
    fn number(&self, name: &str) -> u64 {
        let number = self.db.rocks.property_int_value(name);
        number.ok().flatten().unwrap_or_default()
    }

    /// A number that RocksDB knows of a column family; 0 when it does not.
    fn family_number(&self, family: &str, name: &str) -> u64 {
        let number = self.db.rocks.property_int_value_cf(&self.family(family), name);
        number.ok().flatten().unwrap_or_default()
    }

    /// RocksDB delays or stops writes, or is about to.
    fn would_delay(&self) -> bool {
        self.number(WRITE_STOPPED) > 0
            || self.number(DELAYED_WRITE_RATE) > 0
            || [LOG, ROWS].into_iter().any(|family| {
                self.family_number(family, LEVEL0_FILES) >= open::LEVEL0_FILES_PRESSED
                    || self.family_number(family, "rocksdb.num-immutable-mem-table") >= open::MEMTABLES_PRESSED
            })
    }
}

/// A failure of RocksDB in our words.
#[allow(clippy::needless_pass_by_value)]
fn error(error: rocksdb::Error) -> StoreError {
    let text = error.as_ref().to_owned();
    match error.kind() {
        // RocksDB keeps the operating system's reason as text only.
        _ if text.contains("No space left on device") || text.contains("Disk quota exceeded") => StoreError::Full(text),
        ErrorKind::Corruption => StoreError::Corrupt(text),
        _ => StoreError::Io(text),
    }
}

fn u32_of(bytes: &[u8]) -> Result<u32, StoreError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| StoreError::Corrupt("a number in `meta` is malformed".to_owned()))?;
    Ok(u32::from_be_bytes(bytes))
}
