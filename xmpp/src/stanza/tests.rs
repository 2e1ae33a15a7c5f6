//! Tests of stanzas.

use bytes::Bytes;

use super::*;
use crate::xml::StreamPrefixes;

fn parse(xml: &str) -> Result<Parsed, XmlError> {
    Stanza::parse(
        Bytes::copy_from_slice(xml.as_bytes()),
        &Limits::after_auth(),
        &StreamPrefixes::client(),
    )
}

fn stanza(xml: &str) -> Stanza {
    match parse(xml) {
        Ok(Parsed::Stanza(stanza)) => stanza,
        other => panic!("{xml}: {other:?}"),
    }
}

fn written(stanza: &Stanza) -> String {
    let mut out = Vec::new();
    stanza.write(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn header_is_rewritten_and_body_is_verbatim() {
    let body = "<body >Hi  &#x41;<![CDATA[<&]]> \r\n</body ><x xmlns = \"urn:x\"\n  a='1'/></message >";
    let mut message = stanza(&format!(
        "<message\tto='Romeo@Example.net' x='1' type='chat' id=\"a'b\" xmlns:e='urn:e' from='liar@x'>{body}"
    ));
    message.from = Some(Jid::parse("juliet@example.com/balcony").unwrap());
    assert_eq!(
        written(&message),
        format!(
            "<message from='juliet@example.com/balcony' to='romeo@example.net' id='a&apos;b' type='chat' xmlns:e='urn:e' x='1'>{body}"
        )
    );
}

#[test]
fn encode_decode_round_trips() {
    let message = stanza("<message to='a@b/c' type='chat' id='1' xml:lang='de' xmlns:e='urn:e'><e:x/></message>");
    assert_eq!(Stanza::decode(message.encode()), Ok(message));
}
