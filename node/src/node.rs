//! A cluster node, put together: store, groups, shards, edge. The only file that knows everyone.

mod accounts;
mod backup;
mod broker;
mod cluster;
mod core_part;
mod edge_part;
mod leaving;
mod machine;
mod membership;
mod metrics;
mod middle;
mod peering;
mod restore;
mod secret;
#[cfg(test)]
mod simulation;
mod start;
#[cfg(test)]
mod tests;
mod threads;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use heronry_cluster::{GroupsHandle, Leadership, Store, map::METADATA, member::Member};

use tokio::sync::watch;

pub use self::broker::LocalBroker;
pub(crate) use self::metrics::METRICS;
pub use self::peering::Peering;
use self::{edge_part::EdgePart, machine::Machine, threads::Threads};
use crate::{
    StartError,
    config::Config,
    edge::{Begins, Listeners},
    shard::Shards,
    telemetry::Export,
    tls::Tls,
};

/// How long a shutdown waits for devices and for their sessions to be committed.
const DEVICES_TIMEOUT: Duration = Duration::from_secs(4);

/// How often it is looked whether the store still works.
const FAILURE_EVERY: Duration = Duration::from_millis(200);

/// A running cluster node.
pub struct Node {
    broker: Arc<LocalBroker>,
    peering: Peering,
    store: Arc<dyn Store>,
    groups: GroupsHandle,
    /// Where devices connect, once they can.
    listening: OnceLock<Listening>,
    /// Whether the edge has the cluster's secret.
    agreed: watch::Receiver<bool>,
    tls: Arc<Tls>,
    config: Config,
    /// `None` once it has been shut down.
    running: Mutex<Option<Running>>,
}

/// Where devices connect.
#[derive(Debug)]
struct Listening {
    c2s: Vec<SocketAddr>,
    c2s_tls: Vec<SocketAddr>,
}

impl Listening {
    fn of(listeners: &Listeners) -> Self {
        Self {
            c2s: listeners.addresses(Begins::Clear),
            c2s_tls: listeners.addresses(Begins::Tls),
        }
    }
}

/// What ends with the node. Fields are dropped in this order.
struct Running {
    listeners: Listeners,
    edge_part: EdgePart,
    shards: Arc<Shards>,
    member: Member,
    export: Export,
    _shard_threads: Threads,
}

impl Node {
    /// Starts a node from its data directory, which is made when it is absent, and opens its listeners once every shard is led:
    /// when this returns, clients can log in.
    ///
    /// # Errors
    /// When something that is needed cannot be had; everything that was started has been stopped.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let node = Self::begin(config).await?;
        match node.open().await {
            Ok(()) => Ok(node),
            Err(error) => {
                node.shutdown().await;
                Err(error)
            }
        }
    }

    /// Starts a node, but for the listeners of devices: it may have to wait for others, see [`open`](Self::open).
    ///
    /// # Errors
    /// When something that is needed cannot be had; everything that was started has been stopped.
    pub async fn begin(config: Config) -> Result<Self, StartError> {
        let store = start::open_store(&config).await?;
        start::start(config, Machine::real(store)).await
    }

    /// Where connections that begin in the clear are accepted; none before the node is [open](Self::open).
    pub fn c2s(&self) -> &[SocketAddr] {
        self.listening.get().map_or(&[], |listening| &listening.c2s)
    }

    /// Where connections that begin with TLS are accepted; none before the node is [open](Self::open).
    pub fn c2s_tls(&self) -> &[SocketAddr] {
        self.listening.get().map_or(&[], |listening| &listening.c2s_tls)
    }

    /// Has the files of certificates looked at now, devices' and links', as is done at every `tls.check_interval`. To be called on a runtime.
    pub fn look_at_certificate(&self) {
        self.tls.hurry();
        if let Some(member) = self.member() {
            tokio::spawn(async move { member.reread_certificates().await });
        }
    }

    /// The node as the admin port sees it.
    pub fn broker(&self) -> Arc<LocalBroker> {
        Arc::clone(&self.broker)
    }

    /// The node as its links to other nodes see it.
    pub fn peering(&self) -> &Peering {
        &self.peering
    }

    /// The node as a member of its cluster; `None` once it has been shut down.
    pub fn member(&self) -> Option<Member> {
        self.running().as_ref().map(|running| running.member.clone())
    }

    /// Waits until the node can do nothing more, and says why: its store has failed.
    pub async fn failed(&self) -> StartError {
        loop {
            tokio::time::sleep(FAILURE_EVERY).await;
            if let Err(error) = self.store.log_state(METADATA) {
                return StartError::store(self.config.data(), error);
            }
            for group in self.groups.list() {
                if *group.leadership().borrow() == Leadership::Closed && self.groups.group(group.shard()).is_some() {
                    return StartError::Failed(format!("shard {} has stopped", group.shard()));
                }
            }
        }
    }

    /// Ends the node: no more connections, every stream ends with `system-shutdown`, sessions are committed, groups stop, the
    /// store is closed. A second call does nothing.
    pub async fn shutdown(&self) {
        let running = self.running().take();
        if let Some(running) = running {
            self.broker.stops();
            running.stop().await;
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    async fn stop(self) {
        drop(self.listeners);
        if tokio::time::timeout(DEVICES_TIMEOUT, self.edge_part.edge.stop())
            .await
            .is_err()
        {
            tracing::warn!("not every connection could be ended in time");
        }
        self.shards.stop().await;
        if let Err(error) = self.member.shutdown().await {
            tracing::error!(%error, "the store did not take what it was given last");
        }
        self.export.stop().await;
    }
}

impl Drop for Node {
    /// Without [`shutdown`](Self::shutdown) it ends as if the process had died.
    fn drop(&mut self) {
        drop(self.running.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
