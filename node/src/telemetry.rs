//! Logs on standard error and the recorder of metrics.

use std::io::IsTerminal as _;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::StartError;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where log lines go from now on: to standard error, when `filter` lets them pass (`info`, or `warn,heronry_node=debug`).
///
/// # Errors
/// When the filter cannot be read, or logs have been set up before.
pub fn logs(filter: &str, format: LogFormat) -> Result<(), StartError> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| StartError::Failed(format!("the log filter `{filter}` cannot be read: {error}")))?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let registry = tracing_subscriber::registry().with(filter).with(lines);
    registry
        .try_init()
        .map_err(|error| StartError::Failed(format!("logs cannot be set up: {error}")))
}

/// Starts recording what `metrics::` macros say; the handle renders it for `/metrics`.
///
/// # Errors
/// When a recorder has been installed before.
pub fn metrics() -> Result<PrometheusHandle, StartError> {
    let handle = PrometheusBuilder::new()
        // Histograms, not summaries: quantiles of several nodes cannot be added. Powers of 4 from 100 µs to 26 s.
        .set_buckets(&[
            1e-4, 4e-4, 1.6e-3, 6.4e-3, 2.56e-2, 0.1024, 0.4096, 1.6384, 6.5536, 26.2144,
        ])
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| StartError::Failed(format!("metrics cannot be recorded: {error}")))?;
    metrics::gauge!("heronry_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}
