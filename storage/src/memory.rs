//! A store in memory, for simulations and tests: deterministic, and as forgetful as a disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Bound, Range},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;

use crate::{
    Batch, Chunks, Done, Health, Key, LogState, NodeId, Record, Rows, RowsError, ShardId, ShardRows, SnapshotId,
    SnapshotView, Staged, Staging, Store, StoreError, Value, Write, key::SLOT_BYTES, snapshot, staging::Assembly,
};

/// A [`Store`] that keeps everything in memory and writes nothing.
///
/// It makes the same promises as the one on disk and breaks them at the same points: what was not synced is gone after
/// [`crash`](Self::crash). By default every write is synced at once, on the caller's thread; after
/// [`hold_syncs`](Self::hold_syncs) only [`sync`](Self::sync) does it, so that a test decides what was durable when. Nothing
/// in it depends on time or chance. Clones are handles of the same store.
#[derive(Clone)]
pub struct MemoryStore {
    node: NodeId,
    disk: Arc<Mutex<Disk>>,
}

#[derive(Default)]
struct Disk {
    /// What readers see: all writes.
    visible: Shards,
    /// What a crash leaves: the writes that are synced.
    durable: Shards,
    /// The writes in `visible` that are not in `durable`, in order. Bounded by what callers have in flight.
    unsynced: Vec<(Op, Option<Done>)>,
    held: bool,
    stalled: Duration,
    pressed: bool,
    full: bool,
    failure: Option<StoreError>,
    /// Writes that still succeed before the store fails with this.
    fail_after: Option<(usize, StoreError)>,
    /// What has come of snapshots. A crash forgets it.
    staged: BTreeMap<ShardId, Incoming>,
    /// Shards for which something is coming.
    staging: BTreeSet<ShardId>,
}

/// What has come of a snapshot.
#[derive(Default)]
struct Incoming {
    id: Option<SnapshotId>,
    assembly: Assembly,
    rows: BTreeMap<Key, Value>,
}

#[derive(Clone, Default)]
struct Shards {
    count: Option<u16>,
    notes: BTreeMap<String, Bytes>,
    by_id: BTreeMap<ShardId, Shard>,
}

#[derive(Clone, Default)]
struct Shard {
    log: BTreeMap<u64, Bytes>,
    vote: Option<Bytes>,
    purged: Option<Bytes>,
    applied: Option<Bytes>,
    rows: BTreeMap<Key, Value>,
}

#[derive(Clone)]
enum Op {
    Shards(u16),
    Note(String, Bytes),
    Remove(ShardId),
    Append(ShardId, Vec<Record>),
    Vote(ShardId, Bytes),
    Truncate(ShardId, u64),
    Purge(ShardId, u64, Bytes),
    Apply(ShardId, Vec<Batch>, Bytes),
    Import(ShardId, BTreeMap<Key, Value>, Bytes),
}

impl MemoryStore {
    /// An empty store that belongs to `node`.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            disk: Arc::default(),
        }
    }

    /// From now on nothing becomes durable before [`sync`](Self::sync).
    pub fn hold_syncs(&self) {
        self.disk().held = true;
    }

    /// From now on, and for what is not durable yet, writes are durable at once again.
    pub fn release_syncs(&self) {
        self.disk().held = false;
        self.sync();
    }

    /// Makes all writes durable. Does nothing while the store is stalled.
    pub fn sync(&self) {
        self.sync_some(usize::MAX);
    }

    /// Makes the `count` oldest writes that are not yet durable so.
    pub fn sync_some(&self, count: usize) {
        let mut disk = self.disk();
        if disk.stalled > Duration::ZERO || disk.failure.is_some() {
            return;
        }
        let count = count.min(disk.unsynced.len());
        let synced: Vec<_> = disk.unsynced.drain(..count).collect();
        let mut done = Vec::new();
        for (op, waiting) in synced {
            op.perform(&mut disk.durable);
            done.extend(waiting);
        }
        drop(disk);
        for done in done {
            done(Ok(()));
        }
    }

    /// How many writes a crash would lose.
    pub fn unsynced(&self) -> usize {
        self.disk().unsynced.len()
    }

    /// The machine dies: every handle of this store is dead, and the store that is returned is what the disk has, every synced
    /// write and no other. Callbacks of lost writes are never called.
    pub fn crash(&self) -> Self {
        self.crash_keeping(0)
    }

    /// As [`crash`](Self::crash), but the `count` oldest of the writes that were not synced happen to be on the disk: what is
    /// lost is always a suffix, never a write in between.
    pub fn crash_keeping(&self, count: usize) -> Self {
        let mut disk = self.disk();
        disk.failure.get_or_insert(StoreError::Closed);
        let mut durable = std::mem::take(&mut disk.durable);
        for (op, _) in disk.unsynced.drain(..).take(count) {
            op.perform(&mut durable);
        }
        disk.visible = Shards::default();
        let visible = durable.clone();
        Self {
            node: self.node,
            disk: Arc::new(Mutex::new(Disk {
                visible,
                durable,
                ..Disk::default()
            })),
        }
    }

    /// Every write that is not yet durable, and every later call, gets `error`: a full or a broken disk.
    pub fn fail(&self, error: StoreError) {
        let mut disk = self.disk();
        disk.failure = Some(error.clone());
        let lost = std::mem::take(&mut disk.unsynced);
        drop(disk);
        for done in lost.into_iter().filter_map(|(_, done)| done) {
            done(Err(error.clone()));
        }
    }

    /// As [`fail`](Self::fail), but after `writes` further writes.
    pub fn fail_after(&self, writes: usize, error: StoreError) {
        self.disk().fail_after = Some((writes, error));
    }

    /// The disk hangs, and has for `since`: nothing becomes durable until this is called with zero.
    pub fn stall(&self, since: Duration) {
        let held = {
            let mut disk = self.disk();
            disk.stalled = since;
            disk.held
        };
        if !held {
            self.sync();
        }
    }

    /// What [`Health::pressed`] is to say.
    pub fn press(&self, pressed: bool) {
        self.disk().pressed = pressed;
    }

    /// What [`Health::full`] is to say.
    pub fn fill(&self, full: bool) {
        self.disk().full = full;
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        // Nothing panics while it holds the lock; were it so, the state would still be whole.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from what is visible.
    fn read<T>(&self, shard: ShardId, read: impl FnOnce(&Shard) -> T) -> Result<T, StoreError> {
        let disk = self.disk();
        if let Some(failure) = &disk.failure {
            return Err(failure.clone());
        }
        Ok(match disk.visible.by_id.get(&shard) {
            Some(shard) => read(shard),
            None => read(&Shard::default()),
        })
    }

    fn write(&self, op: Op, done: Option<Done>) -> Result<(), StoreError> {
        let mut disk = self.disk();
        if let Some((writes, error)) = disk.fail_after.take() {
            match writes.checked_sub(1) {
                Some(writes) => disk.fail_after = Some((writes, error)),
                None => {
                    drop(disk);
                    self.fail(error);
                    disk = self.disk();
                }
            }
        }
        if let Some(failure) = disk.failure.clone() {
            drop(disk);
            if let Some(done) = done {
                done(Err(failure.clone()));
            }
            return Err(failure);
        }
        op.clone().perform(&mut disk.visible);
        let sync = done.is_some() && !disk.held;
        disk.unsynced.push((op, done));
        drop(disk);
        if sync {
            self.sync();
        }
        Ok(())
    }
}

impl Op {
    fn perform(self, shards: &mut Shards) {
        match self {
            Self::Shards(count) => shards.count = Some(count),
            Self::Note(name, note) => drop(shards.notes.insert(name, note)),
            Self::Remove(shard) => drop(shards.by_id.remove(&shard)),
            Self::Append(shard, records) => {
                let log = &mut shards.by_id.entry(shard).or_default().log;
                log.extend(records.into_iter().map(|record| (record.index, record.bytes)));
            }
            Self::Vote(shard, vote) => shards.by_id.entry(shard).or_default().vote = Some(vote),
            Self::Truncate(shard, from) => drop(shards.by_id.entry(shard).or_default().log.split_off(&from)),
            Self::Purge(shard, upto, purged) => {
                let shard = shards.by_id.entry(shard).or_default();
                shard.log.retain(|index, _| *index > upto);
                shard.purged = Some(purged);
            }
            Self::Apply(shard, batches, applied) => {
                let shard = shards.by_id.entry(shard).or_default();
                for write in batches.into_iter().flat_map(|batch| batch.writes) {
                    match write {
                        Write::Put(key, value) => drop(shard.rows.insert(key, value)),
                        Write::Delete(key) => drop(shard.rows.remove(&key)),
                    }
                }
                shard.applied = Some(applied);
            }
            Self::Import(shard, rows, applied) => {
                let shard = shards.by_id.entry(shard).or_default();
                shard.rows = rows;
                shard.applied = Some(applied);
            }
        }
    }
}

impl Store for MemoryStore {
    fn node_id(&self) -> NodeId {
        self.node
    }

    fn shards(&self, shards: u16) -> Result<u16, StoreError> {
        self.read(ShardId(0), |_| ())?;
        if let Some(found) = self.disk().visible.count {
            return Ok(found);
        }
        self.write(Op::Shards(shards), None)?;
        self.sync();
        Ok(shards)
    }

    fn present(&self) -> Result<Vec<ShardId>, StoreError> {
        self.read(ShardId(0), |_| ())?;
        Ok(self.disk().visible.by_id.keys().copied().collect())
    }

    fn remove(&self, shard: ShardId) -> Result<(), StoreError> {
        self.write(Op::Remove(shard), None)?;
        self.disk().staged.remove(&shard);
        self.sync();
        Ok(())
    }

    fn note(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        self.read(ShardId(0), |_| ())?;
        Ok(self.disk().visible.notes.get(name).cloned())
    }

    fn set_note(&self, name: &str, note: Bytes) -> Result<(), StoreError> {
        self.write(Op::Note(name.to_owned(), note), None)?;
        self.sync();
        Ok(())
    }

    fn log_state(&self, shard: ShardId) -> Result<LogState, StoreError> {
        self.read(shard, |shard| LogState {
            range: shard
                .log
                .keys()
                .next()
                .copied()
                .zip(shard.log.keys().next_back().copied()),
            vote: shard.vote.clone(),
            purged: shard.purged.clone(),
        })
    }

    fn read_log(&self, shard: ShardId, range: Range<u64>, bytes_max: usize) -> Result<Vec<Record>, StoreError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        self.read(shard, |shard| {
            let mut bytes = 0;
            shard
                .log
                .range(range)
                .take_while(|(_, record)| {
                    let fits = bytes == 0 || bytes + record.len() <= bytes_max;
                    bytes += record.len().max(1);
                    fits
                })
                .map(|(index, bytes)| Record {
                    index: *index,
                    bytes: bytes.clone(),
                })
                .collect()
        })
    }

    // The error of a queued write is told to its `done`.
    fn append(&self, shard: ShardId, records: Vec<Record>, done: Done) {
        let _ = self.write(Op::Append(shard, records), Some(done));
    }

    fn save_vote(&self, shard: ShardId, vote: Bytes, done: Done) {
        let _ = self.write(Op::Vote(shard, vote), Some(done));
    }

    fn truncate(&self, shard: ShardId, from: u64, done: Done) {
        let _ = self.write(Op::Truncate(shard, from), Some(done));
    }

    fn purge(&self, shard: ShardId, upto: u64, purged: Bytes, done: Done) {
        let _ = self.write(Op::Purge(shard, upto, purged), Some(done));
    }

    fn rows(&self, shard: ShardId) -> ShardRows {
        ShardRows::new(MemoryRows {
            store: self.clone(),
            shard,
        })
    }

    fn applied(&self, shard: ShardId) -> Result<Option<Bytes>, StoreError> {
        self.read(shard, |shard| shard.applied.clone())
    }

    fn apply(&self, shard: ShardId, batches: &[Batch], applied: Bytes) -> Result<(), StoreError> {
        if batches
            .iter()
            .flat_map(|batch| &batch.writes)
            .any(|write| write.key().len() < SLOT_BYTES)
        {
            return Err(StoreError::Corrupt("a row's key has no slot".to_owned()));
        }
        self.write(Op::Apply(shard, batches.to_vec(), applied), None)
    }

    fn export(&self, shard: ShardId) -> Result<Chunks, StoreError> {
        self.read(shard, |_| ())?;
        let store = self.clone();
        let chunks = std::iter::once_with(move || {
            let (applied, rows) = match store.read(shard, |shard| (shard.applied.clone(), shard.rows.clone())) {
                Ok(read) => read,
                Err(error) => return vec![Err(error)],
            };
            let (mut writer, header) = snapshot::Writer::start(shard, applied.unwrap_or_default(), 0);
            let mut chunks = vec![header];
            chunks.extend(rows.into_iter().filter_map(|(key, value)| writer.row(key, value)));
            chunks.extend(writer.end());
            chunks.into_iter().map(Ok).collect()
        });
        Ok(Box::new(chunks.flatten()))
    }

    fn view(&self, shard: ShardId) -> Result<Arc<dyn SnapshotView>, StoreError> {
        let (applied, rows) = self.read(shard, |shard| (shard.applied.clone(), shard.rows.clone()))?;
        let applied = applied.unwrap_or_default();
        Ok(Arc::new(MemoryView { shard, applied, rows }))
    }

    fn stage(&self, shard: ShardId, id: Option<SnapshotId>) -> Result<Box<dyn Staging>, StoreError> {
        self.read(shard, |_| ())?;
        let mut disk = self.disk();
        if !disk.staging.insert(shard) {
            return Err(StoreError::Io(format!("shard {shard} takes another snapshot")));
        }
        let incoming = disk
            .staged
            .remove(&shard)
            .filter(|found| id.is_some() && found.id == id);
        let incoming = incoming.unwrap_or_else(|| Incoming {
            id,
            ..Incoming::default()
        });
        let Assembly {
            applied, staged, ended, ..
        } = incoming.assembly;
        Ok(Box::new(MemoryStaging {
            store: self.clone(),
            shard,
            incoming: Some(Incoming {
                assembly: Assembly::going_on(applied, staged, ended),
                ..incoming
            }),
        }))
    }

    fn health(&self) -> Health {
        let disk = self.disk();
        Health {
            queued_bytes: 0,
            pressed: disk.pressed,
            stalled: disk.stalled,
            full: disk.full,
        }
    }

    fn close(&self) -> Result<(), StoreError> {
        self.sync();
        let mut disk = self.disk();
        match disk.failure.replace(StoreError::Closed) {
            None | Some(StoreError::Closed) => Ok(()),
            Some(error) => Err(error),
        }
    }
}

struct MemoryView {
    shard: ShardId,
    applied: Bytes,
    rows: BTreeMap<Key, Value>,
}

impl SnapshotView for MemoryView {
    fn applied(&self) -> Bytes {
        self.applied.clone()
    }

    fn chunks(&self, after: &Staged) -> Chunks {
        let (mut writer, header) = snapshot::Writer::start(self.shard, self.applied.clone(), after.rows);
        let mut chunks = vec![header];
        let from = after.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.rows.range::<Key, _>((from, Bound::Unbounded));
        chunks.extend(rows.filter_map(|(key, value)| writer.row(key.clone(), value.clone())));
        chunks.extend(writer.end());
        Box::new(chunks.into_iter().map(Ok))
    }
}

struct MemoryStaging {
    store: MemoryStore,
    shard: ShardId,
    /// `None` once it is installed.
    incoming: Option<Incoming>,
}

impl Staging for MemoryStaging {
    fn staged(&self) -> Staged {
        self.incoming
            .as_ref()
            .map_or_else(Staged::default, |incoming| incoming.assembly.staged.clone())
    }

    fn take(&mut self, chunk: Bytes) -> Result<bool, StoreError> {
        self.store.read(self.shard, |_| ())?;
        let Some(incoming) = &mut self.incoming else {
            return Err(StoreError::Closed);
        };
        let rows = incoming.assembly.take(chunk)?;
        incoming.rows.extend(rows.into_iter().map(|row| (row.key, row.value)));
        Ok(incoming.assembly.ended)
    }

    fn install(mut self: Box<Self>) -> Result<Bytes, StoreError> {
        let incoming = self.incoming.take().unwrap_or_default();
        let applied = incoming.assembly.whole()?;
        self.store
            .write(Op::Import(self.shard, incoming.rows, applied.clone()), None)?;
        self.store.sync();
        Ok(applied)
    }
}

impl Drop for MemoryStaging {
    fn drop(&mut self) {
        let mut disk = self.store.disk();
        disk.staging.remove(&self.shard);
        if let Some(incoming) = self.incoming.take().filter(|incoming| incoming.id.is_some()) {
            disk.staged.insert(self.shard, incoming);
        }
    }
}

struct MemoryRows {
    store: MemoryStore,
    shard: ShardId,
}

impl Rows for MemoryRows {
    fn row(&self, key: &[u8]) -> Result<Option<Value>, RowsError> {
        let row = self.store.read(self.shard, |shard| shard.rows.get(key).cloned());
        row.map_err(|error| RowsError(error.to_string()))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, RowsError> {
        if prefix.len() < SLOT_BYTES {
            return Err(RowsError("a scan needs a slot".to_owned()));
        }
        let first = prefix.max(from);
        let rows = self.store.read(self.shard, |shard| {
            shard
                .rows
                .range::<[u8], _>((Bound::Included(first), Bound::Unbounded))
                .take_while(|(key, _)| key.starts_with(prefix))
                .take(limit)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        });
        rows.map_err(|error| RowsError(error.to_string()))
    }

    fn scan_back(&self, prefix: &[u8], before: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, RowsError> {
        if prefix.len() < SLOT_BYTES {
            return Err(RowsError("a scan needs a slot".to_owned()));
        }
        if before <= prefix {
            return Ok(Vec::new());
        }
        let rows = self.store.read(self.shard, |shard| {
            shard
                .rows
                .range::<[u8], _>((Bound::Included(prefix), Bound::Excluded(before)))
                .rev()
                .skip_while(|(key, _)| !key.starts_with(prefix))
                .take_while(|(key, _)| key.starts_with(prefix))
                .take(limit)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        });
        rows.map_err(|error| RowsError(error.to_string()))
    }
}
