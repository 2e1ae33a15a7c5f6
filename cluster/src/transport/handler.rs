//! Who is at the ends of a link, and who hears what comes over it.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use heronry_storage::NodeId;

/// A process of a cluster node: a restarted node is another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerId {
    /// The node.
    pub node: NodeId,
    /// Of the process: greater than that of any earlier process of the node.
    pub start: u64,
}

impl fmt::Display for PeerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (start {})", self.node, self.start)
    }
}

/// What a process says it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The node and the process.
    pub id: PeerId,
    /// The name of the cluster it belongs to or wants to belong to.
    pub cluster_name: String,
    /// The version of the program.
    pub version: String,
    /// The highest feature level that the program knows.
    pub feature_level: u32,
}

/// Hears what other nodes say. Everything that is called here must return at once: what takes longer is done in the future that is
/// returned, which runs in a task of its own.
pub trait Handler: Send + Sync + 'static {
    /// A request over the control connection; called in the order in which the other side asked. An error is a sentence for it. The
    /// future is dropped when the other side has stopped waiting.
    fn call(self: Arc<Self>, from: PeerId, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>>;

    /// As [`call`](Self::call), of a process that need not be a member: one that asks to join, or looks. `from` is what it claims to
    /// be.
    fn call_of_stranger(self: Arc<Self>, from: Identity, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>>;

    /// A message, in order per process, between an [`up`](Self::up) and a [`down`](Self::down). Its bytes may be a part of a buffer
    /// of some 64 KiB: who keeps it for long copies it.
    fn message(&self, from: PeerId, message: Bytes);

    /// A transfer over a bulk connection; the answer ends it. An error among the chunks is that the transfer has broken off; a
    /// stream that ends without one is complete. Chunks that are not taken hold up the sender. When the connection has gone the future
    /// is dropped `handshake_timeout` later.
    fn transfer(
        self: Arc<Self>,
        from: PeerId,
        header: Bytes,
        chunks: BoxStream<'static, Result<Bytes, String>>,
    ) -> BoxFuture<'static, Result<Bytes, String>>;

    /// Messages can be sent to that process and will come from it. `again`: a link of this very pair of processes worked before, so
    /// what either of them sent then may be lost. A new process of the node is told by a new `start` and never `again`.
    fn up(&self, peer: PeerId, again: bool);

    /// The link has broken. It is tried again as long as the node is wanted.
    fn down(&self, peer: PeerId);
}
