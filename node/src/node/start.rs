//! How a node comes up.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use heronry_cluster::{RocksStore, Store, transport::Net};
use heronry_xmpp::link::{EdgeId, NodeId};

use super::{
    LocalBroker, Node, Running, accounts::Accounts, broker::Parts, core_part::CorePart, edge_part::EdgePart,
    machine::Machine, membership, middle::Middle, peering::Peering, secret,
};
use crate::{
    StartError,
    config::{Config, Role},
    edge::Listeners,
    telemetry::Export,
};

/// How long the shards of a node that is a cluster by itself may take to get a leader.
const LEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long listeners wait for the cluster's secret.
const AGREE_TIMEOUT: Duration = Duration::from_secs(3);

/// How often it is looked whether devices can log in.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Everything but the listeners for devices.
pub(super) async fn start<N: Net>(config: Config, machine: Machine<N>) -> Result<Node, StartError> {
    let store = Arc::clone(&machine.store);
    let node = NodeId(store.node_id().0);
    // Greater than that of any process before it.
    let own = EdgeId {
        node,
        start: machine.clock.wall().0,
    };
    let (export, traces) = Export::start(&config.telemetry, node, config.limits.spans_waiting())?;
    let middle = Middle::new(&config, own, machine.clock, machine.threads, traces);
    let edge_part = EdgePart::start(&config, &middle)?;
    let core_part = CorePart::start(&config, &middle, Vec::new()).await?;
    let peering = Peering::new(&middle, Arc::clone(&core_part.shards));
    let accounts = Arc::new(Accounts::new(&config, &middle));
    let member = membership::start(&config, machine, own, &peering, &edge_part, &middle.hub, &accounts).await?;
    let agreed = secret::agree(
        member.downgrade(),
        Arc::clone(&edge_part.responder),
        edge_part.secret.clone(),
    );
    let parts = Parts {
        node,
        hub: middle.hub,
        router: middle.router,
        accounts,
        statuses: middle.statuses,
        groups: member.groups(),
        map: middle.map,
        store: Arc::clone(&store),
        edge: Arc::clone(&edge_part.edge),
        member: member.downgrade(),
    };
    let broker = LocalBroker::new(parts, &config);
    Ok(Node {
        broker: Arc::new(broker),
        peering,
        store,
        groups: member.groups(),
        listening: OnceLock::new(),
        agreed,
        tls: Arc::clone(&edge_part.tls),
        running: Mutex::new(Some(Running {
            listeners: Listeners::default(),
            edge_part,
            shards: core_part.shards,
            member,
            export,
            _shard_threads: core_part.threads,
        })),
        config,
    })
}

impl Node {
    /// Waits until devices can log in, then opens the listeners for them.
    ///
    /// # Errors
    /// When an address cannot be listened at; or, of a node that is a cluster by itself, when a shard gets no leader. Nothing has been stopped.
    pub async fn open(&self) -> Result<(), StartError> {
        let member = self.member().ok_or_else(stopped)?;
        let mut map = member.map();
        // It fails only when the node is stopped.
        let configured = self.config.limits.group_options().shards;
        let shards = match map.wait_for(Option::is_some).await {
            Ok(map) => map.as_ref().map_or(0, |map| map.shards_count()),
            Err(_) => return Err(stopped()),
        };
        if shards != usize::from(configured) {
            return Err(StartError::Failed(format!(
                "the cluster has {shards} shards, but {configured} are configured: set limits.group.shards to {shards}"
            )));
        }
        let led = async {
            while !self.broker.all_led() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if !self.config.peer.seeds.is_empty() {
            led.await;
        } else if tokio::time::timeout(LEAD_TIMEOUT, led).await.is_err() {
            return Err(StartError::Failed("not every shard has got a leader".to_owned()));
        }
        if !self.config.roles.contains(&Role::Edge) {
            return Ok(());
        }
        // Without it an edge would say something else of those who do not exist than others; but nobody waits for it for long.
        let _ = tokio::time::timeout(AGREE_TIMEOUT, self.agreed.clone().wait_for(|agreed| *agreed)).await;
        let opening = {
            let running = self.running();
            let running = running.as_ref().ok_or_else(stopped)?;
            running.edge_part.opening(&self.config)?
        };
        let listeners = opening.await?;
        let _ = self.listening.set(super::Listening::of(&listeners));
        if let Some(running) = self.running().as_mut() {
            running.listeners = listeners;
        }
        Ok(())
    }
}

fn stopped() -> StartError {
    StartError::Failed("the node has been stopped".to_owned())
}

/// The store in the data directory.
pub(super) async fn open_store(config: &Config) -> Result<Arc<dyn Store>, StartError> {
    let (path, options) = (config.data().to_owned(), config.limits.store_options());
    let opened = tokio::task::spawn_blocking(move || RocksStore::open(&path, options)).await;
    let opened = opened.map_err(|error| StartError::Failed(format!("the store cannot be opened: {error}")))?;
    Ok(Arc::new(opened?))
}
