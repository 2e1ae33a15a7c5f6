//! What benchmarks have in common: what they read of their own process, and proposers.

pub(crate) mod proposing;

use std::{
    fs,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

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

static FSYNCS: OnceLock<Arc<AtomicU64>> = OnceLock::new();

pub(crate) fn fsyncs() -> u64 {
    FSYNCS.get_or_init(Arc::default).load(Ordering::Relaxed)
}

impl Recorder for Fsyncs {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match key.name() {
            "storage_fsyncs_total" => Counter::from_arc(Arc::clone(FSYNCS.get_or_init(Arc::default))),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
