//! Subscription stanzas (RFC 6121 §3) on their way: the sender's half, a durable effect, the recipient's half.

use std::sync::Arc;

use super::{Effect, Event, Io, Output, Place, Shard, Turn};
use crate::feature::{Consequence, Context};
use crate::im::subscription::Verb;
use crate::im::subscriptions;
use crate::jid::{BareJid, Jid};
use crate::rows::Write;
use crate::stanza::{Stanza, StanzaError};

impl Shard {
    /// A device says `verb` to another account.
    #[expect(clippy::too_many_arguments, reason = "which frame, and what is in it")]
    pub(super) fn subscription_sent(
        &mut self,
        place: Place,
        frame: u64,
        repeat: bool,
        verb: Verb,
        other: &BareJid,
        stanza: &Stanza,
        io: &mut Io<'_>,
    ) {
        let Some(session) = self.sessions.get(place) else {
            return;
        };
        let (id, settled, account) = (session.id, session.inbound.settled, session.full.bare());
        let mut turn = Turn::of(&account);
        turn.effects.push(Effect::Done(id, frame));
        if account == *other || (repeat && self.executed(&account, id, frame, io).is_some()) {
            return self.finish(turn, io);
        }
        let origin = Jid::from(&session.full);
        let result = self.in_account(&account, &origin, io, |context| {
            subscriptions::sent(context, verb, other, stanza)
        });
        match result {
            Ok((writes, consequences)) => {
                if !writes.is_empty() {
                    turn.writes = writes;
                    self.note_executed(&mut turn, &account, id, frame, settled, &[], io);
                }
                self.carry_out(&mut turn, &account, Some(place), consequences, io);
                self.finish(turn, io);
            }
            Err(error) => {
                io.out.push(Output::Count(Event::Refused("subscription")));
                self.bounce(place, frame, stanza, error, io);
            }
        }
    }

    /// An account says `verb` to one of ours. Part of the turn that notes the durable effect.
    pub(super) fn subscription_arrives(
        &mut self,
        turn: &mut Turn,
        account: &BareJid,
        verb: Verb,
        stanza: &Arc<Stanza>,
        io: &mut Io<'_>,
    ) {
        let Some(from) = stanza.from.clone() else { return };
        // §8.5.1, XEP-0191 §3.3: to an unknown account and to one that blocks the sender alike, nothing happens.
        if !self.account_exists(account, io) || self.blocks(account, &from, io) {
            return;
        }
        let other = from.to_bare();
        let result = self.in_account(account, &from, io, |context| {
            subscriptions::received(context, verb, &other, stanza)
        });
        match result {
            Ok((writes, consequences)) => {
                turn.writes.extend(writes);
                self.carry_out(turn, account, None, consequences, io);
            }
            Err(_) => io.out.push(Output::Count(Event::Refused("subscription-requests"))),
        }
    }

    /// Evaluates something in an account: what it writes, and what it causes.
    pub(super) fn in_account(
        &mut self,
        account: &BareJid,
        origin: &Jid,
        io: &mut Io<'_>,
        evaluate: impl FnOnce(&mut Context<'_>) -> Result<(), StanzaError>,
    ) -> Result<(Vec<Write>, Vec<Consequence>), StanzaError> {
        let now = self.stamp(io);
        let config = Arc::clone(&self.config);
        let mut context = Context {
            origin,
            account,
            now,
            config: &config,
            rows: self.overlay.over(io.rows),
            writes: Vec::new(),
            consequences: Vec::new(),
        };
        evaluate(&mut context)?;
        Ok((context.writes, context.consequences))
    }
}
