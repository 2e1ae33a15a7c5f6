//! One evaluation by one entity: what it writes, and what it causes.

use std::sync::Arc;

use crate::jid::BareJid;
use crate::link::{Ask, Durable, EdgeId, Forward, SessionId, ShardId, Tell, ToEdge, ToPeer};
use crate::rows::{Key, Value, Write};
use crate::session::Receipt;
use crate::stanza::Stanza;
use crate::xep::pubsub::{NodeAddress, Standing};

/// Who evaluates.
#[derive(Clone, Debug)]
pub(super) enum Entity {
    Account(BareJid),
    Node(NodeAddress),
}

impl Entity {
    /// Its name: no two entities have one.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Account(account) => account.as_str(),
            Self::Node(address) => address.entity(),
        }
    }
}

/// The writes and effects of one evaluation. Writes become one batch; effects wait for it, or for the entity's last one.
#[derive(Debug)]
pub(super) struct Turn {
    /// Who evaluates; `None` for the shard itself.
    pub(super) entity: Option<Entity>,
    pub(super) writes: Vec<Write>,
    pub(super) effects: Vec<Effect>,
}

/// What waits until a presence has been told to everybody: whoever leads next says it again otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Teller {
    /// The frame that said it: it is accepted then.
    Frame(SessionId, u64),
    /// The farewell of a session that has ended: its row is removed then.
    Farewell(BareJid, SessionId),
}

/// What an evaluation causes.
#[derive(Debug)]
pub(super) enum Effect {
    /// To an edge.
    Edge(EdgeId, ToEdge),
    /// To another shard.
    Peer(ShardId, ToPeer),
    /// To an account: of this shard or another.
    Forward(ShardId, Forward),
    /// Presence for accounts: of this shard or another; and what waits for it to be told.
    Tell(ShardId, Tell, Option<Teller>),
    /// A stanza has been taken responsibility for; `replies` are for its sender.
    Answer(Receipt, Vec<Arc<Stanza>>),
    /// A frame of a session of this shard is done.
    Done(SessionId, u64),
    /// A durable effect for this very shard.
    Durable { number: u64, effect: Durable },
    /// Subscribers of a pubsub node are notified: the row of this stamp is committed.
    Notify(NodeAddress, u64),
    /// An account is asked what it thinks of who asks a pubsub node.
    Ask(ShardId, Ask),
    /// A shard answers such a question.
    Stands(ShardId, u64, Standing),
    /// What the account had stored is committed, and shall be brought to this session.
    BringStored(SessionId),
    /// A row of a session's queue is committed.
    RowWaits(SessionId),
    /// Rows of a session shall be read.
    Read(SessionId),
    /// The operator's request has been carried out.
    Administered(u64, super::Administered),
}

impl Turn {
    pub(super) fn of(entity: &BareJid) -> Self {
        Self {
            entity: Some(Entity::Account(entity.clone())),
            writes: Vec::new(),
            effects: Vec::new(),
        }
    }

    pub(super) fn of_node(address: &NodeAddress) -> Self {
        Self {
            entity: Some(Entity::Node(address.clone())),
            ..Self::of_shard()
        }
    }

    pub(super) fn of_shard() -> Self {
        Self {
            entity: None,
            writes: Vec::new(),
            effects: Vec::new(),
        }
    }

    pub(super) fn put(&mut self, key: Key, row: &impl prost::Message) {
        self.writes.push(Write::Put(key, Value::from(row.encode_to_vec())));
    }

    pub(super) fn delete(&mut self, key: Key) {
        self.writes.push(Write::Delete(key));
    }

    pub(super) fn to_edge(&mut self, edge: EdgeId, message: ToEdge) {
        self.effects.push(Effect::Edge(edge, message));
    }

    pub(super) fn answer(&mut self, receipt: Receipt, replies: Vec<Arc<Stanza>>) {
        self.effects.push(Effect::Answer(receipt, replies));
    }
}
