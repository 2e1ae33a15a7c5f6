//! The socket of a connection: in the clear, under TLS, on the way there, or gone.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use heronry_xmpp::sasl::ChannelBindings;
use rustls::ProtocolVersion;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{Accept, TlsAcceptor, server::TlsStream};

use crate::tls::TlsMaterial;

/// The socket of a connection.
pub(super) enum Socket {
    /// In the clear.
    Plain(TcpStream),
    /// In the clear, on a network that is simulated.
    #[cfg(test)]
    Simulated(Box<dyn Simulated>),
    /// A TLS handshake is under way.
    Handshake(Box<Handshake>),
    /// Under TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// Closed.
    Gone,
}

/// A connection of a network that is simulated.
#[cfg(test)]
pub(crate) trait Simulated: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}

#[cfg(test)]
impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Simulated for S {}

/// A handshake, and the certificate that it shows.
pub(super) struct Handshake {
    accept: Accept<TcpStream>,
    material: Arc<TlsMaterial>,
}

impl Socket {
    /// Begins a TLS handshake as the server. Only a socket in the clear can.
    pub(super) fn begin_tls(&mut self, material: Arc<TlsMaterial>) {
        if let Self::Plain(stream) = std::mem::replace(self, Self::Gone) {
            let accept = TlsAcceptor::from(Arc::clone(&material.starttls)).accept(stream);
            *self = Self::Handshake(Box::new(Handshake { accept, material }));
        }
    }

    /// Goes on with the handshake, if there is one. When it is done, the channel's bindings are returned.
    pub(super) fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<ChannelBindings>> {
        let Self::Handshake(handshake) = self else {
            return Poll::Pending;
        };
        let stream = ready!(Pin::new(&mut handshake.accept).poll(context))?;
        let bindings = bindings(&stream, &handshake.material.server_end_point);
        *self = Self::Tls(Box::new(stream));
        Poll::Ready(Ok(bindings))
    }

    /// Reads into `buffer`; 0 is the end. Pending during a handshake.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, &mut buffer),
            #[cfg(test)]
            Self::Simulated(stream) => Pin::new(stream).poll_read(context, &mut buffer),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(context, &mut buffer),
            Self::Handshake(_) => Poll::Pending,
            Self::Gone => Poll::Ready(Ok(())),
        })?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Writes what can be written now.
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            #[cfg(test)]
            Self::Simulated(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(context, bytes),
            Self::Handshake(_) => Poll::Pending,
            Self::Gone => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Everything written is in the hands of the operating system when this is ready.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(context),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Says that nothing more will be written.
    pub(super) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            #[cfg(test)]
            Self::Simulated(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(context),
            Self::Handshake(_) | Self::Gone => Poll::Ready(Ok(())),
        }
    }

    /// The version of TLS, where there is TLS.
    pub(super) fn tls_version(&self) -> Option<ProtocolVersion> {
        match self {
            Self::Tls(stream) => stream.get_ref().1.protocol_version(),
            _ => None,
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Gone)
    }

    pub(super) fn is_handshake(&self) -> bool {
        matches!(self, Self::Handshake(_))
    }
}

/// The bindings of a TLS channel. `tls-exporter` is there for TLS 1.2 too: we speak that with extended master secret only
/// (RFC 9266 §4.2), and never renegotiate.
pub(super) fn bindings(stream: &TlsStream<TcpStream>, end_point: &[u8]) -> ChannelBindings {
    let connection = stream.get_ref().1;
    let bindings = ChannelBindings::none().with_server_end_point(end_point);
    // RFC 9266 §2: an empty context.
    match connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")) {
        Ok(material) => bindings.with_exporter(material),
        Err(_) => bindings,
    }
}
