//! One evaluation by a pubsub node: all it may see and cause, and the use cases by what is asked.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::address::NodeAddress;
use super::config::Config as NodeConfig;
use super::effect::{Notify, PubsubEffect};
use super::errors;
use super::limits::Limits;
use super::payload::Action;
use super::rows::{Affiliation, AffiliationRow, NodeRow, StateRow, affiliation_key, node_key, state_key};
use crate::jid::{BareJid, Jid};
use crate::link::ShardId;
use crate::rows::{Key, Overlay, Rows, RowsError, Timestamp, Value, View, Write};
use crate::shard::Config;
use crate::stanza::{Stanza, StanzaError};
use crate::xml::Element;

/// The world of one evaluation. Its own writes show.
pub(crate) struct Evaluation<'a> {
    /// Who asks; authenticated.
    pub(crate) origin: &'a Jid,
    /// The node that evaluates: its rows are the ones to read and write.
    pub(crate) address: &'a NodeAddress,
    /// The shard's time, which no other evaluation of the shard has.
    pub(crate) now: Timestamp,
    pub(crate) config: &'a Config,
    /// What owners' accounts have said about who asks.
    pub(crate) standings: &'a HashMap<BareJid, Standing>,
    rows: View<'a>,
    written: Overlay,
    pub(crate) writes: Vec<Write>,
    pub(crate) effects: Vec<NodeEffect>,
    /// Messages made so far: their ids differ.
    messages: u64,
}

/// What somebody is to an account, as the account's roster says (§4.5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is subscribed to the account's presence.
    pub subscribed: bool,
    /// The roster groups it is in.
    pub groups: Vec<String>,
}

/// What an evaluation causes besides its rows and its answer, in the order in which it was said.
#[derive(Clone, Debug)]
pub(crate) enum NodeEffect {
    /// A message is routed to its `to` exactly once, whatever dies.
    Send(Stanza),
    /// Everybody who is subscribed is notified: in these shards.
    Notify(Notify, Vec<ShardId>),
    /// A subscriber's shard does its part.
    Owe(ShardId, PubsubEffect),
}

/// Why a request is not simply carried out.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// It is not carried out at all.
    Error(StanzaError),
    /// It is carried out in part; these elements say what was not (§8.8.2.4, §8.9.2.4).
    Partly(StanzaError, Box<Element>),
    /// This account has to say first what it thinks of who asks.
    Ask(BareJid),
}

impl From<StanzaError> for Refusal {
    fn from(error: StanzaError) -> Self {
        Self::Error(error)
    }
}

/// What is answered: the content of a result, if there is any.
pub(crate) type Answer = Result<Option<Element>, Refusal>;

/// A node that exists.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) row: NodeRow,
    pub(crate) config: NodeConfig,
    pub(crate) state: StateRow,
}

impl Node {
    pub(crate) fn incarnation(&self) -> u64 {
        self.row.incarnation
    }
}

impl<'a> Evaluation<'a> {
    /// An evaluation upon these rows.
    pub(crate) fn new(
        origin: &'a Jid,
        address: &'a NodeAddress,
        now: Timestamp,
        config: &'a Config,
        standings: &'a HashMap<BareJid, Standing>,
        rows: View<'a>,
    ) -> Self {
        Self {
            origin,
            address,
            now,
            config,
            standings,
            rows,
            written: Overlay::default(),
            writes: Vec::new(),
            effects: Vec::new(),
            messages: 0,
        }
    }

    /// Carries out a request.
    ///
    /// # Errors
    /// Why it is not, or not wholly.
    pub(crate) fn request(&mut self, action: Action) -> Answer {
        if self.origin.bare_str() != self.address.service.as_str() && crate::sasl::is_anonymous(&self.origin.to_bare())
        {
            // §6.1.3.6, and whatever else leaves something behind: the address is somebody else's tomorrow.
            let leaves = matches!(action, Action::Create { .. } | Action::Subscribe { .. });
            if leaves {
                return Err(StanzaError::forbidden()
                    .with_type(crate::stanza::ErrorType::Cancel)
                    .into());
            }
        }
        match action {
            Action::Create { named, configuration } => self.create(named, configuration.as_ref()),
            Action::Subscribe { jid, options } => self.subscribe(&jid, options.as_ref()),
            Action::Unsubscribe { jid, subid } => self.unsubscribe(&jid, subid.as_deref()),
            Action::Options { jid, subid } => self.options(&jid, subid.as_deref()),
            Action::SetOptions { jid, subid, form } => self.set_options(&jid, subid.as_deref(), &form),
            Action::DefaultOptions => self.default_options(),
            Action::Items(query) => self.items(&query),
            Action::Publish { items, preconditions } => self.publish(&items, preconditions.as_ref()),
            Action::Retract { ids, notify } => self.retract(&ids, notify),
            Action::OwnSubscriptions => self.own_subscriptions(),
            Action::OwnAffiliation => self.own_affiliation(),
            Action::Configuration => self.configuration(),
            Action::Configure { form } => self.configure(form.as_ref()),
            Action::Delete { redirect } => self.delete_node(redirect),
            Action::Purge => self.purge(),
            Action::Subscriptions { page } => self.subscriptions(page),
            Action::ModifySubscriptions(changes) => self.modify_subscriptions(changes),
            Action::Affiliations { page } => self.affiliations(page),
            Action::ModifyAffiliations(changes) => self.modify_affiliations(changes),
            Action::Info => self.info(),
            Action::DiscoItems { page } => self.disco_items(page),
        }
    }

    pub(crate) fn limits(&self) -> &'a Limits {
        &self.config.limits.pubsub
    }

    /// The shard that evaluates.
    pub(crate) fn shard(&self) -> ShardId {
        self.config.map.shard_of(self.address.slot())
    }

    /// The node.
    ///
    /// # Errors
    /// `item-not-found`, or `gone` when it has moved (§6.1.3.11).
    pub(crate) fn node(&self) -> Result<Node, StanzaError> {
        let row: NodeRow = self
            .read(&node_key(self.address))?
            .ok_or_else(StanzaError::item_not_found)?;
        if let Some(moved) = &row.moved {
            return Err(errors::moved(moved));
        }
        Ok(Node {
            config: row.config.clone().unwrap_or_default(),
            state: self.read(&state_key(self.address))?.unwrap_or_default(),
            row,
        })
    }

    /// The node, for an owner who asks.
    ///
    /// # Errors
    /// As [`Self::node`], and `forbidden`.
    pub(crate) fn owned_node(&self) -> Result<Node, StanzaError> {
        let node = self.node()?;
        match self.affiliation(&node, &self.origin.to_bare())? {
            Affiliation::Owner => Ok(node),
            _ => Err(StanzaError::forbidden()),
        }
    }

    pub(crate) fn affiliation(&self, node: &Node, entity: &BareJid) -> Result<Affiliation, StanzaError> {
        let row: Option<AffiliationRow> = self.read(&affiliation_key(self.address, node.incarnation(), entity))?;
        Ok(row.map_or(Affiliation::None, |row| row.affiliation()))
    }

    /// Keeps what has changed of the node's state.
    pub(crate) fn keep_state(&mut self, node: &Node) {
        self.put(state_key(self.address), &node.state);
    }

    /// Keeps what has changed of the node itself.
    pub(crate) fn keep_node(&mut self, node: &Node) {
        let row = NodeRow {
            config: Some(node.config.clone()),
            ..node.row.clone()
        };
        self.put(node_key(self.address), &row);
    }

    /// A row, decoded.
    ///
    /// # Errors
    /// `internal-server-error` when it cannot be read.
    pub(crate) fn read<M: Message + Default>(&self, key: &[u8]) -> Result<Option<M>, StanzaError> {
        let row = self.written.over(&self.rows).row(key).map_err(unreadable)?;
        row.map(decode).transpose()
    }

    /// Up to `limit` rows under `prefix`, from `from` on.
    ///
    /// # Errors
    /// `internal-server-error` when the store cannot be read.
    pub(crate) fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, StanzaError> {
        self.written
            .over(&self.rows)
            .scan(prefix, from, limit)
            .map_err(unreadable)
    }

    /// Up to `limit` rows under `prefix` before `before`, the last first.
    ///
    /// # Errors
    /// `internal-server-error` when the store cannot be read.
    pub(crate) fn scan_back(
        &self,
        prefix: &[u8],
        before: &[u8],
        limit: usize,
    ) -> Result<Vec<(Key, Value)>, StanzaError> {
        self.written
            .over(&self.rows)
            .scan_back(prefix, before, limit)
            .map_err(unreadable)
    }

    pub(crate) fn put(&mut self, key: Key, row: &impl Message) {
        self.put_bytes(key, Bytes::from(row.encode_to_vec()));
    }

    pub(crate) fn put_bytes(&mut self, key: Key, value: Bytes) {
        self.write(Write::Put(key, value));
    }

    pub(crate) fn delete(&mut self, key: Key) {
        self.write(Write::Delete(key));
    }

    fn write(&mut self, write: Write) {
        self.written.write(0, &write);
        self.writes.push(write);
    }

    /// A number that no other message of this evaluation has, nor of another.
    pub(crate) fn message_number(&mut self) -> u64 {
        self.messages += 1;
        // A thousand messages fit between two stamps of a shard, and so does the year 2500 into 64 bits.
        self.now.0.saturating_mul(1000).saturating_add(self.messages)
    }

    /// Sends a message to one address.
    pub(crate) fn send(&mut self, message: Stanza) {
        self.effects.push(NodeEffect::Send(message));
    }

    /// Notifies everybody who is subscribed.
    pub(crate) fn notify(&mut self, node: &Node, message: Stanza, ends: bool) {
        if node.state.followers.is_empty() {
            return;
        }
        let notify = Notify {
            address: self.address.clone(),
            incarnation: node.incarnation(),
            number: node.state.sequence,
            only_available: node.config.presence_based_delivery,
            ends,
            stanza: Arc::new(message),
        };
        let shards = node.state.followers.iter().map(|at| ShardId(at.shard as u16));
        self.effects.push(NodeEffect::Notify(notify, shards.collect()));
    }
}

pub(crate) fn decode<M: Message + Default>(row: Bytes) -> Result<M, StanzaError> {
    M::decode(row).map_err(|_| unreadable(RowsError("a row of a pubsub node is not one of ours".to_owned())))
}

pub(crate) fn unreadable(error: RowsError) -> StanzaError {
    tracing::error!(%error, "a pubsub node could not read its rows");
    StanzaError::internal_server_error()
}
