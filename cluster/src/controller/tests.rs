use proptest::prelude::*;

use super::*;
use crate::{
    identity::ClusterId,
    map::{Newcomer, Roles, Services},
};

const SECOND: Duration = Duration::from_secs(1);

/// A cluster that does what its controller says: groups, and nodes that die.
struct Colony {
    map: ClusterMap,
    groups: BTreeMap<ShardId, ShardReport>,
    nodes: BTreeMap<NodeId, NodeReport>,
    controller: Controller,
    now: Instant,
    orders: Vec<Step>,
    /// The next orders fail.
    failing: usize,
}

fn newcomer(node: u64, core: bool) -> Newcomer {
    Newcomer {
        node: NodeId(node),
        roles: Roles { edge: true, core },
        address: format!("node-{node}:5270"),
        zone: String::new(),
        feature_level: 1,
        version: "0.1.0".to_owned(),
        services: Services::new(),
    }
}

impl Colony {
    /// Nodes 1, 2, …, of which the first has founded the cluster.
    fn new(nodes: u64, shards: u16) -> Self {
        let map = ClusterMap::founded(ClusterId(1), "colony", &newcomer(1, true), shards);
        let now = Instant::now();
        let alone = ShardReport {
            leader: NodeId(1),
            term: 1,
            voters: [NodeId(1)].into(),
            learners: BTreeSet::new(),
            caught_up: [NodeId(1)].into(),
            changing: false,
        };
        let mut colony = Self {
            groups: map.shards.keys().map(|shard| (*shard, alone.clone())).collect(),
            map,
            nodes: BTreeMap::new(),
            controller: Controller::new(now),
            now,
            orders: Vec::new(),
            failing: 0,
        };
        for node in 1..=nodes {
            colony.join(newcomer(node, true));
        }
        colony
    }

    fn join(&mut self, newcomer: Newcomer) {
        let node = newcomer.node;
        self.command(&Command::Admit(newcomer));
        let report = NodeReport {
            alive: true,
            since: self.now,
            holds: BTreeSet::new(),
            streams: 0,
        };
        self.nodes.insert(node, report);
    }

    fn command(&mut self, command: &Command) {
        let writes = command
            .evaluate(&self.map)
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.map = self.map.with(&writes, self.map.version + 1).unwrap();
    }

    fn set(&mut self, name: &str, value: &str) {
        let (name, value) = (name.to_owned(), Some(value.to_owned()));
        self.command(&Command::SetSetting { name, value });
    }

    fn is_alive(&self, node: NodeId) -> bool {
        let is_member = self
            .map
            .nodes
            .get(&node)
            .is_some_and(|member| member.state.is_present());
        is_member && self.nodes[&node].alive
    }

    fn turn(&mut self, node: u64, alive: bool) {
        let report = self.nodes.get_mut(&NodeId(node)).unwrap();
        if report.alive != alive {
            (report.alive, report.since) = (alive, self.now);
        }
    }

    fn view(&self) -> View<'_> {
        let mut nodes = self.nodes.clone();
        for (node, report) in &mut nodes {
            let held = self
                .groups
                .iter()
                .filter(|(_, group)| group.voters.contains(node) || group.learners.contains(node));
            report.holds.extend(held.map(|(shard, _)| *shard));
        }
        let led = self.groups.iter().filter(|(_, group)| self.is_led(group));
        View {
            map: &self.map,
            shards: led.map(|(shard, group)| (*shard, group.clone())).collect(),
            nodes,
        }
    }

    fn is_led(&self, group: &ShardReport) -> bool {
        let live = group.voters.iter().filter(|node| self.is_alive(**node)).count();
        live * 2 > group.voters.len() && self.is_alive(group.leader)
    }

    /// A second passes. `false`: nothing is to be done.
    fn tick(&mut self) -> bool {
        self.now += SECOND;
        for shard in self.groups.keys().copied().collect::<Vec<_>>() {
            self.live(shard);
        }
        let mut controller = std::mem::replace(&mut self.controller, Controller::new(self.now));
        let actions = controller.next(&self.view(), self.now);
        self.controller = controller;
        let acts = !actions.is_empty();
        for action in actions {
            match action {
                Action::Propose(command) => self.command(&command),
                Action::Order(order) => self.carry_out(order),
            }
        }
        let learning = self.groups.values().any(|group| !group.learners.is_empty());
        acts || learning || self.controller.in_progress().next().is_some()
    }

    /// A group elects a leader when it needs one, and replicas catch up, one at a time.
    fn live(&mut self, shard: ShardId) {
        let group = &self.groups[&shard];
        let live: Vec<_> = group
            .voters
            .iter()
            .copied()
            .filter(|node| self.is_alive(*node))
            .collect();
        let elects = live.len() * 2 > group.voters.len() && !self.is_alive(group.leader);
        let mut members = group.voters.iter().chain(&group.learners).copied();
        let behind = members.find(|node| self.is_alive(*node) && !group.caught_up.contains(node));
        let dead: Vec<_> = group
            .caught_up
            .iter()
            .copied()
            .filter(|node| !self.is_alive(*node))
            .collect();
        let group = self.groups.get_mut(&shard).unwrap();
        if elects {
            (group.leader, group.term) = (live[0], group.term + 1);
        }
        group.caught_up.extend(behind);
        dead.iter().for_each(|node| {
            group.caught_up.remove(node);
        });
    }

    fn carry_out(&mut self, Order { to, term, step }: Order) {
        let shard = step.shard();
        assert!(self.is_alive(to), "{step:?} is asked of a dead node");
        if self.failing > 0 {
            self.failing -= 1;
            return self.controller.failed(shard, self.now);
        }
        self.orders.push(step.clone());
        let live: BTreeSet<_> = self.nodes.keys().copied().filter(|node| self.is_alive(*node)).collect();
        let group = self.groups.get_mut(&shard).unwrap();
        assert_eq!(term, group.term);
        match step {
            Step::AddLearner { node, .. } => {
                assert_eq!(to, group.leader);
                group.learners.insert(node);
                // What it still had is a part of the group again.
                self.nodes.get_mut(&node).unwrap().holds.remove(&shard);
            }
            Step::ChangeVoters { voters, .. } => {
                assert!(voters.contains(&group.leader));
                assert!(
                    voters.intersection(&live).count() * 2 > voters.len(),
                    "a majority would be given away"
                );
                for gone in group.voters.difference(&voters) {
                    self.nodes.get_mut(gone).unwrap().holds.insert(shard);
                }
                group.learners.retain(|node| !voters.contains(node));
                group.caught_up.retain(|node| voters.contains(node));
                group.voters = voters;
            }
            Step::RemoveLearner { node, .. } => {
                group.learners.remove(&node);
                self.nodes.get_mut(&node).unwrap().holds.insert(shard);
            }
            Step::Drop { node, .. } => {
                assert!(!group.voters.contains(&node) && !group.learners.contains(&node));
                self.nodes.get_mut(&node).unwrap().holds.remove(&shard);
            }
            Step::HandOver { to, .. } => (group.leader, group.term) = (to, group.term + 1),
        }
    }

    /// Until nothing is to be done for a while.
    #[track_caller]
    fn settle(&mut self) -> &mut Self {
        let mut quiet = 0;
        for _ in 0..5_000 {
            quiet = if self.tick() { 0 } else { quiet + 1 };
            if quiet > 30 {
                return self;
            }
        }
        panic!("it never ends: {:?}", self.controller);
    }

    fn voters(&self, shard: u16) -> Vec<u64> {
        self.groups[&ShardId(shard)].voters.iter().map(|node| node.0).collect()
    }

    fn replicas(&self, node: u64) -> usize {
        self.groups
            .values()
            .filter(|group| group.voters.contains(&NodeId(node)))
            .count()
    }

    fn leads(&self, node: u64) -> usize {
        self.groups
            .values()
            .filter(|group| group.leader == NodeId(node))
            .count()
    }

    fn state(&self, node: u64) -> MemberState {
        self.map.nodes[&NodeId(node)].state
    }

    fn drain(&mut self, node: u64) -> Option<String> {
        let Drain { command, notice } = drain(&self.view(), NodeId(node), self.now).unwrap();
        self.command(&command);
        notice
    }

    fn evict(&mut self, node: u64, force: bool) -> Result<(), NoEvict> {
        let command = evict(&self.view(), NodeId(node), force)?;
        self.command(&command);
        Ok(())
    }

    #[track_caller]
    fn is_as_planned(&self) {
        let progress = Progress::of(&self.view(), self.now);
        assert_eq!(progress, Progress::default());
        for (shard, group) in &self.groups {
            assert_eq!(self.map.shards[shard].voters(), group.voters);
            assert!(self.map.shards[shard].learners().is_empty());
        }
    }
}

#[test]
fn a_cluster_that_grows_to_three_replicates_everything() {
    let mut colony = Colony::new(2, 16);
    colony.settle();
    assert_eq!(colony.replicas(2), 0);
    colony.join(newcomer(3, true));
    colony.settle().is_as_planned();
    assert_eq!([1, 2, 3].map(|node| colony.replicas(node)), [17, 17, 17]);
    assert!([1, 2, 3].iter().all(|node| (5..=6).contains(&colony.leads(*node))));
}

#[test]
fn nodes_that_come_together_all_have_a_part_at_once() {
    let mut colony = Colony::new(3, 16);
    colony.tick();
    colony.tick();
    colony.join(newcomer(4, true));
    colony.join(newcomer(5, true));
    colony.settle().is_as_planned();
    let replicas = [1, 2, 3, 4, 5].map(|node| colony.replicas(node));
    assert!(replicas.iter().all(|count| (10..=11).contains(count)), "{replicas:?}");
    assert_eq!(colony.voters(u16::MAX), [1, 2, 3, 4, 5]);
}

#[test]
fn copies_are_throttled() {
    let mut colony = Colony::new(3, 16);
    colony.set("moves_max", "2");
    for _ in 0..200 {
        colony.tick();
        let copying = colony
            .groups
            .values()
            .filter(|group| !group.learners.is_subset(&group.caught_up));
        assert!(copying.count() <= 2);
    }
    colony.settle().is_as_planned();
}

#[test]
fn a_node_that_holds_no_shards_gets_none() {
    let mut colony = Colony::new(3, 4);
    for node in 4..8 {
        colony.join(newcomer(node, false));
    }
    colony.settle().is_as_planned();
    assert!((4..8).all(|node| colony.replicas(node) == 0));
}

#[test]
fn a_dead_node_keeps_what_it_has_and_goes_on_when_it_returns() {
    let mut colony = Colony::new(4, 8);
    colony.settle();
    let before: Vec<_> = colony.groups.values().map(|group| group.voters.clone()).collect();
    colony.turn(2, false);
    (0..1200).for_each(|_| {
        colony.tick();
    });
    assert_eq!(colony.leads(2), 0);
    colony.turn(2, true);
    colony.settle().is_as_planned();
    let after: Vec<_> = colony.groups.values().map(|group| group.voters.clone()).collect();
    assert_eq!(before, after);
    assert!(colony.leads(2) > 0);
}

#[test]
fn a_dead_node_is_replaced_after_a_time_when_that_is_set() {
    let mut colony = Colony::new(4, 8);
    colony.set("replace_after", "30m");
    colony.settle();
    let had = colony.replicas(2);
    colony.turn(2, false);
    (0..1799).for_each(|_| {
        colony.tick();
    });
    assert_eq!(colony.replicas(2), had);
    colony.settle();
    assert_eq!(colony.replicas(2), 0);
    assert!((0..8).all(|shard| colony.voters(shard).len() == 3));
    // It comes back: what it still keeps is out of date, and goes.
    colony.turn(2, true);
    colony.settle().is_as_planned();
    assert!(colony.nodes[&NodeId(2)].holds.is_empty());
}

#[test]
fn an_evicted_node_is_replaced() {
    let mut colony = Colony::new(4, 8);
    colony.settle();
    colony.turn(3, false);
    colony.evict(3, false).unwrap();
    colony.settle().is_as_planned();
    assert_eq!(colony.replicas(3), 0);
    assert!((0..8).all(|shard| colony.voters(shard) == [1, 2, 4]));
}

#[test]
fn a_node_that_drains_gives_leaderships_then_replicas_then_leaves() {
    let mut colony = Colony::new(4, 8);
    colony.settle();
    colony.nodes.get_mut(&NodeId(1)).unwrap().streams = 5;
    colony.orders.clear();
    let led = colony.leads(1);
    assert!(led > 0);
    assert_eq!(colony.drain(1), None);
    colony.settle();
    assert_eq!((colony.leads(1), colony.replicas(1)), (0, 0));
    // It still holds sockets.
    assert_eq!(colony.state(1), MemberState::Draining);
    for shard in colony.groups.keys() {
        let of_shard: Vec<_> = colony.orders.iter().filter(|step| step.shard() == *shard).collect();
        let hand_over = of_shard.iter().position(|step| matches!(step, Step::HandOver { .. }));
        let copy = of_shard.iter().position(|step| matches!(step, Step::AddLearner { .. }));
        if let (Some(hand_over), Some(copy)) = (hand_over, copy) {
            assert!(hand_over < copy, "{of_shard:?}");
        }
    }
    colony.nodes.get_mut(&NodeId(1)).unwrap().streams = 0;
    colony.settle();
    assert_eq!(colony.state(1), MemberState::Left);
    // And comes back.
    colony.join(newcomer(1, true));
    colony.settle().is_as_planned();
    assert_eq!(colony.state(1), MemberState::Active);
}

#[test]
fn draining_one_of_three_is_said_to_cost_a_replica_and_draining_the_last_is_refused() {
    let mut colony = Colony::new(3, 4);
    colony.settle();
    assert_eq!(
        colony.drain(3).unwrap(),
        "shards 0, 1, 2, 3 and the metadata group will have fewer replicas than before, until another node with the role core \
         joins"
    );
    colony.settle();
    assert_eq!(colony.state(3), MemberState::Left);
    assert_eq!(colony.voters(0), [1, 2]);
    colony.drain(2);
    colony.settle();
    assert_eq!(colony.voters(0), [1]);
    let refused = drain(&colony.view(), NodeId(1), colony.now).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "node 0000000000000001 cannot be drained at present: shards 0, 1, 2, 3 and the metadata group can be nowhere else with \
         a majority of live voters; let other nodes with the role core join, or come back, first"
    );
}

#[test]
fn the_last_edge_is_not_drained_while_devices_are_connected_to_it() {
    let mut colony = Colony::new(3, 4);
    let edge = |node| Newcomer {
        roles: Roles {
            edge: true,
            core: false,
        },
        ..newcomer(node, false)
    };
    colony.join(edge(8));
    colony.join(edge(9));
    for node in 1..=3 {
        colony.command(&Command::Admit(Newcomer {
            roles: Roles {
                edge: false,
                core: true,
            },
            ..newcomer(node, true)
        }));
    }
    colony.settle();
    colony.nodes.get_mut(&NodeId(8)).unwrap().streams = 5;
    colony.turn(9, false);
    let refused = drain(&colony.view(), NodeId(8), colony.now).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "node 0000000000000008 cannot be drained at present: devices are connected to it, and no other node with the role \
         edge is there to take them; let one join, or come back, first"
    );
    // Without devices it may go.
    assert!(drain(&colony.view(), NodeId(9), colony.now).is_ok());
    colony.turn(9, true);
    assert!(drain(&colony.view(), NodeId(8), colony.now).is_ok());
}

#[test]
fn a_node_is_not_drained_while_that_would_cost_a_majority() {
    let mut colony = Colony::new(3, 2);
    colony.settle();
    colony.turn(2, false);
    assert!(matches!(
        drain(&colony.view(), NodeId(3), colony.now),
        Err(NoDrain::Nowhere { .. })
    ));
}

#[test]
fn the_wrong_node_is_not_evicted_but_by_force() {
    let mut colony = Colony::new(3, 3);
    colony.settle();
    colony.turn(2, false);
    let refused = colony.evict(3, false).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "node 0000000000000003 was not evicted: shards 0, 1, 2 and the metadata group would have no majority of live voters \
         without it and accept nothing until enough of their other voters come back; if it is gone for good all the same, \
         force it"
    );
    // The one that is dead can go.
    colony.evict(2, false).unwrap();
    colony.evict(2, false).unwrap();
    colony.settle().is_as_planned();
    assert_eq!(colony.voters(0), [1, 3]);
    colony.evict(3, true).unwrap();
    assert_eq!(colony.state(3), MemberState::Evicted);
    assert!(matches!(colony.evict(9, false), Err(NoEvict::Refused(_))));
}

#[test]
fn whoever_has_the_only_replica_is_not_evicted_without_saying_what_is_lost() {
    let mut colony = Colony::new(1, 1);
    let refused = colony.evict(1, false).unwrap_err().to_string();
    assert!(
        refused.contains(
            "; shard 0 and the metadata group would have no live voter at all, and what is stored there would be"
        ),
        "{refused}"
    );
}

#[test]
fn balance_is_made_once_when_it_is_asked_for() {
    let mut colony = Colony::new(3, 16);
    colony.settle();
    colony.join(newcomer(4, true));
    colony.settle();
    assert_eq!(colony.replicas(4), 0);
    colony.set("rebalance", "once");
    colony.settle().is_as_planned();
    let replicas = [1, 2, 3, 4].map(|node| colony.replicas(node));
    assert!(replicas.iter().all(|count| (12..=13).contains(count)), "{replicas:?}");
    assert_eq!(colony.map.settings().rebalance, Rebalance::Off);
    colony.set("rebalance", "always");
    colony.join(newcomer(5, true));
    colony.settle().is_as_planned();
    assert!(colony.replicas(5) >= 10, "{}", colony.replicas(5));
}

#[test]
fn a_dead_edge_is_forgotten_after_an_hour() {
    let mut colony = Colony::new(1, 2);
    colony.join(newcomer(2, false));
    colony.settle();
    colony.turn(2, false);
    (0..3599).for_each(|_| {
        colony.tick();
    });
    assert_eq!(colony.state(2), MemberState::Active);
    colony.settle();
    assert_eq!(colony.state(2), MemberState::Left);
}

#[test]
fn a_step_that_fails_is_asked_for_again_after_a_while() {
    let mut colony = Colony::new(3, 1);
    colony.failing = 3;
    colony.settle().is_as_planned();
}

#[test]
fn nothing_is_placed_anew_before_everybody_could_be_heard() {
    let mut colony = Colony::new(4, 8);
    colony.settle();
    colony.set("replace_after", "30m");
    // Another node leads now; it has heard nobody yet.
    colony.controller = Controller::new(colony.now);
    let view = View {
        nodes: BTreeMap::new(),
        ..colony.view()
    };
    let mut controller = Controller::new(colony.now);
    assert_eq!(controller.next(&view, colony.now), []);
    assert_eq!(controller.next(&view, colony.now + SECOND), []);
}

/// What happens to a colony.
#[derive(Clone, Debug)]
enum Event {
    Join,
    Die(u64),
    Return(u64),
    Drain(u64),
    Evict(u64),
    Balance,
    /// Another node leads the metadata group.
    Controller,
    Fail(usize),
    Go(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::Join),
        2 => (1..9u64).prop_map(Event::Die),
        2 => (1..9u64).prop_map(Event::Return),
        1 => (1..9u64).prop_map(Event::Drain),
        1 => (1..9u64).prop_map(Event::Evict),
        1 => Just(Event::Balance),
        1 => Just(Event::Controller),
        1 => (1..4usize).prop_map(Event::Fail),
        6 => (1..30usize).prop_map(Event::Go),
    ]
}

proptest! {
    #[test]
    fn whatever_operators_and_failures_do_no_shard_is_lost_and_all_ends_as_planned(
        nodes in 1..5u64, events in prop::collection::vec(event(), 0..30)
    ) {
        let mut colony = Colony::new(nodes, 4);
        for event in events {
            happen(&mut colony, event);
        }
        let nodes: Vec<_> = colony.nodes.keys().map(|node| node.0).collect();
        nodes.iter().for_each(|node| colony.turn(*node, true));
        colony.failing = 0;
        colony.settle();
        // Nobody was forced, so every shard still has its majority.
        for group in colony.groups.values() {
            prop_assert!(colony.is_led(group), "{:?}", group);
        }
        let left_over = colony.nodes.iter().filter(|(node, _)| colony.state(node.0).is_present());
        prop_assert!(left_over.into_iter().all(|(_, report)| report.holds.is_empty()));
        let core = nodes.iter().filter(|node| colony.state(**node) == MemberState::Active).count();
        if core >= 3 {
            colony.is_as_planned();
            prop_assert!((0..4).all(|shard| colony.voters(shard).len() == 3));
        }
    }
}

fn happen(colony: &mut Colony, event: Event) {
    match event {
        Event::Join => {
            let node = colony.nodes.keys().last().map_or(1, |last| last.0 + 1);
            if node < 9 {
                colony.join(newcomer(node, true));
            }
        }
        Event::Die(node) if colony.nodes.contains_key(&NodeId(node)) => colony.turn(node, false),
        Event::Return(node) if colony.nodes.contains_key(&NodeId(node)) => colony.turn(node, true),
        Event::Drain(node) => {
            if let Ok(Drain { command, .. }) = drain(&colony.view(), NodeId(node), colony.now) {
                colony.command(&command);
            }
        }
        Event::Evict(node) => {
            let _ = colony.evict(node, false);
        }
        Event::Balance => colony.set("rebalance", "once"),
        Event::Controller => colony.controller = Controller::new(colony.now),
        Event::Fail(orders) => colony.failing = orders,
        Event::Go(seconds) => (0..seconds).for_each(|_| {
            colony.tick();
        }),
        Event::Die(_) | Event::Return(_) => {}
    }
}
