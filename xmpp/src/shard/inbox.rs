//! The recipient's side of a stanza: RFC 6121 §8.5 in the account it is for.

use std::sync::Arc;

use super::{Event, Io, Output, Place, Shard, Turn};
use crate::feature::Target;
use crate::im::delivery::{self, Disposition, Resource};
use crate::im::stored::{StoredCountRow, StoredRow, is_storable, stored_count_key, stored_key};
use crate::jid::{BareJid, Jid};
use crate::link::{Forward, Origin, ShardId};
use crate::rows::{Key, Rows, Table, Timestamp, Value, Write, account_key};
use crate::sasl::is_anonymous;
use crate::session::Receipt;
use crate::stanza::{IqType, Kind, MessageType, PresenceType, Stanza, StanzaError};
use crate::xep::blocking;

impl Shard {
    /// A stanza for one of our accounts, from a session of `from`.
    pub(super) fn forwarded(&mut self, from: ShardId, forward: Forward, io: &mut Io<'_>) {
        let receipt = Self::receipt(from, &forward);
        let Some(to) = forward.stanza.to.clone() else { return };
        if self.config.is_pubsub_service(&to) {
            return self.service_forwarded(receipt, forward, io);
        }
        let account = to.to_bare();
        let mut turn = Turn::of(&account);
        if forward.repeat
            && let Some(replies) = self.executed(&account, forward.session, forward.frame, io)
        {
            turn.answer(receipt, replies);
            return self.finish(turn, io);
        }
        if let Some(from) = &forward.stanza.from
            && self.blocks(&account, from, io)
        {
            turn.answer(receipt, blocking::answer(&forward.stanza));
            return self.finish(turn, io);
        }
        match forward.stanza.kind {
            Kind::Message(kind) => self.message(&mut turn, kind, &to, &forward, receipt, io),
            Kind::Presence(kind) => self.presence(&mut turn, kind, &to, &forward, receipt, io),
            Kind::Iq(kind) => self.iq(&mut turn, kind, &to, &forward, receipt, io),
        }
        self.finish(turn, io);
    }

    fn message(
        &mut self,
        turn: &mut Turn,
        kind: MessageType,
        to: &Jid,
        forward: &Forward,
        receipt: Receipt,
        io: &mut Io<'_>,
    ) {
        let stanza = &forward.stanza;
        let account = to.to_bare();
        match self.dispose(kind, to, &account, io) {
            Disposition::Deliver(places) => {
                self.carbons_of_received(turn, &account, &places, forward, io);
                // Safe with one of them is safe (DESIGN §4.2); the others get it as well as they can.
                let mut owed = Some((receipt, forward.settled));
                for place in places {
                    let owed = owed.take();
                    if !(forward.repeat && self.comes_again(turn, place, origin(forward), owed, io)) {
                        self.enqueue(turn, place, origin(forward), Arc::clone(stanza), owed, io);
                    }
                }
            }
            // Too late, it would say nothing.
            Disposition::Store if !is_storable(stanza) => turn.answer(receipt, Vec::new()),
            Disposition::Store => {
                let at = self.stamp(io);
                if !self.store(turn, &account, stanza, at, io) {
                    return turn.answer(receipt, error(stanza, &StanzaError::service_unavailable()));
                }
                let (session, frame) = (forward.session, forward.frame);
                self.note_executed(turn, &account, session, frame, forward.settled, &[], io);
                turn.answer(receipt, Vec::new());
            }
            Disposition::Bounce(condition) => turn.answer(receipt, error(stanza, &condition)),
            Disposition::Ignore => turn.answer(receipt, Vec::new()),
        }
    }

    /// What RFC 6121 §8.5 says about a message, given who is here.
    pub(super) fn dispose(&self, kind: MessageType, to: &Jid, account: &BareJid, io: &Io<'_>) -> Disposition<Place> {
        let resources = self.resources(account);
        let addressed = to
            .resource()
            .and_then(|resource| self.sessions.of_resource(account.as_str(), resource));
        let exists = !resources.is_empty() || self.account_exists(account, io);
        delivery::message(kind, to.resource().is_some(), addressed, &resources, exists)
    }

    fn presence(
        &mut self,
        turn: &mut Turn,
        kind: PresenceType,
        to: &Jid,
        forward: &Forward,
        receipt: Receipt,
        io: &mut Io<'_>,
    ) {
        let places = match kind {
            PresenceType::Available | PresenceType::Unavailable => self.shown_to(to),
            PresenceType::Error if to.resource().is_some() => self.shown_to(to),
            PresenceType::Probe => {
                let answers = self.probe(to, &forward.stanza, io);
                return turn.answer(receipt, answers);
            }
            // Subscriptions come as durable effects.
            _ => Vec::new(),
        };
        for place in places {
            self.enqueue(turn, place, origin(forward), Arc::clone(&forward.stanza), None, io);
        }
        turn.answer(receipt, Vec::new());
    }

    fn iq(&mut self, turn: &mut Turn, kind: IqType, to: &Jid, forward: &Forward, receipt: Receipt, io: &mut Io<'_>) {
        let stanza = &forward.stanza;
        let account = to.to_bare();
        let request = matches!(kind, IqType::Get | IqType::Set);
        let Some(resource) = to.resource() else {
            return self.request_to_account(turn, &account, request, forward, receipt, io);
        };
        let addressed = self.sessions.of_resource(account.as_str(), resource);
        let from = stanza.from.as_ref();
        // RFC 6121 §8.5.3.1: who shows no presence to the sender answers as if it were not there.
        let shows = |place: &Place| !request || from.is_some_and(|from| self.shares_presence(*place, from, io));
        match addressed.filter(shows) {
            // Between devices its answer is its acknowledgement: given to the recipient's shard, it is accepted.
            Some(place) => {
                let origin = origin(forward);
                if self.sessions.get(place).is_some_and(|session| session.drain.is_some()) {
                    self.enqueue(
                        turn,
                        place,
                        origin,
                        Arc::clone(stanza),
                        Some((receipt, forward.settled)),
                        io,
                    );
                } else {
                    self.enqueue(turn, place, origin, Arc::clone(stanza), None, io);
                    turn.answer(receipt, Vec::new());
                }
            }
            // RFC 6121 §8.5.3.2.3.
            None if request => turn.answer(receipt, error(stanza, &StanzaError::service_unavailable())),
            None => turn.answer(receipt, Vec::new()),
        }
    }

    /// RFC 6121 §8.5.2.1.3: the server answers on behalf of the account.
    fn request_to_account(
        &mut self,
        turn: &mut Turn,
        account: &BareJid,
        request: bool,
        forward: &Forward,
        receipt: Receipt,
        io: &mut Io<'_>,
    ) {
        let Some(sender) = forward.stanza.from.clone().filter(|_| request) else {
            return turn.answer(receipt, Vec::new());
        };
        // RFC 6121 §8.5.1, and lesson 28: an unknown account answers like one that does not know the request.
        if self.resources(account).is_empty() && !self.account_exists(account, io) {
            return turn.answer(receipt, error(&forward.stanza, &StanzaError::service_unavailable()));
        }
        let (reply, writes, consequences) = self.evaluate(&sender, account, Target::Other, &forward.stanza, io);
        let replies = vec![Arc::new(reply)];
        self.carry_out(turn, account, None, consequences, io);
        if !writes.is_empty() {
            turn.writes.extend(writes);
            let (session, frame) = (forward.session, forward.frame);
            self.note_executed(turn, account, session, frame, forward.settled, &replies, io);
        }
        turn.answer(receipt, replies);
    }

    /// The resources of an account, as the delivery rules see them.
    pub(super) fn resources(&self, account: &BareJid) -> Vec<Resource<Place>> {
        let places = self.sessions.of_account(account.as_str()).iter();
        let resource = |place: &Place| {
            self.sessions.get(*place).map(|session| Resource {
                place: *place,
                priority: session.priority,
            })
        };
        places.filter_map(resource).collect()
    }

    pub(super) fn account_exists(&self, account: &BareJid, io: &Io<'_>) -> bool {
        let key = account_key(Table::Account, account.as_str(), &[]);
        match self.overlay.over(io.rows).row(&key) {
            Ok(row) => row.is_some(),
            Err(error) => {
                tracing::error!(%error, "an account's row cannot be read");
                true
            }
        }
    }

    /// Stores a message for the account; `at` is when it was accepted, and its place among the others. Says whether there was room.
    pub(super) fn store(
        &mut self,
        turn: &mut Turn,
        account: &BareJid,
        stanza: &Stanza,
        at: Timestamp,
        io: &mut Io<'_>,
    ) -> bool {
        if is_anonymous(account) {
            return false;
        }
        let place = stored_key(account, at);
        if self.row_after(turn, &place, io).is_some() {
            // Its session lost it twice, to two failures: it is one message.
            return true;
        }
        let key = stored_count_key(account);
        let mut count = self.stored_count(turn, account, io);
        if count.messages >= self.config.limits.stored_messages_max {
            io.out.push(Output::Count(Event::Refused("store-full")));
            return false;
        }
        count.messages += 1;
        turn.put(key, &count);
        turn.put(
            place,
            &StoredRow {
                stanza: stanza.encode(),
                at: at.0,
            },
        );
        io.out.push(Output::Count(Event::Stored));
        true
    }

    /// A row as the turn's own writes leave it.
    fn row_after(&self, turn: &Turn, key: &Key, io: &Io<'_>) -> Option<Value> {
        match turn.writes.iter().rev().find(|write| write.key() == key) {
            Some(Write::Put(_, row)) => Some(row.clone()),
            Some(Write::Delete(_)) => None,
            None => self.overlay.over(io.rows).row(key).ok().flatten(),
        }
    }

    /// How many messages are stored, the turn's own included.
    pub(super) fn stored_count(&self, turn: &Turn, account: &BareJid, io: &Io<'_>) -> StoredCountRow {
        let key = stored_count_key(account);
        let row = self.row_after(turn, &key, io);
        row.and_then(|row| prost::Message::decode(row).ok()).unwrap_or_default()
    }
}

/// What the recipient's edge knows the stanza by.
fn origin(forward: &Forward) -> Origin {
    Origin::Frame {
        session: forward.session,
        frame: forward.frame,
    }
}

/// The error for a stanza, if it may have one.
fn error(stanza: &Stanza, condition: &StanzaError) -> Vec<Arc<Stanza>> {
    stanza.error(condition).map(Arc::new).into_iter().collect()
}
