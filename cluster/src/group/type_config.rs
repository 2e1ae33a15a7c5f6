//! The types openraft is filled in with.

use std::fmt;

use bytes::Bytes;
use openraft::{OptionalSend, RaftTypeConfig, impls, raft::ClientWriteResult, raft::responder::Responder};
use openraft_rt_tokio::TokioRuntime;
use tokio::sync::oneshot;

use super::proposal::Permit;

/// One leader a term at most, as Raft has it: a term alone fences a proposal.
pub(super) type LeaderId = impls::leader_id_std::LeaderId<u64, u64>;
pub(super) type Vote = impls::Vote<LeaderId>;
pub(super) type LogId = openraft::alias::LogIdOf<Types>;
pub(super) type Membership = openraft::Membership<u64, ()>;
pub(super) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(super) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
pub(super) type Snapshot = openraft::alias::SnapshotOf<Types, super::machine::SnapshotData>;
pub(super) type Payload = openraft::EntryPayload<Normal, u64, ()>;
pub(super) type Entry = openraft::alias::DefaultEntryOf<Types>;

/// See [`RaftTypeConfig`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Types;

impl RaftTypeConfig for Types {
    type D = Normal;
    type R = bool;
    type NodeId = u64;
    type Node = ();
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = TokioRuntime;
    type Responder<T>
        = Respond<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = impls::BoxedErrorSource;
}

/// An entry's content: `heronry.log.v1.Entry`, encoded. Raft does not look inside.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Normal(pub(super) Bytes);

impl fmt::Debug for Normal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Normal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Tells a proposal what became of it.
pub(super) struct Respond<T> {
    pub(super) result: oneshot::Sender<T>,
    /// Given back when the entry is applied, or lost.
    pub(super) permit: Option<Permit>,
}

impl<T: OptionalSend + 'static> Responder<Types, T> for Respond<T> {
    fn on_complete(self, result: T) {
        drop(self.permit);
        // Whoever proposed may have lost interest.
        let _ = self.result.send(result);
    }
}

pub(super) type WriteResult = ClientWriteResult<Types>;
