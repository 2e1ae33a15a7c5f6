//! How groups behave.

use std::time::Duration;

/// Options of [`Groups`](crate::Groups).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many shards there are. Fixed when a store is founded: an address belongs to a shard by this number. Default 16.
    pub shards: u16,
    /// The largest entry, bytes of keys and values ([`Batch::size`](crate::Batch::size)); a larger one is refused. It must be
    /// greater than any frame, so that what one of them causes always fits. Default 1 MiB.
    pub entry_bytes_max: usize,
    /// What one group may have proposed and not yet applied, bytes; more is refused as busy. Default 4 MiB.
    pub in_flight_bytes_max: usize,
    /// Once a group's log is larger than this, bytes, its older half is removed (as far as it is applied). Default 4 MiB.
    pub log_bytes_max: usize,
    /// As `log_bytes_max`, while a snapshot is on its way to another replica, which will want what was written meanwhile. Default 64 MiB.
    pub log_held_bytes_max: usize,
    /// Applied entries that a group keeps in memory for replicas that are a little behind, bytes. Default 64 KiB.
    pub tail_bytes_max: usize,
    /// A write that takes longer is a stall: proposals are refused as busy until it ends. Default 1 s.
    pub stall_after: Duration,
    /// How long a node that answers a ping supports no other leader than the asker. A node that has died is missed that long.
    /// Default 1 s.
    pub lease: Duration,
    /// How much earlier the asker gives up: what clocks may drift in that time, and what an evaluation takes. Default 100 ms.
    pub lease_margin: Duration,
    /// From one ping to the next. Default 100 ms.
    pub ping_interval: Duration,
    /// How long a shutdown waits for proposals that are under way, and then for the store. Default 4 s.
    pub shutdown_timeout: Duration,
    /// Threads for Raft, apart from those that evaluate and those that hold sockets, so that none starves another; 0: the
    /// runtime of the caller. Default 1.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shards: 16,
            entry_bytes_max: 1 << 20,
            in_flight_bytes_max: 4 << 20,
            log_bytes_max: 4 << 20,
            log_held_bytes_max: 64 << 20,
            tail_bytes_max: 64 << 10,
            stall_after: Duration::from_secs(1),
            lease: Duration::from_secs(1),
            lease_margin: Duration::from_millis(100),
            ping_interval: Duration::from_millis(100),
            shutdown_timeout: Duration::from_secs(4),
            threads: 1,
        }
    }
}
