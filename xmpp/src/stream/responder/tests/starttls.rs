//! RFC 6120 §5: STARTTLS.

use super::*;

/// RFC 6120 §5.4.2.2
#[test]
fn is_refused_where_it_was_not_offered() {
    let failure = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>[Close]";
    let mut talk = Talk::secure();
    talk.say(OPEN);
    assert_eq!(talk.say(STARTTLS), failure);

    let mut talk = Talk::new(None, |config| config.tls = TlsPolicy::Off);
    assert!(!talk.say(OPEN).contains("starttls"));
    assert_eq!(talk.say(STARTTLS), failure);

    assert_eq!(Talk::authenticated().say(STARTTLS), failure);

    // RFC 6120 §5.3.4: not in the middle of an authentication.
    let mut talk = Talk::optional();
    talk.say(OPEN);
    talk.say(&auth("SCRAM-SHA-1", "n,,n=juliet,r=abc"));
    assert_eq!(talk.say(STARTTLS), failure);
}

#[test]
fn forgets_what_was_said_in_the_clear() {
    let mut talk = Talk::clear();
    talk.say(&OPEN.replace(" to=", " from='romeo@im.example.com' to="));
    talk.say(STARTTLS);
    assert!(
        talk.say(OPEN).starts_with(HEADER),
        "no 'to' in the answer: nobody has said who they are"
    );
    assert!(talk.say(&plain("juliet", "r0m30myr0m30")).starts_with(SUCCESS));
}

/// A man in the middle who writes behind `<starttls/>` must not be heard inside TLS.
#[test]
fn says_where_bytes_in_the_clear_end() {
    let mut talk = Talk::clear();
    talk.say(OPEN);
    let mut input = format!("{STARTTLS}<auth/>").into_bytes();
    let mut rest = input.as_mut_slice() as &[u8];
    let responder = talk.responder.as_mut().unwrap();
    let frame = talk.framer.next(&mut rest, responder.limits()).unwrap().unwrap();
    let outputs = responder.frame(frame, &mut talk.random);
    assert!(matches!(outputs.last(), Some(Output::StartTls)));
    assert_eq!(rest, b"<auth/>", "not taken by the framer: the caller drops it");
    assert!(responder.is_waiting());
    let outputs = responder.frame(Frame::Element("<auth/>".into()), &mut talk.random);
    assert!(matches!(outputs[..], [Output::Close(Some(_))]), "{outputs:?}");
}

#[test]
fn nothing_goes_before_it_where_it_is_required() {
    let mut talk = Talk::clear();
    talk.say(OPEN);
    assert_eq!(
        talk.say(&plain("juliet", "r0m30myr0m30")),
        sasl_failure("encryption-required")
    );
    assert_eq!(
        talk.say(&auth("SCRAM-SHA-1", "n,,n=juliet,r=x")),
        sasl_failure("encryption-required")
    );
    assert_eq!(talk.say("<presence/>"), stream_error("not-authorized"));
}
