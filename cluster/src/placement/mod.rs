//! Which nodes should hold which replicas, and how to get there: pure functions.
//!
//! [`solve`] says where the voters of every shard should be; [`next_steps`] says what to do now so that it becomes true, one
//! thing at a time per shard. Neither remembers anything.
//!
//! # What a plan keeps to
//!
//! * Voters are on active core nodes. New ones are given only to nodes that have been reachable for a while; a node that is
//!   merely dead keeps what it has, for nobody knows that it is gone.
//! * A shard has the wished number of voters (three), or fewer while there are fewer nodes, and never grows to an even number: a
//!   second or fourth voter makes a majority no easier to have. What has three and is left with two nodes keeps both all the
//!   same: one voter would mean that what was acknowledged lies on one machine only.
//! * No two voters of a shard are in one zone when there are enough zones; otherwise they are spread as far as there are any.
//! * [`Effort::Mend`] moves as little as the rules above allow, and balances with what has to move; [`Effort::Balance`] balances
//!   as far as the rules allow, and moves as little as that takes. Either is an optimum: a minimum-cost flow ([`flow`]), not a
//!   heuristic.
//! * The first voter of a shard is who should lead it. Leaders are always balanced; changing them copies nothing.
//! * A target whose live voters are no majority of it is never proposed: such a shard stays as it is.
//! * The same problem has the same solution, everywhere, and a solution's solution is itself.

mod flow;
mod solve;
mod steps;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use heronry_storage::{NodeId, ShardId};

pub use solve::solve;
pub use steps::{Step, next_steps};

/// What [`solve`] is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Every node that has or could have replicas. A node that is not here is treated as one that must lose everything.
    pub nodes: BTreeMap<NodeId, Candidate>,
    /// Every shard, as it is.
    pub shards: BTreeMap<ShardId, Present>,
    /// What comes first.
    pub effort: Effort,
}

/// A node as placement sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where it stands; nodes of one zone may fail together. Without zones: the same for all.
    pub zone: String,
    /// It can have replicas: it has the role `core`, and is not to lose what it has.
    pub holds: bool,
    /// Whether it can be reached.
    pub health: Health,
    /// How much it should hold in proportion to others, for example by its disk; at least 1.
    pub weight: u32,
}

/// Whether a node can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It cannot.
    Dead,
    /// It can, since a moment ago: it counts for majorities, but is given nothing new yet.
    Back,
    /// It can, and has been for a while.
    Steady,
}

/// A shard as its leader describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// How many voters it should have when there are nodes enough: an odd number.
    pub wished: usize,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// Who gets the log, and does not vote.
    pub learners: BTreeSet<NodeId>,
    /// Voters and learners that have about all of the log.
    pub caught_up: BTreeSet<NodeId>,
    /// Who leads; `None`: nobody, or nobody knows. Then nothing can be done.
    pub leader: Option<NodeId>,
    /// A change of voters is not finished.
    pub changing: bool,
    /// Nodes that keep a replica on their disk.
    pub holders: BTreeSet<NodeId>,
}

/// What [`solve`] puts first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Few moves: only what is missing or against the rules is placed anew. A shard that has one voter and can have three is
    /// placed for the first time, so there balance comes first.
    Mend,
    /// Balance.
    Balance,
}

/// Who should vote in each shard; the first should lead it.
pub type Plan = BTreeMap<ShardId, Vec<NodeId>>;

impl Problem {
    fn health(&self, node: NodeId) -> Health {
        self.nodes.get(&node).map_or(Health::Dead, |node| node.health)
    }

    /// Whether those of these voters that can be reached are a majority of them.
    pub fn has_majority<'a>(&self, voters: impl IntoIterator<Item = &'a NodeId>) -> bool {
        let (mut all, mut live) = (0, 0);
        for voter in voters {
            all += 1;
            live += usize::from(self.health(*voter) > Health::Dead);
        }
        live * 2 > all
    }

    /// Whether a node can have replicas and is not to lose them.
    fn holds(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.holds)
    }
}
