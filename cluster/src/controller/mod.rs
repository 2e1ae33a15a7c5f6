//! Who makes shards be where they should: the controller, which runs where the metadata group is led.
//!
//! [`Controller::next`] looks at the map and at what nodes and leaders report, and says what to do: commands for the map, and
//! steps for shards. It does nothing itself, and everything it remembers is what it has asked for a moment ago, so another one
//! can go on at any time.
//!
//! * A node that is dead keeps its replicas, until an operator evicts it or `replace_after` has passed.
//! * A node that drains gives away leaderships, then replicas, and has left when it has nothing.
//! * When a cluster grows from one node to three, everything is replicated at once, over all nodes there are; later nodes get
//!   replicas when something must move or balance is asked for (`rebalance`).
//!
//! # What carries it out must see to this
//!
//! Only the leader of the metadata group with a valid lease asks. An [`Order`] may still arrive late; so a node refuses orders of
//! a lower metadata term than it has seen, a shard's leader refuses orders of another term of the shard, and a node that is to
//! drop a replica first asks the shard's leader whether it is a member, and takes no message of the group in between.

mod operator;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use heronry_storage::{NodeId, ShardId};
use tokio::time::Instant;

use crate::{
    map::{ClusterMap, Command, METADATA, MemberState, Rebalance},
    placement::{Candidate, Effort, Health, Plan, Present, Problem, Step, next_steps, solve},
};

pub use operator::{Drain, NoDrain, NoEvict, drain, evict};

/// How long a step may take until the reports show it; then it is asked for again, if it is still wanted.
const STEP_IN: Duration = Duration::from_secs(30);

/// After a step has failed, how long its shard is left alone.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How many times `settle_after` a first placement waits for nodes that have just come.
const SETTLE_TIMES: u32 = 4;

/// What the controller sees.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The map, as the leader of the metadata group has applied it.
    pub map: &'a ClusterMap,
    /// What leaders have said last of their shards. A shard that nobody leads is not here.
    pub shards: BTreeMap<ShardId, ShardReport>,
    /// What is known of nodes, the one this runs on included. Who is not here has not been heard.
    pub nodes: BTreeMap<NodeId, NodeReport>,
}

/// A shard as its leader describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardReport {
    /// Who leads.
    pub leader: NodeId,
    /// In which term.
    pub term: u64,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// Who gets the log and does not vote.
    pub learners: BTreeSet<NodeId>,
    /// Those of them who have about all of the log.
    pub caught_up: BTreeSet<NodeId>,
    /// A change of voters is not finished.
    pub changing: bool,
}

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Whether it can be reached.
    pub alive: bool,
    /// Since when it can, or cannot.
    pub since: Instant,
    /// The shards it keeps a replica of on its disk, when it can be reached.
    pub holds: BTreeSet<ShardId>,
    /// Connections of devices that it has.
    pub streams: u64,
}

/// What the controller wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Propose this to the metadata group.
    Propose(Command),
    /// Let this step be taken. If it fails, tell [`Controller::failed`].
    Order(Order),
}

/// A step, and who takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The shard's leader, or for [`Step::Drop`] the node itself.
    pub to: NodeId,
    /// The shard's term in which the step was found right.
    pub term: u64,
    /// What to do.
    pub step: Step,
}

/// How far the cluster is from what it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Voters that are still to come.
    pub replicas_to_come: usize,
    /// Voters, learners and left-over replicas that are still to go.
    pub replicas_to_go: usize,
    /// Shards that are not led by whom they should be.
    pub leaders_to_change: usize,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Controller {
    began: Instant,
    in_progress: BTreeMap<ShardId, InProgress>,
    /// Since when a first placement waits.
    held_since: Option<Instant>,
    /// The last problem and plan that had nothing to change: as long as they are the same, nothing has.
    solved: Option<(Problem, Plan)>,
}

#[derive(Debug)]
struct InProgress {
    step: Step,
    /// The term in which it was asked for.
    term: u64,
    until: Instant,
}

impl Controller {
    /// A controller on a node that has just begun to lead the metadata group.
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            in_progress: BTreeMap::new(),
            held_since: None,
            solved: None,
        }
    }

    /// What to do now. To be asked whenever the view has changed, and every second.
    pub fn next(&mut self, view: &View<'_>, now: Instant) -> Vec<Action> {
        let problem = problem(view, now);
        let mut commands = reported(view);
        // Who has not been heard yet may be well.
        if now >= self.began + view.map.settings().settle_after {
            if !self.holds_first_placement(view, &problem, now) {
                commands.extend(self.targets(view, &problem));
            }
            commands.extend(leaving(view, now));
            if is_balanced(view, &problem, &commands) {
                commands.push(Command::SetSetting {
                    name: "rebalance".to_owned(),
                    value: None,
                });
            }
        }
        let orders = self.orders(view, &problem, now);
        let commands = commands.into_iter().map(Action::Propose);
        commands.chain(orders.into_iter().map(Action::Order)).collect()
    }

    /// A step of this shard has failed. It is asked for again after a while, if it is still wanted.
    pub fn failed(&mut self, shard: ShardId, now: Instant) {
        if let Some(step) = self.in_progress.get_mut(&shard) {
            step.until = now + AGAIN_AFTER;
        }
    }

    /// Steps that have been asked for and do not show yet.
    pub fn in_progress(&self) -> impl Iterator<Item = &Step> {
        self.in_progress.values().map(|in_progress| &in_progress.step)
    }

    fn orders(&mut self, view: &View<'_>, problem: &Problem, now: Instant) -> Vec<Order> {
        self.in_progress.retain(|shard, in_progress| {
            let same_term = view
                .shards
                .get(shard)
                .is_some_and(|report| report.term == in_progress.term);
            let waits = problem
                .shards
                .get(shard)
                .is_some_and(|present| !shows(present, &in_progress.step));
            same_term && now < in_progress.until && waits
        });
        let steps = self.in_progress.iter();
        let steps = steps
            .map(|(shard, in_progress)| (*shard, in_progress.step.clone()))
            .collect();
        let mut orders = Vec::new();
        for step in next_steps(problem, &planned(view.map), &steps, view.map.settings().moves_max) {
            let Some(report) = view.shards.get(&step.shard()) else {
                continue;
            };
            let to = match step {
                Step::Drop { node, .. } => node,
                _ => report.leader,
            };
            let in_progress = InProgress {
                step: step.clone(),
                term: report.term,
                until: now + STEP_IN,
            };
            self.in_progress.insert(step.shard(), in_progress);
            orders.push(Order {
                to,
                term: report.term,
                step,
            });
        }
        orders
    }

    /// Targets that should be others.
    fn targets(&mut self, view: &View<'_>, problem: &Problem) -> Vec<Command> {
        let before = planned(view.map);
        if let Some((same, plan)) = &self.solved
            && same == problem
            && *plan == before
        {
            return Vec::new();
        }
        let mut after = solve(problem, &before);
        if after == before {
            self.solved = Some((problem.clone(), after));
            return Vec::new();
        }
        after.retain(|shard, target| before.get(shard) != Some(target));
        let commands = after
            .into_iter()
            .map(|(shard, target)| Command::SetShard { shard, target });
        commands.collect()
    }

    /// Nodes that come at about the same time should all have a part in the first placement.
    fn holds_first_placement(&mut self, view: &View<'_>, problem: &Problem, now: Instant) -> bool {
        let comes = problem
            .nodes
            .values()
            .any(|node| node.holds && node.health == Health::Back);
        let is_first = view.map.shards.values().any(|placement| placement.target.len() == 1);
        if !comes || !is_first {
            self.held_since = None;
            return false;
        }
        let since = *self.held_since.get_or_insert(now);
        now < since + view.map.settings().settle_after * SETTLE_TIMES
    }
}

impl Progress {
    /// How far the cluster is from what its map says it should be.
    pub fn of(view: &View<'_>, now: Instant) -> Self {
        let problem = problem(view, now);
        let mut progress = Self::default();
        for (shard, target) in planned(view.map) {
            let present = &problem.shards[&shard];
            let target_set: BTreeSet<_> = target.iter().copied().collect();
            let kept: BTreeSet<_> = [&present.voters, &present.learners, &present.holders]
                .into_iter()
                .flatten()
                .collect();
            progress.replicas_to_come += target_set.difference(&present.voters).count();
            progress.replicas_to_go += kept.into_iter().filter(|node| !target_set.contains(node)).count();
            progress.leaders_to_change += usize::from(present.leader != target.first().copied());
        }
        progress
    }
}

/// The targets of the map.
fn planned(map: &ClusterMap) -> Plan {
    map.shards
        .iter()
        .map(|(shard, placement)| (*shard, placement.target.clone()))
        .collect()
}

/// What placement is asked.
fn problem(view: &View<'_>, now: Instant) -> Problem {
    let settings = view.map.settings();
    let candidate = |(node, member): (NodeId, &crate::map::Member)| {
        let report = view.nodes.get(&node);
        let health = match report {
            Some(report) if report.alive && now >= report.since + settings.settle_after => Health::Steady,
            Some(report) if report.alive => Health::Back,
            _ => Health::Dead,
        };
        let given_up = match (report, settings.replace_after) {
            (Some(report), Some(after)) => !report.alive && now >= report.since + after,
            _ => false,
        };
        let candidate = Candidate {
            zone: member.zone.clone(),
            holds: member.roles.core && member.state == MemberState::Active && !given_up,
            health,
            weight: 1,
        };
        (node, candidate)
    };
    let mut holders: BTreeMap<ShardId, BTreeSet<NodeId>> = BTreeMap::new();
    let is_member = |node| view.map.nodes.get(node).is_some_and(|member| member.state.is_present());
    for (node, report) in view
        .nodes
        .iter()
        .filter(|(node, report)| report.alive && is_member(node))
    {
        for shard in &report.holds {
            holders.entry(*shard).or_default().insert(*node);
        }
    }
    let shards = view.map.shards.iter().map(|(shard, placement)| {
        let wished = match *shard == METADATA {
            true => settings.metadata_replicas,
            false => settings.replicas,
        };
        let mut present = match view.shards.get(shard) {
            Some(report) => Present {
                voters: report.voters.clone(),
                learners: report.learners.clone(),
                caught_up: report.caught_up.clone(),
                leader: Some(report.leader),
                changing: report.changing,
                ..Present::default()
            },
            None => Present {
                voters: placement.voters(),
                learners: placement.learners(),
                ..Present::default()
            },
        };
        present.wished = wished;
        present.holders = holders.remove(shard).unwrap_or_default();
        (*shard, present)
    });
    Problem {
        nodes: view.map.members().map(candidate).collect(),
        shards: shards.collect(),
        effort: match settings.rebalance {
            Rebalance::Off => Effort::Mend,
            Rebalance::Once | Rebalance::Always => Effort::Balance,
        },
    }
}

/// What leaders say that the map does not.
fn reported(view: &View<'_>) -> Vec<Command> {
    let differs = view.shards.iter().filter(|(shard, report)| {
        let placement = view.map.shards.get(shard);
        !report.changing
            && placement
                .is_some_and(|placement| placement.voters() != report.voters || placement.learners() != report.learners)
    });
    let command = differs.map(|(shard, report)| Command::SetReplicas {
        shard: *shard,
        voters: report.voters.clone(),
        learners: report.learners.clone(),
    });
    command.collect()
}

/// Nodes that have left, or count as such.
fn leaving(view: &View<'_>, now: Instant) -> Vec<Command> {
    let settings = view.map.settings();
    let gone = view.map.members().filter(|(node, member)| {
        let report = view.nodes.get(node);
        let is_alive = report.is_some_and(|report| report.alive);
        let has_nothing = view.map.shards_of(*node).is_empty()
            && !report.is_some_and(|report| report.alive && (!report.holds.is_empty() || report.streams > 0));
        let dead_for = report
            .filter(|_| !is_alive)
            .map(|report| now.duration_since(report.since));
        let forgotten = match (dead_for, settings.forget_edges_after) {
            (Some(dead_for), Some(after)) => !member.roles.core && dead_for >= after,
            _ => false,
        };
        has_nothing && (member.state == MemberState::Draining || forgotten)
    });
    let state = MemberState::Left;
    gone.map(|(node, _)| Command::SetState { node, state }).collect()
}

/// Balance was asked for once, and there is nothing left to do for it.
fn is_balanced(view: &View<'_>, problem: &Problem, commands: &[Command]) -> bool {
    let settled = problem.shards.iter().all(|(shard, present)| {
        let target = &view.map.shards[shard].target;
        present.voters == target.iter().copied().collect() && !present.changing
    });
    let changes = commands
        .iter()
        .any(|command| matches!(command, Command::SetShard { .. }));
    // Who has just come should have its part.
    let comes = problem
        .nodes
        .values()
        .any(|node| node.holds && node.health == Health::Back);
    view.map.settings().rebalance == Rebalance::Once && settled && !changes && !comes
}

/// Whether a step has been taken, as far as reports show.
fn shows(present: &Present, step: &Step) -> bool {
    match step {
        Step::AddLearner { node, .. } => present.learners.contains(node) || present.voters.contains(node),
        Step::ChangeVoters { voters, .. } => present.voters == *voters && !present.changing,
        Step::RemoveLearner { node, .. } => !present.learners.contains(node),
        Step::Drop { node, .. } => !present.holders.contains(node),
        Step::HandOver { to, .. } => present.leader == Some(*to),
    }
}
