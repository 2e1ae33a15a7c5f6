//! The namespaces a stream header declares for everything inside the stream.

use super::{CLIENT, OpenTag, STREAM};

/// What the stream header lets stanzas leave undeclared (RFC 6120 §4.8.5), and which content namespace the stream has.
///
/// One machine word: nearly all client streams declare `jabber:client` as default and `stream` for the stream namespace, and
/// need no record of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamPrefixes(Option<Box<Declared>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Declared {
    content: &'static str,
    default: Box<str>,
    prefixes: Box<[(Box<str>, Box<str>)]>,
}

impl StreamPrefixes {
    /// The usual client stream.
    pub const fn client() -> Self {
        Self(None)
    }

    /// What `open` declares. `content` is the content namespace the listener serves: [`CLIENT`] or
    /// [`SERVER`](super::SERVER); stanzas are in it whatever the header declares as default (RFC 6120 §4.8.2).
    pub fn declared(open: &OpenTag, content: &'static str) -> Self {
        let usual = open.default_ns() == CLIENT
            && content == CLIENT
            && open
                .prefixes()
                .iter()
                .all(|(prefix, ns)| &**prefix == "stream" && &**ns == STREAM);
        if usual {
            return Self(None);
        }
        Self(Some(Box::new(Declared {
            content,
            default: open.default_ns().into(),
            prefixes: open.prefixes().into(),
        })))
    }

    /// The namespace stanzas of this stream are in.
    pub fn content(&self) -> &'static str {
        self.0.as_ref().map_or(CLIENT, |declared| declared.content)
    }

    /// The namespace of an element without prefix and `xmlns`; empty for none.
    pub fn default_ns(&self) -> &str {
        self.0.as_ref().map_or(CLIENT, |declared| &declared.default)
    }

    /// What `prefix` is bound to by the header.
    pub fn lookup(&self, prefix: &str) -> Option<&str> {
        match &self.0 {
            None => (prefix == "stream").then_some(STREAM),
            Some(declared) => declared
                .prefixes
                .iter()
                .find(|(declared, _)| &**declared == prefix)
                .map(|(_, ns)| &**ns),
        }
    }
}
