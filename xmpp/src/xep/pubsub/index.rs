//! Rows of a shard about pubsub: indexes of its nodes, what ends by itself, what is left of nodes, and whom to notify of nodes
//! anywhere. They belong to the shard and not to a slot.

use bytes::Bytes;

use super::address::{NodeAddress, NodeId};
use crate::jid::{BareJid, Jid};
use crate::link::ShardId;
use crate::rows::{Key, Table, shard_key};

/// A node, as the service's list of nodes shows it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NodeOfShardRow {
    #[prost(string, tag = "1")]
    pub(crate) title: String,
    /// Whether everybody may know of it.
    #[prost(bool, tag = "2")]
    pub(crate) listed: bool,
}

/// How many nodes of a service are in a shard.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct NodeCountRow {
    #[prost(uint64, tag = "1")]
    pub(crate) nodes: u64,
}

/// What remains to be done about a node, in slices.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LeftoverRow {
    /// [`NodeAddress::entity`].
    #[prost(string, tag = "1")]
    pub(crate) entity: String,
    #[prost(uint64, tag = "2")]
    pub(crate) incarnation: u64,
    /// What the keys of rows begin with that are to be removed.
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub(crate) prefixes: Vec<Bytes>,
    /// Subscriptions from this key on are to be looked at: the access model has changed.
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub(crate) recheck: Option<Bytes>,
}

fn of_service(table: Table, shard: ShardId, service: &BareJid, rest: &[&[u8]]) -> Key {
    let mut key = service.as_str().as_bytes().to_vec();
    key.push(0);
    for part in rest {
        key.extend_from_slice(part);
    }
    shard_key(table, shard.0, &key)
}

/// What the keys of a service's nodes begin with.
pub(crate) fn nodes_prefix(shard: ShardId, service: &BareJid) -> Key {
    of_service(Table::PubsubNodeOfShard, shard, service, &[])
}

/// The key of [`NodeOfShardRow`].
pub(crate) fn node_of_shard_key(shard: ShardId, address: &NodeAddress) -> Key {
    let node = address.node.as_str().as_bytes();
    of_service(Table::PubsubNodeOfShard, shard, &address.service, &[node])
}

/// The key of [`NodeCountRow`].
pub(crate) fn node_count_key(shard: ShardId, service: &BareJid) -> Key {
    of_service(Table::PubsubNodeCount, shard, service, &[])
}

/// What the keys of the nodes begin with where somebody is affiliated or subscribed.
pub(crate) fn entity_prefix(shard: ShardId, service: &BareJid, entity: &BareJid) -> Key {
    of_service(
        Table::PubsubNodeOfEntity,
        shard,
        service,
        &[entity.as_str().as_bytes(), &[0]],
    )
}

/// The key of one of them.
pub(crate) fn entity_key(shard: ShardId, address: &NodeAddress, incarnation: u64, entity: &BareJid) -> Key {
    let (entity, node) = (entity.as_str().as_bytes(), address.node.as_str().as_bytes());
    let incarnation = incarnation.to_be_bytes();
    of_service(
        Table::PubsubNodeOfEntity,
        shard,
        &address.service,
        &[entity, &[0], node, &[0], &incarnation],
    )
}

/// Reads what follows the prefix in such a key: the node, and its incarnation.
pub(crate) fn node_of_entity(rest: &[u8]) -> Option<(NodeId, u64)> {
    let (rest, incarnation) = rest.split_last_chunk::<8>()?;
    let node = rest.strip_suffix(&[0])?;
    let node = NodeId::new(std::str::from_utf8(node).ok()?)?;
    Some((node, u64::from_be_bytes(*incarnation)))
}

/// What the keys of deadlines begin with.
pub(crate) fn deadlines_prefix(shard: ShardId) -> Key {
    shard_key(Table::PubsubDeadline, shard.0, &[])
}

/// The key that says that something of a node ends then.
pub(crate) fn deadline_key(shard: ShardId, due: u64, address: &NodeAddress) -> Key {
    let rest = [&due.to_be_bytes()[..], address.entity().as_bytes()].concat();
    shard_key(Table::PubsubDeadline, shard.0, &rest)
}

/// Reads what follows the prefix in such a key.
pub(crate) fn deadline_of(rest: &[u8]) -> Option<(u64, NodeAddress)> {
    let (due, entity) = rest.split_first_chunk::<8>()?;
    let address = NodeAddress::of_entity(std::str::from_utf8(entity).ok()?)?;
    Some((u64::from_be_bytes(*due), address))
}

/// What the keys of leftovers begin with.
pub(crate) fn leftovers_prefix(shard: ShardId) -> Key {
    shard_key(Table::PubsubLeftover, shard.0, &[])
}

/// The key of a leftover.
pub(crate) fn leftover_key(shard: ShardId, stamp: u64) -> Key {
    shard_key(Table::PubsubLeftover, shard.0, &stamp.to_be_bytes())
}

/// What the keys of a node's followers begin with.
pub(crate) fn followers_prefix(shard: ShardId, address: &NodeAddress, incarnation: u64) -> Key {
    let rest = [address.entity().as_bytes(), &[0], &incarnation.to_be_bytes()].concat();
    shard_key(Table::PubsubFollower, shard.0, &rest)
}

/// The key of a follower: what follows the prefix is as in a subscription's key.
pub(crate) fn follower_key(shard: ShardId, address: &NodeAddress, incarnation: u64, jid: &Jid, subid: &str) -> Key {
    let prefix = followers_prefix(shard, address, incarnation);
    [&prefix[..], jid.as_str().as_bytes(), &[0], subid.as_bytes()]
        .concat()
        .into()
}

/// What the keys of notifications begin with that are being delivered.
pub(crate) fn notifyings_prefix(shard: ShardId) -> Key {
    shard_key(Table::PubsubNotifying, shard.0, &[])
}

/// The key of one of them.
pub(crate) fn notifying_key(shard: ShardId, stamp: u64) -> Key {
    shard_key(Table::PubsubNotifying, shard.0, &stamp.to_be_bytes())
}

/// What the keys of messages begin with that the outbox refers to.
pub(crate) fn events_prefix(shard: ShardId) -> Key {
    shard_key(Table::PubsubEvent, shard.0, &[])
}

/// The key of one of them.
pub(crate) fn event_key(shard: ShardId, stamp: u64) -> Key {
    shard_key(Table::PubsubEvent, shard.0, &stamp.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back() {
        let address = NodeAddress::of_entity("pubsub.example.org/a/b").expect("an address");
        let entity = BareJid::parse("juliet@example.org").expect("an address");
        let (shard, incarnation) = (ShardId(3), 0x0102_0304_0500_0708);
        let prefix = entity_prefix(shard, &address.service, &entity);
        let key = entity_key(shard, &address, incarnation, &entity);
        assert_eq!(
            node_of_entity(&key[prefix.len()..]),
            Some((address.node.clone(), incarnation))
        );
        let key = deadline_key(shard, 77, &address);
        assert_eq!(deadline_of(&key[deadlines_prefix(shard).len()..]), Some((77, address)));
    }
}
