//! The links between cluster nodes.
//!
//! Each pair of nodes has a *link*: a connection for calls, one for messages, and one for each transfer while it lasts (*lanes*); the
//! node with the lower id dials. So a snapshot delays no message, and a burst of messages no ping. Both sides say Hello before
//! anything else, and what does not fit is refused with a sentence. On the lane of messages frames arrive in order or the lane breaks;
//! nothing is repeated ([`Handler::up`] says what may be lost).
//!
//! Nothing waits for a slow peer: its queue has a bound in bytes, and when it is full its link breaks.
//!
//! Written is whatever is pending when the connection can take something (no timers): at little load every message goes at once,
//! at much load they share frames.
//!
//! | file | |
//! |---|---|
//! | `dial.rs`, `door.rs` | how a connection begins: ours, and others' |
//! | `hello.rs` | who fits |
//! | `peer.rs` | which connections with a node are in use |
//! | `control.rs`, `messages.rs`, `bulk.rs`, `ask.rs` | what a connection carries |
//! | `queue.rs`, `lane.rs`, `connection.rs` | how: what waits, frames, bytes |
//! | `net.rs`, `security.rs` | below: TCP or a simulation, TLS |

mod ask;
mod bulk;
mod connection;
mod control;
mod dial;
mod door;
mod error;
mod handler;
mod hello;
mod inner;
mod lane;
mod limits;
mod messages;
mod metrics;
mod net;
mod peer;
mod queue;
mod refusals;
mod security;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::stream::BoxStream;
use heronry_proto::peer::call::What;
use heronry_storage::NodeId;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

pub use self::{
    error::{CallError, Refusal, RefusalReason, SendError, TransportError},
    handler::{Handler, Identity, PeerId},
    limits::TransportLimits,
    metrics::METRICS,
    net::{Net, Tcp},
    security::{Pem, Security},
};
use self::{
    inner::Inner,
    lane::{Kind, Lane},
    net::AnyNet,
    peer::Peer,
    queue::{Item, NotQueued},
    security::Secured,
};
use crate::ClusterId;

/// The links of this node.
#[derive(Clone)]
pub struct Transport {
    inner: Arc<Inner>,
    local: Option<SocketAddr>,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let identity = &self.inner.identity.id;
        formatter
            .debug_struct("Transport")
            .field("identity", identity)
            .field("local", &self.local)
            .finish()
    }
}

impl Transport {
    /// Listens at `listen` (if given) on that network, and keeps what is needed to dial. `cluster` is the cluster that this node belongs
    /// to, `None` while it is no member of one. Tasks run on the runtime of the caller until [`shutdown`](Self::shutdown).
    ///
    /// # Errors
    /// When the address cannot be listened at, certificates cannot be used, or limits contradict each other.
    pub async fn start<N: Net>(
        net: N,
        listen: Option<SocketAddr>,
        identity: Identity,
        security: Security,
        cluster: watch::Receiver<Option<ClusterId>>,
        limits: TransportLimits,
        handler: Arc<dyn Handler>,
    ) -> Result<Self, TransportError> {
        limits.check()?;
        let secured = Secured::new(security, &identity.cluster_name)?;
        let listener = match listen {
            None => None,
            Some(address) => {
                let failed = |error| TransportError::Listen { address, error };
                let listener = net.listen(address).await.map_err(failed)?;
                let local = N::local_address(&listener).map_err(failed)?;
                Some((listener, local))
            }
        };
        let net: Arc<dyn AnyNet> = Arc::new(net);
        let inner = Inner::new(net, identity, secured, cluster, limits, handler);
        let local = listener.as_ref().map(|(_, local)| *local);
        if let Some((listener, _)) = listener {
            door::open::<N>(&inner, listener);
        }
        if matches!(inner.security, Secured::Mtls(_)) {
            inner.spawn(watch_certificates(Arc::clone(&inner)));
        }
        Ok(Self { inner, local })
    }

    /// Where it listens.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Whom to be connected with, and where they are (`host:port`, from the map; our own id is ignored). Links to others are closed. Only
    /// these are members: others are refused, but for [`call_of_stranger`](Handler::call_of_stranger).
    pub fn wanted(&self, peers: Vec<(NodeId, String)>) {
        let inner = &self.inner;
        let ours = inner.identity.id.node;
        let wanted: BTreeMap<_, _> = peers.into_iter().filter(|(node, _)| *node != ours).collect();
        let mut known = inner.peers();
        known.retain(|node, peer| {
            let keep = wanted.contains_key(node);
            if !keep {
                peer.close();
            }
            keep
        });
        for (node, address) in wanted {
            if let Some(peer) = known.get(&node) {
                peer.address.send_if_modified(|current| {
                    let moved = *current != address;
                    *current = address;
                    moved
                });
                continue;
            }
            let peer = Peer::new(node, address, &inner.limits, &inner.stop);
            known.insert(node, Arc::clone(&peer));
            if ours < node {
                inner.spawn(dial::keep(Arc::clone(inner), Arc::clone(&peer), Kind::Control));
                inner.spawn(dial::keep(Arc::clone(inner), peer, Kind::Messages));
            }
        }
    }

    /// The feature level that the cluster is at: who does not know it is refused from now on. Links that work go on. 0 until it is said.
    pub fn set_feature_level_in_use(&self, level: u32) {
        self.inner.feature_level_in_use.store(level, Ordering::Relaxed);
    }

    /// A request over the control connection. Dropped, it is taken back, though the peer may do it.
    ///
    /// # Errors
    /// When not connected, refused, failed, or not answered in time.
    pub async fn call(&self, to: NodeId, request: Bytes, timeout: Duration) -> Result<Bytes, CallError> {
        let result = self.call_unmeasured(to, request);
        match result {
            Ok((calls, request)) => calls.call(What::Request(request), timeout).await,
            Err(error) => {
                let failed = Err(error);
                metrics::called(&failed, Duration::ZERO);
                failed
            }
        }
    }

    fn call_unmeasured(&self, to: NodeId, request: Bytes) -> Result<(Arc<control::Calls>, Bytes), CallError> {
        self.check_call(&request)?;
        let calls = self.inner.peer(to).and_then(|peer| peer.calls());
        Ok((calls.ok_or(CallError::NotConnected)?, request))
    }

    /// A request to whoever is at an address (`host:port`), over a connection of its own that is closed afterwards; who it was, as it says,
    /// and its answer. The other side need not know this node: it gives the request to [`Handler::call_of_stranger`].
    ///
    /// # Errors
    /// As [`call`](Self::call); also when one side refuses the other, and says why.
    pub async fn call_address(
        &self,
        address: &str,
        request: Bytes,
        within: Duration,
    ) -> Result<(Identity, Bytes), CallError> {
        self.check_call(&request)?;
        let call = timeout(within, ask::call(&self.inner, address, request, within));
        tokio::select! {
            answer = call => answer.unwrap_or(Err(CallError::TimedOut(within))),
            () = self.inner.stop.cancelled() => Err(CallError::Closed),
        }
    }

    fn check_call(&self, request: &Bytes) -> Result<(), CallError> {
        let (bytes, max) = (request.len(), self.inner.limits.call_bytes_max);
        if self.inner.stop.is_cancelled() {
            return Err(CallError::Closed);
        }
        if bytes > max {
            return Err(CallError::TooLarge { bytes, max });
        }
        Ok(())
    }

    /// A message, in order with all others to that node. Never waits.
    ///
    /// # Errors
    /// When the message is lost: not connected, or the queue is full (then the link breaks).
    pub fn send(&self, to: NodeId, message: Bytes) -> Result<(), SendError> {
        let (bytes, max) = (message.len(), self.inner.limits.frame_bytes_max);
        if bytes > max {
            metrics::messages_lost(1, "too_large");
            return Err(SendError::TooLarge { bytes, max });
        }
        let queued = self.inner.peer(to).and_then(|peer| {
            peer.with_messages(|queue| match queue.push(Item::Message(message)) {
                Ok(()) => (Ok(()), None),
                Err(NotQueued::Full) => (Err(SendError::Full), Some(connection::Broken::Full)),
                Err(NotQueued::Closed) => (Err(SendError::NotConnected), None),
            })
        });
        let sent = queued.unwrap_or(Err(SendError::NotConnected));
        match sent {
            Ok(()) => {}
            Err(SendError::Full) => metrics::messages_lost(1, "full"),
            Err(_) => metrics::messages_lost(1, "not_connected"),
        }
        sent
    }

    /// Breaks the connection for messages with that node, since what came over it makes no sense. It is tried again.
    pub fn break_link(&self, to: NodeId) {
        if let Some(peer) = self.inner.peer(to) {
            let _ = peer.with_messages(|_| ((), Some(connection::Broken::Garbled)));
        }
    }

    /// Sends chunks over a connection of their own, no faster than `bulk_bytes_per_second` together with all others of this node; the
    /// peer's answer. Dropped, the transfer breaks off, and the peer's chunks end with an error. It has no deadline: a peer that
    /// lives may take as long as it likes.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn transfer(
        &self,
        to: NodeId,
        header: Bytes,
        chunks: BoxStream<'static, Bytes>,
    ) -> Result<Bytes, CallError> {
        self.check_call(&header)?;
        let inner = &self.inner;
        let peer = inner.peer(to).ok_or(CallError::NotConnected)?;
        let _place = Arc::clone(&peer.transfers_out)
            .try_acquire_owned()
            .map_err(|_| CallError::Busy)?;
        let lane = if inner.identity.id.node < to {
            let dialed = dial::member(inner, &peer, Kind::Bulk, 0).await;
            dialed.map_err(|error| CallError::Unreachable(error.to_string()))?
        } else {
            self.wait_for_lane(&peer).await?
        };
        tokio::select! {
            result = bulk::send(inner, lane, header, chunks) => result,
            () = peer.unwanted.cancelled() => Err(CallError::Broken),
        }
    }

    /// Has the peer dial, which is who dials.
    async fn wait_for_lane(&self, peer: &Peer) -> Result<Lane, CallError> {
        let calls = peer.calls().ok_or(CallError::NotConnected)?;
        let (ticket, wait) = self.inner.ticket(peer.node);
        let within = 2 * self.inner.limits.handshake_timeout;
        calls.call(What::OpenBulk(ticket.number), within).await?;
        let lane = timeout(within, wait).await.map_err(|_| CallError::TimedOut(within))?;
        lane.map_err(|_| CallError::Broken)
    }

    /// The process that messages to that node go to, while the link works.
    pub fn connected(&self, to: NodeId) -> Option<PeerId> {
        self.inner.peer(to)?.connected()
    }

    /// Looks at the files of certificates now.
    pub async fn reread_certificates(&self) {
        let inner = Arc::clone(&self.inner);
        // It reads files.
        let _ = tokio::task::spawn_blocking(move || inner.security.look()).await;
    }

    /// Until when the certificate that other nodes are shown is good, in seconds since the Unix epoch; `None`: links have none.
    pub fn certificate_not_after(&self) -> Option<i64> {
        self.inner.security.not_after()
    }

    /// Closes all links, and waits until nothing of them runs, but not longer than `shutdown_timeout`.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        let _ = timeout(self.inner.limits.shutdown_timeout, self.inner.ended()).await;
    }
}

async fn watch_certificates(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = sleep(inner.limits.certificate_check_interval.max(Duration::from_millis(10))) => {}
        }
        let transport = Arc::clone(&inner);
        // It reads files.
        let _ = tokio::task::spawn_blocking(move || transport.security.look()).await;
    }
}
