//! A session that ends says farewell to whoever saw it. That it has is noted in the batch that ends it (`Table::Farewell`), until
//! everybody has been told: whoever leads next says it again. A node that is alone needs no such note, for there those who
//! see end with those who are seen.

use std::sync::Arc;

use prost::Message;

use super::{Effect, Io, Place, Shard, Teller, Turn};
use crate::jid::{BareJid, Jid};
use crate::link::SessionId;
use crate::rows::{Key, Rows, Table, account_key};
use crate::stanza::{PresenceType, Stanza};

/// A resource that is gone.
#[derive(Clone, PartialEq, prost::Message)]
struct FarewellRow {
    #[prost(string, tag = "1")]
    resource: String,
    /// Those with a subscription saw it.
    #[prost(bool, tag = "2")]
    was_available: bool,
    /// It had shown itself to these of its own accord.
    #[prost(string, repeated, tag = "3")]
    directed: Vec<String>,
}

fn farewell_key(account: &BareJid, session: SessionId) -> Key {
    account_key(Table::Farewell, account.as_str(), &session.to_bytes())
}

impl Shard {
    /// The session is about to end: whoever saw its resource is told.
    pub(super) fn bid_farewell(&mut self, turn: &mut Turn, place: Place, io: &mut Io<'_>) {
        let Some(session) = self.sessions.get(place) else {
            return;
        };
        let (account, id) = (session.full.bare(), session.id);
        let directed = session.memory.iter().flat_map(|memory| &memory.directed);
        let row = FarewellRow {
            resource: session.full.resource().to_owned(),
            was_available: session.presence.is_some(),
            directed: directed.map(|jid| jid.as_str().to_owned()).collect(),
        };
        let teller = (!self.alone).then(|| Teller::Farewell(account.clone(), id));
        let told = self.becomes_unavailable(turn, place, None, teller.as_ref(), io);
        if told && teller.is_some() {
            turn.put(farewell_key(&account, id), &row);
        }
    }

    /// A former leader may not have told everybody that this session has ended.
    pub(super) fn say_farewell_again(&mut self, account: &BareJid, session: SessionId, io: &mut Io<'_>) {
        let key = farewell_key(account, session);
        let row = self.overlay.over(io.rows).row(&key).unwrap_or_else(|error| {
            tracing::error!(%error, "a farewell cannot be read");
            None
        });
        let Some(row) = row else { return };
        let row = FarewellRow::decode(row).ok();
        let full = row.as_ref().and_then(|row| account.with_resource(&row.resource).ok());
        let mut turn = Turn::of(account);
        let mut told = false;
        if let (Some(row), Some(full)) = (row, full)
            // What its successor shows has been seen since.
            && self.sessions.of_resource(account.as_str(), full.resource()).is_none()
        {
            let directed = row.directed.iter().filter_map(|jid| Jid::parse(jid).ok()).collect();
            let to = self.those_to_leave(account, row.was_available, directed, io);
            let unavailable = Arc::new(Stanza::presence(PresenceType::Unavailable, []).with_from(&full));
            let teller = Teller::Farewell(account.clone(), session);
            told = self.tell(&mut turn, unavailable, to, Vec::new(), Some(&teller), io);
        }
        if !told {
            turn.delete(key);
        }
        self.finish(turn, io);
    }

    /// One of those that are told of a presence has been.
    pub(super) fn has_told(&mut self, teller: Teller, io: &mut Io<'_>) {
        let Some(left) = self.telling.get_mut(&teller) else {
            return;
        };
        *left -= 1;
        if *left > 0 {
            return;
        }
        self.telling.remove(&teller);
        match teller {
            Teller::Frame(session, frame) => {
                // The account may have something in flight that the frame has caused.
                let Some(place) = self.sessions.find(session) else {
                    return;
                };
                let Some(account) = self.sessions.get(place).map(|session| session.full.bare()) else {
                    return;
                };
                let mut turn = Turn::of(&account);
                turn.effects.push(Effect::Done(session, frame));
                self.finish(turn, io);
            }
            Teller::Farewell(account, session) => {
                if self.late_farewells.contains(&(account.clone(), session)) {
                    return;
                }
                let mut turn = Turn::of(&account);
                turn.delete(farewell_key(&account, session));
                self.finish(turn, io);
            }
        }
    }

    /// A shard has had no leader for so long that it is not waited for. A frame is accepted all the same; a farewell is said again
    /// when there is one.
    pub(super) fn tells_in_vain(&mut self, teller: Teller, io: &mut Io<'_>) {
        if let Teller::Farewell(account, session) = &teller
            && self.late_farewells.len() < self.config.limits.forwards_max
        {
            self.late_farewells.insert((account.clone(), *session));
        }
        self.has_told(teller, io);
    }

    /// Some shard has a leader again.
    pub(super) fn say_late_farewells(&mut self, io: &mut Io<'_>) {
        for (account, session) in std::mem::take(&mut self.late_farewells) {
            self.say_farewell_again(&account, session, io);
        }
    }
}
