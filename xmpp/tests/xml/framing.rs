//! The framer: the same frames however the bytes arrive.

use bytes::Bytes;
use heronry_xmpp::xml::{Frame, Framer, Limits};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::generate::{choices, element, nearly_right, spell};
use crate::{HEADER, frames};

/// Every way a tag, a quote, a CDATA section and white space can be interrupted.
const STREAM: &str = "<?xml version='1.0' encoding=\"utf-8\" ?>\n \
    <stream:stream to='example.com' from=\"a>b'c\" xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' >\
    \n \t\r\n<a x='>' y=\"/>'\"><![CDATA[</a>]]]]>]]&gt;<b/><b ></b\n><c d='/'/></a >  <e/><f a='/'>></f>\n\n</stream:stream >\n ";

fn expected() -> Vec<Frame> {
    let (open, rest) = STREAM.split_at(STREAM.find("\n \t").unwrap());
    let element = |xml: &str| {
        assert!(rest.contains(xml));
        Frame::Element(Bytes::copy_from_slice(xml.as_bytes()))
    };
    vec![
        Frame::Open(Bytes::copy_from_slice(open.as_bytes())),
        element("<a x='>' y=\"/>'\"><![CDATA[</a>]]]]>]]&gt;<b/><b ></b\n><c d='/'/></a >"),
        element("<e/>"),
        element("<f a='/'>></f>"),
        Frame::Close,
    ]
}

#[test]
fn a_stream_in_one_piece() {
    assert_eq!(frames([STREAM.as_bytes()], &Limits::after_auth()), (expected(), None));
}

#[test]
fn a_stream_cut_in_two_anywhere() {
    for at in 0..=STREAM.len() {
        let (first, second) = STREAM.as_bytes().split_at(at);
        assert_eq!(
            frames([first, second], &Limits::after_auth()),
            (expected(), None),
            "cut at {at}"
        );
    }
}

#[test]
fn a_stream_cut_in_three_anywhere() {
    for first in 0..=STREAM.len() {
        for second in first..=STREAM.len() {
            let bytes = STREAM.as_bytes();
            let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
            assert_eq!(
                frames(pieces, &Limits::after_auth()),
                (expected(), None),
                "cut at {first} and {second}"
            );
        }
    }
}

#[test]
fn a_stream_in_pieces_of_any_size() {
    for size in 1..40 {
        assert_eq!(
            frames(STREAM.as_bytes().chunks(size), &Limits::after_auth()),
            (expected(), None),
            "{size}"
        );
    }
}

#[test]
fn what_follows_a_frame_stays_with_the_caller() {
    let input = format!("{HEADER}<a/><b/>rest");
    let mut rest = input.as_bytes();
    let mut framer = Framer::new();
    framer.next(&mut rest, &Limits::after_auth()).unwrap().unwrap();
    assert_eq!(rest, b"<a/><b/>rest");
    framer.next(&mut rest, &Limits::after_auth()).unwrap().unwrap();
    assert_eq!(rest, b"<b/>rest");

    // Also when the frame began in an earlier read.
    let (mut first, mut second): (&[u8], &[u8]) = (b"<c", b"/><d/>");
    framer.next(&mut rest, &Limits::after_auth()).unwrap().unwrap();
    assert_eq!(framer.next(&mut first, &Limits::after_auth()), Ok(None));
    assert!(!framer.is_idle());
    let frame = framer.next(&mut second, &Limits::after_auth());
    assert_eq!(
        (frame, second),
        (Ok(Some(Frame::Element(Bytes::from_static(b"<c/>")))), &b"<d/>"[..])
    );
    assert!(framer.is_idle());
}

#[test]
fn white_space_between_stanzas_is_taken_and_nothing_kept() {
    let mut framer = Framer::new();
    let mut input = HEADER.as_bytes();
    framer.next(&mut input, &Limits::before_auth()).unwrap().unwrap();
    // More of it than any limit on stanzas.
    let spaces = " \r\n\t".repeat(100_000);
    let mut input = spaces.as_bytes();
    assert_eq!(framer.next(&mut input, &Limits::before_auth()), Ok(None));
    assert_eq!((input.len(), framer.buffered(), framer.is_idle()), (0, 0, true));
}

#[test]
fn a_restart_forgets_half_a_stanza_and_wants_a_header() {
    let mut framer = Framer::new();
    let mut input = HEADER.as_bytes();
    framer.next(&mut input, &Limits::before_auth()).unwrap().unwrap();
    let mut input: &[u8] = b"<auth>injected before TLS";
    assert_eq!(framer.next(&mut input, &Limits::before_auth()), Ok(None));
    framer.restart();
    assert_eq!((framer.is_idle(), framer.buffered()), (true, 0));
    let mut input = HEADER.as_bytes();
    assert!(matches!(
        framer.next(&mut input, &Limits::before_auth()),
        Ok(Some(Frame::Open(_)))
    ));
}

#[test]
fn a_stream_may_be_closed_in_the_spelling_it_was_opened_with_only() {
    let bare = "<stream xmlns='http://etherx.jabber.org/streams'>";
    let closed = |header: &str, end: &str| {
        let input = format!("{header}{end}");
        let (frames, error) = frames([input.as_bytes()], &Limits::after_auth());
        (
            frames.last() == Some(&Frame::Close),
            error.map(|error| error.condition()),
        )
    };
    assert_eq!(closed(HEADER, "</stream:stream>"), (true, None));
    assert_eq!(closed(bare, "</stream\n>"), (true, None));
    for (header, end) in [
        (HEADER, "</stream>"),
        (bare, "</stream:stream>"),
        (HEADER, "</streams:stream>"),
        (HEADER, "</>"),
    ] {
        assert_eq!(closed(header, end), (false, Some("not-well-formed")), "{end}");
    }
}

#[test]
fn headless_streams_are_for_websocket_messages() {
    let mut framer = Framer::headless();
    let mut input: &[u8] = b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>";
    assert!(matches!(
        framer.next(&mut input, &Limits::before_auth()),
        Ok(Some(Frame::Element(_)))
    ));
    let mut input: &[u8] = b"</stream:stream>";
    assert!(framer.next(&mut input, &Limits::before_auth()).is_err());
}

#[test]
fn an_idle_framer_is_small() {
    assert!(size_of::<Framer>() <= 32, "{}", size_of::<Framer>());
}

/// Cuts `bytes` at these places.
fn cut<'a>(bytes: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = places.iter().map(|place| place.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn elements_come_out_as_they_were_written(
        elements in vec(element(), 0..4),
        mut choices in choices(),
        places in vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let spelled: Vec<_> = elements.iter().map(|element| spell(element, &mut choices)).collect();
        let stream = format!("{HEADER}\n{}\n</stream:stream>", spelled.join(" "));
        let (frames, error) = frames(cut(stream.as_bytes(), &places), &Limits::trusted());
        prop_assert_eq!(error, None);
        prop_assert_eq!(frames.len(), elements.len() + 2);
        for (frame, spelled) in frames[1..].iter().zip(&spelled) {
            prop_assert_eq!(frame, &Frame::Element(Bytes::copy_from_slice(spelled.as_bytes())));
        }
    }

    /// Right or wrong, what the bytes mean does not depend on how they are cut; and nothing is refused that the reader takes.
    #[test]
    fn any_bytes_are_judged_alike_however_they_are_cut(
        document in nearly_right(),
        places in vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let stream = [HEADER.as_bytes(), &document, b" </stream:stream>"].concat();
        let whole = frames([&stream[..]], &Limits::trusted());
        prop_assert_eq!(&frames(cut(&stream, &places), &Limits::trusted()), &whole);
        prop_assert_eq!(&frames(stream.chunks(1), &Limits::trusted()), &whole);
        if heronry_xmpp::xml::Element::parse(&document, &Limits::trusted()).is_ok() {
            prop_assert_eq!(whole.1, None);
            prop_assert_eq!(whole.0.len(), 3);
        }
    }
}
