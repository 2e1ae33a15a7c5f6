//! One shard at work: a run of messages in, what comes of it performed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use heronry_cluster::{Group, Leadership, ShardRows};
use heronry_xmpp::{
    link::{EdgeId, ShardId, Term, ToEdge, ToPeer, ToShard},
    rows::{RowsError, Timestamp},
    shard::{Administered, BatchNo, Config, Io, Output, Shard},
};
use tokio::sync::oneshot;

use super::{
    Control, ShardLimits, Statuses, Traffic,
    entity::Entities,
    inbox::{Far, Run, Take},
    metrics::{self, Outcomes, Runs},
    proposer::Proposer,
};
use crate::{
    clock::{Clock, SystemRandom},
    edge::Port,
    links::{Router, flush_now},
    telemetry::Trace,
};

/// Ticks after which a shard tells how it is.
const STATS_EVERY: u32 = 4;

/// How long a leader may be without its lease before edges are told that nobody leads.
const LEASE_PATIENCE: Duration = Duration::from_secs(3);

/// What a shard needs of its surroundings.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) config: Arc<Config>,
    pub(super) router: Arc<Router>,
    pub(super) statuses: Arc<Statuses>,
    pub(super) clock: Clock,
    pub(super) limits: ShardLimits,
}

/// A shard and what it works with.
pub(super) struct Evaluator {
    id: ShardId,
    shard: Shard,
    group: Group,
    rows: ShardRows,
    around: Surroundings,
    proposer: Proposer,
    entities: Entities,
    /// Operators who wait, by ticket.
    tickets: HashMap<u64, oneshot::Sender<Administered>>,
    last_ticket: u64,
    /// The term that a former actor of this shard was in last: a new one must be greater.
    former: Term,
    /// The time of the last batch of earlier terms.
    floor: Timestamp,
    now: Timestamp,
    elapsed: Duration,
    ticks: u32,
    /// Since when it leads and has no lease.
    unleased: Option<Duration>,
    /// It leads in this term again, once what it had proposed in it has ended.
    leads_again: Option<u64>,
    /// What edges of other nodes have sent and have not been told was taken.
    taken: Vec<Far>,
    run: Run,
    out: Vec<Output>,
    /// Connections that are to wake.
    woken: Vec<Arc<Port>>,
    runs: Runs,
    outcomes: Outcomes,
    /// Traced stanzas whose batches are not committed, and since when.
    committing: Vec<(BatchNo, Trace, SystemTime)>,
}

impl Evaluator {
    pub(super) fn new(group: Group, former: Term, around: Surroundings) -> Self {
        let id = ShardId(group.shard().0);
        let rows = group.rows();
        let inboxes = around.router.inboxes();
        let mut shard = Shard::new(id, Arc::clone(&around.config));
        shard.set_alone(around.router.is_alone());
        shard.set_feature_level(around.router.feature_level());
        Self {
            id,
            shard,
            proposer: Proposer::new(id, group.clone(), Arc::clone(inboxes), around.limits),
            entities: Entities::new(id, rows.clone(), Arc::clone(inboxes), around.limits),
            group,
            rows,
            around,
            tickets: HashMap::new(),
            last_ticket: 0,
            former,
            floor: Timestamp::default(),
            now: Timestamp::default(),
            elapsed: Duration::ZERO,
            ticks: 0,
            unleased: None,
            leads_again: None,
            taken: Vec::new(),
            run: Run::default(),
            out: Vec::new(),
            woken: Vec::new(),
            runs: Runs::new(),
            outcomes: Outcomes::new(),
            committing: Vec::new(),
        }
    }

    /// The term the shard is or was in.
    pub(super) fn term(&self) -> Term {
        self.shard.term().max(self.former)
    }

    /// Takes what is in the inbox and does what comes of it.
    pub(super) fn run(&mut self) {
        let inboxes = Arc::clone(self.around.router.inboxes());
        let Some(inbox) = inboxes.of(self.id) else { return };
        let began = Instant::now();
        let mut run = std::mem::take(&mut self.run);
        let mut messages = 0;
        loop {
            let room = self.proposer.has_room();
            let take = if !self.may_act() {
                Take::Leadership
            } else if room {
                Take::All
            } else {
                Take::Control
            };
            inbox.take(take, &mut run);
            self.now = self.around.clock.wall().max(Timestamp(self.floor.0 + 1));
            self.elapsed = self.around.clock.elapsed();
            messages += run.leadership.len() + run.control.len() + run.traffic.len();
            self.evaluate(&mut run);
            self.around.router.hub().has_room(&mut run.held);
            if take == Take::Leadership {
                if self.may_act() {
                    continue;
                }
                // What is left is looked at at the next tick.
                self.await_lease();
                break;
            }
            if room {
                break;
            }
            if !self.proposer.has_room() {
                metrics::traffic_held();
                break;
            }
        }
        self.run = run;
        self.runs.evaluated(messages, began.elapsed());
    }

    /// Whether what it is told may be evaluated, and what comes of it leave: it follows, or leads and nobody else can.
    fn may_act(&self) -> bool {
        #[cfg(test)]
        if !self.shard.is_following() && self.around.router.withholds_leases() {
            return false;
        }
        self.shard.is_following() || self.group.has_lease(heronry_cluster::Term(self.shard.term().term))
    }

    /// It leads and has no lease: for a moment that is nothing. Later edges are told, and it begins another round when it is back.
    fn await_lease(&mut self) {
        if self.shard.is_following() {
            return;
        }
        metrics::unleased();
        let since = *self.unleased.get_or_insert(self.elapsed);
        if self.elapsed.saturating_sub(since) >= LEASE_PATIENCE {
            self.around.router.resigns(self.id);
        }
    }

    fn evaluate(&mut self, run: &mut Run) {
        for leadership in run.leadership.drain(..) {
            match leadership {
                Leadership::Leader { term } => self.lead(term.0),
                Leadership::Follower { .. } | Leadership::Closed => self.follow(),
            }
        }
        for message in run.control.drain(..) {
            self.control(message);
        }
        for message in run.traffic.drain(..) {
            let traced = match self.around.router.hub().traces().now() {
                None => None,
                Some(began) => self.trace_of(&message).map(|trace| (trace, began, self.out.len())),
            };
            self.step(|shard, io| match message {
                Traffic::Edge { edge, term, message } => shard.from_edge(edge, term, message, io),
                Traffic::Peer {
                    from,
                    term,
                    known,
                    message,
                } => shard.from_peer(from, term, known, message, io),
                Traffic::PeerLeads { peer, term } => shard.peer_leads(peer, term, io),
            });
            if let Some((trace, began, outputs)) = traced {
                self.traced(trace, began, outputs);
            }
        }
        if std::mem::take(&mut run.tick) {
            self.tick();
        }
        self.step(Shard::flush);
        self.act();
        if self.proposer.has_failed() {
            self.start_over();
            self.act();
        }
        self.tell_taken(run);
        self.around.router.hub().wake(&mut self.woken);
        flush_now();
        let leads = self.shard.is_leading().then(|| self.shard.term());
        self.around.statuses.leads(self.id, leads);
    }

    /// Lets what has been evaluated leave. Without the lease it stays: it leaves with the next run that has it, or never.
    fn act(&mut self) {
        if self.may_act() {
            if self
                .unleased
                .take()
                .is_some_and(|since| self.elapsed.saturating_sub(since) >= LEASE_PATIENCE)
            {
                // Edges have been told that nobody leads.
                self.proposer.give_up();
            }
            self.perform();
            self.proposer.propose();
        }
    }

    /// Other nodes' edges hear now and then how much of theirs was taken, so that they go on.
    fn tell_taken(&mut self, run: &mut Run) {
        for far in run.far.drain(..) {
            match self.taken.iter_mut().find(|known| known.edge == far.edge) {
                Some(known) => {
                    known.messages += far.messages;
                    known.bytes += far.bytes;
                }
                None => self.taken.push(far),
            }
        }
        if self.taken.is_empty() {
            return;
        }
        let (messages_max, bytes_max) = self.around.router.inboxes().bounds();
        let due = |far: &mut Far| far.messages >= messages_max as u64 / 4 || far.bytes >= bytes_max as u64 / 4;
        let term = self.shard.term();
        for far in self.taken.extract_if(.., due) {
            self.around
                .router
                .taken(far.edge, self.id, term, far.messages, far.bytes);
        }
    }

    /// The trace of the stanza in a message, when there is one and it is traced. A repeat has been traced before.
    fn trace_of(&self, message: &Traffic) -> Option<Trace> {
        let (session, frame) = match message {
            Traffic::Edge {
                message:
                    ToShard::Submit {
                        session,
                        frame,
                        repeat: false,
                        ..
                    },
                ..
            } => (*session, *frame),
            Traffic::Peer {
                message: ToPeer::Forward(forward),
                ..
            } if !forward.repeat => (forward.session, forward.frame),
            _ => return None,
        };
        self.around.router.hub().traces().of(session, frame)
    }

    /// A traced stanza has been evaluated since `began`; what came of it begins at `outputs`.
    fn traced(&mut self, trace: Trace, began: SystemTime, outputs: usize) {
        let written = self
            .out
            .get(outputs..)
            .unwrap_or_default()
            .iter()
            .rev()
            .find_map(|output| match output {
                Output::Propose { no, .. } => Some(*no),
                _ => None,
            });
        trace.evaluated(self.id, began, written.is_some());
        if let Some(no) = written {
            self.committing.push((no, trace, SystemTime::now()));
        }
    }

    fn control(&mut self, message: Control) {
        match message {
            Control::Again(term) => {
                if term == self.shard.term() && !self.shard.is_following() {
                    self.proposer.give_up();
                }
            }
            Control::EdgeDied(edge) => self.step(|shard, io| shard.edge_died(edge, io)),
            Control::Alone(alone) => self.shard.set_alone(alone),
            Control::FeatureLevel(level) => self.shard.set_feature_level(level),
            Control::Proposed {
                term,
                no,
                batches,
                result,
            } => {
                self.proposer.ended(term, &result);
                if term == self.proposer.term() && result.is_ok() {
                    self.around.statuses.has_committed(batches);
                    let id = self.id;
                    for (_, trace, began) in self.committing.extract_if(.., |(of, ..)| *of <= no) {
                        trace.committed(id, began);
                    }
                    self.step(|shard, io| shard.committed(no, io));
                }
                if let Some(term) = self.leads_again.take() {
                    self.lead(term);
                }
            }
            Control::Page {
                term,
                reader,
                ticket,
                rows,
            } => {
                self.entities.page_read(reader);
                match rows {
                    Ok(rows) if term == self.shard.term() => {
                        self.step(|shard, io| shard.page(reader, ticket, rows, io));
                    }
                    Ok(_) => {}
                    Err(error) => self.unreadable(&error),
                }
            }
            Control::Administer { request, answer } => {
                self.last_ticket += 1;
                let ticket = self.last_ticket;
                self.tickets.insert(ticket, answer);
                self.step(|shard, io| shard.administer(ticket, *request, io));
            }
        }
    }

    fn tick(&mut self) {
        self.step(Shard::tick);
        self.entities.passivate(self.elapsed);
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(STATS_EVERY) {
            self.around.statuses.stats(self.id, self.shard.stats());
        }
    }

    /// This node leads the shard: in a new term, or again in the one it was in.
    fn lead(&mut self, term: u64) {
        self.leads_again = None;
        if self.shard.term().term == term {
            if !self.shard.is_following() {
                return;
            }
            if self.proposer.is_awaiting(term) {
                // The rows must hold what it had proposed before it followed.
                self.leads_again = Some(term);
                return;
            }
        }
        self.floor = self.group.last_at();
        self.now = self.now.max(Timestamp(self.floor.0 + 1));
        let mut begun = self.begin(|shard, io| shard.lead(term, io));
        while begun && self.shard.term() <= self.former {
            // An actor before this one was in this term: what it said must not be taken for what we say.
            self.out.clear();
            begun = self.begin(Shard::failed);
        }
    }

    /// A proposal has failed: everything evaluated since is void.
    fn start_over(&mut self) {
        let leading = *self.group.leadership().borrow();
        let term = self.shard.term().term;
        if matches!(leading, Leadership::Leader { term: leading } if leading.0 == term) {
            self.begin(Shard::failed);
        } else {
            self.follow();
        }
    }

    fn begin(&mut self, begin: impl FnOnce(&mut Shard, &mut Io<'_>) -> Result<(), RowsError>) -> bool {
        self.tickets.clear();
        self.committing.clear();
        self.entities.forget();
        self.taken.clear();
        self.unleased = None;
        let begun = self.step(begin);
        self.proposer.begin(self.shard.term());
        if let Err(error) = &begun {
            tracing::error!(shard = self.id.0, %error, "the shard cannot begin its term");
            self.follow();
        }
        begun.is_ok()
    }

    fn follow(&mut self) {
        self.shard.follow();
        self.out.clear();
        self.leads_again = None;
        self.unleased = None;
        self.around.router.resigns(self.id);
        self.tickets.clear();
        self.committing.clear();
        self.entities.forget();
        self.proposer.begin(Term::default());
    }

    fn unreadable(&mut self, error: &RowsError) {
        tracing::error!(shard = self.id.0, %error, "the rows of a session cannot be read");
        self.proposer.give_up();
    }

    /// Lets the shard take one step; what comes of it is in `out`.
    fn step<R>(&mut self, step: impl FnOnce(&mut Shard, &mut Io<'_>) -> R) -> R {
        let mut io = Io {
            rows: &self.rows,
            now: self.now,
            elapsed: self.elapsed,
            random: &mut SystemRandom,
            out: &mut self.out,
        };
        step(&mut self.shard, &mut io)
    }

    /// Does what the steps want done, in order.
    fn perform(&mut self) {
        while !self.out.is_empty() {
            let mut out = std::mem::take(&mut self.out);
            for output in out.drain(..) {
                self.perform_one(output);
            }
            if self.out.is_empty() {
                // Its memory is used again.
                self.out = out;
            }
        }
    }

    fn perform_one(&mut self, output: Output) {
        match output {
            Output::Propose { no, batch } => self.proposer.push(no, batch),
            Output::Edge { to, term, message } => {
                if let ToEdge::Deliver { delivery, .. } = &message {
                    self.outcomes.delivered(delivery.origin, &delivery.stanza);
                }
                self.around.router.to_edge(to, self.id, term, message, &mut self.woken);
            }
            Output::AllEdges { term, message } => {
                let leads = matches!(message, ToEdge::Leading);
                self.around.router.announce(self.id, term, leads);
            }
            Output::Await(edges) => self.await_edges(&edges),
            Output::Peer {
                to,
                term,
                known,
                message,
            } => {
                if let ToPeer::Forward(forward) = &message {
                    self.outcomes.forwarded(&forward.stanza);
                }
                self.around.router.to_peer(self.id, term, to, known, message);
            }
            Output::AllPeers { term } => self.around.router.leads(self.id, term),
            Output::Read(read) => self.entities.read(self.shard.term(), read, self.elapsed),
            Output::Administered { ticket, result } => {
                if let Some(answer) = self.tickets.remove(&ticket) {
                    // Whoever asked may have gone.
                    let _ = answer.send(result);
                }
            }
            Output::Count(event) => metrics::event(event),
        }
    }

    /// Edges that are known to be dead are not waited for.
    fn await_edges(&mut self, edges: &[EdgeId]) {
        for edge in edges {
            if self.around.router.is_dead(*edge) {
                self.step(|shard, io| shard.edge_died(*edge, io));
            }
        }
    }
}
