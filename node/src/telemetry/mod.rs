//! What operators see of the process: log lines, metrics, and traces of stanzas.

mod logs;
pub mod metrics;
mod process;
mod traces;

pub(crate) use self::traces::{Export, Trace, Traces};
pub use self::{
    logs::{LogFormat, logs},
    metrics::metrics,
    process::Usage,
};
