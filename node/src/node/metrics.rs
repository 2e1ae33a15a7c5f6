//! What operators see of the data directory's file system: one function for each event.

use heronry_storage::Metric;

/// The metrics of the file system.
pub(crate) const METRICS: &[Metric] = &[
    Metric::gauge(
        "disk_free_bytes",
        "Bytes that the process may still write to the file system of the data directory",
    ),
    Metric::gauge("disk_size_bytes", "Bytes of the file system of the data directory"),
];

/// A file system's space, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Space {
    /// What may still be written.
    pub(super) free: u64,
    /// All of it.
    pub(super) size: u64,
}

/// The file system has been measured.
pub(super) fn measured(space: Space) {
    metrics::gauge!("disk_free_bytes").set(space.free as f64);
    metrics::gauge!("disk_size_bytes").set(space.size as f64);
}
