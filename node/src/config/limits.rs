//! `[limits]`: every bound in the program, composed from the bounds of its parts, whose defaults are theirs.

use std::time::Duration;

use heronry_cluster::transport::TransportLimits;
use heronry_xmpp::{
    edge::{EdgeLimits, Patience},
    shard,
    xep::pubsub,
    xml,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units;

/// `[limits]`: every bound in the program. What happens at a bound is said with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest stanza or other top-level element of a stream, after authentication. More ends the stream with
    /// `policy-violation` (RFC 6120 §4.9.3.14), as do the other bounds on XML.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub stanza_bytes_max: usize,
    /// Largest message between edge and core. More than `stanza_bytes_max`, less than `entry_bytes_max`.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub frame_bytes_max: usize,
    /// Largest entry of a shard's log. What one stanza writes must fit.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub entry_bytes_max: usize,
    /// Deepest nesting of elements in a stanza.
    pub depth_max: u16,
    /// Most attributes of one element, namespace declarations included.
    pub attributes_max: u16,
    /// Longest name of an element or attribute, prefix included, in bytes.
    pub name_bytes_max: u16,
    /// Longest name of a namespace, in bytes.
    pub namespace_bytes_max: u16,
    /// Most namespace declarations in one stanza, repetitions included.
    pub namespaces_max: u16,
    /// Most child elements of one element.
    pub children_max: u32,
    /// Most connections of the admin port at a time; further ones wait.
    pub admin_connections_max: u16,
    /// Bytes of accounts that `heronry user import` has committed at a time, as one entry of a shard's log. Less than
    /// `entry_bytes_max`.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub import_batch_bytes: usize,
    /// Most such batches under way, over all shards; beyond it the import is not read. One import runs at a time, another waits.
    pub import_batches_max: u16,
    /// Most shards whose rows are read on this node, or sent to it, for backups at a time; further ones wait and are tried again.
    pub backup_shards_max: u16,
    /// Most spans of traced stanzas that wait to be sent to `telemetry.otlp_endpoint`; beyond it they are dropped and counted.
    pub spans_waiting_max: u32,
    /// How long ending may take after SIGTERM or SIGINT, at most `10s`. What has been acknowledged is committed already.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub shutdown_timeout: Duration,
    /// `[limits.before_auth]`
    pub before_auth: BeforeAuth,
    /// `[limits.edge]`
    pub edge: Edge,
    /// `[limits.shard]`
    pub shard: Shard,
    /// `[limits.pubsub]`
    pub pubsub: Pubsub,
    /// `[limits.group]`
    pub group: Group,
    /// `[limits.link]`
    pub link: Link,
    /// `[limits.storage]`
    pub storage: Store,
    /// `[limits.rate]`
    pub rate: Rate,
}

/// `[limits.before_auth]`: what a stranger may send before it has authenticated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BeforeAuth {
    /// Largest top-level element of a stream before authentication (RFC 6120 §13.12 asks for at least 10 000 bytes).
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub stanza_bytes_max: usize,
    /// Deepest nesting of elements before authentication.
    pub depth_max: u16,
    /// Most attributes of one element before authentication, namespace declarations included.
    pub attributes_max: u16,
    /// Longest name of an element or attribute before authentication, in bytes.
    pub name_bytes_max: u16,
    /// Longest name of a namespace before authentication, in bytes.
    pub namespace_bytes_max: u16,
    /// Most namespace declarations in one element before authentication.
    pub namespaces_max: u16,
    /// Most child elements of one element before authentication.
    pub children_max: u32,
    /// Failed authentications before the stream is closed, 2 to 5 (RFC 6120 §6.4.5).
    pub sasl_retries_max: u8,
    /// Refused resources before the stream is closed, 5 to 10 (RFC 6120 §7.7.3).
    pub bind_retries_max: u8,
    /// Most top-level elements of one negotiation, from the first header to a bound resource.
    pub elements_max: u16,
    /// Most bytes of one negotiation, TLS not counted. More ends the stream with `policy-violation`.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub bytes_max: usize,
    /// How long a connection may take until it has a session, all in all. Then it gets `connection-timeout`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub negotiation_timeout: Duration,
    /// How long a client may take to send a stream header, also after TLS and after authentication.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub header_timeout: Duration,
    /// How long a TLS handshake may take. Then the connection is closed without a word.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub tls_timeout: Duration,
    /// How long a client may take from the features to the beginning of TLS or of an authentication.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub auth_timeout: Duration,
    /// How long a client may take for each answer in an authentication: a small one derives its keys in that time.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub auth_step_timeout: Duration,
    /// How long a client may take from its authentication to a request for a session.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub bind_timeout: Duration,
    /// Most connections that have no session yet, or one of an anonymous account; the next is closed at once.
    pub connections_max: u32,
    /// Of those, most of one address; the next is closed at once. A /64 of IPv6 is one address.
    pub connections_per_address_max: u32,
}

/// `[limits.edge]`: what an edge does and keeps for one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Edge {
    /// Most stanzas of a device that are not accepted yet, at most 32; beyond it the socket is not read.
    pub frames_max: u8,
    /// Most connections; the next is closed at once. When not set: as many as the process may have open files, less those
    /// that it needs for other things.
    pub connections_max: Option<u32>,
    /// TLS sessions that are remembered for resumption, each for once; the oldest is forgotten for the next.
    pub tls_sessions_max: u32,
    /// Most passwords (of PLAIN, of new accounts) that wait to be hashed; the next gets `resource-constraint`.
    pub passwords_waiting_max: u32,
    /// How long a stream that is over waits for the device to end it too (RFC 6120 §4.4).
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub close_timeout: Duration,
    /// Most streams that are ended in a second when the node is drained and devices go to other edges.
    pub handovers_per_second_max: u32,
    /// Most bytes of those stanzas; beyond it the socket is not read.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub frames_bytes_max: usize,
    /// Bytes given to a device after which its session is told at once; otherwise it is told a little later.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub progress_bytes: usize,
    /// How long a shard may take to answer a login, bind or resumption. Then the device gets `temporary-auth-failure`, or an error
    /// of type `wait`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub answer_timeout: Duration,
    /// How long a session may wait for its shard to get a leader. Then its socket is closed, so that the device tries elsewhere.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub orphan_timeout: Duration,
    /// How long an acknowledgement that a device asked for may wait for its stanzas to be accepted (XEP-0198 §4).
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub acknowledge_timeout: Duration,
    /// Most bytes of presence and chat states that a device is spared at a time while it says that it is inactive (XEP-0352);
    /// beyond them it gets all that waits. Less than `session_credit_bytes`; 0 spares it nothing.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub held_bytes_max: usize,
}

/// `[limits.shard]`: what a shard keeps for accounts and their sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Shard {
    /// Sessions of one account; beyond it a bind gets `resource-constraint` (RFC 6120 §7.6.2.1).
    pub sessions_per_account_max: u32,
    /// Bytes under way to one device; beyond it its session queues in rows under XEP-0198, else it ends with
    /// `resource-constraint`.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub session_credit_bytes: usize,
    /// Bytes that one session may have queued in rows; beyond it the sender gets `resource-constraint`.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub session_queue_bytes_max: usize,
    /// Messages stored for one account that is away; beyond it the sender gets `service-unavailable` (XEP-0160 §3).
    pub stored_messages_max: u32,
    /// Elements that an account may keep under XEP-0049; beyond it the device gets `resource-constraint`.
    pub private_elements_max: u32,
    /// Items of one roster; beyond it the device gets `resource-constraint`.
    pub roster_items_max: u32,
    /// Bytes of one roster as it is sent; beyond it the device gets `resource-constraint`.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub roster_bytes_max: usize,
    /// Longest name of a contact or of a group; beyond it the device gets `not-acceptable` (RFC 6121 §2.3.3).
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub roster_name_bytes_max: usize,
    /// Groups of a contact; beyond it the device gets `not-acceptable`.
    pub roster_groups_max: u32,
    /// Subscription requests that wait for one account's answer; further ones are dropped (RFC 6121 §3.1.3).
    pub subscription_requests_max: u32,
    /// Addresses that one resource may have sent presence to of its own accord (RFC 6121 §4.6); beyond it the device gets
    /// `resource-constraint`.
    pub directed_presence_max: u32,
    /// Addresses that one account may block (XEP-0191); beyond it the device gets `resource-constraint`.
    pub blocked_max: u32,
    /// How long a session may outlive its socket, in whole seconds: what a device gets that asks for no time, or for more.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub resume_timeout_max: Duration,
    /// Stanzas that wait for other shards; beyond it the sender gets `resource-constraint`.
    pub forwards_max: u32,
    /// How long a stanza may wait for another shard. Then its sender gets `recipient-unavailable` of type `wait`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub forward_timeout: Duration,
    /// How long a new leader waits for the edges that its sessions are at; then they count as dead.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub attach_timeout: Duration,
    /// How long a session whose connection has not heard of it yet waits for that connection to ask again.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub asking_timeout: Duration,
    /// How long the answer to a stanza that wrote something is kept, for an edge that sends it again.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub executed_keep: Duration,
    /// Rows read at once when a queue is drained, before other work has its turn.
    pub drain_rows: u32,
    /// Most messages that wait for one shard; beyond it connections whose stanzas go there are not read.
    pub inbox_messages_max: u32,
    /// Most bytes of stanzas that wait for one shard; beyond it connections whose stanzas go there are not read.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub inbox_bytes_max: usize,
    /// Most bytes that one shard has evaluated and not given to its group; beyond it the shard evaluates nothing.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub unproposed_bytes_max: usize,
    /// Most entries of one shard that are proposed and not committed; what comes meanwhile becomes one entry.
    pub entries_in_flight_max: u8,
    /// Most sessions of one shard that are drained at a time; the others wait.
    pub entities_active_max: u32,
    /// How long such a session keeps what it needs for that when there is nothing to drain any more.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub entity_linger: Duration,
}

/// `[limits.pubsub]`: what pubsub nodes keep and do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pubsub {
    /// Nodes of one service in one shard; beyond it nobody creates one there: `resource-constraint`.
    pub nodes_per_shard_max: u32,
    /// Items of one node, whatever its configuration says; beyond it happens what its `pubsub#publish_node_full` says.
    pub items_per_node_max: u32,
    /// How many items a node keeps that nobody configures.
    pub default_items: u32,
    /// Items of one request to publish or retract; beyond it the request gets `not-allowed` with `max-items-exceeded`.
    pub batch_items_max: u16,
    /// Largest payload, whatever the node's configuration says; beyond it the request gets `not-acceptable` with
    /// `payload-too-big`.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub payload_bytes_max: usize,
    /// Subscriptions to one node; beyond it the request gets `policy-violation` with `too-many-subscriptions`.
    pub subscriptions_per_node_max: u32,
    /// Subscriptions of one address to one node, each with options of its own; beyond it likewise.
    pub subscriptions_per_jid_max: u16,
    /// Subscriptions to one node that wait for approval; beyond it likewise.
    pub pending_per_node_max: u32,
    /// Entities affiliated with one node; beyond it an owner gets `not-acceptable`.
    pub affiliations_per_node_max: u32,
    /// Owners of one node; beyond it an owner gets `not-acceptable`.
    pub owners_per_node_max: u16,
    /// Entries of one page of items, nodes, subscriptions or affiliations; what is left is on the next page.
    pub page_entries_max: u16,
    /// Bytes of the items of one page, one item more or less; what is left is on the next page. With it and `payload_bytes_max`, a
    /// page must fit a stanza.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub page_bytes_max: usize,
    /// Rows that are removed at once of what a deleted or purged node leaves, before other work has its turn.
    pub leftover_rows: u32,
    /// Subscribers that are notified at once, before other work has its turn.
    pub follower_rows: u32,
    /// Requests of one shard's devices that ask all shards and have not been answered; the next gets `resource-constraint`.
    pub gatherings_max: u32,
}

/// `[limits.group]`: the Raft group of each shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Group {
    /// How many shards a cluster is founded with. Fixed from then on, and the same at every node.
    pub shards: u16,
    /// What one shard may have proposed and not yet applied; beyond it stanzas that write get an error of type `wait`.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub in_flight_bytes_max: usize,
    /// A shard's log that is larger loses its older half, as far as that is applied.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub log_bytes_max: usize,
    /// As `log_bytes_max`, while a snapshot of the shard is on its way to another replica, which will want what is written meanwhile. One that
    /// falls behind even so begins anew.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub log_held_bytes_max: usize,
    /// Applied entries that a shard keeps in memory for replicas that are a little behind.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub tail_bytes_max: usize,
    /// A write to the disk that takes longer is a stall: stanzas that write get an error of type `wait` until it ends.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub stall_after: Duration,
    /// How long a shutdown waits for proposals that are under way.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub shutdown_timeout: Duration,
}

/// `[limits.link]`: connections between cluster nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Link {
    /// Largest request, answer, or header of a transfer between cluster nodes; the same on all of them. More than `entry_bytes_max`.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub call_bytes_max: usize,
    /// What may wait for one cluster node on the connection for stanzas. Full: that connection ends and what waits is lost, to be
    /// sent again by who still needs it.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub queue_bytes_max: usize,
    /// Requests and answers that may wait for one cluster node. Full: further requests fail as busy; an answer ends the connection.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub call_queue_bytes_max: usize,
    /// Most requests of one cluster node, and to one, that are not answered; further ones fail as busy.
    pub calls_in_flight_max: u32,
    /// Bytes per second of all snapshots that this node sends.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub bulk_bytes_per_second: usize,
    /// Most transfers of one cluster node, and to one, at a time; further ones fail as busy.
    pub transfers_max: u32,
    /// Most connections that have not said which node they are; the oldest is closed for the next.
    pub strangers_max: u32,
    /// Most requests of nodes that are no members (yet) at a time; further ones fail as busy.
    pub asks_max: u32,
    /// How long such a request may take.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub ask_timeout_max: Duration,
    /// How long a connection between nodes may take until both have said who they are.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub handshake_timeout: Duration,
    /// By how much the clocks of two nodes may differ; beyond it they do not talk with each other.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub clock_skew_max: Duration,
    /// A node that has said nothing for so long is asked whether it is there.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub keep_alive_interval: Duration,
    /// How long it may take to answer; then its connections end.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub keep_alive_timeout: Duration,
    /// Wait before the second attempt to connect; the first is at once. It doubles with each attempt.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub reconnect_min: Duration,
    /// Longest wait between attempts to connect.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub reconnect_max: Duration,
    /// How long a shutdown waits for the connections' tasks.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub shutdown_timeout: Duration,
}

/// `[limits.storage]`: memory, files and queues of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Memory for blocks read from disk.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub block_cache_bytes_max: usize,
    /// Memory for what is not in sorted files yet.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub write_buffer_bytes_max: usize,
    /// Larger write-ahead logs are written to sorted files; this bounds the time a start after a crash takes.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub wal_bytes_max: usize,
    /// Files the store keeps open; sockets need the rest of what the process may open.
    pub open_files_max: u32,
    /// With less room than this on the disk a node gives its leaderships away and accepts nothing that writes, so that what is under way still
    /// fits; it goes on when there is room again. At most a sixteenth of the disk.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub disk_reserve_bytes: usize,
    /// What may wait for the log writer; beyond it stanzas that write get an error of type `wait`.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub queue_bytes_max: usize,
    /// The most that one write to the write-ahead log carries; more pending work is a further write.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub commit_bytes_max: usize,
}

/// `[limits.rate]`: how often strangers may do something. An address is a /32 of IPv4 or a /64 of IPv6; what it has not used it
/// may do all at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rate {
    /// Switches all of them.
    pub enabled: bool,
    /// Connections that one address may open in a minute; the next is closed at once.
    pub connections_per_address_per_minute: u32,
    /// Logins of one address that may fail in a minute, not counting those that a connection has on the way to the account it logs
    /// in to. Beyond it the stream ends with `policy-violation`, and connections of
    /// that address are closed at once until there is room again.
    pub failed_logins_per_address_per_minute: u32,
    /// Accounts that one address may make in an hour (XEP-0077); the next gets `resource-constraint`.
    pub registrations_per_address_per_hour: u32,
    /// Accounts that all addresses together may make in an hour; the next gets `resource-constraint`.
    pub registrations_per_hour: u32,
    /// Most addresses that each rate tells apart at a time; those beyond share.
    pub addresses_max: u32,
}

impl Limits {
    /// The bounds on XML of authenticated peers.
    pub const fn xml(&self) -> xml::Limits {
        xml::Limits {
            stanza_bytes_max: self.stanza_bytes_max,
            depth_max: self.depth_max,
            attributes_max: self.attributes_max,
            name_bytes_max: self.name_bytes_max,
            namespace_bytes_max: self.namespace_bytes_max,
            namespaces_max: self.namespaces_max,
            children_max: self.children_max,
        }
    }

    /// The bounds of an edge.
    pub fn edge_limits(&self) -> EdgeLimits {
        EdgeLimits {
            frames_max: usize::from(self.edge.frames_max),
            frames_bytes_max: self.edge.frames_bytes_max,
            progress_bytes: self.edge.progress_bytes,
            answer_timeout: self.edge.answer_timeout,
            orphan_timeout: self.edge.orphan_timeout,
            acknowledge_timeout: self.edge.acknowledge_timeout,
            patience: self.before_auth.patience(),
            held_bytes_max: self.edge.held_bytes_max,
        }
    }

    /// The bounds of a shard.
    pub fn shard_limits(&self) -> shard::Limits {
        let shard = &self.shard;
        shard::Limits {
            sessions_per_account_max: count(shard.sessions_per_account_max),
            session_credit_bytes: shard.session_credit_bytes,
            session_queue_bytes_max: shard.session_queue_bytes_max,
            stored_messages_max: shard.stored_messages_max,
            private_elements_max: count(shard.private_elements_max),
            roster_items_max: count(shard.roster_items_max),
            roster_bytes_max: shard.roster_bytes_max,
            roster_name_bytes_max: shard.roster_name_bytes_max,
            roster_groups_max: count(shard.roster_groups_max),
            subscription_requests_max: count(shard.subscription_requests_max),
            directed_presence_max: count(shard.directed_presence_max),
            blocked_max: count(shard.blocked_max),
            resume_timeout_max: u32::try_from(shard.resume_timeout_max.as_secs()).unwrap_or(u32::MAX),
            forwards_max: count(shard.forwards_max),
            forward_timeout: shard.forward_timeout,
            attach_timeout: shard.attach_timeout,
            asking_timeout: shard.asking_timeout,
            executed_keep: shard.executed_keep,
            drain_rows: count(shard.drain_rows),
            pubsub: self.pubsub.limits(),
        }
    }

    /// The bounds of a process's connections, of which it could have `connections`.
    pub(crate) fn connection_limits(&self, connections: usize) -> crate::edge::EdgeLimits {
        let wanted = self.edge.connections_max.map_or(connections, count);
        let before_auth = &self.before_auth;
        let rate = |permits, seconds| {
            let period = Duration::from_secs(seconds);
            self.rate.enabled.then_some(crate::edge::Rate { permits, period })
        };
        crate::edge::EdgeLimits {
            strangers: crate::edge::StrangerLimits {
                connections_max: wanted.min(connections),
                strangers_max: count(before_auth.connections_max),
                strangers_per_block_max: before_auth.connections_per_address_max,
                blocks_max: count(self.rate.addresses_max),
                connections: rate(self.rate.connections_per_address_per_minute, 60),
                failed_logins: rate(self.rate.failed_logins_per_address_per_minute, 60),
                registrations_per_block: rate(self.rate.registrations_per_address_per_hour, 3600),
                registrations: rate(self.rate.registrations_per_hour, 3600),
            },
            negotiation_bytes_max: before_auth.bytes_max,
            tls_timeout: before_auth.tls_timeout,
            negotiation_timeout: self.before_auth.negotiation_timeout,
            passwords_waiting_max: count(self.edge.passwords_waiting_max),
            close_timeout: self.edge.close_timeout,
            handovers_per_second_max: self.edge.handovers_per_second_max,
        }
    }

    /// The bounds of what waits around a shard.
    pub(crate) fn inbox_limits(&self) -> crate::shard::ShardLimits {
        crate::shard::ShardLimits {
            inbox_messages_max: count(self.shard.inbox_messages_max),
            inbox_bytes_max: self.shard.inbox_bytes_max,
            unproposed_bytes_max: self.shard.unproposed_bytes_max,
            entries_in_flight_max: usize::from(self.shard.entries_in_flight_max),
            entities_active_max: count(self.shard.entities_active_max),
            entity_linger: self.shard.entity_linger,
            ..crate::shard::ShardLimits::default()
        }
    }

    /// Spans that may wait to be sent.
    pub(crate) fn spans_waiting(&self) -> usize {
        count(self.spans_waiting_max)
    }

    /// How shards' groups behave.
    pub fn group_options(&self) -> heronry_cluster::Options {
        heronry_cluster::Options {
            shards: self.group.shards,
            entry_bytes_max: self.entry_bytes_max,
            in_flight_bytes_max: self.group.in_flight_bytes_max,
            log_bytes_max: self.group.log_bytes_max,
            log_held_bytes_max: self.group.log_held_bytes_max,
            tail_bytes_max: self.group.tail_bytes_max,
            stall_after: self.group.stall_after,
            shutdown_timeout: self.group.shutdown_timeout,
            ..heronry_cluster::Options::default()
        }
    }

    /// How links between nodes behave. Certificates are looked at as often as `tls.check_interval` says, which is not known here.
    pub fn transport_limits(&self) -> TransportLimits {
        TransportLimits {
            frame_bytes_max: self.frame_bytes_max,
            call_bytes_max: self.link.call_bytes_max,
            queue_bytes_max: self.link.queue_bytes_max,
            call_queue_bytes_max: self.link.call_queue_bytes_max,
            calls_in_flight_max: count(self.link.calls_in_flight_max),
            bulk_bytes_per_second: self.link.bulk_bytes_per_second as u64,
            transfers_max: count(self.link.transfers_max),
            strangers_max: count(self.link.strangers_max),
            asks_max: count(self.link.asks_max),
            ask_timeout_max: self.link.ask_timeout_max,
            handshake_timeout: self.link.handshake_timeout,
            clock_skew_max: self.link.clock_skew_max,
            keep_alive_interval: self.link.keep_alive_interval,
            keep_alive_timeout: self.link.keep_alive_timeout,
            reconnect_min: self.link.reconnect_min,
            reconnect_max: self.link.reconnect_max,
            shutdown_timeout: self.link.shutdown_timeout,
            ..TransportLimits::default()
        }
    }

    /// How the store behaves.
    pub fn store_options(&self) -> heronry_storage::Options {
        heronry_storage::Options {
            block_cache_bytes: self.storage.block_cache_bytes_max,
            write_buffer_bytes: self.storage.write_buffer_bytes_max,
            wal_bytes_max: self.storage.wal_bytes_max as u64,
            open_files_max: self.storage.open_files_max,
            disk_reserve_bytes: self.storage.disk_reserve_bytes as u64,
            queue_bytes_max: self.storage.queue_bytes_max,
            commit_bytes_max: self.storage.commit_bytes_max,
            ..heronry_storage::Options::default()
        }
    }
}

impl Edge {
    /// TLS sessions that are remembered.
    pub(crate) fn tls_sessions(&self) -> usize {
        count(self.tls_sessions_max)
    }
}

impl BeforeAuth {
    /// How long each part of a negotiation may take.
    fn patience(&self) -> Patience {
        Patience {
            header: self.header_timeout,
            handshake: self.tls_timeout,
            features: self.auth_timeout,
            step: self.auth_step_timeout,
            binding: self.bind_timeout,
        }
    }

    /// The bounds on XML of strangers.
    pub const fn xml(&self) -> xml::Limits {
        xml::Limits {
            stanza_bytes_max: self.stanza_bytes_max,
            depth_max: self.depth_max,
            attributes_max: self.attributes_max,
            name_bytes_max: self.name_bytes_max,
            namespace_bytes_max: self.namespace_bytes_max,
            namespaces_max: self.namespaces_max,
            children_max: self.children_max,
        }
    }
}

/// A number from the configuration as the number of things in memory.
fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A default of a part as a number in the configuration.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl Default for Limits {
    fn default() -> Self {
        let xml = xml::Limits::after_auth();
        Self {
            stanza_bytes_max: xml.stanza_bytes_max,
            frame_bytes_max: 512 << 10,
            entry_bytes_max: heronry_cluster::Options::default().entry_bytes_max,
            depth_max: xml.depth_max,
            attributes_max: xml.attributes_max,
            name_bytes_max: xml.name_bytes_max,
            namespace_bytes_max: xml.namespace_bytes_max,
            namespaces_max: xml.namespaces_max,
            children_max: xml.children_max,
            admin_connections_max: 64,
            import_batch_bytes: 64 << 10,
            import_batches_max: 32,
            backup_shards_max: 4,
            spans_waiting_max: 4096,
            shutdown_timeout: Duration::from_secs(8),
            before_auth: BeforeAuth::default(),
            edge: Edge::default(),
            shard: Shard::default(),
            pubsub: Pubsub::default(),
            group: Group::default(),
            link: Link::default(),
            storage: Store::default(),
            rate: Rate::default(),
        }
    }
}

impl Default for BeforeAuth {
    fn default() -> Self {
        let xml = xml::Limits::before_auth();
        let patience = Patience::default();
        Self {
            stanza_bytes_max: xml.stanza_bytes_max,
            depth_max: xml.depth_max,
            attributes_max: xml.attributes_max,
            name_bytes_max: xml.name_bytes_max,
            namespace_bytes_max: xml.namespace_bytes_max,
            namespaces_max: xml.namespaces_max,
            children_max: xml.children_max,
            sasl_retries_max: 3,
            bind_retries_max: 5,
            elements_max: 50,
            bytes_max: 64 << 10,
            negotiation_timeout: Duration::from_secs(30),
            header_timeout: patience.header,
            tls_timeout: patience.handshake,
            auth_timeout: patience.features,
            auth_step_timeout: patience.step,
            bind_timeout: patience.binding,
            connections_max: 16_384,
            connections_per_address_max: 4096,
        }
    }
}

impl Default for Edge {
    fn default() -> Self {
        let limits = EdgeLimits::default();
        Self {
            frames_max: u8::try_from(limits.frames_max).unwrap_or(u8::MAX),
            connections_max: None,
            tls_sessions_max: 16_384,
            passwords_waiting_max: 256,
            close_timeout: Duration::from_secs(2),
            handovers_per_second_max: 200,
            frames_bytes_max: limits.frames_bytes_max,
            progress_bytes: limits.progress_bytes,
            answer_timeout: limits.answer_timeout,
            orphan_timeout: limits.orphan_timeout,
            acknowledge_timeout: limits.acknowledge_timeout,
            held_bytes_max: limits.held_bytes_max,
        }
    }
}

impl Default for Shard {
    fn default() -> Self {
        let limits = shard::Limits::default();
        let inbox = crate::shard::ShardLimits::default();
        Self {
            sessions_per_account_max: number(limits.sessions_per_account_max),
            session_credit_bytes: limits.session_credit_bytes,
            session_queue_bytes_max: limits.session_queue_bytes_max,
            stored_messages_max: limits.stored_messages_max,
            private_elements_max: number(limits.private_elements_max),
            roster_items_max: number(limits.roster_items_max),
            roster_bytes_max: limits.roster_bytes_max,
            roster_name_bytes_max: limits.roster_name_bytes_max,
            roster_groups_max: number(limits.roster_groups_max),
            subscription_requests_max: number(limits.subscription_requests_max),
            directed_presence_max: number(limits.directed_presence_max),
            blocked_max: number(limits.blocked_max),
            resume_timeout_max: Duration::from_secs(limits.resume_timeout_max.into()),
            forwards_max: number(limits.forwards_max),
            forward_timeout: limits.forward_timeout,
            attach_timeout: limits.attach_timeout,
            asking_timeout: limits.asking_timeout,
            executed_keep: limits.executed_keep,
            drain_rows: number(limits.drain_rows),
            inbox_messages_max: number(inbox.inbox_messages_max),
            inbox_bytes_max: inbox.inbox_bytes_max,
            unproposed_bytes_max: inbox.unproposed_bytes_max,
            entries_in_flight_max: u8::try_from(inbox.entries_in_flight_max).unwrap_or(u8::MAX),
            entities_active_max: number(inbox.entities_active_max),
            entity_linger: inbox.entity_linger,
        }
    }
}

impl Pubsub {
    fn limits(&self) -> pubsub::Limits {
        pubsub::Limits {
            nodes_per_shard_max: self.nodes_per_shard_max.into(),
            items_per_node_max: self.items_per_node_max,
            default_items: self.default_items,
            batch_items_max: count(self.batch_items_max.into()),
            payload_bytes_max: self.payload_bytes_max,
            subscriptions_per_node_max: self.subscriptions_per_node_max.into(),
            subscriptions_per_jid_max: count(self.subscriptions_per_jid_max.into()),
            pending_per_node_max: self.pending_per_node_max.into(),
            affiliations_per_node_max: self.affiliations_per_node_max.into(),
            owners_per_node_max: count(self.owners_per_node_max.into()),
            page_entries_max: count(self.page_entries_max.into()),
            page_bytes_max: self.page_bytes_max,
            leftover_rows: count(self.leftover_rows),
            follower_rows: count(self.follower_rows),
            gatherings_max: count(self.gatherings_max),
        }
    }
}

impl Default for Pubsub {
    fn default() -> Self {
        let limits = pubsub::Limits::default();
        let few = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        let many = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            nodes_per_shard_max: many(limits.nodes_per_shard_max),
            items_per_node_max: limits.items_per_node_max,
            default_items: limits.default_items,
            batch_items_max: few(limits.batch_items_max),
            payload_bytes_max: limits.payload_bytes_max,
            subscriptions_per_node_max: many(limits.subscriptions_per_node_max),
            subscriptions_per_jid_max: few(limits.subscriptions_per_jid_max),
            pending_per_node_max: many(limits.pending_per_node_max),
            affiliations_per_node_max: many(limits.affiliations_per_node_max),
            owners_per_node_max: few(limits.owners_per_node_max),
            page_entries_max: few(limits.page_entries_max),
            page_bytes_max: limits.page_bytes_max,
            leftover_rows: number(limits.leftover_rows),
            follower_rows: number(limits.follower_rows),
            gatherings_max: number(limits.gatherings_max),
        }
    }
}

impl Default for Group {
    fn default() -> Self {
        let options = heronry_cluster::Options::default();
        Self {
            shards: options.shards,
            in_flight_bytes_max: options.in_flight_bytes_max,
            log_bytes_max: options.log_bytes_max,
            log_held_bytes_max: options.log_held_bytes_max,
            tail_bytes_max: options.tail_bytes_max,
            stall_after: options.stall_after,
            shutdown_timeout: options.shutdown_timeout,
        }
    }
}

impl Default for Link {
    fn default() -> Self {
        let limits = TransportLimits::default();
        Self {
            call_bytes_max: limits.call_bytes_max,
            queue_bytes_max: limits.queue_bytes_max,
            call_queue_bytes_max: limits.call_queue_bytes_max,
            calls_in_flight_max: number(limits.calls_in_flight_max),
            bulk_bytes_per_second: usize::try_from(limits.bulk_bytes_per_second).unwrap_or(usize::MAX),
            transfers_max: number(limits.transfers_max),
            strangers_max: number(limits.strangers_max),
            asks_max: number(limits.asks_max),
            ask_timeout_max: limits.ask_timeout_max,
            handshake_timeout: limits.handshake_timeout,
            clock_skew_max: limits.clock_skew_max,
            keep_alive_interval: limits.keep_alive_interval,
            keep_alive_timeout: limits.keep_alive_timeout,
            reconnect_min: limits.reconnect_min,
            reconnect_max: limits.reconnect_max,
            shutdown_timeout: limits.shutdown_timeout,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        let options = heronry_storage::Options::default();
        Self {
            block_cache_bytes_max: options.block_cache_bytes,
            write_buffer_bytes_max: options.write_buffer_bytes,
            wal_bytes_max: usize::try_from(options.wal_bytes_max).unwrap_or(usize::MAX),
            open_files_max: options.open_files_max,
            disk_reserve_bytes: usize::try_from(options.disk_reserve_bytes).unwrap_or(usize::MAX),
            queue_bytes_max: options.queue_bytes_max,
            commit_bytes_max: options.commit_bytes_max,
        }
    }
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            enabled: true,
            connections_per_address_per_minute: 30_000,
            failed_logins_per_address_per_minute: 120,
            registrations_per_address_per_hour: 10,
            registrations_per_hour: 1000,
            addresses_max: 65_536,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_parts() {
        let limits = Limits::default();
        assert_eq!(limits.xml(), xml::Limits::after_auth());
        assert_eq!(limits.before_auth.xml(), xml::Limits::before_auth());
        // These two cannot be compared but as text.
        assert_eq!(
            format!("{:?}", limits.edge_limits()),
            format!("{:?}", EdgeLimits::default())
        );
        assert_eq!(
            format!("{:?}", limits.shard_limits()),
            format!("{:?}", shard::Limits::default())
        );
        assert_eq!(limits.group_options(), heronry_cluster::Options::default());
        assert_eq!(limits.transport_limits(), TransportLimits::default());
        assert_eq!(limits.store_options(), heronry_storage::Options::default());
    }
}
