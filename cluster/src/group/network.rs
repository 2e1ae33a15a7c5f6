//! The way from this replica to the others: Raft's calls, as messages over the [`Wire`].

use std::{future::Future, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use heronry_proto::group as proto;
use heronry_storage::{NodeId, ShardId, Staged, Store};
use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse},
};
use prost::Message;

use super::{
    State, chunks,
    convert::{self, Applied},
    machine::SnapshotData,
    sending::Sending,
    type_config::{Snapshot, Types, Vote},
};
use crate::{
    PeerId, Wire, WireError, blocking,
    liveness::Epoch,
    message::{self, Request},
    metrics,
};

/// How long a replica may take to say what it has of a snapshot.
const HAVE_TIMEOUT: Duration = Duration::from_secs(10);

const UNREADABLE: &str = "its answer cannot be read";

/// Makes the ways to other replicas of one group.
pub(super) struct Network {
    pub(super) shard: ShardId,
    pub(super) me: PeerId,
    pub(super) store: Arc<dyn Store>,
    pub(super) wire: Arc<dyn Wire>,
    pub(super) state: Arc<State>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: u64, _node: &()) -> Way {
        Way {
            shard: self.shard,
            me: self.me,
            store: Arc::clone(&self.store),
            to: NodeId(target),
            wire: Arc::clone(&self.wire),
            state: Arc::clone(&self.state),
        }
    }
}

/// The way to one replica.
pub(super) struct Way {
    shard: ShardId,
    me: PeerId,
    store: Arc<dyn Store>,
    to: NodeId,
    wire: Arc<dyn Wire>,
    state: Arc<State>,
}

impl Way {
    async fn call<A: Message + Default>(
        &self,
        what: proto::call::What,
        timeout: Duration,
    ) -> Result<A, RPCError<Types>> {
        let request = message::encode(Request::Group(proto::Call {
            shard: self.shard.0.into(),
            what: Some(what),
        }));
        let answer = self.wire.call(self.to, request, timeout).await.map_err(unreachable)?;
        A::decode(answer).map_err(|_| network("its answer cannot be read"))
    }

    async fn ask(
        &self,
        rpc: VoteRequest<Types>,
        option: &RPCOption,
        what: fn(proto::Ask) -> proto::call::What,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let ask = proto::Ask {
            vote: Some(convert::vote_to_proto(&rpc.vote)),
            last: rpc.last_log_id.as_ref().map(convert::log_id_to_proto),
            handed_over: self.state.handed_over().map(|by| proto::HandOver {
                term: by.term,
                number: by.number,
            }),
        };
        let answer: proto::Voted = self.call(what(ask), option.soft_ttl()).await?;
        let vote = answer.vote.ok_or_else(|| network("its answer has no vote"))?;
        Ok(VoteResponse {
            vote: convert::vote_from_proto(&vote),
            vote_granted: answer.granted,
            last_log_id: answer.last.as_ref().map(convert::log_id_from_proto),
        })
    }
}

impl RaftNetworkV2<Types> for Way {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let term = rpc.vote.leader_id.term;
        let append = proto::Append {
            vote: Some(convert::vote_to_proto(&rpc.vote)),
            prev: rpc.prev_log_id.as_ref().map(convert::log_id_to_proto),
            entries: rpc.entries.iter().map(convert::entry_to_bytes).collect(),
            committed: rpc.leader_commit.as_ref().map(convert::log_id_to_proto),
            void_hand_overs: self.state.void_hand_overs(term),
        };
        let answer: proto::Appended = self.call(proto::call::What::Append(append), option.soft_ttl()).await?;
        if let Some(epoch) = answer.supports {
            let proto::Epoch { start, number } = epoch;
            self.state.supported_by(self.to, term, Epoch { start, number });
        }
        use proto::appended::What;
        match answer.what.ok_or_else(|| network("its answer says nothing"))? {
            What::Success(_) => Ok(AppendEntriesResponse::Success),
            What::Partial(upto) => Ok(AppendEntriesResponse::PartialSuccess(Some(convert::log_id_from_proto(
                &upto,
            )))),
            What::Conflict(_) => Ok(AppendEntriesResponse::Conflict),
            What::Higher(vote) => Ok(AppendEntriesResponse::HigherVote(convert::vote_from_proto(&vote))),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask(rpc, &option, proto::call::What::Vote).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask(rpc, &option, proto::call::What::PreVote).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let sending = self.send_snapshot(vote, snapshot);
        tokio::select! {
            sent = sending => sent,
            closed = cancel => Err(closed.into()),
        }
    }
}

impl Way {
    /// Sends what the replica does not have of the snapshot.
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let failed = |error: String| StreamingError::Unreachable(unreachable_error(WireError(error)));
        let at_least = snapshot.meta.last_log_id;
        let (state, store, shard, me) = (Arc::clone(&self.state), Arc::clone(&self.store), self.shard, self.me);
        let begun = blocking(move || state.begin_sending(me, &*store, shard, at_least)).await;
        let begun = begun.map_err(|error| failed(error.to_string()))?;
        let (Sending { id, view, .. }, _using) = begun.map_err(|error| failed(error.to_string()))?;
        let name: Bytes = id.0.to_be_bytes().to_vec().into();
        let have = message::encode(Request::Have(proto::Have {
            shard: self.shard.0.into(),
            vote: Some(convert::vote_to_proto(&vote)),
            id: name.clone(),
        }));
        let had = self.wire.call(self.to, have, HAVE_TIMEOUT).await;
        let had = had.map_err(|error| StreamingError::Unreachable(unreachable_error(error)))?;
        let had = proto::Had::decode(had).map_err(|_| StreamingError::Network(network_error(UNREADABLE)))?;
        let staged = Staged {
            rows: had.rows,
            last: had.last,
        };
        if staged.rows > 0 {
            tracing::info!(shard = %self.shard, to = %self.to, rows = staged.rows, "a snapshot goes on");
            metrics::snapshot_goes_on();
        }
        let applied = Applied {
            log_id: snapshot.meta.last_log_id,
            membership: snapshot.meta.last_membership,
            ..Applied::default()
        };
        let header = message::encode(Request::Snapshot(proto::Snapshot {
            shard: self.shard.0.into(),
            vote: Some(convert::vote_to_proto(&vote)),
            applied: applied.to_bytes(),
            id: name,
            rows: staged.rows,
        }));
        // When a chunk cannot be read the stream ends early: its receiver sees that the end is missing.
        let chunks = chunks::stream(view.chunks(&staged)).scan((), |(), chunk| {
            let chunk = chunk.inspect_err(|error| tracing::warn!(%error, "a snapshot cannot be read"));
            std::future::ready(chunk.ok())
        });
        let answer = self.wire.transfer(self.to, header, chunks.boxed()).await;
        let answer = answer.map_err(|error| StreamingError::Unreachable(unreachable_error(error)))?;
        let answer = proto::Installed::decode(answer)
            .ok()
            .and_then(|installed| installed.vote)
            .ok_or_else(|| StreamingError::Network(network_error(UNREADABLE)))?;
        Ok(SnapshotResponse::new(convert::vote_from_proto(&answer)))
    }
}

fn unreachable(error: WireError) -> RPCError<Types> {
    unreachable_error(error).into()
}

fn unreachable_error(error: WireError) -> Unreachable<Types> {
    Unreachable::new(&io::Error::other(error))
}

fn network(what: &str) -> RPCError<Types> {
    network_error(what).into()
}

fn network_error(what: &str) -> NetworkError<Types> {
    NetworkError::new(&io::Error::other(what.to_owned()))
}
