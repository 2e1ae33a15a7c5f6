//! Members over real connections: how a cluster comes about, who is let in, what all know.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use heronry_cluster::{
    MemoryStore, NodeId, Options, PeerId, ShardId,
    map::{ClusterMap, Command, METADATA, MemberState, Newcomer, Roles, Services},
    member::{Drawn, Member, MemberOptions, Neighbours, OperatorError},
    transport::{Security, Tcp, TransportLimits},
};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(60);
const SHARDS: u16 = 3;

static PLACES: AtomicU32 = AtomicU32::new(1);
static STARTS: AtomicU64 = AtomicU64::new(1);

/// Keeps what neighbours say.
#[derive(Default)]
struct Heard(Mutex<Vec<(PeerId, Bytes)>>);

impl Neighbours for Heard {
    fn message(&self, from: PeerId, message: Bytes) {
        self.0.lock().unwrap().push((from, message));
    }
    fn call(&self, from: PeerId, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move {
            match &request[..] {
                b"nonsense" => Err("that is nonsense".to_owned()),
                _ => Ok([format!("heard from {}: ", from.node).as_bytes(), &request]
                    .concat()
                    .into()),
            }
        })
    }
    fn up(&self, _: PeerId, _: bool) {}
    fn down(&self, _: PeerId) {}
}

/// A machine: a disk, an address, and the process on it.
struct Machine {
    store: MemoryStore,
    address: SocketAddr,
    heard: Arc<Heard>,
    member: Option<Member>,
    options: MemberOptions,
}

impl Machine {
    fn new(node: u64) -> Self {
        // Every machine has an address of its own, and the same port.
        let place = PLACES.fetch_add(1, Ordering::Relaxed);
        assert!(place < 16);
        // Tests are processes, sixteen addresses each.
        let [_, b, c, d] = ((std::process::id() << 4) | place).to_be_bytes();
        let ip = Ipv4Addr::new(127, 64 | b, c, d);
        let address = SocketAddr::from((ip, 5269));
        let me = Newcomer {
            node: NodeId(node),
            roles: Roles { edge: true, core: true },
            address: address.to_string(),
            zone: String::new(),
            feature_level: 1,
            version: "0.1.0".to_owned(),
            services: Services::new(),
        };
        let options = MemberOptions {
            me,
            cluster_name: "test".to_owned(),
            seeds: Vec::new(),
            bootstrap: None,
            listen: Some(address),
            security: Security::Plain,
            groups: Options {
                shards: SHARDS,
                threads: 0,
                ..Options::default()
            },
            transport: TransportLimits::default(),
        };
        Self {
            store: MemoryStore::new(NodeId(node)),
            address,
            heard: Arc::default(),
            member: None,
            options,
        }
    }

    fn seeds(mut self, seeds: &[SocketAddr]) -> Self {
        self.options.seeds = seeds.iter().map(ToString::to_string).collect();
        self
    }

    async fn start(&mut self) -> Member {
        let start = STARTS.fetch_add(1, Ordering::Relaxed);
        let drawn = Drawn {
            start,
            cluster: u128::from(start) << 64 | u128::from(std::process::id()),
        };
        let store = Arc::new(self.store.clone());
        let begun = Instant::now();
        let member = loop {
            // The address of a process that has just ended may not be free yet.
            let heard = Arc::clone(&self.heard) as _;
            match Member::start(Tcp, Arc::clone(&store) as _, drawn, self.options.clone(), heard).await {
                Ok(member) => break member,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
            sleep(Duration::from_millis(50)).await;
        };
        self.member = Some(member.clone());
        member
    }

    /// The process ends as it should.
    async fn stop(&mut self) {
        self.member.take().unwrap().shutdown().await.unwrap();
        self.store = self.store.crash();
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn nodes(member: &Member) -> BTreeSet<u64> {
    let map = member.map().borrow().clone();
    map.map_or_else(BTreeSet::new, |map| map.members().map(|(node, _)| node.0).collect())
}

/// Any command, until whoever must carry it out can be reached.
async fn command(member: &Member, command: &Command) -> Arc<ClusterMap> {
    let begun = Instant::now();
    loop {
        match member.command(command).await {
            Ok(map) => return map,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn without_seeds_a_cluster_of_one_is_founded_and_found_again() {
    let mut machine = Machine::new(1);
    let member = machine.start().await;
    until("it is a member", || nodes(&member) == BTreeSet::from([1])).await;
    until("it has its groups", || {
        member.groups().list().len() == usize::from(SHARDS) + 1
    })
    .await;
    let cluster = member.map().borrow().clone().unwrap().cluster;
    machine.stop().await;
    let member = machine.start().await;
    until("it is a member again", || nodes(&member) == BTreeSet::from([1])).await;
    assert_eq!(member.map().borrow().clone().unwrap().cluster, cluster);
    machine.stop().await;
}

#[tokio::test]
async fn who_has_seeds_waits_until_a_cluster_begins_and_is_let_in() {
    let (mut one, two, three) = (Machine::new(1), Machine::new(2), Machine::new(3));
    let seeds = [one.address, two.address];
    one = one.seeds(&seeds);
    let (mut two, mut three) = (two.seeds(&seeds), three.seeds(&seeds));
    let members = [one.start().await, two.start().await, three.start().await];
    sleep(Duration::from_millis(300)).await;
    for member in &members {
        assert!(nodes(member).is_empty());
        assert!(member.waits_for().contains("cluster init"), "{}", member.waits_for());
    }
    members[1].init(false).await.unwrap();
    for member in &members {
        until("all are members", || nodes(member) == BTreeSet::from([1, 2, 3])).await;
        // Said again, anywhere, it changes nothing.
        member.init(false).await.unwrap();
    }
    let clusters: BTreeSet<_> = members
        .iter()
        .map(|member| member.map().borrow().clone().unwrap().cluster)
        .collect();
    assert_eq!(clusters.len(), 1);
    // Everybody can have the map changed, and everybody hears of it.
    let name = "moves_max".to_owned();
    let map = command(
        &members[2],
        &Command::SetSetting {
            name,
            value: Some("7".to_owned()),
        },
    )
    .await;
    for member in &members {
        until("all know the new map", || {
            member
                .map()
                .borrow()
                .as_ref()
                .is_some_and(|known| known.version >= map.version)
        })
        .await;
    }
    for machine in [&mut one, &mut two, &mut three] {
        machine.stop().await;
    }
}

#[tokio::test]
async fn three_that_shall_found_a_cluster_together_do_and_only_one() {
    let machines: Vec<_> = (1..=3).map(Machine::new).collect();
    let seeds: Vec<_> = machines.iter().map(|machine| machine.address).collect();
    let mut machines: Vec<_> = machines
        .into_iter()
        .map(|machine| {
            let mut machine = machine.seeds(&seeds);
            machine.options.bootstrap = Some(3);
            machine
        })
        .collect();
    let mut members = Vec::new();
    for machine in &mut machines {
        members.push(machine.start().await);
    }
    for member in &members {
        until("all are members", || nodes(member) == BTreeSet::from([1, 2, 3])).await;
    }
    let clusters: BTreeSet<_> = members
        .iter()
        .map(|member| member.map().borrow().clone().unwrap().cluster)
        .collect();
    assert_eq!(clusters.len(), 1);
    for machine in &mut machines {
        machine.stop().await;
    }
}

#[tokio::test]
async fn messages_arrive_in_order_and_shards_survive_their_leader() {
    let machines: Vec<_> = (1..=3).map(Machine::new).collect();
    let seeds = [machines[0].address];
    let mut machines: Vec<_> = machines
        .into_iter()
        .enumerate()
        .map(|(index, machine)| if index == 0 { machine } else { machine.seeds(&seeds) })
        .collect();
    let mut members = Vec::new();
    for machine in &mut machines {
        members.push(machine.start().await);
    }
    for member in &members {
        until("all are members", || nodes(member) == BTreeSet::from([1, 2, 3])).await;
    }
    let one = NodeId(1);
    let (name, value) = ("settle_after".to_owned(), Some("0s".to_owned()));
    command(&members[1], &Command::SetSetting { name, value }).await;
    placed(&members[2], &[1, 2, 3]).await;
    until("links are up", || members[1].connected(NodeId(3)).is_some()).await;
    for number in 0..100u8 {
        members[1].send(NodeId(3), Bytes::copy_from_slice(&[number]));
    }
    until("messages arrive", || machines[2].heard.0.lock().unwrap().len() == 100).await;
    let heard = machines[2].heard.0.lock().unwrap().clone();
    assert!(
        heard
            .iter()
            .enumerate()
            .all(|(at, (from, message))| from.node == NodeId(2) && message[0] as usize == at)
    );

    let three = NodeId(3);
    let asked = members[1].ask(three, Bytes::from_static(b"who"), PATIENCE).await;
    assert_eq!(asked.as_deref(), Ok(&b"heard from 0000000000000002: who"[..]));
    let asked = members[1].ask(three, Bytes::from_static(b"nonsense"), PATIENCE).await;
    assert!(asked.is_err_and(|error| error.contains("that is nonsense")));
    let large = Bytes::from(vec![0; TransportLimits::default().call_bytes_max + 1]);
    assert!(members[1].ask(three, large, PATIENCE).await.is_err());

    machines[0].stop().await;
    for shard in [METADATA, ShardId(0)] {
        until("another leads", || {
            members[1..].iter().any(|member| {
                member
                    .report()
                    .groups
                    .iter()
                    .any(|group| group.shard == shard && group.leads.is_some())
            })
        })
        .await;
    }
    let gone = Command::SetState {
        node: one,
        state: MemberState::Evicted,
    };
    let map = command(&members[2], &gone).await;
    assert_eq!(map.nodes[&one].state, MemberState::Evicted);
    machines[0].options.seeds = vec![machines[1].address.to_string()];
    // Who was evicted is not let in again.
    let member = machines[0].start().await;
    sleep(Duration::from_secs(2)).await;
    until("the others do not know it", || !nodes(&members[1]).contains(&1)).await;
    drop(member);
    for machine in &mut machines {
        machine.stop().await;
    }
}

async fn placed(member: &Member, nodes: &[u64]) {
    let nodes: BTreeSet<_> = nodes.iter().copied().map(NodeId).collect();
    let begun = Instant::now();
    loop {
        let seen = match member.overview().await {
            Ok(overview) => {
                let shards = usize::from(SHARDS) + 1;
                let of_nodes =
                    |report: &heronry_cluster::controller::ShardReport| report.voters == nodes && !report.changing;
                let settled = overview.progress == heronry_cluster::controller::Progress::default();
                if settled && overview.shards.len() == shards && overview.shards.values().all(of_nodes) {
                    return;
                }
                format!("{:?} {:?}", overview.progress, overview.shards)
            }
            Err(error) => error.to_string(),
        };
        assert!(begun.elapsed() < PATIENCE, "not on {nodes:?}: {seen}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_cluster_places_its_shards_by_itself_and_again_when_nodes_go() {
    let machines: Vec<_> = (1..=4).map(Machine::new).collect();
    let seeds = [machines[0].address, machines[1].address];
    let mut machines: Vec<_> = machines.into_iter().map(|machine| machine.seeds(&seeds)).collect();
    let mut members = Vec::new();
    for machine in &mut machines[..3] {
        members.push(machine.start().await);
    }
    members[0].init(false).await.unwrap();
    for member in &members {
        until("all are members", || nodes(member) == BTreeSet::from([1, 2, 3])).await;
    }
    let name = "settle_after".to_owned();
    let value = Some("0s".to_owned());
    command(&members[1], &Command::SetSetting { name, value }).await;
    placed(&members[2], &[1, 2, 3]).await;
    // Leaderships are spread, too.
    let leaders = members[1].overview().await.unwrap().shards;
    let leaders: BTreeSet<_> = leaders.values().map(|report| report.leader).collect();
    assert_eq!(leaders.len(), 3);

    // Who drains gives everything away, once there is somebody else.
    members.push(machines[3].start().await);
    until("the fourth is a member", || nodes(&members[3]).contains(&4)).await;
    let begun = Instant::now();
    while let Err(error) = members[3].drain(NodeId(1)).await {
        assert!(begun.elapsed() < PATIENCE, "{error}");
        sleep(Duration::from_millis(100)).await;
    }
    placed(&members[2], &[2, 3, 4]).await;
    until("it has left", || nodes(&members[2]) == BTreeSet::from([2, 3, 4])).await;
    machines[0].stop().await;

    // Of three, one may be evicted, dead or not; of the two that are left none.
    machines[1].stop().await;
    let begun = Instant::now();
    while let Err(error) = members[3].evict(NodeId(2), false).await {
        assert!(begun.elapsed() < PATIENCE, "{error}");
        sleep(Duration::from_millis(100)).await;
    }
    until("it is gone", || nodes(&members[2]) == BTreeSet::from([3, 4])).await;
    let refused = members[2].evict(NodeId(3), false).await;
    assert!(matches!(refused, Err(OperatorError::NoEvict(_))), "{refused:?}");
    for machine in &mut machines[2..] {
        machine.stop().await;
    }
}

#[tokio::test]
async fn a_member_without_the_metadata_changes_the_map_whoever_leads_it() {
    let machines: Vec<_> = (1..=4).map(Machine::new).collect();
    let seeds: Vec<_> = machines.iter().map(|machine| machine.address).collect();
    let mut machines: Vec<_> = machines.into_iter().map(|machine| machine.seeds(&seeds)).collect();
    machines[3].options.me.roles.core = false;
    let mut members = Vec::new();
    for machine in &mut machines {
        members.push(machine.start().await);
    }
    members[0].init(false).await.unwrap();
    for member in &members {
        until("all are members", || nodes(member) == BTreeSet::from([1, 2, 3, 4])).await;
    }
    let setting = |value: &str| Command::SetSetting {
        name: "settle_after".to_owned(),
        value: Some(value.to_owned()),
    };
    command(&members[1], &setting("0s")).await;
    placed(&members[2], &[1, 2, 3]).await;
    // One of them is asked first, and another leads in the end.
    for (machine, seconds) in [(0, "1s"), (1, "2s")] {
        machines[machine].stop().await;
        command(&members[3], &setting(seconds)).await;
        members[machine] = machines[machine].start().await;
        placed(&members[2], &[1, 2, 3]).await;
    }
    command(&members[3], &setting("3s")).await;
    for machine in &mut machines {
        machine.stop().await;
    }
}

#[tokio::test]
async fn a_member_that_starts_again_elsewhere_with_another_program_is_known_as_what_it_is() {
    let machines: Vec<_> = (1..=3).map(Machine::new).collect();
    let seeds: Vec<_> = machines.iter().map(|machine| machine.address).collect();
    let mut machines: Vec<_> = machines.into_iter().map(|machine| machine.seeds(&seeds)).collect();
    let mut members = Vec::new();
    for machine in &mut machines {
        members.push(machine.start().await);
    }
    members[0].init(false).await.unwrap();
    for member in &members {
        until("all are members", || nodes(member) == BTreeSet::from([1, 2, 3])).await;
    }
    // The others look for the last one where it was, and it does not look for them.
    machines[2].stop().await;
    let elsewhere = Machine::new(3);
    machines[2].options.listen = Some(elsewhere.address);
    machines[2].options.me.address = elsewhere.address.to_string();
    machines[2].options.me.version = "0.2.0".to_owned();
    machines[2].options.me.feature_level = 2;
    members[2] = machines[2].start().await;
    for member in &members {
        until("it is known", || {
            let map = member.map().borrow().clone().unwrap();
            let known = &map.nodes[&NodeId(3)];
            known.address == elsewhere.address.to_string() && known.version == "0.2.0" && known.feature_level == 2
        })
        .await;
    }
    assert_eq!(members[0].map().borrow().as_ref().unwrap().feature_level, 1);
    // It is spoken to there.
    until("it leads or follows", || members[2].groups().group(METADATA).is_some()).await;
    for machine in &mut machines {
        machine.stop().await;
    }
}
