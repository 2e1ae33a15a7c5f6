//! Authentication exchanges (SASL, RFC 4422) as state machines, both sides: SCRAM (RFC 5802, RFC 7677), PLAIN (RFC 4616) and
//! ANONYMOUS (RFC 4505).
//!
//! What goes over a stream is wrapped in XML and base64 by [`crate::stream`]; here are the mechanisms' own messages. Nothing in
//! this module fetches, waits or computes for long: a server's exchange *asks* for credentials ([`ServerStep::AskCredentials`])
//! and for the one costly computation there is ([`ServerStep::VerifyPassword`]), and continues when its caller has them.
//!
//! Who authenticated is decided in one place ([`ServerExchange`]): the account is made from the authentication identity and
//! the stream's domain alone, and an authorization identity is refused unless it is that very account. With ANONYMOUS it is one
//! that is made up.
//!
//! Secrets are compared in constant time, wiped when dropped, and show nothing of themselves when printed.

mod anonymous;
mod channel;
mod client;
mod derive;
mod failure;
mod mechanism;
mod password;
mod plain;
pub mod scram;
mod server;
#[cfg(test)]
mod tests;
mod unknown;

pub use anonymous::{NO_CREDENTIALS, is_anonymous, is_reserved};
pub use channel::{BindingType, ChannelBindings, ClientBinding};
pub use client::{ClientError, ClientExchange, Secret};
pub use derive::{DeriveKeys, PasswordDone, PasswordJob};
pub use failure::{Condition, Failure};
pub use mechanism::Mechanism;
pub use password::{Password, PasswordError};
pub use scram::{ClientKeys, ITERATIONS_DEFAULT, ITERATIONS_MIN, KeysError, ScramHash, ScramKeys};
pub use server::{Credentials, CredentialsRequest, PasswordVerdict, ServerExchange, ServerStep, VerifyPassword};
pub use unknown::UnknownUsers;
