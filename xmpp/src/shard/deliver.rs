//! From an account to its device: the session's queue, its credit, and rows when the device cannot take a stanza now.

use std::sync::Arc;

use prost::Message;

use super::{Effect, Event, Io, Output, Place, Read, Reader, Shard, Turn};
use crate::im::stored::{StoredRow, delayed, is_storable, stored_count_key, stored_prefix};
use crate::jid::BareJid;
use crate::link::{Origin, SessionId, ToEdge};
use crate::rows::{Key, Table, Timestamp, Value, Write};
use crate::session::{Drain, Item, QueueRow, Receipt, Session, Stage, WAITING, queue_key, queue_prefix};
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
        let at = self.stamp(io);
        let credit = self.config.limits.session_credit_bytes;
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        // One stanza may go beyond: whatever is small enough to be sent is small enough to be delivered.
        if session.drain.is_none() && session.outbound.bytes() >= credit {
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
            return self.wait_in_row(turn, place, &Item { origin, at, stanza }, owed, io);
        }
        let Some((receipt, settled)) = owed else {
            return self.deliver(turn, place, Item { origin, at, stanza }, None, None);
        };
        let edge_is_elsewhere = session.edge.node != self.config.node;
        if self.alone {
            self.deliver(turn, place, Item { origin, at, stanza }, None, None);
            turn.answer(receipt, Vec::new());
        } else if edge_is_elsewhere {
            // Safe once two machines have it: this one, and the edge's when it says so.
            self.deliver(turn, place, Item { origin, at, stanza }, None, Some(receipt));
        } else {
            self.deliver_from_row(turn, place, Item { origin, at, stanza });
            self.safe_in_row(turn, place, receipt, settled, io);
        }
    }

    /// Whether the session has been given a stanza that its sender says it may have sent before. Then `owed` hears that it is safe, or will.
    pub(super) fn comes_again(
        &mut self,
        turn: &mut Turn,
        place: Place,
        origin: Origin,
        owed: Option<(Receipt, u64)>,
        io: &mut Io<'_>,
    ) -> bool {
        let (alone, node) = (self.alone, self.config.node);
        let Some(session) = self.sessions.get_mut(place) else {
            return false;
        };
        let edge_is_elsewhere = session.edge.node != node;
        if session.given.as_ref().is_some_and(|given| given.contains(origin)) {
            if let Some((receipt, _)) = owed {
                turn.answer(receipt, Vec::new());
            }
            return true;
        }
        let (id, full, counted) = (session.id, session.full.clone(), session.managed.is_some());
        let Some((queued, edge_has_it)) = session.outbound.find(origin) else {
            return false;
        };
        let Some((receipt, settled)) = owed else { return true };
        if alone || queued.row.is_some() || (edge_is_elsewhere && edge_has_it) {
            turn.answer(receipt, Vec::new());
        } else if edge_is_elsewhere {
            queued.receipt = Some(receipt);
        } else {
            // A former leader gave it to this node's edge; nobody else has it now.
            let key = queue_key(&full, id, queued.delivery.seq);
            queued.row = Some(key.clone());
            turn.put(key, &QueueRow::new(&Item::of(&queued.delivery), counted));
            self.safe_in_row(turn, place, receipt, settled, io);
        }
        true
    }

    /// Gives a session a stanza that is committed before it leaves, wherever its edge is.
    pub(super) fn enqueue_durably(&mut self, turn: &mut Turn, place: Place, stanza: Arc<Stanza>, io: &mut Io<'_>) {
        let credit = self.config.limits.session_credit_bytes;
        let Some(session) = self.sessions.get(place) else {
            return;
        };
        if session.drain.is_some() || session.outbound.bytes() >= credit {
            self.enqueue(turn, place, Origin::None, stanza, None, io);
        } else {
            let at = self.stamp(io);
            self.deliver_from_row(
                turn,
                place,
                Item {
                    origin: Origin::None,
                    at,
                    stanza,
                },
            );
        }
    }

    fn deliver(&mut self, turn: &mut Turn, place: Place, item: Item, row: Option<Key>, receipt: Option<Receipt>) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let delivery = session.outbound.push(item, row, receipt);
        turn.to_edge(
            session.edge,
            ToEdge::Deliver {
                conn: session.conn,
                delivery,
            },
        );
    }

    fn deliver_from_row(&mut self, turn: &mut Turn, place: Place, mut item: Item) {
        let Some(session) = self.sessions.get(place) else {
            return;
        };
        let order = session.outbound.last() + 1;
        let key = queue_key(&session.full, session.id, order);
        turn.put(key.clone(), &QueueRow::new(&item, session.managed.is_some()));
        if item.origin == Origin::None {
            item.origin = Origin::Stored { stamp: item.at.0 };
        }
        self.deliver(turn, place, item, Some(key), None);
    }

    /// The session is detached, or rows are before this stanza: it becomes one too.
    fn wait_in_row(
        &mut self,
        turn: &mut Turn,
        place: Place,
        item: &Item,
        owed: Option<(Receipt, u64)>,
        io: &mut Io<'_>,
    ) {
        let stanza = &item.stanza;
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
        drain.uncommitted += 1;
        let row = QueueRow::new(item, false);
        turn.put(queue_key(&session.full, session.id, WAITING | item.at.0), &row);
        turn.effects.push(Effect::RowWaits(session.id));
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
        let at = self.stamp(io);
        let kept = is_storable(stanza) && self.store(turn, &account, stanza, at, io);
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
        let more = session.drain.as_ref().is_some_and(|drain| drain.reading.is_none());
        if !self.alone {
            // On one node what was answered is known to have been: sender and recipient share its fate.
            let given = done.iter().map(|queued| queued.delivery.origin);
            self.sessions.note_given(place, given, io.elapsed);
        }
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
        self.expect_stored(&mut turn, place);
        self.finish(turn, io);
    }

    /// From now on the session's stanzas come after what is stored.
    pub(super) fn expect_stored(&mut self, turn: &mut Turn, place: Place) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let id = session.id;
        let drain = session.drain.get_or_insert_with(|| {
            Box::new(Drain {
                stage: Stage::Stored,
                ..Drain::default()
            })
        });
        drain.stored_soon += 1;
        turn.effects.push(Effect::BringStored(id));
    }

    /// What was stored is committed.
    pub(super) fn bring_stored(&mut self, id: SessionId, io: &mut Io<'_>) {
        let session = self.sessions.find(id).and_then(|place| self.sessions.get_mut(place));
        let Some(drain) = session.and_then(|session| session.drain.as_mut()) else {
            return;
        };
        drain.stored_soon = drain.stored_soon.saturating_sub(1);
        drain.stored = true;
        self.read(id, io);
    }

    /// A row of the session's queue is committed: it can be read.
    pub(super) fn row_waits(&mut self, id: SessionId, io: &mut Io<'_>) {
        let session = self.sessions.find(id).and_then(|place| self.sessions.get_mut(place));
        let Some(drain) = session.and_then(|session| session.drain.as_mut()) else {
            return;
        };
        drain.uncommitted = drain.uncommitted.saturating_sub(1);
        // A page that is being read now may have missed it.
        drain.written = true;
        self.read(id, io);
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
        let Some(drain) = &mut session.drain else { return };
        let not_yet = drain.stage == Stage::Stored && drain.read.is_none() && !drain.stored;
        if drain.reading.is_some() || not_yet {
            return;
        }
        let ticket = self.clock + 1;
        self.clock = ticket;
        drain.reading = Some(ticket);
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
            reader: Reader::Session(id),
            ticket,
            prefix,
            from,
            limit: limits.drain_rows,
        }));
    }

    /// A page has been read.
    pub(super) fn drained(&mut self, id: SessionId, ticket: u64, rows: Vec<(Key, Value)>, io: &mut Io<'_>) {
        let config = Arc::clone(&self.config);
        let Some(place) = self.sessions.find(id) else { return };
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let account = session.full.bare();
        let attached = session.is_attached();
        let Some(drain) = &mut session.drain else { return };
        // The session may have lost its socket and found another since the page was asked for.
        if drain.reading.take_if(|awaited| *awaited == ticket).is_none() || !attached {
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
            self.deliver_row(&mut turn, place, stage, key, &value, io);
        }
        if !held_up {
            let Some(session) = self.sessions.get_mut(place) else {
                return;
            };
            match if stage_over { next_stage(session) } else { Next::Read } {
                Next::Read => turn.effects.push(Effect::Read(id)),
                Next::Wait => {}
                Next::Over => session.drain = None,
            }
        }
        self.finish(turn, io);
    }

    fn deliver_row(&mut self, turn: &mut Turn, place: Place, stage: Stage, key: Key, value: &Value, io: &Io<'_>) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let read = match stage {
            Stage::Stored => StoredRow::decode(value.as_ref()).ok().and_then(|row| {
                let stanza = Stanza::decode(row.stanza).ok()?;
                let stanza = delayed(&stanza, Timestamp(row.at), session.full.domain());
                let stamp = order(&key);
                Some(Item {
                    origin: Origin::Stored { stamp },
                    at: Timestamp(stamp),
                    stanza,
                })
            }),
            Stage::UnderWay | Stage::Waiting => QueueRow::decode(value.as_ref()).ok().and_then(|row| {
                let stanza = Arc::new(row.stanza()?);
                Some(Item {
                    origin: row.origin(),
                    at: Timestamp(row.at),
                    stanza,
                })
            }),
        };
        let Some(item) = read else {
            tracing::error!(key = %key.escape_ascii(), "a queued stanza cannot be read; it is dropped");
            return turn.delete(key);
        };
        if session.outbound.is_under_way(&key, item.origin) {
            return;
        }
        let given = session.given.as_ref().is_some_and(|given| given.contains(item.origin));
        let released = stage == Stage::UnderWay && order(&key) <= session.outbound.released();
        if given || released {
            // A former leader gave it to the device and had no time to remove the row.
            let account = session.full.bare();
            return self.remove_keys(turn, &account, &[key], io);
        }
        let seq = session.outbound.last() + 1;
        if stage == Stage::UnderWay && order(&key) != seq {
            // The row of what is under way has its delivery's number.
            let moved = queue_key(&session.full, session.id, seq);
            turn.delete(key);
            turn.writes.push(Write::Put(moved.clone(), value.clone()));
            return self.deliver(turn, place, item, Some(moved), None);
        }
        self.deliver(turn, place, item, Some(key), None);
    }
}

/// What comes after a stage has been read to its end.
enum Next {
    /// There may be more rows.
    Read,
    /// Rows are on their way to the disk.
    Wait,
    /// That was all.
    Over,
}

fn next_stage(session: &mut Session) -> Next {
    let Some(drain) = &mut session.drain else {
        return Next::Over;
    };
    drain.stage = match drain.stage {
        Stage::UnderWay if drain.stored => Stage::Stored,
        Stage::UnderWay if drain.stored_soon > 0 => return Next::Wait,
        Stage::UnderWay | Stage::Stored => Stage::Waiting,
        // Read on from where the page ended.
        Stage::Waiting if drain.written => return Next::Read,
        Stage::Waiting if drain.stored => Stage::Stored,
        Stage::Waiting if drain.uncommitted > 0 || drain.stored_soon > 0 => return Next::Wait,
        Stage::Waiting => return Next::Over,
    };
    drain.read = None;
    Next::Read
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
