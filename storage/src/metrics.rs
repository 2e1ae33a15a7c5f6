//! What operators see of a store: one function for each event. And what every metric of the program is described with.

use std::time::Duration;

/// A metric as operators are told of it: in `/metrics` and on the page that documents them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// `<area>_<thing>_<unit>`.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// One sentence without a full stop.
    pub help: &'static str,
    /// Its labels, each with the values it may have: none is unbounded.
    pub labels: &'static [(&'static str, &'static str)],
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Counts events since the process started.
    Counter,
    /// Is as it is now.
    Gauge,
    /// Says how values are distributed.
    Histogram,
}

impl MetricKind {
    /// As Prometheus calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Metric {
    /// Counts events.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, MetricKind::Counter, help)
    }

    /// Is as it is now.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, MetricKind::Gauge, help)
    }

    /// Says how values are distributed.
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(name, MetricKind::Histogram, help)
    }

    const fn new(name: &'static str, kind: MetricKind, help: &'static str) -> Self {
        Self {
            name,
            kind,
            help,
            labels: &[],
        }
    }

    /// With these labels and their values.
    #[must_use]
    pub const fn with(mut self, labels: &'static [(&'static str, &'static str)]) -> Self {
        self.labels = labels;
        self
    }

    /// Tells the recorder what it is.
    pub fn describe(&self) {
        match self.kind {
            MetricKind::Counter => metrics::describe_counter!(self.name, self.help),
            MetricKind::Gauge => metrics::describe_gauge!(self.name, self.help),
            MetricKind::Histogram => metrics::describe_histogram!(self.name, self.help),
        }
    }
}

const FAMILY: &[(&str, &str)] = &[("family", "`log`, `raft`, `rows`, `meta`")];

/// The metrics of a store.
pub const METRICS: &[Metric] = &[
    Metric::histogram(
        "storage_commit_seconds",
        "Time to write and fsync what all shards had pending for the log",
    ),
    Metric::histogram("storage_fsync_seconds", "Time of the fsync of such a write alone"),
    Metric::counter("storage_log_records_total", "Records written to shards' logs"),
    Metric::counter("storage_log_bytes_total", "Bytes of records written to shards' logs"),
    Metric::counter(
        "storage_row_writes_total",
        "Rows written or removed when entries were applied",
    ),
    Metric::counter("storage_row_bytes_total", "Bytes written when entries were applied"),
    Metric::gauge("storage_queue_bytes", "Bytes that wait for the log writer"),
    Metric::gauge(
        "storage_disk_full",
        "1 while the disk has less room than `limits.storage.disk_reserve_bytes`, so that this node leads nothing and accepts nothing",
    ),
    Metric::gauge(
        "storage_pressed",
        "1 while the store asks that new work waits, because it does not keep up; else 0",
    ),
    Metric::counter(
        "storage_failures_total",
        "Failures after which the store does nothing more",
    ),
    Metric::gauge("storage_rocksdb_table_bytes", "Bytes of RocksDB's sorted files").with(FAMILY),
    Metric::gauge("storage_rocksdb_memtable_bytes", "Memory of RocksDB's memtables").with(FAMILY),
    Metric::gauge(
        "storage_rocksdb_level0_files",
        "Sorted files in level 0: at 16 new work waits, at 20 RocksDB delays writes, at 36 it stops them",
    )
    .with(FAMILY),
    Metric::gauge(
        "storage_rocksdb_pending_compaction_bytes",
        "Bytes that RocksDB estimates it has to compact",
    )
    .with(FAMILY),
    Metric::gauge("storage_rocksdb_keys", "Keys, as RocksDB estimates them").with(FAMILY),
    Metric::gauge("storage_rocksdb_block_cache_bytes", "Memory of RocksDB's block cache"),
    Metric::gauge("storage_rocksdb_compactions_running", "Compactions under way"),
    Metric::gauge(
        "storage_rocksdb_flushes_running",
        "Memtables that are being written to files",
    ),
    Metric::gauge("storage_rocksdb_write_stopped", "1 while RocksDB stops writes, else 0"),
    Metric::gauge(
        "storage_rocksdb_delayed_write_bytes",
        "Bytes a second to which RocksDB slows writes down; 0: it does not",
    ),
];

/// The log writer has written and synced what was pending: `records` log records of `bytes` bytes.
pub(crate) fn committed(records: usize, bytes: usize, took: Duration) {
    metrics::histogram!("storage_commit_seconds").record(took.as_secs_f64());
    metrics::counter!("storage_log_records_total").increment(records as u64);
    metrics::counter!("storage_log_bytes_total").increment(bytes as u64);
}

/// What was written has been synced.
pub(crate) fn synced(took: Duration) {
    metrics::histogram!("storage_fsync_seconds").record(took.as_secs_f64());
}

/// Rows were applied: `writes` of them, in `bytes` bytes.
pub(crate) fn applied(writes: usize, bytes: usize) {
    metrics::counter!("storage_row_writes_total").increment(writes as u64);
    metrics::counter!("storage_row_bytes_total").increment(bytes as u64);
}

/// The store began to ask that new work waits, or stopped asking.
pub(crate) fn pressed(pressed: bool) {
    metrics::gauge!("storage_pressed").set(if pressed { 1.0 } else { 0.0 });
}

/// The disk has too little room, or has room again.
pub(crate) fn full(full: bool) {
    metrics::gauge!("storage_disk_full").set(if full { 1.0 } else { 0.0 });
}

/// The store has failed and does nothing more.
pub(crate) fn failed() {
    metrics::counter!("storage_failures_total").increment(1);
}

/// So many bytes wait for the log writer.
pub(crate) fn queued(bytes: usize) {
    metrics::gauge!("storage_queue_bytes").set(bytes as f64);
}

/// The sizes of one column family.
pub(crate) struct FamilySizes {
    pub(crate) table_bytes: u64,
    pub(crate) memtable_bytes: u64,
    pub(crate) level0_files: u64,
    pub(crate) pending_compaction_bytes: u64,
    pub(crate) keys: u64,
}

/// A column family has been measured.
pub(crate) fn family(family: &'static str, sizes: &FamilySizes) {
    let set = |name: &'static str, value: u64| metrics::gauge!(name, "family" => family).set(value as f64);
    set("storage_rocksdb_table_bytes", sizes.table_bytes);
    set("storage_rocksdb_memtable_bytes", sizes.memtable_bytes);
    set("storage_rocksdb_level0_files", sizes.level0_files);
    set(
        "storage_rocksdb_pending_compaction_bytes",
        sizes.pending_compaction_bytes,
    );
    set("storage_rocksdb_keys", sizes.keys);
}

/// RocksDB as a whole.
pub(crate) struct RocksSizes {
    pub(crate) block_cache_bytes: u64,
    pub(crate) compactions: u64,
    pub(crate) flushes: u64,
    pub(crate) write_stopped: u64,
    pub(crate) delayed_write_bytes: u64,
}

/// RocksDB has been measured.
pub(crate) fn rocksdb(sizes: &RocksSizes) {
    let set = |name: &'static str, value: u64| metrics::gauge!(name).set(value as f64);
    set("storage_rocksdb_block_cache_bytes", sizes.block_cache_bytes);
    set("storage_rocksdb_compactions_running", sizes.compactions);
    set("storage_rocksdb_flushes_running", sizes.flushes);
    set("storage_rocksdb_write_stopped", sizes.write_stopped);
    set("storage_rocksdb_delayed_write_bytes", sizes.delayed_write_bytes);
}
