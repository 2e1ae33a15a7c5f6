//! The map of a cluster: who its members are, where its shards are, what is set.
//!
//! The map is the content of the *metadata group*, a group like those of shards ([`METADATA`]), whose rows no address has. It is
//! changed by [`Command`]s, which are evaluated by whoever leads that group; every node keeps the newest map it has heard of,
//! and nothing waits for a newer one.
//!
//! A map's version is the index of the entry that made it, so of two maps of one cluster the one with the greater version is
//! the newer one.

mod command;
mod form;
mod rows;
mod settings;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use heronry_storage::{NodeId, RowsError, ShardId, Write};

use crate::identity::ClusterId;

pub(crate) use command::shards_in_words;
pub use command::{Command, Newcomer, Refused};
pub(crate) use form::read_services;
pub use rows::SLOT;
pub use settings::{Rebalance, SECRET, SETTINGS, Setting, Settings, is_secret};

/// The metadata group, as if it were a shard. Its rows' keys begin with the slot of the same number.
pub const METADATA: ShardId = ShardId(u16::MAX);

/// Most members, those included that have left or were evicted. One more is refused.
pub const MEMBERS_MAX: usize = 4096;

/// Most replicas of one shard, learners included.
pub const REPLICAS_MAX: usize = 16;

/// The longest address, zone, version, name or value of a setting, in bytes.
pub const TEXT_BYTES_MAX: usize = 255;

/// What a member may offer at most.
pub const SERVICES_MAX: usize = 16;

/// A cluster, as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterMap {
    /// Which cluster.
    pub cluster: ClusterId,
    /// What operators call it.
    pub name: String,
    /// The index of the entry of the metadata group that made it so.
    pub version: u64,
    /// What members may write: nothing that a program of a lower level does not know. It only grows.
    pub feature_level: u32,
    /// Who is in it, and who was.
    pub nodes: BTreeMap<NodeId, Member>,
    /// Where the shards are, [`METADATA`] included.
    pub shards: BTreeMap<ShardId, Placement>,
    /// What is not as by default ([`Settings`] says what it means). Names that this program does not know are kept.
    pub settings: BTreeMap<String, String>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it does.
    pub roles: Roles,
    /// `host:port`, as other members reach it.
    pub address: String,
    /// Where it stands; empty when it has not said.
    pub zone: String,
    /// Whether it stays.
    pub state: MemberState,
    /// The highest feature level its program knows.
    pub feature_level: u32,
    /// The version of its program.
    pub version: String,
    /// What it offers to those outside of the cluster: names that mean nothing here, and where each is reached.
    pub services: Services,
}

/// Names of services and where they are reached; at most [`SERVICES_MAX`].
pub type Services = BTreeMap<String, String>;

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Roles {
    /// It holds sockets.
    pub edge: bool,
    /// It holds shards.
    pub core: bool,
}

/// Whether a member stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// It does.
    Active,
    /// It gives away what it has, and leaves.
    Draining,
    /// It has given everything away. It may come back.
    Left,
    /// An operator has said that it is gone. It may never come back.
    Evicted,
}

/// Where a shard is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Who has a replica, as the shard's leader last said; voters first.
    pub replicas: Vec<Replica>,
    /// Who should vote. The first should lead.
    pub target: Vec<NodeId>,
}

/// A member's part in a shard's group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    /// The member.
    pub node: NodeId,
    /// What it is.
    pub role: ReplicaRole,
}

/// What a replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplicaRole {
    /// It votes.
    Voter,
    /// It gets the log, and does not vote.
    Learner,
}

/// Bytes, or rows, are not a map.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// They were not written by us, or have been damaged.
    #[error("the cluster's map is malformed: {0}")]
    Malformed(String),
    /// The rows could not be read.
    #[error(transparent)]
    Rows(#[from] RowsError),
}

impl ClusterMap {
    /// The map of a cluster of one: everything is on `founder`. Shards are numbered from 0 to `shards`.
    pub fn founded(cluster: ClusterId, name: &str, founder: &Newcomer, shards: u16) -> Self {
        let alone = Placement {
            replicas: vec![Replica {
                node: founder.node,
                role: ReplicaRole::Voter,
            }],
            target: vec![founder.node],
        };
        let all = (0..shards).map(ShardId).chain([METADATA]);
        Self {
            cluster,
            name: name.to_owned(),
            version: 0,
            feature_level: founder.feature_level,
            nodes: [(founder.node, founder.member(MemberState::Active))].into(),
            shards: all.map(|shard| (shard, alone.clone())).collect(),
            settings: BTreeMap::new(),
        }
    }

    /// Members that are not gone.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        let present = self.nodes.iter().filter(|(_, member)| member.state.is_present());
        present.map(|(node, member)| (*node, member))
    }

    /// The number of shards, [`METADATA`] not included.
    pub fn shards_count(&self) -> usize {
        self.shards.keys().filter(|shard| **shard != METADATA).count()
    }

    /// The shards in which a node is a voter or a learner, or should be one.
    pub fn shards_of(&self, node: NodeId) -> BTreeSet<ShardId> {
        let concerned = self.shards.iter().filter(|(_, placement)| {
            placement.target.contains(&node) || placement.replicas.iter().any(|replica| replica.node == node)
        });
        concerned.map(|(shard, _)| *shard).collect()
    }

    /// What is set, with defaults for what is not.
    pub fn settings(&self) -> Settings {
        Settings::of(&self.settings)
    }

    /// This map with these writes made, at another version.
    ///
    /// # Errors
    /// [`MapError::Malformed`] when the writes are not of a map.
    pub fn with(&self, writes: &[Write], version: u64) -> Result<Self, MapError> {
        let mut map = self.clone();
        map.version = version;
        for write in writes {
            rows::make(&mut map, write)?;
        }
        Ok(map)
    }
}

impl Placement {
    /// Who votes.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.of_role(ReplicaRole::Voter)
    }

    /// Who gets the log and does not vote.
    pub fn learners(&self) -> BTreeSet<NodeId> {
        self.of_role(ReplicaRole::Learner)
    }

    /// Who should lead.
    pub fn preferred_leader(&self) -> Option<NodeId> {
        self.target.first().copied()
    }

    fn of_role(&self, role: ReplicaRole) -> BTreeSet<NodeId> {
        let of_role = self.replicas.iter().filter(|replica| replica.role == role);
        of_role.map(|replica| replica.node).collect()
    }

    /// Voters, then learners.
    fn replicas_of(
        voters: impl IntoIterator<Item = NodeId>,
        learners: impl IntoIterator<Item = NodeId>,
    ) -> Vec<Replica> {
        let replica = |role| move |node| Replica { node, role };
        let voters = voters.into_iter().map(replica(ReplicaRole::Voter));
        voters
            .chain(learners.into_iter().map(replica(ReplicaRole::Learner)))
            .collect()
    }
}

impl MemberState {
    /// Whether it is in the cluster now.
    pub fn is_present(self) -> bool {
        matches!(self, Self::Active | Self::Draining)
    }
}

impl std::fmt::Display for MemberState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Left => "left",
            Self::Evicted => "evicted",
        })
    }
}
