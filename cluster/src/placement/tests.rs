use proptest::prelude::*;

use super::*;

fn node(zone: &str) -> Candidate {
    Candidate {
        zone: zone.to_owned(),
        holds: true,
        health: Health::Steady,
        weight: 1,
    }
}

/// Nodes 1, 2, … in these zones, and shards 0, 1, … that node 1 holds alone.
fn founded(zones: &[&str], shards: u16) -> Problem {
    Problem {
        nodes: (1..).map(NodeId).zip(zones.iter().map(|zone| node(zone))).collect(),
        shards: (0..shards).map(|shard| (ShardId(shard), alone(NodeId(1), 3))).collect(),
        effort: Effort::Mend,
    }
}

fn alone(node: NodeId, wished: usize) -> Present {
    Present {
        wished,
        voters: [node].into(),
        learners: BTreeSet::new(),
        caught_up: [node].into(),
        leader: Some(node),
        changing: false,
        holders: [node].into(),
    }
}

/// What the shards are once a plan has become true.
fn settled(problem: &Problem, plan: &Plan) -> Problem {
    let mut problem = problem.clone();
    for (shard, voters) in plan {
        let Some(present) = problem.shards.get_mut(shard) else {
            continue;
        };
        present.voters = voters.iter().copied().collect();
        present.learners.clear();
        present.caught_up.clone_from(&present.voters);
        present.holders.clone_from(&present.voters);
        present.leader = voters.first().copied();
    }
    problem
}

fn loads(problem: &Problem, plan: &Plan) -> BTreeMap<NodeId, usize> {
    counted(problem, plan.values().flatten())
}

fn leads(problem: &Problem, plan: &Plan) -> BTreeMap<NodeId, usize> {
    counted(problem, plan.values().filter_map(|voters| voters.first()))
}

fn counted<'a>(problem: &Problem, nodes: impl Iterator<Item = &'a NodeId>) -> BTreeMap<NodeId, usize> {
    let holding = problem.nodes.iter().filter(|(_, node)| node.holds);
    let mut counts: BTreeMap<_, _> = holding.map(|(node, _)| (*node, 0)).collect();
    for node in nodes {
        *counts.entry(*node).or_default() += 1;
    }
    counts
}

fn spread(counts: &BTreeMap<NodeId, usize>) -> usize {
    counts.values().max().unwrap_or(&0) - counts.values().min().unwrap_or(&0)
}

/// Voters that the second plan has and the first has not.
fn moves(before: &Plan, after: &Plan) -> usize {
    after
        .iter()
        .map(|(shard, voters)| voters.iter().filter(|node| !before[shard].contains(node)).count())
        .sum()
}

#[test]
fn the_first_two_nodes_to_join_get_everything_at_once() {
    let problem = founded(&["", "", ""], 16);
    let plan = solve(&problem, &Plan::new());
    assert_eq!(loads(&problem, &plan).into_values().collect::<Vec<_>>(), [16, 16, 16]);
    assert_eq!(spread(&leads(&problem, &plan)), 1);
}

#[test]
fn a_second_node_alone_gets_nothing() {
    let problem = founded(&["", ""], 4);
    let plan = solve(&problem, &Plan::new());
    assert!(plan.values().all(|voters| *voters == [NodeId(1)]), "{plan:?}");
}

#[test]
fn the_first_placement_over_five_nodes_is_even_without_being_asked_to_be() {
    let problem = founded(&["", "", "", "", ""], 16);
    let plan = solve(&problem, &Plan::new());
    assert_eq!(spread(&loads(&problem, &plan)), 1);
    assert_eq!(spread(&leads(&problem, &plan)), 1);
}

#[test]
fn a_fourth_node_gets_its_part_when_balance_is_asked_for() {
    let mut problem = founded(&["", "", ""], 16);
    let before = solve(&problem, &Plan::new());
    problem = settled(&problem, &before);
    problem.nodes.insert(NodeId(4), node(""));
    assert_eq!(moves(&before, &solve(&problem, &before)), 0);
    problem.effort = Effort::Balance;
    let after = solve(&problem, &before);
    assert_eq!(loads(&problem, &after)[&NodeId(4)], 12);
    assert_eq!(moves(&before, &after), 12);
}

#[test]
fn one_that_weighs_more_holds_more() {
    let mut problem = founded(&["", "", "", ""], 14);
    problem.nodes.get_mut(&NodeId(4)).unwrap().weight = 4;
    problem.effort = Effort::Balance;
    let loads = loads(&problem, &solve(&problem, &Plan::new()));
    assert_eq!(loads[&NodeId(4)], 14);
}

#[test]
fn a_node_that_is_drained_leaves_two_of_three_when_there_is_no_other() {
    let mut problem = founded(&["", "", ""], 3);
    let before = solve(&problem, &Plan::new());
    problem = settled(&problem, &before);
    problem.nodes.get_mut(&NodeId(3)).unwrap().holds = false;
    let plan = solve(&problem, &before);
    assert!(
        plan.values()
            .all(|voters| voters.len() == 2 && !voters.contains(&NodeId(3)))
    );
}

#[test]
fn what_would_have_no_live_majority_stays_as_it_is() {
    let mut problem = founded(&["", "", ""], 3);
    let before = solve(&problem, &Plan::new());
    problem = settled(&problem, &before);
    problem.nodes.get_mut(&NodeId(2)).unwrap().health = Health::Dead;
    problem.nodes.get_mut(&NodeId(3)).unwrap().holds = false;
    let plan = solve(&problem, &before);
    assert!(plan.values().all(|voters| voters.len() == 3), "{plan:?}");
    assert!(plan.values().all(|voters| voters[0] != NodeId(3)), "{plan:?}");
}

#[test]
fn the_last_node_keeps_everything() {
    let mut problem = founded(&[""], 3);
    problem.nodes.get_mut(&NodeId(1)).unwrap().holds = false;
    let plan = solve(&problem, &Plan::new());
    assert!(plan.values().all(|voters| *voters == [NodeId(1)]));
}

#[test]
fn a_new_zone_parts_voters_that_shared_one() {
    let mut problem = founded(&["a", "b", "b"], 6);
    let before = solve(&problem, &Plan::new());
    problem = settled(&problem, &before);
    problem.nodes.insert(NodeId(4), node("c"));
    let after = solve(&problem, &before);
    assert_eq!(moves(&before, &after), 6);
    assert!(
        after
            .values()
            .all(|voters| voters.contains(&NodeId(1)) && voters.contains(&NodeId(4)))
    );
}

#[test]
fn who_stands_second_is_not_the_same_node_for_all_that_one_leads() {
    let problem = founded(&["", "", ""], 16);
    let plan = solve(&problem, &Plan::new());
    let seconds: BTreeSet<_> = plan
        .values()
        .filter(|voters| voters[0] == NodeId(1))
        .map(|voters| voters[1])
        .collect();
    assert_eq!(seconds.len(), 2, "{plan:?}");
}

#[test]
fn leaderships_go_first_and_a_shard_with_one_voter_can_move() {
    let mut problem = founded(&["", ""], 1);
    problem.nodes.get_mut(&NodeId(1)).unwrap().holds = false;
    let plan = solve(&problem, &Plan::new());
    let mut seen = Vec::new();
    let mut world = World::new(problem, 8);
    while world.step(&plan) {
        seen.append(&mut world.taken);
    }
    let shard = ShardId(0);
    let (old, new) = (NodeId(1), NodeId(2));
    let voters = |nodes: &[NodeId]| nodes.iter().copied().collect();
    assert_eq!(
        seen,
        [
            Step::AddLearner { shard, node: new },
            Step::ChangeVoters {
                shard,
                voters: voters(&[old, new])
            },
            Step::HandOver { shard, to: new },
            Step::ChangeVoters {
                shard,
                voters: voters(&[new])
            },
            Step::Drop { shard, node: old },
        ]
    );
}

#[test]
fn copies_are_throttled_over_the_cluster() {
    let problem = founded(&["", "", ""], 16);
    let plan = solve(&problem, &Plan::new());
    let mut world = World::new(problem, 2);
    while world.step(&plan) {
        let copying = world
            .problem
            .shards
            .values()
            .filter(|shard| !shard.learners.is_subset(&shard.caught_up));
        assert!(copying.count() <= 2);
    }
    assert_eq!(settled(&world.problem, &plan).shards, world.problem.shards);
}

/// A cluster that does what it is told: at every step one thing happens.
struct World {
    problem: Problem,
    in_progress: BTreeMap<ShardId, Step>,
    moves_max: usize,
    taken: Vec<Step>,
}

impl World {
    fn new(problem: Problem, moves_max: usize) -> Self {
        Self {
            problem,
            in_progress: BTreeMap::new(),
            moves_max,
            taken: Vec::new(),
        }
    }

    /// Steps begin; then one that has begun ends, or a learner catches up. `false`: there is nothing to do.
    fn step(&mut self, plan: &Plan) -> bool {
        for step in next_steps(&self.problem, plan, &self.in_progress, self.moves_max) {
            if let Step::ChangeVoters { voters, .. } = &step {
                assert!(self.problem.has_majority(voters), "a majority would be given away");
                let present = &self.problem.shards[&step.shard()];
                assert!(
                    voters
                        .difference(&present.voters)
                        .all(|node| present.caught_up.contains(node))
                );
            }
            assert!(self.in_progress.insert(step.shard(), step).is_none());
        }
        if let Some((_, step)) = self.in_progress.pop_first() {
            self.take(step);
            return true;
        }
        self.catch_up()
    }

    fn take(&mut self, step: Step) {
        let majority = self.problem.has_majority(&self.problem.shards[&step.shard()].voters);
        let present = self.problem.shards.get_mut(&step.shard()).unwrap();
        // Without a majority nothing is committed.
        if !majority || present.leader.is_none() {
            return;
        }
        self.taken.push(step.clone());
        match step {
            Step::AddLearner { node, .. } => {
                assert!(!present.voters.contains(&node));
                present.learners.insert(node);
                present.holders.insert(node);
            }
            Step::RemoveLearner { node, .. } => {
                assert!(present.learners.remove(&node));
                present.caught_up.remove(&node);
            }
            Step::ChangeVoters { shard, voters } => {
                let known: BTreeSet<_> = present.voters.union(&present.learners).copied().collect();
                assert!(voters.is_subset(&known), "a voter that was no learner");
                assert!(present.leader.is_some_and(|leader| voters.contains(&leader)));
                // One of them was there: nothing that was acknowledged depends on the new ones alone.
                assert!(voters.intersection(&present.voters).next().is_some());
                // The leader looks again: someone may have died since the step was decided.
                let behind = voters
                    .difference(&present.voters)
                    .any(|node| !present.caught_up.contains(node));
                if behind || !self.problem.has_majority(&voters) {
                    return;
                }
                let present = self.problem.shards.get_mut(&shard).unwrap();
                present.learners.retain(|node| !voters.contains(node));
                present
                    .caught_up
                    .retain(|node| voters.contains(node) || present.learners.contains(node));
                present.voters = voters;
            }
            Step::Drop { node, .. } => {
                assert!(!present.voters.contains(&node) && !present.learners.contains(&node));
                present.holders.remove(&node);
            }
            Step::HandOver { to, .. } => {
                assert!(present.voters.contains(&to));
                present.leader = Some(to);
            }
        }
    }

    fn catch_up(&mut self) -> bool {
        for present in self.problem.shards.values_mut() {
            let health = |node: &NodeId| self.problem.nodes.get(node).map_or(Health::Dead, |node| node.health);
            let mut members = present.voters.union(&present.learners);
            let behind = members.find(|node| health(node) > Health::Dead && !present.caught_up.contains(node));
            if let Some(behind) = behind.copied() {
                present.caught_up.insert(behind);
                return true;
            }
        }
        false
    }

    /// Someone died or came back: leaders are whoever is left.
    fn elect(&mut self) {
        for (shard, present) in &mut self.problem.shards {
            let led_by = present.leader;
            let live = |node: &&NodeId| {
                self.problem
                    .nodes
                    .get(node)
                    .is_some_and(|node| node.health > Health::Dead)
            };
            let majority = present.voters.iter().filter(live).count() * 2 > present.voters.len();
            if !present.leader.as_ref().is_some_and(|leader| live(&leader)) || !majority {
                present.leader = present.voters.iter().find(live).copied().filter(|_| majority);
            }
            present.caught_up.retain(|node| live(&node));
            // What the leader before was told, the next one does not know.
            if present.leader != led_by {
                self.in_progress.remove(shard);
            }
        }
    }
}

/// What happens to a cluster.
#[derive(Clone, Debug)]
enum Event {
    Join {
        zone: u8,
    },
    Drain(usize),
    Die(usize),
    Return(usize),
    /// An operator says that a dead node is gone for good.
    Evict(usize),
    Balance,
    /// Some steps are taken.
    Go(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..4u8).prop_map(|zone| Event::Join { zone }),
        1 => any::<usize>().prop_map(Event::Drain),
        2 => any::<usize>().prop_map(Event::Die),
        2 => any::<usize>().prop_map(Event::Return),
        1 => any::<usize>().prop_map(Event::Evict),
        1 => Just(Event::Balance),
        6 => (0..40u8).prop_map(Event::Go),
    ]
}

fn zones() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..4u8, 1..9)
}

fn founded_in(zones: &[u8], shards: u16) -> Problem {
    let names: Vec<String> = zones.iter().map(|zone| format!("zone-{zone}")).collect();
    let mut problem = founded(&names.iter().map(String::as_str).collect::<Vec<_>>(), shards);
    problem.shards.insert(ShardId(u16::MAX), alone(NodeId(1), 5));
    problem
}

/// The rules that every plan keeps to where all nodes can be reached.
fn check(problem: &Problem, plan: &Plan) -> Result<(), TestCaseError> {
    let holding: Vec<_> = problem.nodes.iter().filter(|(_, node)| node.holds).collect();
    let zones: BTreeSet<_> = holding.iter().map(|(_, node)| &node.zone).collect();
    for (shard, voters) in plan {
        let distinct: BTreeSet<_> = voters.iter().collect();
        prop_assert_eq!(distinct.len(), voters.len());
        prop_assert!(voters.iter().all(|voter| problem.holds(*voter)));
        let count = problem.shards[shard].wished.min(holding.len());
        let odd = if count % 2 == 0 { count - 1 } else { count };
        prop_assert!(
            voters.len() == odd || (count == 2 && voters.len() == 2),
            "{} voters of {}",
            voters.len(),
            holding.len()
        );
        let in_zones: BTreeSet<_> = voters.iter().map(|voter| &problem.nodes[voter].zone).collect();
        prop_assert_eq!(
            in_zones.len(),
            voters.len().min(zones.len()),
            "{:?} of {:?}",
            voters,
            zones
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn plans_keep_to_the_rules_and_their_solutions_are_themselves(
        zones in zones(), shards in 1..20u16, balance in any::<bool>()
    ) {
        let mut problem = founded_in(&zones, shards);
        if balance {
            problem.effort = Effort::Balance;
        }
        let plan = solve(&problem, &Plan::new());
        check(&problem, &plan)?;
        prop_assert_eq!(&solve(&problem, &plan), &plan);
        let settled = settled(&problem, &plan);
        prop_assert_eq!(&solve(&settled, &plan), &plan);
        prop_assert_eq!(&solve(&settled, &Plan::new()), &plan, "what is says as much as the plan before");
        prop_assert!(next_steps(&settled, &plan, &BTreeMap::new(), 4).is_empty());
    }

    #[test]
    fn without_zones_replicas_and_leaders_differ_by_one(nodes in 3..10usize, shards in 1..24u16) {
        let mut problem = founded_in(&vec![0; nodes], shards);
        problem.effort = Effort::Balance;
        let plan = solve(&problem, &Plan::new());
        prop_assert!(spread(&loads(&problem, &plan)) <= 1, "{:?}", loads(&problem, &plan));
        prop_assert!(spread(&leads(&problem, &plan)) <= 1, "{:?}", leads(&problem, &plan));
    }

    #[test]
    fn in_three_equal_zones_replicas_and_leaders_differ_by_one(nodes in 1..4u8, shards in 1..24u16) {
        let zones: Vec<u8> = (0..3).flat_map(|zone| vec![zone; usize::from(nodes)]).collect();
        let mut problem = founded_in(&zones, shards);
        problem.shards.remove(&ShardId(u16::MAX));
        problem.effort = Effort::Balance;
        let plan = solve(&problem, &Plan::new());
        prop_assert!(spread(&loads(&problem, &plan)) <= 1, "{:?}", loads(&problem, &plan));
        prop_assert!(spread(&leads(&problem, &plan)) <= 1, "{:?}", leads(&problem, &plan));
    }

    #[test]
    fn removing_a_node_moves_only_what_it_had(
        zones in prop::collection::vec(0..4u8, 2..9), shards in 1..20u16, gone in any::<prop::sample::Index>()) {
        let problem = founded_in(&zones, shards);
        let before = solve(&problem, &Plan::new());
        let mut problem = settled(&problem, &before);
        let gone = NodeId(gone.index(zones.len()) as u64 + 1);
        problem.nodes.get_mut(&gone).unwrap().holds = false;
        let after = solve(&problem, &before);
        check(&problem, &after)?;
        for (shard, voters) in &after {
            let stay: BTreeSet<_> = before[shard].iter().filter(|node| **node != gone).collect();
            let now: BTreeSet<_> = voters.iter().collect();
            // A group of five that cannot have five any more becomes one of three.
            prop_assert!(stay.is_subset(&now) || voters.len() == before[shard].len() - 2, "{:?} {:?}", before[shard], voters);
            prop_assert!(before[shard].contains(&gone) || before[shard].len() != voters.len() || stay == now);
        }
    }

    #[test]
    fn balance_moves_no_more_than_what_it_takes(nodes in 3..8usize, shards in 1..20u16) {
        let mut problem = founded(&vec![""; nodes], shards);
        problem.effort = Effort::Balance;
        let before = solve(&problem, &Plan::new());
        let mut problem = settled(&problem, &before);
        let new = NodeId(nodes as u64 + 1);
        problem.nodes.insert(new, node(""));
        let after = solve(&problem, &before);
        // Only towards the new node, and no more than its part.
        prop_assert_eq!(moves(&before, &after), loads(&problem, &after)[&new]);
        prop_assert!(spread(&loads(&problem, &after)) <= 1);
        prop_assert!(loads(&problem, &after)[&new] <= (usize::from(shards) * 3).div_ceil(nodes + 1));
    }

    #[test]
    fn whatever_happens_every_membership_has_a_live_majority_and_all_ends_as_planned(
        zones in zones(), shards in 1..8u16, moves_max in 1..4usize, events in prop::collection::vec(event(), 0..40)
    ) {
        let mut world = World::new(founded_in(&zones, shards), moves_max);
        let mut plan = Plan::new();
        for event in events {
            happen(&mut world, &mut plan, event);
        }
        // Who is dead returns; then nothing is in the way.
        let dead: Vec<_> = world.problem.nodes.values_mut().collect();
        dead.into_iter().for_each(|node| node.health = Health::Steady);
        world.elect();
        world.problem.effort = Effort::Mend;
        let mut steps = 0;
        loop {
            let next = solve(&world.problem, &plan);
            prop_assert!(steps == 0 || next == plan, "the plan changes by itself: {:?} {:?}", plan, next);
            plan = next;
            if !world.step(&plan) {
                break;
            }
            steps += 1;
            prop_assert!(steps < 5_000, "it never ends: {:?}", world.in_progress);
        }
        for (shard, present) in &world.problem.shards {
            // A shard whose voters were all evicted waits for an operator.
            let Some(leader) = present.leader else { continue };
            prop_assert_eq!(Some(&leader), plan[shard].first());
            let target: BTreeSet<_> = plan[shard].iter().copied().collect();
            prop_assert_eq!(&present.voters, &target);
            prop_assert!(present.learners.is_empty());
            prop_assert!(present.holders.iter().all(|holder| target.contains(holder) || !world.problem.nodes.contains_key(holder)));
        }
        if world.problem.shards.values().all(|present| present.leader.is_some())
            && world.problem.nodes.values().any(|node| node.holds)
        {
            check(&world.problem, &plan)?;
        }
    }
}

fn happen(world: &mut World, plan: &mut Plan, event: Event) {
    let nodes: Vec<_> = world.problem.nodes.keys().copied().collect();
    let picked = |at: usize| nodes[at % nodes.len()];
    match event {
        Event::Join { zone } => {
            let id = NodeId(nodes.last().map_or(1, |last| last.0 + 1));
            if nodes.len() < 12 {
                world.problem.nodes.insert(id, node(&format!("zone-{zone}")));
            }
        }
        Event::Drain(at) => world.problem.nodes.get_mut(&picked(at)).unwrap().holds = false,
        Event::Die(at) => world.problem.nodes.get_mut(&picked(at)).unwrap().health = Health::Dead,
        Event::Return(at) => world.problem.nodes.get_mut(&picked(at)).unwrap().health = Health::Steady,
        Event::Evict(at) => {
            let node = world.problem.nodes.get_mut(&picked(at)).unwrap();
            node.holds &= node.health > Health::Dead;
        }
        Event::Balance => world.problem.effort = Effort::Balance,
        Event::Go(steps) => {
            for _ in 0..steps {
                *plan = solve(&world.problem, plan);
                if !world.step(plan) {
                    break;
                }
            }
            world.problem.effort = Effort::Mend;
        }
    }
    world.elect();
}
