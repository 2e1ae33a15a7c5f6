//! Tests of framing and reading.

use super::*;

#[test]
fn a_stream_is_cut_into_frames_at_every_split() {
    let stream = "<?xml version='1.0'?>\n<stream:stream to='a' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'> \n<a x='>'><![CDATA[</a>]]><b/></a >  <c/></stream:stream>";
    let frames = |parts: &[&str]| {
        let mut framer = Framer::new();
        let mut frames = Vec::new();
        for part in parts {
            let mut input = part.as_bytes();
            while let Some(frame) = framer.next(&mut input, &Limits::after_auth()).unwrap() {
                frames.push(frame);
            }
            assert!(input.is_empty());
        }
        frames
    };
    let whole = frames(&[stream]);
    assert_eq!(whole.len(), 4, "{whole:?}");
    for at in 0..=stream.len() {
        assert_eq!(frames(&[&stream[..at], &stream[at..]]), whole);
    }
    let Frame::Open(open) = &whole[0] else { panic!() };
    let open = open::parse(open, &Limits::before_auth()).unwrap();
    assert_eq!(open.to.as_deref(), Some("a"));
    assert_eq!(StreamPrefixes::declared(&open, CLIENT), StreamPrefixes::client());
}
