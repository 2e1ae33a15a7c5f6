//! How to connect, as what, and what to do when the connection is lost.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use heronry_xmpp::{
    jid::BareJid,
    sasl::{Mechanism, Password, Secret},
};

use crate::trust::Trust;

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// At an address.
    Address(SocketAddr),
    /// At a port of a host by name, whatever the domain of our address.
    HostPort(String, u16),
    /// At the domain of our address. The name is looked up; service records (RFC 6120 §3.2.1) are not yet.
    Domain {
        /// The port: usually 5222, or 5223 for direct TLS.
        port: u16,
    },
}

/// How the stream is encrypted.
#[derive(Clone, Debug)]
pub enum Tls {
    /// The stream begins in the clear and is encrypted before anything is said (RFC 6120 §5). A server that does not offer
    /// it is left.
    StartTls(Trust),
    /// TLS comes before the stream (XEP-0368).
    Direct(Trust),
    /// Not at all: everybody on the way can read and change everything. For tests and closed networks. PLAIN is never used
    /// over it.
    None,
}

/// What to do when the connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// Nothing, until [`Client::resume`](crate::Client::resume) is called.
    OnDemand,
    /// Try again by itself, after `first` and then each time after twice as long, up to `max`; each wait is shortened by up to
    /// half at random, so that a fleet does not return as one.
    Automatic {
        /// The longest wait before the first attempt.
        first: Duration,
        /// The longest wait of all.
        max: Duration,
    },
}

/// Everything a [`Client`](crate::Client) needs to know. Made by [`Options::new`] and changed by its methods; the defaults suit
/// a device on a public network.
#[derive(Clone)]
pub struct Options {
    pub(crate) account: BareJid,
    pub(crate) secret: Secret,
    pub(crate) server: Option<Server>,
    pub(crate) tls: Tls,
    pub(crate) resource: Option<String>,
    pub(crate) mechanism: Option<Mechanism>,
    pub(crate) channel_binding: bool,
    pub(crate) source: Option<IpAddr>,
    pub(crate) stream_management: bool,
    pub(crate) reconnect: Reconnect,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) ping_interval: Duration,
    pub(crate) ping_timeout: Duration,
    pub(crate) limits: Limits,
}

/// Bounds on what a client keeps in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Stanzas sent and not acknowledged by the server (XEP-0198). Full: sending waits; at twice as many, requests to us are
    /// not answered any more.
    pub unacknowledged_max: usize,
    /// Requests waiting for their answer. Full: requesting waits.
    pub requests_max: usize,
    /// Events the application has not taken. Full: the connection is not read, so requests wait too.
    pub events_max: usize,
    /// Sends and requests that wait for room. Full: their callers wait.
    pub commands_max: usize,
    /// Bytes of one stanza, and of everything written and not yet taken by the network before sending waits.
    pub stanza_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unacknowledged_max: 256,
            requests_max: 256,
            events_max: 256,
            commands_max: 64,
            stanza_bytes_max: 256 * 1024,
        }
    }
}

impl Options {
    /// An account and its password; everything else by default: STARTTLS at port 5222 of the account's domain with a
    /// certificate browsers would trust, stream management, and a resource chosen by the server.
    pub fn new(account: BareJid, password: Password) -> Self {
        Self::with_secret(account, Secret::new(password))
    }

    /// As [`new`](Self::new), with a secret that may hold keys of an earlier exchange.
    pub fn with_secret(account: BareJid, secret: Secret) -> Self {
        Self {
            account,
            secret,
            server: None,
            tls: Tls::StartTls(Trust::web_pki()),
            resource: None,
            mechanism: None,
            channel_binding: true,
            source: None,
            stream_management: true,
            reconnect: Reconnect::OnDemand,
            connect_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            ping_interval: Duration::from_secs(60),
            ping_timeout: Duration::from_secs(20),
            limits: Limits::default(),
        }
    }

    /// Where the server is, when not at its domain.
    #[must_use]
    pub fn server(mut self, server: Server) -> Self {
        self.server = Some(server);
        self
    }

    /// How the stream is encrypted.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// The resource to ask for. The server may give another; [`Client::jid`](crate::Client::jid) tells.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// Authenticate with this mechanism only, instead of the strongest that the server offers.
    #[must_use]
    pub fn mechanism(mut self, mechanism: Mechanism) -> Self {
        self.mechanism = Some(mechanism);
        self
    }

    /// Whether to tie the authentication to the TLS connection where the server offers that (RFC 5802 §6, RFC 9266), so that
    /// somebody in between with a certificate we trust is found out. On unless switched off, which is needed for servers that
    /// offer it but know only `tls-unique`, as ejabberd before 23.04 does: they answer `not-authorized`.
    #[must_use]
    pub fn channel_binding(mut self, wanted: bool) -> Self {
        self.channel_binding = wanted;
        self
    }

    /// Connect from this address of ours.
    #[must_use]
    pub fn source(mut self, address: IpAddr) -> Self {
        self.source = Some(address);
        self
    }

    /// Whether to use stream management (XEP-0198) when the server offers it: acknowledgements and resumption.
    #[must_use]
    pub fn stream_management(mut self, wanted: bool) -> Self {
        self.stream_management = wanted;
        self
    }

    /// What to do when the connection is lost.
    #[must_use]
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// The longest time from the first packet to the bound resource.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long [`Client::request`](crate::Client::request) waits for an answer.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// After `interval` in which the server said nothing it is asked for a sign of life, and the connection is given up when
    /// none comes within `timeout`. That also bounds the wait for acknowledgements.
    #[must_use]
    pub fn ping(mut self, interval: Duration, timeout: Duration) -> Self {
        self.ping_interval = interval;
        self.ping_timeout = timeout;
        self
    }

    /// Bounds on memory.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The server's place: the one given, or the usual port of the domain.
    pub(crate) fn place(&self) -> Server {
        let port = if matches!(self.tls, Tls::Direct(_)) { 5223 } else { 5222 };
        self.server.clone().unwrap_or(Server::Domain { port })
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("account", &self.account.as_str())
            .field("server", &self.place())
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}
