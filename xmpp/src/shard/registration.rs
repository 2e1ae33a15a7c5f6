//! Accounts that their owners make, change and remove (XEP-0077). The edge has made the keys: a shard never sees a password.

use std::sync::Arc;

use super::accounts::{AccountRow, key};
use super::{Administered, Effect, Event, Io, Output, Place, Shard, Turn};
use crate::jid::{BareJid, FullJid};
use crate::link::{Conn, EdgeId, ToEdge};
use crate::sasl::{ScramKeys, is_anonymous};
use crate::stanza::{IqType, Kind, Stanza, StanzaError};
use crate::stream::StreamError;
use crate::xep::registration;

/// Whether a request removes the account of the one who asks (XEP-0077 §3.2).
pub(super) fn is_removal(from: &FullJid, request: &Stanza) -> bool {
    request.kind == Kind::Iq(IqType::Set)
        && registration::is_request(request)
        && registration::is_for_server_of(&from.bare(), request)
        && registration::asks_for_removal(request)
}

impl Shard {
    /// XEP-0077 §3.1: makes an account for somebody who has none to ask with.
    pub(super) fn register(
        &mut self,
        edge: EdgeId,
        conn: Conn,
        account: &BareJid,
        keys: &[ScramKeys],
        io: &mut Io<'_>,
    ) {
        let mut turn = Turn::of(account);
        let result = self.make_account(&mut turn, account, keys, io);
        io.out.push(Output::Count(match &result {
            Ok(()) => Event::Account("registered"),
            Err(error) => Event::Refused(error.condition.name()),
        }));
        turn.to_edge(edge, ToEdge::Registered { conn, result });
        self.finish(turn, io);
    }

    fn make_account(
        &mut self,
        turn: &mut Turn,
        account: &BareJid,
        keys: &[ScramKeys],
        io: &mut Io<'_>,
    ) -> Result<(), StanzaError> {
        if !self.config.registration {
            return Err(StanzaError::service_unavailable());
        }
        if account.local().is_none() || is_anonymous(account) || keys.is_empty() {
            return Err(StanzaError::not_acceptable());
        }
        match self.account(account, io) {
            // Type wait: the account may be in the backup that is being restored.
            Ok(_) if self.restoring => Err(StanzaError::recipient_unavailable()),
            Ok(None) => {
                let at = self.stamp(io);
                turn.put(key(account), &AccountRow::new(at.0, at.0, keys));
                Ok(())
            }
            // Salts are random: it is this very request, which was carried out in an earlier term.
            Ok(Some(row)) if row.has(keys) => Ok(()),
            Ok(Some(_)) => Err(StanzaError::conflict()),
            Err(error) => Err(unreadable(&error)),
        }
    }

    /// XEP-0077 §3.3: the account's password becomes the one of these keys. Its other sessions end: whoever changes a password
    /// because somebody else knows it wants them gone.
    pub(super) fn change_password(
        &mut self,
        place: Place,
        frame: u64,
        repeat: bool,
        stanza: &Stanza,
        keys: &[ScramKeys],
        io: &mut Io<'_>,
    ) {
        let Some(session) = self.sessions.get(place) else {
            return;
        };
        let repeat = repeat || session.inbound.is_repeat(frame);
        let (id, settled, account) = (session.id, session.inbound.settled, session.full.bare());
        if repeat && self.answer_again(place, frame, &account, io) {
            return;
        }
        let row = match self.account(&account, io) {
            Ok(Some(row)) if self.config.registration && !keys.is_empty() => row,
            Ok(Some(_)) => return self.bounce(place, frame, stanza, StanzaError::service_unavailable(), io),
            Ok(None) => return self.bounce(place, frame, stanza, StanzaError::registration_required(), io),
            Err(error) => return self.bounce(place, frame, stanza, unreadable(&error), io),
        };
        let at = self.stamp(io);
        let mut turn = Turn::of(&account);
        turn.put(key(&account), &row.with_keys(at.0, keys));
        for other in self.sessions.of_account(account.as_str()).to_vec() {
            if other != place {
                self.expel(&mut turn, other, StreamError::reset(), "password-changed", io);
            }
        }
        let reply = Arc::new(stanza.result(None));
        self.note_executed(
            &mut turn,
            &account,
            id,
            frame,
            settled,
            std::slice::from_ref(&reply),
            io,
        );
        self.answer_to(&mut turn, place, frame, reply, io);
        turn.effects.push(Effect::Done(id, frame));
        io.out.push(Output::Count(Event::Account("password-changed")));
        self.finish(turn, io);
    }

    /// XEP-0077 §3.2: the account goes, with everything it has; its sessions hear that they are not authorized any more.
    pub(super) fn remove_own(&mut self, place: Place, frame: u64, request: &Stanza, io: &mut Io<'_>) {
        let Some(account) = self.sessions.get(place).map(|session| session.full.bare()) else {
            return;
        };
        if !registration::asks_for_nothing_else(request) {
            return self.bounce(place, frame, request, StanzaError::bad_request(), io);
        }
        let mut turn = Turn::of(&account);
        let reply = Arc::new(request.result(None));
        self.answer_to(&mut turn, place, frame, reply, io);
        if self.remove(&mut turn, &account, io) == Administered::Done {
            io.out.push(Output::Count(Event::Account("removed")));
        }
        self.finish(turn, io);
    }
}

fn unreadable(error: &crate::rows::RowsError) -> StanzaError {
    tracing::error!(%error, "an account cannot be read");
    StanzaError::internal_server_error()
}
