//! The port for operators: `/healthz`, `/readyz`, `/metrics` and the Admin service, over HTTP/1.1 and HTTP/2 without TLS.
//!
//! It listens on loopback unless told otherwise. Health and metrics are for everybody who reaches it; the Admin service wants
//! the token.

mod broker;
mod guard;
mod http;
mod import;
mod metrics;
mod server;
mod service;
pub mod token;

pub(crate) use self::metrics::METRICS;
pub use self::{
    broker::{BackupRows, Broker, BrokerError, BrokerStatus, Cursor, UserFilter, UserPage},
    server::{Admin, AdminOptions},
    token::Token,
};
