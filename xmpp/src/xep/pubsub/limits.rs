//! Bounds of pubsub, each with what happens when it is reached.

/// Bounds on what pubsub nodes keep and do.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Nodes of one service in one shard. Beyond: `resource-constraint`.
    pub nodes_per_shard_max: u64,
    /// Items of one node, whatever its configuration says. Beyond: as the node's `pubsub#publish_node_full` says.
    pub items_per_node_max: u32,
    /// How many items a node keeps that nobody configures.
    pub default_items: u32,
    /// Items of one request to publish or retract. Beyond: `not-allowed` with `max-items-exceeded` (XEP-0060 §12.11).
    pub batch_items_max: usize,
    /// Bytes of one payload, whatever the node's configuration says. Beyond: `not-acceptable` with `payload-too-big`.
    pub payload_bytes_max: usize,
    /// Subscriptions to one node. Beyond: `policy-violation` with `too-many-subscriptions`.
    pub subscriptions_per_node_max: u64,
    /// Subscriptions of one address to one node, each with options of its own. Beyond: likewise.
    pub subscriptions_per_jid_max: usize,
    /// Subscriptions to one node that wait for approval. Beyond: likewise.
    pub pending_per_node_max: u64,
    /// Entities affiliated with one node. Beyond: `resource-constraint`.
    pub affiliations_per_node_max: u64,
    /// Owners of one node: each is asked when somebody wants to subscribe. Beyond: `resource-constraint`.
    pub owners_per_node_max: usize,
    /// Entries of one page: items, nodes, subscriptions, affiliations. What is left is on the next page (XEP-0059).
    pub page_entries_max: usize,
    /// Bytes of the items of one page, one item more or less. What is left is on the next page.
    pub page_bytes_max: usize,
    /// Rows that are removed at once of what a deleted or purged node leaves.
    pub leftover_rows: usize,
    /// Followers that are read at once to be notified.
    pub follower_rows: usize,
    /// Requests to all shards that wait for their answers, in one shard. Beyond: `resource-constraint`.
    pub gatherings_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            nodes_per_shard_max: 1_000_000,
            items_per_node_max: 10_000,
            default_items: 100,
            batch_items_max: 64,
            payload_bytes_max: 64 << 10,
            subscriptions_per_node_max: 1_000_000,
            subscriptions_per_jid_max: 8,
            pending_per_node_max: 1000,
            affiliations_per_node_max: 10_000,
            owners_per_node_max: 16,
            page_entries_max: 100,
            page_bytes_max: 128 << 10,
            leftover_rows: 256,
            follower_rows: 256,
            gatherings_max: 256,
        }
    }
}
