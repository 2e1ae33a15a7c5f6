//! The three stanza kinds (RFC 6120 §8): a header that was read once, and a body that stays bytes.
//!
//! Whoever routes a stanza needs its header; the body is read by the handler it is for and by nobody else. What devices wrote
//! into it arrives byte for byte.

mod append;
mod codec;
mod error;
mod kind;
mod parse;
mod payload;
mod write;

pub use codec::DecodeError;
pub use error::{Condition, ErrorType, StanzaError};
pub use kind::{IqType, Kind, MessageType, PresenceType};
pub use parse::Parsed;
pub use payload::Payload;

use self::payload::PayloadAt;

use bytes::Bytes;

use crate::jid::Jid;
use crate::xml::{CLIENT, Element, Limits, XmlError};

/// A message, presence or iq.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stanza {
    /// Which of the three, and its `type`.
    pub kind: Kind,
    /// The recipient; none means the sender's own account or server (RFC 6120 §8.1.1).
    pub to: Option<Jid>,
    /// The sender, as whoever stamped it knows it (RFC 6120 §8.1.2).
    pub from: Option<Jid>,
    /// The sender's name for this stanza (RFC 6120 §8.1.3).
    pub id: Option<Box<str>>,
    /// Language of the text in it (RFC 6120 §8.1.5).
    pub lang: Option<Box<str>>,
    /// Where the expanded name of the first child element is.
    payload: Option<PayloadAt>,
    /// Other attributes and the namespace declarations of the start tag as written, each with a space before it.
    extra: Box<str>,
    /// Everything after the start tag, the end tag included; empty when the start tag is its own end.
    body: Bytes,
}

impl Stanza {
    /// A stanza with these children, not addressed yet: set [`to`](Self::to), [`from`](Self::from) and [`id`](Self::id).
    pub fn new<'a>(kind: Kind, children: impl IntoIterator<Item = &'a Element>) -> Self {
        let mut payload = None;
        let mut body = String::new();
        for child in children {
            payload.get_or_insert_with(|| PayloadAt::written(child, body.len()));
            child.write_str(&mut body, CLIENT);
        }
        if payload.is_some() {
            body.push_str("</");
            body.push_str(kind.name());
            body.push('>');
        }
        Self {
            kind,
            to: None,
            from: None,
            id: None,
            lang: None,
            payload,
            extra: "".into(),
            body: body.into(),
        }
    }

    /// An iq with at most one child.
    pub fn iq(type_: IqType, id: impl Into<Box<str>>, payload: Option<&Element>) -> Self {
        Self::new(Kind::Iq(type_), payload).with_id(id)
    }

    /// A message with these children.
    pub fn message<'a>(type_: MessageType, children: impl IntoIterator<Item = &'a Element>) -> Self {
        Self::new(Kind::Message(type_), children)
    }

    /// A presence with these children.
    pub fn presence<'a>(type_: PresenceType, children: impl IntoIterator<Item = &'a Element>) -> Self {
        Self::new(Kind::Presence(type_), children)
    }

    /// This stanza for `to`.
    #[must_use]
    pub fn with_to(mut self, to: impl Into<Jid>) -> Self {
        self.to = Some(to.into());
        self
    }

    /// This stanza from `from`.
    #[must_use]
    pub fn with_from(mut self, from: impl Into<Jid>) -> Self {
        self.from = Some(from.into());
        self
    }

    /// This stanza with an id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<Box<str>>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The expanded name of the first child element: what an iq asks for.
    pub fn payload(&self) -> Option<Payload<'_>> {
        self.payload.as_ref().map(|payload| payload.read(&self.body))
    }

    /// Whether the first child element has this expanded name.
    pub fn is_payload(&self, name: &str, ns: &str) -> bool {
        self.payload() == Some(Payload { name, ns })
    }

    /// Reads the first child element.
    ///
    /// # Errors
    /// `not-well-formed` when there is none; otherwise only when the stanza came from [`decode`](Self::decode) and what was
    /// encoded was no stanza.
    pub fn payload_element(&self) -> Result<Element, XmlError> {
        let root = self.root_element()?;
        root.into_children()
            .next()
            .ok_or(XmlError::NotWellFormed("stanza has no payload"))
    }

    /// Reads the whole stanza as it would be written.
    ///
    /// # Errors
    /// Only when the stanza came from [`decode`](Self::decode) and what was encoded was no stanza.
    pub fn root_element(&self) -> Result<Element, XmlError> {
        let mut xml = Vec::with_capacity(self.size());
        self.write(&mut xml);
        Element::parse_in(&xml, &Limits::trusted(), &crate::xml::StreamPrefixes::client())
    }

    /// The answer to an iq get or set that succeeded: addresses swapped, same id.
    #[must_use]
    pub fn result(&self, payload: Option<&Element>) -> Self {
        Self::new(Kind::Iq(IqType::Result), payload).answering(self)
    }

    /// The answer that says `error`: same kind and id, addresses swapped. None when this stanza must not be answered with an
    /// error: errors themselves and iq results (RFC 6120 §8.3.1).
    pub fn error(&self, error: &StanzaError) -> Option<Self> {
        let kind = match self.kind {
            Kind::Message(MessageType::Error) | Kind::Presence(PresenceType::Error) => return None,
            Kind::Iq(IqType::Error | IqType::Result) => return None,
            Kind::Message(_) => Kind::Message(MessageType::Error),
            Kind::Presence(_) => Kind::Presence(PresenceType::Error),
            Kind::Iq(_) => Kind::Iq(IqType::Error),
        };
        Some(Self::new(kind, [&error.to_element()]).answering(self))
    }

    /// As [`error`](Self::error), with an element that says what it is about (RFC 6120 §8.3.1).
    pub fn error_about(&self, content: &Element, error: &StanzaError) -> Option<Self> {
        let answer = self.error(error)?;
        Some(Self::new(answer.kind, [content, &error.to_element()]).answering(self))
    }

    fn answering(mut self, request: &Self) -> Self {
        self.to = request.from.clone();
        self.from = request.to.clone();
        self.id = request.id.clone();
        self
    }

    /// The error that a stanza of type error carries; `undefined-condition` when it carries none that can be read.
    pub fn stanza_error(&self) -> Option<StanzaError> {
        if !self.kind.is_error() {
            return None;
        }
        let root = self.root_element().ok();
        let error = root.as_ref().and_then(|root| root.child("error", CLIENT));
        Some(error.map_or_else(StanzaError::undefined_condition, StanzaError::from_element))
    }
}
