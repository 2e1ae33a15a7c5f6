//! The rows of a session: that it exists, and what it could not hand to its device.

use bytes::Bytes;

use crate::jid::{BareJid, FullJid, Jid};
use crate::link::{Memory, Origin, SessionId};
use crate::rows::{Key, Table, account_key};
use crate::stanza::Stanza;

use super::Item;

/// That a session exists, and where. Written at bind, enable, detach and resume; removed at unbind.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SessionRow {
    #[prost(string, tag = "1")]
    pub(crate) resource: String,
    #[prost(uint64, tag = "2")]
    pub(crate) edge_node: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) edge_start: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) conn: u64,
    #[prost(message, optional, tag = "5")]
    pub(crate) managed: Option<ManagedRow>,
    /// Zero while attached, else when the session ends, in the shard's microseconds.
    #[prost(uint64, tag = "6")]
    pub(crate) detached_until: u64,
    /// The counters as of the last detach: valid until an edge attaches the session.
    #[prost(uint64, tag = "7")]
    pub(crate) accepted: u64,
    #[prost(uint64, tag = "8")]
    pub(crate) last: u64,
    #[prost(uint64, tag = "9")]
    pub(crate) released: u64,
    #[prost(uint32, tag = "10")]
    pub(crate) acknowledged: u32,
    /// The last presence without a `to`, while available, as of the last detach: [`Stanza::encode`].
    #[prost(bytes = "bytes", optional, tag = "11")]
    pub(crate) presence: Option<Bytes>,
    /// As of the last detach.
    #[prost(message, optional, tag = "12")]
    pub(crate) memory: Option<MemoryRow>,
    /// What the device had been given lately, as of then.
    #[prost(message, repeated, tag = "13")]
    pub(crate) given: Vec<OriginRow>,
}

/// [`Origin`] at rest.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OriginRow {
    /// The session that sent the stanza; empty when it was no frame of a device.
    #[prost(bytes = "vec", tag = "1")]
    session: Vec<u8>,
    /// The frame that it was there; without a session, the recipient's own frame that it answers.
    #[prost(uint64, tag = "2")]
    frame: u64,
    /// The stamp of a stored stanza.
    #[prost(uint64, tag = "3")]
    stamp: u64,
}

impl OriginRow {
    /// `None` for what is never repeated.
    pub(crate) fn new(origin: Origin) -> Option<Self> {
        let row = match origin {
            Origin::Frame { session, frame } => Self {
                session: session.to_bytes().to_vec(),
                frame,
                stamp: 0,
            },
            Origin::Answer { frame } => Self {
                frame,
                ..Self::default()
            },
            Origin::Stored { stamp } => Self {
                stamp,
                ..Self::default()
            },
            Origin::None => return None,
        };
        Some(row)
    }

    pub(crate) fn origin(&self) -> Origin {
        match (SessionId::from_bytes(&self.session), self.frame) {
            (Some(session), frame) => Origin::Frame { session, frame },
            (None, 0) => Origin::Stored { stamp: self.stamp },
            (None, frame) => Origin::Answer { frame },
        }
    }
}

/// [`Memory`] at rest.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MemoryRow {
    #[prost(bool, tag = "1")]
    roster: bool,
    #[prost(bool, tag = "2")]
    blocklist: bool,
    #[prost(bool, tag = "3")]
    carbons: bool,
    #[prost(string, repeated, tag = "4")]
    directed: Vec<String>,
}

impl From<&Memory> for MemoryRow {
    fn from(memory: &Memory) -> Self {
        Self {
            roster: memory.roster,
            blocklist: memory.blocklist,
            carbons: memory.carbons,
            directed: memory.directed.iter().map(|jid| jid.as_str().to_owned()).collect(),
        }
    }
}

impl From<MemoryRow> for Memory {
    fn from(row: MemoryRow) -> Self {
        Self {
            roster: row.roster,
            blocklist: row.blocklist,
            carbons: row.carbons,
            directed: row.directed.iter().filter_map(|jid| Jid::parse(jid).ok()).collect(),
        }
    }
}

/// XEP-0198 as agreed.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ManagedRow {
    /// SHA-256 of the SM-ID: the id itself is a bearer secret.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) id_hash: Vec<u8>,
    /// How long the session outlives its socket, in seconds.
    #[prost(uint32, tag = "2")]
    pub(crate) max: u32,
    /// The frame after which the device's stanzas count.
    #[prost(uint64, tag = "3")]
    pub(crate) frame_base: u64,
    /// The delivery after which ours count.
    #[prost(uint64, tag = "4")]
    pub(crate) delivery_base: u64,
    #[prost(bool, tag = "5")]
    pub(crate) resumable: bool,
}

/// A stanza that waits for its session's device.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct QueueRow {
    /// [`Stanza::encode`].
    #[prost(bytes = "bytes", tag = "1")]
    stanza: Bytes,
    /// When it was accepted, in the shard's microseconds.
    #[prost(uint64, tag = "2")]
    pub(crate) at: u64,
    /// It was under way when the session lost its socket, and counts under XEP-0198.
    #[prost(bool, tag = "3")]
    pub(crate) counted: bool,
    /// The session that sent it.
    #[prost(bytes = "vec", tag = "4")]
    origin_session: Vec<u8>,
    /// The frame that it was there; without a session, the recipient's own frame that it answers.
    #[prost(uint64, tag = "5")]
    origin_frame: u64,
}

impl QueueRow {
    pub(crate) fn new(item: &Item, counted: bool) -> Self {
        let (origin_session, origin_frame) = match item.origin {
            Origin::Frame { session, frame } => (session.to_bytes().to_vec(), frame),
            Origin::Answer { frame } => (Vec::new(), frame),
            Origin::Stored { .. } | Origin::None => (Vec::new(), 0),
        };
        Self {
            stanza: item.stanza.encode(),
            at: item.at.0,
            counted,
            origin_session,
            origin_frame,
        }
    }

    /// The stanza, unless the row is not one of ours.
    pub(crate) fn stanza(&self) -> Option<Stanza> {
        Stanza::decode(self.stanza.clone()).ok()
    }

    /// What the edge knows the stanza by.
    pub(crate) fn origin(&self) -> Origin {
        match (SessionId::from_bytes(&self.origin_session), self.origin_frame) {
            (Some(session), frame) => Origin::Frame { session, frame },
            (None, 0) => Origin::Stored { stamp: self.at },
            (None, frame) => Origin::Answer { frame },
        }
    }
}

/// Orders from here on are of stanzas that came while the session could not take them.
pub(crate) const WAITING: u64 = 1 << 63;

/// The key of a session's row.
pub(crate) fn session_key(account: &BareJid, session: SessionId) -> Key {
    account_key(Table::Session, account.as_str(), &session.to_bytes())
}

/// What the keys of a session's queue begin with.
pub(crate) fn queue_prefix(full: &FullJid, session: SessionId) -> Key {
    account_key(Table::Queue, full.bare_str(), &session.to_bytes())
}

/// The key of a queue row. What was under way has its delivery number as order; what came later comes after all of those.
pub(crate) fn queue_key(full: &FullJid, session: SessionId, order: u64) -> Key {
    let mut rest = [0; 22];
    rest[..14].copy_from_slice(&session.to_bytes());
    rest[14..].copy_from_slice(&order.to_be_bytes());
    account_key(Table::Queue, full.bare_str(), &rest)
}
