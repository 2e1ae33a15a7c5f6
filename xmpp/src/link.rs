//! What edges and shards, and shards among themselves, say to each other.
//!
//! Edge and core are two parties that exchange these messages, also inside one process. Between any two of them messages
//! arrive in the order they were sent or not at all: when one of them dies, or when the link between their nodes breaks, after
//! which nothing follows in the same term. Every message carries the shard it is about
//! and the [`Term`] in which its sender knows that shard: receivers remember the highest term per shard and refuse
//! lower ones, so whoever led before cannot act any more. Between shards it carries both: that of the sender, and the one in which
//! the sender knows the receiver.
//!
//! One rule keeps both sides simple: **nothing is sent into a term before that term has said [`ToEdge::Leading`]** (or, to other
//! shards, that it leads). Until then an edge keeps what it read and a shard keeps what it wants to forward; both then send
//! all that is unanswered again, in order, marked as a repeat.

use std::sync::Arc;

use bytes::Bytes;

use crate::jid::{BareJid, FullJid, Jid};
use crate::rows::Timestamp;
use crate::sasl::{Credentials, ScramHash, ScramKeys};
use crate::stanza::{Stanza, StanzaError};
use crate::stream::StreamError;
use crate::xep::pubsub::Standing;
use crate::xep::pubsub::effect::PubsubEffect;

/// A set of slots whose entities are evaluated in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// The fencing number of a shard: grows each time evaluation starts over, be it elsewhere (`term`) or in the same place
/// after a batch could not be committed (`round`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    /// Given by whoever decides where a shard is evaluated; never goes back.
    pub term: u64,
    /// Counts the fresh starts within `term`.
    pub round: u32,
}

/// A cluster node, by the random id in its data directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// One life of an edge: a restarted edge is another one, its predecessor's sockets are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeId {
    /// The cluster node the edge runs on.
    pub node: NodeId,
    /// Random per start of the process.
    pub start: u64,
}

/// A socket of an edge; never used twice in one life of the edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conn(pub u64);

/// One bound resource, from bind to unbind, across any number of sockets. Of two sessions with one full JID the higher wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    /// The term in which the session was bound.
    pub term: u64,
    /// Counts the sessions bound in that term by that shard.
    pub counter: u32,
    /// The shard that bound it.
    pub shard: u16,
}

impl SessionId {
    /// The id as it stands in row keys: order-preserving.
    pub fn to_bytes(self) -> [u8; 14] {
        let mut bytes = [0; 14];
        bytes[..8].copy_from_slice(&self.term.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.counter.to_be_bytes());
        bytes[12..].copy_from_slice(&self.shard.to_be_bytes());
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 14] = bytes.try_into().ok()?;
        let (term, rest) = bytes.split_first_chunk::<8>()?;
        let (counter, rest) = rest.split_first_chunk::<4>()?;
        let (shard, _) = rest.split_first_chunk::<2>()?;
        Some(Self {
            term: u64::from_be_bytes(*term),
            counter: u32::from_be_bytes(*counter),
            shard: u16::from_be_bytes(*shard),
        })
    }
}

/// What a stanza stems from. The recipient's edge drops a stanza whose origin it has already had, so a repeat after a
/// failover is not seen by the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Sent by a device: the `frame`-th stanza of that session.
    Frame {
        /// The sender's session.
        session: SessionId,
        /// The sender's frame number.
        frame: u64,
    },
    /// An answer (result, bounce) to the recipient's own `frame`-th stanza.
    Answer {
        /// The frame that is answered.
        frame: u64,
    },
    /// A stored stanza, by its place in the account's store.
    Stored {
        /// The row's stamp.
        stamp: u64,
    },
    /// The broker's own, never repeated.
    None,
}

/// From an edge to the shard of the account it serves.
#[derive(Clone, Debug)]
pub enum ToShard {
    /// Asks for what is needed to verify this account's password; answered by [`ToEdge::Credentials`].
    Credentials {
        /// Where the answer goes.
        conn: Conn,
        /// Whose.
        account: BareJid,
        /// The hash of the chosen mechanism; `None` for PLAIN: any key the account has.
        hash: Option<ScramHash>,
    },
    /// XEP-0077: asks for a new account; answered by [`ToEdge::Registered`]. Asked again with the same keys it is the same request.
    Register {
        /// Where the answer goes.
        conn: Conn,
        /// Its address.
        account: BareJid,
        /// Keys made of its password.
        keys: Box<[ScramKeys]>,
    },
    /// Asks for a session; answered by [`ToEdge::Bound`].
    Bind {
        /// The authenticated connection.
        conn: Conn,
        /// The authenticated account.
        account: BareJid,
        /// The resource asked for; the account chooses when absent (RFC 6120 §7.6).
        resource: Option<Box<str>>,
        /// The version of the credentials that were verified.
        version: u64,
    },
    /// XEP-0198 §5: asks for a former session; answered by [`ToEdge::Resumed`].
    Resume {
        /// The authenticated connection.
        conn: Conn,
        /// The authenticated account.
        account: BareJid,
        /// The version of the credentials that were verified.
        version: u64,
        /// The SM-ID of the former stream.
        previd: Box<str>,
        /// How many stanzas the device has handled.
        h: u32,
    },
    /// XEP-0198 §3: asks for stream management; the edge reads no further until [`ToEdge::Managed`].
    Enable {
        /// The session's connection.
        conn: Conn,
        /// Which session.
        session: SessionId,
        /// The last frame before `<enable/>`: the device's count starts after it.
        base: u64,
        /// Whether the session shall be resumable.
        resume: bool,
        /// The resumption time the device would like, in seconds.
        max: Option<u32>,
    },
    /// One stanza of the device.
    Submit {
        /// The session's connection.
        conn: Conn,
        /// Which session.
        session: SessionId,
        /// Its number, from 1.
        frame: u64,
        /// Up to where the edge has heard that frames are accepted.
        settled: u64,
        /// Whether the edge sent it before, to whoever led then.
        repeat: bool,
        /// The stanza.
        stanza: Arc<Stanza>,
        /// What the edge found out about it.
        finding: Option<Box<Finding>>,
    },
    /// How far deliveries have come.
    Progress {
        /// The session's connection.
        conn: Conn,
        /// Which session.
        session: SessionId,
        /// The last delivery that is at the edge.
        received: u64,
        /// The last delivery the core may forget: written to the socket or, under XEP-0198, acknowledged by the device.
        released: u64,
        /// Deliveries the edge dropped as repeats: they do not count for the device.
        voided: Vec<u64>,
    },
    /// The socket is gone; answered by [`ToEdge::Detached`].
    Detach {
        /// The connection that was.
        conn: Conn,
        /// Which session.
        session: SessionId,
        /// The last delivery the core may forget.
        released: u64,
        /// Deliveries the edge dropped as repeats.
        voided: Vec<u64>,
        /// Whether the device closed its stream (RFC 6120 §4.4) or a stream error did: then there is nothing to resume.
        clean: bool,
    },
    /// The answer to [`ToEdge::Lead`]: everything this edge holds of the shard.
    Attach {
        /// Its sessions, a part of them.
        sessions: Vec<Attachment>,
        /// Connections that wait for an answer to bind or resume, and will ask again.
        asking: Vec<Conn>,
        /// Whether this is the last part.
        last: bool,
    },
}

/// What an edge finds out about a stanza before the shard evaluates it in its turn.
#[derive(Clone, Debug)]
pub enum Finding {
    /// It cannot be processed, and why: it is answered, and counts like any other.
    Refused(StanzaError),
    /// It changes the password (XEP-0077 §3.3) to the one of these keys; the stanza does not say it any more.
    NewPassword(Box<[ScramKeys]>),
}

/// One session as its edge knows it: what is not replicated, so that whoever leads next can go on.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// Which session.
    pub session: SessionId,
    /// Its connection at this edge.
    pub conn: Conn,
    /// Its address.
    pub full: FullJid,
    /// Frames up to here were accepted, as far as the edge has heard.
    pub accepted: u64,
    /// The last delivery that reached the edge.
    pub received: u64,
    /// Deliveries up to here may be forgotten.
    pub released: u64,
    /// XEP-0198: what the device had acknowledged at `released`.
    pub acknowledged: u32,
    /// What the device has been sent lately: rows of it that are left are done with.
    pub seen: Vec<Origin>,
    /// The deliveries after `released`, without those dropped as repeats.
    pub unreleased: Vec<Delivery>,
    /// The device's last presence without a `to`, while it is available (RFC 6121 §4.2).
    pub presence: Option<Arc<Stanza>>,
    /// What else the device has said, as the shard last put it.
    pub memory: Option<Arc<Memory>>,
}

/// What a device has said in this session besides its presence. Not replicated: the edge keeps what the shard tells it
/// ([`ToEdge::Remember`]) and hands it to the next leader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// It asked for the roster: it gets roster pushes (RFC 6121 §2.1.6).
    pub roster: bool,
    /// It asked for the block list: it gets pushes of blocks (XEP-0191 §3.3).
    pub blocklist: bool,
    /// It wants copies of what the account's other resources send and receive (XEP-0280 §4).
    pub carbons: bool,
    /// To whom it has sent presence of its own accord (RFC 6121 §4.6).
    pub directed: Vec<Jid>,
}

/// One stanza on its way to a device.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its number in the session, from 1.
    pub seq: u64,
    /// What it stems from.
    pub origin: Origin,
    /// When it was accepted, in its shard's time; no two stanzas of a shard share one.
    pub at: Timestamp,
    /// The stanza.
    pub stanza: Arc<Stanza>,
}

/// What a bound or resumed session starts with at its edge.
#[derive(Clone, Debug)]
pub struct Binding {
    /// Which session.
    pub session: SessionId,
    /// Its address.
    pub full: FullJid,
    /// The last accepted frame: the device's next stanza is the one after.
    pub accepted: u64,
    /// The last delivery that needs no repeating.
    pub released: u64,
    /// XEP-0198, on a resumed session.
    pub managed: Option<Managed>,
    /// The last presence without a `to`, while available.
    pub presence: Option<Arc<Stanza>>,
    /// What else the device has said, on a resumed session.
    pub memory: Option<Arc<Memory>>,
    /// What the device was given lately at its former edges.
    pub given: Vec<Origin>,
}

/// XEP-0198 as agreed for a session.
#[derive(Clone, Debug)]
pub struct Managed {
    /// The SM-ID for the device; absent when the session cannot be resumed.
    pub id: Option<Box<str>>,
    /// How long the session outlives its socket, in seconds.
    pub max: u32,
    /// The frame after which the device's stanzas count.
    pub base: u64,
    /// How many of our stanzas the device had acknowledged at [`Binding::released`].
    pub acknowledged: u32,
}

/// Why a session was not resumed (XEP-0198 §5).
#[derive(Clone, Debug)]
pub struct ResumeRefused {
    /// The condition within `<failed/>`.
    pub error: StanzaError,
    /// How many of the device's stanzas had been handled, when that is still known.
    pub h: Option<u32>,
}

/// From a shard to an edge.
#[derive(Clone, Debug)]
pub enum ToEdge {
    /// A new term begins: attach. Nothing else is accepted until [`Self::Leading`].
    Lead,
    /// All edges have attached: send what is unanswered, then go on.
    Leading,
    /// Answers [`ToShard::Credentials`].
    Credentials {
        /// Who asked.
        conn: Conn,
        /// The answer.
        credentials: Box<Credentials>,
    },
    /// Answers [`ToShard::Register`]: committed, or refused.
    Registered {
        /// Who asked.
        conn: Conn,
        /// Done, or the error of XEP-0077 §3.1.
        result: Result<(), StanzaError>,
    },
    /// Answers [`ToShard::Bind`]: committed, or refused.
    Bound {
        /// Who asked.
        conn: Conn,
        /// The session, or the error of RFC 6120 §7.6.2, §7.7.2.
        result: Result<Box<Binding>, StanzaError>,
    },
    /// Answers [`ToShard::Resume`]; what is unacknowledged follows as deliveries.
    Resumed {
        /// Who asked.
        conn: Conn,
        /// The session, or why not.
        result: Result<Box<Binding>, ResumeRefused>,
    },
    /// Answers [`ToShard::Enable`]; deliveries after it count.
    Managed {
        /// Who asked.
        conn: Conn,
        /// What was agreed.
        managed: Managed,
    },
    /// The longest prefix of frames that is accepted, for each of these connections.
    Accepted(Vec<(Conn, u64)>),
    /// A stanza for the device.
    Deliver {
        /// Its connection.
        conn: Conn,
        /// The stanza and its number.
        delivery: Delivery,
    },
    /// What the device has said, to be attached with its session.
    Remember {
        /// Its connection.
        conn: Conn,
        /// In place of what was to be remembered before; `None` for nothing.
        memory: Option<Arc<Memory>>,
    },
    /// Answers [`ToShard::Detach`]: the edge may forget the session.
    Detached {
        /// The connection that was.
        conn: Conn,
    },
    /// Ends the stream; the session is no longer this connection's.
    Close {
        /// Its connection.
        conn: Conn,
        /// What the device is told.
        error: StreamError,
    },
}

/// Between shards.
#[derive(Clone, Debug)]
pub enum ToPeer {
    /// A stanza for an account of the receiver. Ephemeral: kept by the sender until answered.
    Forward(Forward),
    /// Answers a [`Self::Forward`]: the receiver of the stanza has taken responsibility.
    Answer {
        /// The session that sent the stanza.
        session: SessionId,
        /// Its frame.
        frame: u64,
        /// Stanzas for that session: a result, an error, or nothing.
        replies: Vec<Arc<Stanza>>,
    },
    /// Presence for accounts of the receiver. Ephemeral: kept by the sender until told.
    Tell(Tell),
    /// Answers a [`Self::Tell`]: it has been told.
    Told {
        /// Which one.
        number: u64,
    },
    /// A durable effect, numbered per pair of shards; done once, in order.
    Durable {
        /// Its number, from 1.
        number: u64,
        /// What is to be done.
        effect: Durable,
    },
    /// Durable effects up to this number are done.
    Done {
        /// The last one.
        number: u64,
    },
    /// Asks what an account of the receiver thinks of somebody. Ephemeral: kept by the sender until answered.
    Ask(Ask),
    /// Answers a [`Self::Ask`].
    Stands {
        /// Which one.
        number: u64,
        /// What that is.
        standing: Standing,
    },
}

/// What one shard owes another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Durable {
    /// This stanza is routed to its `to`.
    Stanza(Arc<Stanza>),
    /// Pubsub nodes and the shards of their subscribers. Not below feature level 2.
    Pubsub(Arc<PubsubEffect>),
}

/// What [`Durable::encode`] begins with that is no stanza: those begin with their version, 1.
const PUBSUB: u8 = 2;

impl Durable {
    /// As bytes for rows and links.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Stanza(stanza) => stanza.encode(),
            Self::Pubsub(effect) => Self::pubsub_bytes(&effect.encode()),
        }
    }

    /// The bytes of an effect of pubsub that is encoded already.
    pub(crate) fn pubsub_bytes(effect: &[u8]) -> Bytes {
        [&[PUBSUB], effect].concat().into()
    }

    /// The encoded effect of pubsub in these bytes, if it is one.
    pub(crate) fn pubsub_in(bytes: &Bytes) -> Option<Bytes> {
        (bytes.first() == Some(&PUBSUB)).then(|| bytes.slice(1..))
    }

    /// Reads what [`Self::encode`] wrote; `None` when it is something else.
    pub fn decode(bytes: Bytes) -> Option<Self> {
        match Self::pubsub_in(&bytes) {
            Some(effect) => PubsubEffect::decode(effect).map(Arc::new).map(Self::Pubsub),
            None => Stanza::decode(bytes).ok().map(Arc::new).map(Self::Stanza),
        }
    }
}

/// What a pubsub node has to know before it answers somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Names it to its sender.
    pub number: u64,
    /// The account that is asked.
    pub account: BareJid,
    /// About whom.
    pub about: BareJid,
}

/// A stanza on its way between accounts.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The session that sent it.
    pub session: SessionId,
    /// Its frame.
    pub frame: u64,
    /// Frames up to here will not be repeated any more.
    pub settled: u64,
    /// Whether it may have been evaluated before.
    pub repeat: bool,
    /// The stanza, `from` stamped.
    pub stanza: Arc<Stanza>,
}

/// What a resource shows to many (RFC 6121 §4), and whom it wants to see: one message per shard, the presence in it once.
#[derive(Clone, Debug)]
pub struct Tell {
    /// Names it to its sender.
    pub number: u64,
    /// The presence, `from` stamped, without a `to`.
    pub presence: Arc<Stanza>,
    /// Who shall have it.
    pub to: Vec<Jid>,
    /// Accounts whose presence its sender asks for (RFC 6121 §4.3).
    pub probes: Vec<BareJid>,
}
