//! Stream headers and what they let stanzas leave out (RFC 6120 §4.7, §4.8, §11.5, §11.6).

use bytes::Bytes;
use heronry_xmpp::stanza::{Parsed, Stanza};
use heronry_xmpp::xml::{CLIENT, Frame, Limits, OpenTag, SERVER, STREAM, StreamPrefixes, XmlError, open};

use crate::{frames, written};

/// Frames and reads a header, at once and byte by byte.
fn header(bytes: &[u8]) -> Result<OpenTag, XmlError> {
    let read = |(frames, error): (Vec<Frame>, Option<XmlError>)| match (frames.first(), error) {
        (Some(Frame::Open(frame)), _) => open::parse(frame, &Limits::before_auth()),
        (_, Some(error)) => Err(error),
        (other, None) => panic!("{other:?} of {}", String::from_utf8_lossy(bytes)),
    };
    let whole = read(frames([bytes], &Limits::before_auth()));
    assert_eq!(read(frames(bytes.chunks(1), &Limits::before_auth())), whole);
    whole
}

#[test]
fn a_header_says_what_it_says() {
    let open = header(
        b"<?xml version='1.0'?><stream:stream from='juliet@im.example.com' to='im.example.com' version='1.0' xml:lang='en' \
          id='++TR84Sm6A3hnt3Q065SnAbbk3Y=' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>",
    )
    .unwrap();
    assert_eq!(open.from.as_deref(), Some("juliet@im.example.com"));
    assert_eq!(open.to.as_deref(), Some("im.example.com"));
    assert_eq!(open.id.as_deref(), Some("++TR84Sm6A3hnt3Q065SnAbbk3Y="));
    assert_eq!(open.lang.as_deref(), Some("en"));
    assert_eq!(open.version(), Ok((1, 0)));
    assert_eq!((open.default_ns(), open.prefixes().len()), (CLIENT, 1));
    assert_eq!(StreamPrefixes::declared(&open, CLIENT), StreamPrefixes::client());
    assert_eq!(size_of::<StreamPrefixes>(), size_of::<usize>());
}

#[test]
fn versions_are_two_numbers() {
    let version = |attribute: &str| {
        let xml = format!("<stream:stream {attribute} xmlns:stream='{STREAM}'>");
        header(xml.as_bytes())
            .unwrap()
            .version()
            .map_err(|error| error.condition())
    };
    assert_eq!(version(""), Ok((0, 9)));
    assert_eq!(version("version='1.0'"), Ok((1, 0)));
    assert_eq!(version("version='01.011'"), Ok((1, 11)));
    for bad in ["", "1", "1.", ".0", "1.0.0", "+1.0", "1.-0", "a.b", "99999.0", " 1.0"] {
        assert_eq!(
            version(&format!("version='{bad}'")),
            Err("unsupported-version"),
            "{bad}"
        );
    }
}

#[test]
fn xml_declarations_are_checked() {
    let with = |declaration: &[u8]| {
        let rest = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
        header(&[declaration, rest].concat())
            .map(|_| "accepted")
            .unwrap_or_else(|error| error.condition())
    };
    let table: [(&str, &[&str]); 4] = [
        (
            "accepted",
            &[
                "",
                " \n",
                "<?xml version='1.0'?>",
                "<?xml version=\"1.0\" ?>\r\n\t",
                "<?xml\tversion = '1.0'\nencoding='UTF-8'?>",
                "<?xml version='1.0' encoding='utf-8' standalone='no'?>",
                "<?xml version='1.0' standalone='yes' ?>",
                // XML 1.0, fifth edition, §2.8: any 1.x is read as 1.0.
                "<?xml version='1.1'?>",
            ],
        ),
        (
            "unsupported-encoding",
            &[
                "<?xml version='1.0' encoding='UTF-16'?>",
                "<?xml version='1.0' encoding='ISO-8859-1'?>",
            ],
        ),
        (
            "restricted-xml",
            &[
                "<?php ?>",
                "<?xml-stylesheet ?>",
                "<?XML version='1.0'?>",
                "<!DOCTYPE a>",
                "<!-- -->",
                "<?xml?>",
                "<?xml version='1.0'?><?xml version='1.0'?>",
                "<?xml version='1.0'?><!-- -->",
                "\n<?xml version='1.0'?>",
            ],
        ),
        (
            "not-well-formed",
            &[
                "<?xml ?>",
                "<?xml version='2.0'?>",
                "<?xml version='1.'?>",
                "<?xml version='1.a'?>",
                "<?xml encoding='UTF-8'?>",
                "<?xml version='1.0'encoding='UTF-8'?>",
                "<?xml version='1.0' standalone='maybe'?>",
                "<?xml version='1.0' standalone='no' encoding='UTF-8'?>",
                "<?xml version='1.0' version='1.0'?>",
                "<?xml version='1.0'?>text",
                "<?xml version='1.0' x?>",
                "<?xml version=1.0?>",
                // RFC 6120 §11.6: not a mark but a character, where none may be.
                "\u{FEFF}",
                "\u{FEFF}<?xml version='1.0'?>",
                "GET / HTTP/1.1\r\n\r\n",
                "</stream:stream>",
                "<![CDATA[]]>",
            ],
        ),
    ];
    for (expected, declarations) in table {
        for declaration in declarations {
            assert_eq!(with(declaration.as_bytes()), expected, "{declaration}");
        }
    }
    // UTF-16 with and without its mark, UTF-32, and bytes that are nothing.
    for bytes in [
        &b"\xfe\xff\0<\0s"[..],
        b"\xff\xfe<\0s\0",
        b"\0<\0s",
        b"<\0s\0",
        b"\0\0\0<",
        b"\xff",
        b"<?xml version='1.0' \xff='a'?>",
    ] {
        assert_eq!(with(bytes), "unsupported-encoding", "{bytes:?}");
    }
    assert_eq!(
        with(b"\x16\x03\x01\x02\0\x01\0"),
        "not-well-formed",
        "a TLS client hello"
    );
}

#[test]
fn headers_in_wrong_namespaces_are_refused() {
    let table = [
        (
            "invalid-namespace",
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://wrong.namespace.example.org/'>",
        ),
        ("invalid-namespace", "<stream xmlns='jabber:client'>"),
        ("invalid-namespace", "<stream>"),
        ("invalid-namespace", "<html>"),
        (
            "bad-namespace-prefix",
            "<foobar:stream xmlns='jabber:client' xmlns:foobar='http://etherx.jabber.org/streams'>",
        ),
        (
            "bad-format",
            "<stream:streams xmlns:stream='http://etherx.jabber.org/streams'>",
        ),
        (
            "bad-format",
            "<stream:stream xmlns:stream='http://etherx.jabber.org/streams'/>",
        ),
        ("not-well-formed", "<stream:stream xmlns='jabber:client'>"),
        (
            "not-well-formed",
            "<stream:stream to='a' to='b' xmlns:stream='http://etherx.jabber.org/streams'>",
        ),
        (
            "not-well-formed",
            "<stream:stream x:to='a' xmlns:stream='http://etherx.jabber.org/streams'>",
        ),
        (
            "policy-violation",
            concat!(
                "<stream:stream a='' b='' c='' d='' e='' f='' g='' h='' i='' j='' k='' l='' m='' n='' o='' ",
                "xmlns:p='p' xmlns:stream='http://etherx.jabber.org/streams'>"
            ),
        ),
    ];
    for (condition, xml) in table {
        assert_eq!(
            header(xml.as_bytes()).map_err(|error| error.condition()),
            Err(condition),
            "{xml}"
        );
    }
}

fn parse_in(scope: &StreamPrefixes, xml: &str) -> Result<Parsed, XmlError> {
    Stanza::parse(Bytes::copy_from_slice(xml.as_bytes()), &Limits::after_auth(), scope)
}

fn scope(header_attributes: &str, content: &'static str) -> StreamPrefixes {
    let open = header(format!("<stream:stream xmlns:stream='{STREAM}' {header_attributes}>").as_bytes()).unwrap();
    StreamPrefixes::declared(&open, content)
}

/// RFC 6120 §4.8.5: "an entity MUST ensure that such namespaces are properly declared when routing or delivering stanzas".
#[test]
fn prefixes_of_the_header_are_declared_where_the_stanza_goes() {
    let scope = scope(
        "xmlns='jabber:client' xmlns:a='urn:a' xmlns:b=\"urn:b?x&amp;y='\" xmlns:c='urn:c'",
        CLIENT,
    );
    let table = [
        ("<message><a:x/></message>", "<message xmlns:a='urn:a'><a:x/></message>"),
        (
            "<message><x b:y=''/><a:x><a:z/></a:x></message>",
            "<message xmlns:b='urn:b?x&amp;y=&apos;' xmlns:a='urn:a'><x b:y=''/><a:x><a:z/></a:x></message>",
        ),
        ("<message c:x='1'/>", "<message xmlns:c='urn:c' c:x='1'/>"),
        (
            "<message><body>a:x</body></message>",
            "<message><body>a:x</body></message>",
        ),
        (
            "<message xmlns:a='urn:other'><a:x/></message>",
            "<message xmlns:a='urn:other'><a:x/></message>",
        ),
        (
            "<message><a:x xmlns:a='urn:other'/></message>",
            "<message><a:x xmlns:a='urn:other'/></message>",
        ),
        (
            "<message><a:x xmlns:a='urn:other'/><a:x/></message>",
            "<message xmlns:a='urn:a'><a:x xmlns:a='urn:other'/><a:x/></message>",
        ),
        (
            "<message><stream:x/></message>",
            "<message xmlns:stream='http://etherx.jabber.org/streams'><stream:x/></message>",
        ),
    ];
    for (sent, delivered) in table {
        let Ok(Parsed::Stanza(stanza)) = parse_in(&scope, sent) else {
            panic!("{sent}")
        };
        assert_eq!(written(&stanza), delivered);
        // What is delivered stands on its own and means the same.
        let Ok(Parsed::Stanza(again)) = parse_in(&StreamPrefixes::client(), delivered) else {
            panic!("{delivered}")
        };
        assert_eq!(again.root_element(), stanza.root_element());
        assert_eq!(written(&again), delivered);
    }
    assert_eq!(
        parse_in(&scope, "<message><d:x/></message>").map_err(|e| e.condition()),
        Err("not-well-formed")
    );
    let Ok(Parsed::Other(element)) = parse_in(&scope, "<a:x/>") else {
        panic!()
    };
    assert!(element.is("x", "urn:a"));
}

#[test]
fn prefix_free_streams_have_stanzas_that_name_their_namespace() {
    let open = header(b"<stream xmlns='http://etherx.jabber.org/streams' version='1.0'>").unwrap();
    let scope = StreamPrefixes::declared(&open, CLIENT);
    let Ok(Parsed::Stanza(stanza)) = parse_in(&scope, "<message xmlns='jabber:client'><body/></message>") else {
        panic!()
    };
    assert_eq!(written(&stanza), "<message><body/></message>");
    let Ok(Parsed::Other(element)) = parse_in(&scope, "<message/>") else {
        panic!()
    };
    assert!(element.is("message", STREAM));
}

#[test]
fn a_stanza_of_another_server_is_in_no_other_namespace_for_us() {
    let scope = scope("xmlns='jabber:server' xmlns:db='jabber:server:dialback'", SERVER);
    let xml = "<message to='a@b' from='c@d'><body>hi</body></message>";
    let Ok(Parsed::Stanza(stanza)) = parse_in(&scope, xml) else {
        panic!()
    };
    assert!(stanza.is_payload("body", CLIENT));
    assert_eq!(stanza.payload_element().unwrap().ns(), CLIENT);
    let wrong = "<message xmlns='jabber:client' to='a@b' from='c@d'/>";
    assert_eq!(
        parse_in(&scope, wrong).map_err(|e| e.condition()),
        Err("invalid-namespace")
    );
    let Ok(Parsed::Other(result)) = parse_in(&scope, "<db:result to='a' from='b'>key</db:result>") else {
        panic!()
    };
    assert!(result.is("result", "jabber:server:dialback"));
}
