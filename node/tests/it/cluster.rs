//! A cluster of real processes: three cores hold the shards, two edges hold the sockets, and cores are killed.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use heronry_client::{
    Client, Event, Events, Limits, Options, Outcome, Presence, Receipts, Reconnect, Server, Tls, Trust, message,
};
use heronry_xmpp::{jid::BareJid, sasl::Password, xml::CLIENT};
use serde_json::Value;
use tokio::time::timeout;

use crate::process::{Broker, PATIENCE, Place};

const PASSWORD: &str = "wherefore";
const CORES: usize = 3;
const SHARDS: usize = 16;

/// A node that founds the cluster together with the other cores.
fn core(place: Place, seeds: &str) -> Place {
    let ip = place.ip;
    place.with(&[
        "--set=roles=core",
        &format!("--set=peer.listen={ip}:5269"),
        &format!("--set=peer.seeds={seeds}"),
        &format!("--set=peer.bootstrap={CORES}"),
    ])
}

/// A node with sockets only, which joins.
fn edge(place: Place, seeds: &str) -> Place {
    let ip = place.ip;
    place.with(&[
        "--set=roles=edge",
        &format!("--set=peer.listen={ip}:5269"),
        &format!("--set=peer.seeds={seeds}"),
    ])
}

/// Starts nodes that wait for each other.
fn start_all(places: &[&Place]) -> Vec<Broker> {
    std::thread::scope(|scope| {
        let starting: Vec<_> = places.iter().map(|place| scope.spawn(|| place.start())).collect();
        starting.into_iter().map(|broker| broker.join().unwrap()).collect()
    })
}

/// The shards that a node leads, and those it has a replica of.
fn shards(place: &Place) -> (usize, usize) {
    let status: Value = serde_json::from_str(&place.run(&["status", "--json"]).stdout).unwrap_or_default();
    let shards = status["shards"].as_array().cloned().unwrap_or_default();
    let led = shards.iter().filter(|shard| shard["role"] == "leader").count();
    (led, shards.len())
}

/// Waits until every core has a replica of every shard and leads some.
fn spread(cores: &[Place]) {
    let until = Instant::now() + 2 * PATIENCE;
    loop {
        let now: Vec<_> = cores.iter().map(shards).collect();
        let led: usize = now.iter().map(|(led, _)| led).sum();
        if led == SHARDS && now.iter().all(|(led, here)| *led > 0 && *here == SHARDS) {
            return;
        }
        assert!(Instant::now() < until, "not spread: {now:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Adds an account, at whichever node can.
fn add(cores: &[Place], name: &str) {
    let until = Instant::now() + PATIENCE;
    let jid = format!("{name}@localhost");
    while !cores
        .iter()
        .any(|core| core.run(&["user", "add", &jid, "--password", PASSWORD]).code == Some(0))
    {
        assert!(Instant::now() < until, "{jid} cannot be added anywhere");
    }
}

/// What the devices saw.
#[derive(Default)]
struct Ledger {
    sent: AtomicUsize,
    delivered: AtomicUsize,
    received: Mutex<Vec<(usize, Instant)>>,
    disconnected: AtomicUsize,
    is_over: AtomicBool,
}

async fn connect(edge: &Place, name: &str) -> (Client, Events) {
    let account = BareJid::parse(&format!("{name}@localhost")).unwrap();
    let mut limits = Limits::default();
    limits.deliveries_max = 8;
    let options = Options::new(account, Password::new(PASSWORD).unwrap())
        .servers([Server::Address((edge.ip, 5222).into())])
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

async fn watch(ledger: Arc<Ledger>, mut events: Events) {
    while let Some(event) = events.next().await {
        match event {
            Event::Message(message) => {
                let content = message.root_element().unwrap();
                let text = content.child("body", CLIENT).map(|body| body.text()).unwrap();
                let number = text.parse().unwrap();
                ledger.received.lock().unwrap().push((number, Instant::now()));
            }
            Event::Disconnected(_) if !ledger.is_over.load(Ordering::Relaxed) => {
                ledger.disconnected.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

async fn send(ledger: Arc<Ledger>, sender: Client) {
    let to = BareJid::parse("juliet@localhost").unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    while !ledger.is_over.load(Ordering::Relaxed) {
        let number = ledger.sent.fetch_add(1, Ordering::Relaxed);
        let delivery = sender
            .deliver(message(to.clone(), &number.to_string()), PATIENCE)
            .await
            .unwrap();
        let ledger = Arc::clone(&ledger);
        waiting.spawn(async move {
            let outcome = delivery.await;
            assert!(
                matches!(outcome, Outcome::Delivered { .. }),
                "message {number}: {outcome:?}"
            );
            ledger.delivered.fetch_add(1, Ordering::Relaxed);
        });
    }
    while let Some(ended) = waiting.join_next().await {
        ended.unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn cores_are_killed_in_turn_and_no_device_notices() {
    let places: Vec<_> = (0..CORES).map(|_| Place::new()).collect();
    let seeds: Vec<_> = places.iter().map(|place| format!("{}:5269", place.ip)).collect();
    let seeds = seeds.join(",");
    let cores: Vec<_> = places.into_iter().map(|place| core(place, &seeds)).collect();
    let edges = [edge(Place::new(), &seeds), edge(Place::new(), &seeds)];
    let mut running: Vec<_> = start_all(&cores.iter().collect::<Vec<_>>())
        .into_iter()
        .map(Some)
        .collect();
    let _edges = start_all(&edges.iter().collect::<Vec<_>>());
    spread(&cores);
    for name in ["romeo", "juliet"] {
        add(&cores, name);
    }

    let ledger = Arc::new(Ledger::default());
    let (juliet, events) = connect(&edges[0], "juliet").await;
    let (romeo, romeo_events) = connect(&edges[1], "romeo").await;
    let watching = [
        tokio::spawn(watch(Arc::clone(&ledger), events)),
        tokio::spawn(watch(Arc::clone(&ledger), romeo_events)),
    ];
    let sending = tokio::spawn(send(Arc::clone(&ledger), romeo.clone()));
    delivered(&ledger, 50).await;
    for core in 0..CORES {
        let killed = running[core].take().unwrap();
        killed.end_with("KILL", PATIENCE);
        // Whatever it led is led by another in a moment.
        delivered(&ledger, 100).await;
        running[core] = Some(cores[core].start());
        delivered(&ledger, 50).await;
        spread(&cores);
    }
    ledger.is_over.store(true, Ordering::Relaxed);
    timeout(PATIENCE, sending).await.unwrap().unwrap();
    for client in [romeo, juliet] {
        client.close().await;
    }
    for watching in watching {
        timeout(PATIENCE, watching).await.unwrap().unwrap();
    }

    let received = ledger.received.lock().unwrap().clone();
    let numbers: Vec<_> = received.iter().map(|(number, _)| *number).collect();
    let sent = ledger.sent.load(Ordering::Relaxed);
    let pause = received.windows(2).map(|pair| pair[1].1 - pair[0].1).max();
    eprintln!("{sent} messages; the longest pause between two of them was {pause:?}");
    assert_eq!(
        ledger.disconnected.load(Ordering::Relaxed),
        0,
        "a device was disconnected"
    );
    assert_eq!(numbers, (0..sent).collect::<Vec<_>>(), "each once and in order");
}
