//! The log writer: one thread that makes durable what all shards have pending.

use std::{
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
    time::Instant,
};

use bytes::Bytes;
use rocksdb::WriteBatch;

use super::{LOG, RAFT, Shared, error, lock::io_error, sync_mark::SyncMark};
use crate::{Done, Record, ShardId, StoreError, key, key::Kind, metrics};

/// Something for the log writer.
pub(super) enum Op {
    Append(ShardId, Vec<Record>),
    Vote(ShardId, Bytes),
    Truncate(ShardId, u64),
    Purge(ShardId, u64, Bytes),
}

/// An [`Op`] in the queue.
///
/// The queue itself has no bound, since what has been decided must be written; what goes in is bounded by whoever decides, who
/// asks [`Health::pressed`](crate::Health) first (`queue_bytes_max`).
pub(super) struct Pending {
    pub(super) op: Op,
    pub(super) bytes: usize,
    pub(super) done: Done,
}

/// The thread.
pub(super) struct Writer(thread::JoinHandle<Result<(), StoreError>>);

/// Starts the thread. It ends when the sender is dropped and everything is written.
pub(super) fn spawn(shared: Arc<Shared>, mark: SyncMark) -> Result<(mpsc::Sender<Pending>, Writer), StoreError> {
    let (sender, queue) = mpsc::channel();
    let thread = thread::Builder::new().name("log-writer".to_owned());
    let thread = thread
        .spawn(move || run(&shared, &queue, &mark))
        .map_err(|error| io_error(&error))?;
    Ok((sender, Writer(thread)))
}

impl Writer {
    /// We are on it: a [`Done`] was the last to hold the store.
    pub(super) fn is_current(&self) -> bool {
        self.0.thread().id() == thread::current().id()
    }

    pub(super) fn join(self) -> Result<(), StoreError> {
        self.0
            .join()
            .unwrap_or_else(|_| Err(StoreError::Io("the log writer has panicked".to_owned())))
    }
}

fn run(shared: &Shared, queue: &mpsc::Receiver<Pending>, mark: &SyncMark) -> Result<(), StoreError> {
    let mut waiting = Vec::new();
    while let Ok(first) = queue.recv() {
        let mut commit = Commit::default();
        commit.add(shared, first, &mut waiting);
        while commit.bytes < shared.options.commit_bytes_max {
            let Ok(next) = queue.try_recv() else { break };
            commit.add(shared, next, &mut waiting);
        }
        let (records, bytes) = (commit.records, commit.bytes);
        let result = commit.write(shared, mark);
        shared.pressure.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Err(error) = &result {
            tracing::debug!(records, bytes, %error, "a commit has failed");
        }
        for done in waiting.drain(..) {
            done(result.clone());
        }
    }
    // What was applied since the last commit.
    shared.alive().and_then(|()| sync(shared, mark))
}

#[derive(Default)]
struct Commit {
    batch: WriteBatch,
    bytes: usize,
    records: usize,
}

impl Commit {
    fn add(&mut self, shared: &Shared, pending: Pending, waiting: &mut Vec<Done>) {
        self.bytes += pending.bytes;
        waiting.push(pending.done);
        let (log, raft) = (shared.family(LOG), shared.family(RAFT));
        match pending.op {
            Op::Append(shard, records) => {
                self.records += records.len();
                for record in records {
                    self.batch.put_cf(&log, key::log(shard, record.index), record.bytes);
                }
            }
            Op::Vote(shard, vote) => self.batch.put_cf(&raft, key::raft(shard, Kind::Vote), vote),
            Op::Truncate(shard, from) => {
                self.batch
                    .delete_range_cf(&log, key::log(shard, from), key::log(shard, u64::MAX));
            }
            Op::Purge(shard, upto, purged) => {
                self.batch
                    .delete_range_cf(&log, key::log(shard, 0), key::log(shard, upto.saturating_add(1)));
                self.batch.put_cf(&raft, key::raft(shard, Kind::Purged), purged);
            }
        }
    }

    /// Written and synced in two steps: RocksDB lets others write (rows, that is) while a file is synced, but not while a write
    /// asks to be synced.
    fn write(self, shared: &Shared, mark: &SyncMark) -> Result<(), StoreError> {
        shared.alive()?;
        let _busy = shared.pressure.busy(&shared.pressure.committing);
        let began = Instant::now();
        shared
            .db
            .rocks
            .write(self.batch)
            .map_err(|failure| shared.fail(error(failure)))?;
        sync(shared, mark)?;
        metrics::committed(self.records, self.bytes, began.elapsed());
        Ok(())
    }
}

/// Makes everything durable that has been written.
fn sync(shared: &Shared, mark: &SyncMark) -> Result<(), StoreError> {
    let sequence = shared.db.rocks.latest_sequence_number();
    let began = Instant::now();
    shared
        .db
        .rocks
        .flush_wal(true)
        .map_err(|failure| shared.fail(error(failure)))?;
    metrics::synced(began.elapsed());
    mark.store(sequence).map_err(|failure| shared.fail(io_error(&failure)))
}

impl Op {
    /// What it counts in the queue, bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Append(_, records) => records.iter().map(|record| record.bytes.len() + 10).sum(),
            Self::Vote(_, bytes) | Self::Purge(_, _, bytes) => bytes.len() + 10,
            Self::Truncate(..) => 20,
        }
    }
}
