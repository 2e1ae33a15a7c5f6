//! XEP-0175: temporary accounts.

use super::*;
use crate::sasl::{Mechanism, Password, ScramHash, ScramKeys};
use crate::shard::Account;

const ONLINE: &str = "<presence/>";

fn broker() -> Lone {
    let mut broker = Lone::new(|responder, shard, _| {
        responder.mechanisms.push(Mechanism::Anonymous);
        shard.registration = true;
        responder.registration = Some([ScramHash::Sha1].into());
    });
    let keys = ScramKeys::derive(ScramHash::Sha1, &Password::new("r0m30").unwrap(), b"salt", 4096).unwrap();
    let jid = crate::jid::BareJid::parse("juliet@example.org").unwrap();
    broker.add(Account { jid, keys: vec![keys] });
    broker
}

fn nobody(broker: &mut Lone) -> (Conn, String) {
    session(broker, &auth("ANONYMOUS", ""))
}

#[test]
fn it_talks_and_is_talked_to() {
    let mut broker = broker();
    let (juliet, juliets) = session(&mut broker, &plain("juliet", "r0m30"));
    broker.say(juliet, ONLINE);
    let (nobody, address) = nobody(&mut broker);
    broker.say(nobody, ONLINE);
    broker.say(
        nobody,
        &format!("<message type='chat' to='{juliets}'><body>who is there</body></message>"),
    );
    let heard = broker.heard(juliet);
    assert!(heard.contains("who is there") && heard.contains(&address), "{heard}");
    broker.say(
        juliet,
        &format!("<message type='chat' to='{address}'><body>nobody</body></message>"),
    );
    assert!(broker.heard(nobody).contains("<body>nobody</body>"));
    let disco = "<iq type='get' id='d'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>";
    assert!(broker.say(nobody, disco).contains("type='anonymous'"));
}

#[test]
fn it_may_leave_nothing_and_be_in_nobodys_roster() {
    let mut broker = broker();
    let (nobody, address) = nobody(&mut broker);
    let refused = [
        "<iq type='set' id='1'><query xmlns='jabber:iq:private'><note xmlns='urn:example'/></query></iq>",
        "<iq type='set' id='1'><query xmlns='jabber:iq:register'><remove/></query></iq>",
        "<iq type='set' id='1'><query xmlns='jabber:iq:roster'><item jid='juliet@example.org'/></query></iq>",
        "<iq type='set' id='1' to='example.org'><command xmlns='http://jabber.org/protocol/commands' node='x'/></iq>",
        "<presence id='1' type='subscribe' to='juliet@example.org'/>",
        "<presence id='1' type='probe' to='juliet@example.org'/>",
    ];
    for stanza in refused {
        let heard = broker.say(nobody, stanza);
        assert!(
            heard.contains("id='1'") && heard.contains("<forbidden "),
            "{stanza}: {heard}"
        );
    }
    let bare = address.split_once('/').unwrap().0;
    assert_eq!(broker.rows_of(bare).len(), 1, "its session and nothing else");
}

#[test]
fn nothing_of_it_is_left_when_its_socket_is_gone() {
    let mut broker = broker();
    let (nobody, address) = nobody(&mut broker);
    let bare = address.split_once('/').unwrap().0.to_owned();
    let enabled = broker.say(nobody, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    assert!(enabled.contains("<enabled "), "{enabled}");
    assert!(!enabled.contains("resume"), "it cannot be resumed: {enabled}");
    broker.say(nobody, ONLINE);
    let (juliet, _) = session(&mut broker, &plain("juliet", "r0m30"));
    // Under way, and never acknowledged.
    let message = format!("<message type='chat' id='m' to='{address}'><body>too late</body></message>");
    broker.say(juliet, &message);
    broker.cut(nobody);
    assert!(broker.heard(juliet).contains("<recipient-unavailable "));
    assert_eq!(broker.rows_of(&bare), Vec::<crate::rows::Key>::new());
    // Now it is like anybody who does not exist.
    let heard = broker.say(juliet, &message);
    let stranger = broker.say(juliet, &message.replace(&bare, "tybalt@example.org"));
    let condition = |heard: &str| heard.split_once("<error").map(|(_, rest)| rest.to_owned());
    assert!(condition(&heard).is_some(), "{heard}");
    assert_eq!(condition(&heard), condition(&stranger));
}

/// What is for an account that is here but takes nothing is not stored.
#[test]
fn nothing_is_stored_for_it() {
    let mut broker = broker();
    let (_nobody, address) = nobody(&mut broker);
    let bare = address.split_once('/').unwrap().0;
    let (juliet, _) = session(&mut broker, &plain("juliet", "r0m30"));
    let heard = broker.say(
        juliet,
        &format!("<message id='m' to='{bare}'><body>for later</body></message>"),
    );
    assert!(heard.contains("<service-unavailable "), "{heard}");
    assert_eq!(broker.rows_of(bare).len(), 1);
}

#[test]
fn it_lives_through_a_change_of_leader() {
    let mut broker = broker();
    let (nobody, address) = nobody(&mut broker);
    broker.fail_over(true);
    assert!(broker.is_open(nobody));
    let ping = "<iq type='get' id='p' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>";
    assert!(broker.say(nobody, ping).contains(&format!("to='{address}'")));
}

/// Lesson 8: nobody becomes somebody by its name.
#[test]
fn no_password_lets_anybody_into_a_temporary_account() {
    let mut broker = broker();
    let (_nobody, address) = nobody(&mut broker);
    let local = address.split_once('@').unwrap().0.to_owned();
    assert!(!logs_in(&mut broker, &local, "x"));
    assert!(!logs_in(&mut broker, &local, "r0m30"));
}
