//! What operators see of a store: one function for each event.

use std::time::Duration;

/// The log writer has written and synced what was pending: `records` log records of `bytes` bytes.
pub(crate) fn committed(records: usize, bytes: usize, took: Duration) {
    metrics::histogram!("storage_commit_seconds").record(took.as_secs_f64());
    metrics::counter!("storage_fsyncs_total").increment(1);
    metrics::counter!("storage_log_records_total").increment(records as u64);
    metrics::counter!("storage_log_bytes_total").increment(bytes as u64);
}

/// Rows were applied: `writes` of them, in `bytes` bytes.
pub(crate) fn applied(writes: usize, bytes: usize) {
    metrics::counter!("storage_row_writes_total").increment(writes as u64);
    metrics::counter!("storage_row_bytes_total").increment(bytes as u64);
}

/// The store began to ask that new work waits, or stopped asking.
pub(crate) fn pressed(pressed: bool) {
    metrics::gauge!("storage_pressed_state").set(if pressed { 1.0 } else { 0.0 });
}

/// The store has failed and does nothing more.
pub(crate) fn failed() {
    metrics::counter!("storage_failures_total").increment(1);
}
