//! Two brokers with the same accounts that know nothing of each other, killed in turn: what the SDK says about a message is
//! true, whatever happens to the brokers behind it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use heronry_client::{
    Client, Event, Events, Failure, Limits, Options, Outcome, Presence, Receipts, Reconnect, Server, Tls, Trust,
    message,
};
use heronry_xmpp::{jid::BareJid, sasl::Password, xml::CLIENT};
use tokio::time::timeout;

use crate::process::{PATIENCE, Place};

const PASSWORD: &str = "wherefore";
/// Brokers killed.
const KILLS: usize = 4;
/// Messages delivered between two kills.
const MESSAGES: usize = 40;

/// What became of every message, by its text.
#[derive(Default)]
struct Ledger {
    outcomes: Mutex<HashMap<String, Outcome>>,
    received: Mutex<Vec<String>>,
    delivered: AtomicUsize,
    is_over: AtomicBool,
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_delivered_once_while_brokers_are_killed_in_turn() {
    let places = [Place::new(), Place::new()];
    let mut brokers = places.each_ref().map(|place| Some(place.start()));
    for place in &places {
        for name in ["sender", "receiver"] {
            let jid = format!("{name}@localhost");
            place.run(&["user", "add", &jid, "--password", PASSWORD]).ok();
        }
    }
    let ledger = Arc::new(Ledger::default());
    let (receiver, events) = connect(&places, "receiver").await;
    let (sender, sender_events) = connect(&places, "sender").await;
    let receiving = tokio::spawn(receive(Arc::clone(&ledger), events));
    // An application that waits for outcomes alone.
    drop(sender_events);
    let sending = tokio::spawn(send(Arc::clone(&ledger), sender.clone()));

    for kill in 0..KILLS {
        delivered(&ledger, MESSAGES).await;
        let killed = brokers[kill % 2].take().unwrap();
        killed.end_with("KILL", PATIENCE);
        // The devices come to the other broker, and their messages too.
        delivered(&ledger, MESSAGES).await;
        brokers[kill % 2] = Some(places[kill % 2].start());
    }
    ledger.is_over.store(true, Ordering::Relaxed);
    timeout(PATIENCE, sending).await.unwrap().unwrap();
    sender.close().await;
    receiver.close().await;
    timeout(PATIENCE, receiving).await.unwrap().unwrap();

    let outcomes = ledger.outcomes.lock().unwrap();
    let mut times = HashMap::new();
    for text in ledger.received.lock().unwrap().iter() {
        *times.entry(text.clone()).or_insert(0) += 1;
    }
    eprintln!("{} messages, {} received", outcomes.len(), times.len());
    assert!(outcomes.len() >= 2 * KILLS * MESSAGES);
    for (text, outcome) in outcomes.iter() {
        let times = times.remove(text).unwrap_or(0);
        match outcome {
            Outcome::Delivered { .. } => assert_eq!(times, 1, "message {text} was delivered"),
            Outcome::Failed(_) => assert!(times <= 1, "message {text} came twice"),
            Outcome::Stored => panic!("message {text} was stored, and its recipient is there"),
        }
    }
    assert!(times.is_empty(), "nobody sent {times:?}");
}

async fn connect(places: &[Place; 2], name: &str) -> (Client, Events) {
    let account = BareJid::parse(&format!("{name}@localhost")).unwrap();
    let mut limits = Limits::default();
    limits.deliveries_max = 8;
    let options = Options::new(account, Password::new(PASSWORD).unwrap())
        .servers(places.each_ref().map(|place| Server::Address((place.ip, 5222).into())))
        .tls(Tls::Any(Trust::dangerous_accept_any()))
        .resource("device")
        .receipts(Receipts::Everybody)
        .limits(limits)
        .reconnect(Reconnect::Automatic {
            first: Duration::from_millis(20),
            max: Duration::from_millis(500),
        });
    let (client, events) = Client::connect(options).await.unwrap();
    client.set_presence(&Presence::available()).await.unwrap();
    client.flush().await.unwrap();
    (client, events)
}

async fn send(ledger: Arc<Ledger>, sender: Client) {
    let to = BareJid::parse("receiver@localhost").unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0.. {
        if ledger.is_over.load(Ordering::Relaxed) {
            break;
        }
        let text = n.to_string();
        let delivery = sender.deliver(message(to.clone(), &text), PATIENCE).await.unwrap();
        let ledger = Arc::clone(&ledger);
        waiting.spawn(async move {
            let outcome = delivery.await;
            assert_ne!(
                outcome,
                Outcome::Failed(Failure::Disconnected),
                "the client is not closed"
            );
            if matches!(outcome, Outcome::Delivered { .. }) {
                ledger.delivered.fetch_add(1, Ordering::Relaxed);
            }
            ledger.outcomes.lock().unwrap().insert(text, outcome);
        });
    }
    while let Some(ended) = waiting.join_next().await {
        ended.unwrap();
    }
}

async fn receive(ledger: Arc<Ledger>, mut events: Events) {
    while let Some(event) = events.next().await {
        match event {
            Event::Message(message) => {
                let content = message.root_element().unwrap();
                let text = content.child("body", CLIENT).map(|body| body.text());
                ledger.received.lock().unwrap().push(text.unwrap());
            }
            Event::ReconnectFailed(error) => panic!("{error}"),
            _ => {}
        }
    }
}

/// Waits until so many more messages are delivered.
async fn delivered(ledger: &Ledger, more: usize) {
    let wanted = ledger.delivered.load(Ordering::Relaxed) + more;
    let done = async {
        while ledger.delivered.load(Ordering::Relaxed) < wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, done).await.unwrap();
}
