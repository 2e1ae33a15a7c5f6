//! What links run on: TCP, or a network that a test simulates.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

/// After this long without a byte the kernel asks whether the other end is there...
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// ...and again after this...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// ...so many times. HTTP/2's own pings are quicker (`keep_alive_interval`); these end what never came to speak HTTP/2.
const KEEPALIVE_PROBES: u32 = 3;

/// A network, and the clock on the wall of the machine that is connected to it.
pub trait Net: Clone + Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Takes connections.
    type Listener: Send + Sync + 'static;

    /// Takes connections at an address; port 0 is any that is free.
    fn listen(&self, address: SocketAddr) -> impl Future<Output = io::Result<Self::Listener>> + Send;

    /// The next connection. Cancel safe: nothing is lost when it is dropped.
    fn accept(listener: &Self::Listener) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    /// Where it takes them.
    fn local_address(listener: &Self::Listener) -> io::Result<SocketAddr>;

    /// A connection to `host:port`; the host is a name or an address.
    fn dial(&self, address: &str) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// The time of day, which is told to peers and compared with theirs.
    fn wall_clock(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// TCP: without delay (one message is one segment), and with the kernel's own questions whether the other end is still there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Net for Tcp {
    type Stream = TcpStream;
    type Listener = TcpListener;

    async fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(address).await
    }

    async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, from) = listener.accept().await?;
        prepare(&stream)?;
        Ok((stream, from))
    }

    fn local_address(listener: &TcpListener) -> io::Result<SocketAddr> {
        listener.local_addr()
    }

    async fn dial(&self, address: &str) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        prepare(&stream)?;
        Ok(stream)
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    Ok(())
}

/// A connection of whatever network.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection whose network is forgotten: all that is above needs no type of its own for each.
pub(super) type AnyStream = Box<dyn Stream>;

/// A network whose type is forgotten.
pub(super) trait AnyNet: Send + Sync {
    fn dial(self: Arc<Self>, address: String) -> BoxFuture<'static, io::Result<AnyStream>>;
    fn wall_clock(&self) -> SystemTime;
}

impl<N: Net> AnyNet for N {
    fn dial(self: Arc<Self>, address: String) -> BoxFuture<'static, io::Result<AnyStream>> {
        Box::pin(async move { Ok(Box::new(Net::dial(&*self, &address).await?) as AnyStream) })
    }

    fn wall_clock(&self) -> SystemTime {
        Net::wall_clock(self)
    }
}
