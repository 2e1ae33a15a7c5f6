//! XEP-0198 before there is a session.

use super::*;

const RESUME: &str = "<resume xmlns='urn:xmpp:sm:3' h='3' previd='some-long-sm-id'/>";
const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

#[test]
fn a_session_goes_on() {
    let mut talk = Talk::authenticated();
    talk.session = Some(sm::Counter(9));
    assert_eq!(
        talk.say(RESUME),
        "<resumed xmlns='urn:xmpp:sm:3' previd='some-long-sm-id' h='9'/>"
    );
    assert!(talk.responder.is_none());
}

#[test]
fn a_session_that_is_gone_leaves_binding() {
    let mut talk = Talk::authenticated();
    assert_eq!(talk.say(RESUME), management_failed("item-not-found"));
    assert!(talk.say(BIND).contains("<jid>juliet@im.example.com/"));
}

/// XEP-0198 §3, §6
#[test]
fn nothing_is_enabled_before_a_resource_is_bound_and_nothing_resumed_before_authentication() {
    let mut talk = Talk::secure();
    talk.say(OPEN);
    assert_eq!(talk.say(RESUME), management_failed("unexpected-request"));
    assert_eq!(talk.say(ENABLE), management_failed("unexpected-request"));
    assert!(
        talk.say(&plain("juliet", "r0m30myr0m30")).starts_with(SUCCESS),
        "the stream goes on"
    );

    let mut talk = Talk::authenticated();
    assert_eq!(talk.say(ENABLE), management_failed("unexpected-request"));
    assert_eq!(
        talk.say("<r xmlns='urn:xmpp:sm:3'/>"),
        management_failed("unexpected-request")
    );
    assert_eq!(
        talk.say("<a xmlns='urn:xmpp:sm:3' h='1'/>"),
        management_failed("unexpected-request")
    );
    assert_eq!(
        talk.say("<resume xmlns='urn:xmpp:sm:3' h='x' previd='y'/>"),
        management_failed("bad-request")
    );
    assert!(talk.say(BIND).contains("<jid>juliet@im.example.com/"));
}

#[test]
fn where_it_is_off_it_is_neither_offered_nor_done() {
    let mut talk = Talk::new(Some(ChannelBindings::none()), |config| config.management = false);
    talk.say(OPEN);
    talk.say(&plain("juliet", "r0m30myr0m30"));
    assert!(!talk.say(OPEN).contains("urn:xmpp:sm:3"));
    assert_eq!(talk.say(RESUME), management_failed("feature-not-implemented"));
}

#[test]
fn a_negotiation_has_a_longest_length() {
    let mut talk = Talk::secure();
    talk.say(OPEN);
    for _ in 0..50 {
        assert_eq!(talk.say(ENABLE), management_failed("unexpected-request"));
    }
    assert_eq!(
        talk.say(ENABLE),
        stream_error_text("policy-violation", "negotiation takes too long")
    );
}
