//! What survives a crash, and nothing else knows how: RocksDB appears in this crate only.
//!
//! A [`Store`] holds, for every shard this node has a replica of, the shard's log and its applied rows. There are two:
//! [`RocksStore`] keeps them on disk, [`MemoryStore`] keeps them in memory and loses on [`MemoryStore::crash`] exactly what was
//! not synced, which is what simulations need. One suite of tests runs against both.
//!
//! # What is durable, and when
//!
//! * Log records, votes, truncations and purges are durable when their [`Done`] is called. They are taken in the order in
//!   which they were given, by one thread for the whole store: whatever is pending, of all shards, is one write and one
//!   fsync.
//! * Rows are visible when [`Store::apply`] returns and durable with the next fsync. The log record they came from is
//!   written before them to the same write-ahead log, so what a crash leaves is always a log that is at least as long as the
//!   rows are far; the lost rows are applied again.
//! * A snapshot is durable and current when [`Staging::install`] returns; before that it is nothing to those who read rows. What has come of
//!   it ([`Store::stage`]) is kept, so that the rest can follow.
//!
//! After the first write that fails the store does nothing more: every later call gets the same error ([`StoreError`]). A
//! write that failed half-way cannot be told from one that did not happen, and neither can what follows it.
//!
//! This crate has no async and does not know what a row means.

mod error;
mod key;
mod memory;
mod metrics;
mod options;
mod rocks;
mod rows;
mod snapshot;
mod staging;
mod store;

pub use error::{OpenError, StoreError};
pub use heronry_xmpp::rows::{Batch, Key, Rows, RowsError, Timestamp, Value, Write};
pub use memory::MemoryStore;
pub use metrics::{METRICS, Metric, MetricKind};
pub use options::Options;
pub use rocks::{RocksStore, wait_until_closed};
pub use rows::ShardRows;
pub use snapshot::{Chunks, SnapshotReader};
pub use staging::{SnapshotId, SnapshotView, Staged, Staging};
pub use store::{Done, Health, LogState, NodeId, Record, ShardId, Store};
