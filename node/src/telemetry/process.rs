//! The process as the operating system sees it, under the names that every Prometheus client library uses. Written by hand, because
//! the recorder's counters are whole numbers, and seconds of processor time are not.

use std::{fmt::Write as _, fs, time::SystemTime};

use heronry_storage::{Metric, MetricKind};
use rustix::{
    param::page_size,
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

/// The metrics of the process.
pub(super) const METRICS: &[Metric] = &[
    Metric::counter("process_cpu_seconds_total", "Processor time that the process has used"),
    Metric::gauge("process_resident_memory_bytes", "Memory of the process that is in RAM"),
    Metric::gauge("process_virtual_memory_bytes", "Address space of the process"),
    Metric::gauge("process_open_fds", "Files and sockets that the process has open"),
    Metric::gauge("process_max_fds", "Files and sockets that it may have open"),
    Metric::gauge("process_threads", "Threads of the process"),
    Metric::gauge(
        "process_start_time_seconds",
        "When the process started, in seconds since the Unix epoch",
    ),
];

/// What a process uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor time since the start, seconds.
    pub cpu_seconds: f64,
    /// Memory in RAM, bytes.
    pub memory_bytes: u64,
    /// Address space, bytes.
    pub virtual_bytes: u64,
    /// Open files and sockets.
    pub files_open: u64,
    /// How many there may be.
    pub files_max: u64,
    /// Threads.
    pub threads: u64,
}

impl Usage {
    /// Measures this process. Reads a few files of `/proc`; what cannot be read is 0.
    pub fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let mut pages = statm.split(' ').filter_map(|pages| pages.parse::<u64>().ok());
        let page = page_size() as u64;
        let mut next = || pages.next().unwrap_or_default() * page;
        let (virtual_bytes, memory_bytes) = (next(), next());
        Self {
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            memory_bytes,
            virtual_bytes,
            // One of them is the directory that is being read.
            files_open: entries("/proc/self/fd").saturating_sub(1),
            files_max: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            threads: entries("/proc/self/task"),
        }
    }
}

fn entries(directory: &str) -> u64 {
    fs::read_dir(directory).map_or(0, |entries| entries.count() as u64)
}

/// The process's metrics as Prometheus reads them.
pub(super) fn render(started: SystemTime) -> String {
    let usage = Usage::now();
    let since = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let values = [
        usage.cpu_seconds,
        usage.memory_bytes as f64,
        usage.virtual_bytes as f64,
        usage.files_open as f64,
        usage.files_max as f64,
        usage.threads as f64,
        since.as_secs_f64(),
    ];
    let mut text = String::new();
    for (metric, value) in METRICS.iter().zip(values) {
        let Metric { name, help, .. } = metric;
        let kind = if metric.kind == MetricKind::Counter {
            "counter"
        } else {
            "gauge"
        };
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_something() {
        let before = Usage::now();
        let file = fs::File::open("/proc/self/stat").unwrap();
        let after = Usage::now();
        drop(file);
        assert!(
            before.memory_bytes > 1 << 20 && before.virtual_bytes >= before.memory_bytes,
            "{before:?}"
        );
        assert!(
            before.files_open > 0 && before.files_max >= before.files_open,
            "{before:?}"
        );
        assert!(before.threads > 0 && before.cpu_seconds > 0.0, "{before:?}");
        assert!(after.cpu_seconds >= before.cpu_seconds);
        let text = render(SystemTime::now());
        for metric in METRICS {
            assert!(
                text.lines().any(|line| line.starts_with(metric.name)),
                "{}",
                metric.name
            );
        }
    }
}
