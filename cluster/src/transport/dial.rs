//! Connections that this node begins.

use std::{
    collections::hash_map::DefaultHasher,
    fmt,
    future::{Ready, ready},
    hash::{Hash as _, Hasher as _},
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use heronry_proto::peer::{self, Hello, frame::Body, peer_client::PeerClient};
use heronry_storage::NodeId;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep, timeout};
use tonic::{
    codegen::{Service, http::Uri},
    transport::Endpoint,
};

use super::{
    Identity, Refusal, RefusalReason,
    connection::{Broken, Connection, Guarded},
    inner::{Inner, node_name},
    lane::{Incoming, Kind, Lane},
    limits::{CONNECTION_WINDOW, STREAM_WINDOW},
    metrics,
    peer::Peer,
    queue::{Item, Outgoing, Queue},
    security::of_certificate,
};

/// Why a connection was not made.
#[derive(Debug)]
pub(super) enum NoLane {
    /// Nobody is there, or who is there does not answer, or does not speak our language.
    Unreachable(String),
    /// One side does not want the other.
    Refused { by_us: bool, refusal: Refusal },
}

impl fmt::Display for NoLane {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(sentence) => formatter.write_str(sentence),
            Self::Refused { refusal, .. } => refusal.fmt(formatter),
        }
    }
}

/// Keeps a connection of that kind with a peer as long as it is wanted. Only the node with the lower id does.
pub(super) async fn keep(inner: Arc<Inner>, peer: Arc<Peer>, kind: Kind) {
    let unwanted = peer.unwanted.clone();
    tokio::select! {
        biased;
        () = unwanted.cancelled() => {}
        () = dial_for_ever(&inner, &peer, kind) => {}
    }
}

async fn dial_for_ever(inner: &Arc<Inner>, peer: &Arc<Peer>, kind: Kind) {
    let mut attempts = 0;
    let mut moved = peer.address.subscribe();
    loop {
        match member(inner, peer, kind, 0).await {
            Ok(lane) => {
                let begun = Instant::now();
                // A task of its own: it ends with `down`, also when the peer is no longer wanted.
                let (transport, member) = (Arc::clone(inner), Arc::clone(peer));
                let (ended, wait) = tokio::sync::oneshot::channel();
                inner.spawn(async move {
                    transport.run(&member, lane).await;
                    let _ = ended.send(());
                });
                let _ = wait.await;
                // One that breaks at once is like one that was never made.
                attempts = if begun.elapsed() >= inner.limits.reconnect_max {
                    0
                } else {
                    attempts + 1
                };
            }
            Err(error) => {
                note(inner, &node_name(peer.node), &error);
                attempts += 1;
            }
        }
        tokio::select! {
            () = sleep(wait(inner, peer.node, kind, attempts)) => {}
            // At the new address everything is new.
            Ok(()) = moved.changed() => attempts = 0,
        }
    }
}

fn note(inner: &Inner, who: &str, error: &NoLane) {
    match error {
        NoLane::Unreachable(sentence) => {
            metrics::dial_failed();
            tracing::debug!(peer = who, "not connected: {sentence}");
        }
        NoLane::Refused { by_us, refusal } => inner.refusals.note(*by_us, who, refusal),
    }
}

/// How long to wait before the next attempt: not before the first, then twice as long each time, and of that a part between half and
/// the whole, another one for each pair of nodes and attempt, so that a restarted node is not dialed by all at once.
fn wait(inner: &Inner, node: NodeId, kind: Kind, attempts: u32) -> Duration {
    let Some(doublings) = attempts.checked_sub(1) else {
        return Duration::ZERO;
    };
    let limits = &inner.limits;
    let whole = limits
        .reconnect_min
        .saturating_mul(1 << doublings.min(16))
        .min(limits.reconnect_max);
    let mut hasher = DefaultHasher::new();
    (inner.identity.id, node, kind, attempts).hash(&mut hasher);
    let part = (hasher.finish() % 1024) as f64 / 1024.0;
    whole.mul_f64(0.5 + part / 2.0)
}

/// A connection with a member, on which both have said who they are.
pub(super) async fn member(inner: &Arc<Inner>, peer: &Arc<Peer>, kind: Kind, ticket: u64) -> Result<Lane, NoLane> {
    let address = peer.address.borrow().clone();
    let greeting = inner.hello(kind, Some(peer.node), ticket);
    let (_, lane) = dial(inner, &address, kind, Some(peer.node), greeting).await?;
    if let Err(refusal) = peer.hold(kind, lane.peer, &lane.connection) {
        return Err(refuse(inner, lane, refusal));
    }
    let ready = lane.queue.push(Item::Alone(Body::Ready(peer::Ready {})));
    if ready.is_err() {
        peer.release(&lane.connection);
        return Err(NoLane::Unreachable(gone(&address)));
    }
    Ok(lane)
}

/// A connection with whoever is at the address.
pub(super) async fn stranger(inner: &Arc<Inner>, address: &str) -> Result<(Identity, Lane), NoLane> {
    let greeting = inner.hello(Kind::Ask, None, 0);
    let (identity, lane) = dial(inner, address, Kind::Ask, None, greeting).await?;
    let ready = lane.queue.push(Item::Alone(Body::Ready(peer::Ready {})));
    ready.map_err(|_| NoLane::Unreachable(gone(address)))?;
    Ok((identity, lane))
}

async fn dial(
    inner: &Arc<Inner>,
    address: &str,
    kind: Kind,
    expected: Option<NodeId>,
    greeting: Hello,
) -> Result<(Identity, Lane), NoLane> {
    let within = inner.limits.handshake_timeout;
    let handshake = timeout(within, shake_hands(inner, address, kind, expected, greeting));
    handshake.await.unwrap_or_else(|_| {
        Err(NoLane::Unreachable(format!(
            "{address} does not answer within {within:?}"
        )))
    })
}

async fn shake_hands(
    inner: &Arc<Inner>,
    address: &str,
    kind: Kind,
    expected: Option<NodeId>,
    greeting: Hello,
) -> Result<(Identity, Lane), NoLane> {
    let unreachable = |error: &dyn fmt::Display| NoLane::Unreachable(format!("{address} cannot be reached: {error}"));
    let stream = Arc::clone(&inner.net)
        .dial(address.to_owned())
        .await
        .map_err(|error| unreachable(&error))?;
    let stream = inner
        .security
        .begin(stream)
        .await
        .map_err(|error| failed(address, of_certificate(&error), &error))?;
    let connection = Connection::new(address.to_owned(), &inner.stop);
    let closing = CloseOnDrop(Some(Arc::clone(&connection)));
    let stream = Guarded::dialed(stream, Arc::clone(&connection)).into_io();
    let channel = endpoint(inner)
        .connect_with_connector(Once(Some(stream)))
        .await
        .map_err(|error| failed(address, connection.certificate_refused(), &error))?;
    let mut client = PeerClient::new(channel.clone()).max_decoding_message_size(inner.limits.wire_bytes_max());

    let queue = Queue::new(queue_bytes_max(inner, kind));
    let said = queue.push(Item::Alone(Body::Hello(greeting)));
    said.map_err(|_| NoLane::Unreachable(gone(address)))?;
    let response = client.link(Outgoing(Arc::clone(&queue))).await;
    let response = response.map_err(|status| failed(address, connection.certificate_refused(), &status))?;
    let mut lane = Lane {
        kind,
        // Until the other side has said who it is.
        peer: inner.identity.id,
        connection,
        queue,
        incoming: Incoming::new(response.into_inner()),
        worked: false,
        channel: Some(channel),
    };
    closing.keep();
    let theirs = match lane.next().await {
        Ok(Body::Hello(theirs)) => theirs,
        Ok(Body::Refusal(refusal)) => return Err(refused_by_peer(refusal)),
        Ok(_) | Err(Broken::Garbled | Broken::OutOfOrder | Broken::Oversized) => {
            let sentence = format!("{address} does not speak the language of nodes");
            let refusal = Refusal::new(RefusalReason::Garbled, sentence);
            return Err(NoLane::Refused { by_us: true, refusal });
        }
        Err(_) => return Err(NoLane::Unreachable(gone(address))),
    };
    match inner.check(&theirs, kind, expected) {
        Ok(identity) => {
            lane.peer = identity.id;
            lane.worked = theirs.worked_with == inner.identity.id.start && theirs.worked_with != 0;
            Ok((identity, lane))
        }
        Err(refusal) => Err(refuse(inner, lane, refusal)),
    }
}

fn gone(address: &str) -> String {
    format!("{address} has ended the connection")
}

/// Tells the other side, which then closes.
fn refuse(inner: &Inner, mut lane: Lane, refusal: Refusal) -> NoLane {
    let said = lane.queue.push(Item::Alone(Body::Refusal(peer::Refusal {
        reason: refusal.reason.name().to_owned(),
        sentence: refusal.sentence.clone(),
    })));
    lane.queue.finish();
    let within = inner.limits.handshake_timeout;
    if said.is_ok() {
        inner.spawn(async move {
            let _ = timeout(within, lane.next()).await;
        });
    }
    NoLane::Refused { by_us: true, refusal }
}

/// What the other side says when it refuses us.
pub(super) fn refused_by_peer(refusal: peer::Refusal) -> NoLane {
    let mut sentence = refusal.sentence;
    sentence.truncate(sentence.char_indices().nth(512).map_or(sentence.len(), |(at, _)| at));
    NoLane::Refused {
        by_us: false,
        refusal: Refusal::new(RefusalReason::from_name(&refusal.reason), sentence),
    }
}

/// An error below the handshake: of a certificate, or of the network.
fn failed(address: &str, certificate: Option<(bool, String)>, error: &(dyn std::error::Error + 'static)) -> NoLane {
    match certificate {
        Some((by_us, sentence)) => NoLane::Refused {
            by_us,
            refusal: Refusal::new(RefusalReason::Certificate, format!("{address}: {sentence}")),
        },
        None => NoLane::Unreachable(format!(
            "{address} does not speak the language of nodes: {}",
            chain(error)
        )),
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What may wait for a peer.
pub(super) fn queue_bytes_max(inner: &Inner, kind: Kind) -> usize {
    match kind {
        Kind::Messages => inner.limits.queue_bytes_max,
        Kind::Control | Kind::Ask => inner.limits.call_queue_bytes_max,
        // Kept short by who sends (bulk.rs).
        Kind::Bulk => usize::MAX,
    }
}

fn endpoint(inner: &Inner) -> Endpoint {
    // The name is never resolved: the connection is there.
    Endpoint::from_static("http://heronry")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(inner.limits.keep_alive_interval)
        .keep_alive_timeout(inner.limits.keep_alive_timeout)
        .keep_alive_while_idle(true)
}

/// Closes a connection whose handshake was given up.
struct CloseOnDrop(Option<Arc<Connection>>);

impl CloseOnDrop {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.close(Broken::Silent);
        }
    }
}

/// Gives tonic the connection that is there, once: whether and when to dial again is decided here.
struct Once(Option<TokioIo<Guarded>>);

impl Service<Uri> for Once {
    type Response = TokioIo<Guarded>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<Guarded>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}
