//! A shard: the accounts and sessions of a set of slots, evaluated in one place and one order.
//!
//! Sans-io. The caller feeds it what edges ([`Shard::from_edge`]), other shards ([`Shard::from_peer`]), the store
//! ([`Shard::committed`], [`Shard::page`]) and the clock ([`Shard::tick`]) say, and performs the [`Output`]s. A stanza goes:
//!
//! ```text
//! frames   Submit ► the sender's account: own request, or Forward to the recipient's shard
//! inbox    Forward ► the recipient's account: RFC 6121 §8.5
//! deliver  ► Session: queue, credit, rows when there is no socket ► Deliver to the edge
//! frames   Answer ► the frame is done ► Accepted
//! ```
//!
//! Each evaluation is a [`turn::Turn`]: its writes become one batch, its effects wait for that batch, or for the
//! entity's last one, to be committed ([`pipeline`]). [`attach`] is how a new term begins, [`negotiation`] is bind, resume
//! and enable, [`detach`] how sessions lose their socket and end, [`peers`] what is owed to and by other shards,
//! [`presence`] who sees whom, [`subscriptions`] how they come to, [`consequences`] what a feature may cause.

mod accounts;
mod anonymous;
mod attach;
mod blocks;
mod carbons;
mod config;
mod consequences;
mod deliver;
mod detach;
mod executed;
mod farewell;
mod frames;
mod inbox;
mod negotiation;
mod peers;
mod pipeline;
mod presence;
mod pubsub;
mod registration;
mod restore;
mod sessions;
mod subscriptions;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub use accounts::{Account, Administer, Administered, Existing, Imported, Listed, accounts_of};
pub use config::{Config, FEATURE_LEVEL, Limits, ShardMap};
pub use pipeline::BatchNo;
pub use restore::{Phase, Restore, place_of};

use crate::jid::BareJid;
use crate::link::{Conn, EdgeId, Finding, SessionId, ShardId, Term, ToEdge, ToPeer, ToShard};
use crate::random::Random;
use crate::rows::{Batch, Key, Overlay, Rows, RowsError, Timestamp, Value};
use attach::CatchingUp;
use peers::Peers;
use pipeline::Pipeline;
use pubsub::Pubsub;
use sessions::{Place, Sessions};
use turn::{Effect, Entity, Teller, Turn};

/// What a step of a shard may use, and where its outputs go.
pub struct Io<'a> {
    /// The shard's applied rows, as of now.
    pub rows: &'a dyn Rows,
    /// The wall clock.
    pub now: Timestamp,
    /// A clock that never jumps, since whenever: for time-outs.
    pub elapsed: Duration,
    /// For resources and SM-IDs.
    pub random: &'a mut dyn Random,
    /// What is to be performed, in order.
    pub out: &'a mut Vec<Output>,
}

/// What a shard wants done. Everything but [`Self::Propose`] and [`Self::Read`] carries the shard's term.
#[derive(Debug)]
pub enum Output {
    /// Make this batch durable, after all before it, if the shard is still in this term; then call [`Shard::committed`].
    /// If it cannot be, call [`Shard::failed`].
    Propose {
        /// Its number.
        no: BatchNo,
        /// Its writes.
        batch: Batch,
    },
    /// Send this to an edge.
    Edge {
        /// Which edge.
        to: EdgeId,
        /// The shard's term.
        term: Term,
        /// What.
        message: ToEdge,
    },
    /// Send this to every edge there is, and to each that comes later as its first message from this shard.
    AllEdges {
        /// The shard's term.
        term: Term,
        /// [`ToEdge::Lead`] or [`ToEdge::Leading`].
        message: ToEdge,
    },
    /// These edges are waited for: call [`Shard::edge_died`] for those that no longer live.
    Await(Vec<EdgeId>),
    /// Send this to whoever leads that shard.
    Peer {
        /// Which shard.
        to: ShardId,
        /// This shard's term.
        term: Term,
        /// The term in which this shard knows the other: in any other it is not to be heard.
        known: Term,
        /// What.
        message: ToPeer,
    },
    /// Tell all other shards, and each that comes later, that this one leads.
    AllPeers {
        /// This shard's term.
        term: Term,
    },
    /// Read these rows as they are applied now, and call [`Shard::page`]. Work that may take a while: not on the shard's thread.
    Read(Read),
    /// An [`Administer`] request has been carried out.
    Administered {
        /// The caller's number for it.
        ticket: u64,
        /// What came of it.
        result: Administered,
    },
    /// Something an operator counts.
    Count(Event),
}

/// Who wants a page of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reader {
    /// A session that is drained.
    Session(SessionId),
    /// A notification, for its followers.
    Notifying,
}

/// A page of rows somebody wants.
#[derive(Clone, Debug)]
pub struct Read {
    /// Who.
    pub reader: Reader,
    /// Which of its reads: the answer carries it.
    pub ticket: u64,
    /// What their keys begin with.
    pub prefix: Key,
    /// The first key.
    pub from: Key,
    /// How many at most.
    pub limit: usize,
}

/// What an operator counts: refusals and ends, each with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A stanza was refused.
    Refused(&'static str),
    /// A session ended.
    SessionEnded(&'static str),
    /// The owner of an account did this to it (XEP-0077).
    Account(&'static str),
    /// A message was stored.
    Stored,
    /// The shard started over after a failed commit, or after messages may have been lost.
    StartedOver,
    /// A message was of a former term.
    Fenced,
}

/// What is going on, for `heronry status` and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sessions with a socket.
    pub attached: usize,
    /// Sessions without one, waiting to be resumed.
    pub detached: usize,
    /// Stanzas waiting for other shards.
    pub forwards: usize,
    /// A backup is being restored: nobody logs in.
    pub restoring: bool,
}

#[derive(Debug)]
enum Role {
    Following,
    CatchingUp(Box<CatchingUp>),
    Leading,
}

/// A shard. See the module's description.
#[derive(Debug)]
pub struct Shard {
    id: ShardId,
    config: Arc<Config>,
    term: Term,
    role: Role,
    /// The last time that was given to a batch or a row.
    clock: u64,
    overlay: Overlay,
    pipeline: Pipeline<Effect>,
    /// Effects that may leave.
    ready: VecDeque<Effect>,
    /// Whether they are leaving right now.
    performing: bool,
    sessions: Sessions,
    sessions_bound: u32,
    peers: Peers,
    /// What waits until presence has been told.
    telling: HashMap<Teller, usize>,
    /// Farewells that some shard had no leader for.
    late_farewells: BTreeSet<(BareJid, SessionId)>,
    /// Whether this is the only cluster node.
    alone: bool,
    /// A backup is being restored: nobody logs in.
    restoring: bool,
    /// Sessions whose accepted prefix grew since the last [`Shard::flush`].
    accepted: BTreeSet<Place>,
    /// What pubsub has under way.
    pubsub: Pubsub,
    /// The cluster's feature level: what is written and said that older programs do not know.
    feature_level: u32,
}

impl Shard {
    /// A shard that does nothing until it is told to [`Self::lead`].
    pub fn new(id: ShardId, config: Arc<Config>) -> Self {
        let (alone, feature_level) = (config.alone, config.feature_level);
        Self {
            id,
            config,
            alone,
            restoring: false,
            telling: HashMap::new(),
            late_farewells: BTreeSet::new(),
            term: Term::default(),
            role: Role::Following,
            clock: 0,
            overlay: Overlay::default(),
            pipeline: Pipeline::new(),
            ready: VecDeque::new(),
            performing: false,
            sessions: Sessions::default(),
            sessions_bound: 0,
            peers: Peers::default(),
            accepted: BTreeSet::new(),
            pubsub: Pubsub::default(),
            feature_level,
        }
    }

    /// Which shard this is.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The term it is or was in.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Whether it evaluates: it leads, and all its edges have attached.
    pub fn is_leading(&self) -> bool {
        matches!(self.role, Role::Leading)
    }

    /// Whether another leads, or nobody.
    pub fn is_following(&self) -> bool {
        matches!(self.role, Role::Following)
    }

    /// There are other cluster nodes from now on, or there are none ([`Config::alone`]).
    pub fn set_alone(&mut self, alone: bool) {
        self.alone = alone;
    }

    /// The cluster's feature level, which only grows.
    pub fn set_feature_level(&mut self, level: u32) {
        self.feature_level = self.feature_level.max(level);
    }

    /// What is going on.
    pub fn stats(&self) -> Stats {
        let detached = self
            .sessions
            .iter()
            .filter(|(_, session)| !session.is_attached())
            .count();
        Stats {
            attached: self.sessions.len() - detached,
            detached,
            forwards: self.peers.forwards(),
            restoring: self.restoring && self.is_leading(),
        }
    }

    /// Begins a term, or another round of the one it was in before it followed: forgets what is not durable and asks all edges to
    /// attach. The rows must hold everything that was committed in earlier terms and rounds.
    ///
    /// # Errors
    /// When the rows cannot be read; the shard then follows.
    pub fn lead(&mut self, term: u64, io: &mut Io<'_>) -> Result<(), RowsError> {
        let round = if self.term.term == term && self.term != Term::default() {
            self.term.round + 1
        } else {
            0
        };
        self.begin(Term { term, round }, io)
    }

    /// A batch could not be committed, so everything evaluated since is void; or a link has broken and what went over it may be
    /// lost. Begins another round of the same term.
    ///
    /// # Errors
    /// When the rows cannot be read; the shard then follows.
    pub fn failed(&mut self, io: &mut Io<'_>) -> Result<(), RowsError> {
        if matches!(self.role, Role::Following) {
            return Ok(());
        }
        io.out.push(Output::Count(Event::StartedOver));
        self.begin(
            Term {
                term: self.term.term,
                round: self.term.round + 1,
            },
            io,
        )
    }

    /// Another leads: forgets everything. Nothing it held back ever leaves.
    pub fn follow(&mut self) {
        self.forget();
        self.role = Role::Following;
    }

    /// An edge says something, in the term it knows.
    pub fn from_edge(&mut self, edge: EdgeId, term: Term, message: ToShard, io: &mut Io<'_>) {
        if term != self.term {
            return io.out.push(Output::Count(Event::Fenced));
        }
        match (&mut self.role, message) {
            (Role::CatchingUp(_), ToShard::Attach { sessions, asking, last }) => {
                self.attach(edge, sessions, &asking, last, io);
            }
            (Role::Leading, message) => self.edge_message(edge, message, io),
            // An edge sends nothing else before it has heard that the shard leads.
            _ => {}
        }
    }

    fn edge_message(&mut self, edge: EdgeId, message: ToShard, io: &mut Io<'_>) {
        match message {
            ToShard::Credentials { conn, account, hash } => self.credentials(edge, conn, &account, hash, io),
            ToShard::Register { conn, account, keys } => self.register(edge, conn, &account, &keys, io),
            ToShard::Bind {
                conn,
                account,
                resource,
                version,
            } => {
                self.bind(edge, conn, &account, resource.as_deref(), version, io);
            }
            ToShard::Resume {
                conn,
                account,
                version,
                previd,
                h,
            } => {
                self.resume(edge, conn, &account, version, &previd, h, io);
            }
            ToShard::Enable {
                conn,
                session,
                base,
                resume,
                max,
            } => {
                if let Some(place) = self.sessions.at(session, edge, conn) {
                    self.enable(place, base, resume, max, io);
                }
            }
            ToShard::Submit {
                conn,
                session,
                frame,
                settled,
                repeat,
                stanza,
                finding,
            } => {
                if let Some(place) = self.sessions.at(session, edge, conn)
                    && self.number(place, frame, settled, io)
                {
                    match finding.map(|finding| *finding) {
                        None => self.submit(place, frame, repeat, stanza, io),
                        Some(Finding::Refused(error)) => self.bounce(place, frame, &stanza, error, io),
                        Some(Finding::NewPassword(keys)) => {
                            self.change_password(place, frame, repeat, &stanza, &keys, io);
                        }
                    }
                }
            }
            ToShard::Progress {
                conn,
                session,
                received,
                released,
                voided,
            } => {
                if let Some(place) = self.sessions.at(session, edge, conn) {
                    self.progress(place, received, released, &voided, io);
                }
            }
            ToShard::Detach {
                conn,
                session,
                released,
                voided,
                clean,
            } => {
                self.socket_gone(edge, conn, session, released, &voided, clean, io);
            }
            ToShard::Attach { sessions, .. } => self.attach_late(edge, sessions, io),
        }
    }

    /// Another shard says that it leads `term` from now on.
    pub fn peer_leads(&mut self, peer: ShardId, term: Term, io: &mut Io<'_>) {
        if !self.peers.admits(peer, term) {
            return io.out.push(Output::Count(Event::Fenced));
        }
        self.peers.leads(peer);
        if self.is_leading() {
            self.send_again(peer, io);
        }
    }

    /// Another shard, in its `term`, says something to this one, which it knows in the term `known`. What it had for another term it says
    /// again, from the beginning, when it has heard of this one.
    pub fn from_peer(&mut self, peer: ShardId, term: Term, known: Term, message: ToPeer, io: &mut Io<'_>) {
        if !self.peers.admits(peer, term) || known != self.term || !self.is_leading() {
            return io.out.push(Output::Count(Event::Fenced));
        }
        match message {
            ToPeer::Forward(forward) => self.forwarded(peer, forward, io),
            ToPeer::Answer {
                session,
                frame,
                replies,
            } => self.peer_answers(peer, session, frame, replies, io),
            ToPeer::Tell(tell) => self.tell_arrives(peer, tell, io),
            ToPeer::Told { number } => {
                if let Some(teller) = self.peers.told(peer, number) {
                    self.has_told(teller, io);
                }
            }
            ToPeer::Durable { number, effect } => self.durable_arrives(peer, number, effect, io),
            ToPeer::Done { number } => self.peers.done(peer, number),
            ToPeer::Ask(ask) => self.ask_arrives(peer, &ask, io),
            ToPeer::Stands { number, standing } => self.stands(number, standing, io),
        }
    }

    /// All batches up to `no` are durable and applied.
    pub fn committed(&mut self, no: BatchNo, io: &mut Io<'_>) {
        self.overlay.settle(no.0);
        let released = self.pipeline.committed(no);
        self.ready.extend(released);
        self.perform_ready(io);
    }

    /// Answers [`Output::Read`].
    pub fn page(&mut self, reader: Reader, ticket: u64, rows: Vec<(Key, Value)>, io: &mut Io<'_>) {
        if !self.is_leading() {
            return;
        }
        match reader {
            Reader::Session(session) => self.drained(session, ticket, rows, io),
            Reader::Notifying => self.followers_read(ticket, rows, io),
        }
    }

    /// An edge is gone, with all its sockets.
    pub fn edge_died(&mut self, edge: EdgeId, io: &mut Io<'_>) {
        match &mut self.role {
            Role::Following => {}
            Role::CatchingUp(catching_up) => {
                catching_up.edge_died(edge);
                self.try_to_lead(io);
            }
            Role::Leading => {
                for place in self.sessions.of_edge(edge) {
                    self.socket_lost(place, io);
                }
            }
        }
    }

    /// Time has passed. To be called some times a second.
    pub fn tick(&mut self, io: &mut Io<'_>) {
        match &mut self.role {
            Role::Following => {}
            Role::CatchingUp(catching_up) => {
                if catching_up.is_late(io.elapsed) {
                    catching_up.give_up();
                    self.try_to_lead(io);
                }
            }
            Role::Leading => {
                self.end_overdue(io);
                self.expire_forwards(io);
                self.forget_done_effects(io);
                self.forget_executed(io);
                self.sessions.forget_given(io.elapsed);
                self.tick_pubsub(io);
            }
        }
    }

    /// To be called when a run of messages has been taken: tells edges what was accepted.
    pub fn flush(&mut self, io: &mut Io<'_>) {
        if self.accepted.is_empty() {
            return;
        }
        let mut by_edge: HashMap<EdgeId, Vec<(Conn, u64)>> = HashMap::new();
        for place in std::mem::take(&mut self.accepted) {
            if let Some(session) = self.sessions.get(place).filter(|session| session.is_attached()) {
                by_edge
                    .entry(session.edge)
                    .or_default()
                    .push((session.conn, session.inbound.accepted()));
            }
        }
        let mut by_edge: Vec<_> = by_edge.into_iter().collect();
        by_edge.sort_unstable_by_key(|(edge, _)| *edge);
        for (to, accepted) in by_edge {
            io.out.push(Output::Edge {
                to,
                term: self.term,
                message: ToEdge::Accepted(accepted),
            });
        }
    }

    /// The shard's time: never back, never the same twice (DESIGN §4.8).
    fn stamp(&mut self, io: &Io<'_>) -> Timestamp {
        self.clock = io.now.0.max(self.clock + 1);
        Timestamp(self.clock)
    }

    /// Ends a turn: proposes what it wrote, and lets its effects leave when they may.
    fn finish(&mut self, turn: Turn, io: &mut Io<'_>) {
        let Turn {
            entity,
            writes,
            effects,
        } = turn;
        let wrote = !writes.is_empty();
        if wrote {
            let at = self.stamp(io);
            let upcoming = self.pipeline.upcoming();
            for write in &writes {
                self.overlay.write(upcoming.0, write);
            }
            let no = self.pipeline.evaluated(entity.as_ref().map(Entity::name));
            io.out.push(Output::Propose {
                no,
                batch: Batch { at, writes },
            });
        }
        let after = self.pipeline.waits_for(entity.as_ref().map(Entity::name));
        for effect in effects {
            if self.pipeline.is_committed(after) {
                self.ready.push_back(effect);
            } else {
                self.pipeline.hold(after, effect);
            }
        }
        self.perform_ready(io);
    }

    /// Performs what may leave, in the order in which it was caused: what an effect causes in turn comes last.
    fn perform_ready(&mut self, io: &mut Io<'_>) {
        if std::mem::replace(&mut self.performing, true) {
            return;
        }
        while let Some(effect) = self.ready.pop_front() {
            self.perform(effect, io);
        }
        self.performing = false;
    }

    fn perform(&mut self, effect: Effect, io: &mut Io<'_>) {
        let term = self.term;
        match effect {
            Effect::Edge(to, message) => io.out.push(Output::Edge { to, term, message }),
            Effect::Peer(to, message) => self.to_peer(to, message, io),
            Effect::Forward(to, forward) if to == self.id => self.forwarded(to, forward, io),
            Effect::Forward(to, forward) => self.forward(to, forward, io),
            Effect::Tell(to, tell, teller) if to == self.id => {
                self.tell_arrives(to, tell, io);
                if let Some(teller) = teller {
                    self.has_told(teller, io);
                }
            }
            Effect::Tell(to, tell, teller) => self.tell_peer(to, tell, teller, io),
            Effect::Answer(receipt, replies) if receipt.shard == self.id => {
                self.answered(receipt.session, receipt.frame, replies, io);
            }
            Effect::Answer(receipt, replies) => {
                let message = ToPeer::Answer {
                    session: receipt.session,
                    frame: receipt.frame,
                    replies,
                };
                self.to_peer(receipt.shard, message, io);
            }
            Effect::Done(session, frame) => self.frame_done(session, frame),
            Effect::Durable { number, effect } => self.durable_arrives(self.id, number, effect, io),
            Effect::Notify(address, stamp) => self.begin_notifying(address, stamp, io),
            Effect::Ask(to, ask) if to == self.id => self.ask_arrives(to, &ask, io),
            Effect::Ask(to, ask) => self.ask(to, ask, io),
            Effect::Stands(to, number, standing) if to == self.id => self.stands(number, standing, io),
            Effect::Stands(to, number, standing) => {
                let message = ToPeer::Stands { number, standing };
                self.to_peer(to, message, io);
            }
            Effect::BringStored(session) => self.bring_stored(session, io),
            Effect::RowWaits(session) => self.row_waits(session, io),
            Effect::Read(session) => self.read(session, io),
            Effect::Administered(ticket, result) => io.out.push(Output::Administered { ticket, result }),
        }
    }

    fn forget(&mut self) {
        self.overlay.clear();
        self.pipeline = Pipeline::new();
        self.ready.clear();
        self.sessions = Sessions::default();
        self.peers.forget();
        self.telling.clear();
        self.late_farewells.clear();
        self.accepted.clear();
        self.pubsub = Pubsub::default();
    }
}
