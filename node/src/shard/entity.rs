//! Entities with an actor of their own. A session is a record in its shard; while rows are to be read for it, which may take
//! a while, it has an actor that does so, and for a moment after (DESIGN §2).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use heronry_cluster::{Rows as _, ShardRows, blocking};
use heronry_xmpp::{
    link::{ShardId, Term},
    rows::RowsError,
    shard::{Read, Reader},
};
use ractor::{Actor, ActorProcessingErr, ActorRef, ActorRuntime};

use super::{
    ShardLimits,
    inbox::{Control, Inboxes},
    metrics,
};

/// What reads rows for a shard: active sessions, and notifications.
pub(super) struct Entities {
    shard: ShardId,
    rows: ShardRows,
    inboxes: Arc<Inboxes>,
    limits: ShardLimits,
    active: HashMap<Reader, Active>,
    /// Pages that wait until fewer sessions are active; each session wants one at most.
    deferred: VecDeque<(Term, Read)>,
}

struct Active {
    actor: ActorRef<Page>,
    last_used: Duration,
    /// Pages it has been asked for and not delivered.
    reading: u32,
}

/// A page to be read.
pub(super) struct Page {
    term: Term,
    read: Read,
}

impl Entities {
    pub(super) fn new(shard: ShardId, rows: ShardRows, inboxes: Arc<Inboxes>, limits: ShardLimits) -> Self {
        Self {
            shard,
            rows,
            inboxes,
            limits,
            active: HashMap::new(),
            deferred: VecDeque::new(),
        }
    }

    /// Has a page read; it comes as [`Control::Page`].
    pub(super) fn read(&mut self, term: Term, read: Read, elapsed: Duration) {
        let full = self.active.len() >= self.limits.entities_active_max;
        if full && !self.active.contains_key(&read.reader) {
            metrics::entity_deferred();
            return self.deferred.push_back((term, read));
        }
        let Some(active) = self.activated(read.reader, elapsed) else {
            let rows = Err(RowsError("no actor could be started".to_owned()));
            return self.give(Control::Page {
                term,
                reader: read.reader,
                ticket: read.ticket,
                rows,
            });
        };
        active.last_used = elapsed;
        active.reading += 1;
        // It ends only when we say so.
        let _ = active.actor.cast(Page { term, read });
    }

    fn activated(&mut self, reader: Reader, elapsed: Duration) -> Option<&mut Active> {
        if !self.active.contains_key(&reader) {
            let entity = Entity {
                shard: self.shard,
                rows: self.rows.clone(),
                inboxes: Arc::clone(&self.inboxes),
            };
            let (actor, _) = ActorRuntime::spawn_instant(None, entity, ()).ok()?;
            metrics::entity_activated();
            let active = Active {
                actor,
                last_used: elapsed,
                reading: 0,
            };
            self.active.insert(reader, active);
        }
        self.active.get_mut(&reader)
    }

    /// A page has come.
    pub(super) fn page_read(&mut self, reader: Reader) {
        if let Some(active) = self.active.get_mut(&reader) {
            active.reading = active.reading.saturating_sub(1);
        }
    }

    /// Ends the actors that have had nothing to do for a while, and lets deferred pages be read.
    pub(super) fn passivate(&mut self, elapsed: Duration) {
        let linger = self.limits.entity_linger;
        let idle = |active: &mut Active| active.reading == 0 && elapsed.saturating_sub(active.last_used) >= linger;
        for (_, active) in self.active.extract_if(|_, active| idle(active)) {
            active.actor.stop(None);
            metrics::entity_passivated();
        }
        while self.active.len() < self.limits.entities_active_max {
            let Some((term, read)) = self.deferred.pop_front() else {
                return;
            };
            self.read(term, read, elapsed);
        }
    }

    /// The shard starts over: nothing that was asked for is wanted any more.
    pub(super) fn forget(&mut self) {
        self.deferred.clear();
    }

    fn give(&self, control: Control) {
        if let Some(inbox) = self.inboxes.of(self.shard) {
            inbox.control(control);
        }
    }
}

impl Drop for Entities {
    fn drop(&mut self) {
        for active in self.active.values() {
            active.actor.stop(None);
            metrics::entity_passivated();
        }
    }
}

/// An active session.
struct Entity {
    shard: ShardId,
    rows: ShardRows,
    inboxes: Arc<Inboxes>,
}

impl Actor for Entity {
    type Msg = Page;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Page>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Page>, page: Page, (): &mut ()) -> Result<(), ActorProcessingErr> {
        let Page { term, read } = page;
        let (reader, ticket, rows) = (read.reader, read.ticket, self.rows.clone());
        // The disk may be slow, and the threads of shards must not wait for it.
        let scan = blocking(move || rows.scan(&read.prefix, &read.from, read.limit));
        let rows = scan.await.unwrap_or_else(|error| Err(RowsError(error.to_string())));
        if let Some(inbox) = self.inboxes.of(self.shard) {
            inbox.control(Control::Page {
                term,
                reader,
                ticket,
                rows,
            });
        }
        Ok(())
    }
}
