//! What a node's edge and its core have in common: the middle, over which both speak, with each other and with other nodes.

use std::sync::Arc;

use heronry_xmpp::{link::EdgeId, shard::ShardMap};

use super::machine::Run;
use crate::{
    clock::Clock,
    config::Config,
    edge::Hub,
    links::{Outboxes, Router},
    shard::{Inboxes, Statuses},
    telemetry::Traces,
};

/// The middle of a node. There is one also on a node that has only one of the two roles.
#[derive(Clone)]
pub(super) struct Middle {
    pub(super) clock: Clock,
    pub(super) threads: Run,
    pub(super) map: ShardMap,
    pub(super) inboxes: Arc<Inboxes>,
    pub(super) hub: Arc<Hub>,
    pub(super) router: Arc<Router>,
    pub(super) statuses: Arc<Statuses>,
}

impl Middle {
    /// For a process that has neither connections nor shards yet.
    pub(super) fn new(config: &Config, own: EdgeId, clock: Clock, threads: Run, traces: Traces) -> Self {
        let shards = config.limits.group_options().shards;
        let map = ShardMap::even(shards);
        let inboxes = Arc::new(Inboxes::new(shards, &config.limits.inbox_limits()));
        let outboxes = Arc::new(Outboxes::default());
        let hub = Hub::new(own, map.clone(), Arc::clone(&inboxes), Arc::clone(&outboxes), traces);
        let hub = Arc::new(hub);
        Self {
            clock,
            threads,
            map,
            router: Router::new(Arc::clone(&hub), Arc::clone(&inboxes), outboxes),
            inboxes,
            hub,
            statuses: Arc::new(Statuses::new(shards)),
        }
    }
}
