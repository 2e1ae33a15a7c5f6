//! What other replicas ask of this one.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use heronry_proto::group as proto;
use heronry_storage::{NodeId, SnapshotId, Staged, Staging, StoreError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use prost::Message;

use super::{
    Group,
    convert::{self, Applied},
    guard::HandOver,
    machine::SnapshotData,
    type_config::{LogId, Snapshot, SnapshotMeta, Types, Vote},
};
use crate::{PeerId, blocking};

impl Group {
    /// Answers what another replica asks.
    ///
    /// # Errors
    /// A sentence for the asker.
    pub(crate) async fn answer(self, from: PeerId, call: proto::Call) -> Result<Bytes, String> {
        use proto::call::What;
        match call.what.ok_or("a call says nothing")? {
            What::Append(append) => self.append(from, append).await.map(|answer| encode(&answer)),
            What::Vote(ask) => self.vote(from, ask).await.map(|answer| encode(&answer)),
            What::PreVote(ask) => self.pre_vote(from, &ask).map(|answer| encode(&answer)),
            What::TakeOver(take_over) => {
                self.take_over(from, &take_over)?;
                Ok(encode(&proto::TakingOver {}))
            }
        }
    }

    async fn append(&self, from: PeerId, append: proto::Append) -> Result<proto::Appended, String> {
        let inner = &*self.0;
        let vote = convert::vote_from_proto(&append.vote.ok_or("an append has no vote")?);
        if vote.leader_id.voted_for != from.node.0 || !vote.committed {
            return Err(format!("node {} does not lead by this vote", from.node));
        }
        // Its leader sends them again when there is room; until then this replica is behind, and its store is none the worse.
        if !append.entries.is_empty() && inner.store.health().full {
            return Err("the disk of this node is almost full".to_owned());
        }
        let entries = append.entries.into_iter().map(convert::entry_from_bytes);
        let entries = entries
            .collect::<Result<Vec<_>, StoreError>>()
            .map_err(|error| error.to_string())?;
        let request = AppendEntriesRequest::<Types> {
            vote,
            prev_log_id: append.prev.as_ref().map(convert::log_id_from_proto),
            entries,
            leader_commit: append.committed.as_ref().map(convert::log_id_from_proto),
        };
        // Before Raft has it: as long as this epoch lasts, nobody else was given a vote since.
        let epoch = inner.peers.liveness.epoch_of(from);
        let hearing = inner
            .state
            .guard
            .heard_of(from, vote.leader_id.term, append.void_hand_overs);
        let answer = inner.raft.append_entries(request).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let supports = matches!(
            answer,
            AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_)
        ) && inner.state.guard.accepted(hearing);
        use proto::appended::What;
        let what = match answer {
            AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(None) => What::Success(true),
            AppendEntriesResponse::PartialSuccess(Some(upto)) => What::Partial(convert::log_id_to_proto(&upto)),
            AppendEntriesResponse::Conflict => What::Conflict(true),
            AppendEntriesResponse::HigherVote(vote) => What::Higher(convert::vote_to_proto(&vote)),
        };
        let same = epoch.filter(|epoch| supports && inner.peers.liveness.epoch_of(from) == Some(*epoch));
        Ok(proto::Appended {
            what: Some(what),
            supports: same.map(|epoch| proto::Epoch {
                start: epoch.start,
                number: epoch.number,
            }),
        })
    }

    async fn vote(&self, from: PeerId, ask: proto::Ask) -> Result<proto::Voted, String> {
        let inner = &*self.0;
        let vote = convert::vote_from_proto(&ask.vote.ok_or("a candidate has no vote")?);
        if vote.leader_id.voted_for != from.node.0 || vote.committed {
            return Err(format!("node {} does not stand by this vote", from.node));
        }
        let refused = || proto::Voted {
            vote: Some(convert::vote_to_proto(&inner.vote())),
            granted: false,
            last: inner.last_log_id().as_ref().map(convert::log_id_to_proto),
        };
        let handed_over = ask.handed_over.as_ref().map(hand_over);
        if self.is_too_early(handed_over) || inner.peers.liveness.is_silent() {
            return Ok(refused());
        }
        let holds = |leader| self.holds(leader);
        let ticket = inner
            .state
            .guard
            .let_through(from.node, vote.leader_id.term, handed_over, holds);
        let Some(ticket) = ticket else {
            return Ok(refused());
        };
        let request = VoteRequest::<Types> {
            vote,
            last_log_id: ask.last.as_ref().map(convert::log_id_from_proto),
            // The guard has decided: openraft's own lease does not count.
            leadership_transfer: true,
        };
        let answer = inner.raft.vote(request).await;
        let granted = answer.as_ref().is_ok_and(|answer| answer.vote_granted);
        inner.state.guard.voted(&ticket, granted);
        let answer = answer.map_err(|error| error.to_string())?;
        Ok(proto::Voted {
            vote: Some(convert::vote_to_proto(&answer.vote)),
            granted: answer.vote_granted,
            last: answer.last_log_id.as_ref().map(convert::log_id_to_proto),
        })
    }

    /// Whether a vote would be given: by the guard, and by the log (Raft §5.4.1).
    fn pre_vote(&self, from: PeerId, ask: &proto::Ask) -> Result<proto::Voted, String> {
        let inner = &*self.0;
        let vote = convert::vote_from_proto(ask.vote.as_ref().ok_or("a candidate has no vote")?);
        let (mine, last) = (inner.vote(), inner.last_log_id());
        let term = vote.leader_id.term;
        let theirs: Option<LogId> = ask.last.as_ref().map(convert::log_id_from_proto);
        let handed_over = ask.handed_over.as_ref().map(hand_over);
        let granted = !self.is_too_early(handed_over)
            && !inner.peers.liveness.is_silent()
            && theirs >= last
            && inner
                .state
                .guard
                .would_let_through(from.node, term, handed_over, |leader| self.holds(leader));
        Ok(proto::Voted {
            vote: Some(convert::vote_to_proto(&mine)),
            granted,
            last: last.as_ref().map(convert::log_id_to_proto),
        })
    }

    /// The process before this one may have promised something that still holds.
    fn is_too_early(&self, handed_over: Option<HandOver>) -> bool {
        handed_over.is_none() && tokio::time::Instant::now() < self.0.peers.liveness.quiet_until()
    }

    /// Whether this node's promise to that leader holds; its own leadership is one, while it has its lease.
    pub(super) fn holds(&self, leader: PeerId) -> bool {
        let liveness = &self.0.peers.liveness;
        if leader == liveness.me() {
            let term = self.0.state.leading.load(Ordering::Acquire);
            term != 0 && self.0.state.has_quorum(liveness, NodeId(self.0.node.0), term)
        } else {
            liveness.holds(leader)
        }
    }

    /// How much has come of a snapshot that another replica is about to send.
    ///
    /// # Errors
    /// A sentence for the sender.
    pub(crate) async fn have(self, from: PeerId, have: proto::Have) -> Result<Bytes, String> {
        self.leads_by(from, have.vote.as_ref())?;
        let staging = self.stage(&have.id).await?;
        let staged = staging.staged();
        Ok(encode(&proto::Had {
            rows: staged.rows,
            last: staged.last,
        }))
    }

    /// Takes a snapshot that another replica sends, or the rest of it, and installs it. What has come of one that breaks off is kept.
    ///
    /// # Errors
    /// A sentence for the sender.
    pub(crate) async fn receive(
        self,
        from: PeerId,
        snapshot: proto::Snapshot,
        mut chunks: BoxStream<'static, Result<Bytes, String>>,
    ) -> Result<Bytes, String> {
        let inner = &*self.0;
        let vote = self.leads_by(from, snapshot.vote.as_ref())?;
        let applied = Applied::from_bytes(snapshot.applied).map_err(|error| error.to_string())?;
        inner.state.guard.heard_of(from, vote.leader_id.term, 0);
        let mut staging = self.stage(&snapshot.id).await?;
        if staging.staged().rows != snapshot.rows {
            return Err("other rows of the snapshot are missing than those that come".to_owned());
        }
        let mut whole = false;
        while !whole {
            let chunk = chunks.next().await.unwrap_or_else(|| Err("it has no end".to_owned()));
            let chunk = chunk.map_err(|error| format!("the snapshot has ended early: {error}"))?;
            let taken = blocking(move || (staging.take(chunk), staging)).await;
            let taken = taken.map_err(|error| error.to_string())?;
            staging = taken.1;
            whole = taken.0.map_err(|error| error.to_string())?;
        }
        let staging = staging.into_inner().ok_or("it is gone")?;
        let snapshot = Snapshot {
            meta: SnapshotMeta {
                last_log_id: applied.log_id,
                last_membership: applied.membership,
            },
            snapshot: SnapshotData::In(staging),
        };
        let installed = inner.raft.install_full_snapshot(vote, snapshot).await;
        let installed = installed.map_err(|error| error.to_string())?;
        Ok(encode(&proto::Installed {
            vote: Some(convert::vote_to_proto(&installed.vote)),
        }))
    }

    /// What has come of a snapshot of that name.
    async fn stage(&self, name: &[u8]) -> Result<Coming, String> {
        let name = name.try_into().map(u128::from_be_bytes);
        let id = SnapshotId(name.map_err(|_| "a snapshot has no name")?);
        let (store, shard) = (Arc::clone(&self.0.store), self.0.shard);
        let staging = blocking(move || store.stage(shard, Some(id))).await;
        let staging = staging.map_err(|error| error.to_string())?;
        let staging = staging.map_err(|error| error.to_string())?;
        Ok(Coming(Some(staging)))
    }

    /// The vote by which a node leads, and which is not known to be over.
    fn leads_by(&self, from: PeerId, vote: Option<&heronry_proto::raft::Vote>) -> Result<Vote, String> {
        let vote = convert::vote_from_proto(vote.ok_or("a snapshot has no vote")?);
        if vote.leader_id.voted_for != from.node.0 || !vote.committed {
            return Err(format!("node {} does not lead by this vote", from.node));
        }
        match vote.leader_id.term < self.0.vote().leader_id.term {
            true => Err(format!("node {} does not lead any more", from.node)),
            false => Ok(vote),
        }
    }
}

/// What comes of a snapshot. When it is put away, that may take the disk a while.
struct Coming(Option<Box<dyn Staging>>);

impl Coming {
    fn staged(&self) -> Staged {
        self.0.as_ref().map_or_else(Staged::default, |staging| staging.staged())
    }

    fn take(&mut self, chunk: Bytes) -> Result<bool, StoreError> {
        self.0
            .as_mut()
            .map_or(Err(StoreError::Closed), |staging| staging.take(chunk))
    }

    fn into_inner(mut self) -> Option<Box<dyn Staging>> {
        self.0.take()
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        let Some(staging) = self.0.take() else { return };
        // Without a runtime it is put away here.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(blocking(move || drop(staging)));
        }
    }
}

/// A hand-over as it is sent.
pub(super) fn hand_over(by: &proto::HandOver) -> HandOver {
    let proto::HandOver { term, number } = *by;
    HandOver { term, number }
}

fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}
