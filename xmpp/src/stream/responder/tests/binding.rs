//! RFC 6120 §7: resource binding.

use super::*;

#[test]
fn the_server_chooses_a_resource_nobody_guesses() {
    let resource = |seed| {
        let mut talk = Talk::authenticated();
        talk.random = Seeded(seed);
        let heard = talk.say(BIND);
        let (_, jid) = heard.split_once("<jid>juliet@im.example.com/").unwrap();
        jid.split_once('<').unwrap().0.to_owned()
    };
    assert_eq!(resource(3).len(), 24);
    assert_ne!(resource(3), resource(4));
}

#[test]
fn an_empty_resource_leaves_the_choice_to_the_server() {
    let bind = BIND.replace(
        "'urn:ietf:params:xml:ns:xmpp-bind'/>",
        "'urn:ietf:params:xml:ns:xmpp-bind'><resource/></bind>",
    );
    assert!(Talk::authenticated().say(&bind).contains("<jid>juliet@im.example.com/"));
}

/// RFC 6120 §7.7.2.1
#[test]
fn what_cannot_be_a_resource_is_a_bad_request() {
    let mut talk = Talk::authenticated();
    let resource = |resource: &str| {
        format!(
            "<iq id='1' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource>\
             </bind></iq>"
        )
    };
    let heard = talk.say(&resource("\u{200b}\u{e000}\u{ad}"));
    assert!(
        heard.starts_with("<iq type='error' id='1'><error type='modify'><bad-request "),
        "{heard}"
    );
    assert!(
        talk.say(&resource("balcony"))
            .contains("<jid>juliet@im.example.com/balcony</jid>")
    );
}

#[test]
fn a_malformed_request_is_a_bad_request() {
    for iq in [
        BIND.replace("set", "get"),
        BIND.replace(" type='set'", ""),
        BIND.replace(" id='tn281v37'", ""),
        BIND.replace("</iq>", "<x xmlns='y'/></iq>"),
    ] {
        let heard = Talk::authenticated().say(&iq);
        assert!(
            heard.contains("<bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"),
            "{iq}: {heard}"
        );
    }
}

/// RFC 6120 §7.6.2.1, §7.7.3
#[test]
fn a_refused_client_may_try_again_but_not_for_ever() {
    let mut talk = Talk::authenticated();
    talk.refuse_bind = Some(StanzaError::resource_constraint());
    let refused = "<iq type='error' id='tn281v37'><error type='wait'><resource-constraint \
                   xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>";
    for _ in 0..5 {
        assert_eq!(talk.say(BIND), refused);
    }
    let closed = stream_error_text("policy-violation", "too many attempts to bind");
    assert_eq!(talk.say(BIND), format!("{refused}{closed}"));
}

#[test]
fn the_caller_may_decide_for_another_resource() {
    let mut talk = Talk::authenticated();
    let mut responder = talk.responder.take().unwrap();
    let outputs = responder.frame(Frame::Element(BIND.into()), &mut talk.random);
    let [Output::Bind(request)] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert!(request.generated);
    let established = responder.bound(&FullJid::parse("juliet@im.example.com/another").unwrap());
    assert!(
        String::from_utf8(established.send)
            .unwrap()
            .contains("<jid>juliet@im.example.com/another</jid>")
    );
    assert_eq!(established.lang.as_deref(), Some("en"));
    assert_eq!(established.prefixes, StreamPrefixes::client());
}
