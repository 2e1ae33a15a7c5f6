//! One connection of a device at its edge: from the first byte to the last.
//!
//! Sans-io. The caller frames the bytes of a socket ([`crate::xml::Framer`]), feeds frames ([`Connection::frame`]) and
//! what shards say ([`Connection::from_shard`]), and performs the [`Output`]s. While [`Connection::wants_frames`] is false it does
//! not read: that is the device's back-pressure.
//!
//! An edge owns nothing durable, but it keeps what no shard replicates: the frames that are not accepted yet, the deliveries
//! that are not released yet, the device's presence. When a shard gets a new leader the edge attaches with them
//! ([`Connection::attach`]) and, once told [`ToEdge::Leading`], sends again what is unanswered.

mod bound;
mod changing;
mod inactive;
mod negotiating;
mod outgoing;

use std::sync::Arc;
use std::time::Duration;

use crate::link::{Attachment, Conn, Finding, ShardId, Term, ToEdge, ToShard};
use crate::random::Random;
use crate::sasl::{ChannelBindings, Condition, Mechanism, PasswordDone, PasswordJob};
use crate::stanza::StanzaError;
use crate::stream::{NegotiationPhase, Responder, ResponderConfig, StreamError};
use crate::xml::{Frame, Limits, XmlError};
use bound::Bound;
use negotiating::Negotiating;

/// What an edge's connections share.
#[derive(Clone)]
pub struct Config {
    /// How streams are negotiated.
    pub responder: Arc<ResponderConfig>,
    /// Bounds.
    pub limits: EdgeLimits,
    /// Where devices are asked to come back to when their connection breaks: `host:port` (XEP-0198 §5). `None`: anywhere.
    pub location: Option<Box<str>>,
}

/// Bounds on what an edge does and keeps for one connection.
#[derive(Clone, Debug)]
pub struct EdgeLimits {
    /// Frames that are not accepted yet. Full: the socket is not read. At most 32.
    pub frames_max: usize,
    /// Bytes of those frames. Full: the socket is not read.
    pub frames_bytes_max: usize,
    /// Bytes released before the shard is told at once; a tick tells it otherwise.
    pub progress_bytes: usize,
    /// How long the device may take for each part of a negotiation.
    pub patience: Patience,
    /// How long a shard may take to answer a request of the negotiation. Then: `temporary-auth-failure`, or a bind or resume
    /// error of type wait.
    pub answer_timeout: Duration,
    /// How long a session may wait for its shard to get a leader. Then its socket is closed, to try elsewhere.
    pub orphan_timeout: Duration,
    /// How long an acknowledgement the device asked for may wait for frames to be accepted (XEP-0198 §4).
    pub acknowledge_timeout: Duration,
    /// Bytes of presence and chat states that came while a device is inactive and wait until it is not (XEP-0352); less than the
    /// credit of a session. Full: everything is written, and waiting begins anew. 0: nothing waits.
    pub held_bytes_max: usize,
}

impl Default for EdgeLimits {
    fn default() -> Self {
        Self {
            frames_max: 32,
            frames_bytes_max: 256 << 10,
            progress_bytes: 16 << 10,
            patience: Patience::default(),
            answer_timeout: Duration::from_secs(5),
            orphan_timeout: Duration::from_secs(30),
            acknowledge_timeout: Duration::from_secs(1),
            held_bytes_max: 32 << 10,
        }
    }
}

/// How long a device may take for each part of a negotiation, however many bytes it sends meanwhile. Then it gets
/// `connection-timeout` (RFC 6120 §4.9.3.4).
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a stream header.
    pub header: Duration,
    /// For a TLS handshake. Nothing is said when it is over: there is no stream to say it on.
    pub handshake: Duration,
    /// From the features to the beginning of TLS or of an authentication.
    pub features: Duration,
    /// For each answer in an authentication.
    pub step: Duration,
    /// From authentication to a request for a session.
    pub binding: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            features: Duration::from_secs(20),
            // A small device may need long to derive its keys.
            step: Duration::from_secs(20),
            binding: Duration::from_secs(15),
        }
    }
}

impl Patience {
    fn with(&self, phase: NegotiationPhase) -> Option<Duration> {
        match phase {
            NegotiationPhase::Header => Some(self.header),
            NegotiationPhase::Handshake => Some(self.handshake),
            NegotiationPhase::Features => Some(self.features),
            NegotiationPhase::Step => Some(self.step),
            NegotiationPhase::Binding => Some(self.binding),
            // Those have deadlines of their own.
            NegotiationPhase::Ours => None,
        }
    }
}

/// What is known of the shards.
pub trait Shards {
    /// The shard an address belongs to.
    fn shard_of(&self, bare: &str) -> ShardId;

    /// The term of a shard that has said it leads; `None` while it has not.
    fn leading(&self, shard: ShardId) -> Option<Term>;

    /// Whether that shard is evaluated on another node: then a delivery is confirmed as soon as it is here, for its sender waits
    /// until two nodes have it (DESIGN §4.2). A shard on this node commits it before it sends it.
    fn is_elsewhere(&self, shard: ShardId) -> bool;
}

/// What a step of a connection may use, and where its outputs go.
pub struct Io<'a> {
    /// What is known of the shards.
    pub shards: &'a dyn Shards,
    /// A clock that never jumps.
    pub elapsed: Duration,
    /// For stream ids, nonces and resources.
    pub random: &'a mut dyn Random,
    /// Bytes for the socket, after those written before.
    pub bytes: &'a mut Vec<u8>,
    /// How many bytes this connection put into `bytes` that were taken out of it since.
    pub taken: u64,
    /// What else is to be done, in order.
    pub out: &'a mut Vec<Output>,
}

impl Io<'_> {
    /// How many bytes the connection has put out so far.
    fn put_out(&self) -> u64 {
        self.taken + self.bytes.len() as u64
    }
}

/// What a connection wants done.
#[derive(Debug)]
pub enum Output {
    /// Send this to the shard that leads in this term.
    Shard {
        /// Which shard.
        to: ShardId,
        /// The term the message is for.
        term: Term,
        /// What.
        message: ToShard,
    },
    /// When all bytes before are written: forget what was read and not framed, restart the framer, do the TLS handshake, and
    /// call [`Connection::tls_established`]. When the handshake fails, call [`Connection::closed`] and close the socket.
    StartTls,
    /// Restart the framer: a stream header comes next.
    Restart,
    /// Run it on the pool for passwords, and call [`Connection::password_done`]; when there is no room,
    /// [`Connection::password_refused`].
    Password(Box<PasswordJob>),
    /// As [`Self::Password`], for somebody who wants an account, if it may have one: otherwise call [`Connection::password_refused`].
    Register(Box<PasswordJob>),
    /// Somebody has authenticated. To be counted.
    Authenticated {
        /// How.
        mechanism: Mechanism,
        /// Attempts of this connection that failed for the very same account: with another mechanism, or a slip of the finger.
        failed_before: u8,
    },
    /// Somebody has not. To be counted.
    NotAuthenticated(Condition),
    /// The negotiation took too long there. To be counted.
    TimedOut(NegotiationPhase),
    /// The stream is over. When all bytes are written, wait a moment for the device's end tag and close the socket.
    Close,
    /// The shard has taken over what there was of a session: the connection may be dropped.
    Forget,
}

/// One connection of a device.
pub struct Connection {
    conn: Conn,
    config: Arc<Config>,
    state: State,
}

enum State {
    Negotiating(Box<Negotiating>),
    Bound(Box<Bound>),
    /// The socket is gone while a session was asked for: the answer is awaited, to give the session back.
    Leaving(Box<Negotiating>),
    /// The socket is gone; the shard has not answered yet.
    Detaching {
        bound: Box<Bound>,
        clean: bool,
    },
    Over,
}

/// What a connection has to say when a shard gets a new leader.
pub enum Attach {
    /// A session of it.
    Session(Box<Attachment>),
    /// A request to it that is not answered.
    Asking(Conn),
    /// Nothing.
    Nothing,
}

impl Connection {
    /// A connection that has just been accepted; `tls` when it begins with TLS (XEP-0368).
    pub fn new(conn: Conn, config: Arc<Config>, tls: Option<ChannelBindings>) -> Self {
        let responder = Responder::new(Arc::clone(&config.responder), tls);
        Self {
            conn,
            config,
            state: State::Negotiating(Box::new(Negotiating::new(responder))),
        }
    }

    /// Which connection of its edge this is.
    pub fn conn(&self) -> Conn {
        self.conn
    }

    /// Whether a resource is bound: the time for negotiation is no longer running.
    pub fn is_bound(&self) -> bool {
        matches!(self.state, State::Bound(_))
    }

    /// Whether it serves a temporary account that nobody had to prove anything for (XEP-0175).
    pub fn is_anonymous(&self) -> bool {
        matches!(&self.state, State::Bound(bound) if bound.is_anonymous())
    }

    /// Whether nothing is left of it.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// The shard of the account it serves or is about to serve.
    pub fn shard(&self) -> Option<ShardId> {
        match &self.state {
            State::Negotiating(negotiating) | State::Leaving(negotiating) => negotiating.shard(),
            State::Bound(bound) | State::Detaching { bound, .. } => Some(bound.shard()),
            State::Over => None,
        }
    }

    /// The limits for the next frame.
    pub fn limits(&self) -> &Limits {
        match &self.state {
            State::Negotiating(negotiating) => negotiating.limits(),
            _ => &self.config.responder.limits_after_auth,
        }
    }

    /// Whether the next frame may be fed. If not, the socket is not to be read.
    pub fn wants_frames(&self) -> bool {
        match &self.state {
            State::Negotiating(negotiating) => negotiating.wants_frames(),
            State::Bound(bound) => bound.wants_frames(&self.config.limits),
            State::Leaving(_) | State::Detaching { .. } | State::Over => false,
        }
    }

    /// Takes a frame of the device.
    pub fn frame(&mut self, frame: Frame, io: &mut Io<'_>) {
        match &mut self.state {
            State::Negotiating(_) => self.negotiate(|negotiating, io| negotiating.frame(frame, io), io),
            State::Bound(bound) => {
                let taken = bound.frame(self.conn, &self.config, frame, io);
                self.go_on(taken, io);
            }
            State::Leaving(_) | State::Detaching { .. } | State::Over => {}
        }
    }

    /// The device sent what is no frame.
    pub fn malformed(&mut self, error: XmlError, io: &mut Io<'_>) {
        self.fail(StreamError::from(error), io);
    }

    /// Ends the stream with an error.
    pub fn fail(&mut self, error: StreamError, io: &mut Io<'_>) {
        match &mut self.state {
            State::Negotiating(_) => {
                self.negotiate(|negotiating, io| negotiating.responder.error(error, io.random), io);
            }
            State::Bound(_) => self.end(End::Error(error), io),
            State::Leaving(_) | State::Detaching { .. } | State::Over => {}
        }
    }

    /// The TLS handshake is done.
    pub fn tls_established(&mut self, bindings: ChannelBindings, io: &mut Io<'_>) {
        let established = |negotiating: &mut Negotiating, _: &mut Io<'_>| {
            negotiating.responder.tls_established(bindings);
            Vec::new()
        };
        self.negotiate(established, io);
    }

    /// The work on a password is done.
    pub fn password_done(&mut self, done: PasswordDone, io: &mut Io<'_>) {
        match (&mut self.state, done) {
            (State::Negotiating(_), PasswordDone::Verified(verdict)) => self.negotiate(
                |negotiating, io| negotiating.responder.password_verified(verdict, io.random),
                io,
            ),
            (State::Negotiating(negotiating), PasswordDone::Derived(keys)) => negotiating.register(self.conn, keys, io),
            (State::Bound(bound), PasswordDone::Derived(keys)) => {
                let changed = bound.password_changes(self.conn, Finding::NewPassword(keys), io);
                self.go_on(changed, io);
            }
            _ => {}
        }
    }

    /// The work on a password will not be done.
    pub fn password_refused(&mut self, io: &mut Io<'_>) {
        match &mut self.state {
            State::Negotiating(_) => self.negotiate(Negotiating::password_refused, io),
            State::Bound(bound) => {
                let refused = Finding::Refused(StanzaError::resource_constraint());
                let refused = bound.password_changes(self.conn, refused, io);
                self.go_on(refused, io);
            }
            _ => {}
        }
    }

    /// So many of the bytes this connection has put out, in all, are in the hands of the operating system.
    pub fn written(&mut self, bytes: u64, io: &mut Io<'_>) {
        if let State::Bound(bound) = &mut self.state {
            bound.written(self.conn, &self.config, bytes, io);
        }
    }

    /// The socket is gone, without the device having said good-bye.
    pub fn closed(&mut self, io: &mut Io<'_>) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Bound(bound) => self.detach(bound, false, io),
            State::Negotiating(negotiating) => self.leave(negotiating, io),
            going @ (State::Detaching { .. } | State::Leaving(_)) => self.state = going,
            State::Over => {}
        }
    }

    /// The edge goes away: the stream ends with `error`, and the session may be resumed elsewhere, or here later.
    pub fn shut_down(&mut self, error: StreamError, io: &mut Io<'_>) {
        if let State::Bound(_) = &self.state {
            self.say_end(Some(&error), io);
            io.out.push(Output::Close);
            self.closed(io);
        } else {
            self.fail(error, io);
        }
    }

    /// Nobody has led the shard for [`EdgeLimits::orphan_timeout`]: a session's stream ends, so that its device may try another edge.
    pub fn orphaned(&mut self, io: &mut Io<'_>) {
        if let State::Bound(bound) = &mut self.state {
            // The session is kept here for as long again: whoever leads next may still ask for it.
            bound.waits_from(io.elapsed);
            // RFC 6120 §4.9.3.16: the device is to come back, to whichever edge can serve it.
            let error = StreamError::reset().with_text("the account cannot be reached now");
            self.shut_down(error, io);
        }
    }

    /// As [`ToEdge::Accepted`], for this connection alone.
    pub fn accepted(&mut self, up_to: u64, io: &mut Io<'_>) {
        match &mut self.state {
            State::Bound(bound) => bound.accepted(up_to, io),
            State::Detaching { bound, .. } => bound.note_accepted(up_to),
            State::Negotiating(_) | State::Leaving(_) | State::Over => {}
        }
    }

    /// Whether [`Self::accepted`] matters at once: the window is full, or the device asked. Otherwise it may come with whatever
    /// comes next.
    pub fn awaits_acceptance(&self) -> bool {
        match &self.state {
            State::Bound(bound) => bound.awaits_acceptance(&self.config.limits),
            _ => false,
        }
    }

    /// A shard says something to this connection; its term is the newest there is.
    pub fn from_shard(&mut self, message: ToEdge, io: &mut Io<'_>) {
        match (&mut self.state, message) {
            (State::Negotiating(_), message) => self.answered(message, io),
            (State::Bound(_), ToEdge::Close { error, .. }) => {
                // The session is no longer this connection's: there is nothing to detach.
                self.say_end(Some(&error), io);
                io.out.push(Output::Close);
                self.forget(io);
            }
            (State::Bound(bound), message) => {
                let taken = bound.from_shard(self.conn, &self.config, message, io);
                self.go_on(taken, io);
            }
            (State::Leaving(_), message) => self.give_back(message, io),
            (State::Detaching { .. }, ToEdge::Detached { .. } | ToEdge::Close { .. }) => {
                self.forget(io);
            }
            (State::Detaching { bound, .. }, message) => bound.note(&message),
            (State::Over, _) => {}
        }
    }

    /// A shard has a new leader: what this connection holds of it.
    pub fn attach(&mut self, shard: ShardId) -> Attach {
        match &mut self.state {
            State::Negotiating(negotiating) | State::Leaving(negotiating) if negotiating.is_asking(shard) => {
                Attach::Asking(self.conn)
            }
            State::Bound(bound) | State::Detaching { bound, .. } if bound.shard() == shard => {
                Attach::Session(Box::new(bound.attachment(self.conn)))
            }
            _ => Attach::Nothing,
        }
    }

    /// The shard's new leader has caught up: what is unanswered is sent again.
    pub fn leading(&mut self, shard: ShardId, io: &mut Io<'_>) {
        match &mut self.state {
            State::Negotiating(negotiating) | State::Leaving(negotiating) => negotiating.ask_again(shard, io),
            State::Bound(bound) if bound.shard() == shard => bound.submit_again(self.conn, io),
            State::Detaching { bound, clean } if bound.shard() == shard => {
                bound.submit_again(self.conn, io);
                bound.say_detached(self.conn, *clean, io);
            }
            _ => {}
        }
    }

    /// Messages have been taken: what was put off until now is done.
    pub fn flush(&mut self, io: &mut Io<'_>) {
        if let State::Bound(bound) = &mut self.state {
            bound.flush(self.conn, &self.config, io);
        }
    }

    /// Time has passed. To be called about twice a second while [`Self::needs_ticks`].
    pub fn tick(&mut self, io: &mut Io<'_>) {
        match &mut self.state {
            State::Negotiating(_) => {
                let config = Arc::clone(&self.config);
                self.negotiate(|negotiating, io| negotiating.expire(&config.limits, io), io);
            }
            State::Bound(bound) => {
                bound.tick(self.conn, &self.config, io);
                if bound.is_orphan(&self.config, io) {
                    self.orphaned(io);
                }
            }
            State::Detaching { bound, .. } => {
                if bound.is_orphan(&self.config, io) {
                    self.forget(io);
                }
            }
            State::Leaving(negotiating) => {
                if negotiating.is_late(self.config.limits.orphan_timeout, io) {
                    self.forget(io);
                }
            }
            State::Over => {}
        }
    }

    /// Whether time matters to it: an idle session needs none.
    pub fn needs_ticks(&self) -> bool {
        match &self.state {
            State::Negotiating(_) | State::Leaving(_) | State::Detaching { .. } => true,
            State::Bound(bound) => bound.needs_ticks(),
            State::Over => false,
        }
    }

    fn forget(&mut self, io: &mut Io<'_>) {
        self.state = State::Over;
        io.out.push(Output::Forget);
    }

    /// Ends a bound stream that cannot go on.
    fn go_on(&mut self, step: Result<(), End>, io: &mut Io<'_>) {
        if let Err(end) = step {
            self.end(end, io);
        }
    }

    /// Ends a bound stream.
    fn end(&mut self, end: End, io: &mut Io<'_>) {
        let State::Bound(bound) = std::mem::replace(&mut self.state, State::Over) else {
            return;
        };
        self.say_end(end.error(), io);
        io.out.push(Output::Close);
        self.detach(bound, true, io);
    }

    fn say_end(&self, error: Option<&StreamError>, io: &mut Io<'_>) {
        let mut text = String::new();
        if let Some(error) = error {
            error.write(&mut text);
        }
        text.push_str("</stream:stream>");
        io.bytes.extend_from_slice(text.as_bytes());
    }

    fn detach(&mut self, mut bound: Box<Bound>, clean: bool, io: &mut Io<'_>) {
        bound.say_detached(self.conn, clean, io);
        self.state = State::Detaching { bound, clean };
    }
}

/// How a bound stream ends on its own.
enum End {
    /// The device closed it (RFC 6120 §4.4).
    Closed,
    /// The device broke a rule.
    Error(StreamError),
}

impl End {
    fn error(&self) -> Option<&StreamError> {
        match self {
            Self::Closed => None,
            Self::Error(error) => Some(error),
        }
    }
}

impl From<StreamError> for End {
    fn from(error: StreamError) -> Self {
        Self::Error(error)
    }
}
