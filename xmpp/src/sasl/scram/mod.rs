//! SCRAM (RFC 5802) with SHA-1, SHA-256 (RFC 7677) and SHA-512: both sides prove that they know keys made from the password, and
//! neither learns anything it could use elsewhere.
//!
//! `message` is the only file that knows what the messages look like; `server` and `client` are what they mean.

pub(super) mod client;
mod hash;
mod keys;
mod message;
pub(super) mod server;
#[cfg(test)]
mod tests;

pub use hash::ScramHash;
pub use keys::{ClientKeys, ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN, KeysError, SALT_BYTES, ScramKeys};
