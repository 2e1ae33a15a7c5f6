//! The role `core`: groups and the shards upon them.

use std::{sync::Arc, thread::available_parallelism};

use heronry_cluster::Group;
#[cfg(test)]
use heronry_cluster::{Groups, Store};
use heronry_xmpp::{shard, xep};

use super::{Threads, middle::Middle};
use crate::{StartError, config::Config, shard::Shards};

/// What a core consists of, until it is dropped.
pub(super) struct CorePart {
    pub(super) shards: Arc<Shards>,
    pub(super) threads: Threads,
}

/// Starts the groups that the store has, or founds them, for a node that knows no other.
#[cfg(test)]
pub(super) async fn start_groups(config: &Config, store: Arc<dyn Store>) -> Result<Groups, StartError> {
    match Groups::start(store, config.limits.group_options()).await {
        Ok(groups) => Ok(groups),
        Err(heronry_cluster::StartError::Store(error)) => Err(StartError::store(config.data(), error)),
        Err(error) => Err(StartError::Failed(format!("the groups cannot be started: {error}"))),
    }
}

impl CorePart {
    /// Starts the shards of these groups; more may come, and any may go.
    pub(super) async fn start(config: &Config, middle: &Middle, groups: Vec<Group>) -> Result<Self, StartError> {
        let cores = available_parallelism().map_or(1, usize::from);
        let threads = Threads::of_shards(middle.threads, config.core.threads.map_or(cores, usize::from))?;
        let shard_config = Arc::new(shard::Config {
            domains: config.domains.iter().map(|domain| domain.as_str().into()).collect(),
            pubsub_services: config.pubsub_services(),
            map: middle.map.clone(),
            node: middle.hub.id().node,
            alone: middle.router.is_alone(),
            feature_level: middle.router.feature_level(),
            limits: config.limits.shard_limits(),
            registration: config.auth.registration,
            version: env!("CARGO_PKG_VERSION"),
            features: xep::FEATURES,
        });
        let starting = Shards::start(
            groups,
            shard_config,
            Arc::clone(&middle.router),
            Arc::clone(&middle.statuses),
            middle.clock,
            config.limits.inbox_limits(),
        );
        let shards = threads
            .run(starting)
            .await?
            .map_err(|error| StartError::Failed(format!("the shards cannot be started: {error}")))?;
        Ok(Self {
            shards: Arc::new(shards),
            threads,
        })
    }
}
