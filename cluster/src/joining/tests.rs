use std::time::Duration;

use bytes::Bytes;
use heronry_storage::ShardId;
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::{
    identity::ClusterId,
    map::{Command, MemberState, Roles, Services},
};

fn newcomer(node: u64) -> Newcomer {
    Newcomer {
        node: NodeId(node),
        roles: Roles { edge: true, core: true },
        address: address(node),
        zone: String::new(),
        feature_level: 1,
        version: "0.1.0".to_owned(),
        services: Services::new(),
    }
}

fn address(node: u64) -> String {
    format!("node-{node}:5270")
}

fn options(node: u64, seeds: &[u64], bootstrap: Option<u16>) -> JoinOptions {
    JoinOptions {
        me: newcomer(node),
        cluster_name: "colony".to_owned(),
        seeds: seeds.iter().copied().map(address).collect(),
        bootstrap,
        shards: 2,
        has_data: false,
    }
}

/// What goes wrong in a world, each one in so many.
#[derive(Clone, Copy, Debug)]
struct Faults {
    lost: u64,
    twice: u64,
    restarts: u64,
}

const NONE: Faults = Faults {
    lost: 0,
    twice: 0,
    restarts: 0,
};

/// Nodes that are to come into a cluster, their disks, and a network that keeps no order.
struct World {
    nodes: BTreeMap<NodeId, Node>,
    network: Vec<Message>,
    /// Where a node is: disks may be replaced.
    addresses: BTreeMap<String, NodeId>,
    /// The clusters there are, as their metadata groups have them.
    clusters: BTreeMap<ClusterId, (NodeId, ClusterMap)>,
    /// Questions that were given to a process: who asked, in which of its processes, under which number.
    tickets: Vec<Caller>,
    now: Instant,
    random: u64,
    faults: Faults,
    said: Vec<(NodeId, String)>,
}

/// A process and its call.
type Caller = (NodeId, u64, u64);

struct Node {
    options: JoinOptions,
    disk: Standing,
    /// `None`: it is down.
    process: Option<Process>,
    starts: u64,
}

struct Process {
    start: u64,
    joining: Joining,
    member: Option<Box<ClusterMap>>,
    /// What is being written.
    writing: Option<Standing>,
}

/// A call on its way.
#[derive(Clone, Debug)]
enum Message {
    Ask { from: Caller, address: String, ask: Bytes },
    Answer { to: Caller, answer: Bytes },
}

impl World {
    fn new(nodes: Vec<JoinOptions>, seed: u64, faults: Faults) -> Self {
        let mut world = Self {
            nodes: BTreeMap::new(),
            network: Vec::new(),
            addresses: BTreeMap::new(),
            clusters: BTreeMap::new(),
            tickets: Vec::new(),
            now: Instant::now(),
            random: seed,
            faults,
            said: Vec::new(),
        };
        for options in nodes {
            world.add(options);
        }
        world
    }

    fn add(&mut self, options: JoinOptions) {
        let node = options.me.node;
        self.addresses.insert(options.me.address.clone(), node);
        self.nodes.insert(
            node,
            Node {
                options,
                disk: Standing::Alone,
                process: None,
                starts: 0,
            },
        );
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn one_in(&mut self, many: u64) -> bool {
        many > 0 && self.random().is_multiple_of(many)
    }

    fn pick(&mut self, many: usize) -> usize {
        (self.random() % many as u64) as usize
    }

    fn start(&mut self, node: NodeId) {
        let (cluster, random, now) = (ClusterId(self.random().into()), self.random(), self.now);
        let it = self.nodes.get_mut(&node).unwrap();
        it.starts += 1;
        let joining = Joining::new(it.options.clone(), it.disk.clone(), cluster, random, now).unwrap();
        it.process = Some(Process {
            start: it.starts,
            joining,
            member: None,
            writing: None,
        });
        self.act(node);
    }

    /// The process dies; what was being written is on the disk, or not.
    fn stop(&mut self, node: NodeId) {
        let written = self.one_in(2);
        let it = self.nodes.get_mut(&node).unwrap();
        let process = it.process.take();
        if let Some(standing) = process.and_then(|process| process.writing).filter(|_| written) {
            self.write(node, standing);
        }
    }

    fn write(&mut self, node: NodeId, standing: Standing) {
        if let Standing::Member(map) = &standing
            && map.version == 0
            && !self.clusters.contains_key(&map.cluster)
        {
            self.clusters.insert(map.cluster, (node, (**map).clone()));
        }
        self.nodes.get_mut(&node).unwrap().disk = standing;
    }

    /// Does what a node wants done.
    fn act(&mut self, node: NodeId) {
        let Some(process) = self.nodes.get_mut(&node).and_then(|node| node.process.as_mut()) else {
            return;
        };
        for action in process.joining.poll(self.now) {
            match action {
                Action::Call { number, address, ask } => {
                    let from = (node, process.start, number);
                    self.network.push(Message::Ask { from, address, ask });
                }
                Action::Reply { ticket, answer } => {
                    let to = self.tickets[ticket as usize];
                    self.network.push(Message::Answer { to, answer });
                }
                Action::Keep(standing) => {
                    let standing = Standing::decode(&standing.encode()).unwrap();
                    assert!(
                        process.writing.replace(standing).is_none(),
                        "two things are written at once"
                    );
                }
                Action::Say(sentence) => self.said.push((node, sentence)),
                Action::Done(map) => process.member = Some(map),
            }
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Ask { from, address, ask } => {
                let Some(node) = self.addresses.get(&address).copied() else {
                    return;
                };
                let Some(process) = self.nodes.get_mut(&node).and_then(|node| node.process.as_mut()) else {
                    return;
                };
                if let Some(map) = &process.member {
                    let cluster = map.cluster;
                    let answer = self.admit(node, cluster, &Ask::decode(&ask).unwrap());
                    let answer = answer.encode();
                    return self.network.push(Message::Answer { to: from, answer });
                }
                self.tickets.push(from);
                process.joining.asked(self.tickets.len() as u64 - 1, &ask, self.now);
                self.act(node);
            }
            Message::Answer { to, answer } => {
                let (node, start, number) = to;
                let Some(process) = self.nodes.get_mut(&node).and_then(|node| node.process.as_mut()) else {
                    return;
                };
                if process.start == start {
                    process.joining.answered(number, Ok(answer), self.now);
                    self.act(node);
                }
            }
        }
    }

    /// What a member answers: the founder leads the metadata group whenever it is up.
    fn admit(&mut self, node: NodeId, cluster: ClusterId, ask: &Ask) -> Answer {
        let is_up = |node: &NodeId| {
            let process = self.nodes[node].process.as_ref();
            process.is_some_and(|process| process.member.is_some())
        };
        let (founder, truth) = &self.clusters[&cluster];
        let leads = match is_up(founder) {
            true if *founder == node => Leads::Here,
            true => Leads::There(*founder),
            false => Leads::Nowhere,
        };
        match admit(truth, "colony", leads, ask) {
            Admission::Answer(answer) => answer,
            Admission::Forward(leader) => self.admit(leader, cluster, ask),
            Admission::Propose(command) => {
                let command = Command::decode(&command.encode()).unwrap();
                let map = truth
                    .with(&command.evaluate(truth).unwrap(), truth.version + 1)
                    .unwrap();
                self.clusters.insert(cluster, (*founder, map.clone()));
                Answer::Admitted(Box::new(map))
            }
        }
    }

    /// One thing happens.
    fn step(&mut self) {
        let nodes: Vec<_> = self.nodes.keys().copied().collect();
        let node = nodes[self.pick(nodes.len())];
        if self.one_in(self.faults.restarts) {
            self.stop(node);
        }
        if self.nodes[&node].process.is_none() {
            return self.start(node);
        }
        match self.pick(8) {
            0 => {
                let passed = self.pick(300) as u64;
                self.now += Duration::from_millis(passed);
                nodes.into_iter().for_each(|node| self.act(node));
            }
            1 | 2 => {
                let process = self.nodes.get_mut(&node).unwrap().process.as_mut().unwrap();
                let Some(standing) = process.writing.take() else { return };
                process.joining.kept();
                self.write(node, standing);
                self.act(node);
            }
            _ if self.network.is_empty() => {}
            _ => {
                let at = self.pick(self.network.len());
                let message = self.network[at].clone();
                let (lost, twice) = (self.one_in(self.faults.lost), self.one_in(self.faults.twice));
                if !twice {
                    self.network.swap_remove(at);
                }
                if !lost {
                    self.deliver(message);
                }
            }
        }
        assert!(self.clusters.len() <= 1, "two clusters: {:?}", self.clusters);
    }

    fn run(&mut self, steps: usize) -> &mut Self {
        (0..steps).for_each(|_| self.step());
        self
    }

    fn is_one_cluster(&self) -> bool {
        self.clusters.len() == 1
            && self.nodes.values().all(|node| {
                let process = node.process.as_ref();
                process.is_some_and(|process| process.member.is_some()) && matches!(node.disk, Standing::Member(_))
            })
    }

    /// Nothing goes wrong any more.
    #[track_caller]
    fn ends_in_one_cluster(&mut self) -> &ClusterMap {
        self.faults = NONE;
        let mut steps = 0;
        while !self.is_one_cluster() {
            self.step();
            steps += 1;
            assert!(
                steps < 60_000,
                "it never ends: {:#?}",
                self.said.iter().rev().take(8).collect::<Vec<_>>()
            );
        }
        let (_, map) = self.clusters.values().next().unwrap();
        assert!(
            self.nodes
                .keys()
                .all(|node| map.nodes[node].state == MemberState::Active)
        );
        map
    }

    fn process(&mut self, node: u64) -> &mut Joining {
        &mut self
            .nodes
            .get_mut(&NodeId(node))
            .unwrap()
            .process
            .as_mut()
            .unwrap()
            .joining
    }

    /// What a node has said last.
    fn last_said(&self, node: u64) -> &str {
        let mut said = self.said.iter().rev();
        said.find(|(by, _)| *by == NodeId(node))
            .map_or("", |(_, sentence)| sentence)
    }
}

#[test]
fn a_node_without_seeds_founds_a_cluster_of_itself() {
    let mut world = World::new(vec![options(1, &[], None)], 1, NONE);
    let map = world.ends_in_one_cluster();
    assert_eq!(map.shards[&ShardId(1)].target, [NodeId(1)]);
}

#[test]
fn nodes_with_seeds_wait_say_so_and_never_found() {
    let mut world = World::new(vec![options(1, &[1, 2], None), options(2, &[1, 2], None)], 1, NONE);
    let began = world.now;
    world.run(5_000);
    assert!(world.clusters.is_empty());
    assert_eq!(
        world.last_said(1),
        "waiting to be let into cluster \"colony\": node-1:5270 has not answered; node-2:5270 waits as well; if there is no \
         cluster yet, run `heronry cluster init` at one node"
    );
    // Every ten seconds, not more often.
    let turns = world.now.duration_since(began).as_secs() as usize / 10;
    let said = world.said.iter().filter(|(node, _)| *node == NodeId(1)).count();
    assert!(
        turns > 5 && said.abs_diff(turns) <= 1,
        "{said} sentences in {turns} times ten seconds"
    );
}

#[test]
fn an_operator_s_word_founds_and_saying_it_again_changes_nothing() {
    let nodes = (1..=3).map(|node| options(node, &[1, 2, 3], None)).collect();
    let mut world = World::new(nodes, 2, NONE);
    world.run(1_000);
    world.process(2).init(false).unwrap();
    world.process(2).init(false).unwrap();
    world.act(NodeId(2));
    world.ends_in_one_cluster();
    world.process(2).init(false).unwrap();
}

#[test]
fn who_waits_for_a_cluster_that_is_there_does_not_found_another() {
    let mut world = World::new(vec![options(1, &[], None), options(2, &[1], None)], 3, NONE);
    world.ends_in_one_cluster();
    let late = Newcomer {
        feature_level: 0,
        ..newcomer(3)
    };
    world.add(JoinOptions {
        me: late,
        ..options(3, &[1], None)
    });
    world.run(5_000);
    let refused = world.process(3).init(false).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "there is a cluster, which this node waits to be let into: node-1:5270 says: the cluster writes feature level 1, but \
         node 0000000000000003 knows levels up to 0 only; upgrade it"
    );
}

#[test]
fn a_pledged_node_does_not_found_on_its_own() {
    let mut refused = 0;
    for seed in 0..20 {
        let nodes = (1..=2).map(|node| options(node, &[1, 2], Some(2))).collect();
        let mut world = World::new(nodes, seed, NONE);
        while !matches!(world.nodes[&NodeId(2)].disk, Standing::Pledged { .. }) {
            world.step();
        }
        // The candidate dies, with or without having founded.
        world.stop(NodeId(1));
        match world.process(2).init(false) {
            Err(NoInit::Pledged { to: NodeId(1), .. }) => refused += 1,
            other => panic!("{other:?}"),
        }
        world.ends_in_one_cluster();
    }
    assert_eq!(refused, 20);
}

#[test]
fn a_pledge_ends_by_what_is_said_after_it_was_given_and_not_by_what_was_said_before() {
    let mut now = Instant::now();
    let mut joining = Joining::new(options(2, &[1, 2], Some(2)), Standing::Alone, ClusterId(1), 1, now).unwrap();
    let call = |joining: &mut Joining, now: Instant| {
        let mut actions = joining.poll(now).into_iter();
        actions.find_map(|action| match action {
            Action::Call { number, .. } => Some(number),
            _ => None,
        })
    };
    let about = |is_candidate| About {
        node: newcomer(1),
        cluster_name: "colony".to_owned(),
        is_empty: true,
        bootstrap: Some(2),
        seeds: [(address(1), Some(NodeId(1))), (address(2), Some(NodeId(2)))].into(),
        is_candidate,
        pledged_to: None,
        met: BTreeMap::new(),
    };
    let no_candidate = || {
        let about = Box::new(about(false));
        Ok(Answer::Waiting { about, pledged: None }.encode())
    };
    let please = Ask {
        about: about(true),
        please: Some(Please {
            round: 7,
            team: [NodeId(1), NodeId(2)].into(),
        }),
    };
    let first = call(&mut joining, now).unwrap();
    joining.answered(first, no_candidate(), now);
    now += Duration::from_secs(1);
    // This question is on its way when the other one becomes a candidate.
    let before = call(&mut joining, now).unwrap();
    joining.asked(1, &please.encode(), now);
    let to = NodeId(1);
    let address = address(1);
    assert_eq!(joining.poll(now), [Action::Keep(Standing::Pledged { to, address })]);
    joining.kept();
    assert!(matches!(&joining.poll(now)[..], [Action::Reply { ticket: 1, .. }]));
    joining.answered(before, no_candidate(), now);
    assert_eq!(joining.poll(now), []);
    now += Duration::from_secs(1);
    let after = call(&mut joining, now).unwrap();
    joining.answered(after, no_candidate(), now);
    assert_eq!(joining.poll(now), [Action::Keep(Standing::Alone)]);
}

#[test]
fn a_candidate_whose_disk_is_replaced_frees_those_who_pledged_to_it() {
    for seed in 0..50 {
        let mut world = World::new(
            (1..=3).map(|node| options(node, &[1, 2, 3], Some(3))).collect(),
            seed,
            NONE,
        );
        while !matches!(world.nodes[&NodeId(3)].disk, Standing::Pledged { .. }) {
            world.step();
        }
        if !world.clusters.is_empty() {
            continue;
        }
        // Node 1 comes back with an empty disk: as node 9, at the same address.
        world.nodes.remove(&NodeId(1));
        let me = Newcomer {
            address: address(1),
            ..newcomer(9)
        };
        world.add(JoinOptions {
            me,
            ..options(9, &[1, 2, 3], Some(3))
        });
        world.ends_in_one_cluster();
    }
}

#[test]
fn the_lowest_id_founds_and_all_others_join_it() {
    for seed in 0..100 {
        let nodes = (1..=3).map(|node| options(node, &[1, 2, 3], Some(3))).collect();
        let mut world = World::new(nodes, seed, NONE);
        let map = world.ends_in_one_cluster().clone();
        assert_eq!(world.clusters[&map.cluster].0, NodeId(1));
    }
}

#[test]
fn while_one_of_n_is_missing_nothing_is_founded() {
    let nodes = (1..=2).map(|node| options(node, &[1, 2], Some(3))).collect();
    let mut world = World::new(nodes, 5, NONE);
    world.run(10_000);
    assert!(world.clusters.is_empty());
    assert!(
        world
            .last_said(1)
            .ends_with("to found it together: 2 of 3 nodes have met"),
        "{}",
        world.last_said(1)
    );
}

#[test]
fn nodes_of_another_name_or_with_another_n_do_not_count() {
    let other_name = JoinOptions {
        cluster_name: "other".to_owned(),
        ..options(2, &[1, 2], Some(2))
    };
    let mut world = World::new(vec![options(1, &[1, 2], Some(2)), other_name], 6, NONE);
    world.run(5_000);
    let other_count = options(2, &[1, 2], Some(3));
    let mut counts = World::new(vec![options(1, &[1, 2], Some(2)), other_count], 6, NONE);
    counts.run(5_000);
    let with_data = JoinOptions {
        has_data: true,
        ..options(2, &[1, 2], Some(2))
    };
    let mut data = World::new(vec![options(1, &[1, 2], Some(2)), with_data], 6, NONE);
    data.run(5_000);
    assert!(world.clusters.is_empty() && counts.clusters.is_empty() && data.clusters.is_empty());
    assert!(
        world
            .last_said(1)
            .contains("node 0000000000000002 waits for cluster \"other\", and this one for \"colony\"")
    );
    assert!(data.last_said(2).contains("holds data"), "{}", data.last_said(2));
}

#[test]
fn a_disk_with_data_and_no_cluster_is_not_let_in() {
    let with_data = JoinOptions {
        has_data: true,
        ..options(2, &[1], None)
    };
    let mut world = World::new(vec![options(1, &[], None), with_data], 7, NONE);
    world.run(5_000);
    assert!(
        world
            .last_said(2)
            .contains("belongs to no cluster but holds data, which would be lost"),
        "{}",
        world.last_said(2)
    );
}

#[test]
fn options_that_cannot_work_are_refused() {
    let new = |options| Joining::new(options, Standing::Alone, ClusterId(1), 1, Instant::now()).map(|_| ());
    let refused = new(options(1, &[1, 2, 3], Some(2))).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "bootstrap is 2, but there are 3 seeds, and all of them found the cluster"
    );
    assert_eq!(new(options(1, &[1], Some(1_000))), Err(JoinError::TooMany(1_000)));
    let seeds: Vec<_> = (0..100).collect();
    assert_eq!(new(options(1, &seeds, None)), Err(JoinError::Seeds(100)));
}

/// `count` nodes, some of them behind the seeds that all share (or share but for themselves).
fn together(count: u64, extra: u64, seeds: &[u64], without_oneself: bool) -> Vec<JoinOptions> {
    let node = |node: u64| {
        let others: Vec<_> = seeds
            .iter()
            .copied()
            .filter(|seed| !without_oneself || *seed != node)
            .collect();
        options(node, &others, Some(count as u16))
    };
    (1..=count + extra).map(node).collect()
}

/// One world: everything that can go wrong does, then nothing does.
fn bootstraps(seed: u64) {
    let mut random = World::new(Vec::new(), seed, NONE);
    let count = 2 + random.pick(3) as u64;
    let extra = random.pick(3) as u64;
    let mut seeds: Vec<u64> = (1..=count + extra).collect();
    // With one seed, teams have only that node in common.
    while seeds.len() > 1 + (seed % count) as usize {
        let at = random.pick(seeds.len());
        seeds.remove(at);
    }
    let faults = Faults {
        lost: [0, 3, 20][random.pick(3)],
        twice: [0, 4, 20][random.pick(3)],
        restarts: [0, 40, 200][random.pick(3)],
    };
    let nodes = together(count, extra, &seeds, random.one_in(2));
    let mut world = World::new(nodes, random.random(), faults);
    let steps = 200 + random.pick(1_500);
    world.run(steps).ends_in_one_cluster();
    // Everybody starts again: all are who they were.
    let nodes: Vec<_> = world.nodes.keys().copied().collect();
    for node in nodes {
        world.stop(node);
    }
    world.ends_in_one_cluster();
}

#[test]
fn whatever_happens_there_is_one_cluster() {
    (0..250).for_each(bootstraps);
}

/// As many as one has time for: `cargo test -p heronry-cluster --lib many_worlds -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn whatever_happens_there_is_one_cluster_in_many_worlds() {
    (250..10_000).for_each(bootstraps);
}

proptest! {
    #[test]
    fn a_seed_founds_alone_and_the_others_join_it_whatever_is_lost(seed in any::<u64>(), lost in 2..10u64) {
        let faults = Faults { lost, twice: 5, restarts: 60 };
        let nodes = vec![options(1, &[], None), options(2, &[1], None), options(3, &[1, 2], Some(3))];
        World::new(nodes, seed, faults).run(400).ends_in_one_cluster();
    }

    #[test]
    fn init_at_one_node_makes_one_cluster_whatever_is_lost(seed in any::<u64>(), at in 1..4u64, when in 0..400usize) {
        let faults = Faults { lost: 4, twice: 5, restarts: 0 };
        let mut world = World::new((1..=3).map(|node| options(node, &[1, 2, 3], None)).collect(), seed, faults);
        world.run(50 + when);
        if world.nodes[&NodeId(at)].process.is_none() {
            world.start(NodeId(at));
        }
        world.process(at).init(false).unwrap();
        world.act(NodeId(at));
        world.run(200).ends_in_one_cluster();
    }

    #[test]
    fn bytes_that_are_no_message_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = (Ask::decode(&bytes).is_ok(), Answer::decode(&bytes).is_ok(), Standing::decode(&bytes).is_ok());
        let now = Instant::now();
        let mut joining = Joining::new(options(1, &[2], Some(2)), Standing::Alone, ClusterId(1), 1, now).unwrap();
        joining.asked(7, &bytes, now);
        joining.answered(1, Ok(bytes.into()), now);
        let replied = joining.poll(now).into_iter().any(|action| matches!(action, Action::Reply { ticket: 7, .. }));
        prop_assert!(replied);
    }
}
