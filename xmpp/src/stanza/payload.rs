//! The name of a stanza's first child: read on every iq, so it is remembered as places in the body and costs no allocation.

use bytes::Bytes;

use crate::xml::reader::Reader;
use crate::xml::{CLIENT, Element};

/// The expanded name of a child element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// Name without prefix.
    pub name: &'a str,
    /// Namespace; empty for none. What is in the content namespace is in [`CLIENT`], also on a stream between servers: a
    /// stanza means the same on either (RFC 6120 §4.8.3).
    pub ns: &'a str,
}

/// Where in a body an expanded name is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PayloadAt {
    pub(super) name: Span,
    pub(super) ns: NsAt,
}

/// Where a namespace name is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NsAt {
    /// It is the stanza's own.
    Content,
    /// There is none.
    None,
    /// In a declaration in the body.
    Body(Span),
    /// In the stanza's start tag or the stream header, or written with references.
    Elsewhere(Box<str>),
}

/// A range of a body's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) length: u32,
}

impl Span {
    pub(super) fn read(self, body: &[u8]) -> Option<&str> {
        let start = self.start as usize;
        std::str::from_utf8(body.get(start..start.checked_add(self.length as usize)?)?).ok()
    }
}

impl PayloadAt {
    pub(super) fn read<'a>(&'a self, body: &'a Bytes) -> Payload<'a> {
        let ns = match &self.ns {
            NsAt::Content => CLIENT,
            NsAt::None => "",
            NsAt::Body(span) => span.read(body).unwrap_or_default(),
            NsAt::Elsewhere(ns) => ns,
        };
        Payload {
            name: self.name.read(body).unwrap_or_default(),
            ns,
        }
    }

    /// Of the start tag that `reader` has just passed, when the body begins at `body_at`.
    pub(super) fn of(reader: &Reader<'_>, body_at: usize, content: &str) -> Self {
        let span = |part: &str| {
            let start = reader.offset_of(part)?.checked_sub(body_at)?;
            Some(Span {
                start: start as u32,
                length: part.len() as u32,
            })
        };
        let ns = match reader.ns() {
            ns if ns == content => NsAt::Content,
            "" => NsAt::None,
            ns => span(ns).map_or_else(|| NsAt::Elsewhere(ns.into()), NsAt::Body),
        };
        Self {
            name: span(reader.name()).unwrap_or(Span { start: 0, length: 0 }),
            ns,
        }
    }

    /// Of `child` where [`Element::write_str`] has written it into a body at this place.
    pub(super) fn written(child: &Element, at: usize) -> Self {
        let name = Span {
            start: at as u32 + 1,
            length: child.name().len() as u32,
        };
        let ns = match child.ns() {
            CLIENT => NsAt::Content,
            "" => NsAt::None,
            ns if ns.contains(['<', '>', '&', '\'', '"', '\t', '\n', '\r']) => NsAt::Elsewhere(ns.into()),
            ns => {
                let start = name.start + name.length + " xmlns='".len() as u32;
                NsAt::Body(Span {
                    start,
                    length: ns.len() as u32,
                })
            }
        };
        Self { name, ns }
    }
}
