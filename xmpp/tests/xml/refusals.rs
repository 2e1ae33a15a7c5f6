//! Malformed input and the one stream error each gets (RFC 6120 §4.9.3; security lessons A1 to A7).

use bytes::Bytes;
use heronry_xmpp::stanza::Stanza;
use heronry_xmpp::xml::{DEPTH_CEILING, Element, Excess, Frame, Limits, StreamPrefixes, XmlError};

use crate::{HEADER, frames};

/// The condition a stream ends with when these bytes follow its header; `accepted` when it goes on, `incomplete` when it waits
/// for more. Fed at once and byte by byte: both must come to the same.
fn verdict(bytes: &[u8], limits: &Limits) -> &'static str {
    let stream = [HEADER.as_bytes(), bytes].concat();
    let judge = |(frames, error): (Vec<Frame>, Option<XmlError>)| {
        let parsed = frames.iter().filter_map(|frame| match frame {
            Frame::Element(bytes) => Some(Stanza::parse(Bytes::clone(bytes), limits, &StreamPrefixes::client())),
            Frame::Open(_) | Frame::Close => None,
        });
        let refused = parsed.filter_map(Result::err).next();
        match refused.or(error) {
            Some(error) => error.condition(),
            None if frames.len() > 1 => "accepted",
            None => "incomplete",
        }
    };
    let whole = judge(frames([&stream[..]], limits));
    assert_eq!(
        judge(frames(stream.chunks(1), limits)),
        whole,
        "{}",
        String::from_utf8_lossy(bytes)
    );
    whole
}

fn check(condition: &str, inputs: &[&[u8]]) {
    for input in inputs {
        assert_eq!(
            verdict(input, &Limits::after_auth()),
            condition,
            "{}",
            String::from_utf8_lossy(input)
        );
    }
}

/// The table's inputs as text.
fn check_str(condition: &str, inputs: &[&str]) {
    check(
        condition,
        &inputs.iter().map(|input| input.as_bytes()).collect::<Vec<_>>(),
    );
}

#[test]
fn good_input_is_accepted() {
    check_str(
        "accepted",
        &[
            "<message/>",
            "<message></message >",
            "<message xmlns='jabber:client'/>",
            "<message><body>&lt;&gt;&amp;&apos;&quot;&#65;&#x1F9A2;</body></message>",
            "<message><![CDATA[<!-- ]] > -->]]></message>",
            "<message>]] > ]&gt;</message>",
            "<message a='>]]>' b=\"'\" c='\"'/>",
            "<message><a:b xmlns:a='urn:a'/><stream:x/></message>",
            "<message xml:space='preserve'><_a.b-c1/><é/></message>",
            "<presence><a xmlns=''/></presence>",
            "<message>\u{FEFF}\u{FFFD}\u{85}\u{2028}\u{10FFFF}</message>",
            "<enable xmlns='urn:xmpp:sm:3'/>",
            "<message><a xmlns:b='urn:b' xmlns:c='urn:b' b:d='' d=''/></message>",
            "<message xmlns:xml='http://www.w3.org/XML/1998/namespace'/>",
            "<message><\u{FDF0}\u{FEFF}\u{FFFD}/></message>",
        ],
    );
}

#[test]
fn restricted_xml_is_refused() {
    check_str(
        "restricted-xml",
        &[
            "<!DOCTYPE lolz [<!ENTITY lol 'lol'>]>",
            "<!DOCTYPE",
            "<!D",
            "<!ELEMENT",
            "<!-- comment -->",
            "<!-",
            "<?php",
            "<?xml version='1.0'?>",
            "<?",
            "<message><!-- comment -->",
            "<message><!-",
            "<message><?pi?></message>",
            "<message><?",
            "<message><body><!DOCTYPE a>",
            "<message><!ENTITY",
            "<message><body>&lol;</body></message>",
            "<message><body>&nbsp;</body></message>",
            "<message a='&lol9;'/>",
            "<message>&xxe:a;</message>",
        ],
    );
}

#[test]
fn what_is_not_well_formed_is_refused() {
    check_str(
        "not-well-formed",
        &[
            // Tags.
            "<message><body>No closing tag!</message>",
            "<message></body>",
            "<message></messagE>",
            "<message></messages>",
            "<message></message/>",
            "<message></ message>",
            "</message>",
            "<message/ >",
            "<message//>",
            "<message / >",
            "< message/>",
            "<>",
            "<1/>",
            "<-a/>",
            "<.a/>",
            "<message><a<b/>",
            "<message><a/b></a/b></message>",
            "<message x='1'<",
            "<message><![INCLUDE[",
            "<message><![cdata[",
            "<message><! ",
            // Attributes.
            "<message a=''b=''/>",
            "<message a/>",
            "<message a=b/>",
            "<message a='<'",
            "<message =''/>",
            "<message a='' a=''/>",
            "<message 'a'/>",
            "<message a=''''/>",
            "<message to='a@b' to='c@d'/>",
            "<message a='&#0;'/>",
            "<message a='& '/>",
            "<message a='&lt'/>",
            // Character data and references.
            "<message>]]></message>",
            "<message>a]]]>b</message>",
            "<message>&</message>",
            "<message>& </message>",
            "<message>&lt</message>",
            "<message>&;</message>",
            "<message>&#;</message>",
            "<message>&#x;</message>",
            "<message>&#+65;</message>",
            "<message>&#-65;</message>",
            "<message>&#X41;</message>",
            "<message>&#xG;</message>",
            "<message>&#1 ;</message>",
            "<message>&#0;</message>",
            "<message>&#1;</message>",
            "<message>&#xB;</message>",
            "<message>&#xD800;</message>",
            "<message>&#xDFFF;</message>",
            "<message>&#xFFFE;</message>",
            "<message>&#xFFFF;</message>",
            "<message>&#x110000;</message>",
            "<message>&#99999999999999999999;</message>",
            "<message>\u{FFFE}</message>",
            "<message a='\u{FFFF}'/>",
            "<message>\0</message>",
            "<message>\u{1}</message>",
            "<message a='\u{C}'/>",
            "<message>\u{1F}</message>",
            // Names and namespaces.
            "<message><a:b/></message>",
            "<message a:b=''/>",
            "<message><a:b:c xmlns:a='u'/></message>",
            "<message><:a/></message>",
            "<message><a:/></message>",
            "<message><a:1 xmlns:a='u'/></message>",
            "<message><a\u{D7}/></message>",
            "<message><\u{B7}a/></message>",
            "<message a\u{37E}=''/>",
            "<message><a xmlns:b=''/></message>",
            "<message xmlns:xmlns='u'/>",
            "<message xmlns:xml='u'/>",
            "<message xmlns:a='http://www.w3.org/XML/1998/namespace'/>",
            "<message><a xmlns='http://www.w3.org/XML/1998/namespace'/></message>",
            "<message xmlns:a='http://www.w3.org/2000/xmlns/'/>",
            "<message><a xmlns='http://www.w3.org/2000/xmlns/'/></message>",
            "<message><xmlns:a/></message>",
            "<message xmlns:a='u' xmlns:a='u'/>",
            "<message><a xmlns='u' xmlns='v'/></message>",
            "<message><a xmlns:b='u' xmlns:c='u' b:d='' c:d=''/></message>",
            "<message><a xmlns:b='u'/><b:c/></message>",
            "<message xmlns:=''/>",
        ],
    );
}

/// Frames come to the reader through the framer, which has refused some of this; rows and frames from other nodes do not. And
/// quick-xml lets all of it pass that is not about the ends of tags.
#[test]
fn the_reader_relies_on_nobody() {
    let table: [(&str, &[&str]); 2] = [
        (
            "restricted-xml",
            &[
                "<!DOCTYPE a><a/>",
                "<!doctype a><a/>",
                "<a/><!DOCTYPE a>",
                "<a><!DOCTYPE",
                "<!-- --><a/>",
                "<a><!-- --></a>",
                "<a/><!-->",
                "<?xml version='1.0'?><a/>",
                "<a><?b c?></a>",
                "<a><?",
                "<a b='&c;'/>",
                "<a b='&#65;&c;'/>",
            ],
        ),
        (
            "not-well-formed",
            &[
                "",
                " ",
                "a",
                "\u{FEFF}<a/>",
                "<a/>\u{FEFF}",
                "<a/>b",
                "<a/>&lt;",
                "<a/><![CDATA[]]>",
                "<a/><b/>",
                "<a/></a>",
                "<a>",
                "<a",
                "<",
                "</a>",
                "<a></a",
                "<a></b>",
                "<a></a b='c'>",
                "<a></a/>",
                "<a></ a>",
                "<a><b></a></b>",
                "<!><a/>",
                "<a><![cdata[]]></a>",
                "<a><![CDATA[]></a>",
                "<a><![CDATA</a>",
                "<a><<b/></a>",
                "<a <b/>",
                "<a b='<'/>",
                "<a xmlns='<'/>",
                "<a b='c'd='e'/>",
                "<a b='c'xmlns='e'/>",
                "<a b='c'\"/>",
                "<a b=c/>",
                "<a b/>",
                "<a b=/>",
                "<a ='c'/>",
                "<a b='c' / >",
                "<a / b='c'/>",
                "<a/b='c'/>",
                "<a b='c' b='d'/>",
                "<a xml:lang='c' xml:lang='d'/>",
                "<a b='&c'/>",
                "<a b='&'/>",
                "<a b='&;'/>",
                "<a b='&#;'/>",
                "<a b='&#+65;'/>",
                "<a b='&#1;'/>",
                "<a b='&#xFFFE;'/>",
                "<a b='&#xD800;'/>",
                "<a b='&lt &gt;'/>",
                "<a>&lt</a>",
                "<a>&</a>",
                "<a>&#1;</a>",
                "<a>&#+65;</a>",
                "<a>&#xFFFE;</a>",
                "<a>]]></a>",
                "<a>&#93;]]></a>",
                "<a>\u{1}</a>",
                "<a b='\u{1}'/>",
                "<a\u{FFFF}/>",
                "<1/>",
                "<a:/>",
                "<:a/>",
                "<é:/>",
                "<a 1=''/>",
                "<a é:=''/>",
            ],
        ),
    ];
    for (condition, inputs) in table {
        for input in inputs {
            let refused = Element::parse(input, &Limits::trusted()).map_err(|error| error.condition());
            assert_eq!(refused, Err(condition), "{input}");
        }
    }
}

#[test]
fn what_is_not_utf8_is_refused() {
    check(
        "unsupported-encoding",
        &[
            b"<message>\x80</message>",                     // a continuation alone
            b"<message>\xc3</message>",                     // one cut off
            b"<message>\xc0\xaf</message>",                 // '/' overlong in two bytes
            b"<message>\xc1\xbf</message>",                 // the longest such
            b"<message>\xe0\x80\xaf</message>",             // in three
            b"<message>\xe0\x9f\xbf</message>",             // the longest such
            b"<message>\xf0\x80\x80\xbc</message>",         // '<' in four
            b"<message>\xed\xa0\x80</message>",             // a surrogate
            b"<message>\xed\xbf\xbf</message>",             // the last of them
            b"<message>\xed\xa0\xbd\xed\xb8\x80</message>", // a pair of them (CESU-8)
            b"<message>\xf4\x90\x80\x80</message>",         // beyond U+10FFFF
            b"<message>\xf8\x88\x80\x80\x80</message>",     // five bytes
            b"<message>\xfe\xff</message>",
            b"<message a='\xff'/>",
            b"<message><\xc3\x28/></message>",
            b"<m\xe9ssage/>", // ISO 8859-1
            b"<message><![CDATA[\xff]]></message>",
        ],
    );
}

#[test]
fn text_between_stanzas_is_refused() {
    check_str(
        "bad-format",
        &[
            "text",
            "<message/>text",
            "&lt;",
            "\u{FEFF}<message/>",
            "<![CDATA[text]]>",
            ">",
            "\0",
            "]]>",
        ],
    );
}

#[test]
fn stanzas_in_wrong_namespaces_are_refused() {
    check_str(
        "invalid-namespace",
        &["<message xmlns='jabber:server'/>", "<x xmlns='jabber:server'/>"],
    );
    check_str(
        "unsupported-stanza-type",
        &["<pubsub/>", "<Message/>", "<query xmlns='jabber:client'/>"],
    );
    check_str(
        "bad-namespace-prefix",
        &[
            // RFC 6120 §4.8.5's own example, and deeper inside.
            "<foo:message xmlns:foo='jabber:client'><foo:body>foo</foo:body></foo:message>",
            "<message xmlns:foo='jabber:client'><foo:body>foo</foo:body></message>",
            "<message><x xmlns='urn:x'><foo:body xmlns:foo='jabber:client'/></x></message>",
        ],
    );
    check_str(
        "invalid-from",
        &[
            "<message from='@'/>",
            "<presence from=''/>",
            "<iq type='get' id='1' from='a@b/'><x/></iq>",
        ],
    );
}

#[test]
fn each_limit_is_a_policy_violation_with_its_name() {
    let limits = Limits {
        stanza_bytes_max: 500,
        depth_max: 3,
        attributes_max: 4,
        name_bytes_max: 10,
        namespace_bytes_max: 20,
        namespaces_max: 5,
        children_max: 6,
    };
    let x = |n: usize| "x".repeat(n);
    let at_limit = [
        format!("<message>{}</message>", x(500 - 19)),
        "<message><a><b/></a><a><b></b></a></message>".into(),
        "<message a='' b='' c='' d=''/>".into(),
        "<message a='' b='' xmlns:c='u' xmlns:d='u'/>".into(),
        format!("<message><{} {}=''/></message>", x(10), x(10)),
        format!("<message><p:{} xmlns:p='u'/></message>", x(8)),
        format!("<message><a xmlns='{}'/></message>", x(20)),
        "<message xmlns:a='u' xmlns:b='u'><a xmlns='u'/><a xmlns='u'/><a xmlns='u'/></message>".into(),
        format!("<message>{}</message>", "<a/>".repeat(6)),
    ];
    for input in at_limit {
        assert_eq!(verdict(input.as_bytes(), &limits), "accepted", "{input}");
    }
    let beyond = [
        (Excess::StanzaBytes, format!("<message>{}</message>", x(501 - 19))),
        (Excess::Depth, "<message><a><b><c/></b></a></message>".into()),
        (Excess::Depth, "<message><a><b><c>".into()),
        (Excess::Attributes, "<message a='' b='' c='' d='' e=''/>".into()),
        (
            Excess::Attributes,
            "<message a='' b='' xmlns:c='u' xmlns:d='u' e=''/>".into(),
        ),
        (Excess::NameBytes, format!("<message><{}/></message>", x(11))),
        (Excess::NameBytes, format!("<message {}=''/>", x(11))),
        (
            Excess::NameBytes,
            format!("<message><p:{} xmlns:p='u'/></message>", x(9)),
        ),
        (Excess::NameBytes, format!("<message xmlns:{}='u'/>", x(5))),
        (
            Excess::NamespaceBytes,
            format!("<message><a xmlns='{}'/></message>", x(21)),
        ),
        (Excess::NamespaceBytes, format!("<message xmlns:a='{}'/>", x(21))),
        (
            Excess::Namespaces,
            format!("<message>{}</message>", "<a xmlns='u'/>".repeat(6)),
        ),
        (Excess::Children, format!("<message>{}</message>", "<a/>".repeat(7))),
    ];
    for (excess, input) in beyond {
        let stream = format!("{HEADER}{input}");
        let header_fits = Limits {
            stanza_bytes_max: 500,
            ..limits
        };
        let (frames, error) = frames([stream.as_bytes()], &header_fits);
        let error = error.or_else(|| match frames.last() {
            Some(Frame::Element(frame)) => Stanza::parse(frame.clone(), &limits, &StreamPrefixes::client()).err(),
            _ => None,
        });
        assert_eq!(error, Some(XmlError::PolicyViolation(excess)), "{input}");
        assert_eq!(error.map(|error| error.text()), Some(excess.limit()));
    }
}

#[test]
fn an_entity_bomb_dies_on_its_first_line() {
    let bomb = "<!DOCTYPE lolz [<!ENTITY lol 'lol'><!ENTITY lol2 '&lol;&lol;'>]><message>&lol2;</message>";
    assert_eq!(verdict(bomb.as_bytes(), &Limits::before_auth()), "restricted-xml");
    assert!(matches!(
        Element::parse(bomb, &Limits::after_auth()),
        Err(XmlError::RestrictedXml(_))
    ));
}

#[test]
fn a_refused_stream_stays_silent_about_what_the_peer_wrote() {
    for input in [
        "<message>secret-word</massage>",
        "<message secret-word/>",
        "<message>&secret-word;</message>",
    ] {
        let stream = format!("{HEADER}{input}");
        let (frames, error) = frames([stream.as_bytes()], &Limits::after_auth());
        let error = error.or_else(|| match frames.last() {
            Some(Frame::Element(frame)) => {
                Stanza::parse(frame.clone(), &Limits::after_auth(), &StreamPrefixes::client()).err()
            }
            _ => None,
        });
        let error = error.unwrap();
        assert!(
            !format!("{error} {error:?} {}", error.text()).contains("secret"),
            "{error:?}"
        );
    }
}

/// Elements are written, compared and dropped recursively: no configuration may let a peer exhaust a stack.
#[test]
fn nesting_has_a_ceiling_whatever_is_configured() {
    let limits = Limits {
        depth_max: u16::MAX,
        ..Limits::trusted()
    };
    let nested = |depth: usize| "<a>".repeat(depth) + &"</a>".repeat(depth);
    let ceiling = usize::from(DEPTH_CEILING);
    let deepest = Element::parse(nested(ceiling), &limits).unwrap();
    assert_eq!(Element::parse(deepest.to_bytes(), &limits), Ok(deepest.clone()));
    for depth in [ceiling + 1, 100_000] {
        let refused = Err(XmlError::PolicyViolation(Excess::Depth));
        assert_eq!(Element::parse(nested(depth), &limits), refused);
        let stream = format!("{HEADER}{}", nested(depth));
        assert_eq!(
            frames([stream.as_bytes()], &limits).1.map_or(Ok(()), Err),
            refused.map(|_: Element| ())
        );
    }
}
