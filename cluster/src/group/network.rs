//! The way from this replica to the others: Raft's calls, as messages over the [`Wire`].

use std::{future::Future, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use heronry_proto::group as proto;
use heronry_storage::{NodeId, ShardId};
use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse},
};
use prost::Message;

use super::{
    State,
    convert::{self, Applied},
    machine::SnapshotData,
    type_config::{Snapshot, Types, Vote},
};
use crate::{
    Wire, WireError,
    liveness::Epoch,
    message::{self, Request},
};

/// How long the parts of a snapshot that are read and not yet sent may be, chunks.
const CHUNKS_AHEAD: usize = 4;

/// Makes the ways to other replicas of one group.
pub(super) struct Network {
    pub(super) shard: ShardId,
    pub(super) wire: Arc<dyn Wire>,
    pub(super) state: Arc<State>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: u64, _node: &()) -> Way {
        Way {
            shard: self.shard,
            to: NodeId(target),
            wire: Arc::clone(&self.wire),
            state: Arc::clone(&self.state),
        }
    }
}

/// The way to one replica.
pub(super) struct Way {
    shard: ShardId,
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
        let applied = Applied {
            log_id: snapshot.meta.last_log_id,
            membership: snapshot.meta.last_membership,
            ..Applied::default()
        };
        let header = message::encode(Request::Snapshot(proto::Snapshot {
            shard: self.shard.0.into(),
            vote: Some(convert::vote_to_proto(&vote)),
            applied: applied.to_bytes(),
        }));
        let sending = self.wire.transfer(self.to, header, chunks(snapshot.snapshot));
        let sent = tokio::select! {
            sent = sending => sent,
            closed = cancel => return Err(closed.into()),
        };
        let answer = sent.map_err(|error| StreamingError::Unreachable(unreachable_error(error)))?;
        let answer = proto::Installed::decode(answer)
            .ok()
            .and_then(|installed| installed.vote)
            .ok_or_else(|| StreamingError::Network(network_error("its answer cannot be read")))?;
        Ok(SnapshotResponse::new(convert::vote_from_proto(&answer)))
    }
}

/// The chunks of a snapshot, read on a thread that may wait for the disk. When one cannot be read the stream ends early: its
/// receiver sees that the end is missing.
fn chunks(snapshot: SnapshotData) -> BoxStream<'static, Bytes> {
    let (sender, receiver) = tokio::sync::mpsc::channel(CHUNKS_AHEAD);
    tokio::task::spawn_blocking(move || {
        for chunk in snapshot.into_chunks() {
            let Ok(chunk) = chunk.inspect_err(|error| tracing::warn!(%error, "a snapshot cannot be read")) else {
                return;
            };
            if sender.blocking_send(chunk).is_err() {
                return;
            }
        }
    });
    futures::stream::unfold(receiver, |mut receiver| async move {
        let chunk = receiver.recv().await?;
        Some((chunk, receiver))
    })
    .boxed()
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
