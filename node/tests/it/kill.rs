//! SIGKILL at any moment, again and again: what was acknowledged is there afterwards, and nothing that nobody asked for.
//!
//! While the broker runs, writers create and delete accounts (Admin service), replace a private element (XEP-0049) and send
//! messages to somebody who is away, and write down what was acknowledged. Whatever was under way when the process died may have
//! happened or not; everything else is known, and compared after each start.
//!
//! `HERONRY_TEST_SECONDS` says how long (20).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use heronry_client::{Client, Event, Events, Options, Request, Server, Tls, Trust};
use heronry_xmpp::{
    jid::BareJid,
    sasl::Password,
    stanza::{MessageType, PresenceType, Stanza},
    xml::Element,
};

use crate::{
    accounts::Accounts,
    process::{PATIENCE, Place},
};

const DEVICES: usize = 3;
const ACCOUNT_WRITERS: usize = 4;
const PASSWORD: &str = "wherefore";
const NAMESPACE: &str = "heronry:test:kill";

/// What may be found after the next start.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Account {
    There,
    Gone,
    /// Its creation or deletion was under way.
    Either,
}

/// What was acknowledged, and what was under way.
#[derive(Default)]
struct Ledger {
    accounts: Mutex<BTreeMap<String, Account>>,
    /// By device: the last value acknowledged, and the last one sent.
    private: Mutex<[(u64, u64); DEVICES]>,
    /// Messages of each device to the one who is away: how many were sent, and which were acknowledged.
    sent: Mutex<[u64; DEVICES]>,
    received_by_server: Mutex<BTreeSet<(usize, u64)>>,
    acknowledged: AtomicU64,
}

struct Run {
    place: Place,
    ledger: Ledger,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_sigkill_at_any_moment() {
    let seconds = std::env::var("HERONRY_TEST_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20);
    let end = Instant::now() + Duration::from_secs(seconds);
    let place = Place::new().with(&["--set=limits.shard.stored_messages_max=1000000"]);
    let run = Arc::new(Run {
        place,
        ledger: Ledger::default(),
    });
    prepare(&run).await;
    let mut kills = 0;
    while Instant::now() < end || kills < 3 {
        let broker = run.place.start();
        let pause = Duration::from_millis(random(700));
        let (checked, devices) = check(&run).await;
        let writing = tokio::spawn(write(Arc::clone(&run), checked, devices));
        tokio::time::sleep(pause).await;
        broker.end_with("KILL", PATIENCE);
        tokio::time::timeout(PATIENCE, writing).await.unwrap().unwrap();
        kills += 1;
    }
    let _broker = run.place.start();
    let (_, devices) = check(&run).await;
    check_messages(&run, &devices[0].0).await;
    let acknowledged = run.ledger.acknowledged.load(Ordering::Relaxed);
    eprintln!("{kills} kills, {acknowledged} writes acknowledged");
    assert!(
        acknowledged > 100,
        "only {acknowledged} writes were acknowledged in {kills} rounds"
    );
}

async fn prepare(run: &Run) {
    let broker = run.place.start();
    for jid in (0..DEVICES).map(device).chain(["away@localhost".to_owned()]) {
        run.place.run(&["user", "add", &jid, "--password", PASSWORD]).ok();
        run.ledger.accounts.lock().unwrap().insert(jid, Account::There);
    }
    broker.end_with("KILL", PATIENCE);
}

type Connected = (Client, Events);

/// Compares what is found with what was acknowledged, and turns what may be either into what it is.
async fn check(run: &Run) -> (Accounts, Vec<Connected>) {
    let mut admin = Accounts::connect(run.place.ip, &run.place.token()).await;
    let mut found = BTreeSet::new();
    for jid in admin.list().await {
        assert!(found.insert(jid.clone()), "{jid} is listed twice");
    }
    {
        let mut accounts = run.ledger.accounts.lock().unwrap();
        for (jid, state) in accounts.iter_mut() {
            let is_there = if found.remove(jid) {
                Account::There
            } else {
                Account::Gone
            };
            assert!(
                *state == Account::Either || *state == is_there,
                "{jid} should be {state:?} and is {is_there:?}"
            );
            *state = is_there;
        }
        assert!(found.is_empty(), "nobody created {found:?}");
    }
    let mut devices = Vec::new();
    for index in 0..DEVICES {
        let device = connect(run, &device(index)).await;
        let value = private(&device.0).await;
        let mut all = run.ledger.private.lock().unwrap();
        let (acknowledged, sent) = &mut all[index];
        assert!(
            value == *acknowledged || value == *sent,
            "device {index} has {value}: {acknowledged} was acknowledged, {sent} sent"
        );
        *acknowledged = value;
        *sent = value;
        drop(all);
        devices.push(device);
    }
    (admin, devices)
}

/// Writes until the broker is gone.
async fn write(run: Arc<Run>, admin: Accounts, devices: Vec<Connected>) {
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..ACCOUNT_WRITERS {
        writers.spawn(write_accounts(Arc::clone(&run), admin.clone()));
    }
    for (index, (client, events)) in devices.into_iter().enumerate() {
        writers.spawn(write_private(Arc::clone(&run), client.clone(), index));
        writers.spawn(send_messages(Arc::clone(&run), client.clone(), index));
        writers.spawn(take(client, events));
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
}

/// Creates accounts, and deletes every third of them again.
async fn write_accounts(run: Arc<Run>, mut admin: Accounts) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let note = |jid: &str, state| run.ledger.accounts.lock().unwrap().insert(jid.to_owned(), state);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let jid = format!("k{number}@localhost");
        note(&jid, Account::Either);
        if admin.add(&jid).await.is_err() {
            return;
        }
        note(&jid, Account::There);
        run.ledger.acknowledged.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(3) {
            note(&jid, Account::Either);
            if admin.delete(&jid).await.is_err() {
                return;
            }
            note(&jid, Account::Gone);
            run.ledger.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn write_private(run: Arc<Run>, client: Client, index: usize) {
    loop {
        let value = {
            let mut all = run.ledger.private.lock().unwrap();
            all[index].1 += 1;
            all[index].1
        };
        let element = Element::new("value", NAMESPACE).with_text(value.to_string());
        let query = Element::new("query", "jabber:iq:private").with_child(element);
        if client.request(Request::set(query)).await.is_err() {
            return;
        }
        run.ledger.private.lock().unwrap()[index].0 = value;
        run.ledger.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

async fn private(client: &Client) -> u64 {
    let query = Element::new("query", "jabber:iq:private").with_child(Element::new("value", NAMESPACE));
    let answer = client.request(Request::get(query)).await.unwrap().unwrap();
    let text = answer.child("value", NAMESPACE).unwrap().text();
    if text.is_empty() { 0 } else { text.parse().unwrap() }
}

async fn send_messages(run: Arc<Run>, client: Client, index: usize) {
    loop {
        let number = {
            let mut sent = run.ledger.sent.lock().unwrap();
            sent[index] += 1;
            sent[index]
        };
        if client.send(message(&format!("{index} {number}"))).await.is_err() || client.flush().await.is_err() {
            return;
        }
        run.ledger.received_by_server.lock().unwrap().insert((index, number));
        run.ledger.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

fn message(body: &str) -> Stanza {
    let body = Element::new("body", "jabber:client").with_text(body);
    let mut message = Stanza::message(MessageType::Chat, [&body]);
    message.to = Some(BareJid::parse("away@localhost").unwrap().into());
    message
}

/// Events that nobody looks at must be taken all the same. When the connection is gone, so is the session: whoever waits for the
/// server is told.
async fn take(client: Client, mut events: Events) {
    while events
        .next()
        .await
        .is_some_and(|event| !matches!(event, Event::Disconnected(_)))
    {}
    client.close().await;
}

/// The one who was away comes back, and has everything that was acknowledged, in order and once.
async fn check_messages(run: &Run, last: &Client) {
    last.send(message("end")).await.unwrap();
    last.flush().await.unwrap();
    let (client, mut events) = connect(run, "away@localhost").await;
    client
        .send(Stanza::presence(PresenceType::Available, []))
        .await
        .unwrap();
    let mut received: Vec<(usize, u64)> = Vec::new();
    loop {
        let event = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
        let Event::Message(message) = event else { continue };
        let element = message.root_element().unwrap();
        let body = element.child("body", "jabber:client").unwrap().text();
        if body == "end" {
            break;
        }
        let (index, number) = body.split_once(' ').unwrap();
        received.push((index.parse().unwrap(), number.parse().unwrap()));
    }
    for index in 0..DEVICES {
        let numbers: Vec<_> = received
            .iter()
            .filter(|(from, _)| *from == index)
            .map(|(_, number)| *number)
            .collect();
        assert!(
            numbers.is_sorted_by(|a, b| a < b),
            "messages of device {index} are out of order or repeated"
        );
    }
    let received: BTreeSet<_> = received.into_iter().collect();
    let lost: Vec<_> = run
        .ledger
        .received_by_server
        .lock()
        .unwrap()
        .difference(&received)
        .copied()
        .collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let sent = run.ledger.sent.lock().unwrap();
    let invented: Vec<_> = received
        .iter()
        .filter(|(index, number)| *number > sent[*index])
        .collect();
    assert!(invented.is_empty(), "nobody sent {invented:?}");
}

async fn connect(run: &Run, jid: &str) -> Connected {
    let certificate = std::fs::read(run.place.data().join("tls/self-signed.pem")).unwrap();
    let options = Options::new(BareJid::parse(jid).unwrap(), Password::new(PASSWORD).unwrap())
        // The same each time: the session of the round before is replaced.
        .resource("kill")
        .server(Server::Address((run.place.ip, 5222).into()))
        .tls(Tls::StartTls(Trust::certificates(&certificate).unwrap()));
    Client::connect(options).await.unwrap()
}

fn device(index: usize) -> String {
    format!("device{index}@localhost")
}

/// A number below `bound`.
fn random(bound: u64) -> u64 {
    getrandom::u64().unwrap() % bound
}
