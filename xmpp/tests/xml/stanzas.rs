//! Stanzas: what is read, what is refused, what is written, what survives the row codec.

use bytes::Bytes;
use heronry_xmpp::jid::{FullJid, Jid};
use heronry_xmpp::stanza::{
    Condition, ErrorType, IqType, Kind, MessageType, Parsed, Payload, PresenceType, Stanza, StanzaError,
};
use heronry_xmpp::xml::{CLIENT, Element, Limits};
use proptest::prelude::*;

use crate::generate::{choices, element, spell, text};
use crate::{parse, stanza, written};

#[test]
fn the_header_is_read_once_and_the_body_stays_bytes() {
    let body = "<body >Hi  &#x41;<![CDATA[<&]]> \r\n</body ><x xmlns = \"urn:x\"\n  a='1'/></message >";
    let mut message = stanza(format!(
        "<message\tto='Romeo@Example.net' x='1' type='chat' id=\"a'b\" xmlns:e='urn:e' xml:lang='de' from='liar@x'>{body}"
    ));
    assert_eq!(message.kind, Kind::Message(MessageType::Chat));
    assert_eq!(message.to, Some(Jid::parse("romeo@example.net").unwrap()));
    assert_eq!(
        (message.id.as_deref(), message.lang.as_deref()),
        (Some("a'b"), Some("de"))
    );
    assert_eq!(
        message.payload(),
        Some(Payload {
            name: "body",
            ns: CLIENT
        })
    );

    message.from = Some(FullJid::parse("juliet@example.com/O'Neill").unwrap().into());
    assert_eq!(
        written(&message),
        format!(
            "<message from='juliet@example.com/O&apos;Neill' to='romeo@example.net' id='a&apos;b' type='chat' xml:lang='de' \
             xmlns:e='urn:e' x='1'>{body}"
        )
    );
}

#[test]
fn empty_stanzas_stay_empty() {
    for (xml, out) in [
        ("<presence/>", "<presence/>"),
        ("<presence></presence>", "<presence></presence>"),
        ("<message />", "<message/>"),
    ] {
        assert_eq!(written(&stanza(xml)), out);
        assert_eq!(stanza(xml).payload(), None);
        assert!(stanza(xml).payload_element().is_err());
    }
}

#[test]
fn types_are_typed() {
    let message = |type_: &str| stanza(format!("<message type='{type_}'/>"));
    assert_eq!(stanza("<message/>").kind, Kind::Message(MessageType::Normal));
    // RFC 6121 §5.2.2: what is unknown is normal.
    assert_eq!(message("unheard-of").kind, Kind::Message(MessageType::Normal));
    for type_ in ["chat", "groupchat", "headline", "error"] {
        assert_eq!(written(&message(type_)), format!("<message type='{type_}'/>"));
    }
    for type_ in [
        "unavailable",
        "subscribe",
        "subscribed",
        "unsubscribe",
        "unsubscribed",
        "probe",
        "error",
    ] {
        let xml = format!("<presence type='{type_}'/>");
        assert_eq!(written(&stanza(&xml)), xml);
    }
    for type_ in ["get", "set", "result", "error"] {
        let xml = format!("<iq id='1' type='{type_}'><x/></iq>");
        assert_eq!(written(&stanza(&xml)), xml);
    }
    assert_eq!(stanza("<presence/>").kind, Kind::Presence(PresenceType::Available));
    assert_eq!(stanza("<iq type='error' id='1'/>").kind.to_string(), "iq/error");
}

#[test]
fn the_payload_is_the_first_child() {
    let payload = |xml: &str| {
        stanza(xml)
            .payload()
            .map(|payload| format!("{{{}}}{}", payload.ns, payload.name))
    };
    let table = [
        ("<message>text<a xmlns='urn:a'/><b/></message>", Some("{urn:a}a")),
        ("<message><b/></message>", Some("{jabber:client}b")),
        ("<message><b xmlns=''/></message>", Some("{}b")),
        ("<message><p:b xmlns:p='urn:&#x61;&amp;'/></message>", Some("{urn:a&}b")),
        ("<message xmlns:p='urn:p'><p:b/></message>", Some("{urn:p}b")),
        (
            "<message><stream:b/></message>",
            Some("{http://etherx.jabber.org/streams}b"),
        ),
        ("<message>text only</message>", None),
    ];
    for (xml, expected) in table {
        assert_eq!(payload(xml).as_deref(), expected, "{xml}");
        let decoded = Stanza::decode(stanza(xml).encode()).unwrap();
        assert_eq!(
            decoded
                .payload()
                .map(|payload| format!("{{{}}}{}", payload.ns, payload.name))
                .as_deref(),
            expected
        );
        if let Some(payload) = stanza(xml).payload() {
            assert!(stanza(xml).payload_element().unwrap().is(payload.name, payload.ns));
            assert!(stanza(xml).is_payload(payload.name, payload.ns));
        }
    }
}

/// What is wrong with one stanza only is told to its sender and ends no stream.
#[test]
fn stanzas_that_cannot_be_processed_are_refused() {
    let table = [
        ("<message to='@'/>", Condition::JidMalformed),
        ("<message to=''/>", Condition::JidMalformed),
        ("<message to='a@b@c'/>", Condition::JidMalformed),
        ("<iq to='a@b/' id='1' type='get'><x/></iq>", Condition::JidMalformed),
        ("<presence type='invisible'/>", Condition::BadRequest),
        ("<presence type=''/>", Condition::BadRequest),
        ("<iq id='1'><x/></iq>", Condition::BadRequest),
        ("<iq id='1' type='subscribe'><x/></iq>", Condition::BadRequest),
        ("<iq type='get'><x/></iq>", Condition::BadRequest),
        ("<iq id='1' type='get'/>", Condition::BadRequest),
        ("<iq id='1' type='set'><x/><y/></iq>", Condition::BadRequest),
        ("<iq id='1' type='result'><x/><y/></iq>", Condition::BadRequest),
    ];
    for (xml, condition) in table {
        let Ok(Parsed::Refused { head, error }) = parse(xml) else {
            panic!("{xml}")
        };
        assert_eq!(error.condition, condition, "{xml}");
        let answer = head.error(&error);
        // RFC 6120 §8.3.1: an error is never answered with an error.
        assert_eq!(answer.is_none(), xml.contains("result"), "{xml}");
        if let Some(answer) = answer {
            assert_eq!(
                (answer.id.as_deref(), answer.kind.is_error()),
                (head.id.as_deref(), true)
            );
        }
    }
    for fine in [
        "<iq id='1' type='result'/>",
        "<iq id='1' type='error'><x/><error type='cancel'/></iq>",
        "<iq id='' type='get'><x/></iq>",
    ] {
        stanza(fine);
    }
}

#[test]
fn answers_go_back_to_where_the_request_came_from() {
    let request =
        stanza("<iq from='a@b/c' to='d@e' id='7' type='get' xml:lang='de'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert_eq!(
        written(&request.result(None)),
        "<iq from='d@e' to='a@b/c' id='7' type='result'/>"
    );
    let query = Element::new("query", "urn:q").with_text("&");
    assert_eq!(
        written(&request.result(Some(&query))),
        "<iq from='d@e' to='a@b/c' id='7' type='result'><query xmlns='urn:q'>&amp;</query></iq>"
    );
    let error = StanzaError::service_unavailable().with_text("no <ping/> here");
    let answer = request.error(&error).unwrap();
    assert_eq!(
        written(&answer),
        "<iq from='d@e' to='a@b/c' id='7' type='error'><error type='cancel'>\
         <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
         <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>no &lt;ping/&gt; here</text></error></iq>"
    );
    assert_eq!(answer.stanza_error(), Some(error.clone()));
    assert_eq!(answer.error(&error), None);
    assert_eq!(request.result(None).error(&error), None);
    assert_eq!(request.stanza_error(), None);
    assert_eq!(
        stanza("<message type='error'/>").stanza_error(),
        Some(StanzaError::undefined_condition())
    );
}

#[test]
fn errors_round_trip() {
    for condition in Condition::ALL {
        for type_ in [
            ErrorType::Auth,
            ErrorType::Cancel,
            ErrorType::Continue,
            ErrorType::Modify,
            ErrorType::Wait,
        ] {
            let full = StanzaError {
                type_,
                condition: *condition,
                text: Some("some text".into()),
                address: Some("xmpp:a@b".into()),
                application: Some(Box::new(Element::new("too-many", "urn:x"))),
            };
            let bare = StanzaError {
                text: None,
                address: None,
                application: None,
                ..full.clone()
            };
            for error in [full, bare] {
                assert_eq!(StanzaError::from_element(&error.to_element()), error);
            }
        }
    }
    assert_eq!(Condition::ALL.len(), 22);
    let unknown = Element::parse(
        "<error type='later'><future xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>",
        &Limits::trusted(),
    );
    assert_eq!(
        StanzaError::from_element(&unknown.unwrap()),
        StanzaError::undefined_condition()
    );
}

fn kinds() -> impl Strategy<Value = Kind> {
    let message = [
        MessageType::Normal,
        MessageType::Chat,
        MessageType::Groupchat,
        MessageType::Headline,
        MessageType::Error,
    ];
    let presence = [
        PresenceType::Available,
        PresenceType::Unavailable,
        PresenceType::Subscribe,
        PresenceType::Subscribed,
        PresenceType::Unsubscribe,
        PresenceType::Unsubscribed,
        PresenceType::Probe,
        PresenceType::Error,
    ];
    let iq = [IqType::Get, IqType::Set, IqType::Result, IqType::Error];
    let all = message
        .map(Kind::Message)
        .into_iter()
        .chain(presence.map(Kind::Presence))
        .chain(iq.map(Kind::Iq));
    prop::sample::select(all.collect::<Vec<_>>())
}

fn addresses() -> impl Strategy<Value = Option<Jid>> {
    let texts = [
        "a@b",
        "a@b/c",
        "b",
        "b/c",
        "jülïet@bücher.example/Küche <&'\">",
        "[::1]/♚",
    ];
    prop::option::of(prop::sample::select(
        texts.map(|text| Jid::parse(text).unwrap()).to_vec(),
    ))
}

fn stanzas() -> impl Strategy<Value = Stanza> {
    (
        kinds(),
        addresses(),
        addresses(),
        prop::option::of(text()),
        prop::option::of(text()),
        element(),
    )
        .prop_map(|(kind, to, from, id, lang, child)| {
            let mut stanza = Stanza::new(kind, [&child]);
            (stanza.to, stanza.from) = (to, from);
            (stanza.id, stanza.lang) = (id.map(Into::into), lang.map(Into::into));
            stanza
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_made_is_written_and_read_back(stanza in stanzas()) {
        let xml = written(&stanza);
        let parsed = Stanza::parse(xml.clone().into(), &Limits::trusted(), &Default::default());
        let read = match parsed {
            Ok(Parsed::Stanza(read)) => read,
            // Only iqs have rules about what must be in them.
            Ok(Parsed::Refused { head, .. }) if stanza.kind.is_iq() && stanza.id.is_none() => head,
            other => panic!("{xml}: {other:?}"),
        };
        prop_assert_eq!(written(&read), xml);
        prop_assert_eq!((read.kind, &read.to, &read.from, &read.id, &read.lang), (stanza.kind, &stanza.to, &stanza.from, &stanza.id, &stanza.lang));
        prop_assert_eq!(read.payload(), stanza.payload());
        prop_assert_eq!(read.root_element(), stanza.root_element());
    }

    #[test]
    fn rows_round_trip(stanza in stanzas()) {
        let row = stanza.encode();
        prop_assert!(row.len() <= stanza.size() + 24, "{} for {}", row.len(), stanza.size());
        prop_assert_eq!(Stanza::decode(row), Ok(stanza));
    }

    #[test]
    fn a_body_is_never_touched(child in element(), mut choices in choices(), space in "[ \n]{0,3}") {
        let body = format!("{space}{}text</message{space}>", spell(&child, &mut choices));
        let Ok(Parsed::Stanza(message)) = Stanza::parse(format!("<message>{body}").into(), &Limits::trusted(), &Default::default())
        else { panic!("{body}") };
        let message = Stanza::decode(message.encode()).unwrap().with_to(Jid::parse("a@b").unwrap());
        prop_assert_eq!(written(&message), format!("<message to='a@b'>{body}"));
    }

    #[test]
    fn a_row_cut_off_or_bent_is_an_error_or_another_stanza(stanza in stanzas(), at: prop::sample::Index, byte: u8) {
        let row = stanza.encode();
        let mut bent = row.to_vec();
        bent[at.index(row.len())] = byte;
        for row in [row.slice(..at.index(row.len())), Bytes::from(bent)] {
            if let Ok(stanza) = Stanza::decode(row) {
                stanza.payload();
                written_anyway(&stanza);
            }
        }
    }
}

fn written_anyway(stanza: &Stanza) {
    let mut out = Vec::new();
    stanza.write(&mut out);
    let _ = (
        stanza.payload_element(),
        stanza.root_element(),
        stanza.size(),
        stanza.encode(),
    );
}

/// A row of the first version, as it may lie on a disk: it must be readable for ever.
#[test]
fn rows_of_version_1_are_read() {
    let row = b"\x01\x01\x3f\x03a@b\x05c@d/e\x01i\x02de\x0e xmlns:p='u:p'\x01\x04\x00<body>hi</body></message>";
    let stanza = Stanza::decode(Bytes::from_static(row)).unwrap();
    assert_eq!(
        written(&stanza),
        "<message from='c@d/e' to='a@b' id='i' type='chat' xml:lang='de' xmlns:p='u:p'><body>hi</body></message>"
    );
    assert!(stanza.is_payload("body", CLIENT));
    assert_eq!(stanza.encode(), &row[..]);
}
