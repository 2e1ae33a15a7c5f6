//! How a term begins (DESIGN §4.5): session rows say which edges held sessions; each of them attaches what it still holds
//! or counts as dead. Until then nothing is evaluated, so nobody is told that a device is gone that is not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use prost::Message;

use super::{Effect, Io, Output, Role, Shard, Turn};
use crate::im::presence;
use crate::jid::{BareJid, FullJid};
use crate::link::{Attachment, Conn, EdgeId, NodeId, SessionId, Term, ToEdge};
use crate::rows::{Key, Rows, RowsError, Table};
use crate::session::{Drain, Inbound, OriginRow, Outbound, Repeats, Session, SessionRow};
use crate::stanza::{PresenceType, Stanza};
use crate::stream::StreamError;

/// How many rows are read at a time when a term begins.
const PAGE: usize = 1024;

/// What is known while the edges attach.
#[derive(Debug)]
pub(super) struct CatchingUp {
    deadline: Duration,
    /// Edges that session rows name and that have not attached yet.
    waiting: BTreeSet<EdgeId>,
    /// The rows, until an attachment is found for them.
    rows: BTreeMap<SessionId, Found>,
    /// Sessions that have rows in their queue.
    queued: BTreeSet<SessionId>,
    /// Sessions that ended, and of which not everybody may have heard that.
    farewells: Vec<(BareJid, SessionId)>,
    /// Connections that will ask for their bind or resume again.
    asking: BTreeSet<(EdgeId, Conn)>,
}

#[derive(Debug)]
struct Found {
    full: FullJid,
    row: SessionRow,
}

impl Found {
    fn edge(&self) -> EdgeId {
        EdgeId {
            node: NodeId(self.row.edge_node),
            start: self.row.edge_start,
        }
    }

    fn conn(&self) -> Conn {
        Conn(self.row.conn)
    }
}

impl CatchingUp {
    /// Whether the edges that have not attached by now count as dead.
    pub(super) fn is_late(&self, elapsed: Duration) -> bool {
        elapsed >= self.deadline
    }

    /// Waits no longer.
    pub(super) fn give_up(&mut self) {
        self.waiting.clear();
    }

    /// That edge will not attach.
    pub(super) fn edge_died(&mut self, edge: EdgeId) {
        self.waiting.remove(&edge);
    }
}

impl Shard {
    /// Starts over in `term`.
    pub(super) fn begin(&mut self, term: Term, io: &mut Io<'_>) -> Result<(), RowsError> {
        self.follow();
        self.restoring = self.is_restoring(io)?;
        let mut rows = BTreeMap::new();
        let mut queued = BTreeSet::new();
        let mut farewells = Vec::new();
        for slot in self.config.map.slots_of(self.id) {
            for_each_session(io.rows, slot, |session, found| {
                rows.insert(session, found);
            })?;
            for_each_queue(io.rows, slot, |session| {
                queued.insert(session);
            })?;
            for_each_farewell(io.rows, slot, |account, session| farewells.push((account, session)))?;
        }
        let attached = rows.values().filter(|found| found.row.detached_until == 0);
        let waiting: BTreeSet<EdgeId> = attached.map(Found::edge).collect();
        let deadline = io.elapsed + self.config.limits.attach_timeout;
        self.term = term;
        self.sessions_bound = 0;
        self.role = Role::CatchingUp(Box::new(CatchingUp {
            deadline,
            waiting: waiting.clone(),
            rows,
            queued,
            farewells,
            asking: BTreeSet::new(),
        }));
        io.out.push(Output::AllEdges {
            term,
            message: ToEdge::Lead,
        });
        if !waiting.is_empty() {
            io.out.push(Output::Await(waiting.into_iter().collect()));
        }
        self.try_to_lead(io);
        Ok(())
    }

    /// An edge says what it holds.
    pub(super) fn attach(
        &mut self,
        edge: EdgeId,
        sessions: Vec<Attachment>,
        asking: &[Conn],
        last: bool,
        io: &mut Io<'_>,
    ) {
        let Role::CatchingUp(catching_up) = &mut self.role else {
            return;
        };
        catching_up.asking.extend(asking.iter().map(|conn| (edge, *conn)));
        for attachment in sessions {
            let id = attachment.session;
            let held = catching_up.rows.get(&id).is_some_and(|found| {
                found.edge() == edge && found.conn() == attachment.conn && found.row.detached_until == 0
            });
            if !held {
                // The edge has not heard of what became of it. One that has another socket stays there; the device of any
                // other may come again.
                let elsewhere = catching_up
                    .rows
                    .get(&id)
                    .is_some_and(|found| found.row.detached_until == 0);
                let error = if elsewhere { StreamError::conflict() } else { given_up() };
                let message = ToEdge::Close {
                    conn: attachment.conn,
                    error,
                };
                io.out.push(Output::Edge {
                    to: edge,
                    term: self.term,
                    message,
                });
                continue;
            }
            let Some(found) = catching_up.rows.remove(&id) else {
                continue;
            };
            let queued = catching_up.queued.contains(&id);
            for delivery in &attachment.unreleased {
                // Whatever is accepted from now on comes later.
                self.clock = self.clock.max(delivery.at.0);
            }
            self.sessions
                .insert(attached(edge, attachment, found.row, queued, io.elapsed), io.elapsed);
        }
        if last {
            catching_up.edge_died(edge);
        }
        self.try_to_lead(io);
    }

    /// An edge attaches that was not waited for any longer. Sessions that are not its own any more have ended, or are elsewhere: their
    /// devices have to come again.
    pub(super) fn attach_late(&mut self, edge: EdgeId, sessions: Vec<Attachment>, io: &mut Io<'_>) {
        for attachment in sessions {
            if self.sessions.at(attachment.session, edge, attachment.conn).is_some() {
                continue;
            }
            let message = ToEdge::Close {
                conn: attachment.conn,
                error: given_up(),
            };
            io.out.push(Output::Edge {
                to: edge,
                term: self.term,
                message,
            });
        }
    }

    /// Leads, once nobody is waited for.
    pub(super) fn try_to_lead(&mut self, io: &mut Io<'_>) {
        let Role::CatchingUp(catching_up) = &mut self.role else {
            return;
        };
        if !catching_up.waiting.is_empty() {
            return;
        }
        let CatchingUp {
            rows,
            asking,
            farewells,
            ..
        } = std::mem::replace(
            &mut **catching_up,
            CatchingUp {
                deadline: Duration::MAX,
                waiting: BTreeSet::new(),
                rows: BTreeMap::new(),
                queued: BTreeSet::new(),
                farewells: Vec::new(),
                asking: BTreeSet::new(),
            },
        );
        self.role = Role::Leading;
        let mut lost = Vec::new();
        let grace = io.now.0 + u64::try_from(self.config.limits.asking_timeout.as_micros()).unwrap_or(u64::MAX / 2);
        for (id, mut found) in rows {
            let asking = found.row.detached_until == 0 && asking.contains(&(found.edge(), found.conn()));
            if asking {
                // Its connection does not know of it yet: until it asks again, nothing can be delivered there.
                found.row.detached_until = grace;
            }
            let place = self.sessions.insert(unattached(id, found, io.elapsed), io.elapsed);
            match self.sessions.get(place).and_then(Session::detached_until) {
                Some(until) => self.sessions.ends_at(place, until),
                None => lost.push(place),
            }
        }
        self.read_blocks(io);
        io.out.push(Output::AllEdges {
            term: self.term,
            message: ToEdge::Leading,
        });
        io.out.push(Output::AllPeers { term: self.term });
        // What the device had said is gone with its edge and the last leader: it has to bind anew (DESIGN §4).
        for place in lost {
            let Some(session) = self.sessions.get(place) else {
                continue;
            };
            let mut turn = Turn::of(&session.full.bare());
            self.end(&mut turn, place, "edge-lost", io);
            self.finish(turn, io);
        }
        for (account, session) in farewells {
            self.say_farewell_again(&account, session, io);
        }
        self.go_on_notifying(io);
        self.send_outboxes(io);
        self.go_on_draining(io);
    }

    /// Drains again what a former leader was draining.
    fn go_on_draining(&mut self, io: &mut Io<'_>) {
        let places: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.is_attached())
            .map(|(p, _)| p)
            .collect();
        for place in places {
            let Some(session) = self.sessions.get(place) else {
                continue;
            };
            let (id, drains, takes) = (session.id, session.drain.is_some(), session.takes_bare());
            let account = session.full.bare();
            if takes {
                self.drain_stored(&account, place, io);
            }
            if drains {
                let mut turn = Turn::of(&account);
                turn.effects.push(Effect::Read(id));
                self.finish(turn, io);
            }
        }
    }
}

/// RFC 6120 §4.9.3.16: everything is to be negotiated again, from which a `conflict` would keep some devices.
fn given_up() -> StreamError {
    StreamError::reset().with_text("the session was given up")
}

/// The session an edge still holds.
fn attached(edge: EdgeId, attachment: Attachment, row: SessionRow, queued: bool, elapsed: Duration) -> Session {
    let base = row.managed.as_ref().map_or(0, |managed| managed.delivery_base);
    let mut outbound = Outbound::after(attachment.released, base, attachment.acknowledged);
    let mut given = Repeats::of(attachment.seen, elapsed);
    for delivery in attachment.unreleased {
        if let Some(given) = &mut given {
            given.retract(delivery.origin);
        }
        outbound.restore(delivery);
    }
    outbound.resume_after(attachment.received);
    Session {
        id: attachment.session,
        full: attachment.full,
        edge,
        conn: attachment.conn,
        inbound: Inbound::inherited(attachment.accepted),
        outbound,
        managed: row.managed.map(Box::new),
        priority: attachment.presence.as_deref().map(presence::priority),
        presence: attachment.presence,
        memory: attachment.memory,
        blocks: false,
        given,
        drain: queued.then(Box::<Drain>::default),
    }
}

/// A session no edge holds: detached, or bound by a connection that will ask again, or lost.
fn unattached(id: SessionId, found: Found, elapsed: Duration) -> Session {
    let (edge, conn) = (found.edge(), found.conn());
    let Found { full, row } = found;
    let base = row.managed.as_ref().map_or(0, |managed| managed.delivery_base);
    let detached = (row.detached_until != 0).then_some(row.detached_until);
    let presence = row.presence.and_then(|presence| Stanza::decode(presence).ok());
    // Whether it was available died with its edge: whoever may have seen it is told that it is not.
    let lost = || Stanza::presence(PresenceType::Available, []).with_from(&full);
    let presence = presence.or_else(|| detached.is_none().then(lost)).map(Arc::new);
    let mut outbound = Outbound::after(row.released, base, row.acknowledged);
    outbound.resume_after(row.last);
    let given = Repeats::of(row.given.iter().map(OriginRow::origin), elapsed);
    Session {
        id,
        full,
        edge,
        conn,
        inbound: Inbound::inherited(row.accepted),
        outbound,
        managed: row.managed.map(Box::new),
        priority: presence.as_deref().map(presence::priority),
        presence,
        memory: row.memory.map(|memory| Arc::new(memory.into())),
        blocks: false,
        given,
        drain: Some(Box::new(Drain {
            detached_until: detached,
            ..Drain::default()
        })),
    }
}

fn for_each_session(rows: &dyn Rows, slot: u16, mut each: impl FnMut(SessionId, Found)) -> Result<(), RowsError> {
    let prefix = table_prefix(slot, Table::Session);
    let mut from = prefix.clone();
    loop {
        let page = rows.scan(&prefix, &from, PAGE)?;
        for (key, value) in &page {
            let (account, id) = split_session_key(key).ok_or_else(|| broken(key))?;
            let row = SessionRow::decode(value.as_ref()).map_err(|_| broken(key))?;
            let full = BareJid::parse(account)
                .ok()
                .and_then(|bare| bare.with_resource(&row.resource).ok());
            let full = full.ok_or_else(|| broken(key))?;
            each(id, Found { full, row });
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE => from = after(key),
            _ => return Ok(()),
        }
    }
}

fn for_each_farewell(rows: &dyn Rows, slot: u16, mut each: impl FnMut(BareJid, SessionId)) -> Result<(), RowsError> {
    let prefix = table_prefix(slot, Table::Farewell);
    let mut from = prefix.clone();
    loop {
        let page = rows.scan(&prefix, &from, PAGE)?;
        for (key, _) in &page {
            let (account, session) = split_session_key(key).ok_or_else(|| broken(key))?;
            each(BareJid::parse(account).map_err(|_| broken(key))?, session);
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE => from = after(key),
            _ => return Ok(()),
        }
    }
}

/// Names each session that has rows in its queue, reading one row of each.
fn for_each_queue(rows: &dyn Rows, slot: u16, mut each: impl FnMut(SessionId)) -> Result<(), RowsError> {
    let prefix = table_prefix(slot, Table::Queue);
    let mut from = prefix.clone();
    while let Some((key, _)) = rows.scan(&prefix, &from, 1)?.pop() {
        let queue = key
            .len()
            .checked_sub(8)
            .and_then(|end| key.get(..end))
            .ok_or_else(|| broken(&key))?;
        let (_, id) = split_session_key(queue).ok_or_else(|| broken(&key))?;
        each(id);
        // No order reaches this: on to the next session's queue.
        let mut next = BytesMut::from(queue);
        next.put_slice(&[0xff; 9]);
        from = next.freeze();
    }
    Ok(())
}

fn table_prefix(slot: u16, table: Table) -> Key {
    let mut prefix = BytesMut::with_capacity(3);
    prefix.put_u16(slot);
    prefix.put_u8(table as u8);
    prefix.freeze()
}

fn split_session_key(key: &[u8]) -> Option<(&str, SessionId)> {
    let rest = key.get(3..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let account = std::str::from_utf8(rest.get(..end)?).ok()?;
    Some((account, SessionId::from_bytes(rest.get(end + 1..)?)?))
}

fn after(key: &Key) -> Key {
    let mut next = BytesMut::from(key.as_ref());
    next.put_u8(0);
    next.freeze()
}

fn broken(key: &[u8]) -> RowsError {
    RowsError(format!("a row cannot be read, its key is {}", key.escape_ascii()))
}
