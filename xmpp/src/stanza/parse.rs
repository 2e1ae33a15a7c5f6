//! A top-level element of a stream: checked completely, its header read.

use bytes::Bytes;

use super::payload::PayloadAt;
use super::{IqType, Kind, MessageType, PresenceType, Stanza, StanzaError};
use crate::jid::Jid;
use crate::xml::document::Document;
use crate::xml::reader::{Event, Reader};
use crate::xml::{CLIENT, Element, Limits, SERVER, StreamPrefixes, XmlError};

/// What a top-level element is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A stanza.
    Stanza(Stanza),
    /// A stanza that cannot be processed, which its sender is to be told: [`Stanza::error`] of `head` makes the answer, if
    /// there may be one.
    Refused {
        /// The stanza as far as it was understood: without a `to` that is no address; an iq of no known type is a `set`.
        head: Stanza,
        /// What is wrong with it.
        error: StanzaError,
    },
    /// An element in neither content namespace: SASL, stream management and the like, or something unknown.
    Other(Element),
}

impl Stanza {
    /// Reads a [`Frame::Element`](crate::xml::Frame). Everything in it is checked; nothing of the body is kept but its bytes.
    ///
    /// # Errors
    /// What the stream ends with. Beyond what any XML can fail with: `invalid-namespace` for a stanza of another content
    /// namespace, `unsupported-stanza-type` for an element in the content namespace that is no stanza, `bad-namespace-prefix`
    /// for a content namespace with a prefix, `invalid-from` for a `from` that is no address.
    pub fn parse(frame: Bytes, limits: &Limits, scope: &StreamPrefixes) -> Result<Parsed, XmlError> {
        let mut reader = Reader::new(Document::new(&frame, limits)?, limits, Some(scope));
        if !matches!(reader.next()?, Event::Start) {
            return Err(XmlError::NotWellFormed("no element"));
        }
        match reader.ns() {
            ns if ns == scope.content() => {}
            CLIENT | SERVER => return Err(XmlError::InvalidNamespace("stanza is in another content namespace")),
            _ => return Element::read_whole(&mut reader).map(Parsed::Other),
        }
        Head::read(&reader)?.with_body(&mut reader, &frame, scope.content())
    }
}

/// Reads to the end of the document; says what the root's first child is and how many there are.
fn skim(reader: &mut Reader<'_>, body_at: usize, content: &str) -> Result<(Option<PayloadAt>, usize), XmlError> {
    let (mut first, mut count) = (None, 0);
    loop {
        match reader.next()? {
            Event::Start if reader.depth() == 2 => {
                count += 1;
                first.get_or_insert_with(|| PayloadAt::of(reader, body_at, content));
            }
            Event::Eof => return Ok((first, count)),
            _ => {}
        }
    }
}

/// A start tag, with what is wrong in it although the stream may go on.
struct Head {
    kind: Kind,
    to: Option<Jid>,
    from: Option<Jid>,
    id: Option<Box<str>>,
    lang: Option<Box<str>>,
    extra: String,
    refused: Option<StanzaError>,
}

impl Head {
    fn read(reader: &Reader<'_>) -> Result<Self, XmlError> {
        let (mut to, mut from, mut id, mut type_, mut lang) = (None, None, None, None, None);
        let mut extra = String::new();
        // The default namespace is what a stanza is in anyway; other declarations and attributes go with it.
        for declaration in reader.declarations().iter().filter(|d| !d.prefix.is_empty()) {
            extra.push(' ');
            extra.push_str(declaration.source);
        }
        for attribute in reader.attributes() {
            let ours = match attribute.name.text() {
                "to" => &mut to,
                "from" => &mut from,
                "id" => &mut id,
                "type" => &mut type_,
                "xml:lang" => &mut lang,
                _ => {
                    extra.push(' ');
                    extra.push_str(attribute.source);
                    continue;
                }
            };
            *ours = Some(attribute.value.as_ref());
        }
        let mut refused = None;
        let kind = match reader.name() {
            "message" => Kind::Message(MessageType::of(type_)),
            "presence" => Kind::Presence(PresenceType::of(type_).unwrap_or_else(|| {
                refused = Some(StanzaError::bad_request().with_text("unknown type of presence"));
                PresenceType::Available
            })),
            "iq" => Kind::Iq(IqType::of(type_).unwrap_or_else(|| {
                refused = Some(StanzaError::bad_request().with_text("iq without one of the four types"));
                IqType::Set
            })),
            _ => return Err(XmlError::UnsupportedStanzaType("not a message, presence or iq")),
        };
        let to = to.map(Jid::parse).transpose().unwrap_or_else(|_| {
            refused = Some(StanzaError::jid_malformed());
            None
        });
        let from = from.map(Jid::parse).transpose();
        let from = from.map_err(|_| XmlError::InvalidFrom("from is not an address"))?;
        let (id, lang) = (id.map(Into::into), lang.map(Into::into));
        Ok(Self {
            kind,
            to,
            from,
            id,
            lang,
            extra,
            refused,
        })
    }

    /// RFC 6120 §4.8.5: what only the stream header declares must be declared where the stanza goes.
    fn declare<'a>(&mut self, borrowed: impl Iterator<Item = (&'a str, &'a str)>) {
        let mut declarations = String::new();
        for (prefix, ns) in borrowed {
            declarations.push_str(" xmlns:");
            declarations.push_str(prefix);
            declarations.push_str("='");
            crate::xml::escape_attr(ns, &mut declarations);
            declarations.push('\'');
        }
        if !declarations.is_empty() {
            self.extra.insert_str(0, &declarations);
        }
    }

    /// Reads what follows the start tag that `reader` has just passed in `frame`.
    fn with_body(mut self, reader: &mut Reader<'_>, frame: &Bytes, content: &str) -> Result<Parsed, XmlError> {
        let body_at = if reader.is_empty_tag() {
            frame.len()
        } else {
            reader.position()
        };
        let (payload, children) = skim(reader, body_at, content)?;
        self.declare(reader.borrowed());
        let error = self.refused.or_else(|| match self.kind {
            // RFC 6120 §8.2.3
            Kind::Iq(_) if self.id.is_none() => Some(StanzaError::bad_request().with_text("iq without id")),
            Kind::Iq(IqType::Get | IqType::Set) if children != 1 => {
                Some(StanzaError::bad_request().with_text("iq request without exactly one child"))
            }
            Kind::Iq(IqType::Result) if children > 1 => {
                Some(StanzaError::bad_request().with_text("iq result with more than one child"))
            }
            _ => None,
        });
        let stanza = Stanza {
            kind: self.kind,
            to: self.to,
            from: self.from,
            id: self.id,
            lang: self.lang,
            payload,
            extra: self.extra.into(),
            body: frame.slice(body_at..),
        };
        Ok(match error {
            Some(error) => Parsed::Refused { head: stanza, error },
            None => Parsed::Stanza(stanza),
        })
    }
}
