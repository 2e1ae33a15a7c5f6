//! What can go wrong with groups.

use heronry_storage::{NodeId, ShardId, StoreError};

use crate::Term;

/// Groups could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store was founded with another number of shards. It cannot be changed: an address belongs to a shard by it.
    #[error("the store has {found} shards, but {configured} are configured")]
    Shards {
        /// What the store was founded with.
        found: u16,
        /// What the options say.
        configured: u16,
    },
    /// What the store holds for a group is not what a group can start from.
    #[error("shard {shard} cannot be started: {reason}")]
    Group {
        /// The shard.
        shard: ShardId,
        /// Why, as Raft says it.
        reason: String,
    },
    /// The operating system gave no threads.
    #[error("no threads for raft: {0}")]
    Threads(#[from] std::io::Error),
}

/// Batches were not committed, or it is not known that they were.
///
/// [`NotLeader`](Self::NotLeader), [`Storage`](Self::Storage) and [`Closed`](Self::Closed) may arrive for batches that are in
/// the log and will be committed: what becomes of them is seen after the next leader has caught up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead the shard, or no longer has its lease.
    #[error("this node does not lead the shard")]
    NotLeader {
        /// Who does, as far as it is known.
        leader: Option<NodeId>,
    },
    /// This node leads, but in another term: the batches were evaluated before others that are now committed.
    #[error("the shard is led in term {}, not in {}", .leading.0, .proposed.0)]
    Fenced {
        /// The term of the proposal.
        proposed: Term,
        /// The term in which this node leads now.
        leading: Term,
    },
    /// Nothing of it became true, and never will: a proposal of the same round that came before it was refused.
    #[error("a proposal that this one was evaluated upon was refused")]
    Superseded,
    /// Nothing was appended, because too much is under way or the store does not keep up. Wait, then propose again.
    #[error("the shard's storage does not keep up")]
    Busy,
    /// Nothing was appended, and never will be: the batches are larger than an entry may be.
    #[error("an entry of {bytes} bytes is larger than {max}")]
    TooLarge {
        /// Size of the proposal.
        bytes: usize,
        /// `entry_bytes_max`.
        max: usize,
    },
    /// The store has failed; the group has stopped.
    #[error(transparent)]
    Storage(#[from] StoreError),
    /// The group has been shut down.
    #[error("the shard's group is closed")]
    Closed,
}

impl ProposeError {
    /// A name for metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::NotLeader { .. } => "not_leader",
            Self::Fenced { .. } => "fenced",
            Self::Superseded => "superseded",
            Self::Busy => "busy",
            Self::TooLarge { .. } => "too_large",
            Self::Storage(_) => "storage",
            Self::Closed => "closed",
        }
    }
}
