//! The process around the broker: configuration, command line, admin port, telemetry, certificates, and the broker's own
//! wiring. Nothing here decides a question of the protocol.
//!
//! - [`config`]: every key with its default, from flags, environment and file;
//! - [`links`]: what goes between this node's edge and shards and those of others;
//! - [`node`]: a cluster node, put together from its edge (`edge`) and its shards (`shard`);

pub mod admin;
pub mod cli;
mod clock;
pub mod config;
pub mod data;
mod edge;
pub mod links;
pub mod node;
mod shard;
mod start_error;
pub mod telemetry;
pub mod tls;
mod wire;

pub use start_error::StartError;
