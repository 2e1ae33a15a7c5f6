//! One shard's group: who leads, what is proposed, what is applied. All of openraft is below here.

mod chain;
mod chunks;
mod convert;
mod election;
mod export;
mod guard;
mod lease;
mod log;
mod machine;
mod membership;
mod network;
mod proposal;
mod role;
mod sending;
mod server;
mod type_config;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use heronry_proto::log as proto;
use heronry_storage::{Batch, NodeId, ShardId, ShardRows, Store, Timestamp, Write};
use openraft::{Raft, SnapshotPolicy, vote::RaftLeaderIdExt};
use prost::Message;
use tokio::sync::{Notify, watch};

pub use self::export::{ExportError, Exported, Position};
pub use self::membership::{ChangeError, Membership};
pub use self::proposal::{Committed, Proposal, Refused};
use self::{
    chain::Link,
    guard::{Guard, HandOver},
    lease::{HandOvers, Supports, Voters, lock},
    log::Log,
    machine::Machine,
    network::Network,
    proposal::InFlight,
    role::Role,
    type_config::Types,
};
use crate::{Options, ProposeError, StartError, Wire, liveness::Liveness};

/// A number that grows with every change of a shard's leader, and with every start of a node that leads alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

impl std::fmt::Display for Term {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What was evaluated upon the same rows: a fresh start within a term begins the next round. What is proposed in a round is committed as a
/// chain: once one proposal is refused, all later ones of its round are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round {
    /// The term.
    pub term: Term,
    /// Counts within the term.
    pub round: u32,
}

impl From<Term> for Round {
    fn from(term: Term) -> Self {
        Self { term, round: 0 }
    }
}

/// What this node is in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// Another node leads, or none does, or this one will once it has applied everything of earlier terms.
    Follower {
        /// Who leads, as far as it is known.
        leader: Option<NodeId>,
    },
    /// This node leads, and everything of earlier terms is applied here: rows may be read and evaluated upon.
    Leader {
        /// In this term.
        term: Term,
    },
    /// The group has stopped here, because its store failed or it was shut down. Nothing follows.
    Closed,
}

/// A shard's group on this node. Clones are handles of the same group.
#[derive(Clone)]
pub struct Group(Arc<Inner>);

struct Inner {
    shard: ShardId,
    node: NodeId,
    raft: Raft<Types, Machine>,
    store: Arc<dyn Store>,
    rows: ShardRows,
    leadership: watch::Receiver<Leadership>,
    state: Arc<State>,
    in_flight: Arc<InFlight>,
    options: Options,
    log: Log,
    peers: Arc<Peers>,
    /// The round of the last proposal, and its number in it.
    chain: Mutex<(Round, u64)>,
}

/// The other nodes, as every group of this one sees them.
pub(crate) struct Peers {
    pub(crate) wire: Arc<dyn Wire>,
    pub(crate) liveness: Liveness,
}

/// What a group's parts tell each other. All of it may be read at any time.
#[derive(Default)]
struct State {
    /// The term in which this node leads and may evaluate; 0: none.
    leading: AtomicU64,
    /// This node is the only voter, so its lease never runs out.
    alone: AtomicBool,
    /// The greatest `at` of an applied batch, microseconds since the Unix epoch.
    at: AtomicU64,
    /// The index of the last applied entry.
    applied: AtomicU64,
    /// No more proposals: the group is being shut down.
    closing: AtomicBool,
    /// Who votes, as the newest entry of the log that says so has it.
    voters: Mutex<Arc<Voters>>,
    /// What was promised to leaders.
    guard: Guard,
    /// Who supports this leader.
    supports: Mutex<Supports>,
    /// What permits this node to be elected now.
    handed_over: Mutex<Option<HandOver>>,
    hand_overs: Mutex<HandOvers>,
    /// The term in which this node leads and acts no more, since it hands over; 0: none.
    released: AtomicU64,
    election: Mutex<election::Election>,
    /// Something here has changed that [`Role`] tells others.
    changed: Notify,
    /// The snapshot that is being sent.
    kept: Mutex<sending::Kept>,
}

impl Group {
    /// Starts the group of one shard from what the store has. When that is nothing it is founded, with this node as the only voter, or, when
    /// `found` is false, waits for a leader to write to it. Must be called on the runtime that is to run it.
    pub(crate) async fn start(
        shard: ShardId,
        store: Arc<dyn Store>,
        options: Options,
        peers: Arc<Peers>,
        found: bool,
    ) -> Result<Self, StartError> {
        let node = store.node_id();
        let failed = |reason: &dyn std::fmt::Display| match store.log_state(shard) {
            // Raft has only seen the failure of its store, which knows better.
            Err(error) => StartError::Store(error),
            Ok(_) => StartError::Group {
                shard,
                reason: reason.to_string(),
            },
        };
        let state = Arc::new(State::default());
        let log = Log::open(shard, Arc::clone(&store), &options)?;
        let (machine, progress) = Machine::open(shard, Arc::clone(&store), log.clone(), Arc::clone(&state))?;
        let config = Arc::new(config(shard).map_err(|error| failed(&error))?);
        let network = Network {
            shard,
            me: peers.liveness.me(),
            store: Arc::clone(&store),
            wire: Arc::clone(&peers.wire),
            state: Arc::clone(&state),
        };
        let raft = Raft::new(node.0, config, network, log.clone(), machine)
            .await
            .map_err(|error| failed(&error))?;
        if found && !raft.is_initialized().await.map_err(|error| failed(&error))? {
            raft.initialize(BTreeSet::from([node.0]))
                .await
                .map_err(|error| failed(&error))?;
        }
        let me = peers.liveness.me();
        let leadership = Role::start(shard, me, raft.clone(), Arc::clone(&state), progress);
        // A voter that is alone has nobody to wait for; the election gives it a new term.
        let voters = raft.with_raft_state(|state| state.membership_state.effective().voter_ids().collect::<Vec<_>>());
        if voters.await.map_err(|error| failed(&error))? == [node.0] {
            raft.trigger().elect(false).await.map_err(|error| failed(&error))?;
        }
        let rows = store.rows(shard);
        let in_flight = Arc::new(InFlight::new(options.in_flight_bytes_max));
        Ok(Self(Arc::new(Inner {
            shard,
            node,
            raft,
            store,
            rows,
            leadership,
            state,
            in_flight,
            options,
            log,
            peers,
            chain: Mutex::default(),
        })))
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.0.shard
    }

    /// Appends one entry with these batches, if this node still leads in the term of `round` and no later round has begun.
    ///
    /// The proposal is on its way when this returns, in the order of calls; it need not be polled for that, and dropping it
    /// does not take it back. It ends when the entry is committed (fsynced by a quorum) and applied here, so that
    /// [`rows`](Self::rows) shows it; proposals end in the order of calls.
    ///
    /// A proposal that is refused at once (busy, too large) takes those with it that were made before its result was taken:
    /// they may build upon it, so they are refused as busy. Whoever has taken all those results may propose anew.
    ///
    /// An empty list of batches is an entry as well: it is committed after everything before it.
    pub fn propose(&self, round: impl Into<Round>, batches: Vec<Batch>) -> Proposal {
        self.try_propose(round, batches)
            .unwrap_or_else(|refused| Proposal::refused(refused.error, &self.0.in_flight))
    }

    /// As [`propose`](Self::propose), but batches that are not appended are given back, and nothing else is refused for it.
    ///
    /// # Errors
    /// Nothing was appended. When it is [`ProposeError::Busy`]: wait, and propose the same batches again before any others.
    pub fn try_propose(&self, round: impl Into<Round>, batches: Vec<Batch>) -> Result<Proposal, Refused> {
        let round = round.into();
        match self.admit(round.term, &batches) {
            Ok(permit) => self.submit(round, batches, permit),
            Err(error) => Err(Refused { error, batches }),
        }
    }

    fn admit(&self, term: Term, batches: &[Batch]) -> Result<proposal::Permit, ProposeError> {
        let inner = &*self.0;
        if inner.state.closing.load(Ordering::Acquire) {
            return Err(ProposeError::Closed);
        }
        let leading = Term(inner.state.leading.load(Ordering::Acquire));
        if leading != term {
            return Err(self.not_leading_in(term));
        }
        if inner.in_flight.is_broken() {
            return Err(ProposeError::Busy);
        }
        let bytes = batches.iter().map(Batch::size).sum();
        let max = inner.options.entry_bytes_max;
        if bytes > max {
            return Err(ProposeError::TooLarge { bytes, max });
        }
        let health = inner.store.health();
        if health.pressed || health.full || health.stalled >= inner.options.stall_after {
            return Err(ProposeError::Busy);
        }
        InFlight::enter(&inner.in_flight, bytes).ok_or(ProposeError::Busy)
    }

    fn submit(&self, round: Round, batches: Vec<Batch>, permit: proposal::Permit) -> Result<Proposal, Refused> {
        let inner = &*self.0;
        let term = round.term;
        // Held until Raft has it, so that numbers are in the order of the log.
        let mut chain = lock(&inner.chain);
        if round < chain.0 {
            let (proposed, leading) = (term, chain.0.term);
            let error = ProposeError::Fenced { proposed, leading };
            return Err(Refused { error, batches });
        }
        if round > chain.0 {
            *chain = (round, 0);
        }
        let link = Link {
            round: round.round,
            number: chain.1 + 1,
        };
        let (responder, proposal) = proposal::pair(self, term, batches.len(), permit);
        let leader = type_config::LeaderId::new_committed(term.0, inner.node.0);
        let entry = encode(batches, link);
        let write = inner
            .raft
            .write(type_config::Normal(entry.clone()))
            .responder(responder)
            .with_leader(leader);
        match proposal::submit(write) {
            Ok(()) => {
                chain.1 = link.number;
                Ok(proposal)
            }
            Err(error) => Err(Refused {
                error,
                // It was written a moment ago.
                batches: decode(entry).unwrap_or_default().0,
            }),
        }
    }

    /// Why a proposal of `term` cannot be appended here.
    fn not_leading_in(&self, term: Term) -> ProposeError {
        match *self.0.leadership.borrow() {
            Leadership::Leader { term: leading } if leading == term => ProposeError::NotLeader { leader: None },
            Leadership::Leader { term: leading } => ProposeError::Fenced {
                proposed: term,
                leading,
            },
            Leadership::Follower { leader } => ProposeError::NotLeader { leader },
            Leadership::Closed => ProposeError::Closed,
        }
    }

    /// What this node is in the group, now and from now on.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.0.leadership.clone()
    }

    /// The shard's applied rows.
    pub fn rows(&self) -> ShardRows {
        self.0.rows.clone()
    }

    /// The greatest time of any applied batch: a leader's time continues from here.
    pub fn last_at(&self) -> Timestamp {
        Timestamp(self.0.state.at.load(Ordering::Acquire))
    }

    /// The index of the last applied entry.
    pub fn applied(&self) -> u64 {
        self.0.state.applied.load(Ordering::Acquire)
    }

    /// Waits for proposals that are under way, then stops the group.
    pub(crate) async fn shutdown(self) {
        self.0.state.closing.store(true, Ordering::Release);
        if tokio::time::timeout(self.0.options.shutdown_timeout, self.0.in_flight.empty())
            .await
            .is_err()
        {
            tracing::warn!(shard = %self.0.shard, "proposals were still under way at shutdown");
        }
        // The core task may have ended already, by itself.
        let _ = self.0.raft.shutdown().await;
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Group({})", self.0.shard)
    }
}

/// openraft's lease, milliseconds: a century. Leases are judged per node.
const LEASE_OF_RAFT: u64 = 100 * 365 * 86_400_000;

/// How long a snapshot may be on its way, milliseconds.
const SNAPSHOT_TIMEOUT: u64 = 3_600_000;

/// openraft's configuration of a group: nothing runs on timers, a node is elected when we say so, and openraft's own lease is so long that
/// it never counts (docs/decisions/0005-cluster.md).
fn config(shard: ShardId) -> Result<openraft::Config, openraft::ConfigError> {
    let config = openraft::Config {
        cluster_name: format!("shard-{shard}"),
        // How long a call may take.
        heartbeat_interval: 5_000,
        election_timeout_min: 10_000,
        election_timeout_max: LEASE_OF_RAFT,
        enable_tick: false,
        install_snapshot_timeout: SNAPSHOT_TIMEOUT,
        // A new term after each start, so that what the process before it still has under way is fenced.
        enable_leader_restore: Some(false),
        enable_pre_vote: Some(true),
        // Logs are purged by bytes, when we say so; rows are on disk, so a snapshot is needed for other replicas only.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        ..openraft::Config::default()
    };
    config.validate()
}

fn encode(batches: Vec<Batch>, link: Link) -> Bytes {
    let batches = batches.into_iter().map(|batch| proto::Batch {
        at: batch.at.0,
        writes: batch
            .writes
            .into_iter()
            .map(|write| match write {
                Write::Put(key, value) => proto::Write {
                    key,
                    value: Some(value),
                },
                Write::Delete(key) => proto::Write { key, value: None },
            })
            .collect(),
    });
    proto::Entry {
        batches: batches.collect(),
        number: link.number,
        round: link.round,
    }
    .encode_to_vec()
    .into()
}

fn decode(bytes: Bytes) -> Result<(Vec<Batch>, Link), prost::DecodeError> {
    let proto::Entry { batches, number, round } = proto::Entry::decode(bytes)?;
    let batches = batches.into_iter().map(|batch| Batch {
        at: Timestamp(batch.at),
        writes: batch
            .writes
            .into_iter()
            .map(|write| match write.value {
                Some(value) => Write::Put(write.key, value),
                None => Write::Delete(write.key),
            })
            .collect(),
    });
    Ok((batches.collect(), Link { round, number }))
}
