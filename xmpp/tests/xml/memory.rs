//! What one peer can make us hold (lessons A2 and A3: bytes are counted while reading).

use heronry_xmpp::xml::{Excess, Framer, Limits, XmlError};

use crate::HEADER;

/// Feeds `endless` over and over after `begin`, up to 100 MB in all; gives the most memory held and how it ended.
fn feed(begin: &str, endless: &[u8], limits: &Limits) -> (usize, Result<(), XmlError>) {
    let mut framer = Framer::new();
    let mut input = HEADER.as_bytes();
    framer.next(&mut input, limits).unwrap().unwrap();
    let mut held = 0;
    for piece in std::iter::once(begin.as_bytes()).chain(std::iter::repeat_n(endless, 100_000_000 / endless.len())) {
        let mut input = piece;
        while !input.is_empty() {
            if let Err(error) = framer.next(&mut input, limits) {
                assert_eq!(framer.buffered(), 0, "a broken stream keeps nothing");
                return (held, Err(error));
            }
            held = held.max(framer.buffered());
        }
    }
    (held, Ok(()))
}

const TOO_LONG: Result<(), XmlError> = Err(XmlError::PolicyViolation(Excess::StanzaBytes));

#[test]
fn an_endless_stanza_is_cut_off_at_the_limit() {
    let pieces = [
        "x".repeat(4096),
        "x".into(),
        "<b/>".repeat(1000),
        "&amp;".into(),
        " \n".repeat(100),
    ];
    for limits in [Limits::before_auth(), Limits::after_auth()] {
        for begin in [
            "<message>",
            "<message><![CDATA[",
            "<message a='",
            "<message a=\"",
            "<message ",
        ] {
            for piece in pieces
                .iter()
                .filter(|piece| begin == "<message>" || !piece.starts_with('<'))
            {
                let (held, end) = feed(begin, piece.as_bytes(), &limits);
                assert_eq!(end, TOO_LONG, "{begin} {:.8}", piece);
                assert!(held <= limits.stanza_bytes_max, "{begin} {:.8} held {held}", piece);
            }
        }
        for (begin, piece) in [
            ("<", "a"),
            ("<message></", "a"),
            ("<message></message", " "),
            ("<message><![CDATA[]", "]"),
        ] {
            let (held, end) = feed(begin, piece.as_bytes(), &limits);
            assert_eq!(end, TOO_LONG, "{begin}");
            assert!(held <= limits.stanza_bytes_max, "{begin} held {held}");
        }
    }
}

#[test]
fn endless_nesting_is_cut_off_at_the_limit() {
    for limits in [Limits::before_auth(), Limits::after_auth()] {
        let (held, end) = feed("", b"<a>", &limits);
        assert_eq!(end, Err(XmlError::PolicyViolation(Excess::Depth)));
        assert!(held <= 64 * usize::from(limits.depth_max));
    }
}

#[test]
fn an_endless_header_is_cut_off_at_the_limit() {
    let limits = Limits::before_auth();
    for begin in [
        "<?xml ",
        "<stream:stream ",
        "<stream:stream a='",
        "<?xml version='1.0'?>",
    ] {
        let mut framer = Framer::new();
        let mut fed = 0;
        let end = loop {
            let mut input = if fed == 0 { begin.as_bytes() } else { b"        " };
            fed += input.len();
            if let Err(error) = framer.next(&mut input, &limits) {
                break error;
            }
            assert!(framer.buffered() <= limits.stanza_bytes_max);
        };
        assert_eq!(Err(end), TOO_LONG, "{begin}");
        assert!(fed <= limits.stanza_bytes_max + 8);
    }
}

#[test]
fn a_stanza_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
    let limits = Limits {
        stanza_bytes_max: 200,
        ..Limits::after_auth()
    };
    for (length, expected) in [(200, Ok(true)), (201, TOO_LONG.map(|()| true))] {
        let stanza = format!("<a>{}</a>", "x".repeat(length - 7));
        for size in [1, 7, 199, 200, 201, 1000] {
            let mut framer = Framer::headless();
            let mut result = Ok(false);
            for mut chunk in stanza.as_bytes().chunks(size) {
                result = framer.next(&mut chunk, &limits).map(|frame| frame.is_some());
                if result != Ok(false) {
                    break;
                }
            }
            assert_eq!(result, expected, "{length} bytes in pieces of {size}");
        }
    }
}

/// One frame may hold many names and namespaces; none of them outlives it (lesson A7: nothing is interned).
#[test]
fn a_long_frame_that_is_mostly_buffer_gives_it_back() {
    let mut framer = Framer::headless();
    let limits = Limits::after_auth();
    let long = [&b"/>"[..], &b"<b/>".repeat(40_000)].concat();
    let mut input: &[u8] = b"<a";
    assert_eq!(framer.next(&mut input, &limits), Ok(None));
    let mut input = &long[..];
    assert!(framer.next(&mut input, &limits).unwrap().is_some());
    assert_eq!((framer.buffered(), input.len()), (0, 160_000));
}
