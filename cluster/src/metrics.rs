//! What operators see of groups: one function for each event.

use std::time::Duration;

use heronry_storage::Metric;

use crate::{ProposeError, joining::Answer};

/// The metrics of groups.
pub const METRICS: &[Metric] = &[
    Metric::histogram(
        "shard_commit_seconds",
        "Time from the proposal of an entry until it is fsynced by a quorum and applied",
    ),
    Metric::counter(
        "raft_entries_committed_total",
        "Log entries of this node that were committed and applied",
    ),
    Metric::counter(
        "raft_batches_committed_total",
        "Batches in those entries: each is what one evaluation wrote",
    ),
    Metric::counter(
        "raft_committed_bytes_total",
        "Bytes of keys and values in those entries",
    ),
    Metric::counter("raft_proposals_failed_total", "Entries that were refused or lost").with(&[(
        "reason",
        "`not_leader`, `fenced`, `superseded`, `busy`, `too_large`, `storage`, `closed`",
    )]),
    Metric::counter("raft_leaderships_gained_total", "Times this node began to lead a shard"),
    Metric::counter("raft_leaderships_lost_total", "Times this node ceased to lead a shard"),
    Metric::gauge("raft_leaderships_held", "Shards that this node leads"),
    Metric::counter("raft_elections_total", "Elections that this node has begun"),
    Metric::counter(
        "raft_entries_passed_over_total",
        "Entries that were committed and changed nothing, since one that they depend on was refused",
    ),
    Metric::counter("raft_logs_purged_total", "Times a shard's log was shortened"),
    Metric::counter(
        "raft_snapshots_gone_on_total",
        "Transfers of a snapshot that went on where one before had broken off",
    ),
    Metric::counter(
        "cluster_joins_total",
        "Times a process asked this node to be let into the cluster",
    )
    .with(&[(
        "answer",
        "`admitted` (also one that is a member already), `refused`, `not_now`, `waiting`",
    )]),
    Metric::counter(
        "storage_stalls_total",
        "Times a write to the disk took longer than `limits.group.stall_after`",
    ),
];

/// An entry of this node's was committed and applied.
pub(crate) fn committed(batches: usize, bytes: usize, took: Duration) {
    metrics::histogram!("shard_commit_seconds").record(took.as_secs_f64());
    metrics::counter!("raft_entries_committed_total").increment(1);
    metrics::counter!("raft_batches_committed_total").increment(batches as u64);
    metrics::counter!("raft_committed_bytes_total").increment(bytes as u64);
}

/// A proposal was refused or lost.
pub(crate) fn proposal_failed(error: &ProposeError) {
    metrics::counter!("raft_proposals_failed_total", "reason" => error.name()).increment(1);
}

/// This node began to lead a shard.
pub(crate) fn leadership_gained() {
    metrics::counter!("raft_leaderships_gained_total").increment(1);
    metrics::gauge!("raft_leaderships_held").increment(1.0);
}

/// This node ceased to lead a shard.
pub(crate) fn leadership_lost() {
    metrics::counter!("raft_leaderships_lost_total").increment(1);
    metrics::gauge!("raft_leaderships_held").decrement(1.0);
}

/// This node stands for election.
pub(crate) fn election() {
    metrics::counter!("raft_elections_total").increment(1);
}

/// An entry was committed whose predecessor was not.
pub(crate) fn entry_passed_over() {
    metrics::counter!("raft_entries_passed_over_total").increment(1);
}

/// A group's log was shortened.
pub(crate) fn log_purged() {
    metrics::counter!("raft_logs_purged_total").increment(1);
}

/// A snapshot goes on where it broke off.
pub(crate) fn snapshot_goes_on() {
    metrics::counter!("raft_snapshots_gone_on_total").increment(1);
}

/// The store has stalled.
pub(crate) fn stalled() {
    metrics::counter!("storage_stalls_total").increment(1);
}

/// A process has asked to be let in, and gets this answer.
pub(crate) fn asked_to_join(answer: &Answer) {
    let answer = match answer {
        Answer::Admitted(_) => "admitted",
        Answer::Refused(_) => "refused",
        Answer::NotNow(_) => "not_now",
        Answer::Waiting { .. } => "waiting",
    };
    metrics::counter!("cluster_joins_total", "answer" => answer).increment(1);
}
