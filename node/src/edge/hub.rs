//! The middle of an edge: its connections by number, and what is known of the shards.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heronry_xmpp::{
    link::{Conn, EdgeId, NodeId, ShardId, Term, ToEdge, ToShard},
    shard::ShardMap,
    stream::StreamError,
};
use tokio::sync::Notify;

use super::{
    attaching::Attaching,
    metrics,
    port::{Port, ToConnection},
};
use crate::{
    links::Outboxes,
    shard::{Inboxes, bytes_of},
    telemetry::Traces,
    wire::Item,
};

/// The table of connections is cut so that threads seldom want the same part at the same time.
const TABLES: usize = 16;

/// The middle of an edge. Shards give it what they have for connections; connections learn from it which shards lead.
#[derive(Debug)]
pub(crate) struct Hub {
    id: EdgeId,
    map: ShardMap,
    inboxes: Arc<Inboxes>,
    outboxes: Arc<Outboxes>,
    traces: Traces,
    shards: Box<[Known]>,
    tables: Box<[Mutex<Table>]>,
    next_table: AtomicUsize,
    open: AtomicUsize,
    emptied: Notify,
    /// Stanzas that devices have sent.
    read: AtomicU64,
    /// Connections that want to hear that time has passed.
    ticking: Mutex<Vec<Conn>>,
    /// Connections that shards have mail for.
    woken: Mutex<Vec<Arc<Port>>>,
    wake: Notify,
}

/// What is known of a shard: the highest term heard of, whether that term has said that it leads, and whether it does so on another
/// node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) term: Term,
    pub(super) leads: bool,
    pub(super) elsewhere: bool,
}

/// A shard, as this edge knows it.
#[derive(Debug, Default)]
struct Known {
    /// Its leader is on another node.
    elsewhere: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    standing: Standing,
    /// Where that term is.
    node: NodeId,
    /// What its leader on another node was sent in this term and has not said it has taken.
    messages: u64,
    bytes: u64,
    /// Connections that read no more until it has taken more.
    held: Vec<Conn>,
    /// Since when nobody is known to lead it, as far as somebody has looked.
    leaderless: Option<Duration>,
}

/// A part of the table of connections: a slab, so that an entry costs two words.
#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Grows with each use, so that no number is used twice.
    uses: u32,
    port: Option<Arc<Port>>,
}

impl Hub {
    pub(crate) fn new(
        id: EdgeId,
        map: ShardMap,
        inboxes: Arc<Inboxes>,
        outboxes: Arc<Outboxes>,
        traces: Traces,
    ) -> Self {
        let shards = inboxes.iter().map(|_| Known::default()).collect();
        Self {
            id,
            map,
            inboxes,
            outboxes,
            traces,
            shards,
            tables: (0..TABLES).map(|_| Mutex::default()).collect(),
            next_table: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            emptied: Notify::new(),
            read: AtomicU64::new(0),
            ticking: Mutex::default(),
            woken: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Which edge this is.
    pub(crate) fn id(&self) -> EdgeId {
        self.id
    }

    /// What traces stanzas, at this edge and in the shards around it.
    pub(crate) fn traces(&self) -> &Traces {
        &self.traces
    }

    pub(super) fn shard_of(&self, bare: &str) -> ShardId {
        self.map.shard_of(heronry_xmpp::jid::slot(bare))
    }

    /// What is known of a shard now.
    pub(super) fn standing(&self, shard: ShardId) -> Standing {
        self.known(shard)
            .map_or_else(Standing::default, |known| lock(&known.state).standing)
    }

    /// Whether every shard is led by somebody, as far as is known here: then devices can log in.
    pub(crate) fn all_led(&self) -> bool {
        self.shards.iter().all(|known| lock(&known.state).standing.leads)
    }

    /// The term in which somebody leads a shard.
    #[cfg(test)]
    pub(crate) fn term_led(&self, shard: ShardId) -> Option<Term> {
        Some(self.standing(shard))
            .filter(|standing| standing.leads)
            .map(|standing| standing.term)
    }

    fn known(&self, shard: ShardId) -> Option<&Known> {
        self.shards.get(usize::from(shard.0))
    }

    /// Takes what a connection has for a shard, and empties `messages`. Says whether there is room for more; if not, the connection
    /// reads no further until it is told that there is.
    pub(crate) fn submit(&self, shard: ShardId, conn: Conn, messages: &mut Vec<(Term, ToShard)>) -> bool {
        let room = match self.known(shard) {
            Some(known) if known.elsewhere.load(Ordering::Acquire) => self.submit_far(known, shard, conn, messages),
            _ => self
                .inboxes
                .of(shard)
                .is_none_or(|inbox| inbox.take_from(self.id, conn, messages)),
        };
        messages.clear();
        room
    }

    /// As [`Self::submit`], to a shard on another node: what that has not taken is bounded like what waits in an inbox here.
    fn submit_far(&self, known: &Known, shard: ShardId, conn: Conn, messages: &mut Vec<(Term, ToShard)>) -> bool {
        let (messages_max, bytes_max) = self.inboxes.bounds();
        // Held meanwhile: once the link is said to have broken, nothing more of this term is sent.
        let mut state = lock(&known.state);
        let (Standing { term, leads, .. }, node) = (state.standing, state.node);
        for (of, message) in messages.drain(..) {
            if of != term || !leads {
                // It is said again when somebody leads.
                continue;
            }
            state.messages += 1;
            state.bytes += bytes_of(&message) as u64;
            let item = Item::ToShard {
                to: shard,
                term,
                message,
            };
            self.outboxes.send(node, &item);
        }
        let room = state.messages < messages_max as u64 && state.bytes < bytes_max as u64;
        if !room {
            state.held.push(conn);
        }
        room
    }

    /// The leader on another node has taken so much.
    pub(crate) fn taken(&self, shard: ShardId, term: Term, messages: u64, bytes: u64) {
        let Some(known) = self.known(shard) else { return };
        let (messages_max, bytes_max) = self.inboxes.bounds();
        let mut held = {
            let mut state = lock(&known.state);
            if state.standing.term != term {
                return metrics::fenced();
            }
            state.messages = state.messages.saturating_sub(messages);
            state.bytes = state.bytes.saturating_sub(bytes);
            if state.messages >= messages_max as u64 || state.bytes >= bytes_max as u64 {
                return;
            }
            std::mem::take(&mut state.held)
        };
        self.has_room(&mut held);
    }

    /// Has a part of what this edge holds of a shard sent to whoever leads it.
    pub(super) fn attach(&self, shard: ShardId, term: Term, message: ToShard) {
        let Some(known) = self.known(shard) else { return };
        let state = lock(&known.state);
        if state.standing.term != term {
            return;
        }
        if state.standing.elsewhere {
            let item = Item::ToShard {
                to: shard,
                term,
                message,
            };
            self.outboxes.send(state.node, &item);
        } else {
            drop(state);
            self.inboxes.take_one(shard, self.id, term, message);
        }
    }

    /// A new connection.
    pub(super) fn open(&self) -> Arc<Port> {
        let table = self.next_table.fetch_add(1, Ordering::Relaxed) % TABLES;
        let mut slots = lock(&self.tables[table]);
        let index = slots.free.pop().unwrap_or_else(|| {
            slots.slots.push(Slot::default());
            // Far fewer sockets than that can be open.
            (slots.slots.len() - 1) as u32
        });
        let slot = &mut slots.slots[index as usize];
        slot.uses += 1;
        let number = (u64::from(slot.uses) << 32) | (u64::from(index) * TABLES as u64) | table as u64;
        let port = Arc::new(Port::new(Conn(number)));
        slot.port = Some(Arc::clone(&port));
        drop(slots);
        self.open.fetch_add(1, Ordering::AcqRel);
        metrics::opened();
        port
    }

    /// A connection is no more.
    pub(super) fn close(&self, conn: Conn) {
        let (table, index) = place(conn);
        let mut slots = lock(&self.tables[table]);
        if let Some(slot) = slots.slots.get_mut(index) {
            slot.port = None;
            slots.free.push(index as u32);
        }
        drop(slots);
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.emptied.notify_waiters();
        }
    }

    fn port(&self, conn: Conn) -> Option<Arc<Port>> {
        let (table, index) = place(conn);
        let slots = lock(&self.tables[table]);
        let port = slots.slots.get(index)?.port.as_ref()?;
        (port.conn() == conn).then(|| Arc::clone(port))
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// A device has sent a stanza.
    pub(super) fn has_read(&self) {
        self.read.fetch_add(1, Ordering::Relaxed);
    }

    /// How many stanzas devices have sent since the node started.
    pub(crate) fn accepted(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// A shard says something to a connection. What is not of its highest term is refused (DESIGN §4.6). Connections that are to
    /// wake for it are added to `woken`, for [`Self::wake`].
    pub(crate) fn take_from(&self, shard: ShardId, term: Term, message: ToEdge, woken: &mut Vec<Arc<Port>>) {
        if self.standing(shard).term != term {
            return metrics::fenced();
        }
        let conn = match &message {
            ToEdge::Accepted(accepted) => {
                for (conn, up_to) in accepted {
                    woken.extend(self.port(*conn).filter(|port| port.accepted(*up_to)));
                }
                return;
            }
            ToEdge::Credentials { conn, .. }
            | ToEdge::Registered { conn, .. }
            | ToEdge::Bound { conn, .. }
            | ToEdge::Resumed { conn, .. }
            | ToEdge::Managed { conn, .. }
            | ToEdge::Remember { conn, .. }
            | ToEdge::Deliver { conn, .. }
            | ToEdge::Detached { conn }
            | ToEdge::Close { conn, .. } => *conn,
            // These are announced.
            ToEdge::Lead | ToEdge::Leading => return,
        };
        // A connection that is gone has nothing of the shard's any more.
        if let Some(port) = self.port(conn)
            && port.put(ToConnection::Shard(message))
        {
            woken.push(port);
        }
    }

    /// Wakes these connections, from one of the edge's own threads: other threads would have to rouse them for each of them.
    pub(crate) fn wake(&self, ports: &mut Vec<Arc<Port>>) {
        if ports.is_empty() {
            return;
        }
        lock(&self.woken).append(ports);
        self.wake.notify_one();
    }

    /// Wakes connections for other threads, for ever.
    pub(super) async fn carry(&self) {
        loop {
            self.wake.notified().await;
            let woken = std::mem::take(&mut *lock(&self.woken));
            woken.iter().for_each(|port| port.wake());
        }
    }

    /// A shard begins a new term on that node, or has caught up in it. Connections that have to do with it hear of it in its turn.
    pub(crate) fn announce(self: &Arc<Self>, shard: ShardId, node: NodeId, term: Term, leads: bool) {
        let Some(known) = self.known(shard) else { return };
        let mut held = {
            let mut state = lock(&known.state);
            let expected = if leads {
                state.standing.term == term
            } else {
                state.standing.term < term
            };
            if !expected {
                return metrics::fenced();
            }
            let elsewhere = node != self.id.node;
            state.node = node;
            state.standing = Standing { term, leads, elsewhere };
            known.elsewhere.store(elsewhere, Ordering::Release);
            if leads {
                Vec::new()
            } else {
                (state.messages, state.bytes) = (0, 0);
                std::mem::take(&mut state.held)
            }
        };
        self.has_room(&mut held);
        if leads {
            return self.for_each(|port| port.send_if_of(shard, || ToConnection::Leading(term)));
        }
        let attaching = Arc::new(Attaching::new(shard, term, Arc::clone(self)));
        self.for_each(|port| port.send_if_of(shard, || ToConnection::Lead(Arc::clone(&attaching))));
    }

    /// Who led a shard in this term does so no more, and nobody is known who does. Nothing is sent to it until somebody says so in
    /// a higher term.
    pub(crate) fn resigned(&self, shard: ShardId, term: Term) {
        let known = self.known(shard);
        let Some(known) = known.filter(|known| lock(&known.state).standing.term == term) else {
            return;
        };
        self.suspend(known);
    }

    /// There is no link to that node any more: nobody is known to lead what it led.
    pub(crate) fn unreachable(&self, node: NodeId) {
        for known in &self.shards {
            if lock(&known.state).node == node {
                self.suspend(known);
            }
        }
    }

    fn suspend(&self, known: &Known) {
        let mut held = {
            let mut state = lock(&known.state);
            state.standing.leads = false;
            std::mem::take(&mut state.held)
        };
        // What they read they keep, within their own bounds.
        self.has_room(&mut held);
    }

    /// Ends the streams of shards that have had no leader for `timeout` (DESIGN §4.6).
    pub(super) fn end_orphans(&self, elapsed: Duration, timeout: Duration) {
        for (known, shard) in self.shards.iter().zip(0..) {
            {
                let mut state = lock(&known.state);
                if state.standing.leads {
                    state.leaderless = None;
                    continue;
                }
                let since = *state.leaderless.get_or_insert(elapsed);
                if elapsed.saturating_sub(since) < timeout {
                    continue;
                }
                // Whoever comes meanwhile has as long.
                state.leaderless = Some(elapsed);
            }
            self.for_each(|port| port.send_if_of(ShardId(shard), || ToConnection::Orphaned));
        }
    }

    /// There is room in a shard's inbox: these connections may send again.
    pub(crate) fn has_room(&self, held: &mut Vec<Conn>) {
        for port in held.drain(..).filter_map(|conn| self.port(conn)) {
            port.send(ToConnection::HasRoom);
        }
    }

    /// The connection wants to hear, once, that time has passed.
    pub(super) fn tick_later(&self, port: &Port) {
        if port.wants_tick() {
            lock(&self.ticking).push(port.conn());
        }
    }

    /// Time has passed.
    pub(super) fn tick(&self) {
        let ticking = std::mem::take(&mut *lock(&self.ticking));
        for port in ticking.into_iter().filter_map(|conn| self.port(conn)) {
            port.tick();
        }
    }

    /// Ends all streams with this error.
    pub(super) fn end_all(&self, error: &StreamError) {
        self.for_each(|port| port.send(ToConnection::End(error.clone())));
    }

    /// Waits until there is no connection.
    pub(super) async fn until_empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.connections() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// The next connections after `cursor`, which goes round: at most `count`, and none twice in one call.
    pub(super) fn after(&self, cursor: &mut usize, count: usize) -> Vec<Arc<Port>> {
        let mut found = Vec::new();
        // As a number, so that the end of one table is the beginning of the next.
        let (first, mut table) = (*cursor % TABLES, *cursor % TABLES);
        let mut index = *cursor / TABLES;
        loop {
            let slots = lock(&self.tables[table]);
            while found.len() < count && index < slots.slots.len() {
                found.extend(slots.slots[index].port.clone());
                index += 1;
            }
            drop(slots);
            if found.len() == count {
                break;
            }
            (table, index) = ((table + 1) % TABLES, 0);
            if table == first {
                break;
            }
        }
        *cursor = index * TABLES + table;
        found
    }

    fn for_each(&self, mut each: impl FnMut(&Port)) {
        for table in &self.tables {
            let ports: Vec<_> = lock(table).slots.iter().filter_map(|slot| slot.port.clone()).collect();
            ports.iter().for_each(|port| each(port));
        }
    }
}

/// Where a connection stands in the table.
fn place(conn: Conn) -> (usize, usize) {
    let low = (conn.0 & u64::from(u32::MAX)) as usize;
    (low % TABLES, low / TABLES)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::ShardLimits;

    fn hub() -> Arc<Hub> {
        let id = EdgeId {
            node: NodeId(1),
            start: 2,
        };
        let inboxes = Arc::new(Inboxes::new(2, &ShardLimits::default()));
        let outboxes = Arc::new(Outboxes::default());
        Arc::new(Hub::new(id, ShardMap::even(2), inboxes, outboxes, Traces::off()))
    }

    #[test]
    fn going_round_by_handfuls_finds_each_connection_once() {
        let hub = hub();
        let mut ports: Vec<_> = (0..100).map(|_| hub.open()).collect();
        for gone in ports.drain(..30) {
            hub.close(gone.conn());
        }
        let mut cursor = 0;
        for _round in 0..3 {
            let mut seen = std::collections::HashSet::new();
            while seen.len() < ports.len() {
                let found = hub.after(&mut cursor, 7);
                assert_eq!(found.len(), 7);
                assert!(found.iter().all(|port| seen.insert(port.conn())), "one came twice");
            }
        }
        // More than there are: each, and none twice.
        assert_eq!(hub.after(&mut 0, 1000).len(), ports.len());
    }

    #[test]
    fn no_connection_has_a_number_that_another_had() {
        let hub = hub();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..5 {
            let ports: Vec<_> = (0..40).map(|_| hub.open()).collect();
            for port in &ports {
                assert!(seen.insert(port.conn()), "{:?} again", port.conn());
                assert!(hub.port(port.conn()).is_some());
            }
            for port in &ports {
                hub.close(port.conn());
                assert!(hub.port(port.conn()).is_none());
            }
        }
        assert_eq!(hub.connections(), 0);
    }

    #[test]
    fn a_lower_term_is_not_heard_any_more() {
        let hub = hub();
        let (shard, one, two) = (ShardId(1), Term { term: 1, round: 0 }, Term { term: 2, round: 0 });
        hub.announce(shard, NodeId(1), one, false);
        hub.announce(shard, NodeId(1), one, true);
        hub.announce(shard, NodeId(1), two, false);
        hub.announce(shard, NodeId(1), one, true);
        assert_eq!(
            hub.standing(shard),
            Standing {
                term: two,
                leads: false,
                elsewhere: false,
            }
        );
        let port = hub.open();
        let (conn, waker) = (port.conn(), std::task::Waker::noop());
        hub.take_from(shard, one, ToEdge::Detached { conn }, &mut Vec::new());
        assert!(port.take(waker).messages.is_empty());
        hub.take_from(shard, two, ToEdge::Detached { conn }, &mut Vec::new());
        assert_eq!(port.take(waker).messages.len(), 1);
    }
}
