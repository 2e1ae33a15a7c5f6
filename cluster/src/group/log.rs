//! A group's log: openraft's traits over the store, with the newest entries in memory.

use std::{
    collections::VecDeque,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{Stream, StreamExt, stream};
use heronry_storage::{Done, Record, ShardId, Store, StoreError};
use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use tokio::sync::oneshot;

use super::{
    convert::{self, io_error},
    type_config::{Entry, LogId, Types, Vote},
};
use crate::Options;

/// What one reading of older entries brings into memory, bytes.
const READ_BYTES: usize = 1 << 20;

/// A group's log. Clones are handles of the same log.
#[derive(Clone)]
pub(super) struct Log(Arc<Shared>);

struct Shared {
    shard: ShardId,
    store: Arc<dyn Store>,
    tail: Mutex<Tail>,
    /// Entries below are in the store, so that the tail may forget them.
    durable_end: AtomicU64,
    tail_bytes_max: usize,
    log_bytes_max: usize,
    log_held_bytes_max: usize,
}

/// What is known without the store.
struct Tail {
    /// The newest entries, without a gap, up to the last.
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
    vote: Option<Vote>,
    /// The index of the first entry of the log, in memory or not; or where it will be.
    first: u64,
    last: Option<LogId>,
    purged: Option<LogId>,
    size: Size,
}

/// How large the log is, roughly: sums of entries' sizes up to some of them.
#[derive(Default)]
struct Size {
    bytes: usize,
    /// Entries up to this index, and after that of the mark before, have this size. Some ten, see [`Size::add`].
    marks: VecDeque<(u64, usize)>,
    unmarked: usize,
}

impl Log {
    pub(super) fn open(shard: ShardId, store: Arc<dyn Store>, options: &Options) -> Result<Self, StoreError> {
        let found = store.log_state(shard)?;
        let purged = found.purged.map(convert::log_id_from_bytes).transpose()?;
        let vote = found.vote.map(convert::vote_from_bytes).transpose()?;
        let last = match found.range {
            Some((_, last)) => {
                let record = store.read_log(shard, last..last.saturating_add(1), 0)?.pop();
                let record = record.ok_or_else(|| StoreError::Corrupt("the last log entry is gone".to_owned()))?;
                Some(convert::entry_from_bytes(record.bytes)?.log_id)
            }
            None => purged,
        };
        let first = purged.map_or(0, |purged| purged.index + 1);
        if let Some((found, _)) = found.range.filter(|(found, _)| *found > first) {
            let text = format!("the log begins at {found}, but only what is before {first} was removed");
            return Err(StoreError::Corrupt(text));
        }
        let (entries, last, size) = (VecDeque::new(), last.max(purged), Size::default());
        let tail = Tail {
            entries,
            bytes: 0,
            vote,
            first,
            last,
            purged,
            size,
        };
        let durable_end = AtomicU64::new(tail.end());
        let (tail_bytes_max, log_bytes_max) = (options.tail_bytes_max, options.log_bytes_max);
        let log_held_bytes_max = options.log_held_bytes_max.max(log_bytes_max);
        Ok(Self(Arc::new(Shared {
            shard,
            store,
            tail: Mutex::new(tail),
            durable_end,
            tail_bytes_max,
            log_bytes_max,
            log_held_bytes_max,
        })))
    }

    /// The last entry.
    pub(super) fn last(&self) -> Option<LogId> {
        self.tail().last
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        // Nothing panics while it holds the lock.
        self.0.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries up to `index` are applied: the tail forgets them where it is too long.
    pub(super) fn applied(&self, index: u64) {
        let end = (index + 1).min(self.0.durable_end.load(Ordering::Acquire));
        let mut tail = self.tail();
        while tail.bytes > self.0.tail_bytes_max
            && tail.entries.front().is_some_and(|(entry, _)| entry.log_id.index < end)
        {
            tail.forget_first();
        }
    }

    /// Up to where the log should be purged, when it has become too long: about half of it remains. `held`: it may become longer, since
    /// a replica that takes a snapshot will want what comes after it.
    pub(super) fn to_purge(&self, held: bool) -> Option<u64> {
        let max = match held {
            true => self.0.log_held_bytes_max,
            false => self.0.log_bytes_max,
        };
        self.tail().size.excess(max)
    }

    /// The entries of a range that the log contains.
    fn read(&self, start: u64, end: u64, bytes_max: usize) -> Result<Vec<Entry>, StoreError> {
        let (start, end, mut recent, recent_start) = {
            let tail = self.tail();
            let start = start.max(tail.first);
            let end = end.min(tail.end());
            if start >= end {
                return Ok(Vec::new());
            }
            let (recent, recent_start) = tail.recent(start, end);
            (start, end, recent, recent_start)
        };
        if recent_start <= start {
            limit(&mut recent, bytes_max);
            return Ok(recent);
        }
        // Older ones, which the tail has forgotten because they are in the store.
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let older_end = recent_start.min(end);
        let mut next = start;
        while next < older_end && (bytes == 0 || bytes < bytes_max) {
            let records = self
                .0
                .store
                .read_log(self.0.shard, next..older_end, READ_BYTES.min(bytes_max))?;
            if records.is_empty() {
                return Err(StoreError::Corrupt(format!("log entry {next} is gone")));
            }
            for Record { index, bytes: record } in records {
                if index != next {
                    return Err(StoreError::Corrupt(format!("log entry {next} is gone")));
                }
                bytes += record.len();
                next += 1;
                entries.push(convert::entry_from_bytes(record)?);
            }
        }
        if next == older_end && bytes < bytes_max {
            limit(&mut recent, bytes_max - bytes);
            entries.append(&mut recent);
        }
        Ok(entries)
    }
}

/// Keeps the first entries, `bytes_max` bytes of them but at least one.
fn limit(entries: &mut Vec<Entry>, bytes_max: usize) {
    let mut bytes = 0;
    let fit = entries.iter().take_while(|entry| {
        let fits = bytes == 0 || bytes < bytes_max;
        bytes += size(entry);
        fits
    });
    let fit = fit.count();
    entries.truncate(fit);
}

/// What an entry counts, bytes.
fn size(entry: &Entry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(normal) => normal.0.len() + 16,
        _ => 64,
    }
}

impl Tail {
    /// One more than the index of the last entry of the log.
    fn end(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    /// The entries of a range that are in memory, and the index of the first of them (or where it would be).
    fn recent(&self, start: u64, end: u64) -> (Vec<Entry>, u64) {
        let first = self.end() - self.entries.len() as u64;
        let from = start.max(first).min(end);
        let skip = (from - first.min(from)) as usize;
        let take = (end - from) as usize;
        (
            self.entries
                .iter()
                .skip(skip)
                .take(take)
                .map(|(entry, _)| entry.clone())
                .collect(),
            from,
        )
    }

    fn push(&mut self, entry: Entry, bytes: usize) {
        if self.last == self.purged {
            self.first = entry.log_id.index;
        }
        self.last = Some(entry.log_id);
        self.bytes += bytes;
        self.size.add(entry.log_id.index, bytes);
        self.entries.push_back((entry, bytes));
    }

    fn forget_first(&mut self) {
        if let Some((_, bytes)) = self.entries.pop_front() {
            self.bytes -= bytes;
        }
    }

    fn forget_last(&mut self) {
        if let Some((_, bytes)) = self.entries.pop_back() {
            self.bytes -= bytes;
        }
    }
}

impl Size {
    /// A mark is made this often.
    const MARK_BYTES: usize = 64 << 10;

    fn add(&mut self, index: u64, bytes: usize) {
        self.bytes += bytes;
        self.unmarked += bytes;
        if self.unmarked >= Self::MARK_BYTES {
            self.marks.push_back((index, std::mem::take(&mut self.unmarked)));
        }
    }

    /// The index up to which entries should go so that half of `max` remains; `None` while the log is not larger than `max`.
    fn excess(&self, max: usize) -> Option<u64> {
        let mut remaining = self.bytes;
        if remaining <= max {
            return None;
        }
        let mut upto = None;
        for (index, bytes) in &self.marks {
            if remaining <= max / 2 {
                break;
            }
            remaining -= bytes;
            upto = Some(*index);
        }
        upto
    }

    fn purged(&mut self, upto: u64) {
        while let Some((_, bytes)) = self.marks.pop_front_if(|(index, _)| *index <= upto) {
            self.bytes -= bytes;
        }
    }

    /// Entries from `from` on are gone. What they measured stays counted until the entries before them are purged.
    fn truncated(&mut self, from: u64) {
        while self.marks.back().is_some_and(|(index, _)| *index >= from) {
            self.marks
                .pop_back()
                .into_iter()
                .for_each(|(_, bytes)| self.unmarked += bytes);
        }
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX).map_err(io_error)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, READ_BYTES).map_err(io_error)
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let log = self.clone();
        // In pages, so that a long log that is applied again does not have to fit into memory.
        let pages = stream::unfold(Some(start), move |next| {
            let page = next.map(|next| log.read(next, end, READ_BYTES));
            std::future::ready(match page {
                None => None,
                Some(Err(error)) => Some((vec![Err(io_error(error))], None)),
                Some(Ok(entries)) => entries.last().map(|last| last.log_id.index + 1).map(|next| {
                    (
                        entries.into_iter().map(Ok).collect(),
                        Some(next).filter(|next| *next < end),
                    )
                }),
            })
        });
        pages.flat_map(stream::iter)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.tail().vote)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let tail = self.tail();
        Ok(LogState {
            last_purged_log_id: tail.purged,
            last_log_id: tail.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, saved) = waiting();
        self.0.store.save_vote(self.0.shard, convert::vote_to_bytes(vote), done);
        self.tail().vote = Some(*vote);
        saved.await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        let end = {
            let mut tail = self.tail();
            for entry in entries {
                let record = Record {
                    index: entry.log_id.index,
                    bytes: convert::entry_to_bytes(&entry),
                };
                tail.push(entry, record.bytes.len());
                records.push(record);
            }
            tail.end()
        };
        let shared = Arc::clone(&self.0);
        let done = move |result: Result<(), StoreError>| {
            if result.is_ok() {
                shared.durable_end.fetch_max(end, Ordering::AcqRel);
            }
            callback.io_completed(result.map_err(io_error));
        };
        self.0.store.append(self.0.shard, records, Box::new(done));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |last| last.index + 1);
        {
            let mut tail = self.tail();
            if from >= tail.end() {
                return Ok(());
            }
            while tail.entries.back().is_some_and(|(entry, _)| entry.log_id.index >= from) {
                tail.forget_last();
            }
            tail.last = last.max(tail.purged);
            tail.size.truncated(from);
        }
        let (done, truncated) = waiting();
        self.0.store.truncate(self.0.shard, from, done);
        truncated.await?;
        // Everything that was given to the store before is done, too.
        self.0.durable_end.fetch_min(from, Ordering::AcqRel);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        {
            let mut tail = self.tail();
            while tail
                .entries
                .front()
                .is_some_and(|(entry, _)| entry.log_id.index <= upto.index)
            {
                tail.forget_first();
            }
            tail.purged = Some(upto);
            tail.first = upto.index + 1;
            tail.last = tail.last.max(Some(upto));
            tail.size.purged(upto.index);
        }
        self.0.durable_end.fetch_max(upto.index + 1, Ordering::AcqRel);
        // Not waited for: until it is done, the log is longer than it must be.
        let done = Box::new(|result| {
            if let Err(error) = result {
                tracing::debug!(%error, "a log was not purged");
            }
        });
        self.0
            .store
            .purge(self.0.shard, upto.index, convert::log_id_to_bytes(&upto), done);
        Ok(())
    }
}

/// Something the store calls when it is done, and a future of that.
fn waiting() -> (Done, impl Future<Output = Result<(), io::Error>>) {
    let (sender, receiver) = oneshot::channel();
    // Whoever waited may be gone.
    let done = Box::new(move |result| drop(sender.send(result)));
    let result = async { receiver.await.unwrap_or(Err(StoreError::Closed)).map_err(io_error) };
    (done, result)
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}
