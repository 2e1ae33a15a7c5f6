//! The sender's side of a stanza: numbered, given to its own account or forwarded, answered, accepted.

use std::sync::Arc;

use super::{Effect, Event, Io, Output, Place, Shard, Turn};
use super::{anonymous, registration};
use crate::feature::{self, Consequence, Target};
use crate::im::subscription::Verb;
use crate::jid::{BareJid, FullJid, Jid};
use crate::link::{Forward, Origin, SessionId, ShardId};
use crate::rows::Write;
use crate::session::{Numbered, Receipt};
use crate::stanza::{Kind, Stanza, StanzaError};
use crate::stream::StreamError;
use crate::xep::blocking;

/// Who deals with a stanza (RFC 6120 §10).
enum Route {
    /// The sender's own account.
    Own,
    /// The broker, in the sender's account.
    Host,
    /// An account of this cluster.
    Account(BareJid),
    /// A pubsub service of this cluster.
    Pubsub,
    /// Another domain.
    Remote,
}

impl Shard {
    /// Takes a frame's number; says whether the frame is to be evaluated.
    pub(super) fn number(&mut self, place: Place, frame: u64, settled: u64, io: &mut Io<'_>) -> bool {
        let Some(session) = self.sessions.get_mut(place) else {
            return false;
        };
        session.inbound.settled = session.inbound.settled.max(settled);
        match session.inbound.number(frame) {
            Numbered::Next => true,
            Numbered::Known => {
                self.accepted.insert(place);
                false
            }
            Numbered::Wrong => {
                let mut turn = Turn::of(&session.full.bare());
                self.expel(
                    &mut turn,
                    place,
                    StreamError::internal_server_error(),
                    "frames-out-of-order",
                    io,
                );
                self.finish(turn, io);
                false
            }
        }
    }

    /// Evaluates the session's next frame.
    pub(super) fn submit(&mut self, place: Place, frame: u64, repeat: bool, stanza: Arc<Stanza>, io: &mut Io<'_>) {
        let Some(session) = self.sessions.get(place) else {
            return;
        };
        // Presence that the former leader heard all of is said once.
        let said_before = repeat || session.inbound.is_resent(frame);
        let repeat = repeat || session.inbound.is_repeat(frame);
        let stanza = stamped(stanza, &session.full);
        if let Some(error) = anonymous::refusal(&session.full, &stanza) {
            return self.bounce(place, frame, &stanza, error, io);
        }
        if session.blocks
            && let Some(to) = &stanza.to
            && self.blocks(&session.full.bare(), to, io)
        {
            return self.bounce(place, frame, &stanza, blocking::blocked(), io);
        }
        match self.route(&stanza) {
            Route::Own => match stanza.kind {
                Kind::Presence(kind) => self.own_presence(place, frame, said_before, kind, &stanza, io),
                _ => self.own(place, frame, repeat, Target::Own, &stanza, io),
            },
            Route::Host => self.own(place, frame, repeat, Target::Host, &stanza, io),
            Route::Account(account) => match Verb::of(stanza.kind) {
                Some(verb) => self.subscription_sent(place, frame, repeat, verb, &account, &stanza, io),
                None => self.send(place, frame, repeat, &account, stanza, io),
            },
            Route::Pubsub => self.service_sent(place, frame, repeat, stanza, io),
            Route::Remote => self.bounce(place, frame, &stanza, StanzaError::remote_server_not_found(), io),
        }
    }

    fn route(&self, stanza: &Stanza) -> Route {
        let Some(to) = stanza.to.as_ref() else {
            return match (stanza.kind, stanza.from.as_ref()) {
                // RFC 6120 §10.3.1: as if it were for the sender's bare JID.
                (Kind::Message(_), Some(from)) => Route::Account(from.to_bare()),
                _ => Route::Own,
            };
        };
        if !self.config.serves(to.domain()) {
            return match self.config.is_pubsub_service(to) {
                true => Route::Pubsub,
                false => Route::Remote,
            };
        }
        if to.local().is_none() {
            return Route::Host;
        }
        let own = stanza.from.as_ref().is_some_and(|from| from.bare_str() == to.as_str());
        if own && stanza.kind.is_iq() {
            Route::Own
        } else {
            Route::Account(to.to_bare())
        }
    }

    /// A request the sender's account answers itself.
    fn own(&mut self, place: Place, frame: u64, repeat: bool, target: Target, stanza: &Arc<Stanza>, io: &mut Io<'_>) {
        match stanza.kind {
            Kind::Iq(_) => self.own_iq(place, frame, repeat, target, stanza, io),
            // RFC 6120 §10.5.1: the domain itself has no use for messages, and for presence none that anybody hears of.
            Kind::Message(_) => self.bounce(place, frame, stanza, StanzaError::service_unavailable(), io),
            Kind::Presence(_) => self.settle(place, frame, None, io),
        }
    }

    fn own_iq(&mut self, place: Place, frame: u64, repeat: bool, target: Target, stanza: &Stanza, io: &mut Io<'_>) {
        if !stanza.kind.is_request() {
            // RFC 6120 §10.3.3: a result nobody waits for is ignored.
            return self.settle(place, frame, None, io);
        }
        let Some(session) = self.sessions.get(place) else {
            return;
        };
        let (id, settled, full) = (session.id, session.inbound.settled, session.full.clone());
        let account = full.bare();
        if repeat && self.answer_again(place, frame, &account, io) {
            return;
        }
        let mut turn = Turn::of(&account);
        if self.config.registration && registration::is_removal(&full, stanza) {
            return self.remove_own(place, frame, stanza, io);
        }
        let (reply, writes, consequences) = self.evaluate(&full.into(), &account, target, stanza, io);
        let reply = Arc::new(reply);
        if !writes.is_empty() {
            turn.writes = writes;
            self.note_executed(
                &mut turn,
                &account,
                id,
                frame,
                settled,
                std::slice::from_ref(&reply),
                io,
            );
        }
        self.answer_to(&mut turn, place, frame, reply, io);
        self.carry_out(&mut turn, &account, Some(place), consequences, io);
        turn.effects.push(Effect::Done(id, frame));
        self.finish(turn, io);
    }

    /// Answers a frame as it was answered before, if it was carried out then.
    pub(super) fn answer_again(&mut self, place: Place, frame: u64, account: &BareJid, io: &mut Io<'_>) -> bool {
        let Some(id) = self.sessions.get(place).map(|session| session.id) else {
            return false;
        };
        let Some(replies) = self.executed(account, id, frame, io) else {
            return false;
        };
        let mut turn = Turn::of(account);
        for reply in replies {
            self.answer_to(&mut turn, place, frame, reply, io);
        }
        turn.effects.push(Effect::Done(id, frame));
        self.finish(turn, io);
        true
    }

    /// Lets the features answer a request: the reply, what it writes, and what it causes besides.
    pub(super) fn evaluate(
        &mut self,
        origin: &Jid,
        account: &BareJid,
        target: Target,
        request: &Stanza,
        io: &mut Io<'_>,
    ) -> (Stanza, Vec<Write>, Vec<Consequence>) {
        let mut content = None;
        let config = Arc::clone(&self.config);
        let result = self.in_account(account, origin, io, |context| {
            content = match feature::answering(&config, request) {
                Some(feature) => feature.iq(context, target, request)?,
                // RFC 6120 §10.3.3, RFC 6121 §8.5.2.1.3.
                None => return Err(StanzaError::service_unavailable()),
            };
            Ok(())
        });
        match result {
            Ok((writes, consequences)) => (request.result(content.as_ref()), writes, consequences),
            // A request always has an answer.
            Err(error) => {
                let answer = request.error(&error).unwrap_or_else(|| request.result(None));
                (answer, Vec::new(), Vec::new())
            }
        }
    }

    /// Gives the stanza to the account it is for.
    fn send(
        &mut self,
        place: Place,
        frame: u64,
        repeat: bool,
        account: &BareJid,
        mut stanza: Arc<Stanza>,
        io: &mut Io<'_>,
    ) {
        let Some(session) = self.sessions.get(place) else {
            return;
        };
        if stanza.to.is_none() {
            Arc::make_mut(&mut stanza).to = Some(account.clone().into());
        }
        let (session, settled, from) = (session.id, session.inbound.settled, session.full.bare());
        // Whatever refuses the stanza comes before the turn causes anything: its effects would be lost with it.
        let to = self.config.shard_of(account.as_str());
        if to != self.id && self.peers.forwards() >= self.config.limits.forwards_max {
            io.out.push(Output::Count(Event::Refused("forwards-full")));
            return self.bounce(place, frame, &stanza, StanzaError::resource_constraint(), io);
        }
        let mut turn = Turn::of(&from);
        if let Err(error) = self.directed(&mut turn, place, &stanza, io) {
            return self.bounce(place, frame, &stanza, error, io);
        }
        self.carbons_of_sent(&mut turn, place, frame, &stanza, io);
        turn.effects.push(Effect::Forward(
            to,
            Forward {
                session,
                frame,
                settled,
                repeat,
                stanza,
            },
        ));
        self.finish(turn, io);
    }

    /// The recipient's side has taken responsibility for a frame of one of our sessions.
    pub(super) fn answered(&mut self, session: SessionId, frame: u64, replies: Vec<Arc<Stanza>>, io: &mut Io<'_>) {
        let Some(replies) = self.gathered(session, frame, replies) else {
            return;
        };
        let Some(place) = self.sessions.find(session) else {
            return;
        };
        if replies.is_empty() {
            return self.settle(place, frame, None, io);
        }
        let Some(account) = self.sessions.get(place).map(|session| session.full.bare()) else {
            return;
        };
        let mut turn = Turn::of(&account);
        for reply in replies {
            self.answer_to(&mut turn, place, frame, reply, io);
        }
        turn.effects.push(Effect::Done(session, frame));
        self.finish(turn, io);
    }

    /// Answers a frame with an error, as far as it may have one.
    pub(super) fn bounce(&mut self, place: Place, frame: u64, stanza: &Stanza, error: StanzaError, io: &mut Io<'_>) {
        self.settle(place, frame, stanza.error(&error), io);
    }

    /// A frame is done, perhaps with a reply.
    pub(super) fn settle(&mut self, place: Place, frame: u64, reply: Option<Stanza>, io: &mut Io<'_>) {
        let Some(session) = self.sessions.get(place) else {
            return;
        };
        let id = session.id;
        let mut turn = Turn::of(&session.full.bare());
        if let Some(reply) = reply {
            self.answer_to(&mut turn, place, frame, Arc::new(reply), io);
        }
        turn.effects.push(Effect::Done(id, frame));
        self.finish(turn, io);
    }

    /// Gives a session the answer to its own frame.
    pub(super) fn answer_to(&mut self, turn: &mut Turn, place: Place, frame: u64, reply: Arc<Stanza>, io: &mut Io<'_>) {
        self.enqueue(turn, place, Origin::Answer { frame }, reply, None, io);
    }

    pub(super) fn frame_done(&mut self, session: SessionId, frame: u64) {
        let Some(place) = self.sessions.find(session) else {
            return;
        };
        if self
            .sessions
            .get_mut(place)
            .is_some_and(|session| session.inbound.done(frame))
        {
            self.accepted.insert(place);
        }
    }

    /// Who is to hear that a forwarded frame is safe.
    pub(super) fn receipt(shard: ShardId, forward: &Forward) -> Receipt {
        Receipt {
            shard,
            session: forward.session,
            frame: forward.frame,
        }
    }
}

/// RFC 6120 §8.1.2.1: the stanza says who sent it. The edge has stamped it; an edge is not the one to decide that.
fn stamped(mut stanza: Arc<Stanza>, full: &FullJid) -> Arc<Stanza> {
    if stanza.from.as_ref().is_none_or(|from| from.as_str() != full.as_str()) {
        Arc::make_mut(&mut stanza).from = Some(full.clone().into());
    }
    stanza
}
