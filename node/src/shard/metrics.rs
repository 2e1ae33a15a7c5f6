//! What operators see of shards: one function for each event.

use std::time::Duration;

use heronry_xmpp::shard::{Event, Stats};
use metrics::{Counter, Histogram};

/// Runs of messages: counted too often for counters to be looked up by name.
pub(super) struct Runs {
    runs: Counter,
    messages: Counter,
    seconds: Histogram,
}

impl Runs {
    pub(super) fn new() -> Self {
        Self {
            runs: metrics::counter!("shard_runs_total"),
            messages: metrics::counter!("shard_messages_total"),
            seconds: metrics::histogram!("shard_run_seconds"),
        }
    }

    /// A run of messages has been evaluated.
    pub(super) fn evaluated(&self, messages: usize, took: Duration) {
        self.runs.increment(1);
        self.messages.increment(messages as u64);
        self.seconds.record(took.as_secs_f64());
    }
}

/// An entry of this many batches has been proposed.
pub(super) fn proposed(batches: usize) {
    metrics::counter!("shard_proposals_total").increment(1);
    metrics::counter!("shard_batches_proposed_total").increment(batches as u64);
}

/// The group had no room for an entry; it waits.
pub(super) fn proposals_held() {
    metrics::counter!("shard_proposals_held_total").increment(1);
}

/// Traffic waits because proposals do not keep up.
pub(super) fn traffic_held() {
    metrics::counter!("shard_traffic_held_total").increment(1);
}

/// Something that `xmpp` counts.
pub(super) fn event(event: Event) {
    match event {
        Event::Refused(reason) => metrics::counter!("shard_stanzas_refused_total", "reason" => reason).increment(1),
        Event::SessionEnded(reason) => {
            metrics::counter!("shard_sessions_ended_total", "reason" => reason).increment(1);
        }
        Event::Account(what) => metrics::counter!("shard_accounts_by_owner_total", "what" => what).increment(1),
        Event::Stored => metrics::counter!("shard_messages_stored_total").increment(1),
        Event::StartedOver => metrics::counter!("shard_started_over_total").increment(1),
    }
}

/// How many sessions all shards of this node have, and what waits.
pub(super) fn sums(sums: &Stats) {
    metrics::gauge!("shard_sessions", "state" => "attached").set(sums.attached as f64);
    metrics::gauge!("shard_sessions", "state" => "detached").set(sums.detached as f64);
    metrics::gauge!("shard_forwards").set(sums.forwards as f64);
}

/// Sessions with an actor of their own.
pub(super) fn entity_activated() {
    metrics::counter!("shard_entities_activated_total").increment(1);
    metrics::gauge!("shard_entities_active").increment(1.0);
}

/// One of them is passive again.
pub(super) fn entity_passivated() {
    metrics::gauge!("shard_entities_active").decrement(1.0);
}

/// A page of rows had to wait because too many entities are active.
pub(super) fn entity_deferred() {
    metrics::counter!("shard_entities_deferred_total").increment(1);
}

/// A shard's actor failed and was started anew.
pub(super) fn shard_failed() {
    metrics::counter!("shard_actors_failed_total").increment(1);
}
