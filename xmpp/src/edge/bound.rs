//! A connection with a session: frames in, deliveries out, stream management (XEP-0198).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::changing::{self, Change};
use super::inactive::can_wait;
use super::outgoing::{Outgoing, Told};
use super::{Config, EdgeLimits, End, Io, Output};
use crate::jid::FullJid;
use crate::link::{Attachment, Binding, Conn, Delivery, Finding, Managed, Memory, SessionId, ShardId, ToEdge, ToShard};
use crate::sasl::{self, PasswordJob};
use crate::session::Repeats;
use crate::stanza::{Condition, Kind, Parsed, PresenceType, Stanza};
use crate::stream::StreamError;
use crate::xep::csi::ClientState;
use crate::xep::sm::{self, Counter, Nonza};
use crate::xml::{Frame, StreamPrefixes};

/// A session at its edge.
pub(super) struct Bound {
    session: SessionId,
    full: FullJid,
    shard: ShardId,
    prefixes: StreamPrefixes,
    lang: Option<Box<str>>,
    /// Frames up to here are accepted.
    accepted: u64,
    /// The frames after that.
    frames: VecDeque<Kept>,
    frames_bytes: usize,
    outgoing: Outgoing,
    /// XEP-0198, once enabled.
    managed: Option<Managing>,
    /// A stanza that changes the password: keys are made of it, and nothing is read until they are.
    changing: Option<Box<Stanza>>,
    /// `<enable/>` has been sent to the shard; nothing is read until it answers.
    enabling: Option<sm::Enable>,
    /// The last presence without a `to`, while available.
    presence: Option<Arc<Stanza>>,
    /// What else the device has said, as the shard puts it.
    memory: Option<Arc<Memory>>,
    repeats: Option<Box<Repeats>>,
    /// When something was sent to the shard that it has not answered.
    waits_since: Option<Duration>,
}

/// A frame the shard has not accepted.
#[derive(Clone)]
struct Kept {
    stanza: Arc<Stanza>,
    finding: Option<Box<Finding>>,
}

/// The device's side of XEP-0198.
struct Managing {
    /// The frame after which its stanzas count.
    base: u64,
    /// The device asked how far we are, when this many frames had come.
    asked: Option<(u64, Duration)>,
}

impl Bound {
    pub(super) fn new(
        binding: Binding,
        shard: ShardId,
        prefixes: StreamPrefixes,
        lang: Option<Box<str>>,
        io: &Io<'_>,
    ) -> Self {
        let acknowledged = binding.managed.as_ref().map(|managed| managed.acknowledged);
        let mut outgoing = Outgoing::after(binding.released, acknowledged);
        outgoing.written(io.taken);
        Self {
            session: binding.session,
            full: binding.full,
            shard,
            prefixes,
            lang,
            accepted: binding.accepted,
            frames: VecDeque::new(),
            frames_bytes: 0,
            outgoing,
            managed: binding.managed.map(|managed| Managing {
                base: managed.base,
                asked: None,
            }),
            changing: None,
            enabling: None,
            presence: binding.presence,
            memory: binding.memory,
            repeats: Repeats::of(binding.given, io.elapsed),
            waits_since: None,
        }
    }

    pub(super) fn shard(&self) -> ShardId {
        self.shard
    }

    pub(super) fn is_anonymous(&self) -> bool {
        self.full.local().is_some_and(sasl::is_reserved)
    }

    pub(super) fn wants_frames(&self, limits: &EdgeLimits) -> bool {
        self.enabling.is_none()
            && self.changing.is_none()
            && self.frames.len() < limits.frames_max
            && self.frames_bytes < limits.frames_bytes_max
    }

    pub(super) fn frame(&mut self, conn: Conn, config: &Config, frame: Frame, io: &mut Io<'_>) -> Result<(), End> {
        let bytes = match frame {
            Frame::Element(bytes) => bytes,
            Frame::Close => return Err(End::Closed),
            Frame::Open(_) => return Err(StreamError::invalid_xml().into()),
        };
        match Stanza::parse(bytes, &config.responder.limits_after_auth, &self.prefixes) {
            Ok(Parsed::Stanza(stanza)) => {
                let hashes = config.responder.registration.as_deref();
                match hashes.and_then(|hashes| changing::change(&self.full, &stanza, hashes, io.random)) {
                    None => self.stanza(conn, stanza, None, io),
                    Some(change) => self.change_password(conn, change, io),
                }
            }
            Ok(Parsed::Refused { head, error }) => self.stanza(conn, head, Some(Finding::Refused(error)), io),
            Ok(Parsed::Other(element)) => match Nonza::parse(&element) {
                Some(Ok(nonza)) => self.nonza(conn, nonza, io),
                Some(Err(malformed)) => Err(StreamError::invalid_xml().with_text(malformed.to_string()).into()),
                None => {
                    let state = ClientState::parse(&element).ok_or_else(StreamError::unsupported_stanza_type)?;
                    self.indicated(state, io);
                    Ok(())
                }
            },
            Err(error) => Err(StreamError::from(error).into()),
        }
    }

    /// XEP-0077 §3.3.
    fn change_password(&mut self, conn: Conn, change: Change, io: &mut Io<'_>) -> Result<(), End> {
        match change.keys {
            Err(error) => self.stanza(conn, change.stanza, Some(Finding::Refused(error)), io),
            Ok(keys) => {
                self.changing = Some(Box::new(change.stanza));
                io.out.push(Output::Password(Box::new(PasswordJob::Derive(keys))));
                Ok(())
            }
        }
    }

    /// Keys have been made of the new password, or will not be.
    pub(super) fn password_changes(&mut self, conn: Conn, finding: Finding, io: &mut Io<'_>) -> Result<(), End> {
        match self.changing.take() {
            Some(stanza) => self.stanza(conn, *stanza, Some(finding), io),
            None => Ok(()),
        }
    }

    fn stanza(&mut self, conn: Conn, mut stanza: Stanza, finding: Option<Finding>, io: &mut Io<'_>) -> Result<(), End> {
        // RFC 6120 §8.1.2.1: the full or the bare JID of this very session, or nothing.
        let claim = stanza.from.as_ref().map(|from| from.as_str());
        if claim.is_some_and(|claim| claim != self.full.as_str() && claim != self.full.bare_str()) {
            return Err(StreamError::invalid_from().into());
        }
        stanza.from = Some(self.full.clone().into());
        if stanza.lang.is_none() {
            // RFC 6120 §8.1.5.
            stanza.lang.clone_from(&self.lang);
        }
        let stanza = Arc::new(stanza);
        match stanza.kind {
            Kind::Presence(PresenceType::Available) if stanza.to.is_none() => self.presence = Some(Arc::clone(&stanza)),
            Kind::Presence(PresenceType::Unavailable) if stanza.to.is_none() => self.presence = None,
            _ => {}
        }
        let finding = finding.map(Box::new);
        let kept = Kept { stanza, finding };
        self.frames_bytes += kept.stanza.size();
        self.frames.push_back(kept.clone());
        self.submit(conn, self.last_frame(), kept, false, io);
        Ok(())
    }

    fn last_frame(&self) -> u64 {
        self.accepted + self.frames.len() as u64
    }

    fn submit(&mut self, conn: Conn, frame: u64, kept: Kept, repeat: bool, io: &mut Io<'_>) {
        let Kept { stanza, finding } = kept;
        let session = self.session;
        let message = ToShard::Submit {
            conn,
            session,
            frame,
            settled: self.accepted,
            repeat,
            stanza,
            finding,
        };
        self.send(message, io);
        self.waits_since.get_or_insert(io.elapsed);
    }

    fn send(&self, message: ToShard, io: &mut Io<'_>) {
        // Without a leader it stays here: `submit_again` sends what is unanswered.
        if let Some(term) = io.shards.leading(self.shard) {
            io.out.push(Output::Shard {
                to: self.shard,
                term,
                message,
            });
        }
    }

    fn nonza(&mut self, conn: Conn, nonza: Nonza, io: &mut Io<'_>) -> Result<(), End> {
        match nonza {
            Nonza::Enable(_) if self.managed.is_some() => {
                // XEP-0198 §3: at most one attempt.
                write(&Nonza::Failed(Condition::UnexpectedRequest.into()), io);
            }
            Nonza::Enable(enable) => {
                self.enabling = Some(enable);
                self.enable(conn, io);
            }
            Nonza::Resume(_) => write(&Nonza::Failed(Condition::UnexpectedRequest.into()), io),
            Nonza::Request => self.acknowledge(io),
            Nonza::Ack(ack) if self.managed.is_some() => {
                self.outgoing.acknowledge(ack.h).map_err(StreamError::from)?;
            }
            // Counting has not begun.
            Nonza::Ack(_) => {}
            Nonza::Enabled(_) | Nonza::Resumed(_) | Nonza::Failed(_) => {
                return Err(StreamError::unsupported_stanza_type().into());
            }
        }
        Ok(())
    }

    fn enable(&mut self, conn: Conn, io: &mut Io<'_>) {
        let Some(enable) = self.enabling else { return };
        let base = self.last_frame();
        let (session, resume, max) = (self.session, enable.resume, enable.max_seconds);
        self.send(
            ToShard::Enable {
                conn,
                session,
                base,
                resume,
                max,
            },
            io,
        );
        self.waits_since.get_or_insert(io.elapsed);
    }

    /// XEP-0198 §4: `<r/>` is answered at once, or as soon as what came before it is accepted.
    fn acknowledge(&mut self, io: &mut Io<'_>) {
        let last = self.last_frame();
        if let Some(managed) = &mut self.managed {
            managed.asked.get_or_insert((last, io.elapsed)).0 = last;
            self.answer_request(false, io);
        }
    }

    fn answer_request(&mut self, now: bool, io: &mut Io<'_>) {
        let accepted = self.accepted;
        let Some(managed) = &mut self.managed else { return };
        if managed.asked.take_if(|(frame, _)| now || *frame <= accepted).is_some() {
            let handled = accepted.saturating_sub(managed.base);
            write(
                &Nonza::Ack(sm::Ack {
                    h: Counter(handled as u32),
                }),
                io,
            );
        }
    }

    pub(super) fn from_shard(
        &mut self,
        conn: Conn,
        config: &Config,
        message: ToEdge,
        io: &mut Io<'_>,
    ) -> Result<(), End> {
        match message {
            ToEdge::Accepted(_) => {
                self.note(&message);
                self.answer_request(false, io);
            }
            ToEdge::Deliver { delivery, .. } => self.deliver(delivery, config, io),
            ToEdge::Managed { managed, .. } => self.managed(&managed, config, io),
            ToEdge::Remember { memory, .. } => self.memory = memory,
            // Answers to what was asked before there was a session, or after there is none.
            _ => {}
        }
        if self.outgoing.untold_bytes() >= config.limits.progress_bytes {
            self.tell(conn, io);
        }
        Ok(())
    }

    /// What the shard says that matters also without a socket.
    pub(super) fn note(&mut self, message: &ToEdge) {
        match message {
            ToEdge::Accepted(accepted) => accepted.iter().for_each(|(_, up_to)| self.note_accepted(*up_to)),
            ToEdge::Remember { memory, .. } => self.memory.clone_from(memory),
            _ => {}
        }
    }

    /// The shard has accepted frames.
    pub(super) fn accepted(&mut self, up_to: u64, io: &mut Io<'_>) {
        self.note_accepted(up_to);
        self.answer_request(false, io);
    }

    /// Whether the device waits for frames to be accepted.
    pub(super) fn awaits_acceptance(&self, limits: &EdgeLimits) -> bool {
        !self.wants_frames(limits) || self.managed.as_ref().is_some_and(|managed| managed.asked.is_some())
    }

    /// The shard has accepted frames.
    pub(super) fn note_accepted(&mut self, up_to: u64) {
        while self.accepted < up_to {
            let Some(kept) = self.frames.pop_front() else { break };
            self.frames_bytes -= kept.stanza.size();
            self.accepted += 1;
        }
        if self.frames.is_empty() && self.enabling.is_none() {
            self.waits_since = None;
            // An idle session holds no buffers.
            self.frames = VecDeque::new();
        }
    }

    fn deliver(&mut self, delivery: Delivery, config: &Config, io: &mut Io<'_>) {
        if !self.outgoing.receive(delivery.seq) {
            return;
        }
        let repeats = self.repeats.get_or_insert_default();
        if repeats.is_repeat(delivery.origin, io.elapsed) {
            self.outgoing.void(delivery.seq);
            return;
        }
        if self.outgoing.is_inactive() && can_wait(&delivery.stanza) {
            if self.outgoing.hold(delivery) > config.limits.held_bytes_max {
                self.write_held(io);
            }
            return;
        }
        self.write_held(io);
        self.write_delivery(delivery, io);
    }

    fn write_delivery(&mut self, delivery: Delivery, io: &mut Io<'_>) {
        delivery.stanza.write(io.bytes);
        self.outgoing.sent(delivery, io.put_out());
    }

    /// What waits for an inactive device waits no longer.
    fn write_held(&mut self, io: &mut Io<'_>) {
        for delivery in self.outgoing.take_held() {
            self.write_delivery(delivery, io);
        }
    }

    /// XEP-0352 §4.2, §5.1: what this means is done before the device's next frame.
    fn indicated(&mut self, state: ClientState, io: &mut Io<'_>) {
        match state {
            ClientState::Inactive => self.outgoing.become_inactive(),
            ClientState::Active => {
                for delivery in self.outgoing.become_active() {
                    self.write_delivery(delivery, io);
                }
            }
        }
    }

    fn managed(&mut self, managed: &Managed, config: &Config, io: &mut Io<'_>) {
        if self.enabling.take().is_none() {
            return;
        }
        if self.frames.is_empty() {
            self.waits_since = None;
        }
        // The shard gave these before: they do not count.
        self.write_held(io);
        self.outgoing.count_from_here();
        self.managed = Some(Managing {
            base: managed.base,
            asked: None,
        });
        let resume = managed.id.is_some();
        write(
            &Nonza::Enabled(sm::Enabled {
                id: managed.id.clone(),
                resume,
                max_seconds: resume.then_some(managed.max),
                location: config.location.clone().filter(|_| resume),
            }),
            io,
        );
    }

    pub(super) fn written(&mut self, conn: Conn, config: &Config, bytes: u64, io: &mut Io<'_>) {
        self.outgoing.written(bytes);
        if self.outgoing.untold_bytes() >= config.limits.progress_bytes {
            self.tell(conn, io);
        }
    }

    pub(super) fn flush(&mut self, conn: Conn, config: &Config, io: &mut Io<'_>) {
        if self.outgoing.asks() {
            write(&Nonza::Request, io);
        }
        let tell = self.outgoing.has_received_news() && io.shards.is_elsewhere(self.shard);
        if tell || self.outgoing.untold_bytes() >= config.limits.progress_bytes {
            self.tell(conn, io);
        }
    }

    pub(super) fn tick(&mut self, conn: Conn, config: &Config, io: &mut Io<'_>) {
        let timeout = config.limits.acknowledge_timeout;
        let asked = self.managed.as_ref().and_then(|managed| managed.asked);
        if asked.is_some_and(|(_, since)| io.elapsed.saturating_sub(since) >= timeout) {
            self.answer_request(true, io);
        }
        if self.outgoing.has_news() {
            self.tell(conn, io);
        }
        self.repeats.take_if(|repeats| repeats.is_stale(io.elapsed));
    }

    /// From now on the shard is waited for.
    pub(super) fn waits_from(&mut self, elapsed: Duration) {
        self.waits_since = Some(elapsed);
    }

    /// Whether the shard has not answered for too long.
    pub(super) fn is_orphan(&self, config: &Config, io: &Io<'_>) -> bool {
        self.waits_since
            .is_some_and(|since| io.elapsed.saturating_sub(since) >= config.limits.orphan_timeout)
    }

    pub(super) fn needs_ticks(&self) -> bool {
        self.waits_since.is_some()
            || self.repeats.is_some()
            || self.outgoing.has_news()
            || self.managed.as_ref().is_some_and(|managed| managed.asked.is_some())
    }

    fn tell(&mut self, conn: Conn, io: &mut Io<'_>) {
        if io.shards.leading(self.shard).is_none() {
            return;
        }
        let Told {
            received,
            released,
            voided,
        } = self.outgoing.tell();
        self.send(
            ToShard::Progress {
                conn,
                session: self.session,
                received,
                released,
                voided,
            },
            io,
        );
    }

    /// The socket is gone.
    pub(super) fn say_detached(&mut self, conn: Conn, clean: bool, io: &mut Io<'_>) {
        self.waits_since.get_or_insert(io.elapsed);
        if io.shards.leading(self.shard).is_some() {
            let Told { released, voided, .. } = self.outgoing.tell();
            self.send(
                ToShard::Detach {
                    conn,
                    session: self.session,
                    released,
                    voided,
                    clean,
                },
                io,
            );
        }
    }

    pub(super) fn attachment(&mut self, conn: Conn) -> Attachment {
        // What was dropped as a repeat is simply not among what is unreleased.
        self.outgoing.tell();
        Attachment {
            session: self.session,
            conn,
            full: self.full.clone(),
            accepted: self.accepted,
            received: self.outgoing.received(),
            released: self.outgoing.released(),
            acknowledged: self.outgoing.acknowledged(),
            seen: self.repeats.as_ref().map(|repeats| repeats.seen()).unwrap_or_default(),
            unreleased: self.outgoing.unreleased(),
            presence: self.presence.clone(),
            memory: self.memory.clone(),
        }
    }

    /// A new leader has caught up.
    pub(super) fn submit_again(&mut self, conn: Conn, io: &mut Io<'_>) {
        let frames: Vec<Kept> = self.frames.iter().cloned().collect();
        for (frame, kept) in (self.accepted + 1..).zip(frames) {
            self.submit(conn, frame, kept, true, io);
        }
        self.enable(conn, io);
        self.waits_since = (self.waits_since.is_some()).then_some(io.elapsed);
    }
}

fn write(nonza: &Nonza, io: &mut Io<'_>) {
    nonza.write(io.bytes);
}
