//! The task of one connection: its socket, its framer, and the [`Connection`] that decides.
//!
//! Everything that moves is on the thread's scratch pad; what a connection keeps while it is idle is what [`Task`] lists.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use heronry_xmpp::{
    edge::{Connection, Io, Output, Shards},
    link::{Finding, Origin, ShardId, Term, ToEdge, ToShard},
    sasl::{Condition, PasswordJob},
    stream::{NegotiationPhase, StreamError},
    xml::Framer,
};

use super::{
    Edge,
    admission::{Place, Stranger},
    hub::{Hub, Standing},
    listener::Begins,
    metrics::{self, Phase},
    port::{Port, Taken, ToConnection},
    socket::Socket,
};
use crate::{clock::SystemRandom, links::flush_now, shard::tell_now, telemetry::Trace};

/// Bytes read at once; also what may be read and wait because the connection wants no frames.
const READ_BYTES: usize = 16 << 10;

/// Reads in one turn; then other connections have theirs.
const READS: usize = 4;

/// Turns of connections after which shards are told of what came, at the latest.
const TURNS: u32 = 32;

/// Buffers larger than this are not kept on the scratch pad.
const SCRATCH_BYTES: usize = 256 << 10;

/// One connection, from accept to the last message of its shard.
pub(super) struct Task {
    edge: Arc<Edge>,
    port: Arc<Port>,
    _place: Place,
    connection: Connection,
    begins: Begins,
    socket: Socket,
    framer: Framer,
    /// The shard it has to do with, as it knows it.
    standing: Cell<Option<(ShardId, Standing)>>,
    /// Read from the socket, and not yet wanted.
    unread: Vec<u8>,
    /// Not yet taken by the socket.
    unsent: Vec<u8>,
    /// Bytes the socket has taken.
    taken: u64,
    /// While it negotiates.
    negotiation: Option<Box<Negotiation>>,
    /// It has a session and is a stranger all the same (XEP-0175).
    _anonymous: Option<Box<Stranger>>,
    /// When the socket is closed whatever the device does.
    closing: Option<Duration>,
    shut_down: bool,
    /// What the socket has taken is not yet in the hands of the operating system.
    unflushed: bool,
    /// TLS begins when everything is written.
    upgrades: bool,
    /// Its shard has no room for more.
    held: bool,
    /// It will be told that time has passed.
    ticking: bool,
    /// As it is counted.
    phase: Phase,
}

/// What a connection has only while it negotiates.
struct Negotiation {
    since: Duration,
    /// When STARTTLS was agreed upon.
    tls_since: Duration,
    stranger: Stranger,
    /// Bytes read.
    bytes: usize,
}

/// What a turn works with; one for each thread.
struct Scratch {
    read: Box<[u8]>,
    bytes: Vec<u8>,
    out: Vec<Output>,
    /// For `to`.
    to_shard: Vec<(Term, ToShard)>,
    to: ShardId,
    elapsed: Duration,
    turns: u32,
    /// When the turn began, if anything is traced.
    began: Option<SystemTime>,
    /// What is traced and on its way to the device in this turn.
    delivering: Vec<(Trace, SystemTime)>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        read: vec![0; READ_BYTES].into(),
        bytes: Vec::new(),
        out: Vec::new(),
        to_shard: Vec::new(),
        to: ShardId(0),
        elapsed: Duration::ZERO,
        turns: 0,
        began: None,
        delivering: Vec::new(),
    });
}

/// The shards as one connection knows them: of its own shard, what it has been told in its turn.
struct View<'a> {
    hub: &'a Hub,
    port: &'a Port,
    standing: &'a Cell<Option<(ShardId, Standing)>>,
}

impl Shards for View<'_> {
    fn shard_of(&self, bare: &str) -> ShardId {
        self.hub.shard_of(bare)
    }

    fn leading(&self, shard: ShardId) -> Option<Term> {
        let standing = match self.standing.get() {
            Some((known, standing)) if known == shard => standing,
            _ => {
                let standing = self.port.has_to_do_with(shard, || self.hub.standing(shard));
                self.standing.set(Some((shard, standing)));
                standing
            }
        };
        standing.leads.then_some(standing.term)
    }

    fn is_elsewhere(&self, shard: ShardId) -> bool {
        self.standing
            .get()
            .is_some_and(|(known, standing)| known == shard && standing.elsewhere)
    }
}

impl Task {
    pub(super) fn new(
        edge: Arc<Edge>,
        place: Place,
        stranger: Stranger,
        socket: Socket,
        tls: Option<heronry_xmpp::sasl::ChannelBindings>,
    ) -> Self {
        let port = edge.hub.open();
        let (begins, config) = match tls {
            None => (Begins::Clear, &edge.config),
            Some(_) => (Begins::Tls, &edge.config_tls),
        };
        let connection = Connection::new(port.conn(), Arc::clone(config), tls);
        let since = edge.clock.elapsed();
        edge.phases.enter(Phase::Negotiating);
        Self {
            edge,
            port,
            _place: place,
            connection,
            begins,
            socket,
            framer: Framer::new(),
            standing: Cell::new(None),
            unread: Vec::new(),
            unsent: Vec::new(),
            taken: 0,
            negotiation: Some(Box::new(Negotiation {
                since,
                tls_since: since,
                stranger,
                bytes: 0,
            })),
            _anonymous: None,
            closing: None,
            shut_down: false,
            unflushed: false,
            upgrades: false,
            held: false,
            ticking: false,
            phase: Phase::Negotiating,
        }
    }

    /// Takes a turn: messages, input, output.
    fn turn(&mut self, context: &mut Context<'_>, scratch: &mut Scratch) -> Poll<()> {
        scratch.elapsed = self.edge.clock.elapsed();
        scratch.began = self.edge.hub.traces().now();
        if !self.unsent.is_empty() {
            scratch.bytes = std::mem::take(&mut self.unsent);
        }
        let taken = self.port.take(context.waker());
        self.messages(taken, scratch);
        let mut reads = READS;
        loop {
            self.handshake(context, scratch);
            self.read(context, scratch, &mut reads);
            self.step(scratch, Connection::flush);
            self.write(context, scratch);
            if !(self.upgrades && scratch.bytes.is_empty()) {
                break;
            }
            self.upgrades = false;
            // RFC 6120 §5.4.3.3: what came in the clear is forgotten.
            self.unread = Vec::new();
            self.framer.restart();
            self.socket.begin_tls(self.edge.tls.current());
            if let Some(negotiation) = &mut self.negotiation {
                negotiation.tls_since = scratch.elapsed;
            }
        }
        if scratch.began.is_some() {
            self.end_deliveries(scratch);
        }
        self.close(context, scratch);
        self.submit(scratch);
        self.count_phase();
        self.rest(context, scratch)
    }

    /// What was traced has been given to the socket, as far as that took it.
    fn end_deliveries(&self, scratch: &mut Scratch) {
        let written = scratch.bytes.is_empty();
        let shard = self.connection.shard();
        for (trace, began) in scratch.delivering.drain(..) {
            if let Some(shard) = shard {
                trace.delivered(self.port.conn(), shard, began, written);
            }
        }
    }

    fn count_phase(&mut self) {
        let phase = if self.socket.is_gone() || self.closing.is_some() {
            Phase::Closing
        } else if self.socket.is_handshake() {
            Phase::Handshake
        } else if self.connection.is_bound() {
            Phase::Bound
        } else {
            Phase::Negotiating
        };
        if phase != self.phase {
            self.edge.phases.enter(phase);
            self.edge.phases.leave(std::mem::replace(&mut self.phase, phase));
        }
    }

    fn messages(&mut self, taken: Taken, scratch: &mut Scratch) {
        if taken.accepted > 0 {
            self.step(scratch, |connection, io| connection.accepted(taken.accepted, io));
        }
        for message in taken.messages {
            self.message(message, scratch);
        }
        if taken.tick {
            self.ticking = false;
            self.tick(scratch);
        }
    }

    fn message(&mut self, message: ToConnection, scratch: &mut Scratch) {
        match message {
            ToConnection::Shard(message) => {
                if let ToEdge::Deliver { delivery, .. } = &message {
                    self.edge.stanzas.written(delivery.stanza.kind);
                    if let (Some(began), Origin::Frame { session, frame }) = (scratch.began, delivery.origin)
                        && let Some(trace) = self.edge.hub.traces().of(session, frame)
                    {
                        scratch.delivering.push((trace, began));
                    }
                }
                if let (ToEdge::Registered { result: Err(_), .. }, Some(negotiation)) = (&message, &self.negotiation) {
                    negotiation.stranger.has_not_registered();
                }
                self.step(scratch, |connection, io| connection.from_shard(message, io));
                self.is_established(scratch.elapsed);
            }
            ToConnection::Lead(attaching) => {
                let standing = Standing {
                    term: attaching.term(),
                    leads: false,
                    ..Standing::default()
                };
                self.standing.set(Some((attaching.shard(), standing)));
                attaching.add(self.connection.attach(attaching.shard()));
            }
            ToConnection::Leading(term) => {
                let Some((shard, known)) = self.standing.get() else {
                    return;
                };
                let leads = self.edge.hub.standing(shard);
                // A later term says so itself.
                if leads.term == term && known != leads {
                    self.standing.set(Some((shard, leads)));
                    self.step(scratch, |connection, io| connection.leading(shard, io));
                }
            }
            ToConnection::Orphaned => self.step(scratch, Connection::orphaned),
            ToConnection::HasRoom => self.held = false,
            ToConnection::Password(done) => {
                self.step(scratch, |connection, io| connection.password_done(done, io));
            }
            ToConnection::End(error) => self.step(scratch, |connection, io| connection.shut_down(error, io)),
            ToConnection::GoTo(directions) => {
                if self.closing.is_none() && !self.socket.is_gone() {
                    let error = directions.error(self.begins);
                    metrics::handed_over(error.condition.name());
                    self.step(scratch, |connection, io| connection.shut_down(error, io));
                }
            }
        }
    }

    /// Ends the negotiation when there is a session.
    fn is_established(&mut self, elapsed: Duration) {
        if !self.connection.is_bound() {
            return;
        }
        if let Some(negotiation) = self.negotiation.take() {
            metrics::established(elapsed.saturating_sub(negotiation.since));
            let anonymous = self.connection.is_anonymous();
            self._anonymous = anonymous.then(|| Box::new(negotiation.stranger));
        }
    }

    fn tick(&mut self, scratch: &mut Scratch) {
        self.step(scratch, Connection::tick);
        let timeout = self.edge.limits.negotiation_timeout;
        let late = |negotiation: &mut Box<Negotiation>| scratch.elapsed.saturating_sub(negotiation.since) >= timeout;
        if self.closing.is_none() && self.negotiation.take_if(late).is_some() {
            metrics::timed_out("all");
            self.step(scratch, |connection, io| {
                connection.fail(StreamError::connection_timeout(), io);
            });
        }
        if self.closing.is_some_and(|deadline| scratch.elapsed >= deadline) {
            self.gone(scratch);
        }
    }

    /// Goes on with a TLS handshake.
    fn handshake(&mut self, context: &mut Context<'_>, scratch: &mut Scratch) {
        match self.socket.poll_handshake(context) {
            Poll::Pending => {}
            Poll::Ready(Ok(bindings)) => {
                let began = self
                    .negotiation
                    .as_ref()
                    .map_or(scratch.elapsed, |negotiation| negotiation.tls_since);
                metrics::handshake_done(self.socket.tls_version(), scratch.elapsed.saturating_sub(began));
                self.step(scratch, |connection, io| connection.tls_established(bindings, io));
            }
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                metrics::handshake_failed();
                self.gone(scratch);
            }
        }
    }

    /// Reads while the connection wants frames and there is something to read.
    fn read(&mut self, context: &mut Context<'_>, scratch: &mut Scratch, reads: &mut usize) {
        while self.wants_input() {
            if !self.unread.is_empty() {
                let unread = std::mem::take(&mut self.unread);
                self.feed(&unread, scratch);
                continue;
            }
            if *reads == 0 {
                // Others first.
                context.waker().wake_by_ref();
                return;
            }
            *reads -= 1;
            let mut buffer = std::mem::take(&mut scratch.read);
            match self.socket.poll_read(context, &mut buffer) {
                Poll::Ready(Ok(0) | Err(_)) => self.gone(scratch),
                Poll::Ready(Ok(length)) if self.has_said_too_much(length) => {
                    metrics::negotiation_too_long();
                    let error = StreamError::policy_violation().with_text("this negotiation is too long");
                    self.step(scratch, |connection, io| connection.fail(error, io));
                }
                Poll::Ready(Ok(length)) => {
                    self.edge.stanzas.bytes_read(length);
                    self.feed(&buffer[..length], scratch);
                }
                Poll::Pending => *reads = 0,
            }
            scratch.read = buffer;
            if *reads == 0 {
                return;
            }
        }
    }

    /// Counts bytes of a stranger.
    fn has_said_too_much(&mut self, length: usize) -> bool {
        let max = self.edge.limits.negotiation_bytes_max;
        self.negotiation.as_mut().is_some_and(|negotiation| {
            negotiation.bytes += length;
            negotiation.bytes > max
        })
    }

    fn wants_input(&self) -> bool {
        let ready = !self.held && !self.upgrades && !self.socket.is_gone() && !self.socket.is_handshake();
        ready && self.connection.wants_frames()
    }

    /// Gives the connection the frames in `input`; what it does not want yet is kept.
    fn feed(&mut self, mut input: &[u8], scratch: &mut Scratch) {
        while !input.is_empty() && !self.upgrades {
            if !self.connection.wants_frames() {
                self.unread = input.to_vec();
                return;
            }
            match self.framer.next(&mut input, self.connection.limits()) {
                Ok(Some(frame)) => self.step(scratch, |connection, io| connection.frame(frame, io)),
                Ok(None) => {}
                Err(error) => {
                    self.step(scratch, |connection, io| connection.malformed(error, io));
                    return;
                }
            }
        }
    }

    /// Lets the connection take one step and does what comes of it, but for the socket's part.
    fn step(&mut self, scratch: &mut Scratch, step: impl FnOnce(&mut Connection, &mut Io<'_>)) {
        let view = View {
            hub: &self.edge.hub,
            port: &self.port,
            standing: &self.standing,
        };
        let mut io = Io {
            shards: &view,
            elapsed: scratch.elapsed,
            random: &mut SystemRandom,
            bytes: &mut scratch.bytes,
            taken: self.taken,
            out: &mut scratch.out,
        };
        step(&mut self.connection, &mut io);
        if !scratch.out.is_empty() {
            self.outputs(scratch);
        }
    }

    fn outputs(&mut self, scratch: &mut Scratch) {
        let mut out = std::mem::take(&mut scratch.out);
        let (mut refused, mut failed) = (false, false);
        for output in out.drain(..) {
            match output {
                Output::Shard { to, term, message } => {
                    if let ToShard::Submit {
                        session,
                        frame,
                        stanza,
                        repeat: false,
                        finding,
                        ..
                    } = &message
                    {
                        if let Some(began) = scratch.began
                            && let Some(trace) = self.edge.hub.traces().of(*session, *frame)
                        {
                            trace.read(began, stanza);
                        }
                        let malformed = matches!(finding.as_deref(), Some(Finding::Refused(_)));
                        self.edge.stanzas.read(stanza.kind, malformed);
                        self.edge.hub.has_read();
                    }
                    if scratch.to != to {
                        self.submit(scratch);
                        scratch.to = to;
                    }
                    scratch.to_shard.push((term, message));
                }
                Output::StartTls => self.upgrades = true,
                Output::Restart => self.framer.restart(),
                Output::Password(job) => refused |= !self.edge.passwords.work_on(job, &self.port),
                Output::Register(job) => refused |= !self.register(job, scratch.elapsed),
                Output::Authenticated {
                    mechanism,
                    failed_before,
                } => {
                    metrics::authenticated(mechanism.name());
                    if let Some(negotiation) = &self.negotiation {
                        negotiation.stranger.is_forgiven(failed_before);
                    }
                }
                Output::NotAuthenticated(condition) => {
                    metrics::not_authenticated(condition.name());
                    let negotiation = self
                        .negotiation
                        .as_ref()
                        .filter(|_| condition == Condition::NotAuthorized);
                    failed |= negotiation.is_some_and(|negotiation| !negotiation.stranger.has_failed(scratch.elapsed));
                }
                Output::TimedOut(phase) => metrics::timed_out(name(phase)),
                Output::Close => self.closing = Some(scratch.elapsed + self.edge.limits.close_timeout),
                // Seen from its state.
                Output::Forget => {}
            }
        }
        scratch.out = out;
        if failed {
            metrics::failed_too_often();
            let error = StreamError::policy_violation().with_text("too many failed authentications");
            self.step(scratch, |connection, io| connection.fail(error, io));
        }
        if refused {
            self.step(scratch, Connection::password_refused);
        }
    }

    /// Has keys made for a new account, if there may be one and there is room. Says whether that is so.
    fn register(&self, job: Box<PasswordJob>, now: Duration) -> bool {
        let Some(negotiation) = &self.negotiation else {
            return false;
        };
        if let Err(quota) = negotiation.stranger.registers(now) {
            metrics::registration_refused(quota);
            return false;
        }
        let taken = self.edge.passwords.work_on(job, &self.port);
        if !taken {
            negotiation.stranger.has_not_registered();
        }
        taken
    }

    /// Sends what there is for a shard.
    fn submit(&mut self, scratch: &mut Scratch) {
        if scratch.to_shard.is_empty() {
            return;
        }
        let room = self
            .edge
            .hub
            .submit(scratch.to, self.port.conn(), &mut scratch.to_shard);
        if !room && !self.held {
            metrics::held();
            self.held = true;
        }
    }

    /// Writes what there is, and tells the connection.
    fn write(&mut self, context: &mut Context<'_>, scratch: &mut Scratch) {
        let mut written = 0;
        let mut broken = false;
        while written < scratch.bytes.len() {
            match self.socket.poll_write(context, &scratch.bytes[written..]) {
                Poll::Ready(Ok(0) | Err(_)) => {
                    broken = true;
                    break;
                }
                Poll::Ready(Ok(length)) => written += length,
                Poll::Pending => break,
            }
        }
        if broken {
            return self.gone(scratch);
        }
        if written > 0 {
            scratch.bytes.drain(..written);
            self.taken += written as u64;
            self.edge.stanzas.bytes_written(written);
            self.unflushed = true;
        }
        // Under TLS what was written may still be here.
        if self.unflushed && matches!(self.socket.poll_flush(context), Poll::Ready(Ok(()))) {
            self.unflushed = false;
            let taken = self.taken;
            self.step(scratch, |connection, io| connection.written(taken, io));
        }
    }

    /// The stream is over: when all is written, says so, and waits for the device to do the same.
    fn close(&mut self, context: &mut Context<'_>, scratch: &mut Scratch) {
        if self.closing.is_none() || self.socket.is_gone() {
            return;
        }
        if self.socket.is_handshake() {
            // Nobody is there who would understand.
            return self.gone(scratch);
        }
        if scratch.bytes.is_empty() && !self.shut_down {
            match self.socket.poll_shutdown(context) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => self.shut_down = true,
                Poll::Ready(Err(_)) => return self.gone(scratch),
            }
        }
        let mut buffer = std::mem::take(&mut scratch.read);
        let over = loop {
            match self.socket.poll_read(context, &mut buffer) {
                // What it still says is not wanted.
                Poll::Ready(Ok(length)) if length > 0 => {}
                Poll::Ready(_) => break true,
                Poll::Pending => break false,
            }
        };
        scratch.read = buffer;
        if over && (self.shut_down || scratch.bytes.is_empty()) {
            self.gone(scratch);
        }
    }

    /// The socket is of no use any more.
    fn gone(&mut self, scratch: &mut Scratch) {
        self.socket = Socket::Gone;
        self.negotiation = None;
        self.unread = Vec::new();
        scratch.bytes.clear();
        self.step(scratch, Connection::closed);
        scratch.bytes.clear();
    }

    /// Puts away what the turn has left.
    fn rest(&mut self, context: &mut Context<'_>, scratch: &mut Scratch) -> Poll<()> {
        if self.socket.is_gone() && self.connection.is_over() {
            scratch.bytes.clear();
            return Poll::Ready(());
        }
        if !scratch.bytes.is_empty() {
            self.unsent = scratch.bytes.as_slice().into();
            scratch.bytes.clear();
        }
        if scratch.bytes.capacity() > SCRATCH_BYTES {
            scratch.bytes = Vec::new();
        }
        if (self.connection.needs_ticks() || self.closing.is_some()) && !self.ticking {
            self.ticking = true;
            self.edge.hub.tick_later(&self.port);
        }
        if self.connection.awaits_acceptance() && self.port.wants_accepted() {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// A name for metrics.
fn name(phase: NegotiationPhase) -> &'static str {
    match phase {
        NegotiationPhase::Header => "header",
        NegotiationPhase::Handshake => "tls",
        NegotiationPhase::Features => "auth",
        NegotiationPhase::Step => "auth-step",
        NegotiationPhase::Binding => "bind",
        NegotiationPhase::Ours => "ours",
    }
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (over, turns) = SCRATCH.with_borrow_mut(|scratch| {
            let over = self.turn(context, scratch);
            scratch.turns = (scratch.turns + 1) % TURNS;
            (over, scratch.turns)
        });
        if turns == 0 {
            // This thread may not rest for long; shards and other nodes need not wait for that.
            tell_now();
            flush_now();
        }
        over
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.edge.phases.leave(self.phase);
        self.edge.hub.close(self.port.conn());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_of_a_million_idle_connections_has_is_small() {
        assert!(size_of::<Task>() <= 256, "{}", size_of::<Task>());
        assert!(size_of::<Port>() <= 80, "{}", size_of::<Port>());
    }

    #[test]
    fn what_is_said_of_every_stanza_is_small() {
        assert!(size_of::<ToConnection>() <= 80, "{}", size_of::<ToConnection>());
        assert!(size_of::<(Term, ToShard)>() <= 96, "{}", size_of::<(Term, ToShard)>());
        assert!(size_of::<Output>() <= 112, "{}", size_of::<Output>());
        assert!(
            size_of::<heronry_xmpp::shard::Output>() <= 112,
            "{}",
            size_of::<heronry_xmpp::shard::Output>()
        );
    }
}
