//! Strangers who take their time.

use std::time::Duration;

use super::*;
use crate::edge::Patience;
use crate::stream::NegotiationPhase::{self, Binding, Features, Header, Step};

const TIMEOUT: &str = "<connection-timeout ";

/// Every phase has a time of its own, in seconds.
fn broker() -> Lone {
    Lone::new(|responder, _, limits| {
        responder.mechanisms.push(crate::sasl::Mechanism::Anonymous);
        limits.patience = Patience {
            header: Duration::from_secs(2),
            handshake: Duration::from_secs(3),
            features: Duration::from_secs(4),
            step: Duration::from_secs(5),
            binding: Duration::from_secs(6),
        };
    })
}

/// After how many seconds a stranger who has said this hears that its time is over, and in which phase.
fn patience(said: &str) -> (u64, NegotiationPhase) {
    let mut broker = broker();
    let (conn, _) = broker.connect(said);
    for second in 1..20 {
        broker.pass(Duration::from_secs(1));
        if !broker.is_open(conn) {
            assert!(broker.heard(conn).contains(TIMEOUT));
            assert_eq!(broker.timed_out.len(), 1);
            // The first half second is the one in which it is noticed.
            return (second, broker.timed_out[0]);
        }
    }
    panic!("for ever: {said}");
}

#[test]
fn every_phase_of_a_negotiation_has_its_time() {
    let step = format!("{OPEN}<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>");
    let unbound = format!("{OPEN}{}{OPEN}", auth("ANONYMOUS", ""));
    let restarted = format!("{OPEN}{}", auth("ANONYMOUS", ""));
    let cases = [
        ("", 3, Header),
        ("<stream:stream to='example.org'", 3, Header),
        (&*restarted, 2, Header),
        (OPEN, 4, Features),
        (&*step, 5, Step),
        (&*unbound, 6, Binding),
    ];
    for (said, seconds, phase) in cases {
        assert_eq!(patience(said), (seconds, phase), "{said}");
    }
}

/// Slow-loris: a byte now and then buys no time.
#[test]
fn a_byte_now_and_then_buys_no_time() {
    let mut broker = broker();
    let (conn, _) = broker.connect("");
    for (second, byte) in OPEN.chars().enumerate() {
        if !broker.is_open(conn) {
            assert!(second <= 4, "{second} seconds");
            return;
        }
        broker.say(conn, &byte.to_string());
        broker.pass(Duration::from_secs(1));
    }
    panic!("it has all the time in the world");
}

#[test]
fn a_session_has_all_the_time_it_wants() {
    let mut broker = broker();
    let (conn, _) = session(&mut broker, &auth("ANONYMOUS", ""));
    broker.pass(Duration::from_secs(100));
    assert!(broker.is_open(conn));
}

/// What failed is told to whoever counts, with its condition.
#[test]
fn authentications_are_counted_by_what_came_of_them() {
    let mut broker = broker();
    let (conn, _) = broker.connect(OPEN);
    broker.say(conn, &plain("tybalt", "r0m30"));
    broker.say(conn, &auth("ANONYMOUS", ""));
    assert_eq!(
        broker.authentications,
        [
            Err(crate::sasl::Condition::NotAuthorized),
            Ok((crate::sasl::Mechanism::Anonymous, 0))
        ]
    );
}

/// An account with keys for one hash function only fails with the others first: that is no guessing. What fails for somebody
/// else is.
#[test]
fn failures_on_the_way_to_the_same_account_are_told_from_others() {
    let mut broker = broker();
    let password = crate::sasl::Password::new("r0m30").unwrap();
    let keys = crate::sasl::ScramKeys::derive(crate::sasl::ScramHash::Sha1, &password, b"salt", 4096).unwrap();
    let jid = crate::jid::BareJid::parse("juliet@example.org").unwrap();
    broker.add(crate::shard::Account { jid, keys: vec![keys] });
    let (conn, _) = broker.connect(OPEN);
    for (user, password) in [("juliet", "one"), ("tybalt", "two"), ("juliet", "three")] {
        broker.say(conn, &plain(user, password));
    }
    broker.say(conn, &plain("juliet", "r0m30"));
    assert_eq!(broker.authentications[3], Ok((crate::sasl::Mechanism::Plain, 2)));
}
