//! How a node comes up.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    thread::available_parallelism,
    time::Duration,
};

use heronry_cluster::{Groups, RocksStore, Store};
use heronry_xmpp::{
    link::{EdgeId, NodeId},
    random::Random as _,
    sasl::UnknownUsers,
    shard::{self, ShardMap},
    xep,
};

use super::{LocalBroker, Node, Running, Threads, broker::Parts};
use crate::{
    StartError,
    clock::{Clock, SystemRandom},
    config::Config,
    data,
    edge::{Begins, Edge, Hub, Listeners},
    shard::{Inboxes, Shards, Statuses},
    telemetry::Export,
    tls::Tls,
};

/// How long shards may take to get a leader.
const LEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The file with the secret from which accounts that do not exist get their salts.
const SECRET: &str = "unknown-users.secret";

/// Files that are no sockets of devices: the store's own are configured, these are the others (admin port, logs, runtimes).
const OTHER_FILES: usize = 256;

pub(super) async fn start(config: Config) -> Result<Node, StartError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| StartError::Failed(format!("{what}: {error}"));
    let store = open_store(&config).await?;
    let tls = Arc::new(Tls::load(&config)?);
    let mut unknown_users = UnknownUsers::new(&secret(config.data())?, &[]);
    if let Some(strongest) = config.auth.scram_hashes().into_iter().max() {
        unknown_users = unknown_users.with_plain_hash(strongest);
    }

    let cores = available_parallelism().map_or(1, usize::from);
    let shard_threads = Threads::of_shards(config.core.threads.map_or(cores, usize::from))?;
    let edge_threads = Threads::of_edge(config.edge.threads.map_or(cores, usize::from))?;
    let clock = Clock::start();
    let options = config.limits.group_options();
    let shards = options.shards;
    let limits = config.limits.inbox_limits();
    let inboxes = Arc::new(Inboxes::new(shards, &limits));
    let statuses = Arc::new(Statuses::new(shards));
    let node = NodeId(store.node_id().0);
    let map = ShardMap::even(shards);
    let id = EdgeId {
        node,
        start: SystemRandom::number(),
    };
    let (export, traces) = Export::start(&config.telemetry, node, config.limits.spans_waiting())?;
    let hub = Arc::new(Hub::new(id, map.clone(), Arc::clone(&inboxes), traces));

    let store_of_groups: Arc<dyn Store> = Arc::clone(&store) as _;
    let groups = match Groups::start(store_of_groups, options).await {
        Ok(groups) => groups,
        Err(heronry_cluster::StartError::Store(error)) => return Err(StartError::store(config.data(), error)),
        Err(error) => return Err(failed("the groups cannot be started", &error)),
    };
    let shard_config = Arc::new(shard::Config {
        domains: config.domains.iter().map(|domain| domain.as_str().into()).collect(),
        map,
        node,
        alone: true,
        limits: config.limits.shard_limits(),
        registration: config.auth.registration,
        version: env!("CARGO_PKG_VERSION"),
        features: xep::FEATURES,
    });
    let edge_config = heronry_xmpp::edge::Config {
        responder: Arc::new(config.responder(unknown_users)),
        confirm_receipt: false,
        limits: config.limits.edge_limits(),
    };
    let edge_limits = config.limits.connection_limits(connections_max(&config));
    tracing::info!(
        connections_max = edge_limits.strangers.connections_max,
        "as many connections are taken"
    );
    let edge = Edge::new(
        Arc::clone(&hub),
        edge_config,
        Arc::clone(&tls),
        clock,
        edge_limits,
        cores,
    )
    .map_err(|error| failed("threads for passwords cannot be started", &error))?;
    edge_threads.handle()?.spawn(Arc::clone(&edge).ticks());
    edge_threads.handle()?.spawn(Arc::clone(&edge).carry());
    edge_threads.handle()?.spawn(Arc::clone(&tls).watch());

    let group_handles = groups.list();
    let starting = Shards::start(
        group_handles.clone(),
        shard_config,
        Arc::clone(&inboxes),
        Arc::clone(&hub),
        Arc::clone(&statuses),
        clock,
        limits,
    );
    let shards = shard_threads
        .run(starting)
        .await?
        .map_err(|error| failed("the shards cannot be started", &error))?;
    if tokio::time::timeout(LEAD_TIMEOUT, statuses.until_all_lead())
        .await
        .is_err()
    {
        return Err(StartError::Failed("not every shard has got a leader".to_owned()));
    }

    let opening = listen(Arc::clone(&edge), config.edge.c2s.clone(), config.edge.c2s_tls.clone());
    let listeners = match edge_threads.run(opening).await.and_then(|opened| opened) {
        Ok(listeners) => listeners,
        Err(error) => {
            // A process that exits while the store's threads run may be aborted.
            shards.stop().await;
            let _ = groups.shutdown().await;
            return Err(error);
        }
    };
    let parts = Parts {
        node,
        hub,
        inboxes,
        statuses,
        groups: group_handles.clone(),
        store: Arc::clone(&store),
        edge: Arc::clone(&edge),
    };
    let broker = LocalBroker::new(parts, &config);
    Ok(Node {
        broker: Arc::new(broker),
        store,
        groups: group_handles,
        c2s: listeners.addresses(Begins::Clear),
        c2s_tls: listeners.addresses(Begins::Tls),
        data: config.data().to_owned(),
        tls,
        running: Mutex::new(Some(Running {
            listeners,
            edge,
            shards,
            groups,
            export,
            _edge_threads: edge_threads,
            _shard_threads: shard_threads,
        })),
    })
}

async fn open_store(config: &Config) -> Result<Arc<RocksStore>, StartError> {
    let (path, options) = (config.data().to_owned(), config.limits.store_options());
    let opened = tokio::task::spawn_blocking(move || RocksStore::open(&path, options)).await;
    let opened = opened.map_err(|error| StartError::Failed(format!("the store cannot be opened: {error}")))?;
    Ok(Arc::new(opened?))
}

/// The secret for accounts that do not exist; made once.
fn secret(data: &Path) -> Result<Vec<u8>, StartError> {
    let path = data.join(SECRET);
    match std::fs::read(&path) {
        Ok(secret) if secret.len() >= 16 => Ok(secret),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StartError::data(path, error)),
        // Absent, or not one of ours.
        _ => {
            let mut secret = vec![0; 32];
            SystemRandom.fill(&mut secret);
            data::write_secret(&path, &secret).map_err(|error| StartError::data(&path, error))?;
            Ok(secret)
        }
    }
}

/// How many connections the process could have.
fn connections_max(config: &Config) -> usize {
    let files = files_max();
    let store = usize::try_from(config.limits.storage.open_files_max).unwrap_or(usize::MAX);
    let others = OTHER_FILES + usize::from(config.limits.admin_connections_max);
    files.saturating_sub(store.saturating_add(others)).max(1)
}

/// How many files the process may have open; the soft limit is raised as far as that is allowed.
fn files_max() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    now.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

async fn listen(edge: Arc<Edge>, c2s: Vec<SocketAddr>, c2s_tls: Vec<SocketAddr>) -> Result<Listeners, StartError> {
    let mut listeners = Listeners::default();
    let wanted = [("edge.c2s", Begins::Clear, c2s), ("edge.c2s_tls", Begins::Tls, c2s_tls)];
    for (key, begins, addresses) in wanted {
        for address in addresses {
            let opened = listeners.open(&edge, address, begins);
            opened.map_err(|error| StartError::Listen { key, address, error })?;
        }
    }
    Ok(listeners)
}
