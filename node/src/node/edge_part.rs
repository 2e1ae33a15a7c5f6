//! The role `edge`: connections of devices, and the listeners they come through.

use std::{net::SocketAddr, path::Path, sync::Arc, thread::available_parallelism};

use heronry_xmpp::{random::Random as _, sasl::UnknownUsers, stream::ResponderConfig};

use super::{Threads, middle::Middle};
use crate::{
    StartError,
    clock::SystemRandom,
    config::Config,
    data,
    edge::{Begins, Doors, Edge, Listeners},
    tls::Tls,
};

/// The file with the secret from which accounts that do not exist get their salts.
const SECRET: &str = "unknown-users.secret";

/// Files that are no sockets of devices: the store's own are configured, these are the others (admin port, logs, runtimes).
const OTHER_FILES: usize = 256;

/// What an edge consists of, until it is dropped.
pub(super) struct EdgePart {
    pub(super) edge: Arc<Edge>,
    pub(super) tls: Arc<Tls>,
    pub(super) threads: Threads,
    pub(super) responder: Arc<ResponderConfig>,
    /// This node's own secret for accounts that do not exist.
    pub(super) secret: Vec<u8>,
}

impl EdgePart {
    /// An edge without listeners.
    pub(super) fn start(config: &Config, middle: &Middle) -> Result<Self, StartError> {
        let tls = Arc::new(Tls::load(config)?);
        let secret = secret(config.data())?;
        let mut unknown_users = UnknownUsers::new(&secret, &[]);
        if let Some(strongest) = config.auth.scram_hashes().into_iter().max() {
            unknown_users = unknown_users.with_plain_hash(strongest);
        }
        let cores = available_parallelism().map_or(1, usize::from);
        let threads = Threads::of_edge(middle.threads, config.edge.threads.map_or(cores, usize::from))?;
        let responder = Arc::new(config.responder(unknown_users));
        let edge_config = heronry_xmpp::edge::Config {
            responder: Arc::clone(&responder),
            limits: config.limits.edge_limits(),
            location: None,
        };
        let here = |door: &Option<String>| door.as_deref().filter(|_| config.edge.location).map(Into::into);
        let location = Doors {
            clear: here(&config.edge.advertise),
            tls: here(&config.edge.advertise_tls),
        };
        let limits = config.limits.connection_limits(connections_max(config));
        tracing::info!(
            connections_max = limits.strangers.connections_max,
            "as many connections are taken"
        );
        let edge = Edge::new(
            Arc::clone(&middle.hub),
            edge_config,
            location,
            Arc::clone(&tls),
            middle.clock,
            limits,
            cores,
        )
        .map_err(|error| StartError::Failed(format!("threads for passwords cannot be started: {error}")))?;
        threads.handle()?.spawn(Arc::clone(&edge).ticks());
        threads.handle()?.spawn(Arc::clone(&edge).carry());
        threads.handle()?.spawn(Arc::clone(&edge).hand_over());
        threads.handle()?.spawn(Arc::clone(&tls).watch());
        Ok(Self {
            edge,
            tls,
            threads,
            responder,
            secret,
        })
    }

    /// Opens the configured listeners: to be called when devices can log in.
    ///
    /// # Errors
    /// When the threads have ended.
    pub(super) fn opening(
        &self,
        config: &Config,
    ) -> Result<impl Future<Output = Result<Listeners, StartError>> + use<>, StartError> {
        let opening = self.threads.handle()?.spawn(listen(
            Arc::clone(&self.edge),
            config.edge.c2s.clone(),
            config.edge.c2s_tls.clone(),
        ));
        Ok(async move {
            let opened = opening.await;
            opened.unwrap_or_else(|error| Err(StartError::Failed(format!("a part of the node did not start: {error}"))))
        })
    }
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
