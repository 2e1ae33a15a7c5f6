//! The shards of this node, each driven by an actor: node supervisor, shard actors, entity actors.
//!
//! What a shard does is decided in [`heronry_xmpp::shard`]. Here its messages are collected ([`inbox`]), fed to it in runs
//! and its outputs performed ([`evaluator`]), its batches proposed ([`proposer`]) and its rows read ([`entity`]).

mod entity;
mod evaluator;
mod inbox;
mod metrics;
mod proposer;
mod status;
mod supervisor;

use std::time::Duration;

pub(crate) use inbox::{Control, Inboxes, Traffic, Wake, bytes_of, tell_now};
pub(crate) use metrics::{METRICS, replicas};
pub(crate) use status::Statuses;
pub(crate) use supervisor::Shards;

/// Bounds on what a shard's surroundings keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShardLimits {
    /// Messages that wait for one shard. Full: connections whose messages go there are not read.
    pub(crate) inbox_messages_max: usize,
    /// Bytes of their stanzas. Full: connections whose messages go there are not read.
    pub(crate) inbox_bytes_max: usize,
    /// Bytes of batches that are evaluated and not proposed. Full: the shard takes no traffic.
    pub(crate) unproposed_bytes_max: usize,
    /// Bytes of batches that are put into one entry, if there are several.
    pub(crate) entry_bytes_target: usize,
    /// Entries of one shard proposed and not committed. Full: batches wait, and become one entry.
    pub(crate) entries_in_flight_max: usize,
    /// Sessions of one shard that have an actor of their own. Full: they are drained later.
    pub(crate) entities_active_max: usize,
    /// How long an actor stays after it had something to do.
    pub(crate) entity_linger: Duration,
}

impl Default for ShardLimits {
    fn default() -> Self {
        Self {
            inbox_messages_max: 4096,
            inbox_bytes_max: 4 << 20,
            unproposed_bytes_max: 1 << 20,
            entry_bytes_target: 256 << 10,
            entries_in_flight_max: 4,
            entities_active_max: 256,
            entity_linger: Duration::from_secs(2),
        }
    }
}
