//! The process around the broker: configuration, command line, admin port, telemetry, certificates, and the broker's own
//! wiring. Nothing here decides a question of the protocol.
//!
//! - [`config`]: every key with its default, from flags, environment and file;

pub mod config;
mod start_error;

pub use start_error::StartError;
