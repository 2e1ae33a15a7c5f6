//! How to connect, as what, and what to do when the connection is lost.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use heronry_xmpp::{
    jid::BareJid,
    sasl::{Mechanism, Password, Secret},
};

use crate::{
    Receipts, RosterCache,
    connecting::{Encryption, Server},
    trust::Trust,
};

/// How the stream is encrypted.
#[derive(Clone, Debug)]
pub enum Tls {
    /// One way or the other: as the service records of the domain say (XEP-0368 §3), and with STARTTLS at a place that was
    /// given. A server that offers no encryption is left.
    Any(Trust),
    /// The stream begins in the clear and is encrypted before anything is said (RFC 6120 §5). A server that does not offer
    /// it is left.
    StartTls(Trust),
    /// TLS comes before the stream (XEP-0368).
    Direct(Trust),
    /// Not at all: everybody on the way can read and change everything. For tests and closed networks. PLAIN is never used
    /// over it.
    None,
}

impl Tls {
    /// Who is trusted.
    pub(crate) fn trust(&self) -> Option<&Trust> {
        match self {
            Self::Any(trust) | Self::StartTls(trust) | Self::Direct(trust) => Some(trust),
            Self::None => None,
        }
    }

    /// How a place is spoken to of which nothing else is known.
    pub(crate) fn by_default(&self) -> Encryption {
        match self {
            Self::Any(_) | Self::StartTls(_) => Encryption::StartTls,
            Self::Direct(_) => Encryption::Direct,
            Self::None => Encryption::None,
        }
    }
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
    pub(crate) servers: Vec<Server>,
    pub(crate) name_servers: Vec<SocketAddr>,
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
    pub(crate) receipts: Receipts,
    pub(crate) duplicates_window: Duration,
    pub(crate) resend_after: Option<Duration>,
    pub(crate) roster_cache: Option<Arc<dyn RosterCache>>,
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
    /// Messages under way by [`Client::deliver`](crate::Client::deliver). Full: delivering waits.
    pub deliveries_max: usize,
    /// Messages remembered, so that the application does not get them twice. Full: the oldest is forgotten.
    pub remembered_max: usize,
    /// Contacts in the roster. Full: more are left out.
    pub contacts_max: usize,
    /// Devices of others that [`Client::presence`](crate::Client::presence) knows. Full: more are left out.
    pub presences_max: usize,
    /// Changes of roster and presence that a reader has not taken. Full: it is told to look at the whole.
    pub changes_max: usize,
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
            deliveries_max: 256,
            remembered_max: 2048,
            contacts_max: 10_000,
            presences_max: 4096,
            changes_max: 256,
            stanza_bytes_max: 256 * 1024,
        }
    }
}

impl Options {
    /// An account and its password; everything else by default: TLS with a server that the domain's service records name and
    /// whose certificate browsers would trust, stream management, and a resource chosen by the server.
    pub fn new(account: BareJid, password: Password) -> Self {
        Self::with_secret(account, Secret::new(password))
    }

    /// As [`new`](Self::new), with a secret that may hold keys of an earlier exchange.
    pub fn with_secret(account: BareJid, secret: Secret) -> Self {
        Self {
            account,
            secret,
            servers: vec![Server::Service],
            name_servers: Vec::new(),
            tls: Tls::Any(Trust::web_pki()),
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
            receipts: Receipts::KnownSenders,
            duplicates_window: Duration::from_secs(24 * 60 * 60),
            resend_after: Some(Duration::from_secs(60)),
            roster_cache: None,
            limits: Limits::default(),
        }
    }

    /// Where the server is, when its domain does not say so.
    #[must_use]
    pub fn server(self, server: Server) -> Self {
        self.servers([server])
    }

    /// Where the servers are. Every attempt begins with the first of them and goes on to the next when one cannot be reached,
    /// does not prove to be the domain's, or says that it cannot serve us; a password that one refuses is not shown to the
    /// next.
    #[must_use]
    pub fn servers(mut self, servers: impl IntoIterator<Item = Server>) -> Self {
        self.servers = servers.into_iter().collect();
        self
    }

    /// Ask these name servers, and not those of the operating system, for service records and addresses.
    #[must_use]
    pub fn name_servers(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.name_servers = servers.into_iter().collect();
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

    /// The longest time from the first packet to the bound resource, with each address that is tried. A third of it may pass
    /// until an address accepts the connection at all.
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

    /// Who gets a receipt for a message that asks for one, by itself.
    #[must_use]
    pub fn receipts(mut self, receipts: Receipts) -> Self {
        self.receipts = receipts;
        self
    }

    /// How long messages are remembered, so that the application does not get them twice: as long as senders may repeat
    /// them. A day by default.
    #[must_use]
    pub fn duplicates_window(mut self, window: Duration) -> Self {
        self.duplicates_window = window;
        self
    }

    /// After what time a message of [`Client::deliver`](crate::Client::deliver) that nobody has confirmed is sent again in
    /// the same session; each further wait is twice as long. A minute by default; `None` for new sessions only.
    #[must_use]
    pub fn resend_after(mut self, wait: Option<Duration>) -> Self {
        self.resend_after = wait;
        self
    }

    /// Where the roster is kept while the application does not run.
    #[must_use]
    pub fn roster_cache(mut self, cache: Arc<dyn RosterCache>) -> Self {
        self.roster_cache = Some(cache);
        self
    }

    /// Bounds on memory.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("account", &self.account.as_str())
            .field("servers", &self.servers)
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}
