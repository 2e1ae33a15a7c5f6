//! Log lines on standard error. They carry no stanza bodies and no secrets, whatever the filter lets pass.

use std::io::IsTerminal as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, fmt,
    layer::{Context, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

use super::metrics;
use crate::StartError;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Below this level these crates write what they read and send: headers with the token, frames with passwords.
const MUTED: [&str; 5] = ["h2=info", "hyper=info", "hyper_util=info", "tonic=info", "rustls=info"];

/// Where log lines go from now on: to standard error, when `filter` lets them pass (`info`, or `warn,heronry_node=debug`).
///
/// # Errors
/// When the filter cannot be read, or logs have been set up before.
pub fn logs(filter: &str, format: LogFormat) -> Result<(), StartError> {
    let mut filter = EnvFilter::try_new(filter)
        .map_err(|error| StartError::Failed(format!("the log filter `{filter}` cannot be read: {error}")))?;
    for muted in MUTED {
        let directive = muted.parse();
        filter = filter.add_directive(directive.map_err(|error| StartError::Failed(format!("{muted}: {error}")))?);
    }
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let registry = tracing_subscriber::registry().with(filter).with(Count).with(lines);
    registry
        .try_init()
        .map_err(|error| StartError::Failed(format!("logs cannot be set up: {error}")))
}

/// Counts the lines that somebody should look at.
struct Count;

impl<S: Subscriber> Layer<S> for Count {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        match *event.metadata().level() {
            Level::ERROR => metrics::logged("error"),
            Level::WARN => metrics::logged("warn"),
            _ => {}
        }
    }
}
