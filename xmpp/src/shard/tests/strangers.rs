//! What other servers went through with strangers, by its number in the list of lessons.

use super::*;
use crate::jid::BareJid;
use crate::sasl::{Mechanism, Password, ScramHash, ScramKeys};
use crate::shard::Account;

fn broker() -> Lone {
    let mut broker = Lone::new(|responder, _, _| responder.mechanisms.push(Mechanism::Anonymous));
    for name in ["juliet", "romeo"] {
        let keys = ScramKeys::derive(ScramHash::Sha1, &Password::new(name).unwrap(), b"salt", 4096).unwrap();
        let jid = BareJid::parse(&format!("{name}@example.org")).unwrap();
        broker.add(Account { jid, keys: vec![keys] });
    }
    broker
}

/// Lesson 19: an SM-ID is good for the account it was given to, and for nobody else.
#[test]
fn a_session_is_resumed_by_its_account_only() {
    let mut broker = broker();
    let (juliet, _) = session(&mut broker, &plain("juliet", "juliet"));
    let enabled = broker.say(juliet, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    let (_, rest) = enabled.split_once("id='").unwrap();
    let (id, _) = rest.split_once('\'').unwrap();
    let resume = format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>");
    broker.cut(juliet);
    let resumes = |broker: &mut Lone, auth: &str| {
        let (conn, _) = broker.connect(OPEN);
        broker.say(conn, &format!("{auth}{OPEN}{resume}")).contains("<resumed ")
    };
    let (unknown, _) = broker.connect(OPEN);
    assert!(
        !broker.say(unknown, &resume).contains("<resumed "),
        "nobody has authenticated"
    );
    assert!(!resumes(&mut broker, &plain("romeo", "romeo")));
    assert!(!resumes(&mut broker, &auth("ANONYMOUS", "")));
    assert!(resumes(&mut broker, &plain("juliet", "juliet")));
}

/// Lesson 3: what a stranger may make us read is little, and counted while it is read.
#[test]
fn a_stranger_may_say_less_than_a_device() {
    let long = format!(
        "<message to='romeo@example.org'><body>{}</body></message>",
        "x".repeat(20_000)
    );
    let mut broker = broker();
    let (stranger, _) = broker.connect(OPEN);
    let heard = broker.say(stranger, &long[..15_000]);
    assert!(
        heard.contains("<policy-violation "),
        "it need not end before it is too long: {heard}"
    );
    assert!(!broker.is_open(stranger));
    let (juliet, _) = session(&mut broker, &plain("juliet", "juliet"));
    broker.say(juliet, &long);
    assert!(broker.is_open(juliet));
}

/// Lessons 8 and 9: who somebody is comes from the authentication, not from what is said beside it.
#[test]
fn nobody_is_somebody_else_by_saying_so() {
    let mut broker = broker();
    let (conn, _) = broker.connect(OPEN);
    let other = auth("PLAIN", "romeo@example.org\0juliet\0juliet");
    assert!(broker.say(conn, &other).contains("<invalid-authzid/>"));
    let (conn, _) = broker.connect(OPEN);
    let elsewhere = OPEN.replace("example.org", "other.example");
    let heard = broker.say(conn, &format!("{}{elsewhere}", plain("juliet", "juliet")));
    assert!(heard.contains("<host-unknown "), "{heard}");
    let (juliet, address) = session(&mut broker, &plain("juliet", "juliet"));
    assert!(address.starts_with("juliet@example.org/"));
    let heard = broker.say(juliet, "<message from='romeo@example.org' to='romeo@example.org'/>");
    assert!(heard.contains("<invalid-from "), "{heard}");
}
