//! Rows of pubsub nodes come from a backup: what finds nodes and notifies subscribers is made anew from them.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use super::super::{Io, Shard, Turn};
use crate::jid::{self, BareJid};
use crate::rows::{Key, Rows, RowsError, Table, Value, Write};
use crate::xep::pubsub::effect::{FollowerRow, PubsubEffect};
use crate::xep::pubsub::{
    NodeAddress, NodeCountRow, NodeOfShardRow, NodeRow, StateRow, SubscriptionRow, deadline_key, entity_key,
    node_count_key, node_key, node_of_shard_key, state_key, subscriber_of,
};

/// What the rows of one step change besides themselves.
#[derive(Debug, Default)]
pub(in super::super) struct RestoredNodes {
    nodes: BTreeMap<NodeAddress, NodeRow>,
    states: BTreeMap<NodeAddress, StateRow>,
    counts: BTreeMap<BareJid, (Key, u64)>,
}

impl RestoredNodes {
    /// Adds it to the turn.
    pub(in super::super) fn keep(self, turn: &mut Turn) {
        for (address, state) in self.states {
            turn.put(state_key(&address), &state);
        }
        for (_, (key, nodes)) in self.counts {
            turn.put(key, &NodeCountRow { nodes });
        }
    }
}

/// Whether a row is a pubsub node's.
pub(in super::super) fn is_pubsub(key: &Key) -> bool {
    let tables = [
        Table::PubsubNode,
        Table::PubsubState,
        Table::PubsubAffiliation,
        Table::PubsubSubscription,
        Table::PubsubLease,
        Table::PubsubItem,
        Table::PubsubItemOrder,
    ];
    key.get(2)
        .is_some_and(|table| tables.iter().any(|known| *known as u8 == *table))
}

impl Shard {
    /// `None`: it is not a row of ours. Nodes come before what is theirs.
    pub(in super::super) fn restore_pubsub(
        &mut self,
        turn: &mut Turn,
        restored: &mut RestoredNodes,
        key: &Key,
        value: &Value,
        io: &mut Io<'_>,
    ) -> Result<Option<()>, RowsError> {
        let Some((address, rest)) = address_of(key) else {
            return Ok(None);
        };
        let is = |table: Table| key.get(2) == Some(&(table as u8));
        if is(Table::PubsubNode) {
            return self.restore_node(turn, restored, &address, value, io);
        }
        let Some(node) = self.restored_node(restored, &address, io)? else {
            // What a deleted node has left.
            return Ok(Some(()));
        };
        if is(Table::PubsubState) {
            let Ok(state) = StateRow::decode(value.clone()) else {
                return Ok(None);
            };
            let known = self.restored_state(restored, &address, io)?;
            self.clock = self.clock.max(node.incarnation);
            let now = self.stamp(io).0;
            // It is looked at soon, and then when something of it ends.
            turn.writes
                .push(Write::Put(deadline_key(self.id, now, &address), Bytes::new()));
            let state = StateRow {
                subscriptions: known.subscriptions,
                followers: known.followers,
                next_deadline: now,
                ..state
            };
            restored.states.insert(address, state);
            return Ok(Some(()));
        }
        let Some((incarnation, rest)) = rest.split_first_chunk::<8>() else {
            return Ok(None);
        };
        if u64::from_be_bytes(*incarnation) != node.incarnation {
            return Ok(Some(()));
        }
        if is(Table::PubsubItem) || is(Table::PubsubItemOrder) {
            let generation = rest.first_chunk::<8>().map(|number| u64::from_be_bytes(*number));
            let state = self.restored_state(restored, &address, io)?;
            if generation == Some(state.generation) {
                turn.writes.push(Write::Put(key.clone(), value.clone()));
            }
            return Ok(Some(()));
        }
        if is(Table::PubsubAffiliation) {
            let Some(entity) = std::str::from_utf8(rest).ok().and_then(|jid| BareJid::parse(jid).ok()) else {
                return Ok(None);
            };
            self.find_by_entity(turn, &address, node.incarnation, &entity);
        } else if is(Table::PubsubSubscription) {
            let read = subscriber_of(rest).zip(SubscriptionRow::decode(value.clone()).ok());
            let Some(((jid, subid), row)) = read else {
                return Ok(None);
            };
            self.find_by_entity(turn, &address, node.incarnation, &jid.to_bare());
            if !row.pending && self.overlay.over(io.rows).row(key)?.is_none() {
                let shard = self.config.shard_of(jid.bare_str());
                let mut state = self.restored_state(restored, &address, io)?;
                state.follow(shard.0);
                restored.states.insert(address.clone(), state);
                let row = FollowerRow::of(&node.config.unwrap_or_default(), &row);
                let follow = PubsubEffect::Follow {
                    address,
                    incarnation: node.incarnation,
                    jid,
                    subid,
                    row,
                };
                self.owe_pubsub(turn, shard, follow, io);
            }
        }
        turn.writes.push(Write::Put(key.clone(), value.clone()));
        Ok(Some(()))
    }

    fn restore_node(
        &self,
        turn: &mut Turn,
        restored: &mut RestoredNodes,
        address: &NodeAddress,
        value: &Value,
        io: &Io<'_>,
    ) -> Result<Option<()>, RowsError> {
        let Ok(row) = NodeRow::decode(value.clone()) else {
            return Ok(None);
        };
        let known = self.overlay.over(io.rows).row(&node_key(address))?.is_some();
        turn.writes.push(Write::Put(node_key(address), value.clone()));
        if row.moved.is_none() {
            let config = row.config.clone().unwrap_or_default();
            let listed = NodeOfShardRow {
                title: config.title.clone(),
                listed: config.is_listed(),
            };
            turn.put(node_of_shard_key(self.id, address), &listed);
            if !known {
                let key = node_count_key(self.id, &address.service);
                let count = match restored.counts.get(&address.service) {
                    Some((_, count)) => *count,
                    None => {
                        let row = self.overlay.over(io.rows).row(&key)?;
                        row.and_then(|row| NodeCountRow::decode(row).ok())
                            .map_or(0, |row| row.nodes)
                    }
                };
                restored.counts.insert(address.service.clone(), (key, count + 1));
            }
        }
        restored.nodes.insert(address.clone(), row);
        Ok(Some(()))
    }

    fn find_by_entity(&self, turn: &mut Turn, address: &NodeAddress, incarnation: u64, entity: &BareJid) {
        let key = entity_key(self.id, address, incarnation, entity);
        turn.writes.push(Write::Put(key, Bytes::new()));
    }

    fn restored_node(
        &self,
        restored: &RestoredNodes,
        address: &NodeAddress,
        io: &Io<'_>,
    ) -> Result<Option<NodeRow>, RowsError> {
        let row = match restored.nodes.get(address) {
            Some(row) => Some(row.clone()),
            None => {
                let row = self.overlay.over(io.rows).row(&node_key(address))?;
                row.and_then(|row| NodeRow::decode(row).ok())
            }
        };
        Ok(row.filter(|row| row.moved.is_none()))
    }

    fn restored_state(
        &self,
        restored: &RestoredNodes,
        address: &NodeAddress,
        io: &Io<'_>,
    ) -> Result<StateRow, RowsError> {
        if let Some(state) = restored.states.get(address) {
            return Ok(state.clone());
        }
        let row = self.overlay.over(io.rows).row(&state_key(address))?;
        Ok(row.and_then(|row| StateRow::decode(row).ok()).unwrap_or_default())
    }
}

/// Which node's row it is, and what follows that in its key.
fn address_of(key: &Key) -> Option<(NodeAddress, &[u8])> {
    let rest = key.get(3..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let address = NodeAddress::of_entity(std::str::from_utf8(rest.get(..end)?).ok()?)?;
    let slot = key.first_chunk::<2>()?;
    (jid::slot(address.entity()).to_be_bytes() == *slot).then_some(())?;
    Some((address, rest.get(end + 1..)?))
}
