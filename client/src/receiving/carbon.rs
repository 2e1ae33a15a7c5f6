//! Copies of messages that other devices of the account send and receive (XEP-0280).

use heronry_xmpp::{
    jid::FullJid,
    stanza::{Parsed, Stanza},
    xml::{CLIENT, Element, Limits, StreamPrefixes},
};

use super::Delay;
use crate::{Client, Request, RequestError};

const CARBONS: &str = "urn:xmpp:carbons:2";
const FORWARD: &str = "urn:xmpp:forward:0";

/// A copy of a message that another device of our account has sent or received.
#[derive(Clone, Debug)]
pub struct Carbon {
    /// Whether the other device is its sender or its recipient.
    pub direction: Direction,
    /// The message, with the addresses it had.
    pub message: Stanza,
    /// When it was sent, if the server says so.
    pub delay: Option<Delay>,
}

/// What another device has done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Sent it.
    Sent,
    /// Received it.
    Received,
}

impl Client {
    /// Asks the server for copies of what other devices of the account send and receive, as
    /// [`Event::Carbon`](crate::Event::Carbon). For this session: after a
    /// [`NewSession`](crate::Resumption::NewSession) it must be asked again.
    ///
    /// # Errors
    /// When the server does not do that; see [`RequestError`].
    pub async fn enable_carbons(&self) -> Result<(), RequestError> {
        self.request(Request::set(Element::new("enable", CARBONS)))
            .await
            .map(drop)
    }
}

#[derive(Debug)]
pub(super) enum Found {
    /// The message is no copy of another.
    None,
    /// It says to be one, and is not from our account (§11) or has no message in it.
    Forged,
    Carbon(Box<Carbon>),
}

pub(super) fn read(message: &Stanza, content: &Element, own: &FullJid) -> Found {
    let copy = |name, direction| content.child(name, CARBONS).map(|copy| (copy, direction));
    let Some((copy, direction)) = copy("sent", Direction::Sent).or_else(|| copy("received", Direction::Received))
    else {
        return Found::None;
    };
    // §11: anybody can write such an element; only our own server writes it in our account's name.
    if message.from.as_ref().is_none_or(|from| from.as_str() != own.bare_str()) {
        return Found::Forged;
    }
    let forwarded = copy.child("forwarded", FORWARD);
    let copied = forwarded.and_then(|forwarded| forwarded.child("message", CLIENT));
    let Some(copied) = copied.and_then(stanza) else {
        return Found::Forged;
    };
    Found::Carbon(Box::new(Carbon {
        direction,
        message: copied,
        delay: forwarded.and_then(Delay::read),
    }))
}

fn stanza(element: &Element) -> Option<Stanza> {
    let mut bytes = Vec::new();
    element.write(&mut bytes, CLIENT);
    match Stanza::parse(bytes.into(), &Limits::trusted(), &StreamPrefixes::client()) {
        Ok(Parsed::Stanza(stanza)) => Some(stanza),
        _ => None,
    }
}
