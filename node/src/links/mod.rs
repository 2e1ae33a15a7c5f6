//! Edges and shards of this node and of others: who is where, and what goes over which link.
//!
//! A message for somebody on this node is left in an inbox or with the hub, as if there were no other node. One for another node is
//! added to that node's [`Outboxes`] and leaves with whatever else is pending. The [`Router`] knows which shards this node
//! leads and who leads the others, tells nodes what they have to know when a link comes up, and gives what comes over links to
//! whom it is for.
//!
//! A link delivers in order or breaks. When it comes back between two processes that both still live, what was under way
//! may be lost; then nothing more of the terms before goes over it ([`Outboxes`] are *muted*), and every shard led at either end
//! begins a new round.

mod metrics;
mod outboxes;
mod router;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use heronry_xmpp::link::NodeId;

pub(crate) use metrics::METRICS;
pub(crate) use outboxes::{Outboxes, flush_now};
pub(crate) use router::Router;

/// The links to other nodes, as the router needs them.
pub trait Links: Send + Sync {
    /// Sends a frame; never blocks. `false` when there is no link, or it breaks because too much waits: the frame is lost, and
    /// nothing is sent over that link any more.
    fn send(&self, to: NodeId, frame: Bytes) -> bool;

    /// Breaks the link: what came over it makes no sense.
    fn break_link(&self, to: NodeId);

    /// Whether that node has sockets of devices.
    fn has_edge(&self, node: NodeId) -> bool;

    /// Whether that node belongs to the cluster.
    fn is_member(&self, node: NodeId) -> bool;
}
