//! openraft's types as what the store keeps, and back. What cannot be read back is damage, never a panic.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use bytes::Bytes;
use heronry_proto::raft as proto;
use heronry_storage::StoreError;
use openraft::{EntryPayload, vote::RaftLeaderIdExt};
use prost::Message;

use super::chain::{Chain, Link};
use super::type_config::{Entry, LeaderId, LogId, Membership, Normal, StoredMembership, Vote};

pub(super) fn vote_to_bytes(vote: &Vote) -> Bytes {
    vote_to_proto(vote).encode_to_vec().into()
}

pub(super) fn vote_from_bytes(bytes: Bytes) -> Result<Vote, StoreError> {
    let vote = proto::Vote::decode(bytes).map_err(|_| corrupt("a vote"))?;
    Ok(vote_from_proto(&vote))
}

pub(super) fn vote_to_proto(vote: &Vote) -> proto::Vote {
    let LeaderId { term, voted_for: node } = vote.leader_id;
    let committed = vote.committed;
    proto::Vote { term, node, committed }
}

pub(super) fn vote_from_proto(vote: &proto::Vote) -> Vote {
    Vote {
        leader_id: LeaderId {
            term: vote.term,
            voted_for: vote.node,
        },
        committed: vote.committed,
    }
}

pub(super) fn log_id_to_bytes(log_id: &LogId) -> Bytes {
    log_id_to_proto(log_id).encode_to_vec().into()
}

pub(super) fn log_id_from_bytes(bytes: Bytes) -> Result<LogId, StoreError> {
    Ok(log_id_from_proto(
        &proto::LogId::decode(bytes).map_err(|_| corrupt("a log position"))?,
    ))
}

pub(super) fn entry_to_bytes(entry: &Entry) -> Bytes {
    let payload = match &entry.payload {
        EntryPayload::Blank => proto::log_entry::Payload::Blank(true),
        EntryPayload::Normal(Normal(bytes)) => proto::log_entry::Payload::Normal(bytes.clone()),
        EntryPayload::Membership(membership) => proto::log_entry::Payload::Membership(membership_to_proto(membership)),
    };
    let entry = proto::LogEntry {
        log_id: Some(log_id_to_proto(&entry.log_id)),
        payload: Some(payload),
    };
    entry.encode_to_vec().into()
}

pub(super) fn entry_from_bytes(bytes: Bytes) -> Result<Entry, StoreError> {
    let entry = proto::LogEntry::decode(bytes).map_err(|_| corrupt("a log entry"))?;
    let payload = match entry.payload.ok_or_else(|| corrupt("a log entry"))? {
        proto::log_entry::Payload::Blank(_) => EntryPayload::Blank,
        proto::log_entry::Payload::Normal(bytes) => EntryPayload::Normal(Normal(bytes)),
        proto::log_entry::Payload::Membership(membership) => {
            EntryPayload::Membership(membership_from_proto(membership)?)
        }
    };
    let log_id = entry
        .log_id
        .as_ref()
        .map(log_id_from_proto)
        .ok_or_else(|| corrupt("a log entry"))?;
    Ok(Entry { log_id, payload })
}

/// Up to where a shard's rows are applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Applied {
    pub(super) log_id: Option<LogId>,
    pub(super) membership: StoredMembership,
    /// The greatest `at` of any applied batch, microseconds since the Unix epoch.
    pub(super) at: u64,
    /// The last entry of a chain that was applied.
    pub(super) chain: Chain,
}

impl Applied {
    pub(super) fn to_bytes(&self) -> Bytes {
        let applied = proto::Applied {
            log_id: self.log_id.as_ref().map(log_id_to_proto),
            membership: Some(proto::StoredMembership {
                log_id: self.membership.log_id().as_ref().map(log_id_to_proto),
                membership: Some(membership_to_proto(self.membership.membership())),
            }),
            at: self.at,
            chain: Some(proto::Chain {
                term: self.chain.term,
                round: self.chain.link.round,
                number: self.chain.link.number,
            }),
        };
        applied.encode_to_vec().into()
    }

    pub(super) fn from_bytes(bytes: Bytes) -> Result<Self, StoreError> {
        let applied = proto::Applied::decode(bytes).map_err(|_| corrupt("an applied position"))?;
        let membership = match applied.membership {
            Some(proto::StoredMembership { log_id, membership }) => {
                let membership = membership.map_or_else(|| Ok(Membership::default()), membership_from_proto)?;
                StoredMembership::new(log_id.as_ref().map(log_id_from_proto), membership)
            }
            None => StoredMembership::default(),
        };
        let chain = applied.chain.unwrap_or_default();
        let proto::Chain { term, round, number } = chain;
        let link = Link { round, number };
        Ok(Self {
            chain: Chain { term, link },
            log_id: applied.log_id.as_ref().map(log_id_from_proto),
            membership,
            at: applied.at,
        })
    }
}

pub(super) fn log_id_to_proto(log_id: &LogId) -> proto::LogId {
    proto::LogId {
        term: *log_id.leader_id,
        index: log_id.index,
    }
}

pub(super) fn log_id_from_proto(log_id: &proto::LogId) -> LogId {
    LogId::new(LeaderId::new_committed(log_id.term, 0), log_id.index)
}

fn membership_to_proto(membership: &Membership) -> proto::Membership {
    let voters = |config: &BTreeSet<u64>| proto::Voters {
        nodes: config.iter().copied().collect(),
    };
    proto::Membership {
        configs: membership.get_joint_config().iter().map(voters).collect(),
        members: membership
            .nodes()
            .map(|(node, ())| proto::Member { node: *node })
            .collect(),
    }
}

fn membership_from_proto(membership: proto::Membership) -> Result<Membership, StoreError> {
    let configs: Vec<BTreeSet<u64>> = membership
        .configs
        .into_iter()
        .map(|config| config.nodes.into_iter().collect())
        .collect();
    let members: BTreeMap<u64, ()> = membership.members.into_iter().map(|member| (member.node, ())).collect();
    if configs.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, members).map_err(|_| corrupt("a membership"))
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("{what} cannot be read"))
}

/// A failure of the store as openraft takes it.
pub(super) fn io_error(error: StoreError) -> io::Error {
    io::Error::other(error)
}
