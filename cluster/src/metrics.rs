//! What operators see of groups: one function for each event.

use std::time::Duration;

use crate::ProposeError;

/// An entry of this node's was committed and applied.
pub(crate) fn committed(batches: usize, bytes: usize, took: Duration) {
    metrics::histogram!("shard_commit_seconds").record(took.as_secs_f64());
    metrics::counter!("shard_entries_committed_total").increment(1);
    metrics::counter!("shard_batches_committed_total").increment(batches as u64);
    metrics::counter!("shard_committed_bytes_total").increment(bytes as u64);
}

/// A proposal was refused or lost.
pub(crate) fn proposal_failed(error: &ProposeError) {
    metrics::counter!("shard_proposals_failed_total", "reason" => error.name()).increment(1);
}

/// This node began to lead a shard.
pub(crate) fn leadership_gained() {
    metrics::counter!("shard_leaderships_gained_total").increment(1);
    metrics::gauge!("shard_leaderships_held").increment(1.0);
}

/// This node ceased to lead a shard.
pub(crate) fn leadership_lost() {
    metrics::counter!("shard_leaderships_lost_total").increment(1);
    metrics::gauge!("shard_leaderships_held").decrement(1.0);
}

/// A group's log was shortened.
pub(crate) fn log_purged() {
    metrics::counter!("shard_logs_purged_total").increment(1);
}

/// The store has stalled.
pub(crate) fn stalled() {
    metrics::counter!("storage_stalls_total").increment(1);
}
