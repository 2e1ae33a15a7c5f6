//! `[limits]`: every bound in the program, composed from the bounds of its parts.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units;

/// `[limits]`: every bound in the program. What happens at a bound is said with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest stanza or other top-level element of a stream, after authentication. More ends the stream with
    /// `policy-violation` (RFC 6120 §4.9.3.14).
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub stanza_bytes_max: usize,
    /// Largest message between cluster nodes. More than `stanza_bytes_max`, less than `entry_bytes_max`.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub frame_bytes_max: usize,
    /// Largest entry of a shard's log. What one stanza writes must fit, else the stanza gets `resource-constraint`.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub entry_bytes_max: usize,
    /// Deepest nesting of elements in a stanza, after authentication.
    pub depth_max: u16,
    /// Most attributes of one element, namespace declarations not counted.
    pub attributes_max: u16,
    /// Most connections of the admin port at a time; further ones wait.
    pub admin_connections_max: u16,
    /// How long ending may take after SIGTERM or SIGINT: what is committed by then is kept, what is not was not acknowledged.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub shutdown_timeout: Duration,
    /// `[limits.before_auth]`
    pub before_auth: BeforeAuth,
    /// `[limits.rate]`
    pub rate: Rate,
}

/// `[limits.before_auth]`: what a stranger may send before it has authenticated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BeforeAuth {
    /// Largest top-level element of a stream before authentication (RFC 6120 §13.12 asks for at least 10 000 bytes).
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub stanza_bytes_max: usize,
    /// Deepest nesting of elements before authentication.
    pub depth_max: u16,
}

/// `[limits.rate]`: how often something may be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rate {
    /// Switches all rate limits.
    pub enabled: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stanza_bytes_max: 256 << 10,
            frame_bytes_max: 384 << 10,
            entry_bytes_max: 512 << 10,
            depth_max: 32,
            attributes_max: 32,
            admin_connections_max: 64,
            shutdown_timeout: Duration::from_secs(8),
            before_auth: BeforeAuth::default(),
            rate: Rate::default(),
        }
    }
}

impl Default for BeforeAuth {
    fn default() -> Self {
        Self {
            stanza_bytes_max: 10_000,
            depth_max: 8,
        }
    }
}

impl Default for Rate {
    fn default() -> Self {
        Self { enabled: true }
    }
}
