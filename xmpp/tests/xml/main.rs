//! What the framer, the reader, elements and stanzas promise, tested from outside: by tables, by properties, against another
//! parser, and by fuzz targets that replay their corpus.

// Tests may fail loudly.
#![allow(clippy::unwrap_used, missing_docs)]

mod differential;
mod framing;
mod fuzz;
mod generate;
mod memory;
mod opening;
mod refusals;
mod round_trips;
mod stanzas;

use bytes::Bytes;
use heronry_xmpp::stanza::{Parsed, Stanza};
use heronry_xmpp::xml::{Frame, Framer, Limits, StreamPrefixes, XmlError};

/// A stream header that nearly all clients send.
const HEADER: &str = "<stream:stream to='example.com' version='1.0' xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";

/// Everything a new framer makes of these pieces of input, in turn: the frames, and what ended the stream.
fn frames<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> (Vec<Frame>, Option<XmlError>) {
    let (mut framer, mut frames) = (Framer::new(), Vec::new());
    for mut input in pieces {
        loop {
            match framer.next(&mut input, limits) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(input.is_empty(), "input is left although the framer wants more");
    }
    (frames, None)
}

fn parse(xml: impl AsRef<[u8]>) -> Result<Parsed, XmlError> {
    Stanza::parse(
        Bytes::copy_from_slice(xml.as_ref()),
        &Limits::after_auth(),
        &StreamPrefixes::client(),
    )
}

fn stanza(xml: impl AsRef<[u8]>) -> Stanza {
    match parse(xml.as_ref()) {
        Ok(Parsed::Stanza(stanza)) => stanza,
        other => panic!("{}: {other:?}", String::from_utf8_lossy(xml.as_ref())),
    }
}

fn written(stanza: &Stanza) -> String {
    let mut out = Vec::new();
    stanza.write(&mut out);
    String::from_utf8(out).unwrap()
}
