//! Heronry's device SDK: a session with any XMPP server that survives bad networks.
//!
//! ```no_run
//! use heronry_client::{Client, Event, Options, Password, jid::{BareJid, Jid}, message};
//!
//! # async fn device() -> Result<(), Box<dyn std::error::Error>> {
//! let account = BareJid::parse("thermometer@example.org")?;
//! let (client, mut events) = Client::connect(Options::new(account, Password::new("secret")?)).await?;
//!
//! client.send(message(Jid::parse("juliet@example.org")?, "21.5 °C")).await?;
//! client.flush().await?; // the server has it
//!
//! while let Some(event) = events.next().await {
//!     match event {
//!         Event::Message(message) => println!("from {:?}: {:?}", message.from, message.root_element()?),
//!         Event::Disconnected(reason) => {
//!             println!("{reason}");
//!             client.resume().await?; // nothing is lost: what the server had not received is sent again
//!         }
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - [`Client`]: send, ask, and end in order; [`Events`]: what comes in; [`Options`]: where, as whom, how encrypted.
//! - What was sent is kept until the server acknowledges it (XEP-0198). After a lost connection the session is resumed, by
//!   [`Client::resume`] or by itself with [`Reconnect::Automatic`]. When the server has forgotten the session,
//!   [`Resumption::NewSession`] hands back what it did not acknowledge.
//! - [`Client::deliver`] sends a message until its receipt comes and tells what became of it; [`Options::receipts`] says who gets
//!   receipts from us. [`Client::roster`], [`Client::presence`], [`Client::blocked`]: contacts.
//! - Servers are found by service records, or are a list; [`Options::servers`].
//! - Pings, disco and version requests are answered. Memory is bounded by [`Limits`]; a full queue makes its user wait.
//!
//! [`connection`] is for programs that hold very many sessions and have their own way of reading them; `heronry-loadtest`
//! is one.

mod acknowledgement;
mod answers;
mod blocking;
mod client;
mod connecting;
pub mod connection;
mod delivery;
mod driver;
mod end_point;
mod error;
mod event;
mod feed;
mod options;
mod presence;
mod receiving;
mod requests;
mod roster;
#[cfg(test)]
mod testing;
mod transport;
mod trust;

pub use blocking::BlockListChange;
pub use client::{Client, Request};
pub use connecting::{Server, ServerError};
pub use delivery::{Delivery, DeliveryError, Failure, Outcome};
pub use error::{ConnectError, Disconnect, RequestError, SendError};
pub use event::{Event, Events, Resumption};
pub use heronry_xmpp::{
    jid,
    sasl::{ClientKeys, Mechanism, Password, Secret},
    stanza,
    stream::{StreamCondition, StreamError},
    xml,
};
pub use options::{Limits, Options, Reconnect, Tls};
pub use presence::{Presence, PresenceChange, Presences, Show};
pub use receiving::{Carbon, Delay, Direction, Receipts};
pub use roster::{CachedRoster, Contact, Roster, RosterCache, RosterChange, Subscription};
pub use trust::{Trust, TrustError};

/// The guide, so that its code is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guides/device-sdk.md")]
struct Guide;

/// A chat message with a text.
pub fn message(to: impl Into<jid::Jid>, body: &str) -> stanza::Stanza {
    let body = xml::Element::new("body", xml::CLIENT).with_text(body);
    stanza::Stanza::message(stanza::MessageType::Chat, [&body]).with_to(to)
}
