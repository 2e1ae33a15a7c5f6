//! Connections that others begin: who is let in.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt as _};
use heronry_proto::peer::{
    self, Frame, Hello,
    frame::Body,
    peer_server::{Peer as PeerService, PeerServer},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout, timeout_at},
};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::{
    Identity, Refusal, RefusalReason, ask, bulk,
    connection::{Broken, Connection, Guarded},
    dial, hello,
    inner::{Inner, node_name},
    lane::{Incoming, Kind, Lane},
    limits::{CONNECTION_WINDOW, STRANGER_BYTES_MAX, STREAM_WINDOW},
    metrics,
    net::{AnyStream, Net},
    queue::{Item, Outgoing, Queue},
    security::of_certificate,
};

/// How long to wait when the system gives no connection: it may have no files left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections between the first byte and the end of tonic's own work.
const SHAKEN: usize = 16;

/// HTTP/2's headers of one call, bytes.
const HEADERS_MAX: u32 = 8 << 10;

/// Connections that have not yet said who they are, or are being refused; oldest first. Full: the oldest is closed. To refuse the newest
/// would let whoever fills the table keep members out.
pub(super) struct Strangers {
    max: usize,
    table: Mutex<VecDeque<Arc<Connection>>>,
}

impl Strangers {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            table: Mutex::default(),
        }
    }

    /// A new one; who must go for it.
    fn add(&self, connection: &Arc<Connection>) -> Option<Arc<Connection>> {
        let mut table = self.table();
        let oldest = (table.len() >= self.max).then(|| table.pop_front()).flatten();
        table.push_back(Arc::clone(connection));
        metrics::strangers(table.len());
        oldest
    }

    /// It is in use, or gone.
    fn remove(&self, connection: &Arc<Connection>) {
        let mut table = self.table();
        table.retain(|stranger| !Arc::ptr_eq(stranger, connection));
        metrics::strangers(table.len());
    }

    /// It is in use: neither its time nor its place is a stranger's any more.
    pub(super) fn settle(&self, connection: &Arc<Connection>) {
        connection.settle();
        self.remove(connection);
    }

    fn table(&self) -> MutexGuard<'_, VecDeque<Arc<Connection>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves the listener until the transport stops.
pub(super) fn open<N: Net>(inner: &Arc<Inner>, listener: N::Listener) {
    let (shaken, incoming) = mpsc::channel(SHAKEN);
    inner.spawn(take::<N>(Arc::clone(inner), listener, shaken));
    let serving = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(inner.limits.keep_alive_interval))
        .http2_keepalive_timeout(Some(inner.limits.keep_alive_timeout))
        .http2_max_header_list_size(HEADERS_MAX)
        .max_concurrent_streams(1)
        .add_service(PeerServer::new(Door(Arc::clone(inner))).max_decoding_message_size(inner.limits.wire_bytes_max()))
        .serve_with_incoming_shutdown(
            futures::stream::unfold(incoming, |mut incoming: mpsc::Receiver<_>| async {
                incoming.recv().await.map(|next| (next, incoming))
            }),
            inner.stop.clone().cancelled_owned(),
        );
    inner.spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!("links of other nodes are no longer taken: {error}");
        }
    });
}

async fn take<N: Net>(inner: Arc<Inner>, listener: N::Listener, shaken: mpsc::Sender<io::Result<Guarded>>) {
    loop {
        let accepted = tokio::select! {
            () = inner.stop.cancelled() => return,
            accepted = N::accept(&listener) => accepted,
        };
        match accepted {
            Ok((stream, from)) => greet(&inner, Box::new(stream), from, shaken.clone()),
            Err(error) => {
                tracing::debug!("a connection could not be taken: {error}");
                tokio::select! {
                    () = inner.stop.cancelled() => return,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
}

/// Lets a stranger into the anteroom, where it has little time.
fn greet(inner: &Arc<Inner>, stream: AnyStream, from: SocketAddr, shaken: mpsc::Sender<io::Result<Guarded>>) {
    let connection = Connection::new(from.ip().to_string(), &inner.stop);
    if let Some(oldest) = inner.strangers.add(&connection) {
        oldest.close(Broken::Crowded);
    }
    let deadline = Instant::now() + inner.limits.handshake_timeout;
    let transport = Arc::clone(inner);
    let left = Left {
        inner: Arc::clone(inner),
        connection: Arc::clone(&connection),
    };
    inner.spawn(async move {
        let secure = timeout_at(deadline, transport.security.take(stream));
        let secure = tokio::select! {
            _ = connection.closed() => return,
            secure = secure => secure,
        };
        let stream = match secure {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return left.without_tls(&error),
            Err(_) => return connection.close(Broken::Silent),
        };
        let guarded = Guarded::taken(stream, connection, deadline, Box::new(move || drop(left)));
        // Nobody takes it: the transport stops.
        let _ = shaken.send(Ok(guarded)).await;
    });
}

/// A connection has gone. Of one that was never put to use it is said why.
struct Left {
    inner: Arc<Inner>,
    connection: Arc<Connection>,
}

impl Left {
    fn without_tls(self, error: &io::Error) {
        let remote = &self.connection.remote;
        match of_certificate(error) {
            Some((true, sentence)) => {
                let refusal = Refusal::new(RefusalReason::Certificate, sentence);
                note(&self.inner, &self.connection, remote, &refusal);
            }
            Some((false, sentence)) => {
                self.connection.refuse_once();
                self.inner
                    .refusals
                    .note(false, remote, &Refusal::new(RefusalReason::Certificate, sentence));
            }
            None => {
                let refusal = Refusal::new(RefusalReason::Garbled, format!("it does not speak TLS: {error}"));
                note(&self.inner, &self.connection, remote, &refusal);
            }
        }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        self.inner.strangers.remove(&self.connection);
        if self.connection.is_settled() || self.inner.stop.is_cancelled() {
            return;
        }
        let (reason, sentence) = match self.connection.is_closed().then(|| self.connection.why()) {
            Some(Broken::Silent) => (RefusalReason::Silent, "it did not say who it is in time"),
            Some(Broken::Crowded) => (RefusalReason::Busy, "too many connections have not said who they are"),
            // Nothing is wrong with what it has said.
            _ if self.connection.is_greeted() => return,
            Some(_) | None => (RefusalReason::Garbled, "it does not speak the language of nodes"),
        };
        note(
            &self.inner,
            &self.connection,
            &self.connection.remote,
            &Refusal::new(reason, sentence),
        );
    }
}

/// Says why a connection is refused, once.
fn note(inner: &Inner, connection: &Connection, who: &str, refusal: &Refusal) {
    if connection.refuse_once() {
        inner.refusals.note(true, who, refusal);
    }
}

/// tonic's service: one call per connection.
struct Door(Arc<Inner>);

#[tonic::async_trait]
impl PeerService for Door {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn link(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::LinkStream>, Status> {
        let Some(connection) = request.extensions().get::<Arc<Connection>>().cloned() else {
            return Err(Status::internal("the connection is not known"));
        };
        if !connection.use_once() {
            connection.close(Broken::Garbled);
            return Err(Status::failed_precondition("one call per connection"));
        }
        // Enough for Hello or a refusal; what it is for is not known yet.
        let queue = Queue::new(STRANGER_BYTES_MAX);
        let outgoing = Outgoing(Arc::clone(&queue)).map(Ok);
        let incoming = Incoming::new(request.into_inner());
        let inner = Arc::clone(&self.0);
        self.0.spawn(async move {
            let lane = Lane {
                // Until the other side has said what it wants and who it is.
                kind: Kind::Ask,
                peer: inner.identity.id,
                connection,
                queue,
                incoming,
                worked: false,
                channel: None,
            };
            let_in(&inner, lane).await;
        });
        Ok(Response::new(Box::pin(outgoing)))
    }
}

/// Hears the Hello of a connection, and serves it if it fits.
async fn let_in(inner: &Arc<Inner>, mut lane: Lane) {
    let hello = match timeout(inner.limits.handshake_timeout, lane.next()).await {
        Ok(Ok(Body::Hello(hello))) => hello,
        Ok(Err(why)) => return lane.connection.close(why),
        Ok(Ok(_)) => return lane.connection.close(Broken::Garbled),
        Err(_) => return lane.connection.close(Broken::Silent),
    };
    let who = match inner.peer(hello::identity(&hello).id.node) {
        Some(peer) => node_name(peer.node),
        // What strangers call themselves is not repeated.
        None => lane.connection.remote.clone(),
    };
    match check(inner, &hello) {
        Ok((kind, identity)) => {
            lane.connection.greet();
            welcome(inner, lane, kind, identity, &hello).await;
        }
        Err(refusal) => {
            note(inner, &lane.connection, &who, &refusal);
            say_no(inner, lane, refusal).await;
        }
    }
}

fn check(inner: &Inner, hello: &Hello) -> Result<(Kind, Identity), Refusal> {
    let unknown = || Refusal::new(RefusalReason::Garbled, "what the connection is for is not known here");
    // Another version is refused as such, whatever else is strange about it.
    let kind = hello::kind(hello)
        .or_else(|| (hello.protocol != hello::PROTOCOL).then_some(Kind::Ask))
        .ok_or_else(unknown)?;
    let identity = inner.check(hello, kind, None)?;
    // Otherwise both would dial, and each would displace the other's connections.
    if kind != Kind::Ask && identity.id.node > inner.identity.id.node {
        return Err(Refusal::new(RefusalReason::Garbled, "the node with the lower id dials"));
    }
    Ok((kind, identity))
}

/// Says why not, and waits until the other side has heard it and closes.
async fn say_no(inner: &Inner, mut lane: Lane, refusal: Refusal) {
    let said = lane.queue.push(Item::Alone(Body::Refusal(peer::Refusal {
        reason: refusal.reason.name().to_owned(),
        sentence: refusal.sentence,
    })));
    lane.queue.finish();
    if said.is_ok() {
        let _ = timeout(inner.limits.handshake_timeout, lane.next()).await;
    }
}

/// Says Hello, and serves the connection once the other side agrees.
async fn welcome(inner: &Arc<Inner>, mut lane: Lane, kind: Kind, identity: Identity, hello: &Hello) {
    let node = identity.id.node;
    lane.kind = kind;
    lane.peer = identity.id;
    lane.queue.set_bytes_max(dial::queue_bytes_max(inner, kind));
    lane.worked = hello.worked_with == inner.identity.id.start && hello.worked_with != 0;
    let greeting = inner.hello(kind, Some(node), hello.ticket);
    if lane.queue.push(Item::Alone(Body::Hello(greeting))).is_err() {
        return;
    }
    match timeout(inner.limits.handshake_timeout, lane.next()).await {
        Ok(Ok(Body::Ready(_))) => {}
        Ok(Ok(Body::Refusal(refusal))) => {
            if let dial::NoLane::Refused { by_us, refusal } = dial::refused_by_peer(refusal) {
                let who = if kind == Kind::Ask {
                    lane.connection.remote.clone()
                } else {
                    node_name(node)
                };
                lane.connection.refuse_once();
                inner.refusals.note(by_us, &who, &refusal);
            }
            return;
        }
        _ => return,
    }
    if kind == Kind::Ask {
        return ask::serve(inner, lane, identity).await;
    }
    // It may have been removed from the map in this moment.
    let Some(peer) = inner.peer(node) else {
        return;
    };
    if let Err(refusal) = peer.hold(kind, identity.id, &lane.connection) {
        return note(inner, &lane.connection, &node_name(node), &refusal);
    }
    match kind {
        Kind::Bulk if hello.ticket != 0 => inner.redeem(hello.ticket, lane),
        Kind::Bulk => match Arc::clone(&peer.transfers_in).try_acquire_owned() {
            Ok(place) => {
                inner.strangers.settle(&lane.connection);
                bulk::receive(inner, lane, place).await;
            }
            Err(_) => {
                let refusal = Refusal::new(RefusalReason::Busy, "too many transfers are under way");
                note(inner, &lane.connection, &node_name(node), &refusal);
                say_no(inner, lane, refusal).await;
            }
        },
        Kind::Control | Kind::Messages | Kind::Ask => {
            inner.strangers.settle(&lane.connection);
            inner.run(&peer, lane).await;
        }
    }
}
