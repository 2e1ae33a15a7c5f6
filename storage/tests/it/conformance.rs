//! What every store does. Each test runs against the one in memory and the one on disk, before and after a restart.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use heronry_storage::{LogState, MemoryStore, NodeId, Options, RocksStore, Rows, ShardId, Store, StoreError, Write};

use super::*;

const A: ShardId = ShardId(0);
const B: ShardId = ShardId(1);

/// Runs `write` on an empty store, and `read` on it before and after a restart.
fn on_both(write: impl Fn(&dyn Store), read: impl Fn(&dyn Store)) {
    let memory = MemoryStore::new(NodeId(9));
    write(&memory);
    read(&memory);
    memory.sync();
    read(&memory.crash());

    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    write(&disk);
    read(&disk);
    disk.close().unwrap();
    drop(disk);
    read(&open(directory.path()));
}

#[test]
fn an_empty_store_has_nothing() {
    on_both(
        |_| {},
        |store| {
            assert_eq!(store.log_state(A), Ok(LogState::default()));
            assert_eq!(log(store, A), []);
            assert_eq!(store.applied(A), Ok(None));
            assert_eq!(row(store, A, 0, "a"), None);
            assert_eq!(store.rows(A).scan(&[0, 0], &[], 10).unwrap(), []);
        },
    );
}

#[test]
fn the_number_of_shards_is_what_was_said_first() {
    on_both(
        |store| assert_eq!((store.shards(16), store.shards(8)), (Ok(16), Ok(16))),
        |store| assert_eq!(store.shards(4), Ok(16)),
    );
}

#[test]
fn a_log_is_read_back_in_any_range() {
    on_both(
        |store| {
            append(store, A, 0..10).unwrap();
            append(store, A, 10..20).unwrap();
            append(store, B, 5..7).unwrap();
        },
        |store| {
            assert_eq!(log(store, A), (0..20).map(record).collect::<Vec<_>>());
            assert_eq!(store.read_log(A, 3..5, usize::MAX).unwrap(), [record(3), record(4)]);
            assert_eq!(store.read_log(A, 18..40, usize::MAX).unwrap(), [record(18), record(19)]);
            assert_eq!(store.read_log(A, 7..7, usize::MAX).unwrap(), []);
            assert_eq!(store.log_state(A).unwrap().range, Some((0, 19)));
            assert_eq!(store.log_state(B).unwrap().range, Some((5, 6)));
            assert_eq!(store.log_state(ShardId(2)).unwrap().range, None);
        },
    );
}

#[test]
fn a_reading_is_limited_by_bytes_but_gives_at_least_one_record() {
    on_both(
        |store| append(store, A, 0..10).unwrap(),
        |store| {
            let two = record(0).bytes.len() * 2;
            for (bytes_max, count) in [(0, 1), (1, 1), (two - 1, 1), (two, 2), (two + 1, 2)] {
                assert_eq!(
                    store.read_log(A, 0..10, bytes_max).unwrap().len(),
                    count,
                    "{bytes_max} bytes"
                );
            }
        },
    );
}

#[test]
fn a_truncated_log_ends_before_and_continues_anew() {
    on_both(
        |store| {
            append(store, A, 0..10).unwrap();
            append(store, B, 0..3).unwrap();
            durable(|done| store.truncate(A, 4, done)).unwrap();
            let anew = Record {
                index: 4,
                bytes: text("anew"),
            };
            durable(|done| store.append(A, vec![anew], done)).unwrap();
        },
        |store| {
            assert_eq!(store.log_state(A).unwrap().range, Some((0, 4)));
            assert_eq!(log(store, A).pop().unwrap().bytes, "anew");
            assert_eq!(log(store, B).len(), 3);
        },
    );
}

#[test]
fn a_purged_log_begins_after_and_says_so() {
    on_both(
        |store| {
            append(store, A, 0..10).unwrap();
            append(store, B, 0..10).unwrap();
            durable(|done| store.purge(A, 6, text("up to six"), done)).unwrap();
            durable(|done| store.purge(B, 9, text("all"), done)).unwrap();
        },
        |store| {
            let state = store.log_state(A).unwrap();
            assert_eq!((state.range, state.purged), (Some((7, 9)), Some(text("up to six"))));
            assert_eq!(log(store, A), [record(7), record(8), record(9)]);
            let state = store.log_state(B).unwrap();
            assert_eq!((state.range, state.purged), (None, Some(text("all"))));
        },
    );
}

#[test]
fn the_last_vote_stands_for_each_shard() {
    on_both(
        |store| {
            durable(|done| store.save_vote(A, text("first"), done)).unwrap();
            durable(|done| store.save_vote(B, text("other"), done)).unwrap();
            durable(|done| store.save_vote(A, text("second"), done)).unwrap();
        },
        |store| {
            assert_eq!(store.log_state(A).unwrap().vote, Some(text("second")));
            assert_eq!(store.log_state(B).unwrap().vote, Some(text("other")));
        },
    );
}

#[test]
fn later_writes_win_within_a_batch_and_between_batches() {
    on_both(
        |store| {
            let first = batch([put(1, "a", "1"), put(1, "b", "1"), put(1, "a", "2"), put(1, "c", "1")]);
            let second = batch([
                Write::Delete(row_key(1, "b")),
                put(1, "c", "2"),
                Write::Delete(row_key(1, "none")),
            ]);
            store.apply(A, &[first, second], text("two")).unwrap();
        },
        |store| {
            assert_eq!(row(store, A, 1, "a"), Some(text("2")));
            assert_eq!(row(store, A, 1, "b"), None);
            assert_eq!(row(store, A, 1, "c"), Some(text("2")));
            assert_eq!(store.applied(A), Ok(Some(text("two"))));
        },
    );
}

#[test]
fn a_position_moves_without_rows_and_an_empty_value_is_a_value() {
    on_both(
        |store| {
            store
                .apply(A, &[batch([put(1, "a", ""), put(1, "", "slot alone")])], text("one"))
                .unwrap();
            store.apply(A, &[], text("two")).unwrap();
        },
        |store| {
            assert_eq!(row(store, A, 1, "a"), Some(text("")));
            assert_eq!(row(store, A, 1, ""), Some(text("slot alone")));
            assert_eq!(store.applied(A), Ok(Some(text("two"))));
        },
    );
}

#[test]
fn rows_of_one_shard_are_not_seen_in_another() {
    on_both(
        |store| {
            store.apply(A, &[batch([put(1, "a", "A")])], text("1")).unwrap();
            store
                .apply(B, &[batch([put(1, "a", "B"), put(2, "a", "B")])], text("1"))
                .unwrap();
        },
        |store| {
            assert_eq!(row(store, A, 1, "a"), Some(text("A")));
            assert_eq!(row(store, B, 1, "a"), Some(text("B")));
            assert_eq!(row(store, A, 2, "a"), None);
            assert_eq!(
                store.rows(A).scan(&[0, 1], &[], 10).unwrap(),
                [(row_key(1, "a"), text("A"))]
            );
        },
    );
}

/// Slots whose neighbours in the order of keys are one apart, and those at both ends.
const SCANNED: [u16; 6] = [0, 1, 2, 0x00ff, 0x0100, 0xffff];

/// Writes the same keys into each of them.
fn fill_slots(store: &dyn Store) {
    let keys = ["", "a", "aa", "ab", "b", "\u{ff}"];
    let writes = SCANNED.iter().flat_map(|slot| keys.map(|key| put(*slot, key, key)));
    store.apply(A, &[batch(writes)], text("1")).unwrap();
}

#[test]
fn a_scan_gives_keys_with_the_prefix_in_order_from_a_place_on() {
    on_both(fill_slots, |store| {
        let scan = |prefix: &[u8], from: &[u8], limit| {
            let rows = store.rows(A).scan(prefix, from, limit).unwrap();
            rows.into_iter()
                .map(|(key, value)| (key, String::from_utf8(value.to_vec()).unwrap()))
                .collect::<Vec<_>>()
        };
        let values = |rows: Vec<(_, String)>| rows.into_iter().map(|(_, value)| value).collect::<Vec<_>>();
        for slot in SCANNED {
            let prefix = slot.to_be_bytes();
            let all = scan(&prefix, &[], 100);
            assert!(all.iter().all(|(key, value)| *key == row_key(slot, value)));
            assert_eq!(values(all), ["", "a", "aa", "ab", "b", "\u{ff}"], "slot {slot}");
            assert_eq!(values(scan(&row_key(slot, "a"), &[], 100)), ["a", "aa", "ab"]);
            assert_eq!(values(scan(&row_key(slot, "a"), &row_key(slot, "aa\0"), 100)), ["ab"]);
            assert_eq!(values(scan(&row_key(slot, "a"), &row_key(slot, "b"), 100)), [""; 0]);
            assert_eq!(values(scan(&prefix, &row_key(slot, "ab"), 2)), ["ab", "b"]);
            assert_eq!(values(scan(&prefix, &row_key(slot, "ab"), 0)), [""; 0]);
        }
        assert_eq!(values(scan(&[0, 3], &[], 100)), [""; 0]);
        assert_eq!(values(scan(&[0, 1], &[0, 2], 100)), [""; 0]);
        assert!(store.rows(A).scan(&[0], &[], 1).is_err(), "a prefix without a slot");
    });
}

#[test]
fn a_scan_backwards_gives_keys_with_the_prefix_from_the_last_before_a_place_on() {
    on_both(fill_slots, |store| {
        let back = |prefix: &[u8], before: &[u8], limit| {
            let rows = store.rows(A).scan_back(prefix, before, limit).unwrap();
            rows.into_iter()
                .map(|(_, value)| String::from_utf8(value.to_vec()).unwrap())
                .collect::<Vec<_>>()
        };
        for slot in SCANNED {
            let prefix = slot.to_be_bytes();
            let end = [&prefix[..], &[0xff; 4]].concat();
            assert_eq!(
                back(&prefix, &end, 100),
                ["\u{ff}", "b", "ab", "aa", "a", ""],
                "slot {slot}"
            );
            assert_eq!(back(&prefix, &end, 2), ["\u{ff}", "b"]);
            assert_eq!(back(&prefix, &end, 0), [""; 0]);
            assert_eq!(back(&prefix, &row_key(slot, "ab"), 100), ["aa", "a", ""]);
            assert_eq!(back(&row_key(slot, "a"), &row_key(slot, "ab"), 100), ["aa", "a"]);
            assert_eq!(back(&row_key(slot, "a"), &row_key(slot, "ab\0"), 1), ["ab"]);
            assert_eq!(
                back(&row_key(slot, "a"), &row_key(slot, "\u{ff}"), 100),
                ["ab", "aa", "a"],
                "a place behind them"
            );
            assert_eq!(back(&row_key(slot, "a"), &row_key(slot, "a"), 100), [""; 0]);
        }
        assert_eq!(back(&[0, 3], &[0, 4], 100), [""; 0]);
        assert_eq!(back(&[0, 1], &[0, 1], 100), [""; 0]);
        assert!(
            store.rows(A).scan_back(&[0], &[1], 1).is_err(),
            "a prefix without a slot"
        );
    });
}

#[test]
fn a_key_without_a_slot_is_refused_whole() {
    let (_directory, stores) = both();
    for store in stores {
        let bad = batch([put(1, "a", "1"), Write::Put(text("x"), text("1"))]);
        assert!(store.apply(A, &[bad], text("1")).is_err());
        assert_eq!(row(&*store, A, 1, "a"), None);
        assert_eq!(store.applied(A), Ok(None));
    }
}

/// One store of each kind, and what must outlive the one on disk.
fn both() -> (tempfile::TempDir, [Arc<dyn Store>; 2]) {
    let directory = tempfile::tempdir().unwrap();
    let disk = shared(open(directory.path()));
    (directory, [shared(MemoryStore::new(NodeId(1))), disk])
}

#[test]
fn callbacks_come_in_the_order_of_calls_whatever_the_shard() {
    let (_directory, stores) = both();
    for store in stores {
        let order = Arc::new(Mutex::new(Vec::new()));
        let (sender, receiver) = mpsc::channel();
        for call in 0..200u64 {
            let (order, sender) = (Arc::clone(&order), sender.clone());
            let done: Done = Box::new(move |result| {
                result.unwrap();
                order.lock().unwrap().push(call);
                sender.send(()).unwrap();
            });
            let shard = ShardId((call % 3) as u16);
            match call % 4 {
                0 => store.append(shard, vec![record(call)], done),
                1 => store.save_vote(shard, text("vote"), done),
                2 => store.truncate(shard, call + 1, done),
                _ => store.purge(shard, call / 2, text("purged"), done),
            }
        }
        for _ in 0..200 {
            receiver.recv_timeout(PATIENCE).unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..200).collect::<Vec<_>>());
    }
}

#[test]
fn what_was_given_before_a_close_is_done_and_nothing_after() {
    let (directory, stores) = both();
    for store in &stores {
        let (sender, receiver) = mpsc::channel();
        for index in 0..100 {
            let sender = sender.clone();
            store.append(
                A,
                vec![record(index)],
                Box::new(move |result| sender.send(result).unwrap()),
            );
        }
        store.close().unwrap();
        assert!((0..100).all(|_| receiver.try_recv() == Ok(Ok(()))));
        assert_eq!(append(&**store, A, [100]), Err(StoreError::Closed));
        assert_eq!(store.apply(A, &[], text("1")), Err(StoreError::Closed));
        assert_eq!(store.applied(A), Err(StoreError::Closed));
        assert_eq!(store.log_state(A), Err(StoreError::Closed));
        assert!(store.export(A).is_err());
        store.close().unwrap();
    }
    drop(stores);
    assert_eq!(log(&open(directory.path()), A).len(), 100);
}

#[test]
fn a_callback_may_be_the_last_to_hold_the_store() {
    let (directory, stores) = both();
    for store in stores {
        let (sender, receiver) = mpsc::channel();
        let held = Arc::clone(&store);
        let done: Done = Box::new(move |result| {
            drop(held);
            sender.send(result).unwrap();
        });
        store.append(A, vec![record(0)], done);
        drop(store);
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), Ok(()));
    }
    // The thread that called it closes the store, after the call.
    let until = Instant::now() + PATIENCE;
    while RocksStore::open(directory.path(), Options::default()).is_err() {
        assert!(Instant::now() < until, "the store stays open");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_node_keeps_its_identity() {
    let directory = tempfile::tempdir().unwrap();
    let node = open(directory.path()).node_id();
    assert_ne!(node, NodeId(0));
    assert_eq!(open(directory.path()).node_id(), node);
    let other = tempfile::tempdir().unwrap();
    assert_ne!(open(other.path()).node_id(), node);
}
