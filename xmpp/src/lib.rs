//! What XMPP is: everything Heronry can decide without I/O.
//!
//! This crate never learns the time, a random number, a socket or a file except as an argument. A caller feeds it bytes,
//! messages and the time; it answers with writes to make durable and with messages to send.
//!
//! - [`jid`], [`xml`], [`stanza`]: addresses, framing and parsing with hard limits, the three stanza kinds;
//! - [`sasl`], [`stream`]: authentication exchanges and stream negotiation, both sides;
//! - [`edge`]: one connection of a device, from its first byte to its last;
//! - [`shard`]: accounts and sessions, evaluated in one place and one order;
//! - [`link`]: what edges and shards say to each other; [`rows`]: the port to what is durable;
//! - `testkit` (a feature): a whole cluster in one thread under virtual time;
//! - [`feature`], [`im`], [`xep`]: what the broker does with a stanza, an extension per folder.

pub mod edge;
pub mod feature;
pub mod im;
pub mod jid;
pub mod link;
pub mod random;
pub mod rows;
pub mod sasl;
mod session;
pub mod shard;
pub mod stanza;
pub mod stream;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod xep;
pub mod xml;
