//! Where shards live, and how their writes agree.
//!
//! A *node* is a process with a store. A *shard* is a slice of all addresses; the nodes that hold a *replica* of it are one
//! Raft *group*, which has a *log* of *entries* and, in each *term*, one *leader* at most. An entry is a list of batches of row
//! writes; a replica applies committed entries to its rows, in order.
//!
//! Whoever evaluates for a shard asks [`Group::leadership`] whether this node leads, proposes batches with the term it was
//! told ([`Group::propose`]), and may act on them once they are committed. In another term the batches are refused, so what was
//! evaluated on rows that are no longer the latest never becomes durable.
//!
//! At present every group has one voter, this node: it leads as long as its process lives, and in a new term after each start.
//!
//! All of openraft is below [`mod@group`]; nothing here knows what a row means.

mod error;
mod group;
mod groups;
mod identity;
pub mod joining;
pub mod map;
mod metrics;
mod options;
pub mod placement;
pub mod transport;

pub use error::{ProposeError, StartError};
pub use group::{Committed, Group, Leadership, Proposal, Refused, Term};
pub use groups::Groups;
pub use heronry_storage::{
    Batch, Key, MemoryStore, NodeId, OpenError, RocksStore, Rows, RowsError, ShardId, ShardRows, Store, StoreError,
    Timestamp, Value, Write,
};
pub use identity::{ClusterId, NoClusterId};
pub use metrics::METRICS;
pub use options::Options;
