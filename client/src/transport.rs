//! The bytes below a stream: TCP, and TLS on it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use heronry_xmpp::sasl::ChannelBindings;
use rustls::CertificateError;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{end_point, error::ConnectError, trust::Trust};

/// A connection to a server, encrypted or not yet.
#[derive(Debug)]
pub enum Transport {
    /// TCP alone.
    Plain(TcpStream),
    /// TLS on TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Connects without delaying small writes (`TCP_NODELAY`).
    pub(crate) async fn connect(
        address: SocketAddr,
        from: Option<IpAddr>,
        patience: Duration,
    ) -> Result<Self, ConnectError> {
        let stream = timeout(patience, connect_to(address, from));
        let stream = stream.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        stream.map(Self::Plain).map_err(ConnectError::Unreachable)
    }

    /// Does the TLS handshake, for `domain` (RFC 6120 §13.7.2.1).
    pub(crate) async fn encrypt(self, trust: &Trust, domain: &str, direct: bool) -> Result<Self, ConnectError> {
        let Self::Plain(stream) = self else {
            return Err(ConnectError::Protocol("TLS begins inside TLS"));
        };
        let domain = domain.trim_matches(['[', ']']);
        let name = idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_owned());
        let name =
            ServerName::try_from(name).map_err(|_| ConnectError::Untrusted(CertificateError::NotValidForName))?;
        let stream = TlsConnector::from(trust.config(direct))
            .connect(name, stream)
            .await
            .map_err(ConnectError::tls)?;
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Whether others on the way can read.
    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// What ties an authentication to this very connection.
    pub(crate) fn channel_bindings(&self) -> ChannelBindings {
        let Self::Tls(stream) = self else {
            return ChannelBindings::none();
        };
        let connection = stream.get_ref().1;
        let mut bindings = ChannelBindings::none();
        let mut keying_material = [0; 32];
        // RFC 9266 §2, §3: TLS 1.2 has it with extended master secret only, and TLS 1.3 always.
        if connection
            .export_keying_material(&mut keying_material, b"EXPORTER-Channel-Binding", Some(b""))
            .is_ok()
        {
            bindings = bindings.with_exporter(keying_material);
        }
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        if let Some(hash) = certificate.and_then(|certificate| end_point::hash(certificate)) {
            bindings = bindings.with_server_end_point(&hash);
        }
        bindings
    }
}

async fn connect_to(address: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let stream = match from {
        None => TcpStream::connect(address).await?,
        Some(from) => {
            let socket = if address.is_ipv4() {
                TcpSocket::new_v4()
            } else {
                TcpSocket::new_v6()
            }?;
            socket.bind(SocketAddr::new(from, 0))?;
            socket.connect(address).await?
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
