//! What an operator may ask for, and what must be said about it first.

use std::collections::BTreeSet;

use heronry_storage::{NodeId, ShardId};
use tokio::time::Instant;

use super::{View, planned, problem};
use crate::{
    map::{ClusterMap, Command, MemberState, Refused, shards_in_words},
    placement::solve,
};

/// A node can be drained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// What begins it.
    pub command: Command,
    /// What it costs, for the operator.
    pub notice: Option<String>,
}

/// A node cannot be drained. Each is a sentence for an operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDrain {
    /// The map says no.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// There is no other node for its devices.
    #[error(
        "node {0} cannot be drained at present: devices are connected to it, and no other node with the role edge is there to \
         take them; let one join, or come back, first"
    )]
    LastEdge(NodeId),
    /// There is no other node for what it has.
    #[error(
        "node {node} cannot be drained at present: {} can be nowhere else with a majority of live voters; let other nodes with \
         the role core join, or come back, first",
        shards_in_words(.shards)
    )]
    Nowhere {
        /// The node.
        node: NodeId,
        /// What would have to stay on it.
        shards: BTreeSet<ShardId>,
    },
}

/// A node was not evicted. Each is a sentence for an operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEvict {
    /// The map says no.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Shards would stop.
    #[error("{}", consequences(*node, stopped, lost))]
    Majority {
        /// The node.
        node: NodeId,
        /// Shards that would have no majority of live voters.
        stopped: BTreeSet<ShardId>,
        /// Those of them that would have no live voter at all.
        lost: BTreeSet<ShardId>,
    },
}

/// Whether a node may be drained, and what it costs.
///
/// # Errors
/// When it is no member, or something it has could be nowhere else. Being drained already is no error.
pub fn drain(view: &View<'_>, node: NodeId, now: Instant) -> Result<Drain, NoDrain> {
    let state = MemberState::Draining;
    let command = Command::SetState { node, state };
    command.evaluate(view.map)?;
    if view.nodes.get(&node).is_some_and(|report| report.streams > 0) && !has_other_edge(view, node) {
        return Err(NoDrain::LastEdge(node));
    }
    let mut problem = problem(view, now);
    if let Some(candidate) = problem.nodes.get_mut(&node) {
        candidate.holds = false;
    }
    let before = planned(view.map);
    let after = solve(&problem, &before);
    let stays = after.iter().filter(|(_, target)| target.contains(&node));
    let shards: BTreeSet<_> = stays.map(|(shard, _)| *shard).collect();
    if !shards.is_empty() {
        return Err(NoDrain::Nowhere { node, shards });
    }
    let fewer = after
        .iter()
        .filter(|(shard, target)| target.len() < before[*shard].len());
    let fewer: BTreeSet<_> = fewer.map(|(shard, _)| *shard).collect();
    let notice = (!fewer.is_empty()).then(|| {
        format!(
            "{} will have fewer replicas than before, until another node with the role core joins",
            shards_in_words(&fewer)
        )
    });
    Ok(Drain { command, notice })
}

/// The command that evicts a node.
///
/// # Errors
/// When it is no member; and, unless `force`, while a shard would be left without a majority of live voters.
pub fn evict(view: &View<'_>, node: NodeId, force: bool) -> Result<Command, NoEvict> {
    let state = MemberState::Evicted;
    let command = Command::SetState { node, state };
    let writes = command.evaluate(view.map)?;
    let (stopped, lost) = stopped_without(view, node);
    if force || writes.is_empty() || stopped.is_empty() {
        return Ok(command);
    }
    Err(NoEvict::Majority { node, stopped, lost })
}

/// The shards that have `node` as a voter and would have no majority of live voters without it, and those of them that would
/// have no live voter.
fn stopped_without(view: &View<'_>, node: NodeId) -> (BTreeSet<ShardId>, BTreeSet<ShardId>) {
    let (mut stopped, mut lost) = (BTreeSet::new(), BTreeSet::new());
    for shard in view.map.shards.keys() {
        let voters = voters(view, *shard);
        let live = voters
            .iter()
            .filter(|voter| **voter != node && is_live(view.map, view, **voter))
            .count();
        if !voters.contains(&node) || live * 2 > voters.len() {
            continue;
        }
        stopped.insert(*shard);
        if live == 0 {
            lost.insert(*shard);
        }
    }
    (stopped, lost)
}

fn has_other_edge(view: &View<'_>, node: NodeId) -> bool {
    view.map.nodes.iter().any(|(other, member)| {
        let stays = member.roles.edge && member.state == MemberState::Active;
        stays && *other != node && is_live(view.map, view, *other)
    })
}

fn voters(view: &View<'_>, shard: ShardId) -> BTreeSet<NodeId> {
    let reported = view.shards.get(&shard).map(|report| report.voters.clone());
    reported.unwrap_or_else(|| view.map.shards[&shard].voters())
}

fn is_live(map: &ClusterMap, view: &View<'_>, node: NodeId) -> bool {
    let is_member = map.nodes.get(&node).is_some_and(|member| member.state.is_present());
    is_member && view.nodes.get(&node).is_some_and(|report| report.alive)
}

fn consequences(node: NodeId, stopped: &BTreeSet<ShardId>, lost: &BTreeSet<ShardId>) -> String {
    let mut sentence = format!(
        "node {node} was not evicted: {} would have no majority of live voters without it and accept nothing until enough of \
         their other voters come back",
        shards_in_words(stopped)
    );
    if !lost.is_empty() {
        sentence += &format!(
            "; {} would have no live voter at all, and what is stored there would be out of reach, or lost if no other voter \
             comes back",
            shards_in_words(lost)
        );
    }
    sentence + "; if it is gone for good all the same, force it"
}
