//! An edge is drained: its devices go on at another one, a few at a time, and whoever talks with them does not notice.

use std::{
    collections::BTreeSet,
    net::TcpStream,
    time::{Duration, Instant},
};

use heronry_client::{
    Client, Disconnect, Event, Events, Options, Presence, Reconnect, Resumption, Server, Tls, Trust, message,
};
use heronry_xmpp::{
    jid::BareJid,
    sasl::Password,
    stanza::{Kind, PresenceType, Stanza},
    stream::StreamCondition,
    xml::CLIENT,
};
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    load,
    process::{Broker, PATIENCE, Place},
};

const PASSWORD: &str = "wherefore";
const DEVICES: usize = 30;
const DEVICES_PER_SECOND: usize = 20;

/// The number of the last message.
const LAST: usize = 1_000_000;

/// A cluster of a core and two edges.
struct Cluster {
    core: Place,
    edges: [Place; 2],
    _running: Vec<Broker>,
}

impl Cluster {
    /// `doors`: whether edges say how they are reached.
    fn start(doors: bool) -> Self {
        let core = Place::new();
        let seed = format!("{}:5269", core.ip);
        let core = core.with(&[
            "--set=roles=core",
            &format!("--set=peer.listen={seed}"),
            "--set=limits.shard.sessions_per_account_max=64",
        ]);
        let edges = [Place::new(), Place::new()].map(|place| {
            let ip = place.ip;
            let place = place.with(&[
                "--set=roles=edge",
                &format!("--set=peer.listen={ip}:5269"),
                &format!("--set=peer.seeds={seed}"),
                &format!("--set=limits.edge.handovers_per_second_max={DEVICES_PER_SECOND}"),
            ]);
            match doors {
                false => place,
                true => place.with(&[
                    &format!("--set=edge.advertise={ip}:5222"),
                    &format!("--set=edge.advertise_tls={ip}:5223"),
                ]),
            }
        });
        let _running = [&core, &edges[0], &edges[1]].map(Place::start).into();
        core.run(&["user", "add", "romeo@localhost", "--password", PASSWORD])
            .ok();
        core.run(&["user", "add", "juliet@localhost", "--password", PASSWORD])
            .ok();
        Self { core, edges, _running }
    }

    /// Drains the first edge until it has left.
    fn drain(&self) {
        let address = format!("{}:5269", self.edges[0].ip);
        self.core.run(&["cluster", "drain", &address, "--wait"]).ok();
        let status: Value = serde_json::from_str(&self.core.run(&["cluster", "status", "--json"]).ok().stdout).unwrap();
        let nodes = status["nodes"].as_array().unwrap();
        let drained = nodes.iter().find(|node| node["address"] == address).unwrap();
        assert_eq!((&drained["state"], &drained["streams"]), (&"left".into(), &0.into()));
    }
}

/// With STARTTLS, and with TLS from the first byte.
const PORTS: [u16; 2] = [5222, 5223];

fn server(edge: &Place, port: u16) -> Server {
    Server::Address((edge.ip, port).into())
}

async fn connect(account: &str, resource: &str, servers: Vec<Server>) -> (Client, Events) {
    let account = BareJid::parse(&format!("{account}@localhost")).unwrap();
    let trust = Trust::dangerous_accept_any();
    let direct = matches!(servers[0], Server::Address(address) if address.port() == PORTS[1]);
    let options = Options::new(account, Password::new(PASSWORD).unwrap())
        .servers(servers)
        .tls(if direct {
            Tls::Direct(trust)
        } else {
            Tls::StartTls(trust)
        })
        .resource(resource)
        .reconnect(Reconnect::Automatic {
            first: Duration::from_millis(20),
            max: Duration::from_millis(500),
        });
    let (client, events) = Client::connect(options).await.unwrap();
    client.set_presence(&Presence::available()).await.unwrap();
    client.flush().await.unwrap();
    (client, events)
}

/// What one device saw.
#[derive(Debug, Default)]
struct Seen {
    told: Vec<StreamCondition>,
    resumed: usize,
    began_anew: usize,
    bodies: Vec<usize>,
}

/// Collects what a device sees until it has this message.
async fn until(mut events: Events, last: usize) -> Seen {
    let mut seen = Seen::default();
    while seen.bodies.last() != Some(&last) {
        match timeout(PATIENCE, events.next()).await.unwrap().unwrap() {
            Event::Message(stanza) => seen.bodies.push(number(&stanza)),
            Event::Disconnected(Disconnect::Refused(error)) => seen.told.push(error.condition),
            Event::Disconnected(other) => panic!("{other:?}"),
            Event::Reconnected(Resumption::Resumed { .. }) => seen.resumed += 1,
            Event::Reconnected(_) => seen.began_anew += 1,
            _ => {}
        }
    }
    seen
}

fn number(stanza: &Stanza) -> usize {
    let content = stanza.root_element().unwrap();
    content.child("body", CLIENT).unwrap().text().parse().unwrap()
}

/// Asserts that nobody went away, as far as a contact was told.
async fn nobody_went_away(mut events: Events) {
    while let Ok(Some(event)) = timeout(Duration::from_millis(1), events.next()).await {
        if let Event::Presence(stanza) = event {
            assert_ne!(stanza.kind, Kind::Presence(PresenceType::Unavailable), "{stanza:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_of_a_drained_edge_go_on_at_another_one() {
    let cluster = Cluster::start(true);
    let [old, new] = &cluster.edges;
    let (romeo, romeo_events) = connect("romeo", "watch", vec![server(new, PORTS[0])]).await;
    let mut watching = Vec::new();
    let mut devices = Vec::new();
    for device in 0..DEVICES {
        let (client, events) = connect(
            "juliet",
            &format!("device-{device}"),
            vec![server(old, PORTS[device % 2])],
        )
        .await;
        client
            .send(Stanza::presence(PresenceType::Available, []).with_to(romeo.jid()))
            .await
            .unwrap();
        client.flush().await.unwrap();
        watching.push(events);
        devices.push(client);
    }
    let jids: Vec<_> = devices.iter().map(Client::jid).collect();
    let (moved, mut all) = tokio::sync::oneshot::channel::<()>();
    let sender = tokio::spawn({
        let (romeo, jids) = (romeo.clone(), jids.clone());
        async move {
            let mut rounds = 0;
            loop {
                let is_last = all.try_recv().is_ok();
                let number = if is_last { LAST } else { rounds };
                for jid in &jids {
                    romeo.send(message(jid.clone(), &number.to_string())).await.unwrap();
                }
                if is_last {
                    return rounds;
                }
                rounds += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    });
    let watching: Vec<_> = watching
        .into_iter()
        .map(|events| tokio::spawn(until(events, LAST)))
        .collect();
    let began = Instant::now();
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.drain();
        cluster
    })
    .await
    .unwrap();
    let took = began.elapsed();
    // The first handful goes at once.
    let least = Duration::from_secs(1) * (DEVICES as u32 - 2) / DEVICES_PER_SECOND as u32;
    assert!(took >= least, "{took:?}");
    moved.send(()).unwrap();
    let rounds = sender.await.unwrap();

    let [old, new] = &cluster.edges;
    for (device, seen) in watching.into_iter().enumerate() {
        let seen = seen.await.unwrap();
        let port = PORTS[device % 2];
        let told = StreamCondition::SeeOtherHost(format!("{}:{port}", new.ip).into());
        assert_eq!(
            (seen.told, seen.resumed, seen.began_anew),
            (vec![told], 1, 0),
            "{device}"
        );
        assert_eq!(seen.bodies, (0..rounds).chain([LAST]).collect::<Vec<_>>(), "{device}");
    }
    assert_eq!(
        devices.iter().map(Client::jid).collect::<BTreeSet<_>>(),
        jids.into_iter().collect()
    );
    nobody_went_away(romeo_events).await;

    assert!(TcpStream::connect((old.ip, 5222)).is_err());
    assert!(TcpStream::connect((old.ip, 5223)).is_err());
    let metrics = load::page(old, "/metrics").await;
    let moved = format!("edge_streams_handed_over_total{{told=\"see-other-host\"}} {DEVICES}\n");
    assert!(metrics.contains(&moved), "{metrics}");
    assert_eq!(
        load::page(old, "/readyz").await,
        "not ready\nthe node is being drained\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_finds_its_own_way_when_no_edge_says_how_it_is_reached() {
    let cluster = Cluster::start(false);
    let [old, new] = &cluster.edges;
    let (romeo, _events) = connect("romeo", "watch", vec![server(new, PORTS[0])]).await;
    let (juliet, events) = connect("juliet", "device", vec![server(old, PORTS[0]), server(new, PORTS[0])]).await;
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.drain();
        cluster
    })
    .await
    .unwrap();
    romeo.send(message(juliet.jid(), "1")).await.unwrap();
    let seen = until(events, 1).await;
    assert_eq!(
        (seen.told, seen.resumed, seen.bodies),
        (vec![StreamCondition::SystemShutdown], 1, vec![1])
    );
    drop(cluster);
}
