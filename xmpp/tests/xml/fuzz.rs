//! Fuzz targets. Under `cargo test` each replays `__fuzz__/fuzz__<name>/corpus`, next to this file, and tries some more; under
//! `cargo bolero test fuzz::fuzz_<name>` it searches.

use bytes::Bytes;
use heronry_xmpp::jid::Jid;
use heronry_xmpp::stanza::{Parsed, Stanza};
use heronry_xmpp::xml::{Element, Framer, Limits, StreamPrefixes, open};

use crate::frames;

#[test]
fn fuzz_stream() {
    bolero::check!().for_each(|input: &[u8]| {
        let limits = Limits::before_auth();
        let whole = frames([input], &limits);
        assert_eq!(frames(input.chunks(1), &limits), whole);
        let size = 1 + input.len() % 13;
        assert_eq!(frames(input.chunks(size), &limits), whole);
    });
}

#[test]
fn fuzz_stanza() {
    bolero::check!().for_each(|input: &[u8]| {
        let (limits, scope) = (Limits::after_auth(), StreamPrefixes::client());
        let Ok(Parsed::Stanza(stanza)) = Stanza::parse(Bytes::copy_from_slice(input), &limits, &scope) else {
            return;
        };
        let mut out = Vec::new();
        stanza.write(&mut out);
        // What we send on is what we took in, and the framer cuts it where the reader ends it.
        let Ok(Parsed::Stanza(again)) = Stanza::parse(out.clone().into(), &Limits::trusted(), &scope) else {
            panic!("written stanza is refused: {}", String::from_utf8_lossy(&out))
        };
        assert_eq!(again.root_element(), stanza.root_element());
        assert_eq!(Stanza::decode(stanza.encode()), Ok(stanza));
        let mut rest = &out[..];
        assert!(matches!(
            Framer::headless().next(&mut rest, &Limits::trusted()),
            Ok(Some(_))
        ));
        assert!(rest.is_empty());
    });
}

#[test]
fn fuzz_element() {
    bolero::check!().for_each(|input: &[u8]| {
        if let Ok(element) = Element::parse(input, &Limits::after_auth()) {
            assert_eq!(Element::parse(element.to_bytes(), &Limits::trusted()), Ok(element));
        }
    });
}

#[test]
fn fuzz_open() {
    bolero::check!().for_each(|input: &[u8]| {
        if let Ok(open) = open::parse(input, &Limits::before_auth()) {
            let _ = (
                open.version(),
                StreamPrefixes::declared(&open, heronry_xmpp::xml::CLIENT),
            );
        }
    });
}

#[test]
fn fuzz_row() {
    bolero::check!().for_each(|input: &[u8]| {
        if let Ok(stanza) = Stanza::decode(Bytes::copy_from_slice(input)) {
            let _ = (stanza.payload(), stanza.payload_element(), stanza.size());
            assert_eq!(Stanza::decode(stanza.encode()), Ok(stanza));
        }
    });
}

#[test]
fn fuzz_jid() {
    bolero::check!().for_each(|input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let Ok(jid) = Jid::parse(text) else { return };
        // Prepared is prepared, and the parts are what they are called.
        assert_eq!(Jid::parse(jid.as_str()).as_ref(), Ok(&jid));
        let mut parts = String::new();
        if let Some(local) = jid.local() {
            parts = format!("{local}@");
        }
        parts += jid.domain();
        assert_eq!(parts, jid.to_bare().as_str());
        if let Some(resource) = jid.resource() {
            parts = format!("{parts}/{resource}");
        }
        assert_eq!(parts, jid.as_str());
    });
}
