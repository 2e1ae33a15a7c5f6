//! Nodes of one process, connected by links in memory: edges on one talk through shards on another.

use std::collections::BTreeMap;
use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use bytes::Bytes;
use heronry_client::{
    Client, Disconnect, Event, Events, Options, Password, Presence, Request, Server, StreamCondition, Tls, Trust,
    jid::BareJid,
    message,
    xml::{CLIENT, Element},
};
use heronry_cluster::{Groups, Leadership, MemoryStore, Store as _};
use heronry_xmpp::{
    link::{EdgeId, NodeId, ShardId},
    sasl::{ScramHash, ScramKeys},
    shard::{Account, Administer},
};
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    core_part::CorePart, core_part::start_groups, edge_part::EdgePart, machine::Run, middle::Middle, peering::Peering,
};
use crate::{
    clock::Clock,
    config::{Config, Mechanism},
    edge::{Begins, Listeners},
    links::Links,
    shard::Control,
    telemetry::Traces,
};

/// What nothing here should take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a frame is under way.
const DELAY: Duration = Duration::from_millis(2);

const SHARDS: u16 = 4;

/// What happens at the end of a link.
enum Happens {
    Up { again: bool },
    Frame { life: usize, frame: Bytes },
    Down,
}

/// One direction between two nodes.
struct Direction {
    queue: mpsc::UnboundedSender<(EdgeId, Happens)>,
    open: bool,
}

/// All links of a cluster.
#[derive(Default)]
struct Network {
    nodes: Mutex<BTreeMap<NodeId, (Peering, bool)>>,
    /// From, to.
    links: Mutex<BTreeMap<(NodeId, NodeId), Direction>>,
    /// Counts how often links have been cut: what was under way then is lost.
    lives: AtomicUsize,
    frames: AtomicUsize,
}

/// The links of one node.
struct Wires {
    own: NodeId,
    network: Weak<Network>,
}

impl Network {
    fn join(self: &Arc<Self>, peering: &Peering, has_edge: bool) {
        let own = peering.own().node;
        peering.go_over(Arc::new(Wires {
            own,
            network: Arc::downgrade(self),
        }));
        peering.set_alone(false);
        lock(&self.nodes).insert(own, (peering.clone(), has_edge));
    }

    /// There is a link between these two from now on.
    fn connect(self: &Arc<Self>, one: u64, other: u64, again: bool) {
        let ends = [(NodeId(one), NodeId(other)), (NodeId(other), NodeId(one))];
        let (mut links, nodes) = (lock(&self.links), lock(&self.nodes));
        for (from, to) in ends {
            let direction = links.entry((from, to)).or_insert_with(|| {
                let (queue, events) = mpsc::unbounded_channel();
                tokio::spawn(carry(Arc::clone(self), to, events));
                Direction { queue, open: true }
            });
            direction.open = true;
            let _ = direction.queue.send((nodes[&from].0.own(), Happens::Up { again }));
        }
    }

    /// There is none any more; what was under way is lost.
    fn cut(&self, one: u64, other: u64) {
        let ends = [(NodeId(one), NodeId(other)), (NodeId(other), NodeId(one))];
        let (mut links, nodes) = (lock(&self.links), lock(&self.nodes));
        self.lives.fetch_add(1, Ordering::AcqRel);
        for end in ends {
            if let Some(direction) = links.get_mut(&end) {
                direction.open = false;
                let _ = direction.queue.send((nodes[&end.0].0.own(), Happens::Down));
            }
        }
    }
}

async fn carry(network: Arc<Network>, to: NodeId, mut events: mpsc::UnboundedReceiver<(EdgeId, Happens)>) {
    while let Some((from, event)) = events.recv().await {
        let is_late = |life| life != network.lives.load(Ordering::Acquire);
        match event {
            Happens::Frame { life, .. } if is_late(life) => continue,
            Happens::Frame { .. } => tokio::time::sleep(DELAY).await,
            Happens::Up { .. } | Happens::Down => {}
        }
        let to = lock(&network.nodes)[&to].0.clone();
        match event {
            Happens::Up { again } => to.up(from, again),
            Happens::Frame { life, .. } if is_late(life) => {}
            Happens::Frame { frame, .. } => {
                network.frames.fetch_add(1, Ordering::Relaxed);
                to.message(from, frame);
            }
            Happens::Down => to.down(from),
        }
    }
}

impl Links for Wires {
    fn send(&self, to: NodeId, frame: Bytes) -> bool {
        let Some(network) = self.network.upgrade() else {
            return false;
        };
        let own = lock(&network.nodes)[&self.own].0.own();
        let links = lock(&network.links);
        let life = network.lives.load(Ordering::Acquire);
        let direction = links.get(&(self.own, to)).filter(|direction| direction.open);
        direction.is_some_and(|direction| direction.queue.send((own, Happens::Frame { life, frame })).is_ok())
    }

    fn break_link(&self, to: NodeId) {
        panic!("node {} does not understand node {}", self.own.0, to.0);
    }

    fn has_edge(&self, node: NodeId) -> bool {
        let network = self.network.upgrade();
        network.is_some_and(|network| lock(&network.nodes).get(&node).is_some_and(|(_, has_edge)| *has_edge))
    }

    fn is_member(&self, node: NodeId) -> bool {
        self.network
            .upgrade()
            .is_some_and(|network| lock(&network.nodes).contains_key(&node))
    }
}

/// A node: an edge, or shards, or both.
struct Half {
    middle: Middle,
    peering: Peering,
    edge: Option<(EdgePart, Listeners)>,
    core: CorePart,
    groups: Groups,
    store: Arc<MemoryStore>,
    _data: TempDir,
}

impl Half {
    async fn start(network: &Arc<Network>, node: u64, start: u64, shards: &[u16], has_edge: bool) -> Self {
        let store = Arc::new(MemoryStore::new(heronry_cluster::NodeId(node)));
        Self::start_upon(network, store, start, shards, has_edge, |_| ()).await
    }

    async fn start_upon(
        network: &Arc<Network>,
        store: Arc<MemoryStore>,
        start: u64,
        shards: &[u16],
        has_edge: bool,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.storage.data = data.path().to_owned();
        config.edge.c2s = vec!["127.0.0.1:0".parse().unwrap()];
        config.edge.c2s_tls = Vec::new();
        config.edge.threads = Some(2);
        config.core.threads = Some(2);
        config.auth.mechanisms = vec![Mechanism::ScramSha256];
        // This machine may be very busy.
        config.limits.shard.attach_timeout = Duration::from_secs(20);
        config.limits.shard.forward_timeout = Duration::from_secs(50);
        change(&mut config);
        let own = EdgeId {
            node: NodeId(store.node_id().0),
            start,
        };
        let middle = Middle::new(&config, own, Clock::start(), Run::Apart, Traces::off());
        let edge = has_edge.then(|| EdgePart::start(&config, &middle).unwrap());
        let groups = start_groups(&config, Arc::clone(&store) as _).await.unwrap();
        let mut led = groups.list();
        led.retain(|group| shards.contains(&group.shard().0));
        let core = CorePart::start(&config, &middle, Vec::new()).await.unwrap();
        let peering = Peering::new(&middle, Arc::clone(&core.shards));
        network.join(&peering, has_edge);
        for group in led {
            peering.add_shard(group).await.unwrap();
        }
        let edge = match edge {
            Some(part) => {
                let listeners = part.opening(&config).unwrap().await.unwrap();
                Some((part, listeners))
            }
            None => None,
        };
        Self {
            middle,
            peering,
            edge,
            core,
            groups,
            store,
            _data: data,
        }
    }

    /// Waits until the shards here evaluate.
    async fn leads(&self) {
        timeout(PATIENCE, self.middle.statuses.until_all_lead()).await.unwrap();
    }

    /// The process ends without a word.
    async fn die(self) -> Arc<MemoryStore> {
        let Self {
            edge,
            core,
            groups,
            store,
            ..
        } = self;
        drop(edge);
        core.shards.stop().await;
        groups.shutdown().await.unwrap();
        Arc::new(store.crash())
    }

    fn options(&self, name: &str) -> Options {
        let jid = BareJid::parse(&format!("{name}@localhost")).unwrap();
        let (_, listeners) = self.edge.as_ref().unwrap();
        Options::new(jid, Password::new(name).unwrap())
            .server(Server::Address(listeners.addresses(Begins::Clear)[0]))
            .tls(Tls::StartTls(Trust::dangerous_accept_any()))
            .resource("one")
    }

    async fn connect(&self, name: &str) -> Device {
        let (client, events) = timeout(PATIENCE, Client::connect(self.options(name)))
            .await
            .unwrap()
            .unwrap();
        client.set_presence(&Presence::available()).await.unwrap();
        client.flush().await.unwrap();
        Device { client, events }
    }
}

struct Device {
    client: Client,
    events: Events,
}

impl Device {
    async fn text(&mut self) -> String {
        loop {
            match timeout(PATIENCE, self.events.next()).await.unwrap().unwrap() {
                Event::Message(message) => {
                    let content = message.root_element().unwrap();
                    return content
                        .child("body", CLIENT)
                        .map(|body| body.text())
                        .unwrap_or_default();
                }
                Event::Presence(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Whether no message has come.
    async fn has_heard_nothing(&mut self) -> bool {
        loop {
            match timeout(Duration::from_millis(1), self.events.next()).await {
                Ok(Some(Event::Presence(_))) => {}
                heard => return heard.is_err(),
            }
        }
    }

    /// Its account answers.
    async fn is_served(&self) {
        let ping = Request::get(Element::new("ping", "urn:xmpp:ping")).within(PATIENCE);
        self.client.request(ping).await.unwrap();
    }

    /// Waits until the connection is lost, and says how.
    async fn lost(&mut self) -> Disconnect {
        loop {
            if let Event::Disconnected(how) = timeout(PATIENCE, self.events.next()).await.unwrap().unwrap() {
                return how;
            }
        }
    }

    async fn says(&self, to: &Self, text: &str) {
        let to = to.client.jid().bare();
        timeout(PATIENCE, self.client.send(message(to, text)))
            .await
            .unwrap()
            .unwrap();
    }
}

/// An account of one of these shards, whose password is its name.
async fn user(half: &Half, shards: &[u16], prefix: &str) -> String {
    let (name, jid) = (0..)
        .map(|number| format!("{prefix}{number}"))
        .map(|name| (name.clone(), BareJid::parse(&format!("{name}@localhost")).unwrap()))
        .find(|(_, jid)| shards.contains(&shard_of(half, jid).0))
        .unwrap();
    let password = Password::new(&name).unwrap();
    let keys = ScramKeys::derive(ScramHash::Sha256, &password, name.as_bytes(), 4096).unwrap();
    let (answer, answered) = oneshot::channel();
    let account = Account {
        jid: jid.clone(),
        keys: vec![keys],
    };
    let inbox = half.middle.inboxes.of(shard_of(half, &jid)).unwrap();
    inbox.control(Control::Administer {
        request: Box::new(Administer::Add(account)),
        answer,
    });
    timeout(PATIENCE, answered).await.unwrap().unwrap();
    name
}

fn shard_of(half: &Half, jid: &BareJid) -> ShardId {
    half.middle.map.shard_of(heronry_xmpp::jid::slot(jid.as_str()))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "{what}: not so");
}

/// An edge with half of the shards, and a core with the other half.
struct Pair {
    network: Arc<Network>,
    near: Half,
    far: Half,
    near_shards: Vec<u16>,
    far_shards: Vec<u16>,
}

impl Pair {
    async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// `change` is for the node with the edge.
    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let shards = Config::default().limits.group_options().shards;
        let (near_shards, far_shards): (Vec<u16>, Vec<u16>) = (0..shards).partition(|shard| shard % SHARDS < 2);
        let network = Arc::new(Network::default());
        let store = Arc::new(MemoryStore::new(heronry_cluster::NodeId(1)));
        let near = Half::start_upon(&network, store, 11, &near_shards, true, change).await;
        let far = Half::start(&network, 2, 21, &far_shards, false).await;
        network.connect(1, 2, false);
        near.leads().await;
        far.leads().await;
        Self {
            network,
            near,
            far,
            near_shards,
            far_shards,
        }
    }

    /// A device whose shard is on the edge's node, and one whose shard is on the other.
    async fn devices(&self) -> (Device, Device) {
        let juliet = user(&self.near, &self.near_shards, "juliet").await;
        let romeo = user(&self.far, &self.far_shards, "romeo").await;
        (self.near.connect(&juliet).await, self.near.connect(&romeo).await)
    }
}

/// Sends so many messages, and reads as many that come, in their order.
async fn talk(one: &mut Device, other: &mut Device, texts: std::ops::Range<usize>) {
    for text in texts.clone() {
        one.says(other, &format!("there {text}")).await;
        other.says(one, &format!("back {text}")).await;
    }
    for text in texts {
        assert_eq!(other.text().await, format!("there {text}"));
        assert_eq!(one.text().await, format!("back {text}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_of_shards_on_two_nodes_talk() {
    let pair = Pair::start().await;
    let (mut juliet, mut romeo) = pair.devices().await;
    talk(&mut juliet, &mut romeo, 0..100).await;
    assert!(
        pair.network.frames.load(Ordering::Relaxed) > 0,
        "nothing went over the link"
    );
    romeo.client.close().await;
    // Its session has ended, on the other node.
    let romeos = pair.far.middle.statuses.clone();
    until("the session is over", || romeos.sums().attached == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_breaks_loses_nothing_and_repeats_nothing() {
    let pair = Pair::start().await;
    let (mut juliet, mut romeo) = pair.devices().await;
    for round in 0..4 {
        let first = round * 60;
        for text in first..first + 30 {
            juliet.says(&romeo, &format!("there {text}")).await;
            romeo.says(&juliet, &format!("back {text}")).await;
        }
        pair.network.cut(1, 2);
        for text in first + 30..first + 40 {
            juliet.says(&romeo, &format!("there {text}")).await;
        }
        pair.network.connect(1, 2, true);
        for text in first..first + 40 {
            assert_eq!(romeo.text().await, format!("there {text}"));
        }
        for text in first..first + 30 {
            assert_eq!(juliet.text().await, format!("back {text}"));
        }
        talk(&mut juliet, &mut romeo, first + 40..first + 60).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_that_dies_is_replaced_and_no_device_notices() {
    let pair = Pair::start().await;
    let (mut juliet, mut romeo) = pair.devices().await;
    for text in 0..30 {
        juliet.says(&romeo, &format!("there {text}")).await;
        romeo.says(&juliet, &format!("back {text}")).await;
    }
    let Pair {
        network,
        near,
        far,
        far_shards,
        ..
    } = pair;
    let died = far.peering.own();
    network.cut(1, 2);
    let store = far.die().await;
    near.peering.lost(died);
    for text in 30..40 {
        juliet.says(&romeo, &format!("there {text}")).await;
    }
    let far = Half::start_upon(&network, store, 22, &far_shards, false, |_| ()).await;
    network.connect(1, 2, false);
    for text in 0..40 {
        assert_eq!(romeo.text().await, format!("there {text}"));
    }
    for text in 0..30 {
        assert_eq!(juliet.text().await, format!("back {text}"));
    }
    talk(&mut juliet, &mut romeo, 40..60).await;
    far.leads().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sessions_of_an_edge_that_died_are_over_where_its_shards_are() {
    let shards: Vec<u16> = (0..Config::default().limits.group_options().shards).collect();
    let network = Arc::new(Network::default());
    let core = Half::start(&network, 1, 11, &shards, false).await;
    let (first, second) = (
        Half::start(&network, 2, 21, &[], true).await,
        Half::start(&network, 3, 31, &[], true).await,
    );
    for (one, other) in [(1, 2), (1, 3), (2, 3)] {
        network.connect(one, other, false);
    }
    core.leads().await;
    let (juliet, romeo) = (
        user(&core, &shards, "juliet").await,
        user(&core, &shards, "romeo").await,
    );
    let mut juliets = first.connect(&juliet).await;
    let mut romeos = second.connect(&romeo).await;
    talk(&mut juliets, &mut romeos, 0..20).await;

    let died = second.peering.own();
    network.cut(1, 3);
    core.peering.lost(died);
    let statuses = Arc::clone(&core.middle.statuses);
    // What the client of the dead edge had enabled may be resumed; nothing of it is attached any more.
    until("one device is left", || statuses.sums().attached <= 1).await;
    juliets.says(&romeos, "are you there?").await;
    let mut again = first.connect(&romeo).await;
    // What the dead edge had not said was written may come a second time.
    while again.text().await != "are you there?" {}
    talk(&mut juliets, &mut again, 20..30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_goes_and_comes_while_devices_wait() {
    let pair = Pair::start().await;
    let (mut juliet, mut romeo) = pair.devices().await;
    let shard = shard_of(&pair.near, &romeo.client.jid().bare());
    talk(&mut juliet, &mut romeo, 0..10).await;
    pair.far.peering.remove_shard(shard).await;
    assert!(!pair.far.middle.inboxes.of(shard).unwrap().is_here());
    for text in 10..20 {
        romeo.says(&juliet, &format!("back {text}")).await;
        juliet.says(&romeo, &format!("there {text}")).await;
    }
    let group = pair.far.groups.group(heronry_cluster::ShardId(shard.0)).unwrap();
    pair.far.peering.add_shard(group).await.unwrap();
    for text in 10..20 {
        assert_eq!(juliet.text().await, format!("back {text}"));
        assert_eq!(romeo.text().await, format!("there {text}"));
    }
}

/// The term a shard is in, as the edge's node knows it.
fn term_at(half: &Half, shard: ShardId) -> Option<u64> {
    half.middle.statuses.term(shard)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_its_lease_does_nothing_and_goes_on_when_it_has_it() {
    let pair = Pair::start().await;
    let (mut juliet, mut romeo) = pair.devices().await;
    talk(&mut juliet, &mut romeo, 0..10).await;
    let shard = shard_of(&pair.near, &romeo.client.jid().bare());
    let began = pair.near.middle.hub.term_led(shard).unwrap();

    pair.far.middle.router.withhold_leases(true);
    for text in 10..20 {
        juliet.says(&romeo, &format!("there {text}")).await;
        romeo.says(&juliet, &format!("back {text}")).await;
    }
    // After a while edges hear that nobody leads. Until then nothing has come.
    until("nobody leads", || pair.near.middle.hub.term_led(shard).is_none()).await;
    assert!(romeo.has_heard_nothing().await && juliet.has_heard_nothing().await);

    pair.far.middle.router.withhold_leases(false);
    for text in 10..20 {
        assert_eq!(romeo.text().await, format!("there {text}"));
        assert_eq!(juliet.text().await, format!("back {text}"));
    }
    until("another round", || {
        let now = pair.near.middle.hub.term_led(shard);
        now.is_some_and(|now| (now.term, now.round) == (began.term, began.round + 1))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leadership_that_is_lost_and_regained_in_its_term_begins_another_round() {
    let pair = Pair::start().await;
    let (mut juliet, mut romeo) = pair.devices().await;
    let shard = shard_of(&pair.near, &romeo.client.jid().bare());
    let began = pair.near.middle.hub.term_led(shard).unwrap();
    let inbox = pair.far.middle.inboxes.of(shard).unwrap();
    for round in 1..=3 {
        juliet.says(&romeo, &format!("there {round}")).await;
        romeo.says(&juliet, &format!("back {round}")).await;
        inbox.leadership(Leadership::Follower { leader: None });
        inbox.leadership(Leadership::Leader {
            term: heronry_cluster::Term(began.term),
        });
        assert_eq!(romeo.text().await, format!("there {round}"));
        assert_eq!(juliet.text().await, format!("back {round}"));
        until("another round", || {
            let now = pair.near.middle.hub.term_led(shard);
            now.is_some_and(|now| now.term == began.term && now.round == began.round + round)
        })
        .await;
    }
    assert_eq!(term_at(&pair.far, shard), Some(began.term));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_closes_the_sockets_of_shards_that_nobody_leads() {
    let pair = Pair::start_with(|config| config.limits.edge.orphan_timeout = Duration::from_secs(1)).await;
    let (juliet, mut romeo) = pair.devices().await;
    pair.network.cut(1, 2);
    // It waits for nothing, and cannot know that it is not reached.
    let Disconnect::Refused(error) = romeo.lost().await else {
        panic!("it is not told why");
    };
    assert_eq!(error.condition, StreamCondition::Reset);
    // The other has its shard here.
    juliet.is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_comes_too_late_closes_the_sockets_of_sessions_that_were_given_up() {
    let pair = Pair::start().await;
    let (juliet, mut romeo) = pair.devices().await;
    let Pair {
        network,
        far,
        far_shards,
        ..
    } = pair;
    network.cut(1, 2);
    let store = far.die().await;
    let impatient = |config: &mut Config| config.limits.shard.attach_timeout = Duration::from_millis(100);
    let far = Half::start_upon(&network, store, 22, &far_shards, false, impatient).await;
    // It waits for the edge, which does not come.
    far.leads().await;
    network.connect(1, 2, false);
    let Disconnect::Refused(error) = romeo.lost().await else {
        panic!("it is not told why");
    };
    assert_eq!(error.condition, StreamCondition::Reset);
    juliet.is_served().await;
}
