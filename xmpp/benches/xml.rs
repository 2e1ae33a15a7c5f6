//! What one stanza costs at each step between socket and shard: `cargo bench -p heronry-xmpp --bench xml`.

use bytes::Bytes;
use divan::{Bencher, black_box};
use heronry_xmpp::jid::Jid;
use heronry_xmpp::stanza::{Parsed, Stanza};
use heronry_xmpp::xml::{Element, Frame, Framer, Limits, StreamPrefixes};

/// A chat message of 228 bytes, a pubsub publish of 337 and a presence of 201: the sizes the design's figures are about.
const STANZAS: [(&str, &str); 3] = [
    (
        "message",
        "<message from='juliet@example.com/balcony' to='romeo@example.net/orchard' type='chat' id='ktx72v49' xml:lang='en'>\
         <body>Art thou not Romeo, and a Montague?</body><request xmlns='urn:xmpp:receipts'/>\
         <active xmlns='http://jabber.org/protocol/chatstates'/></message>",
    ),
    (
        "publish",
        "<iq type='set' from='sensor-17@things.example/plc' to='pubsub.things.example' id='pub1'>\
         <pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='plant/4/temperature'><item id='bnd81g37d61f49fgn581'>\
         <entry xmlns='urn:example:sensor'><value unit='C'>21.5</value><time>2026-11-21T14:02:11Z</time><quality>good &amp; fresh</quality></entry>\
         </item></publish></pubsub></iq>",
    ),
    (
        "presence",
        "<presence from='juliet@example.com/balcony' id='p1'><show>away</show><status>be right back</status>\
         <c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='http://code.example' ver='QgayPKawpkPSDYmwT/WM94uAlu0='/></presence>",
    ),
];

fn main() {
    divan::main();
}

fn each() -> [&'static str; 3] {
    STANZAS.map(|(name, _)| name)
}

fn xml(name: &str) -> &'static str {
    STANZAS
        .iter()
        .find(|(known, _)| *known == name)
        .map_or("", |(_, xml)| xml)
}

fn stanza(name: &str) -> Stanza {
    let frame = Bytes::from_static(xml(name).as_bytes());
    match Stanza::parse(frame, &Limits::after_auth(), &StreamPrefixes::client()) {
        Ok(Parsed::Stanza(stanza)) => stanza,
        other => panic!("{other:?}"),
    }
}

#[divan::bench(args = each())]
fn framer_whole(bencher: Bencher, name: &str) {
    let limits = Limits::after_auth();
    let mut framer = Framer::headless();
    bencher.bench_local(|| {
        let mut input = black_box(xml(name)).as_bytes();
        let frame = framer.next(&mut input, &limits);
        assert!(matches!(frame, Ok(Some(Frame::Element(_)))));
        frame
    });
}

#[divan::bench(args = each())]
fn framer_in_16_byte_chunks(bencher: Bencher, name: &str) {
    let limits = Limits::after_auth();
    let mut framer = Framer::headless();
    bencher.bench_local(|| {
        let mut frames = 0;
        for mut chunk in black_box(xml(name)).as_bytes().chunks(16) {
            frames += usize::from(framer.next(&mut chunk, &limits).is_ok_and(|frame| frame.is_some()));
        }
        assert_eq!(frames, 1);
    });
}

#[divan::bench(args = each())]
fn stanza_parse(bencher: Bencher, name: &str) {
    let (limits, scope) = (Limits::after_auth(), StreamPrefixes::client());
    let frame = Bytes::from_static(xml(name).as_bytes());
    bencher.bench_local(|| Stanza::parse(black_box(frame.clone()), &limits, &scope));
}

#[divan::bench(args = each())]
fn stanza_write(bencher: Bencher, name: &str) {
    let stanza = stanza(name);
    let mut out = Vec::with_capacity(1024);
    bencher.bench_local(|| {
        out.clear();
        black_box(&stanza).write(&mut out);
    });
}

#[divan::bench(args = each())]
fn stanza_encode(bencher: Bencher, name: &str) {
    let stanza = stanza(name);
    bencher.bench_local(|| black_box(&stanza).encode());
}

#[divan::bench(args = each())]
fn stanza_decode(bencher: Bencher, name: &str) {
    let bytes = stanza(name).encode();
    bencher.bench_local(|| Stanza::decode(black_box(bytes.clone())));
}

#[divan::bench(args = each())]
fn element_parse(bencher: Bencher, name: &str) {
    let limits = Limits::after_auth();
    bencher.bench_local(|| Element::parse(black_box(xml(name)), &limits));
}

#[divan::bench(args = ["juliet@example.com/balcony", "Juliet@Example.com/balcony", "jülïet@bücher.example/Küche"])]
fn jid_parse(bencher: Bencher, text: &str) {
    bencher.bench_local(|| Jid::parse(black_box(text)));
}
