//! What is measured, and how: the server's process, the generator itself, latencies.
//!
//! Nothing in here knows XMPP.

pub mod generator;
pub mod latency;
pub mod machine;
pub mod process;
