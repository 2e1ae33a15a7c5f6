//! What operators see of the admin port: one function for each event.

use heronry_proto::admin::UserImportReply;
use heronry_storage::Metric;
use metrics::counter;

/// The metrics of the admin port.
pub(crate) const METRICS: &[Metric] = &[
    Metric::counter(
        "admin_requests_refused_total",
        "Requests refused before anything looked at them",
    )
    .with(&[("reason", "`no_host`, `foreign_host`, `foreign_origin`, `token`")]),
    Metric::counter(
        "admin_accounts_imported_total",
        "Accounts of imports by what became of them",
    )
    .with(&[("outcome", "`created`, `replaced`, `kept`, `refused`")]),
    Metric::counter("admin_backup_bytes_total", "Bytes of rows that were given to backups"),
    Metric::counter(
        "admin_restored_rows_total",
        "Rows of backups that were restored, repetitions included",
    ),
];

/// A part of a backup has been read.
pub(super) fn backed_up(bytes: usize) {
    counter!("admin_backup_bytes_total").increment(bytes as u64);
}

/// Rows of a backup are committed.
pub(super) fn restored(rows: usize) {
    counter!("admin_restored_rows_total").increment(rows as u64);
}

/// Accounts of an import have been answered.
pub(super) fn imported(reply: &UserImportReply) {
    let outcomes = [
        ("created", reply.created),
        ("replaced", reply.replaced),
        ("kept", reply.kept),
        ("refused", reply.refusals.len() as u64),
    ];
    for (outcome, accounts) in outcomes.into_iter().filter(|(_, accounts)| *accounts > 0) {
        counter!("admin_accounts_imported_total", "outcome" => outcome).increment(accounts);
    }
}

/// A request was refused before anything looked at it.
pub(super) fn refused(reason: &'static str) {
    counter!("admin_requests_refused_total", "reason" => reason).increment(1);
}
