//! The listeners: addresses in, connections out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{
    Edge,
    admission::{Place, Stranger},
    connection::Task,
    metrics::{self, Phase},
    socket::{self, Socket},
};

/// Connections that wait for us to accept them.
const BACKLOG: u32 = 4096;

/// How long no connection is accepted after the operating system gave none.
const BACK_OFF: Duration = Duration::from_millis(100);

/// How connections of a listener begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begins {
    /// In the clear, with STARTTLS on offer (RFC 6120 §5).
    Clear,
    /// With TLS (XEP-0368).
    Tls,
}

/// Opens a listener; nothing is accepted yet.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Connections of a process before this one must not be in the way.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections until the task is aborted. While the edge is to hold none there is no listener: whoever connects hears so at once.
pub(super) async fn accept(edge: Arc<Edge>, listener: TcpListener, address: SocketAddr, begins: Begins) {
    let mut listener = Some(listener);
    let mut leaving = edge.others.subscribe();
    loop {
        if let Some(listener) = listener.take() {
            tokio::select! {
                () = take_all(&edge, &listener, begins) => {}
                _ = leaving.wait_for(Option::is_some) => {}
            }
        }
        if leaving.wait_for(Option::is_none).await.is_err() {
            return;
        }
        match bind(address) {
            Ok(bound) => listener = Some(bound),
            Err(error) => {
                tracing::warn!(%address, %error, "connections cannot be accepted again");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

async fn take_all(edge: &Arc<Edge>, listener: &TcpListener, begins: Begins) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => take(edge, stream, peer, begins),
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                // Most likely no file descriptor is left; asking again at once would not help.
                metrics::accept_failed();
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// Whether it failed before we had it.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn take(edge: &Arc<Edge>, stream: TcpStream, peer: SocketAddr, begins: Begins) {
    let (place, stranger) = match edge.admission.admit(peer.ip(), edge.clock.elapsed()) {
        Ok(admitted) => admitted,
        Err(refusal) => return metrics::refused(refusal.name()),
    };
    // Stanzas are small and must not wait for each other's acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        return tracing::debug!(%error, "a connection was gone at once");
    }
    let edge = Arc::clone(edge);
    match begins {
        Begins::Clear => {
            tokio::spawn(Task::new(edge, place, stranger, Socket::Plain(stream), None));
        }
        Begins::Tls => {
            tokio::spawn(begin_tls(edge, place, stranger, stream));
        }
    }
}

/// Takes a connection of a network that is simulated, which begins in the clear.
#[cfg(test)]
pub(super) fn take_simulated(edge: &Arc<Edge>, stream: Box<dyn socket::Simulated>, peer: std::net::IpAddr) {
    let Ok((place, stranger)) = edge.admission.admit(peer, edge.clock.elapsed()) else {
        return;
    };
    let socket = Socket::Simulated(stream);
    tokio::spawn(Task::new(Arc::clone(edge), place, stranger, socket, None));
}

/// The handshake comes first; its memory is given back when the connection begins.
async fn begin_tls(edge: Arc<Edge>, place: Place, stranger: Stranger, stream: TcpStream) {
    let tls = edge.tls.current();
    let began = edge.clock.elapsed();
    let accept = TlsAcceptor::from(Arc::clone(&tls.direct)).accept(stream);
    edge.phases.enter(Phase::Handshake);
    let handshake = tokio::time::timeout(edge.limits.tls_timeout, accept).await;
    edge.phases.leave(Phase::Handshake);
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            return metrics::handshake_failed();
        }
        Err(_) => return metrics::timed_out("tls"),
    };
    let took = edge.clock.elapsed().saturating_sub(began);
    metrics::handshake_done(stream.get_ref().1.protocol_version(), took);
    let bindings = socket::bindings(&stream, &tls.server_end_point);
    let socket = Socket::Tls(Box::new(stream));
    tokio::spawn(Task::new(edge, place, stranger, socket, Some(bindings)));
}
