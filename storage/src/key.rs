//! How keys look on disk. All numbers are big endian, so that the order of bytes is the order of numbers.
//!
//! | column family | key | value |
//! |---|---|---|
//! | `log` | shard u16, index u64 | the record |
//! | `raft` | shard u16, kind u8 | [`Kind`]: the vote, the purged position, the applied position, the current generation |
//! | `rows` | slot u16, generation u32, rest of the row's key | the row |
//! | `meta` | `format` | version of this form, u32 |
//! | `meta` | `node` | the node's id, u64 |
//! | `meta` | `shards` | how many shards there are, u16 |
//! | `meta` | `generation` | the last generation ever given out, u32 |
//! | `meta` | `note.` name | what the cluster notes about this node |
//! | `meta` | `doomed` generation u32 | empty: rows of this generation are nobody's; they are removed at the next start |
//!
//! A *generation* is one filling of one shard: generation 0 is what was applied from the log's beginning, every installed
//! snapshot is a new one. Numbers are given out once per store, so two shards never share one (but 0, whose slots differ), and
//! a slot may move between shards. It stands behind the slot, and not before, so that a set of slots stays a set of key ranges.

use bytes::{BufMut, Bytes, BytesMut};

use crate::ShardId;

/// The version of this form. A store with a greater one is refused.
pub(crate) const FORMAT: u32 = 1;

pub(crate) const META_FORMAT: &[u8] = b"format";
pub(crate) const META_NODE: &[u8] = b"node";
pub(crate) const META_SHARDS: &[u8] = b"shards";
pub(crate) const META_GENERATION: &[u8] = b"generation";
pub(crate) const META_DOOMED: &[u8] = b"doomed";

/// Bytes of the slot at the front of a row's key.
pub(crate) const SLOT_BYTES: usize = 2;
const GENERATION_BYTES: usize = 4;

/// What the column family `raft` keeps for a shard.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Vote = b'v' as isize,
    Purged = b'p' as isize,
    Applied = b'a' as isize,
    Generation = b'g' as isize,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Vote, Self::Purged, Self::Applied, Self::Generation];
}

pub(crate) fn log(shard: ShardId, index: u64) -> [u8; 10] {
    let mut key = [0; 10];
    key[..2].copy_from_slice(&shard.0.to_be_bytes());
    key[2..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The index in a key of the column family `log`.
pub(crate) fn log_index(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(2..10)?.try_into().ok()?)).filter(|_| key.len() == 10)
}

pub(crate) fn raft(shard: ShardId, kind: Kind) -> [u8; 3] {
    let [high, low] = shard.0.to_be_bytes();
    [high, low, kind as u8]
}

pub(crate) fn note(name: &str) -> Vec<u8> {
    [b"note.", name.as_bytes()].concat()
}

/// The shard in a key of the column families `log` and `raft`.
pub(crate) fn shard(key: &[u8]) -> Option<ShardId> {
    Some(ShardId(u16::from_be_bytes(key.get(..2)?.try_into().ok()?)))
}

pub(crate) fn doomed(generation: u32) -> Vec<u8> {
    [META_DOOMED, &generation.to_be_bytes()].concat()
}

/// The generation in a key of the column family `meta` made by [`doomed`].
pub(crate) fn doomed_generation(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.strip_prefix(META_DOOMED)?.try_into().ok()?))
}

/// A row's key as it is on disk; `None` when it is too short to have a slot.
pub(crate) fn row(key: &[u8], generation: u32) -> Option<Vec<u8>> {
    let (slot, rest) = key.split_at_checked(SLOT_BYTES)?;
    let mut disk = Vec::with_capacity(key.len() + GENERATION_BYTES);
    disk.extend_from_slice(slot);
    disk.put_u32(generation);
    disk.extend_from_slice(rest);
    Some(disk)
}

/// The row's key in a key on disk; `None` when it is too short to be one.
pub(crate) fn row_key(disk: &[u8]) -> Option<Bytes> {
    let (slot, rest) = disk.split_at_checked(SLOT_BYTES)?;
    let (_, rest) = rest.split_at_checked(GENERATION_BYTES)?;
    let mut key = BytesMut::with_capacity(slot.len() + rest.len());
    key.put_slice(slot);
    key.put_slice(rest);
    Some(key.freeze())
}

/// The slot and the generation of a key on disk.
pub(crate) fn row_place(disk: &[u8]) -> Option<(u16, u32)> {
    let slot = u16::from_be_bytes(disk.get(..2)?.try_into().ok()?);
    Some((slot, u32::from_be_bytes(disk.get(2..6)?.try_into().ok()?)))
}

/// The first key of a slot's rows of one generation.
pub(crate) fn row_first(slot: u16, generation: u32) -> [u8; 6] {
    let mut key = [0; 6];
    key[..2].copy_from_slice(&slot.to_be_bytes());
    key[2..].copy_from_slice(&generation.to_be_bytes());
    key
}

/// The least key that is greater than every key that starts with `prefix`; `None`: there is none.
pub(crate) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn log_keys_sort_by_shard_then_index(a: (u16, u64), b: (u16, u64)) {
            let (left, right) = (log(ShardId(a.0), a.1), log(ShardId(b.0), b.1));
            prop_assert_eq!(left.cmp(&right), a.cmp(&b));
            prop_assert_eq!(log_index(&left), Some(a.1));
        }

        #[test]
        fn row_keys_of_one_generation_sort_as_the_rows_do(a: Vec<u8>, b: Vec<u8>, slots: (u16, u16), generation: u32) {
            let a = [&slots.0.to_be_bytes()[..], &a].concat();
            let b = [&slots.1.to_be_bytes()[..], &b].concat();
            let (left, right) = (row(&a, generation).unwrap(), row(&b, generation).unwrap());
            prop_assert_eq!(left.cmp(&right), a.cmp(&b));
            prop_assert_eq!(row_key(&left).unwrap(), a);
            prop_assert_eq!(row_place(&left), Some((slots.0, generation)));
        }

        #[test]
        fn no_key_with_the_prefix_reaches_its_successor(prefix: Vec<u8>, rest: Vec<u8>) {
            let key = [&prefix[..], &rest].concat();
            if let Some(next) = successor(&prefix) {
                prop_assert!(key < next);
                prop_assert!(!next.starts_with(&prefix));
            } else {
                prop_assert!(prefix.iter().all(|byte| *byte == 0xff));
            }
        }

        #[test]
        fn bytes_that_are_no_keys_are_refused(bytes: Vec<u8>) {
            prop_assert_eq!(log_index(&bytes).is_some(), bytes.len() == 10);
            prop_assert_eq!(row_key(&bytes).is_some(), bytes.len() >= 6);
            prop_assert_eq!(row(&bytes, 1).is_some(), bytes.len() >= 2);
            let _ = doomed_generation(&bytes);
        }
    }

    #[test]
    fn doomed_keys_name_their_generation() {
        assert_eq!(doomed_generation(&doomed(0x0102_0304)), Some(0x0102_0304));
        assert_eq!(doomed_generation(META_GENERATION), None);
    }
}
