//! What all tasks of a transport share.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use heronry_proto::peer::Hello;
use heronry_storage::NodeId;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Handler, Identity, PeerId, Refusal, TransportLimits,
    bulk::Pace,
    connection::Broken,
    control,
    door::Strangers,
    hello::Ourselves,
    lane::{Kind, Lane},
    messages, metrics,
    net::AnyNet,
    peer::Peer,
    refusals::Refusals,
    security::Secured,
};
use crate::ClusterId;

pub(super) struct Inner {
    pub(super) net: Arc<dyn AnyNet>,
    pub(super) identity: Identity,
    pub(super) security: Secured,
    pub(super) cluster: watch::Receiver<Option<ClusterId>>,
    pub(super) feature_level_in_use: AtomicU32,
    pub(super) limits: TransportLimits,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) strangers: Strangers,
    pub(super) asks: Arc<Semaphore>,
    pub(super) refusals: Refusals,
    pub(super) pace: Pace,
    /// Cancelled when everything ends.
    pub(super) stop: CancellationToken,
    tasks: TaskTracker,
    runtime: Handle,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
    /// The process of each node with which the lane of messages worked last. As many as there have been nodes in the cluster's map
    /// while this process lives.
    worked: Mutex<BTreeMap<NodeId, u64>>,
    /// Transfers of ours that wait for the other side to dial: whose connection it must be, and who waits for it.
    tickets: Mutex<BTreeMap<u64, (NodeId, oneshot::Sender<Lane>)>>,
    ticket: AtomicU64,
}

impl Inner {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        net: Arc<dyn AnyNet>,
        identity: Identity,
        security: Secured,
        cluster: watch::Receiver<Option<ClusterId>>,
        limits: TransportLimits,
        handler: Arc<dyn Handler>,
    ) -> Arc<Self> {
        Arc::new(Self {
            net,
            identity,
            security,
            cluster,
            feature_level_in_use: AtomicU32::new(0),
            handler,
            strangers: Strangers::new(limits.strangers_max),
            asks: Arc::new(Semaphore::new(limits.asks_max)),
            refusals: Refusals::default(),
            pace: Pace::new(limits.bulk_bytes_per_second),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            peers: Mutex::default(),
            worked: Mutex::default(),
            tickets: Mutex::default(),
            ticket: AtomicU64::new(1),
            limits,
        })
    }

    /// Runs a task that a shutdown waits for.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// No task is begun by new connections any more; waits for those that are.
    pub(super) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// What this process says of itself now.
    pub(super) fn ourselves(&self) -> Ourselves<'_> {
        Ourselves {
            identity: &self.identity,
            cluster: *self.cluster.borrow(),
            feature_level_in_use: self.feature_level_in_use.load(Ordering::Relaxed),
            now: self.wall_clock(),
            clock_skew_max: self.limits.clock_skew_max,
        }
    }

    fn wall_clock(&self) -> SystemTime {
        self.net.wall_clock()
    }

    /// Our Hello to a node.
    pub(super) fn hello(&self, kind: Kind, to: Option<NodeId>, ticket: u64) -> Hello {
        let worked_with = to.and_then(|node| self.worked().get(&node).copied()).unwrap_or(0);
        self.ourselves().hello(kind, worked_with, ticket)
    }

    /// Whether a peer's Hello fits a connection of that kind.
    pub(super) fn check(&self, hello: &Hello, kind: Kind, expected: Option<NodeId>) -> Result<Identity, Refusal> {
        let peer = self
            .ourselves()
            .check(hello, kind, expected, |node| self.peers().contains_key(&node))?;
        if kind != Kind::Ask
            && let Some(known) = self.peer(peer.id.node)
        {
            known.admits(peer.id)?;
        }
        Ok(peer)
    }

    pub(super) fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.peers().get(&node).cloned()
    }

    pub(super) fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages pass between that process and this one; whether they did before.
    pub(super) fn works_with(&self, peer: PeerId) -> bool {
        self.worked().insert(peer.node, peer.start) == Some(peer.start)
    }

    fn worked(&self) -> MutexGuard<'_, BTreeMap<NodeId, u64>> {
        self.worked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number under which the peer is asked to dial for a transfer.
    pub(super) fn ticket(&self, node: NodeId) -> (Ticket<'_>, oneshot::Receiver<Lane>) {
        let number = self.ticket.fetch_add(1, Ordering::Relaxed);
        let (dialed, wait) = oneshot::channel();
        self.tickets().insert(number, (node, dialed));
        (Ticket { inner: self, number }, wait)
    }

    /// Gives a connection to the transfer that waits for it.
    pub(super) fn redeem(&self, ticket: u64, lane: Lane) {
        let mut tickets = self.tickets();
        if tickets.get(&ticket).is_some_and(|(node, _)| *node == lane.peer.node)
            && let Some((_, waits)) = tickets.remove(&ticket)
        {
            drop(tickets);
            self.strangers.settle(&lane.connection);
            // Who waited may have given up: then the lane is dropped, and with it the connection.
            let _ = waits.send(lane);
        }
    }

    fn tickets(&self) -> MutexGuard<'_, BTreeMap<u64, (NodeId, oneshot::Sender<Lane>)>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a connection of a member until it ends.
    pub(super) async fn run(self: &Arc<Self>, peer: &Arc<Peer>, lane: Lane) -> Broken {
        let kind = lane.kind;
        self.refusals.forget(&node_name(peer.node));
        metrics::connected(kind);
        let why = match kind {
            Kind::Control => control::run(self, peer, lane).await,
            Kind::Messages => messages::run(self, peer, lane).await,
            Kind::Bulk | Kind::Ask => Broken::Garbled,
        };
        metrics::broken(kind, why);
        why
    }
}

/// Takes the number back.
pub(super) struct Ticket<'i> {
    inner: &'i Inner,
    pub(super) number: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.inner.tickets().remove(&self.number);
    }
}

/// A node in the log.
pub(super) fn node_name(node: NodeId) -> String {
    format!("node {node}")
}
