//! RFC 6120 §6: SASL.

use super::*;

#[test]
fn plain_needs_tls_unless_configured_otherwise() {
    let mut talk = Talk::optional();
    assert!(!talk.say(OPEN).contains("PLAIN"));
    assert_eq!(
        talk.say(&plain("juliet", "r0m30myr0m30")),
        sasl_failure("encryption-required")
    );

    let mut talk = Talk::new(None, |config| {
        config.tls = TlsPolicy::Optional;
        config.plain_without_tls = true;
    });
    assert!(talk.say(OPEN).contains("PLAIN"));
    assert!(talk.say(&plain("juliet", "r0m30myr0m30")).starts_with(SUCCESS));

    let mut talk = Talk::new(None, |config| config.plain_without_tls = true);
    assert!(!talk.say(OPEN).contains("PLAIN"), "TLS is required all the same");
    assert_eq!(
        talk.say(&plain("juliet", "r0m30myr0m30")),
        sasl_failure("encryption-required")
    );
}

/// Lesson 13: the mechanism is checked against what was offered on this stream.
#[test]
fn a_mechanism_that_was_not_offered_is_invalid() {
    for mechanism in [
        "ANONYMOUS",
        "EXTERNAL",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1-PLUS",
        "plain",
        "",
    ] {
        let mut talk = Talk::secure();
        talk.say(OPEN);
        assert_eq!(
            talk.say(&auth(mechanism, "x")),
            sasl_failure("invalid-mechanism"),
            "{mechanism}"
        );
    }
    let mut talk = Talk::secure();
    talk.say(OPEN);
    let unnamed = talk.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>AGE=</auth>");
    assert_eq!(unnamed, sasl_failure("invalid-mechanism"));
}

#[test]
fn channel_binding_is_offered_where_the_channel_has_one() {
    let plus = |config: &mut ResponderConfig| {
        config.mechanisms.insert(0, Mechanism::scram_plus(ScramHash::Sha1));
    };
    let bindings = ChannelBindings::none().with_exporter([7; 32]);
    assert_eq!(
        Talk::new(Some(bindings), plus).say(OPEN),
        format!(
            "{HEADER}<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
             <mechanism>SCRAM-SHA-1-PLUS</mechanism><mechanism>SCRAM-SHA-1</mechanism><mechanism>PLAIN</mechanism>\
             </mechanisms><sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'><channel-binding type='tls-exporter'/>\
             </sasl-channel-binding></stream:features>"
        )
    );
    assert!(
        !Talk::new(Some(ChannelBindings::none()), plus)
            .say(OPEN)
            .contains("PLUS")
    );
}

#[test]
fn failures_have_the_conditions_of_rfc_6120() {
    let said = |xml: &str| {
        let mut talk = Talk::secure();
        talk.say(OPEN);
        talk.say(xml)
    };
    let raw = |text: &str| format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{text}</auth>");
    assert_eq!(said(&plain("juliet", "paris")), sasl_failure("not-authorized"));
    assert_eq!(said(&plain("tybalt", "r0m30myr0m30")), sasl_failure("not-authorized"));
    assert_eq!(
        said(&plain("nurse", "angelica")),
        sasl_failure("temporary-auth-failure")
    );
    assert_eq!(
        said(&auth("PLAIN", "romeo@im.example.com\0juliet\0r0m30myr0m30")),
        sasl_failure("invalid-authzid")
    );
    for bad in ["!", "AGE", "AGF=", " AGE= ", "====", "AGE=AGE="] {
        assert_eq!(said(&raw(bad)), sasl_failure("incorrect-encoding"), "{bad}");
    }
    for bad in ["=", "AGE=", "<x/>"] {
        assert!(said(&raw(bad)).contains("<malformed-request/>"), "{bad}");
    }
    let response = "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>AGE=</response>";
    assert!(said(response).contains("<malformed-request/>"));
    assert_eq!(
        said("<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"),
        sasl_failure("aborted")
    );
}

#[test]
fn a_handshake_can_be_given_up_and_begun_again() {
    let mut talk = Talk::secure();
    talk.say(OPEN);
    assert!(
        talk.say(&auth("SCRAM-SHA-1", "n,,n=juliet,r=abc"))
            .starts_with("<challenge ")
    );
    assert_eq!(
        talk.say("<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"),
        sasl_failure("aborted")
    );
    assert!(
        talk.say(&auth("SCRAM-SHA-1", "n,,n=juliet,r=abc"))
            .starts_with("<challenge ")
    );
    // RFC 6120 §6.4.2: this one discards the one before.
    assert!(talk.say(&plain("juliet", "r0m30myr0m30")).starts_with(SUCCESS));
}

/// RFC 6120 §6.4.5
#[test]
fn attempts_are_limited_however_they_fail() {
    let closed = stream_error_text("policy-violation", "too many failed authentications");
    let attempts: [fn() -> String; 3] = [
        || plain("juliet", "paris"),
        || "<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>".to_owned(),
        || auth("CRAM-MD5", "x"),
    ];
    for attempt in attempts {
        let mut talk = Talk::secure();
        talk.say(OPEN);
        for _ in 0..3 {
            assert!(!talk.say(&attempt()).contains("stream:error"));
        }
        let last = talk.say(&attempt());
        assert!(last.starts_with("<failure ") && last.ends_with(&closed), "{last}");
    }
    // Beginning again and again without ever failing.
    let mut talk = Talk::secure();
    talk.say(OPEN);
    for _ in 0..4 {
        assert!(
            talk.say(&auth("SCRAM-SHA-1", "n,,n=juliet,r=abc"))
                .starts_with("<challenge ")
        );
    }
    assert_eq!(talk.say(&auth("SCRAM-SHA-1", "n,,n=juliet,r=abc")), closed);
}

/// RFC 6120 §6.4.6
#[test]
fn inside_tls_the_header_must_not_name_somebody_else() {
    let mut talk = Talk::secure();
    talk.say(&OPEN.replace(" to=", " from='romeo@im.example.com' to="));
    assert_eq!(
        talk.say(&plain("juliet", "r0m30myr0m30")),
        stream_error_text("invalid-from", "the stream header names somebody else")
    );
}

/// Lesson 9: authenticate for host A, restart the stream to host B.
#[test]
fn the_host_is_fixed() {
    let mut talk = Talk::secure();
    talk.say(OPEN);
    talk.say(&plain("juliet", "r0m30myr0m30"));
    let heard = talk.say(&OPEN.replace("im.example.com", "other.example"));
    let error = stream_error_text("not-authorized", "this stream has authenticated for another host");
    assert!(heard.ends_with(&error), "{heard}");
}

#[test]
fn happens_once() {
    assert_eq!(
        Talk::authenticated().say(&plain("juliet", "r0m30myr0m30")),
        stream_error_text("not-authorized", "this stream has authenticated")
    );
}

#[test]
fn late_answers_are_ignored() {
    let mut talk = Talk::secure();
    talk.say(OPEN);
    let responder = talk.responder.as_mut().unwrap();
    let random = &mut Seeded(1);
    let asked = responder.frame(Frame::Element(plain("juliet", "x").into()), random);
    assert!(matches!(asked[..], [Output::AskCredentials(_)]), "{asked:?}");
    assert!(responder.is_waiting());
    responder.error(StreamError::connection_timeout(), random);
    assert!(responder.credentials(Credentials::UnknownUser, random).is_empty());
}

#[test]
fn frames_wait_while_an_answer_is_awaited() {
    let mut talk = Talk::secure();
    talk.say(OPEN);
    let responder = talk.responder.as_mut().unwrap();
    let random = &mut Seeded(1);
    responder.frame(Frame::Element(plain("juliet", "x").into()), random);
    let outputs = responder.frame(Frame::Element(plain("juliet", "x").into()), random);
    assert!(
        matches!(outputs[..], [Output::Send(_), Output::Close(Some(_))]),
        "{outputs:?}"
    );
}

/// XEP-0175 §4: the client says nothing, and is somebody.
#[test]
fn whoever_wants_to_be_nobody_gets_a_temporary_account() {
    let anonymous = |config: &mut ResponderConfig| config.mechanisms.push(Mechanism::Anonymous);
    let account_of = |initial: &str| {
        let mut talk = Talk::new(Some(ChannelBindings::none()), anonymous);
        assert!(talk.say(OPEN).contains("<mechanism>ANONYMOUS</mechanism>"));
        let heard = talk.say(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'>{initial}</auth>"
        ));
        let account = heard.strip_prefix(SUCCESS).unwrap_or_else(|| panic!("{heard}"));
        let (account, rest) = account.strip_prefix('[').unwrap().split_once(']').unwrap();
        assert_eq!(rest, "[Restart]");
        account.to_owned()
    };
    for initial in ["", "=", "anVsaWV0"] {
        let account = BareJid::parse(&account_of(initial)).unwrap();
        assert!(crate::sasl::is_anonymous(&account), "{account}");
        assert_eq!(account.domain(), "im.example.com");
    }
}

#[test]
fn anonymous_is_for_the_domain_that_is_configured_and_needs_tls_where_that_is_required() {
    let offered = |domain: Option<&str>, tls: Option<ChannelBindings>, policy| {
        let mut talk = Talk::new(tls, |config| {
            config.mechanisms.push(Mechanism::Anonymous);
            config.anonymous_domain = domain.map(|domain| BareJid::parse(domain).unwrap());
            config.tls = policy;
        });
        let offered = talk.say(OPEN).contains("ANONYMOUS");
        let taken = talk.say(&auth("ANONYMOUS", "x")).starts_with(SUCCESS);
        assert_eq!(offered, taken);
        offered
    };
    let tls = || Some(ChannelBindings::none());
    assert!(offered(None, tls(), TlsPolicy::Required));
    assert!(offered(Some("im.example.com"), tls(), TlsPolicy::Required));
    assert!(!offered(Some("other.example"), tls(), TlsPolicy::Required));
    assert!(offered(None, None, TlsPolicy::Optional));
    assert!(!offered(None, None, TlsPolicy::Required));
}
