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
    Control, Inboxes, ShardLimits, Statuses, Traffic,
    entity::Entities,
    inbox::Run,
    metrics::{self, Outcomes, Runs},
    proposer::Proposer,
};
use crate::{
    clock::{Clock, SystemRandom},
    edge::{Hub, Port},
    telemetry::Trace,
};

/// Ticks after which a shard tells how it is.
const STATS_EVERY: u32 = 4;

/// What a shard needs of its surroundings.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) config: Arc<Config>,
    pub(super) inboxes: Arc<Inboxes>,
    pub(super) hub: Arc<Hub>,
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
        let inboxes = &around.inboxes;
        Self {
            id,
            shard: Shard::new(id, Arc::clone(&around.config)),
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
        let inboxes = Arc::clone(&self.around.inboxes);
        let Some(inbox) = inboxes.of(self.id) else { return };
        let began = Instant::now();
        let mut run = std::mem::take(&mut self.run);
        let mut messages = 0;
        loop {
            let room = self.proposer.has_room();
            inbox.take(room, &mut run);
            self.now = self.around.clock.wall().max(Timestamp(self.floor.0 + 1));
            self.elapsed = self.around.clock.elapsed();
            messages += run.control.len() + run.traffic.len();
            self.evaluate(&mut run);
            self.around.hub.has_room(&mut run.held);
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

    fn evaluate(&mut self, run: &mut Run) {
        for message in run.control.drain(..) {
            self.control(message);
        }
        for message in run.traffic.drain(..) {
            let traced = match self.around.hub.traces().now() {
                None => None,
                Some(began) => self.trace_of(&message).map(|trace| (trace, began, self.out.len())),
            };
            self.step(|shard, io| match message {
                Traffic::Edge { edge, term, message } => shard.from_edge(edge, term, message, io),
                Traffic::Peer { from, term, message } => shard.from_peer(from, term, message, io),
            });
            if let Some((trace, began, outputs)) = traced {
                self.traced(trace, began, outputs);
            }
        }
        if std::mem::take(&mut run.tick) {
            self.tick();
        }
        self.step(Shard::flush);
        self.perform();
        self.proposer.propose();
        if self.proposer.has_failed() {
            self.start_over();
            self.perform();
            self.proposer.propose();
        }
        self.around.hub.wake(&mut self.woken);
        let leads = self.shard.is_leading().then(|| self.shard.term());
        self.around.statuses.leads(self.id, leads);
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
        self.around.hub.traces().of(session, frame)
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
            Control::Leadership(Leadership::Leader { term }) => self.lead(term.0),
            Control::Leadership(Leadership::Follower { .. } | Leadership::Closed) => self.follow(),
            Control::Proposed {
                term,
                no,
                batches,
                result,
            } => {
                if term == self.proposer.term() {
                    self.proposer.ended(&result);
                    if result.is_ok() {
                        self.around.statuses.has_committed(batches);
                        let id = self.id;
                        for (_, trace, began) in self.committing.extract_if(.., |(of, ..)| *of <= no) {
                            trace.committed(id, began);
                        }
                        self.step(|shard, io| shard.committed(no, io));
                    }
                }
            }
            Control::Page {
                term,
                session,
                ticket,
                rows,
            } => {
                self.entities.page_read(session);
                match rows {
                    Ok(rows) if term == self.shard.term() => {
                        self.step(|shard, io| shard.page(session, ticket, rows, io));
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

    /// This node leads the shard in a new term.
    fn lead(&mut self, term: u64) {
        if self.shard.term().term == term {
            return;
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
        self.tickets.clear();
        self.committing.clear();
        self.entities.forget();
        self.proposer.begin(Term::default());
    }

    fn unreadable(&mut self, error: &RowsError) {
        tracing::error!(shard = self.id.0, %error, "the rows of a session cannot be read");
        self.begin(Shard::failed);
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
                if to == self.around.hub.id() {
                    self.around.hub.take_from(self.id, term, message, &mut self.woken);
                }
            }
            Output::AllEdges { term, message } => {
                self.around
                    .hub
                    .announce(self.id, term, matches!(message, ToEdge::Leading));
            }
            Output::Await(edges) => self.await_edges(&edges),
            Output::Peer { to, term, message } => {
                if let ToPeer::Forward(forward) = &message {
                    self.outcomes.forwarded(&forward.stanza);
                }
                self.to_peer(to, term, message);
            }
            Output::AllPeers { term } => {
                for (peer, _) in self.around.inboxes.iter().filter(|(peer, _)| *peer != self.id) {
                    self.to_peer(peer, term, ToPeer::Leading);
                }
            }
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

    fn to_peer(&self, to: ShardId, term: Term, message: ToPeer) {
        if let Some(inbox) = self.around.inboxes.of(to) {
            let from = self.id;
            inbox.traffic(Traffic::Peer { from, term, message });
        }
    }

    /// Every edge but this process's own is dead: there is no other process.
    fn await_edges(&mut self, edges: &[EdgeId]) {
        let own = self.around.hub.id();
        for edge in edges.iter().filter(|edge| **edge != own) {
            self.step(|shard, io| shard.edge_died(*edge, io));
        }
    }
}
