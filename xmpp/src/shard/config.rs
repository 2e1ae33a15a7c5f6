//! What a shard must be told: domains, the table of shards, limits.

use std::sync::Arc;
use std::time::Duration;

use crate::feature::Feature;
use crate::jid;
use crate::link::{NodeId, ShardId};
use crate::xep::{self, pubsub};

/// The highest feature level of the cluster that shards know.
pub const FEATURE_LEVEL: u32 = 2;

/// Settings of a shard. The same for all shards of a cluster node.
#[derive(Clone, Debug)]
pub struct Config {
    /// The domains served, prepared (RFC 7622 §3.2).
    pub domains: Vec<Box<str>>,
    /// The pubsub services: domains, prepared, that are none of `domains`.
    pub pubsub_services: Vec<Box<str>>,
    /// Which shard each slot belongs to.
    pub map: ShardMap,
    /// The cluster node the shard is evaluated on.
    pub node: NodeId,
    /// Whether this is the only cluster node as the shard starts: then a stanza in its recipient's queue is as safe as it can be.
    pub alone: bool,
    /// The cluster's feature level as the shard starts.
    pub feature_level: u32,
    /// Bounds.
    pub limits: Limits,
    /// Whether accounts are made, changed and removed by XEP-0077.
    pub registration: bool,
    /// The software's version (XEP-0092).
    pub version: &'static str,
    /// What answers requests, in order.
    pub features: &'static [&'static dyn Feature],
}

impl Config {
    /// The default settings of a lone node that serves `domain` from `shards` shards.
    pub fn alone(domain: &str, shards: u16) -> Self {
        Self {
            domains: vec![domain.into()],
            pubsub_services: vec![format!("pubsub.{domain}").into()],
            map: ShardMap::even(shards),
            node: NodeId::default(),
            alone: true,
            feature_level: FEATURE_LEVEL,
            limits: Limits::default(),
            registration: false,
            version: env!("CARGO_PKG_VERSION"),
            features: xep::FEATURES,
        }
    }

    /// Whether `domain` is served here.
    pub fn serves(&self, domain: &str) -> bool {
        self.domains.iter().any(|served| &**served == domain)
    }

    /// Whether the address is one of a pubsub service here.
    pub fn is_pubsub_service(&self, jid: &jid::Jid) -> bool {
        jid.local().is_none() && self.pubsub_services.iter().any(|service| &**service == jid.domain())
    }

    /// Whether the address is one of an account here, or of a resource of it.
    pub fn is_account(&self, jid: &jid::Jid) -> bool {
        jid.local().is_some() && self.serves(jid.domain())
    }

    /// The shard an address belongs to.
    pub fn shard_of(&self, bare: &str) -> ShardId {
        self.map.shard_of(jid::slot(bare))
    }
}

/// Slot to shard: a table, so that slots can move.
#[derive(Clone, Debug)]
pub struct ShardMap(Arc<[ShardId]>);

impl ShardMap {
    /// Equal runs of slots for each of `shards` shards; at least one shard, at most one per slot.
    pub fn even(shards: u16) -> Self {
        let slots = crate::rows::SHARD_SLOTS;
        let shards = u32::from(shards.clamp(1, slots));
        // At most the number of shards, which is a u16.
        let shard = |slot: u16| ShardId((u32::from(slot) * shards / u32::from(slots)) as u16);
        Self((0..slots).map(shard).collect())
    }

    /// The shard of a slot.
    pub fn shard_of(&self, slot: u16) -> ShardId {
        self.0.get(usize::from(slot)).copied().unwrap_or(ShardId(0))
    }

    /// One more than the highest number of a shard.
    pub fn shards(&self) -> u16 {
        self.0
            .iter()
            .map(|shard| shard.0)
            .max()
            .map_or(0, |last| last.saturating_add(1))
    }

    /// The slots of a shard.
    pub fn slots_of(&self, shard: ShardId) -> impl Iterator<Item = u16> + '_ {
        self.0
            .iter()
            .zip(0..)
            .filter(move |(owner, _)| **owner == shard)
            .map(|(_, slot)| slot)
    }
}

/// Bounds on what a shard keeps for others, each with what happens when it is reached.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Sessions of one account. Beyond: bind gets `resource-constraint` (RFC 6120 §7.6.2.1).
    pub sessions_per_account_max: usize,
    /// Bytes under way to one device, one stanza more or less. Beyond: under XEP-0198 the session queues in rows, else it ends with `resource-constraint`.
    pub session_credit_bytes: usize,
    /// Bytes one session may have queued in rows. Beyond: the sender gets `resource-constraint`.
    pub session_queue_bytes_max: usize,
    /// Messages stored for one account. Beyond: the sender gets `service-unavailable` (XEP-0160 §3).
    pub stored_messages_max: u32,
    /// Elements an account may keep under XEP-0049. Beyond: `resource-constraint`.
    pub private_elements_max: usize,
    /// Items of one roster. Beyond: `resource-constraint`.
    pub roster_items_max: usize,
    /// Bytes of one roster as it is sent. Beyond: `resource-constraint`.
    pub roster_bytes_max: usize,
    /// Bytes of the name of a contact or of a group. Beyond: `not-acceptable` (RFC 6121 §2.3.3).
    pub roster_name_bytes_max: usize,
    /// Groups of a contact. Beyond: `not-acceptable`.
    pub roster_groups_max: usize,
    /// Subscription requests of strangers that wait for one account's answer. Beyond: they are dropped.
    pub subscription_requests_max: usize,
    /// Addresses one resource may have sent presence to of its own accord. Beyond: `resource-constraint`.
    pub directed_presence_max: usize,
    /// Addresses one account may block. Beyond: `resource-constraint`.
    pub blocked_max: usize,
    /// How long a session may outlive its socket at most, in seconds; what a device gets that asks for nothing.
    pub resume_timeout_max: u32,
    /// Stanzas that wait for other shards. Beyond: the sender gets `resource-constraint`.
    pub forwards_max: usize,
    /// How long a stanza may wait for another shard. Then its sender gets `recipient-unavailable` (type wait).
    pub forward_timeout: Duration,
    /// How long a new leader waits for the edges its session rows name; then they count as dead.
    pub attach_timeout: Duration,
    /// How long a session whose connection has not heard of it yet waits for that connection to ask again.
    pub asking_timeout: Duration,
    /// How long the answer to a frame that wrote something is kept for a repeat.
    pub executed_keep: Duration,
    /// Rows read at once when a queue or store is drained.
    pub drain_rows: usize,
    /// Of pubsub nodes.
    pub pubsub: pubsub::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_per_account_max: 16,
            session_credit_bytes: 64 << 10,
            session_queue_bytes_max: 512 << 10,
            stored_messages_max: 1000,
            private_elements_max: 64,
            roster_items_max: 1000,
            roster_bytes_max: 192 << 10,
            roster_name_bytes_max: 1023,
            roster_groups_max: 32,
            subscription_requests_max: 100,
            directed_presence_max: 100,
            blocked_max: 1000,
            resume_timeout_max: 600,
            forwards_max: 65_536,
            forward_timeout: Duration::from_secs(10),
            attach_timeout: Duration::from_secs(2),
            asking_timeout: Duration::from_secs(30),
            executed_keep: Duration::from_secs(600),
            drain_rows: 32,
            pubsub: pubsub::Limits::default(),
        }
    }
}
