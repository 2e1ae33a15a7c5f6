//! XEP-0077, from the first request to the last.

use super::*;
use crate::sasl::ScramHash;
use crate::shard::Event;
use crate::xml::{Element, Limits};

const REGISTERED: &str = "<iq type='result' id='reg2'/>";

fn broker() -> Lone {
    Lone::new(|responder, shard, _| {
        responder.registration = Some([ScramHash::Sha1, ScramHash::Sha256].into());
        shard.registration = true;
    })
}

fn set(id: &str, query: &str) -> String {
    format!("<iq type='set' id='{id}'><query xmlns='jabber:iq:register'>{query}</query></iq>")
}

fn credentials(id: &str, user: &str, password: &str) -> String {
    set(
        id,
        &format!("<username>{user}</username><password>{password}</password>"),
    )
}

/// The condition of the error with this id.
fn condition(heard: &str, id: &str) -> String {
    let (_, iq) = heard.split_once("<iq").unwrap_or_else(|| panic!("no answer: {heard}"));
    let (iq, _) = iq.split_once("</iq>").unwrap_or_else(|| panic!("{heard}"));
    let iq = Element::parse(format!("<iq{iq}</iq>"), &Limits::trusted()).unwrap();
    assert_eq!(iq.attr("id"), Some(id), "{heard}");
    let error = iq.children().find(|child| child.name() == "error");
    let error = error.unwrap_or_else(|| panic!("no error: {heard}"));
    error.children().next().unwrap().name().to_owned()
}

#[test]
fn whoever_registers_can_log_in_with_every_hash_that_is_enabled() {
    let mut broker = broker();
    let (stranger, features) = broker.connect(OPEN);
    assert!(features.contains("<register xmlns='http://jabber.org/features/iq-register'/>"));
    assert_eq!(
        broker.say(stranger, &credentials("reg2", "Bill", "Calliope")),
        REGISTERED
    );
    assert!(broker.say(stranger, &plain("bill", "Calliope")).contains("<success"));
    assert!(!logs_in(&mut broker, "bill", "Urania"));
    for hash in ["SCRAM-SHA-1", "SCRAM-SHA-256"] {
        let (conn, _) = broker.connect(OPEN);
        let heard = broker.say(conn, &auth(hash, "n,,n=bill,r=nonce"));
        // Real keys have 10 000 iterations, those of nobody 4096.
        let challenge = BASE64.decode(heard.split(['>', '<']).nth(2).unwrap()).unwrap();
        assert!(String::from_utf8(challenge).unwrap().ends_with(",i=10000"), "{hash}");
    }
    assert!(broker.counted.contains(&Event::Account("registered")));
}

#[test]
fn a_name_is_given_once() {
    let mut broker = broker();
    let (one, _) = broker.connect(OPEN);
    let (two, _) = broker.connect(OPEN);
    assert_eq!(broker.say(one, &credentials("reg2", "bill", "Calliope")), REGISTERED);
    assert_eq!(
        condition(&broker.say(two, &credentials("reg2", "BILL", "Urania")), "reg2"),
        "conflict"
    );
    assert!(logs_in(&mut broker, "bill", "Calliope"));
}

/// Nothing is answered before it is committed, and what was committed is not a conflict with itself.
#[test]
fn a_registration_outlives_its_shards_leader() {
    for committed in [false, true] {
        let mut broker = broker();
        let (conn, _) = broker.connect(OPEN);
        broker.hold_commits();
        assert_eq!(broker.say(conn, &credentials("reg2", "bill", "Calliope")), "");
        broker.fail_over(committed);
        assert_eq!(broker.heard(conn), REGISTERED, "committed: {committed}");
        assert!(logs_in(&mut broker, "bill", "Calliope"));
    }
}

#[test]
fn whoever_makes_accounts_too_fast_is_told_to_wait() {
    let mut broker = broker();
    broker.passwords_full = true;
    let (conn, _) = broker.connect(OPEN);
    let heard = broker.say(conn, &credentials("reg2", "bill", "Calliope"));
    assert_eq!(condition(&heard, "reg2"), "resource-constraint");
    assert!(heard.contains("type='wait'"), "{heard}");
    broker.passwords_full = false;
    assert_eq!(broker.say(conn, &credentials("reg2", "bill", "Calliope")), REGISTERED);
}

/// Nobody waits for ever, and whoever tries again with a shard that is there is served.
#[test]
fn a_registration_that_nobody_answers_is_to_be_tried_again() {
    let mut broker = broker();
    let (conn, _) = broker.connect(OPEN);
    broker.hold_commits();
    assert_eq!(broker.say(conn, &credentials("reg2", "bill", "Calliope")), "");
    broker.pass(std::time::Duration::from_secs(6));
    let heard = broker.heard(conn);
    assert_eq!(condition(&heard, "reg2"), "resource-constraint");
    assert!(broker.is_open(conn));
    broker.fail_over(false);
    assert_eq!(broker.say(conn, &credentials("reg2", "bill", "Calliope")), REGISTERED);
}

/// A session of bill's, whose password is Calliope.
fn bill(broker: &mut Lone) -> Conn {
    let (stranger, _) = broker.connect(OPEN);
    assert_eq!(
        broker.say(stranger, &credentials("reg2", "bill", "Calliope")),
        REGISTERED
    );
    session(broker, &plain("bill", "Calliope")).0
}

#[test]
fn an_account_hears_that_it_is_registered() {
    let mut broker = broker();
    let bill = bill(&mut broker);
    let heard = broker.say(bill, "<iq type='get' id='1'><query xmlns='jabber:iq:register'/></iq>");
    assert!(
        heard.contains("<registered/><username>bill</username><password/>"),
        "{heard}"
    );
    let disco = "<iq type='get' id='2' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>";
    assert!(broker.say(bill, disco).contains("<feature var='jabber:iq:register'/>"));
}

/// §3.3
#[test]
fn a_password_is_changed_and_other_sessions_end() {
    let mut broker = broker();
    let bill = bill(&mut broker);
    let (other, _) = session(&mut broker, &plain("bill", "Calliope"));
    let heard = broker.say(bill, &credentials("change1", "bill", "Urania"));
    assert!(
        heard.contains("type='result'") && heard.contains("id='change1'"),
        "{heard}"
    );
    assert!(broker.is_open(bill));
    assert!(broker.heard(other).contains("<reset "));
    assert!(!broker.is_open(other));
    assert!(logs_in(&mut broker, "bill", "Urania"));
    assert!(!logs_in(&mut broker, "bill", "Calliope"));
    // The session goes on, and can do it again.
    let again = format!(
        "{}{}",
        credentials("c2", "bill", "Erato"),
        credentials("c3", "bill", "Clio")
    );
    let heard = broker.say(bill, &again);
    assert!(heard.contains("id='c2'") && heard.contains("id='c3'"), "{heard}");
    assert!(logs_in(&mut broker, "bill", "Clio"));
}

/// §3.3's table, and what is no password.
#[test]
fn a_password_change_that_is_wrong_changes_nothing() {
    let mut broker = broker();
    let bill = bill(&mut broker);
    let cases = [
        (set("1", "<password>Urania</password>"), "bad-request"),
        (set("1", "<username>bill</username>"), "bad-request"),
        (set("1", "<username>bill</username><password/>"), "bad-request"),
        (set("1", ""), "bad-request"),
        (credentials("1", "tybalt", "Urania"), "not-allowed"),
        (credentials("1", "b@d", "Urania"), "not-allowed"),
        (credentials("1", "bill", "tab&#9;here"), "not-acceptable"),
    ];
    for (iq, expected) in cases {
        let heard = broker.say(bill, &iq);
        assert_eq!(condition(&heard, "1"), expected, "{iq}");
        assert!(!heard.contains("Urania"), "the request is not repeated: {heard}");
    }
    broker.passwords_full = true;
    let heard = broker.say(bill, &credentials("1", "bill", "Urania"));
    assert_eq!(condition(&heard, "1"), "resource-constraint");
    broker.passwords_full = false;
    assert!(logs_in(&mut broker, "bill", "Calliope"));
    let other = credentials("1", "bill", "Urania").replace("<iq ", "<iq to='tybalt@example.org' ");
    assert_eq!(condition(&broker.say(bill, &other), "1"), "service-unavailable");
}

#[test]
fn a_password_change_is_carried_out_once_whatever_happens_to_the_leader() {
    for committed in [false, true] {
        let mut broker = broker();
        let bill = bill(&mut broker);
        broker.hold_commits();
        assert_eq!(broker.say(bill, &credentials("change1", "bill", "Urania")), "");
        broker.fail_over(committed);
        let heard = broker.heard(bill);
        assert_eq!(
            heard.matches("id='change1'").count(),
            1,
            "committed: {committed}: {heard}"
        );
        assert!(heard.contains("type='result'"), "{heard}");
        assert!(logs_in(&mut broker, "bill", "Urania"));
    }
}

/// §3.2
#[test]
fn an_account_is_removed_with_everything_it_has() {
    let mut broker = broker();
    let bill = bill(&mut broker);
    let (other, _) = session(&mut broker, &plain("bill", "Calliope"));
    let note = "<iq type='set' id='n'><query xmlns='jabber:iq:private'><note xmlns='urn:example'/></query></iq>";
    assert!(broker.say(bill, note).contains("type='result'"));
    assert!(!broker.rows_of("bill@example.org").is_empty());
    let heard = broker.say(bill, &set("unreg1", "<remove/>"));
    let (result, end) = heard.split_once("<stream:error>").unwrap_or_else(|| panic!("{heard}"));
    assert!(
        result.contains("type='result'") && result.contains("id='unreg1'"),
        "{heard}"
    );
    assert!(end.contains("<not-authorized "), "{heard}");
    assert!(!broker.is_open(bill));
    assert!(broker.heard(other).contains("<not-authorized "));
    assert_eq!(broker.rows_of("bill@example.org"), Vec::<crate::rows::Key>::new());
    assert!(!logs_in(&mut broker, "bill", "Calliope"));
    // The name is free, and its new owner finds nothing of the former one's.
    let bill = self::bill(&mut broker);
    let note = "<iq type='get' id='n'><query xmlns='jabber:iq:private'><note xmlns='urn:example'/></query></iq>";
    assert!(broker.say(bill, note).contains("<note xmlns='urn:example'/>"));
}

#[test]
fn a_removal_that_asks_for_more_is_a_bad_request() {
    let mut broker = broker();
    let bill = bill(&mut broker);
    let heard = broker.say(bill, &set("unreg1", "<remove/><username>bill</username>"));
    assert_eq!(condition(&heard, "unreg1"), "bad-request");
    assert!(logs_in(&mut broker, "bill", "Calliope"));
}

#[test]
fn without_registration_nothing_of_it_is_there() {
    let mut broker = Lone::new(|responder, _, _| responder.mechanisms.push(crate::sasl::Mechanism::Anonymous));
    let (nobody, _) = session(&mut broker, &auth("ANONYMOUS", ""));
    let heard = broker.say(nobody, "<iq type='get' id='1'><query xmlns='jabber:iq:register'/></iq>");
    assert_eq!(condition(&heard, "1"), "service-unavailable");
    let disco = "<iq type='get' id='2' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>";
    assert!(!broker.say(nobody, disco).contains("jabber:iq:register"));
}
