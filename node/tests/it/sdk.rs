//! The SDK's contacts and deliveries with a real broker, and its examples as they are.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use heronry_client::{
    BlockListChange, CachedRoster, Client, Direction, Event, Events, Failure, Outcome, Presence, PresenceChange,
    RequestError, RosterCache, RosterChange, Subscription,
    jid::{BareJid, Jid},
    message,
    stanza::Condition,
    xml::CLIENT,
};
use tokio::{sync::mpsc, time::timeout};

use crate::broker::{Broker, PATIENCE};

#[path = "../../../client/examples/lamp.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod lamp;
#[path = "../../../client/examples/thermometer.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod thermometer;
#[path = "../../../client/examples/watcher.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod watcher;

fn jid(name: &str) -> BareJid {
    BareJid::parse(&format!("{name}@localhost")).unwrap()
}

/// A device that says that it is there.
async fn present(broker: &Broker, name: &str) -> (Client, Events) {
    let (client, events) = Client::connect(broker.options(name)).await.unwrap();
    client.set_presence(&Presence::available()).await.unwrap();
    client.flush().await.unwrap();
    (client, events)
}

async fn body(events: &mut Events) -> String {
    loop {
        if let Event::Message(message) = timeout(PATIENCE, events.next()).await.unwrap().unwrap() {
            let content = message.root_element().unwrap();
            return content
                .child("body", CLIENT)
                .map(|body| body.text())
                .unwrap_or_default();
        }
    }
}

/// Makes two accounts see each other: each asks, and the other approves (RFC 6121 §3.1).
async fn befriend(one: &Client, other: &Client) {
    for (asked, asker) in [(one, other), (other, one)] {
        let (mut roster, mut presences) = (asked.roster().await.unwrap(), asked.presence());
        let contact = asker.jid().bare();
        asker.subscribe(&asked.jid().bare()).await.unwrap();
        let approved = async {
            while !matches!(presences.next().await.unwrap(), PresenceChange::Asked { by, .. } if by == contact) {}
            asked.approve(&contact).await.unwrap();
            while !roster
                .contact(&contact)
                .is_some_and(|contact| contact.subscription.is_seen())
            {
                roster.next().await.unwrap();
            }
        };
        timeout(PATIENCE, approved).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lamp_is_watched_and_obeys_its_owner() {
    let broker = Broker::start().await;
    for name in ["lamp", "owner", "stranger"] {
        broker.user(name).await;
    }
    let (lines, mut told) = mpsc::unbounded_channel();
    let lamps = [jid("lamp")];
    let watching = watcher::watch(broker.options("owner").resource("watcher"), &lamps, move |line| {
        let _ = lines.send(line);
    });
    let script = async {
        let mut next = async || timeout(PATIENCE, told.recv()).await.unwrap().unwrap();
        while next().await != "lamp@localhost/lamp is there: off" {}
        let (stranger, mut answers) = present(&broker, "stranger").await;
        stranger.send(message(jid("lamp"), "on")).await.unwrap();
        stranger.flush().await.unwrap();
        let (owner, mut events) = Client::connect(broker.options("owner").resource("hand")).await.unwrap();
        owner.send(message(jid("lamp"), "on")).await.unwrap();
        assert_eq!(body(&mut events).await, "on");
        assert_eq!(next().await, "lamp@localhost/lamp is there: on");
        owner.send(message(jid("lamp"), "dim")).await.unwrap();
        assert_eq!(body(&mut events).await, "on or off?");
        let silence = timeout(Duration::from_millis(20), body(&mut answers)).await;
        assert!(silence.is_err(), "the stranger was answered");
    };
    tokio::select! {
        ended = lamp::shine(broker.options("lamp").resource("lamp"), jid("owner")) => panic!("{ended:?}"),
        ended = watching => panic!("{ended:?}"),
        () = script => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_thermometer_knows_that_its_owner_has_the_report() {
    let broker = Broker::start().await;
    broker.user("thermometer").await;
    broker.user("owner").await;
    let (owner, mut events) = present(&broker, "owner").await;
    // Whom the owner has written to may know that the owner is there.
    owner.send(message(jid("thermometer"), "hello")).await.unwrap();
    let mut outcomes = Vec::new();
    let reporting = thermometer::report(
        broker.options("thermometer"),
        jid("owner"),
        Duration::from_millis(1),
        3,
        |outcome| outcomes.push(outcome),
    );
    let reading = async {
        for _ in 0..3 {
            assert_eq!(body(&mut events).await, "21.5 °C");
        }
    };
    let (reported, ()) = tokio::join!(reporting, reading);
    reported.unwrap();
    let by = Jid::from(owner.jid());
    assert_eq!(outcomes, vec![Outcome::Delivered { by }; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outcome_of_a_message_is_what_the_broker_did_with_it() {
    let broker = Broker::start().await;
    for name in ["sender", "friend", "away"] {
        broker.user(name).await;
    }
    let (sender, _events) = present(&broker, "sender").await;
    let (friend, _friend_events) = present(&broker, "friend").await;
    befriend(&sender, &friend).await;
    let deliver = async |to: &str, within| {
        let delivery = sender.deliver(message(jid(to), "hi"), within).await.unwrap();
        timeout(PATIENCE, delivery).await.unwrap()
    };
    assert!(matches!(deliver("friend", PATIENCE).await, Outcome::Delivered { .. }));
    assert_eq!(deliver("away", Duration::from_secs(5)).await, Outcome::Stored);
    match deliver("nobody", PATIENCE).await {
        Outcome::Failed(Failure::Refused(error)) => assert_eq!(error.condition, Condition::ServiceUnavailable),
        other => panic!("{other:?}"),
    }
}

#[derive(Default)]
struct Kept(Mutex<(CachedRoster, Vec<String>)>);

impl RosterCache for Kept {
    fn load(&self, _: &BareJid) -> Option<CachedRoster> {
        let kept = self.0.lock().unwrap();
        (!kept.0.version.is_empty()).then(|| kept.0.clone())
    }

    fn replace(&self, _: &BareJid, roster: &CachedRoster) {
        let mut kept = self.0.lock().unwrap();
        kept.0 = roster.clone();
        kept.1.push("all".to_owned());
    }

    fn change(&self, _: &BareJid, version: &str, change: &RosterChange) {
        let mut kept = self.0.lock().unwrap();
        kept.0.version = version.to_owned();
        if let RosterChange::Set(contact) = change {
            kept.0.contacts.retain(|known| known.jid != contact.jid);
            kept.0.contacts.push(contact.clone());
            kept.1.push(contact.jid.to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_roster_is_brought_up_to_date_by_its_changes() {
    let broker = Broker::start().await;
    broker.user("juliet").await;
    let kept = Arc::new(Kept::default());
    let options = broker.options("juliet").roster_cache(kept.clone());
    let (first, _events) = Client::connect(options.clone().resource("first")).await.unwrap();
    let mut roster = first.roster().await.unwrap();
    assert!(roster.contacts().is_empty());
    first
        .set_contact(&jid("nurse"), Some("Nurse"), &["Servants"])
        .await
        .unwrap();
    match timeout(PATIENCE, roster.next()).await.unwrap() {
        Some(RosterChange::Set(contact)) => {
            assert_eq!(
                (contact.name.as_deref(), contact.subscription),
                (Some("Nurse"), Subscription::None)
            );
            assert_eq!(contact.groups, ["Servants"]);
        }
        other => panic!("{other:?}"),
    }
    first.close().await;
    // Another device changes it meanwhile.
    let (other, _other_events) = Client::connect(broker.options("juliet").resource("other"))
        .await
        .unwrap();
    other.set_contact(&jid("romeo"), None, &[]).await.unwrap();
    match other.remove_contact(&jid("nobody")).await {
        Err(RequestError::Refused(error)) => assert_eq!(error.condition, Condition::ItemNotFound),
        other => panic!("{other:?}"),
    }
    kept.0.lock().unwrap().1.clear();
    let (second, _second_events) = Client::connect(options.resource("second")).await.unwrap();
    let mut roster = second.roster().await.unwrap();
    let complete = async {
        while roster.contacts().len() < 2 {
            roster.next().await.unwrap();
        }
    };
    timeout(PATIENCE, complete).await.unwrap();
    let names: BTreeSet<_> = roster
        .contacts()
        .into_iter()
        .map(|contact| contact.jid.to_string())
        .collect();
    assert_eq!(
        names,
        BTreeSet::from(["nurse@localhost".to_owned(), "romeo@localhost".to_owned()])
    );
    assert_eq!(kept.0.lock().unwrap().0.contacts.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_blocked_is_not_heard() {
    let broker = Broker::start().await;
    for name in ["juliet", "tybalt"] {
        broker.user(name).await;
    }
    let (juliet, mut events) = present(&broker, "juliet").await;
    let (other, mut other_events) = present(&broker, "juliet").await;
    let (tybalt, _tybalt_events) = present(&broker, "tybalt").await;
    assert!(other.blocked().await.unwrap().is_empty());
    juliet.block([jid("tybalt").into()]).await.unwrap();
    assert_eq!(juliet.blocked().await.unwrap(), [Jid::from(jid("tybalt"))]);
    let told = async {
        loop {
            if let Event::BlockList(change) = other_events.next().await.unwrap() {
                break change;
            }
        }
    };
    let change = timeout(PATIENCE, told).await.unwrap();
    assert_eq!(change, BlockListChange::Blocked(vec![jid("tybalt").into()]));
    let refused = tybalt
        .deliver(message(jid("juliet"), "villain"), PATIENCE)
        .await
        .unwrap();
    match timeout(PATIENCE, refused).await.unwrap() {
        Outcome::Failed(Failure::Refused(error)) => assert_eq!(error.condition, Condition::ServiceUnavailable),
        other => panic!("{other:?}"),
    }
    juliet.unblock_all().await.unwrap();
    tybalt.send(message(juliet.jid(), "peace")).await.unwrap();
    assert_eq!(body(&mut events).await, "peace");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_devices_have_copies() {
    let broker = Broker::start().await;
    for name in ["juliet", "romeo"] {
        broker.user(name).await;
    }
    let (juliet, _events) = present(&broker, "juliet").await;
    let (other, mut copies) = present(&broker, "juliet").await;
    let (romeo, mut romeo_events) = present(&broker, "romeo").await;
    other.enable_carbons().await.unwrap();
    let mut copy = async || loop {
        if let Event::Carbon(carbon) = timeout(PATIENCE, copies.next()).await.unwrap().unwrap() {
            break (carbon.direction, carbon.message.id.map(String::from));
        }
    };
    juliet
        .send(message(romeo.jid(), "wherefore").with_id("1"))
        .await
        .unwrap();
    assert_eq!(body(&mut romeo_events).await, "wherefore");
    assert_eq!(copy().await, (Direction::Sent, Some("1".to_owned())));
    romeo
        .send(message(juliet.jid(), "call me but love").with_id("2"))
        .await
        .unwrap();
    assert_eq!(copy().await, (Direction::Received, Some("2".to_owned())));
}
