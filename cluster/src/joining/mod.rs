//! How a node comes into a cluster: by founding one, or by being let in.
//!
//! A node's disk says whether it is a member ([`Standing`]). Without seeds, one that is not founds a cluster of itself. With
//! seeds it never does by itself: it asks them to be let in, and asks again until it is. A cluster begins otherwise only
//!
//! * by an operator's word at one node that waits ([`Joining::init`]), or
//! * by *bootstrap*: N nodes that wait found it together.
//!
//! # Bootstrap
//!
//! Nodes that wait tell each other of those they know. Whoever knows N of them with empty disks and the same N, every seed of
//! each among them, knows the *team*: who stands behind the seeds, and of the others the lowest ids. The lowest id of the team is
//! the *candidate*; it asks the others to let it found the cluster. A node that does so has *pledged*: it has written down whom,
//! and lets nobody else until that one has said that it is no candidate any more, which makes void what it was promised. With the
//! pledges of all the team, the candidate founds: it writes the cluster's id and first map to its disk. The others join it like
//! any other.
//!
//! So two candidates cannot both found: every team has the seeds, and who stands behind a seed has pledged to one of them. Nodes
//! that die, restart or say things twice change nothing about that, for a pledge outlives its process.
//!
//! The state machine ([`Joining`]) has no clock, no network, no disk and no randomness but what it is given. Members answer by
//! [`admit`], a pure function.

mod admission;
mod form;
mod machine;
mod team;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use heronry_storage::NodeId;

use crate::map::{ClusterMap, Newcomer};

pub use admission::{Admission, Leads, admit};
pub use machine::{Action, JoinError, Joining, NoInit};

/// Most nodes that can found a cluster together, and most that a waiting node remembers to have met. Others are not remembered.
pub const MET_MAX: usize = 64;

/// Most seeds.
pub const SEEDS_MAX: usize = 64;

/// What a node keeps on its disk about its cluster. Whoever keeps it replaces it as a whole, durably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It belongs to none.
    Alone,
    /// It lets that node found the cluster, and no other.
    Pledged {
        /// Who may.
        to: NodeId,
        /// Where it is.
        address: String,
    },
    /// It is a member of the cluster with this map. It may be newer elsewhere; version 0 is that of a cluster this node has
    /// founded.
    Member(Box<ClusterMap>),
}

/// How a node is to come into a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinOptions {
    /// The node.
    pub me: Newcomer,
    /// What operators call the cluster; another cluster's nodes are not talked to.
    pub cluster_name: String,
    /// Addresses to ask.
    pub seeds: Vec<String>,
    /// How many nodes found a cluster together.
    pub bootstrap: Option<u16>,
    /// Of a cluster that is founded here.
    pub shards: u16,
    /// The disk holds rows or logs, though it belongs to no cluster.
    pub has_data: bool,
}

/// What a waiting node asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Who asks.
    pub about: About,
    /// That the asked one lets it found the cluster.
    pub please: Option<Please>,
}

/// That the other one lets the asking node found the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Please {
    /// Tells this request from earlier ones.
    pub round: u64,
    /// Who is to found it together.
    pub team: BTreeSet<NodeId>,
}

/// A node that waits, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The node.
    pub node: Newcomer,
    /// The cluster it is to belong to.
    pub cluster_name: String,
    /// It keeps nothing but its identity.
    pub is_empty: bool,
    /// How many are to found the cluster together.
    pub bootstrap: Option<u16>,
    /// Its seeds, and who has answered there.
    pub seeds: BTreeMap<String, Option<NodeId>>,
    /// It asks others to let it found the cluster.
    pub is_candidate: bool,
    /// Whom it lets found the cluster.
    pub pledged_to: Option<NodeId>,
    /// Others that wait, and where they are.
    pub met: BTreeMap<NodeId, String>,
}

/// What a waiting node is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The other one is no member either.
    Waiting {
        /// Who it is.
        about: Box<About>,
        /// The round of a request that it grants.
        pledged: Option<u64>,
    },
    /// The asking node is a member now, of the cluster with this map.
    Admitted(Box<ClusterMap>),
    /// It will not be let in as it is.
    Refused(String),
    /// It cannot be let in now.
    NotNow(String),
}
