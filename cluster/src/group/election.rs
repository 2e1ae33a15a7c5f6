//! Who stands for election, and when. No group has a timer: a node looks at all of its groups some times a second.

use std::sync::{Arc, atomic::Ordering};
use std::time::Duration;

use futures::{StreamExt, stream::FuturesUnordered};
use heronry_proto::group as proto;
use heronry_storage::NodeId;
use openraft::{ServerState, async_runtime::watch::WatchReceiver, vote::RaftLeaderId};
use prost::Message;
use tokio::time::Instant;

use super::{
    Group, convert,
    guard::HandOver,
    lease::lock,
    server,
    type_config::{LeaderId, LogId, Vote},
};
use crate::{
    PeerId,
    message::{self, Request},
    metrics,
};

/// Between those that could stand: whoever is next in the list waits that much longer.
const STEP: Duration = Duration::from_millis(150);

/// From an attempt to the next.
const AGAIN: Duration = Duration::from_millis(600);

/// How long others may take to say whether they would vote.
const PRE_VOTE_TIMEOUT: Duration = Duration::from_millis(500);

/// From one heartbeat that is to renew a support to the next.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(100);

/// From the moment a leader stops to the moment its successor hears of it.
const HAND_OVER_PAUSE: Duration = Duration::from_millis(10);

/// How long a node to which a group was handed over may take to lead it.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);

/// What is remembered between looks.
#[derive(Debug, Default)]
pub(super) struct Election {
    /// Since when no promise to a leader holds.
    leaderless: Option<Instant>,
    /// When this node stands again.
    next: Option<Instant>,
    /// When a heartbeat was sent last.
    heartbeat: Option<Instant>,
    /// The term that is handed over, and until when that may take.
    handing_over: Option<(u64, Instant)>,
}

impl Election {
    /// No election is needed: the next one begins in order again.
    fn is_led(&mut self) {
        self.leaderless = None;
        self.next = None;
    }
}

impl Group {
    /// Looks whether something is to be done: a support to be renewed, an election to be begun.
    pub(crate) fn look(&self) {
        let inner = &*self.0;
        let now = Instant::now();
        let (is_leader, term) = {
            let metrics = inner.raft.server_metrics();
            let server = metrics.borrow_watched();
            let leader = server.vote.leader_id;
            let leads =
                server.state == ServerState::Leader && server.vote.committed && leader.voted_for == inner.node.0;
            (leads, leader.term)
        };
        let mut election = lock(&inner.state.election);
        if is_leader {
            election.is_led();
            if election
                .handing_over
                .is_some_and(|(of, until)| of == term && now >= until)
            {
                // It did not work: this node goes on, in a new round.
                election.handing_over = None;
                inner.state.acts_again(term);
                inner.state.released.store(0, Ordering::Release);
                inner.state.changed.notify_one();
            }
            let due = election.heartbeat.is_none_or(|last| now >= last + HEARTBEAT_EVERY);
            if due && self.somebody_is_to_support(term) {
                election.heartbeat = Some(now);
                let raft = inner.raft.clone();
                // It fails only when the group has stopped.
                tokio::spawn(async move { raft.trigger().heartbeat().await });
            }
            return;
        }
        election.handing_over = None;
        let Some(rank) = self.rank() else {
            election.is_led();
            return;
        };
        if inner
            .state
            .guard
            .leader()
            .is_some_and(|(leader, _)| leader != inner.peers.liveness.me() && self.holds(leader))
        {
            election.is_led();
            return;
        }
        // Who is not well leads nothing; alone there is nobody else.
        if inner.peers.liveness.is_silent() && !inner.state.alone.load(Ordering::Acquire) {
            return;
        }
        let quiet = inner.peers.liveness.quiet_until();
        let since = *election.leaderless.get_or_insert_with(|| now.max(quiet));
        let due = election.next.map_or(since + STEP * rank, |next| next.max(since));
        if now < due {
            return;
        }
        election.next = Some(now + AGAIN + STEP * rank);
        drop(election);
        let group = self.clone();
        tokio::spawn(async move { group.stand(None).await });
    }

    /// Whether a replica on a living node does not support this leader yet.
    fn somebody_is_to_support(&self, term: u64) -> bool {
        let inner = &*self.0;
        let liveness = &inner.peers.liveness;
        let voters = Arc::clone(&lock(&inner.state.voters));
        voters.iter().flatten().any(|node| {
            *node != inner.node
                && liveness.promise_of(*node).is_some()
                && !inner.state.is_supported_by(liveness, *node, term)
        })
    }

    /// How many of the voters stand before this node does; `None`: it does not vote. Which is the first differs from shard to
    /// shard, so that the groups of a dead node do not all get the same leader.
    fn rank(&self) -> Option<u32> {
        let inner = &*self.0;
        let voters = Arc::clone(&lock(&inner.state.voters));
        let former = inner.state.guard.leader().map(|(leader, _)| leader.node);
        let mut standing: Vec<NodeId> = voters.iter().flatten().copied().collect();
        standing.sort_unstable();
        standing.dedup();
        standing.retain(|node| Some(*node) != former || *node == inner.node);
        let own = standing.iter().position(|node| *node == inner.node)?;
        let first = usize::from(inner.shard.0) % standing.len();
        // Fewer than there are nodes.
        u32::try_from((own + standing.len() - first) % standing.len()).ok()
    }

    /// Asks whether a majority would vote for this node; if so, begins an election.
    async fn stand(&self, handed_over: Option<HandOver>) {
        let inner = &*self.0;
        let mine = inner.vote();
        let vote = Vote {
            leader_id: LeaderId::new(mine.leader_id.term + 1, inner.node.0),
            committed: false,
        };
        let ask = proto::Ask {
            vote: Some(convert::vote_to_proto(&vote)),
            last: inner.last_log_id().as_ref().map(convert::log_id_to_proto),
            handed_over: handed_over.map(|by| proto::HandOver {
                term: by.term,
                number: by.number,
            }),
        };
        let voters = Arc::clone(&lock(&inner.state.voters));
        let others = voters.iter().flatten().copied().filter(|node| *node != inner.node);
        let mut asked: Vec<NodeId> = others.collect();
        asked.sort_unstable();
        asked.dedup();
        let mut answers: FuturesUnordered<_> = asked
            .into_iter()
            .map(|node| {
                let request = message::encode(Request::Group(proto::Call {
                    shard: inner.shard.0.into(),
                    what: Some(proto::call::What::PreVote(ask)),
                }));
                let call = inner.peers.wire.call(node, request, PRE_VOTE_TIMEOUT);
                async move { (node, call.await) }
            })
            .collect();
        let mut granted = vec![inner.node];
        let is_enough = |granted: &[NodeId]| {
            let of = |set: &Vec<NodeId>| set.iter().filter(|node| granted.contains(node)).count() > set.len() / 2;
            !voters.is_empty() && voters.iter().all(of)
        };
        while !is_enough(&granted) {
            let Some((node, answer)) = answers.next().await else {
                break;
            };
            let answer = answer.ok().and_then(|answer| proto::Voted::decode(answer).ok());
            if answer.is_some_and(|voted| voted.granted) {
                granted.push(node);
            }
        }
        if !is_enough(&granted) {
            tracing::debug!(shard = %inner.shard, ?granted, "would not be elected");
            return;
        }
        self.elect(vote.leader_id.term, handed_over).await;
    }

    async fn elect(&self, term: u64, handed_over: Option<HandOver>) {
        let inner = &*self.0;
        let holds = |leader: PeerId| leader != inner.peers.liveness.me() && self.holds(leader);
        // An election of an earlier attempt may have come to an end.
        if inner.vote().leader_id.term >= term {
            return;
        }
        let Some(ticket) = inner.state.guard.let_through(inner.node, term, handed_over, holds) else {
            return;
        };
        metrics::election();
        *lock(&inner.state.handed_over) = handed_over;
        // It fails only when the group has stopped.
        let _ = inner.raft.trigger().elect(false).await;
        inner.state.guard.voted(&ticket, true);
    }

    /// Gives the leadership to that replica, if this node has it: this node acts no more from now on, and goes on after a while
    /// if the other does not lead by then.
    pub fn hand_over(&self, to: NodeId) {
        let inner = &*self.0;
        let term = inner.state.leading.load(Ordering::Acquire);
        if term == 0 || to == inner.node {
            return;
        }
        let by = inner.state.hands_over(term);
        lock(&inner.state.election).handing_over = Some((term, Instant::now() + HAND_OVER_TIMEOUT));
        inner.state.released.store(term, Ordering::Release);
        inner.state.leading.store(0, Ordering::Release);
        inner.state.changed.notify_one();
        let group = self.clone();
        tokio::spawn(async move {
            // Whoever is in the middle of something comes to its end; what arrives later than the successor's is fenced.
            tokio::time::sleep(HAND_OVER_PAUSE).await;
            let inner = &*group.0;
            let take_over = proto::TakeOver {
                by: Some(proto::HandOver {
                    term: by.term,
                    number: by.number,
                }),
                committed: inner.committed().as_ref().map(convert::log_id_to_proto),
            };
            let request = message::encode(Request::Group(proto::Call {
                shard: inner.shard.0.into(),
                what: Some(proto::call::What::TakeOver(take_over)),
            }));
            if let Err(error) = inner.peers.wire.call(to, request, HAND_OVER_TIMEOUT).await {
                tracing::warn!(shard = %inner.shard, %to, %error, "a leadership could not be handed over");
            }
        });
    }

    /// The leader wants this node to lead.
    pub(super) fn take_over(&self, from: PeerId, take_over: &proto::TakeOver) -> Result<(), String> {
        let inner = &*self.0;
        let by = take_over
            .by
            .as_ref()
            .map(server::hand_over)
            .ok_or("a hand-over names no term")?;
        if inner.state.guard.leader() != Some((from, by.term)) {
            return Err("who hands over does not lead, as far as is known here".to_owned());
        }
        let needed: Option<LogId> = take_over.committed.as_ref().map(convert::log_id_from_proto);
        let group = self.clone();
        tokio::spawn(async move {
            let until = Instant::now() + HAND_OVER_TIMEOUT;
            while group.0.last_log_id() < needed {
                if Instant::now() >= until {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            group.stand(Some(by)).await;
        });
        Ok(())
    }
}

impl super::Inner {
    pub(super) fn vote(&self) -> Vote {
        self.raft.server_metrics().borrow_watched().vote
    }

    pub(super) fn last_log_id(&self) -> Option<LogId> {
        self.log.last()
    }

    pub(super) fn committed(&self) -> Option<LogId> {
        let metrics = self.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        metrics.last_applied
    }
}
