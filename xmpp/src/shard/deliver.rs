//! From an account to its device: the session's queue, its credit, and rows when the device cannot take a stanza now.

use std::sync::Arc;

use prost::Message;

use super::{Effect, Event, Io, Output, Place, Read, Shard, Turn};
use crate::im::stored::{StoredRow, delayed, is_storable, stored_count_key, stored_prefix};
use crate::jid::BareJid;
use crate::link::{Origin, SessionId, ToEdge};
use crate::rows::{Key, Table, Timestamp, Value};
use crate::session::{Drain, QueueRow, Receipt, Session, Stage, WAITING, queue_key, queue_prefix};
use crate::stanza::{Stanza, StanzaError};
use crate::stream::StreamError;

impl Shard {
    /// Gives a session a stanza. `owed` is who wants to hear that it is safe, and up to where that sender's frames are settled.
    pub(super) fn enqueue(
        &mut self,
        turn: &mut Turn,
        place: Place,
        origin: Origin,
        stanza: Arc<Stanza>,
        owed: Option<(Receipt, u64)>,
        io: &mut Io<'_>,
    ) {
        let credit = self.config.limits.session_credit_bytes;
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        if session.drain.is_none() && session.outbound.bytes() + stanza.size() > credit {
            if session.managed.is_none() {
                return self.overwhelmed(turn, place, &stanza, owed, io);
            }
            // XEP-0198: the device acknowledges too slowly; what comes now waits in rows.
            session.drain = Some(Box::new(Drain {
                stage: Stage::Waiting,
                ..Drain::default()
            }));
        }
        if session.drain.is_some() {
            return self.wait_in_row(turn, place, origin, &stanza, owed, io);
        }
        let Some((receipt, settled)) = owed else {
            return self.deliver(turn, place, origin, stanza, None, None);
        };
        let edge_is_elsewhere = session.edge.node != self.config.node;
        if self.config.alone {
            self.deliver(turn, place, origin, stanza, None, None);
            turn.answer(receipt, Vec::new());
        } else if edge_is_elsewhere {
            // Safe once two machines have it: this one, and the edge's when it says so.
            self.deliver(turn, place, origin, stanza, None, Some(receipt));
        } else {
            self.deliver_from_row(turn, place, origin, stanza, io);
            self.safe_in_row(turn, place, receipt, settled, io);
        }
    }

    /// Gives a session a stanza that is committed before it leaves, wherever its edge is.
    pub(super) fn enqueue_durably(&mut self, turn: &mut Turn, place: Place, stanza: Arc<Stanza>, io: &mut Io<'_>) {
        let credit = self.config.limits.session_credit_bytes;
        let Some(session) = self.sessions.get(place) else {
            return;
        };
        if session.drain.is_some() || session.outbound.bytes() + stanza.size() > credit {
            self.enqueue(turn, place, Origin::None, stanza, None, io);
        } else {
            self.deliver_from_row(turn, place, Origin::None, stanza, io);
        }
    }

    fn deliver(
        &mut self,
        turn: &mut Turn,
        place: Place,
        origin: Origin,
        stanza: Arc<Stanza>,
        row: Option<Key>,
        receipt: Option<Receipt>,
    ) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let delivery = session.outbound.push(origin, stanza, row, receipt);
        turn.to_edge(
            session.edge,
            ToEdge::Deliver {
                conn: session.conn,
                delivery,
            },
        );
    }

    fn deliver_from_row(
        &mut self,
        turn: &mut Turn,
        place: Place,
        origin: Origin,
        stanza: Arc<Stanza>,
        io: &mut Io<'_>,
    ) {
        let at = self.stamp(io);
        let Some(session) = self.sessions.get(place) else {
            return;
        };
        let order = session.outbound.last() + 1;
        let key = queue_key(&session.full, session.id, order);
        turn.put(
            key.clone(),
            &QueueRow::new(&stanza, origin, at.0, session.managed.is_some()),
        );
        let origin = if origin == Origin::None {
            Origin::Stored { stamp: order }
        } else {
            origin
        };
        self.deliver(turn, place, origin, stanza, Some(key), None);
    }

    /// The session is detached, or rows are before this stanza: it becomes one too.
    fn wait_in_row(
        &mut self,
        turn: &mut Turn,
        place: Place,
        origin: Origin,
        stanza: &Stanza,
        owed: Option<(Receipt, u64)>,
        io: &mut Io<'_>,
    ) {
        let at = self.stamp(io);
        let max = self.config.limits.session_queue_bytes_max;
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let Some(drain) = &mut session.drain else { return };
        if drain.queued_bytes + stanza.size() > max {
            io.out.push(Output::Count(Event::Refused("session-queue-full")));
            if let Some((receipt, _)) = owed {
                let error = stanza.error(&StanzaError::resource_constraint());
                turn.answer(receipt, error.map(Arc::new).into_iter().collect());
            }
            return;
        }
        drain.queued_bytes += stanza.size();
        drain.written = true;
        let row = QueueRow::new(stanza, origin, at.0, false);
        turn.put(queue_key(&session.full, session.id, WAITING | at.0), &row);
        if !drain.reading {
            turn.effects.push(Effect::Read(session.id));
        }
        if let Some((receipt, settled)) = owed {
            self.safe_in_row(turn, place, receipt, settled, io);
        }
    }

    /// The turn commits the stanza: that is noted against repeats, and then it is safe.
    fn safe_in_row(&mut self, turn: &mut Turn, place: Place, receipt: Receipt, settled: u64, io: &mut Io<'_>) {
        let Some(account) = self.sessions.get(place).map(|session| session.full.bare()) else {
            return;
        };
        self.note_executed(turn, &account, receipt.session, receipt.frame, settled, &[], io);
        turn.answer(receipt, Vec::new());
    }

    /// A device without XEP-0198 that does not read: its session ends, what it did not get is stored.
    fn overwhelmed(
        &mut self,
        turn: &mut Turn,
        place: Place,
        stanza: &Stanza,
        owed: Option<(Receipt, u64)>,
        io: &mut Io<'_>,
    ) {
        let Some(account) = self.sessions.get(place).map(|session| session.full.bare()) else {
            return;
        };
        self.expel(turn, place, StreamError::resource_constraint(), "too-slow", io);
        let kept = is_storable(stanza) && self.store(turn, &account, stanza, None, io);
        let Some((receipt, settled)) = owed else { return };
        if kept {
            self.note_executed(turn, &account, receipt.session, receipt.frame, settled, &[], io);
            turn.answer(receipt, Vec::new());
        } else {
            let error = stanza.error(&StanzaError::recipient_unavailable());
            turn.answer(receipt, error.map(Arc::new).into_iter().collect());
        }
    }

    /// The edge tells how far deliveries have come.
    pub(super) fn progress(&mut self, place: Place, received: u64, released: u64, voided: &[u64], io: &mut Io<'_>) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        for seq in voided {
            session.outbound.void(*seq);
        }
        let receipts = session.outbound.received(received);
        let done = session.outbound.release(released);
        let (id, account) = (session.id, session.full.bare());
        let more = session.drain.as_ref().is_some_and(|drain| !drain.reading);
        let mut turn = Turn::of(&account);
        for receipt in receipts
            .into_iter()
            .chain(done.iter().filter_map(|queued| queued.receipt))
        {
            turn.answer(receipt, Vec::new());
        }
        let rows: Vec<Key> = done.into_iter().filter_map(|queued| queued.row).collect();
        self.remove_keys(&mut turn, &account, &rows, io);
        if more {
            turn.effects.push(Effect::Read(id));
        }
        if !turn.writes.is_empty() || !turn.effects.is_empty() {
            self.finish(turn, io);
        }
    }

    /// Deletes rows of what has reached its device, or is kept elsewhere now.
    pub(super) fn remove_keys(&mut self, turn: &mut Turn, account: &BareJid, keys: &[Key], io: &Io<'_>) {
        let mut unstored = 0;
        for key in keys {
            unstored += u32::from(is_stored(key));
            turn.delete(key.clone());
        }
        if unstored > 0 {
            let mut count = self.stored_count(turn, account, io);
            count.messages = count.messages.saturating_sub(unstored);
            if count.messages == 0 {
                turn.delete(stored_count_key(account));
            } else {
                turn.put(stored_count_key(account), &count);
            }
        }
    }

    /// Has the account's stored messages brought to this resource.
    pub(super) fn drain_stored(&mut self, account: &BareJid, place: Place, io: &mut Io<'_>) {
        let mut turn = Turn::of(account);
        if self.stored_count(&turn, account, io).messages == 0 {
            return;
        }
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        match &mut session.drain {
            Some(drain) => drain.stored = true,
            None => {
                let drain = Drain {
                    stage: Stage::Stored,
                    stored: true,
                    ..Drain::default()
                };
                session.drain = Some(Box::new(drain));
            }
        }
        turn.effects.push(Effect::Read(session.id));
        self.finish(turn, io);
    }

    /// Asks for the next page, if there is room for it.
    pub(super) fn read(&mut self, id: SessionId, io: &mut Io<'_>) {
        let limits = &self.config.limits;
        let Some(session) = self.sessions.find(id).and_then(|place| self.sessions.get_mut(place)) else {
            return;
        };
        let room = session.outbound.bytes() < limits.session_credit_bytes;
        if !session.is_attached() || !room {
            return;
        }
        let Some(drain) = session.drain.as_mut().filter(|drain| !drain.reading) else {
            return;
        };
        drain.reading = true;
        drain.written = false;
        let (prefix, first) = match drain.stage {
            Stage::UnderWay => (queue_prefix(&session.full, id), queue_key(&session.full, id, 0)),
            Stage::Stored => {
                drain.stored = false;
                let prefix = stored_prefix(&session.full.bare());
                (prefix.clone(), prefix)
            }
            Stage::Waiting => (queue_prefix(&session.full, id), queue_key(&session.full, id, WAITING)),
        };
        let from = drain.read.as_ref().map_or(first, successor);
        io.out.push(Output::Read(Read {
            session: id,
            prefix,
            from,
            limit: limits.drain_rows,
        }));
    }

    /// A page has been read.
    pub(super) fn drained(&mut self, id: SessionId, rows: Vec<(Key, Value)>, io: &mut Io<'_>) {
        let config = Arc::clone(&self.config);
        let Some(place) = self.sessions.find(id) else { return };
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let account = session.full.bare();
        let attached = session.is_attached();
        let Some(drain) = &mut session.drain else { return };
        drain.reading = false;
        if !attached {
            return;
        }
        let stage = drain.stage;
        let short = rows.len() < config.limits.drain_rows;
        let mut turn = Turn::of(&account);
        let mut held_up = false;
        let mut stage_over = short;
        for (key, value) in rows {
            if stage == Stage::UnderWay && order(&key) >= WAITING {
                stage_over = true;
                break;
            }
            let Some(session) = self.sessions.get_mut(place) else {
                return;
            };
            if session.outbound.bytes() >= config.limits.session_credit_bytes {
                held_up = true;
                break;
            }
            if let Some(drain) = &mut session.drain {
                drain.read = Some(key.clone());
            }
            self.deliver_row(&mut turn, place, stage, key, &value);
        }
        if !held_up {
            let Some(session) = self.sessions.get_mut(place) else {
                return;
            };
            if stage_over && next_stage(session) {
                session.drain = None;
            } else {
                turn.effects.push(Effect::Read(id));
            }
        }
        self.finish(turn, io);
    }

    fn deliver_row(&mut self, turn: &mut Turn, place: Place, stage: Stage, key: Key, value: &Value) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let read = match stage {
            Stage::Stored => StoredRow::decode(value.as_ref()).ok().and_then(|row| {
                let stanza = Stanza::decode(row.stanza).ok()?;
                let stanza = delayed(&stanza, Timestamp(row.at), session.full.domain());
                Some((stanza, Origin::Stored { stamp: order(&key) }))
            }),
            Stage::UnderWay | Stage::Waiting => QueueRow::decode(value.as_ref()).ok().and_then(|row| {
                let stanza = Arc::new(row.stanza()?);
                Some((stanza, row.origin(order(&key))))
            }),
        };
        let Some((stanza, origin)) = read else {
            tracing::error!(key = %key.escape_ascii(), "a queued stanza cannot be read; it is dropped");
            return turn.delete(key);
        };
        if !session.outbound.is_under_way(&key, origin) {
            self.deliver(turn, place, origin, stanza, Some(key), None);
        }
    }
}

/// Goes on to what comes after the stage that has been read; says whether that was all.
fn next_stage(session: &mut Session) -> bool {
    let Some(drain) = &mut session.drain else { return true };
    drain.stage = match drain.stage {
        Stage::UnderWay if drain.stored => Stage::Stored,
        Stage::UnderWay | Stage::Stored => Stage::Waiting,
        // New rows have come since the page was asked for: read on from where it ended.
        Stage::Waiting if drain.written => return false,
        Stage::Waiting if drain.stored => Stage::Stored,
        Stage::Waiting => return true,
    };
    drain.read = None;
    false
}

fn is_stored(key: &Key) -> bool {
    key.get(2) == Some(&(Table::Stored as u8))
}

/// The last eight bytes of a queue's or store's key: its order.
fn order(key: &Key) -> u64 {
    key.last_chunk::<8>().map_or(0, |order| u64::from_be_bytes(*order))
}

fn successor(key: &Key) -> Key {
    let mut next = key.to_vec();
    next.push(0);
    next.into()
}
