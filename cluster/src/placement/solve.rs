//! Where voters and leaders should be.

use std::collections::{BTreeMap, BTreeSet};

use heronry_storage::{NodeId, ShardId};

use super::{
    Effort, Health, Plan, Present, Problem,
    flow::{Cost, Flow},
};

// Costs of different ranks never mix: some thousand replicas on nodes with weights of up to `WEIGHT_MAX` count less in one rank
// than a single one in the next.

/// A further voter in a zone: more than everything else.
const SPREAD: Cost = 1 << 100;

/// Of loads and moves, what comes second counts in units, what comes first in multiples of this.
const FIRST: Cost = 1 << 50;

/// A load's unit, so that its quotient by a node's weight keeps its meaning.
const LOAD: Cost = 1 << 20;

/// What copying a replica to another node counts; ties are below it.
const MOVE: Cost = 1 << 8;

/// Nodes that weigh more count as this.
const WEIGHT_MAX: u32 = 1 << 10;

/// Where the voters of every shard of the problem should be, and who should lead. `previous`: the plan before, which is kept to
/// as far as it still serves; shards that it does not have are planned from what they are.
pub fn solve(problem: &Problem, previous: &Plan) -> Plan {
    let wanted: Vec<Wanted> = problem
        .shards
        .iter()
        .map(|(shard, present)| {
            let before = previous
                .get(shard)
                .cloned()
                .unwrap_or_else(|| leader_first(present, *shard));
            Wanted::new(problem, *shard, present, before)
        })
        .collect();
    let mut voters = place(problem, &wanted);
    for (wanted, voters) in wanted.iter().zip(&mut voters) {
        if voters.is_empty() || !problem.has_majority(&*voters) {
            voters.clone_from(&wanted.present.voters);
        }
    }
    let leaders = lead(problem, &wanted, &voters);
    wanted
        .iter()
        .zip(voters)
        .zip(leaders)
        .map(|((wanted, voters), leader)| (wanted.shard, in_order(wanted.shard, voters, leader)))
        .collect()
}

/// What one shard wants.
struct Wanted<'a> {
    shard: ShardId,
    present: &'a Present,
    before: Vec<NodeId>,
    /// Nodes that could vote, by zone, with what it costs.
    zones: BTreeMap<&'a str, Vec<(NodeId, Copies)>>,
    /// How many voters.
    count: usize,
}

/// What it takes to have a voter on a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copies {
    /// Nothing: it is in the plan before.
    Planned,
    /// Nothing, but it was to go.
    Present,
    /// A copy of the shard.
    Missing,
}

impl<'a> Wanted<'a> {
    fn new(problem: &'a Problem, shard: ShardId, present: &'a Present, before: Vec<NodeId>) -> Self {
        let mut zones: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        let (mut candidates, mut kept) = (0, 0);
        for (node, candidate) in &problem.nodes {
            let votes = present.voters.contains(node);
            let planned = before.contains(node) && (votes || candidate.health > Health::Dead);
            if !candidate.holds || !(planned || candidate.health == Health::Steady) {
                continue;
            }
            let copies = match planned {
                true => Copies::Planned,
                false if votes || present.learners.contains(node) => Copies::Present,
                false => Copies::Missing,
            };
            candidates += 1;
            kept += usize::from(planned && votes);
            zones.entry(&candidate.zone).or_default().push((*node, copies));
        }
        let count = voters_wished(present.wished, candidates, kept);
        Self {
            shard,
            present,
            before,
            zones,
            count,
        }
    }

    /// It is replicated for the first time: everything is copied anyway.
    fn is_first_placement(&self) -> bool {
        self.before.len() == 1 && self.count > 1
    }
}

/// How many voters a shard should have of `candidates` nodes, `kept` of which vote already.
fn voters_wished(wished: usize, candidates: usize, kept: usize) -> usize {
    match wished.min(candidates) {
        // What is acknowledged should not lie on one machine only because a second voter does not help to have a majority.
        2 if kept >= 2 => 2,
        even if even % 2 == 0 => even.saturating_sub(1),
        odd => odd,
    }
}

/// Voters of each wanted shard.
fn place(problem: &Problem, wanted: &[Wanted]) -> Vec<BTreeSet<NodeId>> {
    let mut flow = Flow::default();
    let (source, sink) = (flow.vertex(), flow.vertex());
    let nodes: BTreeMap<_, _> = problem.nodes.keys().map(|node| (*node, flow.vertex())).collect();
    let (load_unit, move_unit) = match problem.effort {
        Effort::Mend => (LOAD, MOVE * FIRST),
        Effort::Balance => (LOAD * FIRST, MOVE),
    };
    let mut chosen = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let shard = flow.vertex();
        flow.edge(source, shard, wanted.count as u32, 0);
        let first_placement = wanted.is_first_placement();
        for members in wanted.zones.values() {
            let zone = flow.vertex();
            for nth in 0..wanted.count.min(members.len()) {
                flow.edge(shard, zone, 1, nth as Cost * SPREAD);
            }
            for (node, copies) in members {
                let cost = match copies {
                    Copies::Planned if first_placement => move_unit,
                    Copies::Planned => 0,
                    Copies::Present => move_unit / 2,
                    Copies::Missing => move_unit + 1,
                };
                chosen.push((wanted.shard, *node, flow.edge(zone, nodes[node], 1, cost)));
            }
        }
    }
    for (node, vertex) in &nodes {
        let weight = Cost::from(problem.nodes[node].weight.clamp(1, WEIGHT_MAX));
        // Each further replica costs more than the one before, so the sum is least where loads are most even.
        for nth in 0..wanted.len() {
            flow.edge(*vertex, sink, 1, (2 * nth as Cost + 1) * load_unit / weight);
        }
    }
    flow.run(source, sink);
    let mut voters: BTreeMap<ShardId, BTreeSet<NodeId>> = BTreeMap::new();
    for (shard, node, edge) in chosen {
        if flow.is_used(edge) {
            voters.entry(shard).or_default().insert(node);
        }
    }
    wanted
        .iter()
        .map(|wanted| voters.remove(&wanted.shard).unwrap_or_default())
        .collect()
}

/// A leader for each shard: as even as can be, then as few changes as can be. Who is dead now keeps its turn.
fn lead(problem: &Problem, wanted: &[Wanted], voters: &[BTreeSet<NodeId>]) -> Vec<Option<NodeId>> {
    let mut flow = Flow::default();
    let (source, sink) = (flow.vertex(), flow.vertex());
    let nodes: BTreeMap<NodeId, _> = voters.iter().flatten().map(|node| (*node, flow.vertex())).collect();
    let mut chosen = Vec::new();
    for (place, (wanted, voters)) in wanted.iter().zip(voters).enumerate() {
        let shard = flow.vertex();
        flow.edge(source, shard, 1, 0);
        // Where a shard has to stay on nodes that should lose it, they should at least not lead it.
        let may_lead = |node: &NodeId| problem.holds(*node) || !voters.iter().any(|node| problem.holds(*node));
        for node in voters.iter().filter(|node| may_lead(node)) {
            let cost = match (wanted.before.first(), wanted.present.leader) {
                (Some(before), _) if before == node => 0,
                (_, Some(leader)) if leader == *node => 1,
                _ => 2,
            };
            chosen.push((place, *node, flow.edge(shard, nodes[node], 1, cost)));
        }
    }
    for vertex in nodes.values() {
        for nth in 0..wanted.len() {
            flow.edge(*vertex, sink, 1, (2 * nth as Cost + 1) * FIRST);
        }
    }
    flow.run(source, sink);
    let mut leaders = vec![None; wanted.len()];
    for (place, node, edge) in chosen {
        if flow.is_used(edge) {
            leaders[place] = Some(node);
        }
    }
    leaders
}

/// A shard's voters as they are, as a plan has them.
fn leader_first(present: &Present, shard: ShardId) -> Vec<NodeId> {
    let leader = present.leader.filter(|leader| present.voters.contains(leader));
    in_order(shard, present.voters.clone(), leader)
}

/// The leader, then the others, beginning elsewhere for each shard: who stands second takes over, and it should not be the same
/// node for all that a dead node has led.
fn in_order(shard: ShardId, voters: BTreeSet<NodeId>, leader: Option<NodeId>) -> Vec<NodeId> {
    let mut others: Vec<_> = voters.into_iter().filter(|node| Some(*node) != leader).collect();
    if !others.is_empty() {
        let by = usize::from(shard.0) % others.len();
        others.rotate_left(by);
    }
    leader.into_iter().chain(others).collect()
}
