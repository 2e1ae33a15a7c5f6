//! What happens to pubsub nodes by themselves, and what is left of them.

use std::time::Duration;

use super::*;
use crate::jid::BareJid;
use crate::rows::Table;
use crate::sasl::{Password, ScramHash, ScramKeys};
use crate::shard::{Account, FEATURE_LEVEL};

const CONFIG: &str = "http://jabber.org/protocol/pubsub#node_config";
const OPTIONS: &str = "http://jabber.org/protocol/pubsub#subscribe_options";

fn broker_at(level: u32) -> Lone {
    let mut broker = Lone::new(|_, shard, _| shard.feature_level = level);
    for name in ["juliet", "romeo"] {
        let keys = ScramKeys::derive(ScramHash::Sha1, &Password::new(name).unwrap(), b"salt", 4096).unwrap();
        let jid = BareJid::parse(&format!("{name}@example.org")).unwrap();
        broker.add(Account { jid, keys: vec![keys] });
    }
    broker
}

/// A broker with juliet and romeo, who are available.
fn broker() -> (Lone, Conn, Conn) {
    let mut broker = broker_at(FEATURE_LEVEL);
    let [juliet, romeo] = ["juliet", "romeo"].map(|name| {
        let (conn, _) = session(&mut broker, &plain(name, name));
        broker.say(conn, "<presence/>");
        conn
    });
    (broker, juliet, romeo)
}

fn ask(broker: &mut Lone, conn: Conn, type_: &str, ns: &str, request: &str) -> String {
    let pubsub = format!("<pubsub xmlns='http://jabber.org/protocol/pubsub{ns}'>{request}</pubsub>");
    broker.say(
        conn,
        &format!("<iq id='q' type='{type_}' to='pubsub.example.org'>{pubsub}</iq>"),
    )
}

fn done(broker: &mut Lone, conn: Conn, ns: &str, request: &str) -> String {
    let heard = ask(broker, conn, "set", ns, request);
    assert!(heard.contains("type='result'"), "{request}: {heard}");
    heard
}

fn form(form_type: &str, fields: &[(&str, &str)]) -> String {
    let fields = fields
        .iter()
        .map(|(var, value)| format!("<field var='pubsub#{var}'><value>{value}</value></field>"));
    let fields: String = fields.collect();
    format!(
        "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>{form_type}</value></field>{fields}</x>"
    )
}

fn create(broker: &mut Lone, conn: Conn, fields: &[(&str, &str)]) {
    let configure = format!("<create node='n'/><configure>{}</configure>", form(CONFIG, fields));
    done(broker, conn, "", &configure);
}

fn publish(broker: &mut Lone, conn: Conn, id: &str) {
    let publish = format!("<publish node='n'><item id='{id}'><e xmlns='urn:e'/></item></publish>");
    done(broker, conn, "", &publish);
}

/// The ids of the node's items, as they are retrieved.
fn items(broker: &mut Lone, conn: Conn) -> Vec<String> {
    let heard = ask(broker, conn, "get", "", "<items node='n'/>");
    assert!(heard.contains("type='result'"), "{heard}");
    let ids = heard.split("<item id='").skip(1);
    ids.filter_map(|rest| Some(rest.split_once('\'')?.0.to_owned()))
        .collect()
}

fn is_subscribed(broker: &mut Lone, conn: Conn) -> bool {
    let heard = ask(broker, conn, "get", "", "<subscriptions node='n'/>");
    assert!(heard.contains("type='result'"), "{heard}");
    heard.contains("subscription='subscribed'")
}

#[test]
fn items_end_by_themselves_also_under_another_leader() {
    let (mut broker, juliet, romeo) = broker();
    create(&mut broker, juliet, &[("item_expire", "60"), ("notify_retract", "1")]);
    done(&mut broker, romeo, "", "<subscribe node='n' jid='romeo@example.org'/>");
    publish(&mut broker, juliet, "first");
    broker.pass(Duration::from_secs(40));
    publish(&mut broker, juliet, "second");
    broker.heard(romeo);
    broker.pass(Duration::from_secs(15));
    assert_eq!(items(&mut broker, juliet), ["first", "second"]);
    broker.fail_over(true);
    broker.pass(Duration::from_secs(10));
    assert_eq!(items(&mut broker, juliet), ["second"]);
    assert!(broker.heard(romeo).contains("<retract id='first'/>"));
    broker.pass(Duration::from_secs(40));
    assert_eq!(items(&mut broker, juliet), [] as [&str; 0]);
}

/// XEP-0060 §12.19. The broker's wall clock begins at 2023-11-14T22:13:20Z.
#[test]
fn a_lease_ends_by_itself_and_may_be_renewed() {
    let (mut broker, juliet, romeo) = broker();
    create(&mut broker, juliet, &[]);
    let lease = |until: &str| form(OPTIONS, &[("expire", until)]);
    let subscribe = "<subscribe node='n' jid='romeo@example.org'/>";
    let heard = ask(
        &mut broker,
        romeo,
        "set",
        "",
        &format!("{subscribe}<options>{}</options>", lease("2023-11-14T22:00:00Z")),
    );
    assert!(heard.contains("<invalid-options "), "it is over already: {heard}");
    let until = lease("2023-11-14T22:14:20Z");
    done(
        &mut broker,
        romeo,
        "",
        &format!("{subscribe}<options>{until}</options>"),
    );
    let until = lease("2023-11-14T22:15:20Z");
    let renewed = format!("<options node='n' jid='romeo@example.org'>{until}</options>");
    done(&mut broker, romeo, "", &renewed);
    broker.pass(Duration::from_secs(90));
    assert!(is_subscribed(&mut broker, romeo));
    broker.fail_over(true);
    broker.pass(Duration::from_secs(31));
    assert!(broker.heard(romeo).contains("subscription='none'"));
    assert!(!is_subscribed(&mut broker, romeo));
}

#[test]
fn of_a_deleted_node_nothing_is_left() {
    let (mut broker, juliet, romeo) = broker();
    create(&mut broker, juliet, &[("item_expire", "3600")]);
    done(&mut broker, romeo, "", "<subscribe node='n' jid='romeo@example.org'/>");
    for n in 0..100 {
        publish(&mut broker, juliet, &n.to_string());
    }
    done(&mut broker, juliet, "#owner", "<purge node='n'/>");
    publish(&mut broker, juliet, "last");
    done(&mut broker, juliet, "#owner", "<delete node='n'/>");
    broker.pass(Duration::from_secs(700));
    let left = broker.rows_of("pubsub.example.org/n");
    assert!(left.is_empty(), "{left:?}");
    let of_shard = broker.rows_of_shard();
    let kept = [Table::PubsubNodeCount, Table::OutboxLast, Table::InboxLast];
    let odd: Vec<_> = of_shard
        .iter()
        .filter(|key| !kept.iter().any(|table| key.get(2) == Some(&(*table as u8))))
        .collect();
    assert!(odd.is_empty(), "{odd:?}");
}

/// XEP-0060 §12.4.
#[test]
fn who_is_gone_is_subscribed_no_more() {
    let (mut broker, juliet, romeo) = broker();
    create(&mut broker, juliet, &[]);
    let (_, address) = session(&mut broker, &plain("romeo", "romeo"));
    done(
        &mut broker,
        romeo,
        "",
        &format!("<subscribe node='n' jid='{address}'/>"),
    );
    done(&mut broker, romeo, "", "<subscribe node='n' jid='romeo@example.org'/>");
    broker.pass(Duration::from_secs(1));
    let other = Conn(3);
    broker.cut(other);
    broker.pass(Duration::from_secs(1));
    publish(&mut broker, juliet, "a");
    broker.pass(Duration::from_secs(1));
    let heard = ask(&mut broker, juliet, "get", "#owner", "<subscriptions node='n'/>");
    assert!(
        !heard.contains(&address) && heard.contains("jid='romeo@example.org'"),
        "{heard}"
    );
}

/// XEP-0060 §14.3.
#[test]
fn a_node_that_is_closed_lets_its_strangers_go() {
    let (mut broker, juliet, romeo) = broker();
    create(&mut broker, juliet, &[]);
    done(&mut broker, romeo, "", "<subscribe node='n' jid='romeo@example.org'/>");
    done(
        &mut broker,
        juliet,
        "",
        "<subscribe node='n' jid='juliet@example.org'/>",
    );
    let closed = format!(
        "<configure node='n'>{}</configure>",
        form(CONFIG, &[("access_model", "whitelist")])
    );
    done(&mut broker, juliet, "#owner", &closed);
    broker.heard(romeo);
    broker.pass(Duration::from_secs(2));
    assert!(broker.heard(romeo).contains("subscription='none'"));
    assert!(is_subscribed(&mut broker, juliet));
    publish(&mut broker, juliet, "a");
    assert_eq!(broker.heard(romeo), "");
}

#[test]
fn a_node_that_keeps_fewer_items_loses_the_oldest() {
    let (mut broker, juliet, _) = broker();
    create(&mut broker, juliet, &[("max_items", "200")]);
    for n in 0..150 {
        publish(&mut broker, juliet, &n.to_string());
    }
    let fewer = format!(
        "<configure node='n'>{}</configure>",
        form(CONFIG, &[("max_items", "3")])
    );
    done(&mut broker, juliet, "#owner", &fewer);
    broker.pass(Duration::from_secs(5));
    assert_eq!(items(&mut broker, juliet), ["147", "148", "149"]);
}

/// A program that does not know of pubsub may lead next.
#[test]
fn below_the_feature_level_there_is_no_service() {
    let mut broker = broker_at(FEATURE_LEVEL - 1);
    let (juliet, _) = session(&mut broker, &plain("juliet", "juliet"));
    let heard = ask(&mut broker, juliet, "set", "", "<create node='n'/>");
    assert!(heard.contains("<service-unavailable "), "{heard}");
    assert!(broker.rows_of("pubsub.example.org/n").is_empty());
}
