//! How sessions lose their socket, and how they end.
//!
//! A session that may be resumed commits its queue and goes on without a socket: until its device is back, every stanza
//! for it is a row before it is accepted (DESIGN §4.4). Any other session ends: its row goes, and what its device did not get
//! is treated as for a resource that is gone (XEP-0198 §4): messages are stored, requests are answered with an error.

use std::sync::Arc;

use prost::Message;

use super::executed::executed_key;
use super::{Event, Io, Output, Place, Shard, Turn};
use crate::im::stored::is_storable;
use crate::jid::BareJid;
use crate::link::{Conn, EdgeId, SessionId, ToEdge};
use crate::rows::{Key, Rows, Timestamp, Value};
use crate::sasl::is_anonymous;
use crate::session::{Drain, Item, QueueRow, Queued, Session, Stage, queue_key, queue_prefix, session_key};
use crate::stanza::{Stanza, StanzaError};
use crate::stream::StreamError;

/// Rows of a session's queue that are looked at when it ends; `session_queue_bytes_max` keeps them far fewer.
const QUEUE_ROWS: usize = 65_536;

/// Detached sessions ended in one tick.
const ENDED: usize = 256;

impl Shard {
    /// The edge says that a session's socket is gone.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn socket_gone(
        &mut self,
        edge: EdgeId,
        conn: Conn,
        session: SessionId,
        released: u64,
        voided: &[u64],
        clean: bool,
        io: &mut Io<'_>,
    ) {
        let Some(place) = self.sessions.at(session, edge, conn) else {
            let message = ToEdge::Detached { conn };
            return io.out.push(Output::Edge {
                to: edge,
                term: self.term,
                message,
            });
        };
        self.progress(place, 0, released, voided, io);
        let Some(session) = self.sessions.get(place) else {
            return;
        };
        let mut turn = Turn::of(&session.full.bare());
        if session.is_resumable() && !clean {
            self.detach(&mut turn, place, io);
        } else {
            self.end(&mut turn, place, if clean { "closed" } else { "lost" }, io);
        }
        turn.to_edge(edge, ToEdge::Detached { conn });
        self.finish(turn, io);
    }

    /// The edge is gone, and the socket with it.
    pub(super) fn socket_lost(&mut self, place: Place, io: &mut Io<'_>) {
        let Some(session) = self.sessions.get(place) else {
            return;
        };
        let mut turn = Turn::of(&session.full.bare());
        if session.is_resumable() {
            self.detach(&mut turn, place, io);
        } else {
            self.end(&mut turn, place, "edge-lost", io);
        }
        self.finish(turn, io);
    }

    /// The session goes on without a socket.
    pub(super) fn detach(&mut self, turn: &mut Turn, place: Place, io: &mut Io<'_>) {
        let now = self.stamp(io).0;
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let max = session.managed.as_ref().map_or(0, |managed| u64::from(managed.max));
        let until = now + max * 1_000_000;
        let acknowledged = session.outbound.acknowledged();
        let stored = session
            .drain
            .as_ref()
            .is_some_and(|drain| drain.stored || drain.stage == Stage::Stored || drain.stored_soon > 0);
        let queued_bytes = session.drain.as_ref().map_or(0, |drain| drain.queued_bytes);
        let under_way = session.outbound.take();
        session.drain = Some(Box::new(Drain {
            detached_until: Some(until),
            stored,
            queued_bytes: queued_bytes
                + under_way
                    .iter()
                    .map(|queued| queued.delivery.stanza.size())
                    .sum::<usize>(),
            ..Drain::default()
        }));
        let mut row = session.row();
        row.acknowledged = acknowledged;
        turn.put(session_key(&session.full.bare(), session.id), &row);
        let (account, full, id) = (session.full.bare(), session.full.clone(), session.id);
        self.sessions.ends_at(place, until);
        self.remove_superseded_rows(turn, &account, &under_way, &full, id, io);
        self.note_under_way(turn, &account, &under_way, io);
        for queued in under_way {
            if let Some(receipt) = queued.receipt {
                turn.answer(receipt, Vec::new());
            }
            let key = queue_key(&full, id, queued.delivery.seq);
            if !queued.voided && queued.row.as_ref() != Some(&key) {
                turn.put(key, &QueueRow::new(&Item::of(&queued.delivery), true));
            }
        }
    }

    /// The senders of what was under way may not have heard that it is safe, and send it again: perhaps they lose their edge as well.
    fn note_under_way(&mut self, turn: &mut Turn, account: &BareJid, under_way: &[Queued], io: &mut Io<'_>) {
        if is_anonymous(account) {
            // Nothing is left of it that could come twice.
            return;
        }
        let origins = under_way.iter().map(|queued| queued.delivery.origin);
        self.note_delivered(turn, account, origins, io);
    }

    /// What was under way is kept under its delivery's number from now on.
    fn remove_superseded_rows(
        &mut self,
        turn: &mut Turn,
        account: &BareJid,
        under_way: &[Queued],
        full: &crate::jid::FullJid,
        id: SessionId,
        io: &Io<'_>,
    ) {
        let superseded = |queued: &&Queued| {
            queued
                .row
                .as_ref()
                .is_some_and(|row| queued.voided || *row != queue_key(full, id, queued.delivery.seq))
        };
        let rows: Vec<Key> = under_way
            .iter()
            .filter(superseded)
            .filter_map(|queued| queued.row.clone())
            .collect();
        self.remove_keys(turn, account, &rows, io);
    }

    /// The broker ends a session: its device is told why.
    pub(super) fn expel(
        &mut self,
        turn: &mut Turn,
        place: Place,
        error: StreamError,
        reason: &'static str,
        io: &mut Io<'_>,
    ) {
        if let Some(session) = self.sessions.get(place).filter(|session| session.is_attached()) {
            turn.to_edge(
                session.edge,
                ToEdge::Close {
                    conn: session.conn,
                    error,
                },
            );
        }
        self.end(turn, place, reason, io);
    }

    /// The session is over.
    pub(super) fn end(&mut self, turn: &mut Turn, place: Place, reason: &'static str, io: &mut Io<'_>) {
        self.bid_farewell(turn, place, io);
        let Some(mut session) = self.sessions.remove(place) else {
            return;
        };
        self.accepted.remove(&place);
        let account = session.full.bare();
        turn.delete(session_key(&account, session.id));
        turn.delete(executed_key(&account, session.id));
        let under_way = session.outbound.take();
        let queue = self.queue_of(&session, io);
        self.note_under_way(turn, &account, &under_way, io);
        let mut stored = false;
        for queued in under_way {
            if let Some(receipt) = queued.receipt {
                turn.answer(receipt, Vec::new());
            }
            // What came out of the account's store is still there; what is in the queue comes with the queue.
            if queued.row.is_some() {
                stored = true;
            } else if !queued.voided {
                stored |= self.undelivered(turn, &account, &queued.delivery.stanza, queued.delivery.at, io);
            }
        }
        for (key, row) in queue {
            if let Some(stanza) = row.stanza() {
                stored |= self.undelivered(turn, &account, &stanza, Timestamp(row.at), io);
            }
            turn.delete(key);
        }
        io.out.push(Output::Count(Event::SessionEnded(reason)));
        if stored {
            self.offer_stored(turn, &account);
        }
    }

    /// The rows of a session's queue.
    fn queue_of(&self, session: &Session, io: &Io<'_>) -> Vec<(Key, QueueRow)> {
        let prefix = queue_prefix(&session.full, session.id);
        let rows = self
            .overlay
            .over(io.rows)
            .scan(&prefix, &prefix, QUEUE_ROWS)
            .unwrap_or_else(|error| {
                tracing::error!(%error, "the queue of a session that ends cannot be read");
                Vec::new()
            });
        let row = |(key, value): (Key, Value)| Some((key, QueueRow::decode(value).ok()?));
        rows.into_iter().filter_map(row).collect()
    }

    /// A stanza whose resource is gone. Says whether it was stored.
    fn undelivered(
        &mut self,
        turn: &mut Turn,
        account: &BareJid,
        stanza: &Stanza,
        at: Timestamp,
        io: &mut Io<'_>,
    ) -> bool {
        if is_storable(stanza) && self.store(turn, account, stanza, at, io) {
            return true;
        }
        let request_or_message = stanza.kind.is_request() || stanza.kind.is_message();
        if request_or_message && let Some(error) = stanza.error(&StanzaError::recipient_unavailable()) {
            self.durably(turn, Arc::new(error), io);
        }
        false
    }

    /// Has stored messages brought to another resource, if there is one that takes them.
    fn offer_stored(&mut self, turn: &mut Turn, account: &BareJid) {
        let places = self.sessions.of_account(account.as_str()).to_vec();
        let taker = places
            .into_iter()
            .rev()
            .find(|place| self.sessions.get(*place).is_some_and(|session| session.takes_bare()));
        if let Some(place) = taker {
            self.expect_stored(turn, place);
        }
    }

    /// Ends detached sessions whose time is over.
    pub(super) fn end_overdue(&mut self, io: &mut Io<'_>) {
        for _ in 0..ENDED {
            let Some(place) = self.sessions.overdue(io.now.0) else {
                return;
            };
            let Some(account) = self.sessions.get(place).map(|session| session.full.bare()) else {
                return;
            };
            let mut turn = Turn::of(&account);
            self.end(&mut turn, place, "not-resumed", io);
            self.finish(turn, io);
        }
    }
}
