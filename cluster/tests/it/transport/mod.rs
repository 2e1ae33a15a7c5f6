//! Links between processes on loopback addresses.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::BoxStream};
use heronry_cluster::{
    ClusterId, NodeId,
    transport::{Handler, Identity, Net, PeerId, Security, Tcp, Transport, TransportError, TransportLimits},
};
use tokio::sync::{mpsc, watch};

mod asks;
mod calls;
mod certificates;
mod counts;
mod messages;
mod proxy;
mod raw;
mod refusals;
mod slow;
mod strangers;
mod transfers;

/// Long enough for a machine that does ten other things.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);

/// What a handler has heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Up(PeerId, bool),
    Down(PeerId),
    Message(PeerId, Bytes),
}

/// Writes down what it hears. Requests are answered by what they say: `echo …`, `fail …`, `never`.
pub(crate) struct Recorder {
    heard: mpsc::UnboundedSender<Heard>,
    pub(crate) under_way: Arc<()>,
}

impl Handler for Recorder {
    fn call(self: Arc<Self>, from: PeerId, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let under_way = Arc::clone(&self.under_way);
        async move {
            let _under_way = under_way;
            match &request[..] {
                b"never" => std::future::pending().await,
                b"who" => Ok(Bytes::from(from.to_string())),
                request if request.starts_with(b"fail") => Err(String::from_utf8_lossy(request).into_owned()),
                b"large" => Ok(Bytes::from(vec![0; 64 << 20])),
                _ => Ok(request),
            }
        }
        .boxed()
    }

    fn call_of_stranger(self: Arc<Self>, from: Identity, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        async move {
            match &request[..] {
                b"never" => std::future::pending().await,
                request => Ok(Bytes::from(format!(
                    "{} says {}",
                    from.id,
                    String::from_utf8_lossy(request)
                ))),
            }
        }
        .boxed()
    }

    fn message(&self, from: PeerId, message: Bytes) {
        let _ = self.heard.send(Heard::Message(from, message));
    }

    fn transfer(
        self: Arc<Self>,
        _: PeerId,
        header: Bytes,
        mut chunks: BoxStream<'static, Result<Bytes, String>>,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let heard = self.heard.clone();
        async move {
            match &header[..] {
                b"refuse" => return Err("no room".to_owned()),
                b"never" => std::future::pending().await,
                _ => {}
            }
            let (mut bytes, mut sum) = (0, 0_u64);
            while let Some(chunk) = chunks.next().await {
                if &header[..] == b"watched" {
                    let _ = heard.send(Heard::Message(peer(0, 0), Bytes::from("begun")));
                }
                let chunk = chunk.inspect_err(|error| {
                    let _ = heard.send(Heard::Message(peer(0, 0), Bytes::from(error.clone())));
                })?;
                bytes += chunk.len();
                sum = chunk
                    .iter()
                    .fold(sum, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
            }
            Ok(Bytes::from(format!(
                "{} {bytes} {sum}",
                String::from_utf8_lossy(&header)
            )))
        }
        .boxed()
    }

    fn up(&self, peer: PeerId, again: bool) {
        let _ = self.heard.send(Heard::Up(peer, again));
    }

    fn down(&self, peer: PeerId) {
        let _ = self.heard.send(Heard::Down(peer));
    }
}

/// A process of a node.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) transport: Transport,
    pub(crate) id: PeerId,
    pub(crate) cluster: watch::Sender<Option<ClusterId>>,
    heard: Mutex<mpsc::UnboundedReceiver<Heard>>,
    /// Counts requests under way: one for itself, one for the handler.
    pub(crate) under_way: Arc<()>,
}

/// How a process is started.
#[derive(Clone)]
pub(crate) struct Start {
    pub(crate) identity: Identity,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) security: Security,
    pub(crate) limits: TransportLimits,
    pub(crate) listen: Option<SocketAddr>,
}

pub(crate) fn peer(node: u64, start: u64) -> PeerId {
    PeerId {
        node: NodeId(node),
        start,
    }
}

pub(crate) fn limits() -> TransportLimits {
    TransportLimits {
        // A busy machine must not be taken for a dead one.
        keep_alive_timeout: SOON,
        handshake_timeout: SOON,
        clock_skew_max: SOON,
        reconnect_max: Duration::from_millis(200),
        ..TransportLimits::default()
    }
}

/// An address of loopback that nobody else in this process has.
pub(crate) fn address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    let octets = [
        127,
        1 + (process % 200) as u8,
        (number / 250) as u8,
        (1 + number % 250) as u8,
    ];
    (Ipv4Addr::from(octets), 0).into()
}

impl Start {
    pub(crate) fn of(node: u64) -> Self {
        Self {
            identity: Identity {
                id: peer(node, 1),
                cluster_name: "colony".to_owned(),
                version: "0.1.0".to_owned(),
                feature_level: 1,
            },
            cluster: Some(CLUSTER),
            security: Security::Plain,
            limits: limits(),
            listen: Some(address()),
        }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(crate) async fn on<N: Net>(self, net: N) -> Process {
        self.try_on(net).await.unwrap()
    }

    async fn try_on<N: Net>(self, net: N) -> Result<Process, TransportError> {
        let id = self.identity.id;
        let cluster = watch::Sender::new(self.cluster);
        let (heard, hears) = mpsc::unbounded_channel();
        let under_way = Arc::new(());
        let handler = Recorder {
            heard,
            under_way: Arc::clone(&under_way),
        };
        let transport = Transport::start(
            net,
            self.listen,
            self.identity,
            self.security,
            cluster.subscribe(),
            self.limits,
            Arc::new(handler),
        );
        Ok(Process {
            transport: transport.await?,
            id,
            cluster,
            heard: Mutex::new(hears),
            under_way,
        })
    }

    pub(crate) async fn go(self) -> Process {
        self.on(Tcp).await
    }

    pub(crate) async fn try_go(self) -> Result<Process, TransportError> {
        self.try_on(Tcp).await
    }
}

impl Process {
    pub(crate) fn address(&self) -> String {
        self.transport.local_address().unwrap().to_string()
    }

    pub(crate) fn wants(&self, others: &[&Self]) {
        let peers = others.iter().map(|other| (other.id.node, other.address()));
        self.transport.wanted(peers.collect());
    }

    /// The next thing the handler hears.
    #[allow(clippy::await_holding_lock)]
    pub(crate) async fn hears(&self) -> Heard {
        let mut heard = self.heard.try_lock().unwrap();
        tokio::time::timeout(SOON, heard.recv())
            .await
            .expect("nothing is heard")
            .unwrap()
    }

    pub(crate) fn send(&self, to: &Self, message: &str) {
        self.transport
            .send(to.id.node, Bytes::from(message.to_owned()))
            .unwrap();
    }

    pub(crate) async fn asks(&self, to: &Self, request: &str) -> Result<Bytes, heronry_cluster::transport::CallError> {
        self.transport
            .call(to.id.node, Bytes::from(request.to_owned()), SOON)
            .await
    }

    /// Waits until requests can be made.
    pub(crate) async fn reaches(&self, to: &Self) {
        until(async || self.asks(to, "hello").await.is_ok()).await;
    }
}

/// Waits for a condition.
pub(crate) async fn until(mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, wait)
        .await
        .expect("what was waited for has not come");
}

/// Two processes whose link works.
pub(crate) async fn pair(one: Start, other: Start) -> (Process, Process) {
    let (one, other) = (one.go().await, other.go().await);
    one.wants(&[&other]);
    other.wants(&[&one]);
    assert_eq!(one.hears().await, Heard::Up(other.id, false));
    assert_eq!(other.hears().await, Heard::Up(one.id, false));
    one.reaches(&other).await;
    other.reaches(&one).await;
    (one, other)
}
