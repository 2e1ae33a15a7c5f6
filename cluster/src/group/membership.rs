//! Who holds replicas of a group, and how that is changed. Only its leader can.

use std::collections::BTreeSet;

use heronry_storage::NodeId;
use openraft::{
    ChangeMembers,
    async_runtime::watch::WatchReceiver,
    errors::{ClientWriteError, RaftError},
    raft::ClientWriteResponse,
};

use super::{Group, type_config::Types};

/// Who holds replicas of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Who votes: one set, or two while the membership changes; then each needs its own majority.
    pub voters: Vec<BTreeSet<NodeId>>,
    /// Who has a replica and does not vote.
    pub learners: BTreeSet<NodeId>,
    /// Whether a majority has committed it.
    pub committed: bool,
}

impl Membership {
    /// The voters, when none of them is coming or going.
    pub fn settled(&self) -> Option<&BTreeSet<NodeId>> {
        match &self.voters[..] {
            [voters] if self.committed => Some(voters),
            _ => None,
        }
    }

    /// Everybody who holds a replica.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.voters.iter().flatten().chain(&self.learners).copied().collect()
    }
}

/// A membership was not changed, or it is not known that it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// This node does not lead the group.
    #[error("this node does not lead the shard")]
    NotLeader,
    /// Another change is under way, or this one is not possible: a sentence.
    #[error("{0}")]
    Refused(String),
}

impl Group {
    /// Who holds replicas, as far as this one knows.
    pub fn membership(&self) -> Membership {
        let metrics = self.0.raft.server_metrics();
        let server = metrics.borrow_watched();
        let effective = server.membership_config.membership();
        let set = |set: &BTreeSet<u64>| set.iter().copied().map(NodeId).collect();
        Membership {
            voters: effective.get_joint_config().iter().map(set).collect(),
            learners: effective.learner_ids().map(NodeId).collect(),
            committed: server.membership_config == server.committed_membership_config,
        }
    }

    /// Gives a node a replica that follows and does not vote. Ends when that is committed; the replica catches up
    /// [afterwards](Self::lag_of).
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn add_learner(&self, node: NodeId) -> Result<(), ChangeError> {
        changed(self.0.raft.add_learner(node.0, (), false).await)
    }

    /// Makes these nodes, which have replicas, the voters. Former voters are no members any more. Ends when the new set alone is committed.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn change_voters(&self, voters: &BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let voters = voters.iter().map(|node| node.0).collect();
        let change = ChangeMembers::<u64, ()>::ReplaceAllVoters(voters);
        changed(self.0.raft.change_membership(change, false).await)
    }

    /// Takes the replicas of these learners away. Ends when that is committed; they then have to be told.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn remove_learners(&self, learners: &BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let learners = learners.iter().map(|node| node.0).collect();
        let change = ChangeMembers::<u64, ()>::RemoveNodes(learners);
        changed(self.0.raft.change_membership(change, true).await)
    }

    /// How many entries that replica is behind this leader; `None`: it is not known, or this node does not lead.
    pub fn lag_of(&self, node: NodeId) -> Option<u64> {
        let metrics = self.0.raft.data_metrics();
        let data = metrics.borrow_watched();
        let matched = data.replication.as_ref()?.get(&node.0)?.as_ref()?;
        Some(data.last_log.map_or(0, |last| last.index).saturating_sub(matched.index))
    }
}

fn changed(
    result: Result<ClientWriteResponse<Types>, RaftError<Types, ClientWriteError<Types>>>,
) -> Result<(), ChangeError> {
    match result {
        Ok(_) => Ok(()),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_))) => {
            Err(ChangeError::NotLeader)
        }
        Err(error) => Err(ChangeError::Refused(error.to_string())),
    }
}
