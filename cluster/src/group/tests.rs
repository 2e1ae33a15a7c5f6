//! openraft's own suite against our log and our machine, on both stores; and what is only seen from inside.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use heronry_storage::{Batch, MemoryStore, NodeId, RocksStore, Rows, ShardId, Store, StoreError, Timestamp, Write};
use openraft::{
    EntryPayload, RaftLogReader, StorageError,
    storage::{RaftLogStorage, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine},
    testing::log::{StoreBuilder, Suite},
    vote::RaftLeaderIdExt,
};
use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    State,
    chain::{Chain, Link},
    convert::{self, Applied},
    decode, encode,
    log::Log,
    machine::Machine,
    type_config::{Entry, LeaderId, LogId, Membership, Normal, StoredMembership, Types, Vote},
};
use crate::Options;

const SHARD: ShardId = ShardId(3);

fn on(store: Arc<dyn Store>, options: &Options) -> (Log, Machine) {
    let log = Log::open(SHARD, Arc::clone(&store), options).unwrap();
    let (machine, _) = Machine::open(SHARD, store, log.clone(), Arc::new(State::default())).unwrap();
    (log, machine)
}

/// Nothing is kept in memory longer than it must be, so that the suite reads from the store.
fn short() -> Options {
    Options {
        tail_bytes_max: 0,
        ..Options::default()
    }
}

struct InMemory(Options);

impl StoreBuilder<Types, Log, Machine> for InMemory {
    async fn build(&self) -> Result<((), Log, Machine), StorageError<Types>> {
        let (log, machine) = on(Arc::new(MemoryStore::new(NodeId(1))), &self.0);
        Ok(((), log, machine))
    }
}

struct OnDisk(Options);

impl StoreBuilder<Types, Log, Machine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError<Types>> {
        let directory = tempfile::tempdir().unwrap();
        let store = RocksStore::open(directory.path(), heronry_storage::Options::default()).unwrap();
        let (log, machine) = on(Arc::new(store), &self.0);
        Ok((directory, log, machine))
    }
}

#[tokio::test]
async fn openraft_accepts_the_store_in_memory() {
    Suite::test_all(InMemory(Options::default())).await.unwrap();
    Suite::test_all(InMemory(short())).await.unwrap();
}

#[tokio::test]
async fn openraft_accepts_the_store_on_disk() {
    Suite::test_all(OnDisk(short())).await.unwrap();
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId::new_committed(term, 0), index)
}

fn normal(index: u64, bytes: usize) -> Entry {
    let batch = Batch {
        at: Timestamp(index),
        writes: vec![Write::Put(key(index), vec![7; bytes].into())],
    };
    Entry {
        log_id: log_id(1, index),
        payload: EntryPayload::Normal(Normal(encode(vec![batch], Link::default()))),
    }
}

fn key(index: u64) -> Bytes {
    [&5u16.to_be_bytes()[..], &index.to_be_bytes()].concat().into()
}

fn indices(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.log_id.index).collect()
}

/// Entries as openraft hands them over to be applied: nobody waits for them.
fn to_apply(
    entries: Vec<Entry>,
) -> impl futures::Stream<Item = Result<openraft::storage::EntryResponder<Types>, std::io::Error>> + Unpin {
    futures::stream::iter(entries.into_iter().map(|entry| Ok((entry, None))))
}

#[tokio::test]
async fn the_tail_forgets_only_what_is_durable_and_applied() {
    let store = MemoryStore::new(NodeId(1));
    let (mut log, _) = on(Arc::new(store.clone()), &short());
    store.hold_syncs();
    log.append(
        (0..4).map(|index| normal(index, 10)),
        openraft::storage::IOFlushed::noop(),
    )
    .await
    .unwrap();
    log.applied(3);
    // Had the tail forgotten them, the store (which has not written them) would have been asked.
    store.fail(StoreError::Closed);
    assert_eq!(indices(&log.try_get_log_entries(..).await.unwrap()), [0, 1, 2, 3]);
}

#[tokio::test]
async fn old_entries_come_from_the_store_and_new_ones_from_memory() {
    let options = Options {
        tail_bytes_max: 300,
        ..Options::default()
    };
    let store = Arc::new(MemoryStore::new(NodeId(1)));
    let (mut log, _) = on(store, &options);
    log.blocking_append((0..20).map(|index| normal(index, 50)))
        .await
        .unwrap();
    log.applied(18);
    for (start, end) in [(0, 20), (3, 5), (10, 20), (18, 20), (19, 30), (7, 7)] {
        let expected: Vec<u64> = (start..end.min(20)).collect();
        assert_eq!(indices(&log.try_get_log_entries(start..end).await.unwrap()), expected);
    }
    assert_eq!(indices(&log.limited_get_log_entries(2, 6).await.unwrap()), [2, 3, 4, 5]);
}

#[tokio::test]
async fn a_gap_in_the_log_is_damage() {
    let store = MemoryStore::new(NodeId(1));
    {
        let (mut log, _) = on(Arc::new(store.clone()), &short());
        log.blocking_append((0..6).map(|index| normal(index, 10)))
            .await
            .unwrap();
    }
    // Behind the log's back.
    store.purge(SHARD, 2, Bytes::new(), Box::new(|result| result.unwrap()));
    store.purge(
        SHARD,
        1,
        convert::log_id_to_bytes(&log_id(1, 1)),
        Box::new(|result| result.unwrap()),
    );
    let opened = Log::open(SHARD, Arc::new(store), &short());
    assert!(matches!(opened, Err(StoreError::Corrupt(_))));
}

#[tokio::test]
async fn a_log_is_purged_by_bytes_and_half_of_it_stays() {
    let options = Options {
        log_bytes_max: 1 << 20,
        log_held_bytes_max: 4 << 20,
        ..Options::default()
    };
    let (mut log, _) = on(Arc::new(MemoryStore::new(NodeId(1))), &options);
    let entry = 10 << 10;
    log.blocking_append((0..100).map(|index| normal(index, entry)))
        .await
        .unwrap();
    assert_eq!(log.to_purge(false), None);
    log.blocking_append((100..120).map(|index| normal(index, entry)))
        .await
        .unwrap();
    let upto = log.to_purge(false).unwrap();
    let left = (119 - upto) as usize * entry;
    assert!((400 << 10..600 << 10).contains(&left), "{left} bytes would be left");
    log.purge(log_id(1, upto)).await.unwrap();
    assert_eq!(log.to_purge(false), None);
    // For the sake of a snapshot it may become longer, not endless.
    log.blocking_append((120..250).map(|index| normal(index, entry)))
        .await
        .unwrap();
    assert!(log.to_purge(false).is_some());
    assert_eq!(log.to_purge(true), None);
    log.blocking_append((250..520).map(|index| normal(index, entry)))
        .await
        .unwrap();
    let upto = log.to_purge(true).unwrap();
    log.purge(log_id(1, upto)).await.unwrap();
    let purged = log.to_purge(false).unwrap_or(upto);
    log.purge(log_id(1, purged)).await.unwrap();
    assert_eq!(
        log.try_get_log_entries(..).await.unwrap().first().unwrap().log_id.index,
        purged + 1
    );
    // Only what is new counts from here on.
    log.blocking_append((520..550).map(|index| normal(index, entry)))
        .await
        .unwrap();
    assert_eq!(log.to_purge(false), None);
}

#[tokio::test]
async fn entries_are_applied_once_even_when_they_come_again() {
    let store = Arc::new(MemoryStore::new(NodeId(1)));
    let (_, mut machine) = on(Arc::clone(&store) as _, &short());
    machine
        .apply(to_apply((0..5).map(|index| normal(index, 1)).collect()))
        .await
        .unwrap();
    let stale = Entry {
        log_id: log_id(1, 2),
        ..normal(99, 1)
    };
    machine.apply(to_apply(vec![stale])).await.unwrap();
    assert_eq!(store.rows(SHARD).row(&key(99)).unwrap(), None);
    assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(1, 4)));
}

#[tokio::test]
async fn time_never_goes_back_and_survives_a_restart() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(NodeId(1)));
    {
        let (_, mut machine) = on(Arc::clone(&store), &short());
        machine
            .apply(to_apply(vec![normal(0, 1), normal(9, 1), normal(10, 1)]))
            .await
            .unwrap();
        let earlier = Batch {
            at: Timestamp(3),
            writes: Vec::new(),
        };
        let payload = EntryPayload::Normal(Normal(encode(vec![earlier], Link::default())));
        machine
            .apply(to_apply(vec![Entry {
                log_id: log_id(1, 11),
                payload,
            }]))
            .await
            .unwrap();
    }
    let state = Arc::new(State::default());
    let log = Log::open(SHARD, Arc::clone(&store), &short()).unwrap();
    Machine::open(SHARD, store, log, Arc::clone(&state)).unwrap();
    assert_eq!(state.at.load(Ordering::Acquire), 10);
    assert_eq!(state.applied.load(Ordering::Acquire), 11);
}

#[tokio::test]
async fn a_snapshot_carries_rows_position_and_time_from_one_kind_of_store_to_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let disk = RocksStore::open(directory.path(), heronry_storage::Options::default()).unwrap();
    let (disk, memory): (Arc<dyn Store>, Arc<dyn Store>) = (Arc::new(disk), Arc::new(MemoryStore::new(NodeId(1))));
    for (from, to) in [(&disk, &memory), (&memory, &disk)] {
        let (_, mut source) = on(Arc::clone(from), &short());
        let next = source.applied_state().await.unwrap().0.map_or(0, |last| last.index + 1);
        source
            .apply(to_apply((next..next + 50).map(|index| normal(index, 20_000)).collect()))
            .await
            .unwrap();
        let snapshot = source.get_snapshot_builder().await.build_snapshot().await.unwrap();

        let (_, mut target) = on(Arc::clone(to), &short());
        target
            .install_snapshot(&snapshot.meta, snapshot.snapshot)
            .await
            .unwrap();
        assert_eq!(
            target.applied_state().await.unwrap(),
            source.applied_state().await.unwrap()
        );
        let all = |store: &Arc<dyn Store>| store.rows(SHARD).scan(&5u16.to_be_bytes(), &[], usize::MAX).unwrap();
        assert_eq!(all(to).len() as u64, next + 50);
        assert!(all(to) == all(from));
        assert_eq!(to.applied(SHARD).unwrap(), from.applied(SHARD).unwrap());
    }
}

#[test]
fn what_the_store_keeps_is_read_back_as_it_was() {
    let vote = Vote::new(4, 9);
    assert_eq!(convert::vote_from_bytes(convert::vote_to_bytes(&vote)), Ok(vote));
    let committed = Vote::new_committed(4, 9);
    assert_eq!(
        convert::vote_from_bytes(convert::vote_to_bytes(&committed)),
        Ok(committed)
    );

    let joint = Membership::new_with_defaults(vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])], [7]);
    for payload in [
        EntryPayload::Blank,
        normal(1, 3).payload,
        EntryPayload::Membership(joint.clone()),
    ] {
        let entry = Entry {
            log_id: log_id(u64::MAX, 0),
            payload,
        };
        assert!(convert::entry_from_bytes(convert::entry_to_bytes(&entry)).unwrap() == entry);
    }
    for applied in [
        Applied::default(),
        Applied {
            log_id: Some(log_id(1, 2)),
            membership: StoredMembership::new(Some(log_id(1, 1)), joint),
            at: 77,
            chain: Chain {
                term: 1,
                link: Link { round: 2, number: 3 },
            },
        },
    ] {
        assert_eq!(Applied::from_bytes(applied.to_bytes()), Ok(applied));
    }
    let batches = vec![
        Batch {
            at: Timestamp(1),
            writes: vec![Write::Put(key(1), Bytes::new()), Write::Delete(key(2))],
        },
        Batch::default(),
    ];
    assert_eq!(decode(encode(batches.clone(), Link::default())).unwrap().0, batches);
}

#[test]
fn damaged_bytes_are_an_error() {
    for bytes in [&[0xff][..], &[8], &[0x1a, 5, 1], &[]] {
        let bytes = Bytes::copy_from_slice(bytes);
        assert!(bytes.is_empty() || convert::vote_from_bytes(bytes.clone()).is_err());
        assert!(matches!(convert::entry_from_bytes(bytes), Err(StoreError::Corrupt(_))));
    }
    // A membership with a voter that is no member.
    let orphan = heronry_proto::raft::LogEntry {
        log_id: Some(heronry_proto::raft::LogId { term: 1, index: 1 }),
        payload: Some(heronry_proto::raft::log_entry::Payload::Membership(
            heronry_proto::raft::Membership {
                configs: vec![heronry_proto::raft::Voters { nodes: vec![1] }],
                members: vec![heronry_proto::raft::Member { node: 2 }],
            },
        )),
    };
    assert!(convert::entry_from_bytes(prost::Message::encode_to_vec(&orphan).into()).is_err());
}

proptest! {
    /// Bytes from a disk never cause a panic, and what is read is written the same.
    #[test]
    fn bytes_of_anything_are_read_or_refused(bytes: Vec<u8>) {
        let bytes = Bytes::from(bytes);
        if let Ok(vote) = convert::vote_from_bytes(bytes.clone()) {
            prop_assert_eq!(convert::vote_from_bytes(convert::vote_to_bytes(&vote)), Ok(vote));
        }
        if let Ok(entry) = convert::entry_from_bytes(bytes.clone()) {
            prop_assert!(convert::entry_from_bytes(convert::entry_to_bytes(&entry)).unwrap() == entry);
        }
        if let Ok(applied) = Applied::from_bytes(bytes.clone()) {
            prop_assert_eq!(Applied::from_bytes(applied.to_bytes()), Ok(applied));
        }
        if let Ok(log_id) = convert::log_id_from_bytes(bytes.clone()) {
            prop_assert_eq!(convert::log_id_from_bytes(convert::log_id_to_bytes(&log_id)), Ok(log_id));
        }
        if let Ok((batches, _)) = decode(bytes) {
            prop_assert_eq!(decode(encode(batches.clone(), Link::default())).unwrap().0, batches);
        }
    }

    #[test]
    fn batches_are_read_as_they_were_written(batches in prop::collection::vec(batch(), 0..5)) {
        prop_assert_eq!(decode(encode(batches.clone(), Link::default())).unwrap().0, batches);
    }
}

fn batch() -> impl Strategy<Value = Batch> {
    let write = any::<(Vec<u8>, Option<Vec<u8>>)>().prop_map(|(key, value)| match value {
        Some(value) => Write::Put(key.into(), value.into()),
        None => Write::Delete(key.into()),
    });
    let writes = prop::collection::vec(write, 0..5);
    (any::<u64>(), writes).prop_map(|(at, writes)| Batch {
        at: Timestamp(at),
        writes,
    })
}
