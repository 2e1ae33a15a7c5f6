//! The map as rows of the metadata group.
//!
//! | key after the slot | value |
//! |---|---|
//! | `c` | `Cluster` |
//! | `n`, node u64 | `Member` |
//! | `s`, shard u16 | `Shard` |
//! | `k`, name | `Setting` |
//!
//! Numbers are big endian; values are messages of `proto/heronry/v1/map.proto`. Letters are on disk: they are never reused, and
//! rows under others are left alone, for a newer program may have written them.

use bytes::{BufMut, Bytes, BytesMut};
use heronry_storage::{Key, NodeId, Rows, ShardId, Value, Write};
use prost::Message;

use super::{ClusterMap, MapError, Member, Placement, form};

/// The slot that the metadata group's rows are in; no address has it.
pub const SLOT: u16 = u16::MAX;

/// Rows that are read at a time.
const PAGE: usize = 256;

const CLUSTER: u8 = b'c';
const NODE: u8 = b'n';
const SHARD: u8 = b's';
const SETTING: u8 = b'k';

impl ClusterMap {
    /// The map that rows of the metadata group make. `version` is the index of the last entry applied to them; whoever applies
    /// entries meanwhile must read again.
    ///
    /// `None`: there is no map yet.
    ///
    /// # Errors
    /// When the rows cannot be read, or are not a map.
    pub fn read(rows: &impl Rows, version: u64) -> Result<Option<Self>, MapError> {
        let Some(first) = rows.row(&key(CLUSTER, &[]))? else {
            return Ok(None);
        };
        let (cluster, name, feature_level) = form::read_cluster(Message::decode(first).map_err(form::malformed)?)?;
        let mut map = Self {
            cluster,
            name,
            version,
            feature_level,
            nodes: Default::default(),
            shards: Default::default(),
            settings: Default::default(),
        };
        let prefix = SLOT.to_be_bytes();
        let mut from = BytesMut::from(&prefix[..]);
        loop {
            let page = rows.scan(&prefix, &from, PAGE)?;
            let Some((last, _)) = page.last() else {
                return Ok(Some(map));
            };
            // The next key there can be.
            from = BytesMut::from(&last[..]);
            from.put_u8(0);
            for (key, value) in page {
                put(&mut map, &key, value)?;
            }
        }
    }

    /// The rows of this map: what the metadata group of a new cluster begins with.
    pub fn rows(&self) -> Vec<Write> {
        let nodes = self.nodes.iter().map(|(node, member)| put_member(*node, member));
        let shards = self
            .shards
            .iter()
            .map(|(shard, placement)| put_shard(*shard, placement));
        let settings = self.settings.iter().map(|(name, value)| put_setting(name, value));
        [put_cluster(self)]
            .into_iter()
            .chain(nodes)
            .chain(shards)
            .chain(settings)
            .collect()
    }
}

/// Makes a write to a map.
pub(super) fn make(map: &mut ClusterMap, write: &Write) -> Result<(), MapError> {
    match write {
        Write::Put(key, value) => put(map, key, value.clone()),
        Write::Delete(key) => delete(map, key),
    }
}

pub(super) fn put_cluster(map: &ClusterMap) -> Write {
    Write::Put(key(CLUSTER, &[]), value(&form::cluster(map)))
}

pub(super) fn put_member(node: NodeId, member: &Member) -> Write {
    Write::Put(key(NODE, &node.0.to_be_bytes()), value(&form::member(node, member)))
}

pub(super) fn delete_member(node: NodeId) -> Write {
    Write::Delete(key(NODE, &node.0.to_be_bytes()))
}

pub(super) fn put_shard(shard: ShardId, placement: &Placement) -> Write {
    Write::Put(
        key(SHARD, &shard.0.to_be_bytes()),
        value(&form::shard(shard, placement)),
    )
}

pub(super) fn put_setting(name: &str, of: &str) -> Write {
    Write::Put(key(SETTING, name.as_bytes()), value(&form::setting(name, of)))
}

pub(super) fn delete_setting(name: &str) -> Write {
    Write::Delete(key(SETTING, name.as_bytes()))
}

fn put(map: &mut ClusterMap, key: &[u8], value: Value) -> Result<(), MapError> {
    match table(key)? {
        (CLUSTER, []) => {
            (map.cluster, map.name, map.feature_level) =
                form::read_cluster(Message::decode(value).map_err(form::malformed)?)?;
        }
        (NODE, number) => {
            let (node, member) = form::read_member(Message::decode(value).map_err(form::malformed)?)?;
            same(number == node.0.to_be_bytes())?;
            map.nodes.insert(node, member);
        }
        (SHARD, number) => {
            let (shard, placement) = form::read_shard(Message::decode(value).map_err(form::malformed)?)?;
            same(number == shard.0.to_be_bytes())?;
            map.shards.insert(shard, placement);
        }
        (SETTING, number) => {
            let (name, value) = form::read_setting(Message::decode(value).map_err(form::malformed)?)?;
            same(number == name.as_bytes())?;
            map.settings.insert(name, value);
        }
        _ => {}
    }
    Ok(())
}

fn delete(map: &mut ClusterMap, key: &[u8]) -> Result<(), MapError> {
    match table(key)? {
        (NODE, number) => {
            let number = number.try_into().map_err(form::malformed)?;
            map.nodes.remove(&NodeId(u64::from_be_bytes(number)));
        }
        (SHARD, number) => {
            let number = number.try_into().map_err(form::malformed)?;
            map.shards.remove(&ShardId(u16::from_be_bytes(number)));
        }
        (SETTING, name) => {
            map.settings.remove(std::str::from_utf8(name).map_err(form::malformed)?);
        }
        _ => {}
    }
    Ok(())
}

/// A key's table and the rest.
fn table(key: &[u8]) -> Result<(u8, &[u8]), MapError> {
    let rest = key.strip_prefix(&SLOT.to_be_bytes()).and_then(<[u8]>::split_first);
    let (table, rest) = rest.ok_or_else(|| MapError::Malformed("a row of another group".to_owned()))?;
    Ok((*table, rest))
}

fn same(same: bool) -> Result<(), MapError> {
    match same {
        true => Ok(()),
        false => Err(MapError::Malformed("a row is under another's key".to_owned())),
    }
}

fn key(table: u8, rest: &[u8]) -> Key {
    let mut key = BytesMut::with_capacity(3 + rest.len());
    key.put_u16(SLOT);
    key.put_u8(table);
    key.put_slice(rest);
    key.freeze()
}

fn value(message: &impl Message) -> Value {
    Bytes::from(message.encode_to_vec())
}
