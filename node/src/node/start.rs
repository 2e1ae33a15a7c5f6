//! How a node comes up that is a whole cluster by itself.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use heronry_cluster::{RocksStore, Store};
use heronry_xmpp::link::{EdgeId, NodeId};

use super::{
    LocalBroker, Node, Running,
    broker::Parts,
    core_part::{CorePart, start_groups},
    edge_part::EdgePart,
    middle::Middle,
    peering::Peering,
};
use crate::{StartError, clock::SystemRandom, config::Config, edge::Begins, telemetry::Export};

/// How long shards may take to get a leader.
const LEAD_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn start(config: Config) -> Result<Node, StartError> {
    let store = open_store(&config).await?;
    let node = NodeId(store.node_id().0);
    let own = EdgeId {
        node,
        start: SystemRandom::number(),
    };
    let (export, traces) = Export::start(&config.telemetry, node, config.limits.spans_waiting())?;
    let middle = Middle::new(&config, own, traces);
    let edge_part = EdgePart::start(&config, &middle)?;
    let store_of_groups: Arc<dyn Store> = Arc::clone(&store) as _;
    let groups = start_groups(&config, store_of_groups).await?;
    let group_handles = groups.list();
    let core_part = CorePart::start(&config, &middle, group_handles.clone()).await?;
    if tokio::time::timeout(LEAD_TIMEOUT, middle.statuses.until_all_lead())
        .await
        .is_err()
    {
        return Err(StartError::Failed("not every shard has got a leader".to_owned()));
    }
    let listeners = match edge_part.listen(&config).await {
        Ok(listeners) => listeners,
        Err(error) => {
            // A process that exits while the store's threads run may be aborted.
            core_part.shards.stop().await;
            let _ = groups.shutdown().await;
            return Err(error);
        }
    };
    let peering = Peering::new(&middle, Arc::clone(&core_part.shards));
    let parts = Parts {
        node,
        hub: middle.hub,
        inboxes: middle.inboxes,
        statuses: middle.statuses,
        groups: group_handles.clone(),
        store: Arc::clone(&store),
        edge: Arc::clone(&edge_part.edge),
    };
    let broker = LocalBroker::new(parts, &config);
    Ok(Node {
        broker: Arc::new(broker),
        peering,
        store,
        groups: group_handles,
        c2s: listeners.addresses(Begins::Clear),
        c2s_tls: listeners.addresses(Begins::Tls),
        data: config.data().to_owned(),
        tls: edge_part.tls,
        running: Mutex::new(Some(Running {
            listeners,
            edge: edge_part.edge,
            shards: core_part.shards,
            groups,
            export,
            _edge_threads: edge_part.threads,
            _shard_threads: core_part.threads,
        })),
    })
}

async fn open_store(config: &Config) -> Result<Arc<RocksStore>, StartError> {
    let (path, options) = (config.data().to_owned(), config.limits.store_options());
    let opened = tokio::task::spawn_blocking(move || RocksStore::open(&path, options)).await;
    let opened = opened.map_err(|error| StartError::Failed(format!("the store cannot be opened: {error}")))?;
    Ok(Arc::new(opened?))
}
