//! Who holds replicas of a group: changed by its leader, wherever that is; and what is known of groups here and elsewhere.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use heronry_proto::{group as proto, raft};
use heronry_storage::{NodeId, ShardId};
use prost::Message;

use super::{Inner, Member};
use crate::{
    Group, Leadership, Membership, Term,
    message::{self, Request},
};

/// How long a change may take until a majority has it.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a report may take.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a node knows of its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Its groups.
    pub groups: Vec<GroupReport>,
    /// Connections of devices that it has.
    pub streams: u64,
}

/// What a node knows of one of its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReport {
    /// Of which shard.
    pub shard: ShardId,
    /// It leads in this term, with its lease.
    pub leads: Option<Term>,
    /// Who holds replicas.
    pub membership: Membership,
    /// Of a leader: how many entries replicas are behind.
    pub lags: Vec<(NodeId, u64)>,
}

/// What a leader is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Give this node a replica that does not vote.
    AddLearner(NodeId),
    /// Make these the voters.
    Voters(BTreeSet<NodeId>),
    /// Take the replicas of these learners away.
    RemoveLearners(BTreeSet<NodeId>),
    /// Let this replica lead.
    HandOver(NodeId),
}

impl Member {
    /// What this node knows of its groups.
    pub fn report(&self) -> Report {
        report(&self.0)
    }

    /// What another node knows of its groups.
    ///
    /// # Errors
    /// A sentence, when it does not answer.
    pub async fn report_of(&self, node: NodeId) -> Result<Report, String> {
        self.0.report_of(node).await
    }

    /// Has the leader of a group, which is on that node, change who holds replicas of it, if it leads in that term (`None`: in any). Ends
    /// when that is committed.
    ///
    /// # Errors
    /// A sentence.
    pub async fn change(
        &self,
        leader: NodeId,
        shard: ShardId,
        term: Option<Term>,
        change: &Change,
    ) -> Result<(), String> {
        self.0.change(leader, shard, term, change).await
    }

    /// Connections of devices that this node has now, for who decides whether it may leave.
    pub fn set_streams(&self, streams: u64) {
        self.0.streams.store(streams, Ordering::Relaxed);
    }
}

impl Inner {
    pub(super) async fn report_of(&self, node: NodeId) -> Result<Report, String> {
        if node == self.id.node {
            return Ok(report(self));
        }
        let request = message::encode(Request::Report(proto::ReportWanted {}));
        Report::decode(&self.call(node, request, REPORT_TIMEOUT).await?)
    }

    pub(super) async fn change(
        &self,
        leader: NodeId,
        shard: ShardId,
        term: Option<Term>,
        change: &Change,
    ) -> Result<(), String> {
        if leader == self.id.node {
            return make(self, shard, term, change).await;
        }
        let request = message::encode(Request::Change(encode(shard, term, change)));
        self.call(leader, request, CHANGE_TIMEOUT).await.map(drop)
    }

    /// Has a node remove its replica of a shard, if that shard's leader says that it is no member of the group.
    pub(super) async fn remove(&self, node: NodeId, shard: ShardId, leader: NodeId) -> Result<(), String> {
        if node == self.id.node {
            return remove(self, shard, leader).await.map(drop);
        }
        let request = message::encode(Request::Remove(proto::Remove {
            shard: shard.0.into(),
            leader: leader.0,
        }));
        self.call(node, request, CHANGE_TIMEOUT).await.map(drop)
    }
}

pub(super) fn report(inner: &Inner) -> Report {
    let of = |group: &Group| {
        let membership = group.membership();
        let leads = match *group.leadership().borrow() {
            Leadership::Leader { term } if group.has_lease(term) => Some(term),
            _ => None,
        };
        let lags = membership.nodes().into_iter();
        let lags = lags.filter_map(|node| Some((node, group.lag_of(node)?))).collect();
        GroupReport {
            shard: group.shard(),
            leads,
            membership,
            lags,
        }
    };
    Report {
        groups: inner.groups.list().iter().map(of).collect(),
        streams: inner.streams.load(Ordering::Relaxed),
    }
}

/// Another node wants a group changed that this one leads.
pub(super) async fn asked(inner: &Arc<Inner>, change: proto::Change) -> Result<Bytes, String> {
    let (shard, term, change) = decode(change)?;
    make(inner, shard, term, &change).await?;
    Ok(Bytes::new())
}

async fn make(inner: &Inner, shard: ShardId, term: Option<Term>, change: &Change) -> Result<(), String> {
    let group = inner
        .groups
        .group(shard)
        .ok_or("there is no replica of the shard here")?;
    let leads = match *group.leadership().borrow() {
        Leadership::Leader { term: led } => term.is_none_or(|term| term == led) && group.has_lease(led),
        _ => false,
    };
    if !leads {
        return Err(format!("this node does not lead shard {shard}, or in another term"));
    }
    let changed = match change {
        Change::AddLearner(node) => group.add_learner(*node).await,
        Change::Voters(voters) => group.change_voters(voters).await,
        Change::RemoveLearners(learners) => group.remove_learners(learners).await,
        Change::HandOver(node) => {
            group.hand_over(*node);
            Ok(())
        }
    };
    changed.map_err(|error| error.to_string())
}

/// Another node wants a replica here removed.
pub(super) async fn asked_to_remove(inner: &Inner, wanted: proto::Remove) -> Result<Bytes, String> {
    remove(inner, shard(wanted.shard)?, NodeId(wanted.leader)).await
}

/// Removes the replica of a shard here, once that shard's leader has said that the group does not count on it: who is taken out of a group
/// often does not hear of it.
async fn remove(inner: &Inner, shard: ShardId, leader: NodeId) -> Result<Bytes, String> {
    if inner.groups.group(shard).is_none() {
        return Ok(Bytes::new());
    }
    let report = inner.report_of(leader).await?;
    let said = report
        .groups
        .iter()
        .find(|group| group.shard == shard && group.leads.is_some());
    let said = said.ok_or_else(|| format!("node {leader} does not lead shard {shard}"))?;
    if !said.membership.committed || said.membership.nodes().contains(&inner.id.node) {
        return Err(format!("the replica of shard {shard} here is a member of its group"));
    }
    inner.groups.remove(shard).await.map_err(|error| error.to_string())?;
    Ok(Bytes::new())
}

fn encode(shard: ShardId, term: Option<Term>, change: &Change) -> proto::Change {
    use proto::change::What;
    let nodes = |nodes: &BTreeSet<NodeId>| raft::Voters {
        nodes: nodes.iter().map(|node| node.0).collect(),
    };
    let what = match change {
        Change::AddLearner(node) => What::AddLearner(node.0),
        Change::Voters(voters) => What::Voters(nodes(voters)),
        Change::RemoveLearners(learners) => What::RemoveLearners(nodes(learners)),
        Change::HandOver(node) => What::HandOver(node.0),
    };
    proto::Change {
        shard: shard.0.into(),
        term: term.map_or(0, |term| term.0),
        what: Some(what),
    }
}

fn decode(change: proto::Change) -> Result<(ShardId, Option<Term>, Change), String> {
    use proto::change::What;
    let shard = shard(change.shard)?;
    let term = Some(Term(change.term)).filter(|term| term.0 != 0);
    let nodes = |nodes: raft::Voters| nodes.nodes.into_iter().map(NodeId).collect();
    let change = match change.what.ok_or("a change says nothing")? {
        What::AddLearner(node) => Change::AddLearner(NodeId(node)),
        What::Voters(voters) => Change::Voters(nodes(voters)),
        What::RemoveLearners(learners) => Change::RemoveLearners(nodes(learners)),
        What::HandOver(node) => Change::HandOver(NodeId(node)),
    };
    Ok((shard, term, change))
}

fn shard(number: u32) -> Result<ShardId, String> {
    u16::try_from(number)
        .map(ShardId)
        .map_err(|_| format!("there is no shard {number}"))
}

impl Report {
    pub(super) fn encode(&self) -> Bytes {
        let groups = self.groups.iter().map(|group| proto::GroupReport {
            shard: group.shard.0.into(),
            leads: group.leads.is_some(),
            term: group.leads.map_or(0, |term| term.0),
            voters: group
                .membership
                .voters
                .iter()
                .map(|set| raft::Voters {
                    nodes: set.iter().map(|node| node.0).collect(),
                })
                .collect(),
            learners: group.membership.learners.iter().map(|node| node.0).collect(),
            committed: group.membership.committed,
            lags: group
                .lags
                .iter()
                .map(|(node, entries)| proto::Lag {
                    node: node.0,
                    entries: *entries,
                })
                .collect(),
        });
        let report = proto::Report {
            groups: groups.collect(),
            streams: self.streams,
        };
        report.encode_to_vec().into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let report = proto::Report::decode(bytes).map_err(|error| error.to_string())?;
        let nodes = |nodes: Vec<u64>| nodes.into_iter().map(NodeId).collect();
        let groups = report.groups.into_iter().map(|group| {
            Ok(GroupReport {
                shard: shard(group.shard)?,
                leads: group.leads.then_some(Term(group.term)),
                membership: Membership {
                    voters: group.voters.into_iter().map(|set| nodes(set.nodes)).collect(),
                    learners: nodes(group.learners),
                    committed: group.committed,
                },
                lags: group
                    .lags
                    .into_iter()
                    .map(|lag| (NodeId(lag.node), lag.entries))
                    .collect(),
            })
        });
        Ok(Self {
            groups: groups.collect::<Result<_, String>>()?,
            streams: report.streams,
        })
    }
}
