//! A cluster node, put together: store, groups, shards, edge. The only file that knows everyone.

mod broker;
mod core_part;
mod edge_part;
mod metrics;
mod middle;
mod peering;
mod start;
#[cfg(test)]
mod tests;
mod threads;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use heronry_cluster::{Group, Groups, Leadership, RocksStore, Store};

pub use self::broker::LocalBroker;
pub(crate) use self::metrics::METRICS;
pub use self::peering::Peering;
use self::threads::Threads;
use crate::{
    StartError,
    config::Config,
    edge::{Edge, Listeners},
    shard::Shards,
    telemetry::Export,
    tls::Tls,
};

/// How long a shutdown waits for devices and for their sessions to be committed.
const DEVICES_TIMEOUT: Duration = Duration::from_secs(4);

/// A running cluster node.
pub struct Node {
    broker: Arc<LocalBroker>,
    peering: Peering,
    store: Arc<RocksStore>,
    groups: Vec<Group>,
    c2s: Vec<SocketAddr>,
    c2s_tls: Vec<SocketAddr>,
    data: std::path::PathBuf,
    tls: Arc<Tls>,
    /// `None` once it has been shut down.
    running: Mutex<Option<Running>>,
}

/// What ends with the node. Fields are dropped in this order.
struct Running {
    listeners: Listeners,
    edge: Arc<Edge>,
    shards: Arc<Shards>,
    groups: Groups,
    export: Export,
    _edge_threads: Threads,
    _shard_threads: Threads,
}

impl Node {
    /// Starts a node from its data directory, which is made when it is absent, and opens its listeners once every shard is led:
    /// when this returns, clients can log in.
    ///
    /// # Errors
    /// When something that is needed cannot be had; everything that was started has been stopped.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        start::start(config).await
    }

    /// Where connections that begin in the clear are accepted.
    pub fn c2s(&self) -> &[SocketAddr] {
        &self.c2s
    }

    /// Where connections that begin with TLS are accepted.
    pub fn c2s_tls(&self) -> &[SocketAddr] {
        &self.c2s_tls
    }

    /// Has the files of the certificate looked at now, as is done at every `tls.check_interval`.
    pub fn look_at_certificate(&self) {
        self.tls.hurry();
    }

    /// The node as the admin port sees it.
    pub fn broker(&self) -> Arc<LocalBroker> {
        Arc::clone(&self.broker)
    }

    /// The node as its links to other nodes see it.
    pub fn peering(&self) -> &Peering {
        &self.peering
    }

    /// Waits until the node can do nothing more, and says why: its store has failed.
    pub async fn failed(&self) -> StartError {
        let closed = self.groups.iter().map(|group| {
            let mut leadership = group.leadership();
            Box::pin(async move {
                // It fails when the group is gone, which is the same.
                let _ = leadership.wait_for(|now| *now == Leadership::Closed).await;
            })
        });
        let (_, group, _) = futures::future::select_all(closed).await;
        match self.groups.get(group).map(|group| self.store.log_state(group.shard())) {
            Some(Err(error)) => StartError::store(&self.data, error),
            _ => StartError::Failed(format!("shard {group} has stopped")),
        }
    }

    /// Ends the node: no more connections, every stream ends with `system-shutdown`, sessions are committed, groups stop, the
    /// store is closed. A second call does nothing.
    pub async fn shutdown(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            self.broker.stops();
            running.stop().await;
        }
    }
}

impl Running {
    async fn stop(self) {
        drop(self.listeners);
        if tokio::time::timeout(DEVICES_TIMEOUT, self.edge.stop()).await.is_err() {
            tracing::warn!("not every connection could be ended in time");
        }
        self.shards.stop().await;
        if let Err(error) = self.groups.shutdown().await {
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
