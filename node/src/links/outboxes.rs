//! What waits to go over links: one outbox for each node there is a link to.
//!
//! Whoever adds to an outbox sends it before its thread rests ([`flush_now`]), so a frame holds what many had to say. The order of
//! what is added is that of what is sent.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use heronry_xmpp::link::{EdgeId, NodeId, ShardId, Term};

use super::{Links, metrics};
use crate::wire::{Item, Writer};

/// A frame of several items is at most this long, bytes.
const FRAME_BYTES: usize = 64 << 10;

thread_local! {
    /// Outboxes that this thread is about to send.
    static TO_SEND: RefCell<Vec<Arc<Outbox>>> = const { RefCell::new(Vec::new()) };
}

/// Sends what this thread has added to outboxes.
pub(crate) fn flush_now() {
    // Sending may run code of a runtime, which may rest: nothing is borrowed then.
    for outbox in TO_SEND.take() {
        outbox.flush();
    }
}

/// The outboxes of the nodes there are links to; none on a node that is alone.
#[derive(Default)]
pub(crate) struct Outboxes {
    links: OnceLock<Arc<dyn Links>>,
    peers: RwLock<BTreeMap<NodeId, Arc<Outbox>>>,
}

/// What waits to go to one process.
pub(crate) struct Outbox {
    peer: EdgeId,
    has_edge: bool,
    links: Arc<dyn Links>,
    /// There is no such link any more.
    closed: AtomicBool,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    frame: Writer,
    /// A thread is going to send it.
    told: bool,
    /// Shards led here when the link came back, and the terms they were in: those were interrupted, and say nothing more.
    muted: BTreeMap<ShardId, Term>,
}

impl std::fmt::Debug for Outboxes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outboxes({:?})", self.read().keys())
    }
}

impl Outboxes {
    /// From now on there may be links. The first call counts.
    pub(super) fn go_over(&self, links: Arc<dyn Links>) {
        let _ = self.links.set(links);
    }

    /// The links, if there are any.
    pub(super) fn links(&self) -> Option<&Arc<dyn Links>> {
        self.links.get()
    }

    /// There is a link to that process. What is of a term in `muted`, or of a lower one, does not go over it.
    pub(super) fn open(&self, peer: EdgeId, muted: BTreeMap<ShardId, Term>) -> Option<Arc<Outbox>> {
        let links = Arc::clone(self.links.get()?);
        let outbox = Arc::new(Outbox {
            peer,
            has_edge: links.has_edge(peer.node),
            links,
            closed: AtomicBool::new(false),
            pending: Mutex::new(Pending {
                muted,
                ..Pending::default()
            }),
        });
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(former) = peers.insert(peer.node, Arc::clone(&outbox)) {
            former.closed.store(true, Ordering::Release);
        }
        Some(outbox)
    }

    /// There is no link to that process any more.
    pub(super) fn close(&self, peer: EdgeId) {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        if peers.get(&peer.node).is_some_and(|outbox| outbox.peer == peer)
            && let Some(outbox) = peers.remove(&peer.node)
        {
            outbox.closed.store(true, Ordering::Release);
        }
    }

    /// The process that there is a link to on that node.
    pub(super) fn connected(&self, node: NodeId) -> Option<EdgeId> {
        self.read().get(&node).map(|outbox| outbox.peer)
    }

    /// Says something to the node, if there is a link.
    pub(crate) fn send(&self, node: NodeId, item: &Item) {
        match self.read().get(&node) {
            Some(outbox) => outbox.add(item),
            None => metrics::lost("no-link"),
        }
    }

    /// Says something to that very process.
    pub(super) fn send_to(&self, process: EdgeId, item: &Item) {
        match self.read().get(&process.node).filter(|outbox| outbox.peer == process) {
            Some(outbox) => outbox.add(item),
            None => metrics::lost("no-link"),
        }
    }

    /// Says something to every node, or to those with sockets.
    pub(super) fn send_to_all(&self, edges_only: bool, item: &Item) {
        let peers = self.read();
        peers
            .values()
            .filter(|outbox| outbox.has_edge || !edges_only)
            .for_each(|outbox| outbox.add(item));
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<NodeId, Arc<Outbox>>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outbox {
    pub(super) fn has_edge(&self) -> bool {
        self.has_edge
    }

    /// Adds an item; the thread sends it before it rests.
    pub(super) fn add(self: &Arc<Self>, item: &Item) {
        if self.closed.load(Ordering::Acquire) {
            return metrics::lost("no-link");
        }
        let mut pending = self.pending();
        if let Some((shard, term)) = speaker(item)
            && let Some(muted) = pending.muted.get(&shard)
        {
            if term <= *muted {
                return metrics::lost("muted");
            }
            pending.muted.remove(&shard);
        }
        if let Some(frame) = pending.frame.add(self.peer.start, item, FRAME_BYTES) {
            self.send(frame);
        }
        if pending.frame.len() >= FRAME_BYTES {
            return self.send_pending(&mut pending);
        }
        if !std::mem::replace(&mut pending.told, true) {
            TO_SEND.with_borrow_mut(|outboxes| outboxes.push(Arc::clone(self)));
        }
    }

    fn flush(&self) {
        let mut pending = self.pending();
        pending.told = false;
        self.send_pending(&mut pending);
    }

    /// Frames leave in order: the lock is held.
    fn send_pending(&self, pending: &mut Pending) {
        if let Some(frame) = pending.frame.take() {
            self.send(frame);
        }
    }

    fn send(&self, frame: Bytes) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        metrics::sent();
        if !self.links.send(self.peer.node, frame) {
            self.closed.store(true, Ordering::Release);
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shard of this node that speaks in an item, and its term.
fn speaker(item: &Item) -> Option<(ShardId, Term)> {
    match item {
        Item::ToEdge { from, term, .. } | Item::ToPeer { from, term, .. } | Item::Leads { shard: from, term } => {
            Some((*from, *term))
        }
        Item::Taken { shard, term, .. } => Some((*shard, *term)),
        Item::ToShard { .. } | Item::Resigned { .. } => None,
    }
}
