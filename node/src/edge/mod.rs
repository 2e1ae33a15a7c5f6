//! The edge of this node: listeners, sockets, TLS, one task for each connection, and the hub between them and the shards.
//!
//! What a connection says is decided in [`heronry_xmpp::edge`]. Here bytes are moved.

mod admission;
mod attaching;
mod connection;
mod hub;
mod leaving;
mod listener;
mod metrics;
mod passwords;
mod port;
mod rates;
mod socket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use heronry_xmpp::stream::StreamError;
use tokio::{sync::watch, task::JoinSet};

#[cfg(test)]
pub(crate) use attaching::Attaching;
pub(crate) use hub::Hub;
pub(crate) use leaving::Doors;
pub(crate) use listener::Begins;
pub(crate) use port::Port;

#[cfg(test)]
pub(crate) use socket::Simulated;

pub(crate) use admission::StrangerLimits;
pub(crate) use metrics::METRICS;
pub(crate) use rates::Rate;

use self::{
    admission::Admission,
    metrics::{Phases, Stanzas},
    passwords::Passwords,
};
use crate::{clock::Clock, tls::Tls};

/// How often connections that want it are told that time has passed.
const TICK: Duration = Duration::from_millis(500);

/// Bounds on what the edge does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EdgeLimits {
    /// How many connections there may be, and what those may do that have not logged in.
    pub(crate) strangers: StrangerLimits,
    /// Bytes of a negotiation. More: `policy-violation`.
    pub(crate) negotiation_bytes_max: usize,
    /// How long a TLS handshake may take that begins a connection. Then: closed without a word.
    pub(crate) tls_timeout: Duration,
    /// How long a connection may take until it has a session. Then: `connection-timeout`.
    pub(crate) negotiation_timeout: Duration,
    /// Passwords that wait to be verified. Full: `resource-constraint`.
    pub(crate) passwords_waiting_max: usize,
    /// How long a stream that is over waits for the device to end it too.
    pub(crate) close_timeout: Duration,
    /// Streams that are ended in a second, at most, when devices are handed over to other edges.
    pub(crate) handovers_per_second_max: u32,
}

/// An edge, until [`Self::stop`].
pub(crate) struct Edge {
    hub: Arc<Hub>,
    config: Arc<heronry_xmpp::edge::Config>,
    /// For connections that begin with TLS.
    config_tls: Arc<heronry_xmpp::edge::Config>,
    tls: Arc<Tls>,
    clock: Clock,
    limits: EdgeLimits,
    admission: Arc<Admission>,
    passwords: Passwords,
    stanzas: Stanzas,
    phases: Phases,
    /// Where devices go when this edge is to hold none any more.
    others: watch::Sender<Option<Arc<[Doors]>>>,
}

/// Open listeners; none accepts after this is dropped.
#[derive(Default)]
pub(crate) struct Listeners {
    accepting: JoinSet<()>,
    addresses: Vec<(Begins, SocketAddr)>,
}

impl Edge {
    /// An edge without listeners. `location`: where devices are asked to come back to.
    ///
    /// # Errors
    /// When the operating system gives no threads.
    pub(crate) fn new(
        hub: Arc<Hub>,
        config: heronry_xmpp::edge::Config,
        location: Doors,
        tls: Arc<Tls>,
        clock: Clock,
        limits: EdgeLimits,
        password_threads: usize,
    ) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            hub,
            config_tls: Arc::new(heronry_xmpp::edge::Config {
                location: location.tls,
                ..config.clone()
            }),
            config: Arc::new(heronry_xmpp::edge::Config {
                location: location.clear,
                ..config
            }),
            tls,
            clock,
            limits,
            admission: Admission::new(limits.strangers),
            passwords: Passwords::start(password_threads, limits.passwords_waiting_max)?,
            stanzas: Stanzas::new(),
            phases: Phases::default(),
            others: watch::Sender::new(None),
        }))
    }

    /// Tells how many connections there are and could be, for metrics.
    pub(crate) fn measure(&self) {
        self.phases.tell();
        metrics::connections_max(self.limits.strangers.connections_max);
    }

    /// Until when the certificate that devices are shown is good, in seconds since the Unix epoch.
    pub(crate) fn certificate_not_after(&self) -> i64 {
        self.tls.current().not_after
    }

    /// How many connections there could be.
    pub(crate) fn connections_max(&self) -> usize {
        self.limits.strangers.connections_max
    }

    /// Wakes connections that shards have mail for, for ever.
    pub(crate) async fn carry(self: Arc<Self>) {
        self.hub.carry().await;
    }

    /// Tells connections that time has passed, for ever.
    pub(crate) async fn ticks(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.hub.tick();
            self.hub
                .end_orphans(self.clock.elapsed(), self.config.limits.orphan_timeout);
        }
    }

    /// Takes a connection of a network that is simulated.
    #[cfg(test)]
    pub(crate) fn take_simulated(self: &Arc<Self>, stream: Box<dyn Simulated>, peer: std::net::IpAddr) {
        listener::take_simulated(self, stream, peer);
    }

    /// Ends all streams and waits until every session has been given to its shard.
    pub(crate) async fn stop(&self) {
        self.hub.end_all(&StreamError::system_shutdown());
        self.hub.until_empty().await;
    }
}

impl Listeners {
    /// Opens a listener and begins to accept.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn open(&mut self, edge: &Arc<Edge>, address: SocketAddr, begins: Begins) -> std::io::Result<()> {
        let listener = listener::bind(address)?;
        let address = listener.local_addr()?;
        self.addresses.push((begins, address));
        self.accepting
            .spawn(listener::accept(Arc::clone(edge), listener, address, begins));
        Ok(())
    }

    /// Where connections that begin so are accepted.
    pub(crate) fn addresses(&self, begins: Begins) -> Vec<SocketAddr> {
        let addresses = self.addresses.iter().filter(|(which, _)| *which == begins);
        addresses.map(|(_, address)| *address).collect()
    }
}
