//! Simulated devices that measure an XMPP server: Heronry, ejabberd, Prosody or any other.
//!
//! - [`measure`]: the server's process, latencies, and whether the generator itself was the limit;
//! - [`fleet`]: accounts and how they log in; [`traffic`]: the hot path of message scenarios;
//! - [`contacts`]: accounts that see each other's presence;
//! - [`history`]: what devices saw, and whether the server kept its promises;
//! - [`steady`]: devices that come back when their connection is lost, and write down what they saw;
//! - [`scenario`]: one file for each thing that is measured;
//! - [`report`], [`progress`], [`options`]: what people and programs see of it.
//!
//! Everything runs on one event loop, on one processor; for more load, start more processes. It says so when that was the
//! limit.

pub mod contacts;
pub mod fleet;
pub mod history;
pub mod measure;
pub mod options;
pub mod progress;
pub mod relay;
pub mod report;
pub mod scenario;
pub mod steady;
pub mod traffic;
