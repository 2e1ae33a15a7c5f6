//! What benchmarks have in common: what they read of their own process, and proposers.

pub(crate) mod proposing;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// CPU time of all threads of this process that still live, from the scheduler, nanoseconds exact.
pub(crate) fn cpu_time() -> Duration {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let time = |path: std::path::PathBuf| -> u64 {
        let text = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        text.split(' ')
            .next()
            .and_then(|time| time.parse().ok())
            .unwrap_or_default()
    };
    Duration::from_nanos(threads.map(|thread| time(thread.unwrap().path())).sum())
}

/// Counts fsyncs, from the store's own metrics.
pub(crate) struct Fsyncs;

static FSYNCS: AtomicU64 = AtomicU64::new(0);

pub(crate) fn fsyncs() -> u64 {
    FSYNCS.load(Ordering::Relaxed)
}

impl HistogramFn for Fsyncs {
    fn record(&self, _: f64) {
        FSYNCS.fetch_add(1, Ordering::Relaxed);
    }
}

impl Recorder for Fsyncs {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match key.name() {
            "storage_fsync_seconds" => Histogram::from_arc(Arc::new(Self)),
            _ => Histogram::noop(),
        }
    }
}
