//! What XMPP is: everything Heronry can decide without I/O.
//!
//! This crate never learns the time, a random number, a socket or a file except as an argument. A caller feeds it bytes,
//! messages and the time; it answers with writes to make durable and with messages to send.
//!
//! - [`jid`], [`xml`], [`stanza`]: addresses, framing and parsing with hard limits, the three stanza kinds;
//! - [`sasl`], [`stream`]: authentication exchanges and stream negotiation, both sides;
//! - [`rows`]: the port through which durable state is read and written.

pub mod jid;
pub mod random;
pub mod rows;
pub mod sasl;
pub mod stanza;
pub mod stream;
pub mod xep;
pub mod xml;
