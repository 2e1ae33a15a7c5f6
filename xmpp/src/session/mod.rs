//! One bound resource of an account: its frames, its deliveries, its row.
//!
//! That a session exists is replicated (its row); what it last said is not: its edge keeps a copy and attaches it again
//! (DESIGN §4.4). This module is the record; what happens to it is decided in [`crate::shard`].

mod inbound;
mod outbound;
mod repeats;
mod row;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use inbound::{FRAMES_MAX, Inbound, Numbered};
pub(crate) use outbound::{Item, Outbound, Queued, Receipt};
pub(crate) use repeats::Repeats;
pub(crate) use row::{
    ManagedRow, MemoryRow, OriginRow, QueueRow, SessionRow, WAITING, queue_key, queue_prefix, session_key,
};

use crate::feature::Audience;
use crate::jid::{FullJid, Jid};
use crate::link::{Conn, EdgeId, Memory, Origin, SessionId};
use crate::rows::Key;
use crate::stanza::Stanza;

/// How much of what its device was given lately goes into a session's row, and with it from one edge to the next.
const GIVEN_MAX: usize = 2048;

/// One bound resource.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) full: FullJid,
    pub(crate) edge: EdgeId,
    pub(crate) conn: Conn,
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
    /// XEP-0198, once enabled.
    pub(crate) managed: Option<Box<ManagedRow>>,
    /// RFC 6121 §4.7.2.3: the priority, while the resource is available.
    pub(crate) priority: Option<i8>,
    /// The last presence without a `to`, while available.
    pub(crate) presence: Option<Arc<Stanza>>,
    /// What else the device has said; most say nothing.
    pub(crate) memory: Option<Arc<Memory>>,
    /// Whether the account blocks anybody (XEP-0191): else there is no row to look for.
    pub(crate) blocks: bool,
    /// What the device has been given lately and has confirmed: for the edge at which the session is resumed.
    pub(crate) given: Option<Box<Repeats>>,
    /// Set while stanzas for this session are rows first: it is detached, or its queue is being drained.
    pub(crate) drain: Option<Box<Drain>>,
}

/// A session whose stanzas go through rows: it is detached, or rows wait for its device.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    /// Without a socket until then, in the shard's microseconds; `None` while attached.
    pub(crate) detached_until: Option<u64>,
    /// What is being read.
    pub(crate) stage: Stage,
    /// The last row read of that stage.
    pub(crate) read: Option<Key>,
    /// A page of rows has been asked for, with this ticket.
    pub(crate) reading: Option<u64>,
    /// Rows were committed after that page was asked for.
    pub(crate) written: bool,
    /// Rows of the queue that are evaluated and not committed.
    pub(crate) uncommitted: usize,
    /// The account's store shall be read.
    pub(crate) stored: bool,
    /// What is in the store is not all committed: it shall be read when it is.
    pub(crate) stored_soon: usize,
    /// Bytes of the rows written to the queue.
    pub(crate) queued_bytes: usize,
}

/// The order in which rows reach a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// What was under way when the session lost its socket, or was made a row before it was sent.
    #[default]
    UnderWay,
    /// What the account stored while nobody could take it.
    Stored,
    /// What came for the session while it could not take it.
    Waiting,
}

impl Session {
    /// Whether a socket holds this session.
    pub(crate) fn is_attached(&self) -> bool {
        self.detached_until().is_none()
    }

    /// When the session ends unless it is resumed, while detached.
    pub(crate) fn detached_until(&self) -> Option<u64> {
        self.drain.as_ref().and_then(|drain| drain.detached_until)
    }

    /// Whether XEP-0198 resumption was agreed.
    pub(crate) fn is_resumable(&self) -> bool {
        self.managed.as_ref().is_some_and(|managed| managed.resumable)
    }

    /// RFC 6121 §8.5: whether messages to the bare JID may go to this resource.
    pub(crate) fn takes_bare(&self) -> bool {
        self.priority.is_some_and(|priority| priority >= 0)
    }

    /// Whether it asked to hear of changes of that kind.
    pub(crate) fn hears(&self, audience: Audience) -> bool {
        let memory = self.memory.as_deref();
        match audience {
            // Only who asks knows which one that is.
            Audience::Origin => false,
            Audience::Available => self.priority.is_some(),
            Audience::Interested => memory.is_some_and(|memory| memory.roster),
            Audience::Blocklist => memory.is_some_and(|memory| memory.blocklist),
            Audience::Carbons => memory.is_some_and(|memory| memory.carbons),
        }
    }

    /// Whether it has sent presence of its own accord to `other`, or to the account of `other` (RFC 6121 §4.6).
    pub(crate) fn shows_itself_to(&self, other: &Jid) -> bool {
        let directed = self.memory.as_ref().map_or(&[][..], |memory| &memory.directed);
        directed.iter().any(|to| to == other || to.as_str() == other.bare_str())
    }

    /// The device has been given these, and has confirmed it.
    pub(crate) fn note_given(&mut self, origins: impl IntoIterator<Item = Origin>, elapsed: Duration) {
        for origin in origins {
            if origin != Origin::None {
                self.given.get_or_insert_default().note(origin, elapsed);
            }
        }
    }

    /// Forgets what the device was given when nobody will send it again; says whether there is something left to forget.
    pub(crate) fn forget_given(&mut self, elapsed: Duration) -> bool {
        self.given.take_if(|given| given.is_stale(elapsed));
        self.given.is_some()
    }

    /// What the device has been given lately, no more than a row or a message holds.
    pub(crate) fn given(&self) -> Vec<Origin> {
        let mut seen = self.given.as_ref().map(|given| given.seen()).unwrap_or_default();
        seen.drain(..seen.len().saturating_sub(GIVEN_MAX));
        seen
    }

    /// The row as it should be now.
    pub(crate) fn row(&self) -> SessionRow {
        SessionRow {
            resource: self.full.resource().to_owned(),
            edge_node: self.edge.node.0,
            edge_start: self.edge.start,
            conn: self.conn.0,
            managed: self.managed.as_deref().cloned(),
            detached_until: self.detached_until().unwrap_or_default(),
            accepted: self.inbound.accepted(),
            last: self.outbound.last(),
            released: self.outbound.released(),
            acknowledged: self.outbound.acknowledged(),
            presence: self.presence.as_ref().map(|presence| presence.encode()),
            memory: self.memory.as_deref().map(MemoryRow::from),
            given: self.given().into_iter().filter_map(OriginRow::new).collect(),
        }
    }
}
