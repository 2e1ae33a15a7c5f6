//! What operators see of shards: one function for each event.

use std::time::Duration;

use heronry_storage::Metric;
use heronry_xmpp::{
    link::Origin,
    shard::{Event, Stats},
    stanza::{Kind, Stanza},
};
use metrics::{Counter, Histogram};

/// The metrics of shards.
pub(crate) const METRICS: &[Metric] = &[
    Metric::gauge("shard_replicas", "Shards that this node has a replica of").with(&[(
        "role",
        "`leader`, `catching-up` (leads, and waits for its edges), `follower`, `failed`",
    )]),
    Metric::counter("shard_runs_total", "Runs of messages that shards have evaluated"),
    Metric::counter("shard_messages_total", "Messages in them, of edges, other shards, the store and operators"),
    Metric::histogram("shard_run_seconds", "Time to evaluate a run"),
    Metric::counter("shard_proposals_total", "Entries that shards have proposed"),
    Metric::counter("shard_batches_proposed_total", "Batches in them"),
    Metric::counter("shard_proposals_held_total", "Entries that had to wait because the group had no room"),
    Metric::counter("shard_traffic_held_total", "Times traffic had to wait because proposals did not keep up"),
    Metric::counter("shard_stanzas_total", "Stanzas by what became of them").with(&[
        ("kind", "`message`, `presence`, `iq`"),
        (
            "outcome",
            "`delivered` (given to a device's edge), `from-store` (the same, later), `answered` (a reply to its sender), \
             `bounced` (an error to its sender), `forwarded` (given to another shard)",
        ),
    ]),
    Metric::counter("shard_messages_stored_total", "Messages stored for accounts that were away"),
    Metric::counter("shard_stanzas_refused_total", "Stanzas and requests refused at a limit")
        .with(&[("reason", "one for each limit, such as `session-queue-full`, `store-full`, `forwards-full`")]),
    Metric::counter("shard_sessions_ended_total", "Sessions that ended")
        .with(&[("reason", "a fixed list, such as `closed`, `timeout`, `replaced`, `too-slow`, `account-removed`")]),
    Metric::counter(
        "shard_accounts_by_owner_total",
        "What devices have done with their accounts (XEP-0077)",
    )
    .with(&[("what", "`registered`, `password-changed`, `removed`")]),
    Metric::counter("shard_started_over_total", "Times a shard started over because a commit had failed"),
    Metric::counter(
        "shard_messages_fenced_total",
        "Messages of edges and other shards that were refused because they were of a former term",
    ),
    Metric::counter(
        "shard_unleased_total",
        "Times a leader looked at its inbox and let it wait because it had no lease",
    ),
    Metric::gauge("shard_sessions", "Sessions of the shards that this node leads").with(&[(
        "state",
        "`attached` (has a socket), `detached` (waits to be resumed)",
    )]),
    Metric::gauge("shard_forwards", "Stanzas that wait for other shards"),
    Metric::counter("shard_entities_activated_total", "Sessions that got an actor of their own"),
    Metric::gauge("shard_entities_active", "Sessions that have an actor of their own now"),
    Metric::counter(
        "shard_entities_deferred_total",
        "Reads of rows that had to wait because too many sessions were active",
    ),
    Metric::counter("shard_actors_failed_total", "Actors of shards that failed and were started anew"),
];

/// Stanzas by what became of them: counted too often for counters to be looked up by name.
pub(super) struct Outcomes {
    delivered: [Counter; 3],
    from_store: [Counter; 3],
    answered: [Counter; 3],
    bounced: [Counter; 3],
    forwarded: [Counter; 3],
}

impl Outcomes {
    pub(super) fn new() -> Self {
        let kinds = ["message", "presence", "iq"];
        let of =
            |outcome| kinds.map(|kind| metrics::counter!("shard_stanzas_total", "kind" => kind, "outcome" => outcome));
        Self {
            delivered: of("delivered"),
            from_store: of("from-store"),
            answered: of("answered"),
            bounced: of("bounced"),
            forwarded: of("forwarded"),
        }
    }

    /// A stanza is on its way to a device.
    pub(super) fn delivered(&self, origin: Origin, stanza: &Stanza) {
        let counters = match origin {
            Origin::Answer { .. } if stanza.kind.is_error() => &self.bounced,
            Origin::Answer { .. } => &self.answered,
            Origin::Stored { .. } => &self.from_store,
            _ => &self.delivered,
        };
        counters[place(stanza.kind)].increment(1);
    }

    /// A stanza is on its way to another shard.
    pub(super) fn forwarded(&self, stanza: &Stanza) {
        self.forwarded[place(stanza.kind)].increment(1);
    }
}

fn place(kind: Kind) -> usize {
    match kind {
        Kind::Message(_) => 0,
        Kind::Presence(_) => 1,
        Kind::Iq(_) => 2,
    }
}

/// So many shards of this node are in each role.
pub(crate) fn replicas(roles: [(&'static str, usize); 4]) {
    for (role, shards) in roles {
        metrics::gauge!("shard_replicas", "role" => role).set(shards as f64);
    }
}

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

/// A leader has no lease.
pub(super) fn unleased() {
    metrics::counter!("shard_unleased_total").increment(1);
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
        Event::Fenced => metrics::counter!("shard_messages_fenced_total").increment(1),
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
