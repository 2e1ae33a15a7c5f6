//! What a cluster needs of a store.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{Batch, Chunks, ShardRows, SnapshotId, SnapshotView, Staging, StoreError};

/// A cluster node: a random number kept in its data directory, not an address. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A shard, and the group that replicates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One record of a shard's log. Records are consecutive; what they contain is the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the log.
    pub index: u64,
    /// Its content.
    pub bytes: Bytes,
}

/// What a shard's log looks like when it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The indices of the first and the last record; `None`: there is no record.
    pub range: Option<(u64, u64)>,
    /// What was last given to [`Store::save_vote`].
    pub vote: Option<Bytes>,
    /// What was last given to [`Store::purge`].
    pub purged: Option<Bytes>,
}

/// Called once when what it was given with is durable, or when it failed; never dropped uncalled unless the process dies.
/// It is called on the store's writer thread and must not block.
pub type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// How a store keeps up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Bytes that wait for the log writer.
    pub queued_bytes: usize,
    /// New work should wait: too much is queued, or the store is about to delay writes on its own.
    pub pressed: bool,
    /// How long the write or fsync that is under way has taken so far; zero while idle. A second is a stall: give leaderships
    /// away.
    pub stalled: Duration,
    /// The disk has so little room left that what is written now may be the last that can be: give leaderships away, and take nothing more.
    /// It ends when there is room again.
    pub full: bool,
}

/// The log and the rows of every shard this node has a replica of.
///
/// Calls for one shard come from one caller at a time, except that rows may be read by anyone at any time. Order and
/// durability are described at the head of this crate.
pub trait Store: Send + Sync + 'static {
    /// The identity of the cluster node that owns this store.
    fn node_id(&self) -> NodeId;

    /// How many shards there are: `shards` when this is the first time it is asked, otherwise what was said then. Durable when
    /// it returns.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    fn shards(&self, shards: u16) -> Result<u16, StoreError>;

    /// The shards that this store holds anything of, in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn present(&self) -> Result<Vec<ShardId>, StoreError>;

    /// Forgets everything of a shard: its log, its vote and its rows. Durable when it returns. Nobody may use the shard while it
    /// goes, nor a reading of its rows that was taken before.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn remove(&self, shard: ShardId) -> Result<(), StoreError>;

    /// What was last given to [`set_note`](Self::set_note) under this name.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn note(&self, name: &str) -> Result<Option<Bytes>, StoreError>;

    /// Keeps a few bytes about this node under a name. Durable when it returns.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn set_note(&self, name: &str, note: Bytes) -> Result<(), StoreError>;

    /// The state of a shard's log: what was durable when the store was opened, and everything queued since that has become so.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn log_state(&self, shard: ShardId) -> Result<LogState, StoreError>;

    /// The records of a shard's log with an index in `range`, in order. What is queued and not yet written is not found.
    ///
    /// Stops after `bytes_max` bytes, but returns at least one record where there is one.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn read_log(&self, shard: ShardId, range: Range<u64>, bytes_max: usize) -> Result<Vec<Record>, StoreError>;

    /// Appends records to a shard's log. Returns at once.
    fn append(&self, shard: ShardId, records: Vec<Record>, done: Done);

    /// Replaces a shard's vote. Returns at once.
    fn save_vote(&self, shard: ShardId, vote: Bytes, done: Done);

    /// Removes a shard's records with an index of `from` or above. Returns at once.
    fn truncate(&self, shard: ShardId, from: u64, done: Done);

    /// Removes a shard's records with an index of `upto` or below and remembers `purged`. Returns at once.
    fn purge(&self, shard: ShardId, upto: u64, purged: Bytes, done: Done);

    /// The applied rows of a shard. Cheap to clone; the reading is always of what is applied now.
    fn rows(&self, shard: ShardId) -> ShardRows;

    /// What was last given to [`apply`](Self::apply) or came with the last snapshot: up to where the rows are applied.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn applied(&self, shard: ShardId) -> Result<Option<Bytes>, StoreError>;

    /// Applies batches to the rows of a shard, all or nothing, together with the position that they bring it to. Visible when
    /// this returns, durable later.
    ///
    /// # Errors
    /// When the store cannot be written; then nothing was applied.
    fn apply(&self, shard: ShardId, batches: &[Batch], applied: Bytes) -> Result<(), StoreError>;

    /// A consistent reading of all rows of a shard and the position they are applied to, as chunks for another node's
    /// [`import`](Self::import). Nothing is read before the first chunk is asked for; the snapshot is of that moment.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn export(&self, shard: ShardId) -> Result<Chunks, StoreError>;

    /// The rows of a shard as they are now, for as long as the view is kept: it costs the space of what is overwritten meanwhile.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn view(&self, shard: ShardId) -> Result<Arc<dyn SnapshotView>, StoreError>;

    /// What has come of a snapshot for a shard: of this id, if that is what came last, otherwise nothing yet, and what had come is
    /// forgotten. `None`: it is not to be gone on with. One at a time for each shard. What was staged may be gone after a crash.
    ///
    /// # Errors
    /// When the store cannot be read or written, or another is under way for this shard.
    fn stage(&self, shard: ShardId, id: Option<SnapshotId>) -> Result<Box<dyn Staging>, StoreError>;

    /// Replaces all rows of a shard, and the position they are applied to, by those of an exported snapshot; returns that
    /// position. Blocks until the snapshot is durable and current. When it fails, the rows are what they were.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when a chunk is not what was exported; otherwise when the store cannot be written.
    fn import(&self, shard: ShardId, chunks: Chunks) -> Result<Bytes, StoreError> {
        let mut staging = self.stage(shard, None)?;
        for chunk in chunks {
            if staging.take(chunk?)? {
                break;
            }
        }
        staging.install()
    }

    /// How the store keeps up. Cheap; asked before every proposal.
    fn health(&self) -> Health;

    /// Tells metrics how the store is.
    fn measure(&self) {}

    /// Makes everything durable that was given so far and ends the store. Later calls get [`StoreError::Closed`]. Blocks.
    ///
    /// # Errors
    /// When the last writes did not succeed.
    fn close(&self) -> Result<(), StoreError>;
}
