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
//! Liveness is judged per pair of nodes ([`mod@liveness`]); a leader that a majority supports has its lease ([`Group::has_lease`]).
//!
//! All of openraft is below [`mod@group`]; nothing here knows what a row means.

mod blocking;
pub mod controller;
mod error;
mod group;
mod groups;
mod identity;
pub mod joining;
mod liveness;
pub mod map;
pub mod member;
mod message;
mod metrics;
mod options;
pub mod placement;
pub mod transport;
mod wire;

pub use blocking::blocking;
pub use error::{ProposeError, StartError};
pub use group::{
    ChangeError, Committed, ExportError, Exported, Group, Leadership, Membership, Position, Proposal, Refused, Round,
    Term,
};
pub use groups::{Groups, GroupsHandle};
pub use heronry_storage::{
    Batch, Chunks, Key, MemoryStore, NodeId, OpenError, RocksStore, Rows, RowsError, ShardId, ShardRows,
    SnapshotReader, Store, StoreError, Timestamp, Value, Write,
};
pub use identity::{ClusterId, NoClusterId};
pub use metrics::METRICS;
pub use options::Options;
pub use transport::PeerId;
pub use wire::{NoWire, Wire, WireError};
