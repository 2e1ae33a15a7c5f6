//! The process around the broker: configuration, command line, admin port, telemetry, certificates, and the broker's own
//! wiring. Nothing here decides a question of the protocol.
//!
//! - [`config`]: every key with its default, from flags, environment and file;

pub mod admin;
pub mod cli;
pub mod config;
pub mod data;
mod start_error;
pub mod telemetry;
pub mod tls;

pub use start_error::StartError;
