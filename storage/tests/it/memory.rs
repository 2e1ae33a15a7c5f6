//! What the store in memory forgets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use heronry_storage::{MemoryStore, NodeId, ShardId, Store, StoreError};
use proptest::prelude::*;

use super::*;

const SHARD: ShardId = ShardId(4);

/// Counts callbacks, by their result.
#[derive(Clone, Default)]
struct Calls(Arc<[AtomicUsize; 2]>);

impl Calls {
    fn done(&self) -> Done {
        let calls = Arc::clone(&self.0);
        Box::new(move |result| {
            calls[usize::from(result.is_err())].fetch_add(1, Ordering::Relaxed);
        })
    }

    fn succeeded_failed(&self) -> (usize, usize) {
        (self.0[0].load(Ordering::Relaxed), self.0[1].load(Ordering::Relaxed))
    }
}

#[test]
fn a_crash_loses_exactly_what_was_not_synced() {
    let (store, calls) = (MemoryStore::new(NodeId(1)), Calls::default());
    store.hold_syncs();
    store.append(SHARD, vec![record(0)], calls.done());
    store
        .apply(SHARD, &[batch([put(1, "a", "synced")])], text("one"))
        .unwrap();
    store.sync();
    assert_eq!(calls.succeeded_failed(), (1, 0));
    store.append(SHARD, vec![record(1)], calls.done());
    store.save_vote(SHARD, text("vote"), calls.done());
    store
        .apply(SHARD, &[batch([put(1, "a", "lost"), put(1, "b", "lost")])], text("two"))
        .unwrap();
    assert_eq!(row(&store, SHARD, 1, "a"), Some(text("lost")), "visible at once");
    assert_eq!(store.unsynced(), 3);

    let rows = store.rows(SHARD);
    let after = store.crash();
    assert_eq!(log(&after, SHARD), [record(0)]);
    assert_eq!(after.log_state(SHARD).unwrap().vote, None);
    assert_eq!(row(&after, SHARD, 1, "a"), Some(text("synced")));
    assert_eq!(row(&after, SHARD, 1, "b"), None);
    assert_eq!(after.applied(SHARD), Ok(Some(text("one"))));
    assert_eq!(calls.succeeded_failed(), (1, 0), "a lost write is not answered");

    assert_eq!(append(&store, SHARD, [1]), Err(StoreError::Closed));
    assert!(rows.row(&row_key(1, "a")).is_err());
    append(&after, SHARD, [1]).unwrap();
}

proptest! {
    #[test]
    fn any_crash_leaves_a_prefix_of_the_writes(kinds in prop::collection::vec(0..4u8, 1..40), synced: usize, kept: usize) {
        let store = MemoryStore::new(NodeId(1));
        let calls = Calls::default();
        store.hold_syncs();
        // What the store should be after each number of writes.
        let mut expected = vec![state(&store)];
        let mut index = 0;
        for kind in &kinds {
            match kind {
                0 => {
                    store.append(SHARD, vec![record(index)], calls.done());
                    index += 1;
                }
                1 => store.save_vote(SHARD, text(&index.to_string()), calls.done()),
                2 => {
                    let write = put(1, &(index % 3).to_string(), &index.to_string());
                    store.apply(SHARD, &[batch([write])], text(&index.to_string())).unwrap();
                }
                _ => {
                    index /= 2;
                    store.truncate(SHARD, index, calls.done());
                }
            }
            expected.push(state(&store));
        }
        let synced = synced % (kinds.len() + 1);
        store.sync_some(synced);
        let kept = kept % (kinds.len() - synced + 1);
        let after = store.crash_keeping(kept);
        prop_assert_eq!(&state(&after), &expected[synced + kept]);
        prop_assert_eq!(calls.succeeded_failed(), (kinds[..synced].iter().filter(|kind| **kind != 2).count(), 0));
        // And what it says now stays.
        prop_assert_eq!(&state(&after.crash()), &expected[synced + kept]);
    }
}

fn state(store: &MemoryStore) -> impl PartialEq + std::fmt::Debug + use<> {
    let rows = store.rows(SHARD).scan(&[0, 1], &[], usize::MAX).unwrap();
    (
        store.log_state(SHARD).unwrap(),
        log(store, SHARD),
        rows,
        store.applied(SHARD).unwrap(),
    )
}

#[test]
fn a_stalled_store_makes_nothing_durable_and_says_so() {
    let (store, calls) = (MemoryStore::new(NodeId(1)), Calls::default());
    store.stall(Duration::from_secs(3));
    store.append(SHARD, vec![record(0)], calls.done());
    assert_eq!(store.health().stalled, Duration::from_secs(3));
    assert_eq!(calls.succeeded_failed(), (0, 0));
    store.stall(Duration::ZERO);
    assert_eq!(calls.succeeded_failed(), (1, 0));
    assert_eq!(store.health().stalled, Duration::ZERO);
}

#[test]
fn a_failed_store_fails_everything_that_waits_and_everything_after() {
    let (store, calls) = (MemoryStore::new(NodeId(1)), Calls::default());
    store.hold_syncs();
    store.append(SHARD, vec![record(0)], calls.done());
    let full = StoreError::Full("no space".to_owned());
    store.fail(full.clone());
    assert_eq!(calls.succeeded_failed(), (0, 1));
    assert_eq!(append(&store, SHARD, [1]), Err(full.clone()));
    assert_eq!(store.apply(SHARD, &[], text("1")), Err(full.clone()));
    assert_eq!(store.read_log(SHARD, 0..1, 10), Err(full.clone()));
    assert_eq!(store.close(), Err(full));
    assert_eq!(log(&store.crash(), SHARD), [], "it was never durable");
}
