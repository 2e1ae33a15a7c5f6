//! One bound resource of an account: its frames, its deliveries, its row.
//!
//! That a session exists is replicated (its row); what it last said is not: its edge keeps a copy and attaches it again
//! (DESIGN §4.4). This module is the record; what happens to it is decided in [`crate::shard`].

mod inbound;
mod outbound;
mod row;

use std::sync::Arc;

pub(crate) use inbound::{Inbound, Numbered};
pub(crate) use outbound::{Outbound, Queued, Receipt};
pub(crate) use row::{ManagedRow, QueueRow, SessionRow, WAITING, queue_key, queue_prefix, session_key};

use crate::jid::FullJid;
use crate::link::{Conn, EdgeId, SessionId};
use crate::rows::Key;
use crate::stanza::Stanza;

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
    /// A page of rows has been asked for.
    pub(crate) reading: bool,
    /// Rows were written after that page was asked for.
    pub(crate) written: bool,
    /// The account's store shall be read (again) when this is done.
    pub(crate) stored: bool,
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
            priority: self.priority.map(i32::from),
        }
    }
}
