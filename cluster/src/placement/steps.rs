//! What to do next, so that shards become what is planned.

use std::collections::{BTreeMap, BTreeSet};

use heronry_storage::{NodeId, ShardId};

use super::{Health, Plan, Present, Problem};

/// One change of one shard, made by its leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The node gets the log from now on, and a snapshot when it needs one.
    AddLearner {
        /// The shard.
        shard: ShardId,
        /// The new learner.
        node: NodeId,
    },
    /// These vote from now on, and nobody else: one change by joint consensus, however many are new and however many go. Who
    /// goes is no learner either. The leader looks again before it begins: the new ones have caught up still, and of all of
    /// them a majority can be reached.
    ChangeVoters {
        /// The shard.
        shard: ShardId,
        /// All voters. They are voters or learners already.
        voters: BTreeSet<NodeId>,
    },
    /// The node gets the log no longer.
    RemoveLearner {
        /// The shard.
        shard: ShardId,
        /// The learner that goes.
        node: NodeId,
    },
    /// The node removes its replica from its disk; it is no member of the group.
    Drop {
        /// The shard.
        shard: ShardId,
        /// The node that keeps what it no longer should.
        node: NodeId,
    },
    /// The leader lets this voter lead.
    HandOver {
        /// The shard.
        shard: ShardId,
        /// Who is to lead.
        to: NodeId,
    },
}

impl Step {
    /// The shard that changes.
    pub fn shard(&self) -> ShardId {
        match self {
            Self::AddLearner { shard, .. }
            | Self::ChangeVoters { shard, .. }
            | Self::RemoveLearner { shard, .. }
            | Self::Drop { shard, .. }
            | Self::HandOver { shard, .. } => *shard,
        }
    }
}

/// The steps that may be taken now towards `plan`: one at most for each shard, none for those that have one `in_progress`, none
/// for those without a leader or a live majority. Of new replicas `moves_max` at most are copied at a time, and as many
/// leaderships are handed over.
///
/// Every membership on the way has a majority among the nodes that can be reached now, if the one before had. A leader never
/// removes itself: it hands over first.
pub fn next_steps(
    problem: &Problem,
    plan: &Plan,
    in_progress: &BTreeMap<ShardId, Step>,
    moves_max: usize,
) -> Vec<Step> {
    let mut copying = 0;
    let mut open = Vec::new();
    for (shard, present) in &problem.shards {
        let catches_up = !present.learners.is_subset(&present.caught_up);
        copying += usize::from(catches_up || matches!(in_progress.get(shard), Some(Step::AddLearner { .. })));
        let Some(target) = plan.get(shard).filter(|target| !target.is_empty()) else {
            continue;
        };
        if !in_progress.contains_key(shard) && !present.changing && problem.has_majority(&present.voters) {
            open.push((*shard, present, target));
        }
    }
    // Who has begun goes on, then who could least stand another death.
    open.sort_by_key(|(shard, present, _)| {
        let live = present
            .voters
            .iter()
            .filter(|node| problem.health(**node) > Health::Dead);
        (present.learners.is_empty(), live.count(), *shard)
    });
    let handing_over = in_progress
        .values()
        .filter(|step| matches!(step, Step::HandOver { .. }));
    let (mut copies, mut hand_overs) = (
        moves_max.saturating_sub(copying),
        moves_max.saturating_sub(handing_over.count()),
    );
    let mut steps = Vec::new();
    for (shard, present, target) in open {
        let Some(step) = next_step(problem, shard, present, target) else {
            continue;
        };
        let left = match step {
            Step::AddLearner { .. } => Some(&mut copies),
            Step::HandOver { .. } => Some(&mut hand_overs),
            _ => None,
        };
        if let Some(left) = left {
            if *left == 0 {
                continue;
            }
            *left -= 1;
        }
        steps.push(step);
    }
    steps
}

/// What the shard's leader should do next.
fn next_step(problem: &Problem, shard: ShardId, present: &Present, target: &[NodeId]) -> Option<Step> {
    let leader = present.leader.filter(|leader| present.voters.contains(leader))?;
    let live = |node: &NodeId| problem.health(*node) > Health::Dead;
    let takes_over = |node: &NodeId| {
        *node != leader && present.voters.contains(node) && present.caught_up.contains(node) && live(node)
    };
    // Leaderships first: a node that is drained should hold up nobody while replicas are copied.
    if !target.contains(&leader)
        && let Some(to) = target.iter().find(|node| takes_over(node))
    {
        return Some(Step::HandOver { shard, to: *to });
    }
    if let Some(node) = present.learners.iter().find(|node| !target.contains(node)) {
        return Some(Step::RemoveLearner { shard, node: *node });
    }
    let is_member = |node: &NodeId| present.voters.contains(node) || present.learners.contains(node);
    if present.learners.iter().any(|node| !present.caught_up.contains(node)) {
        return None;
    }
    if let Some(node) = target.iter().find(|node| !is_member(node)) {
        // One that has died since it was planned is planned otherwise next time.
        return live(node).then_some(Step::AddLearner { shard, node: *node });
    }
    // The leader stays until it has handed over to one of those who stay.
    let voters: BTreeSet<_> = target.iter().copied().chain([leader]).collect();
    if voters != present.voters {
        let promoted_live = voters.difference(&present.voters).all(live);
        return (promoted_live && problem.has_majority(&voters)).then_some(Step::ChangeVoters { shard, voters });
    }
    let is_stray = |node: &&NodeId| !is_member(node) && live(node);
    if let Some(node) = present.holders.iter().find(is_stray) {
        return Some(Step::Drop { shard, node: *node });
    }
    let to = *target.first()?;
    let wanted = to != leader && takes_over(&to) && problem.health(to) == Health::Steady;
    wanted.then_some(Step::HandOver { shard, to })
}
