//! A connection without a session: it negotiates, and asks its account's shard on the way.

use std::time::Duration;

use super::bound::Bound;
use super::{Connection, EdgeLimits, Io, Output, State};
use crate::jid::BareJid;
use crate::link::{Binding, Conn, ResumeRefused, ShardId, ToEdge, ToShard};
use crate::sasl::{Condition, Credentials, DeriveKeys, PasswordJob, ScramKeys};
use crate::stanza::StanzaError;
use crate::stream::{self, Established, NegotiationPhase, Responder, StreamError};
use crate::xep::sm;
use crate::xml::{Frame, Limits, StreamPrefixes};

/// A stream that is being negotiated.
pub(super) struct Negotiating {
    pub(super) responder: Box<Responder>,
    asked: Option<Asked>,
    /// Keys are made for this account, which is not there yet.
    registering: Option<BareJid>,
    /// Whose credentials have been asked for last.
    claimed: Option<BareJid>,
    /// For whom attempts have failed, as often as that may be on one stream.
    failed: Vec<BareJid>,
    /// What is waited for, and since when.
    phase: NegotiationPhase,
    phase_since: Option<Duration>,
}

/// A request to a shard that is not answered.
struct Asked {
    shard: ShardId,
    since: Duration,
    request: ToShard,
}

impl Negotiating {
    pub(super) fn new(responder: Box<Responder>) -> Self {
        Self {
            responder,
            asked: None,
            registering: None,
            claimed: None,
            failed: Vec::new(),
            phase: NegotiationPhase::Header,
            phase_since: None,
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        self.responder.limits()
    }

    pub(super) fn wants_frames(&self) -> bool {
        !self.responder.is_waiting()
    }

    pub(super) fn shard(&self) -> Option<ShardId> {
        self.asked.as_ref().map(|asked| asked.shard)
    }

    /// Whether a bind or resume may have been carried out without our having heard of it.
    pub(super) fn is_asking(&self, shard: ShardId) -> bool {
        self.shard() == Some(shard) && self.asks_for_a_session()
    }

    pub(super) fn frame(&mut self, frame: Frame, io: &mut Io<'_>) -> Vec<stream::Output> {
        self.responder.frame(frame, io.random)
    }

    /// Asks again what is not answered.
    pub(super) fn ask_again(&mut self, shard: ShardId, io: &mut Io<'_>) {
        if let Some(asked) = self.asked.as_ref().filter(|asked| asked.shard == shard)
            && let Some(term) = io.shards.leading(shard)
        {
            io.out.push(Output::Shard {
                to: shard,
                term,
                message: asked.request.clone(),
            });
        }
    }

    fn ask(&mut self, account: &str, request: ToShard, io: &mut Io<'_>) {
        let shard = io.shards.shard_of(account);
        self.asked = Some(Asked {
            shard,
            since: io.elapsed,
            request,
        });
        self.ask_again(shard, io);
    }

    /// Whether the answer has been awaited for longer than `timeout`.
    pub(super) fn is_late(&self, timeout: Duration, io: &Io<'_>) -> bool {
        self.asked
            .as_ref()
            .is_none_or(|asked| io.elapsed.saturating_sub(asked.since) >= timeout)
    }

    /// Keys have been made for the account that the device wants.
    pub(super) fn register(&mut self, conn: Conn, keys: Box<[ScramKeys]>, io: &mut Io<'_>) {
        if let Some(account) = self.registering.take() {
            let name = account.clone();
            self.ask(name.as_str(), ToShard::Register { conn, account, keys }, io);
        }
    }

    /// Nobody works on the device's password.
    pub(super) fn password_refused(&mut self, io: &mut Io<'_>) -> Vec<stream::Output> {
        if self.registering.take().is_some() {
            let error = StanzaError::resource_constraint().with_text("too many accounts are being made; try later");
            return self.responder.registered(Err(error), io.random);
        }
        let error = StreamError::resource_constraint().with_text("too many passwords are being verified");
        self.responder.error(error, io.random)
    }

    fn asks_for_a_session(&self) -> bool {
        self.asked
            .as_ref()
            .is_some_and(|asked| matches!(asked.request, ToShard::Bind { .. } | ToShard::Resume { .. }))
    }

    /// Notes what is waited for now.
    fn note_phase(&mut self, now: Duration) {
        let phase = self.responder.phase();
        if self.phase != phase {
            self.phase = phase;
            self.phase_since = Some(now);
        }
    }

    /// Gives up on a device that takes too long, and on a request that nobody answers: then the device may try again.
    pub(super) fn expire(&mut self, limits: &EdgeLimits, io: &mut Io<'_>) -> Vec<stream::Output> {
        let since = *self.phase_since.get_or_insert(io.elapsed);
        let patience = limits.patience.with(self.phase);
        if patience.is_some_and(|patience| io.elapsed.saturating_sub(since) >= patience) {
            io.out.push(Output::TimedOut(self.phase));
            return self.responder.error(StreamError::connection_timeout(), io.random);
        }
        let timeout = limits.answer_timeout;
        if self.asked.is_none() || !self.is_late(timeout, io) {
            return Vec::new();
        }
        if self.asks_for_a_session() {
            // It may yet be carried out: the connection ends, and waits for the answer to give the session back.
            let error = StreamError::internal_server_error().with_text("the account cannot be reached now");
            return self.responder.error(error, io.random);
        }
        match self.asked.take().map(|asked| asked.request) {
            Some(ToShard::Register { .. }) => {
                // It may yet be made. Then the device can log in.
                let error = StanzaError::resource_constraint().with_text("the account cannot be reached now");
                self.responder.registered(Err(error), io.random)
            }
            _ => self.responder.credentials(Credentials::Unavailable, io.random),
        }
    }
}

impl Connection {
    /// Lets the negotiation take a step and does what comes of it.
    pub(super) fn negotiate(
        &mut self,
        step: impl FnOnce(&mut Negotiating, &mut Io<'_>) -> Vec<stream::Output>,
        io: &mut Io<'_>,
    ) {
        let State::Negotiating(negotiating) = &mut self.state else {
            return;
        };
        for output in step(negotiating, io) {
            match output {
                stream::Output::Send(bytes) => io.bytes.extend_from_slice(&bytes),
                stream::Output::StartTls => io.out.push(Output::StartTls),
                stream::Output::Restart => io.out.push(Output::Restart),
                stream::Output::VerifyPassword(job) => {
                    io.out.push(Output::Password(Box::new(PasswordJob::Verify(job))));
                }
                stream::Output::Register(request) => {
                    let hashes = self.config.responder.registration.as_deref().unwrap_or_default();
                    let keys = DeriveKeys::new(request.password, hashes, io.random);
                    negotiating.registering = Some(request.account);
                    io.out.push(Output::Register(Box::new(PasswordJob::Derive(keys))));
                }
                stream::Output::Authenticated { account, mechanism } => {
                    tracing::debug!(%account, %mechanism, "authenticated");
                    let failed = std::mem::take(&mut negotiating.failed);
                    let failed_before = failed.iter().filter(|claimed| **claimed == account).count();
                    io.out.push(Output::Authenticated {
                        mechanism,
                        failed_before: u8::try_from(failed_before).unwrap_or(u8::MAX),
                    });
                }
                stream::Output::NotAuthenticated(condition) => {
                    let claimed = negotiating.claimed.take();
                    negotiating
                        .failed
                        .extend(claimed.filter(|_| condition == Condition::NotAuthorized));
                    io.out.push(Output::NotAuthenticated(condition));
                }
                stream::Output::AskCredentials(request) => {
                    let account = request.account.clone();
                    negotiating.claimed = Some(account.clone());
                    let ask = ToShard::Credentials {
                        conn: self.conn,
                        account: request.account,
                        hash: request.hash,
                    };
                    negotiating.ask(account.as_str(), ask, io);
                }
                stream::Output::Bind(request) => {
                    let account = request.jid.bare();
                    let resource = Some(request.jid.resource().into());
                    let ask = ToShard::Bind {
                        conn: self.conn,
                        account,
                        resource,
                        version: request.version,
                    };
                    negotiating.ask(request.jid.bare_str(), ask, io);
                }
                stream::Output::Resume(request) => {
                    let account = request.account.clone();
                    let ask = ToShard::Resume {
                        conn: self.conn,
                        account: request.account,
                        version: request.version,
                        previd: request.previd,
                        h: request.h.0,
                    };
                    negotiating.ask(account.as_str(), ask, io);
                }
                stream::Output::Close(_) => {
                    io.out.push(Output::Close);
                    if let State::Negotiating(negotiating) = std::mem::replace(&mut self.state, State::Over) {
                        self.leave(negotiating, io);
                    }
                    return;
                }
            }
        }
        if let State::Negotiating(negotiating) = &mut self.state {
            negotiating.note_phase(io.elapsed);
        }
    }

    /// The socket is gone, or will be: only a session that may have been bound keeps the connection.
    pub(super) fn leave(&mut self, negotiating: Box<Negotiating>, io: &mut Io<'_>) {
        if negotiating.asks_for_a_session() {
            self.state = State::Leaving(negotiating);
        } else {
            self.forget(io);
        }
    }

    /// The answer to a request for a session comes when nobody is there any more.
    pub(super) fn give_back(&mut self, message: ToEdge, io: &mut Io<'_>) {
        let State::Leaving(negotiating) = &self.state else {
            return;
        };
        let Some(shard) = negotiating.shard() else { return };
        match message {
            ToEdge::Bound {
                result: Ok(binding), ..
            }
            | ToEdge::Resumed {
                result: Ok(binding), ..
            } => {
                let bound = Bound::new(*binding, shard, StreamPrefixes::default(), None, io);
                self.detach(Box::new(bound), false, io);
            }
            ToEdge::Bound { .. } | ToEdge::Resumed { .. } => self.forget(io),
            _ => {}
        }
    }

    /// A shard has answered a request of the negotiation.
    pub(super) fn answered(&mut self, message: ToEdge, io: &mut Io<'_>) {
        let State::Negotiating(negotiating) = &mut self.state else {
            return;
        };
        let Some(asked) = negotiating.asked.take() else { return };
        match (asked.request, message) {
            (ToShard::Credentials { .. }, ToEdge::Credentials { credentials, .. }) => {
                self.negotiate(
                    |negotiating, io| negotiating.responder.credentials(*credentials, io.random),
                    io,
                );
            }
            (ToShard::Register { .. }, ToEdge::Registered { result, .. }) => {
                self.negotiate(
                    |negotiating, io| negotiating.responder.registered(result, io.random),
                    io,
                );
            }
            (
                ToShard::Bind { .. },
                ToEdge::Bound {
                    result: Ok(binding), ..
                },
            ) => self.begin(*binding, asked.shard, io),
            (ToShard::Bind { .. }, ToEdge::Bound { result: Err(error), .. }) => {
                self.negotiate(
                    |negotiating, io| negotiating.responder.bind_refused(&error, io.random),
                    io,
                );
            }
            (
                ToShard::Resume { .. },
                ToEdge::Resumed {
                    result: Ok(binding), ..
                },
            ) => {
                self.begin(*binding, asked.shard, io);
            }
            (
                ToShard::Resume { .. },
                ToEdge::Resumed {
                    result: Err(refused), ..
                },
            ) => {
                let failed = failed(&refused);
                self.negotiate(|negotiating, _| negotiating.responder.resume_refused(failed), io);
            }
            // Not the answer to what is asked: it is still awaited.
            (request, _) => negotiating.asked = Some(Asked { request, ..asked }),
        }
    }

    /// A session begins, or goes on.
    fn begin(&mut self, binding: Binding, shard: ShardId, io: &mut Io<'_>) {
        let State::Negotiating(negotiating) = std::mem::replace(&mut self.state, State::Over) else {
            return;
        };
        let Established { send, prefixes, lang } = match &binding.managed {
            Some(managed) => {
                // Frames are counted from the base on; h is how many of those are accepted.
                let handled = binding.accepted.wrapping_sub(managed.base);
                negotiating.responder.resumed(sm::Counter(handled as u32))
            }
            None => negotiating.responder.bound(&binding.full),
        };
        io.bytes.extend_from_slice(&send);
        self.state = State::Bound(Box::new(Bound::new(binding, shard, prefixes, lang, io)));
    }
}

fn failed(refused: &ResumeRefused) -> sm::Failed {
    let condition = Some(refused.error.condition);
    sm::Failed {
        condition,
        h: refused.h.map(sm::Counter),
    }
}
