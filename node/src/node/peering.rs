//! A node as its links see it: what a transport tells it, and what comes of that.

use std::sync::Arc;

use bytes::Bytes;
use heronry_cluster::Group;
use heronry_xmpp::link::{EdgeId, ShardId};

use super::middle::Middle;
use crate::{
    StartError,
    links::{Links, Router},
    shard::Shards,
};

/// What a node is told of other nodes. A process is named by its edge's id, whether it has an edge or not.
///
/// Of one process it is told in order: [`Self::up`], its messages, [`Self::down`]. None of this waits for anything.
#[derive(Clone)]
pub struct Peering {
    router: Arc<Router>,
    shards: Arc<Shards>,
}

impl Peering {
    pub(super) fn new(middle: &Middle, shards: Arc<Shards>) -> Self {
        Self {
            router: Arc::clone(&middle.router),
            shards,
        }
    }

    /// Which process this is.
    pub fn own(&self) -> EdgeId {
        self.router.own()
    }

    /// From now on there may be links to other nodes. The first call counts, and has to come before the first shard: one that begins a term on a
    /// node without links takes every other node's edge for dead.
    pub fn go_over(&self, links: Arc<dyn Links>) {
        self.router.go_over(links);
    }

    /// There are other nodes in the cluster, or there are none: what devices are told is safe has to be on two of them, if there are.
    pub fn set_alone(&self, alone: bool) {
        self.router.set_alone(alone);
    }

    /// The cluster's feature level: what shards write and say that older programs do not know.
    pub fn set_feature_level(&self, level: u32) {
        self.router.set_feature_level(level);
    }

    /// The link with that process works; `again`: it worked before, and what was under way then may be lost.
    pub fn up(&self, peer: EdgeId, again: bool) {
        self.router.up(peer, again);
    }

    /// A frame has come from that process.
    pub fn message(&self, from: EdgeId, frame: Bytes) {
        self.router.message(from, frame);
    }

    /// The link with that process has broken.
    pub fn down(&self, peer: EdgeId) {
        self.router.down(peer);
    }

    /// That process has been declared dead: its sockets are gone.
    pub fn lost(&self, peer: EdgeId) {
        self.router.lost(peer);
    }

    /// A replica of the group's shard is on this node from now on.
    ///
    /// # Errors
    /// When its actor cannot be started.
    pub async fn add_shard(&self, group: Group) -> Result<(), StartError> {
        let added = self.shards.add(group).await;
        added.map_err(|error| StartError::Failed(format!("a shard cannot be started: {error}")))
    }

    /// No replica of the shard is on this node any more.
    pub async fn remove_shard(&self, shard: ShardId) {
        self.shards.remove(shard).await;
    }
}
