//! All metrics: the recorder behind `/metrics`, their descriptions, and the page that documents them.

use std::{fmt::Write as _, time::SystemTime};

use heronry_storage::Metric;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::process;
use crate::StartError;

/// Upper bounds of the buckets of what is measured in seconds: from a fsync that costs nothing to a stall.
const SECONDS: [f64; 18] = [
    25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The metrics of the process as a program.
const METRICS: &[Metric] = &[
    Metric::gauge("heronry_build_info", "Always 1; its label says which version runs")
        .with(&[("version", "the program's version")]),
    Metric::counter("log_lines_total", "Log lines that somebody should look at").with(&[("level", "`warn`, `error`")]),
];

/// Every area of metrics, with what it is about.
pub(crate) fn areas() -> [(&'static str, &'static str, &'static [Metric]); 12] {
    [
        (
            "edge",
            "Sockets of devices: connections, TLS, logins, stanzas in and out.",
            crate::edge::METRICS,
        ),
        ("tls", "The certificate that devices are shown.", crate::tls::METRICS),
        (
            "shard",
            "Evaluation: what became of stanzas, sessions, what waits.",
            crate::shard::METRICS,
        ),
        (
            "route",
            "What edges and shards say to those of other nodes.",
            crate::links::METRICS,
        ),
        ("raft", "Agreement of a shard's replicas.", heronry_cluster::METRICS),
        (
            "link",
            "Connections with other cluster nodes.",
            heronry_cluster::transport::METRICS,
        ),
        ("storage", "The log, its fsyncs, and RocksDB.", heronry_storage::METRICS),
        ("disk", "The file system of the data directory.", crate::node::METRICS),
        ("admin", "The admin port.", crate::admin::METRICS),
        ("telemetry", "Traces.", super::traces::METRICS),
        ("heronry", "The program.", METRICS),
        (
            "process",
            "The process, under the names that every Prometheus client library uses.",
            process::METRICS,
        ),
    ]
}

/// Every metric there is.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    areas().into_iter().flat_map(|(_, _, metrics)| metrics)
}

/// What `/metrics` shows. Clones are handles of the same.
#[derive(Clone)]
pub struct Recorded {
    handle: PrometheusHandle,
    started: SystemTime,
}

impl Recorded {
    /// What a recorder has recorded.
    pub fn new(handle: PrometheusHandle) -> Self {
        let started = SystemTime::now();
        Self { handle, started }
    }

    /// Everything recorded so far, and the process as it is now, as Prometheus reads it. Reads a few files.
    pub fn render(&self) -> String {
        let mut text = self.handle.render();
        text.push_str(&process::render(self.started));
        text
    }

    /// To be called now and then: what histograms have gathered is put into buckets.
    pub fn keep_up(&self) {
        self.handle.run_upkeep();
    }
}

/// Starts recording what `metrics::` macros say.
///
/// # Errors
/// When a recorder has been installed before.
pub fn metrics() -> Result<Recorded, StartError> {
    let handle = PrometheusBuilder::new()
        // Histograms, not summaries: quantiles of several nodes cannot be added.
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| StartError::Failed(format!("metrics cannot be recorded: {error}")))?;
    all().for_each(Metric::describe);
    metrics::gauge!("heronry_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    // So that the first of them is seen as a change.
    for level in ["warn", "error"] {
        metrics::counter!("log_lines_total", "level" => level).absolute(0);
    }
    Ok(Recorded::new(handle))
}

/// A line was logged that somebody should look at.
pub(super) fn logged(level: &'static str) {
    metrics::counter!("log_lines_total", "level" => level).increment(1);
}

/// The page that documents every metric.
pub fn markdown() -> String {
    let mut out = String::from(HEAD);
    for (area, about, metrics) in areas() {
        let _ = writeln!(
            out,
            "\n## {area}\n\n{about}\n\n| metric | is a | means |\n|---|---|---|"
        );
        for metric in metrics {
            let _ = write!(out, "| `{}` | {} | {}", metric.name, metric.kind.name(), metric.help);
            for (label, values) in metric.labels {
                let _ = write!(out, "; `{label}`: {values}");
            }
            out.push_str(" |\n");
        }
    }
    out
}

const HEAD: &str = "\
<!-- Written by the program: `make docs` updates it, a test compares. -->

# Metrics

`/metrics` of the admin port (`[admin] listen`, 127.0.0.1:5280) shows these to Prometheus. Names are `<area>_<thing>_<unit>`: units are
seconds and bytes, what ends in `_total` counts since the process started, and a name without a unit is a number of things. No label
has an unbounded set of values: none is an address, a session or a shard.

A counter with labels appears with its first event. [dashboards.md](dashboards.md) shows them in Grafana.

```yaml
scrape_configs:
  - job_name: heronry
    static_configs:
      - targets: [\"127.0.0.1:5280\"]
```
";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_page_is_up_to_date() {
        // `make docs` writes it.
        expect_test::expect_file!["../../../docs/metrics.md"].assert_eq(&markdown());
    }

    #[test]
    fn names_say_what_they_count_and_are_described_once() {
        use heronry_storage::MetricKind::{Counter, Gauge, Histogram};
        let mut seen = BTreeSet::new();
        for metric in all() {
            let name = metric.name;
            assert!(seen.insert(name), "{name} is described twice");
            assert_eq!(name.ends_with("_total"), metric.kind == Counter, "{name}");
            assert!(
                metric.kind != Histogram || name.ends_with("_seconds"),
                "{name} has no buckets"
            );
            assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{name}");
            assert!(matches!(metric.kind, Counter | Gauge | Histogram));
            assert!(
                name.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit()),
                "{name}"
            );
        }
    }

    /// Names in the source, as they are given to the macros of `metrics` or to a closure beside them.
    fn used() -> BTreeSet<String> {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut used = BTreeSet::new();
        let first = |name: &str| name.split('_').next().unwrap_or_default().to_owned();
        let areas: BTreeSet<_> = all().map(|metric| first(metric.name)).collect();
        for folder in ["node/src", "cluster/src", "storage/src"] {
            sources(&root.join(folder), &mut |text| {
                // What describes them does not use them.
                let text = text.replace('\n', " ");
                let mut pieces = text.split('"');
                let mut before = pieces.next().unwrap_or_default();
                while let (Some(name), Some(after)) = (pieces.next(), pieces.next()) {
                    let called = before.trim_end();
                    let is_use = ["counter!(", "gauge!(", "histogram!(", "set("]
                        .iter()
                        .any(|call| called.ends_with(call));
                    if is_use && name.contains('_') && areas.contains(&first(name)) {
                        used.insert(name.to_owned());
                    }
                    before = after;
                }
            });
        }
        used
    }

    fn sources(folder: &std::path::Path, visit: &mut impl FnMut(&str)) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, visit);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                visit(&std::fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn what_is_recorded_is_described_and_the_other_way_round() {
        let described: BTreeSet<_> = all().map(|metric| metric.name.to_owned()).collect();
        let by_hand: BTreeSet<_> = process::METRICS.iter().map(|metric| metric.name.to_owned()).collect();
        let used = used();
        assert_eq!(
            used.difference(&described).collect::<Vec<_>>(),
            Vec::<&String>::new(),
            "recorded, not described"
        );
        let idle: Vec<_> = described
            .difference(&used)
            .filter(|name| !by_hand.contains(*name))
            .collect();
        assert_eq!(idle, Vec::<&String>::new(), "described, never recorded");
    }
}
