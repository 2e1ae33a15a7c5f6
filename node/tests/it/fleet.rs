//! A cluster of real processes on this machine, and devices that talk over it.
//!
//! Cores hold the shards, edges hold the sockets; each node has a loopback address of its own. Tests do something to the nodes while
//! devices talk ([`heronry_loadtest::steady`]), and have what those saw judged by [`heronry_loadtest::history::check`].

use std::{
    io::Write as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use heronry_client::{Options, Server, Tls, Trust};
use heronry_loadtest::{
    history::{self, Summary},
    steady::{Plan, Recorder, Seen, Steady},
};
use heronry_xmpp::{jid::BareJid, sasl::Password};
use serde_json::Value;

use crate::process::{Broker, Ended, PATIENCE, Place};

const PASSWORD: &str = "wherefore";
/// Cores of a fleet, and replicas of each shard.
pub(crate) const CORES: usize = 3;
/// Edges of a fleet. Their numbers come after those of the cores.
pub(crate) const EDGES: usize = 2;
/// Shards by default.
pub(crate) const SHARDS: usize = 16;

/// A node: where it is, and its process while there is one.
pub(crate) struct Node {
    pub(crate) place: Place,
    broker: Option<Broker>,
}

/// Some nodes of one cluster, the cores first.
pub(crate) struct Fleet {
    pub(crate) nodes: Vec<Node>,
    seeds: String,
    /// Where nodes are told to reach each other; they listen at 5269.
    port: u16,
}

impl Fleet {
    /// Three cores and two edges, with every shard on every core and leaders everywhere.
    pub(crate) fn start() -> Self {
        Self::start_at((0..CORES + EDGES).map(|_| Place::new()).collect())
    }

    /// The same, at these places.
    pub(crate) fn start_at(places: Vec<Place>) -> Self {
        Self::start_over(places, 5269)
    }

    /// The same, where the nodes reach each other at this port of their addresses.
    pub(crate) fn start_over(places: Vec<Place>, port: u16) -> Self {
        let seeds: Vec<_> = (places[..CORES].iter())
            .map(|place| format!("{}:{port}", place.ip))
            .collect();
        let mut fleet = Self {
            nodes: Vec::new(),
            seeds: seeds.join(","),
            port,
        };
        for (index, place) in places.into_iter().enumerate() {
            let place = match index < CORES {
                true => fleet
                    .of_it(place, "core")
                    .with(&[&format!("--set=peer.bootstrap={CORES}")]),
                false => fleet.of_it(place, "edge"),
            };
            fleet.nodes.push(Node { place, broker: None });
        }
        std::thread::scope(|scope| {
            for node in &mut fleet.nodes {
                scope.spawn(|| node.broker = Some(node.place.start()));
            }
        });
        fleet.spread();
        fleet
    }

    fn of_it(&self, place: Place, roles: &str) -> Place {
        let ip = place.ip;
        place.with(&[
            &format!("--set=roles={roles}"),
            &format!("--set=peer.listen={ip}:5269"),
            &format!("--set=peer.advertise={ip}:{}", self.port),
            &format!("--set=peer.seeds={}", self.seeds),
        ])
    }

    /// Starts one node more, a core, which joins. Gives its number.
    pub(crate) fn join(&mut self, place: Place) -> usize {
        let place = self.of_it(place, "core");
        let broker = Some(place.start());
        self.nodes.push(Node { place, broker });
        self.nodes.len() - 1
    }

    /// Starts a node that has ended.
    pub(crate) fn restart(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        assert!(node.broker.is_none());
        node.broker = Some(node.place.start());
    }

    /// Ends a node by a signal.
    pub(crate) fn end(&mut self, node: usize, signal: &str) -> Ended {
        let broker = self.nodes[node].broker.take().unwrap();
        broker.end_with(signal, PATIENCE)
    }

    /// Sends a signal that ends nobody.
    pub(crate) fn signal(&self, node: usize, signal: &str) {
        self.nodes[node].broker.as_ref().unwrap().signal(signal);
    }

    /// Waits until a node has ended by itself.
    pub(crate) fn wait(&mut self, node: usize) -> Ended {
        self.nodes[node].broker.take().unwrap().wait()
    }

    /// Runs a command at the first node that can carry it out.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let until = Instant::now() + 2 * PATIENCE;
        loop {
            for node in self.nodes.iter().filter(|node| node.broker.is_some()) {
                let ended = node.place.run(arguments);
                if ended.code == Some(0) {
                    return ended;
                }
                assert!(Instant::now() < until, "{arguments:?}: {ended:?}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The address by which the others and operators know a node.
    pub(crate) fn address(&self, node: usize) -> String {
        format!("{}:{}", self.nodes[node].place.ip, self.port)
    }

    /// What the first edge knows of the cluster.
    pub(crate) fn status(&self) -> Value {
        let edge = &self.nodes[CORES].place;
        let status = edge.run(&["cluster", "status", "--json"]).ok().stdout;
        serde_json::from_str(&status).unwrap()
    }

    /// What the first edge knows of a node; null if nothing.
    pub(crate) fn member(&self, node: usize) -> Value {
        let status = self.status();
        let nodes = status["nodes"].as_array().unwrap();
        let found = nodes.iter().find(|found| found["address"] == self.address(node));
        found.cloned().unwrap_or_default()
    }

    /// The shards that a node says it leads, and those it has a replica of.
    pub(crate) fn shards(&self, node: usize) -> (usize, usize) {
        let status = self.nodes[node].place.run(&["status", "--json"]);
        let status: Value = serde_json::from_str(&status.stdout).unwrap_or_default();
        let shards = status["shards"].as_array().cloned().unwrap_or_default();
        let led = shards.iter().filter(|shard| shard["role"] == "leader").count();
        (led, shards.len())
    }

    /// Waits until a node leads something.
    #[track_caller]
    pub(crate) fn leads(&self, node: usize) {
        until("it leads something", || self.shards(node).0 > 0);
    }

    /// Waits until a node has replicas of so many shards, and is heard by the others.
    #[track_caller]
    pub(crate) fn holds(&self, node: usize, shards: usize) {
        until("it has its shards", || {
            self.shards(node).1 == shards && self.member(node)["alive"] == true
        });
    }

    /// Waits until these nodes lead all shards, and each of them some and has all.
    #[track_caller]
    pub(crate) fn spread_over(&self, cores: &[usize]) {
        until("the shards are spread", || {
            let now: Vec<_> = cores.iter().map(|core| self.shards(*core)).collect();
            let led: usize = now.iter().map(|(led, _)| led).sum();
            led == SHARDS && now.iter().all(|(led, here)| *led > 0 && *here == SHARDS)
        });
    }

    /// Waits until the first cores lead all shards, and each of them some and has all.
    #[track_caller]
    pub(crate) fn spread(&self) {
        self.spread_over(&[0, 1, 2]);
    }

    /// Makes accounts and has their devices log in at the edges, which take turns, and talk. Who loses its edge goes to the other.
    pub(crate) async fn load(&self, devices: usize) -> Load {
        self.load_of(devices, Plan::default()).await
    }

    /// The same, with so much talk.
    pub(crate) async fn load_of(&self, devices: usize, plan: Plan) -> Load {
        let mut accounts = tempfile::NamedTempFile::new().unwrap();
        writeln!(accounts, "jid,password").unwrap();
        for device in 0..devices {
            writeln!(accounts, "d{device}@localhost,{PASSWORD}").unwrap();
        }
        self.run(&["user", "import", accounts.path().to_str().unwrap()]);
        let options = (0..devices).map(|device| {
            let account = BareJid::parse(&format!("d{device}@localhost")).unwrap();
            let mut edges = [CORES, CORES + 1];
            edges.rotate_left(device % EDGES);
            let servers = edges.map(|edge| Server::Address((self.nodes[edge].place.ip, 5222).into()));
            Options::new(account, Password::new(PASSWORD).unwrap())
                .servers(servers)
                .tls(Tls::Any(Trust::dangerous_accept_any()))
        });
        let steady = Steady::start(options.collect(), plan, Recorder::memory());
        Load(steady.await.unwrap())
    }
}

/// Waits until something is true.
#[track_caller]
pub(crate) fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let until = Instant::now() + 2 * PATIENCE;
    while !is_true() {
        assert!(Instant::now() < until, "not after {:?}: {what}", 2 * PATIENCE);
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Devices that talk.
pub(crate) struct Load(Steady);

impl Load {
    /// What the devices have seen so far.
    pub(crate) fn seen(&self) -> Seen {
        self.0.seen()
    }

    /// Waits until every device, on the average, has had so many more messages: so things go on everywhere.
    pub(crate) async fn goes_on(&self, messages: u64) {
        let before = self.seen();
        let more = messages * before.sockets.max(1) as u64;
        let began = Instant::now();
        while self.seen().delivered < before.delivered + more {
            let seen = self.seen();
            assert!(
                began.elapsed() < 2 * PATIENCE,
                "it does not go on: {before:?}, {seen:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until every device has had what was sent to it up to now: so nothing is held up any more.
    pub(crate) async fn catches_up(&self) {
        // Two rounds of those who are not held up, so that the others have tried as well.
        self.goes_on(4).await;
        let (began, tally) = (Instant::now(), self.0.tally());
        while tally.oldest() >= began.elapsed() {
            assert!(
                began.elapsed() < 2 * PATIENCE,
                "something is held up: {:?}",
                self.seen()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The longest that a message was under way since this was last asked.
    pub(crate) fn longest(&self) -> Duration {
        self.0.tally().longest()
    }

    /// Lets the devices come to rest, and fails when a promise was not kept: an acknowledged message is missing, one is there that
    /// nobody sent or twice, an order was not kept, or a row has another value than was written last.
    pub(crate) async fn judge(mut self) -> (Seen, Summary) {
        let owed = self.0.rest(2 * PATIENCE).await;
        let (seen, longest) = (self.seen(), self.longest());
        let history = self.0.end().await;
        let (found, summary) = (history::check(&history), Summary::of(&history));
        eprintln!("{seen:?}, longest under way since last asked {longest:?}");
        if !found.is_empty() || !owed.is_empty() {
            let path = kept(&history);
            let some: Vec<_> = found.iter().take(10).map(ToString::to_string).collect();
            panic!(
                "{} promises not kept, {} messages owed (the history is in {}): {some:#?}",
                found.len(),
                owed.len(),
                path.display()
            );
        }
        assert_eq!(seen.gone, 0, "a device gave up: {seen:?}");
        assert!(
            summary.acknowledged > 0 && summary.returned > 0,
            "nothing happened: {summary:?}"
        );
        (seen, summary)
    }

    /// As [`judge`](Self::judge), and no device may have noticed anything but that it took longer.
    pub(crate) async fn judge_unnoticed(self) -> Summary {
        let (seen, summary) = self.judge().await;
        assert_eq!((seen.lost, seen.refused), (0, 0), "devices noticed: {seen:?}");
        summary
    }
}

/// Keeps a history for somebody to look at.
fn kept(history: &history::History) -> PathBuf {
    let (file, path) = tempfile::NamedTempFile::with_prefix("heronry-history-")
        .unwrap()
        .keep()
        .unwrap();
    history.write(file).unwrap();
    path
}
