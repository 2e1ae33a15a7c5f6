//! One-voter groups, on both stores.

use std::{future::Future, sync::Arc, time::Duration};

use heronry_cluster::{
    Batch, Committed, Group, Groups, Leadership, MemoryStore, NodeId, Options, Proposal, ProposeError, Refused,
    RocksStore, Rows, ShardId, StartError, Store, StoreError, Term, Timestamp, Write,
};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
const SHARD: ShardId = ShardId(2);

fn options() -> Options {
    Options {
        shards: 4,
        threads: 0,
        ..Options::default()
    }
}

fn memory() -> MemoryStore {
    MemoryStore::new(NodeId(7))
}

async fn start(store: impl Store) -> Groups {
    Groups::start(Arc::new(store), options()).await.unwrap()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it takes for ever")
}

/// The term in which this node leads, once it does.
async fn leads(group: &Group) -> Term {
    let mut leadership = group.leadership();
    let leader = leadership.wait_for(|now| matches!(now, Leadership::Leader { .. }));
    match *soon(leader).await.unwrap() {
        Leadership::Leader { term } => term,
        other => panic!("{other:?}"),
    }
}

fn put(key: &str, value: &str) -> Batch {
    Batch {
        at: Timestamp(1),
        writes: vec![Write::Put(row_key(key), value.to_owned().into())],
    }
}

fn row_key(key: &str) -> bytes::Bytes {
    [&1u16.to_be_bytes(), key.as_bytes()].concat().into()
}

fn row(group: &Group, key: &str) -> Option<String> {
    group
        .rows()
        .row(&row_key(key))
        .unwrap()
        .map(|value| String::from_utf8(value.to_vec()).unwrap())
}

/// A proposal that has not been polled, and one that has and is not ready.
async fn is_pending(proposal: &mut Proposal) -> bool {
    tokio::select! {
        biased;
        _ = proposal => false,
        () = tokio::task::yield_now() => true,
    }
}

#[tokio::test]
async fn what_is_proposed_is_visible_when_the_proposal_ends() {
    let groups = start(memory()).await;
    let group = groups.group(SHARD).unwrap();
    let term = leads(&group).await;
    group
        .propose(term, vec![put("a", "1"), put("b", "2"), put("a", "3")])
        .await
        .unwrap();
    assert_eq!(row(&group, "a").as_deref(), Some("3"));
    assert_eq!(row(&group, "b").as_deref(), Some("2"));
    assert_eq!(row(&groups.group(ShardId(1)).unwrap(), "a"), None);
}

#[tokio::test]
async fn nothing_ends_before_it_is_synced() {
    let store = memory();
    let groups = start(store.clone()).await;
    let group = groups.group(SHARD).unwrap();
    let term = leads(&group).await;
    store.hold_syncs();
    let mut proposal = group.propose(term, vec![put("a", "1")]);
    for _ in 0..100 {
        assert!(is_pending(&mut proposal).await);
    }
    assert_eq!(row(&group, "a"), None);
    store.sync();
    soon(proposal).await.unwrap();
    assert_eq!(row(&group, "a").as_deref(), Some("1"));
}

#[tokio::test]
async fn proposals_are_on_their_way_unpolled_and_end_in_order() {
    let groups = start(memory()).await;
    let group = groups.group(SHARD).unwrap();
    let term = leads(&group).await;
    drop(group.propose(term, vec![put("dropped", "yes")]));
    let proposals: Vec<_> = (0..100)
        .map(|n| group.propose(term, vec![put("n", &n.to_string())]))
        .collect();
    let mut last = 0;
    for (n, proposal) in proposals.into_iter().enumerate().rev() {
        let Committed { index } = soon(proposal).await.unwrap();
        assert!(n == 99 || index == last - 1);
        last = index;
    }
    assert_eq!(row(&group, "n").as_deref(), Some("99"));
    assert_eq!(row(&group, "dropped").as_deref(), Some("yes"));
}

#[tokio::test]
async fn an_empty_proposal_ends_after_all_before_it() {
    let groups = start(memory()).await;
    let group = groups.group(SHARD).unwrap();
    let term = leads(&group).await;
    let before = group.propose(term, vec![put("a", "1")]);
    soon(group.propose(term, Vec::new())).await.unwrap();
    assert_eq!(row(&group, "a").as_deref(), Some("1"));
    soon(before).await.unwrap();
}

#[tokio::test]
async fn the_term_grows_with_every_start_and_fences_what_is_older() {
    let mut store = memory();
    let mut last = Term(0);
    for round in 0..4 {
        let groups = start(store.clone()).await;
        let group = groups.group(SHARD).unwrap();
        let term = leads(&group).await;
        assert!(term > last, "{term} after {last}");
        assert!(group.has_lease(term) && !group.has_lease(last));
        for wrong in [last, Term(term.0 + 1), Term(0)] {
            let fenced = soon(group.propose(wrong, vec![put("wrong", "row")])).await;
            assert_eq!(
                fenced,
                Err(ProposeError::Fenced {
                    proposed: wrong,
                    leading: term
                })
            );
        }
        soon(group.propose(term, vec![put("round", &round.to_string())]))
            .await
            .unwrap();
        assert_eq!(row(&group, "round"), Some(round.to_string()));
        assert_eq!(row(&group, "wrong"), None);
        last = term;
        store = store.crash();
    }
}

#[tokio::test]
async fn a_leader_has_applied_everything_and_continues_its_time() {
    let store = memory();
    let groups = start(store.clone()).await;
    let group = groups.group(SHARD).unwrap();
    let term = leads(&group).await;
    assert_eq!(group.last_at(), Timestamp(0));
    for (key, at) in [("a", 5), ("b", 9), ("c", 7)] {
        soon(group.propose(
            term,
            vec![Batch {
                at: Timestamp(at),
                ..put(key, "1")
            }],
        ))
        .await
        .unwrap();
    }
    assert_eq!(group.last_at(), Timestamp(9));
    let applied = group.applied();

    // Rows of the last entries are lost, the log is not.
    let groups = start(store.crash()).await;
    let group = groups.group(SHARD).unwrap();
    leads(&group).await;
    assert_eq!(["a", "b", "c"].map(|key| row(&group, key).is_some()), [true; 3]);
    assert_eq!(group.last_at(), Timestamp(9));
    assert!(group.applied() > applied, "a new leader's first entry comes after");
}

#[tokio::test]
async fn an_entry_that_is_too_large_is_refused() {
    let groups = Groups::start(
        Arc::new(memory()),
        Options {
            entry_bytes_max: 1000,
            ..options()
        },
    )
    .await
    .unwrap();
    let group = groups.group(SHARD).unwrap();
    let term = leads(&group).await;
    let fits = "x".repeat(1000 - row_key("a").len());
    soon(group.propose(term, vec![put("a", &fits)])).await.unwrap();
    let result = soon(group.propose(term, vec![put("a", &fits), put("b", "")])).await;
    assert_eq!(
        result,
        Err(ProposeError::TooLarge {
            bytes: 1000 + row_key("b").len(),
            max: 1000
        })
    );
    assert_eq!(row(&group, "b"), None);
}

#[tokio::test]
async fn a_store_that_does_not_keep_up_makes_proposals_wait() {
    let store = memory();
    let groups = Groups::start(
        Arc::new(store.clone()),
        Options {
            in_flight_bytes_max: 100,
            ..options()
        },
    )
    .await
    .unwrap();
    let group = groups.group(SHARD).unwrap();
    let term = leads(&group).await;
    let small = || group.propose(term, vec![put("a", "1")]);

    store.press(true);
    assert_eq!(soon(small()).await, Err(ProposeError::Busy));
    store.press(false);
    soon(small()).await.unwrap();

    store.stall(Duration::from_millis(1100));
    assert_eq!(soon(small()).await, Err(ProposeError::Busy));
    soon(groups.stalled().wait_for(|stalled| *stalled)).await.unwrap();
    store.stall(Duration::ZERO);
    soon(groups.stalled().wait_for(|stalled| !*stalled)).await.unwrap();
    soon(small()).await.unwrap();

    // The first is let in whatever its size, so that it is not refused for ever.
    store.hold_syncs();
    let large = group.propose(term, vec![put("a", &"x".repeat(500))]);
    assert_eq!(soon(small()).await, Err(ProposeError::Busy));
    store.release_syncs();
    soon(large).await.unwrap();
    soon(small()).await.unwrap();
}

/// What is proposed before its proposer knows that something was refused may build upon that.
#[tokio::test]
async fn a_refusal_takes_with_it_what_was_proposed_before_it_was_seen() {
    let store = memory();
    let groups = start(store.clone()).await;
    let group = groups.group(SHARD).unwrap();
    let term = leads(&group).await;
    store.press(true);
    let first = group.propose(term, vec![put("a", "1")]);
    store.press(false);
    let second = group.propose(term, vec![put("b", "upon a")]);
    assert_eq!(soon(first).await, Err(ProposeError::Busy));
    let third = group.propose(term, vec![put("c", "upon b")]);
    assert_eq!(soon(second).await, Err(ProposeError::Busy));
    drop(third);
    soon(group.propose(term, vec![put("d", "upon nothing")])).await.unwrap();
    assert_eq!(
        ["a", "b", "c", "d"].map(|key| row(&group, key).is_some()),
        [false, false, false, true]
    );
}

#[tokio::test]
async fn refused_batches_are_given_back_and_nothing_else_is_refused_for_them() {
    let store = memory();
    let groups = start(store.clone()).await;
    let group = groups.group(SHARD).unwrap();
    let term = leads(&group).await;
    store.press(true);
    let refused = group.try_propose(term, vec![put("a", "1"), put("b", "2")]).unwrap_err();
    assert_eq!(
        refused,
        Refused {
            error: ProposeError::Busy,
            batches: vec![put("a", "1"), put("b", "2")]
        }
    );
    store.press(false);
    let (first, second) = (
        group.try_propose(term, refused.batches).unwrap(),
        group.propose(term, vec![put("a", "3")]),
    );
    soon(second).await.unwrap();
    soon(first).await.unwrap();
    assert_eq!(
        ["a", "b"].map(|key| row(&group, key)),
        [Some("3".to_owned()), Some("2".to_owned())]
    );
    let fenced = group.try_propose(Term(0), Vec::new()).unwrap_err();
    assert_eq!(
        fenced.error,
        ProposeError::Fenced {
            proposed: Term(0),
            leading: term
        }
    );
}

#[tokio::test]
async fn a_store_that_fails_ends_the_group_and_says_why() {
    let store = memory();
    let groups = start(store.clone()).await;
    let group = groups.group(SHARD).unwrap();
    let term = leads(&group).await;
    store.hold_syncs();
    let proposals: Vec<_> = (0..5)
        .map(|n| group.propose(term, vec![put("a", &n.to_string())]))
        .collect();
    tokio::task::yield_now().await;
    let full = StoreError::Full("no space".to_owned());
    assert_eq!(groups.failure(), None);
    store.fail(full.clone());
    assert_eq!(groups.failure(), Some(full.clone()));
    for proposal in proposals {
        assert_eq!(soon(proposal).await, Err(ProposeError::Storage(full.clone())));
    }
    let closed = |now: &Leadership| *now == Leadership::Closed;
    soon(group.leadership().wait_for(closed)).await.unwrap();
    assert!(!group.has_lease(term));
    let after = soon(group.propose(term, vec![put("a", "6")])).await;
    assert!(
        matches!(after, Err(ProposeError::Closed | ProposeError::Storage(_))),
        "{after:?}"
    );
    assert_eq!(soon(groups.shutdown()).await, Err(full));
}

/// The store fails at each of the first writes: nobody hangs or panics, and what was said to be committed is there.
#[tokio::test]
async fn a_store_may_fail_at_any_write() {
    let full = StoreError::Full("no space".to_owned());
    let mut failed = [0; 2];
    for writes in 0..60 {
        let store = memory();
        store.fail_after(writes, full.clone());
        let groups = match soon(Groups::start(Arc::new(store.clone()), options())).await {
            Ok(groups) => groups,
            Err(error) => {
                assert!(matches!(&error, StartError::Store(error) if *error == full), "{error}");
                failed[0] += 1;
                continue;
            }
        };
        let group = groups.group(SHARD).unwrap();
        let mut leadership = group.leadership();
        let settled = |now: &Leadership| !matches!(now, Leadership::Follower { .. });
        let settled = *soon(leadership.wait_for(settled)).await.unwrap();
        let mut committed = None;
        if let Leadership::Leader { term } = settled {
            for n in 0..10 {
                match soon(group.propose(term, vec![put("n", &n.to_string())])).await {
                    Ok(_) => committed = Some(n),
                    Err(ProposeError::Storage(_) | ProposeError::Closed) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            failed[1] += usize::from(committed != Some(9));
        }
        let _ = soon(groups.shutdown()).await;

        let groups = start(store.crash()).await;
        let group = groups.group(SHARD).unwrap();
        leads(&group).await;
        let found = row(&group, "n").map(|n| n.parse::<i32>().unwrap());
        assert!(found >= committed, "{committed:?} was committed, {found:?} is found");
    }
    assert!(
        failed.iter().all(|failed| *failed > 0),
        "at the start and at proposals: {failed:?}"
    );
}

/// A crash after any number of proposals, with any part of the unsynced writes on the disk: what was committed is found, and
/// what is found is a prefix of what was proposed.
#[tokio::test]
async fn a_crash_at_any_write_loses_nothing_that_was_committed_and_leaves_no_hole() {
    for synced in 0..6 {
        for kept in 0..8 {
            let store = memory();
            let groups = start(store.clone()).await;
            let group = groups.group(SHARD).unwrap();
            let term = leads(&group).await;
            store.hold_syncs();
            let mut proposals = Vec::new();
            for n in 0..6 {
                proposals.push(group.propose(term, vec![put(&format!("key {n}"), "1")]));
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                if n < synced {
                    store.sync();
                }
            }
            let mut committed = 0;
            for proposal in &mut proposals {
                if is_pending(proposal).await {
                    break;
                }
                committed += 1;
            }
            let after = store.crash_keeping(kept);
            drop(groups);
            let groups = start(after).await;
            let group = groups.group(SHARD).unwrap();
            leads(&group).await;
            let found = (0..6)
                .map(|n| row(&group, &format!("key {n}")).is_some())
                .collect::<Vec<_>>();
            let count = found.iter().filter(|found| **found).count();
            assert!(count >= committed, "{committed} were committed, {count} are found");
            assert!(found[..count].iter().all(|found| *found), "a hole: {found:?}");
        }
    }
}

#[tokio::test]
async fn a_shutdown_commits_what_is_under_way_and_refuses_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let open = || RocksStore::open(directory.path(), heronry_storage::Options::default()).unwrap();
    let groups = Groups::start(
        Arc::new(open()),
        Options {
            threads: 1,
            ..options()
        },
    )
    .await
    .unwrap();
    let group = groups.group(SHARD).unwrap();
    let term = leads(&group).await;
    let proposals: Vec<_> = (0..50)
        .map(|n| group.propose(term, vec![put("n", &n.to_string())]))
        .collect();
    soon(groups.shutdown()).await.unwrap();
    for proposal in proposals {
        soon(proposal).await.unwrap();
    }
    assert_eq!(
        soon(group.propose(term, vec![put("n", "50")])).await,
        Err(ProposeError::Closed)
    );
    assert_eq!(*group.leadership().borrow(), Leadership::Closed);
    assert!(!group.has_lease(term));
    drop(group);

    let groups = Groups::start(
        Arc::new(open()),
        Options {
            threads: 2,
            ..options()
        },
    )
    .await
    .unwrap();
    let group = groups.group(SHARD).unwrap();
    assert!(leads(&group).await > term);
    assert_eq!(row(&group, "n").as_deref(), Some("49"));
    // Dropped where nothing may block, and without a word.
    drop((group, groups));
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_disk_that_hangs() {
    let store = memory();
    let options = Options {
        shutdown_timeout: Duration::from_millis(50),
        ..options()
    };
    let groups = Groups::start(Arc::new(store.clone()), options).await.unwrap();
    let group = groups.group(SHARD).unwrap();
    let term = leads(&group).await;
    store.stall(Duration::from_millis(1));
    let proposal = group.propose(term, vec![put("a", "1")]);
    let _ = soon(groups.shutdown()).await;
    assert_eq!(soon(proposal).await, Err(ProposeError::Closed));
}

#[tokio::test]
async fn logs_stay_short_and_a_short_log_is_started_from() {
    let store = memory();
    let options = || Options {
        log_bytes_max: 200 << 10,
        tail_bytes_max: 1 << 10,
        ..options()
    };
    let value = "x".repeat(10 << 10);
    for round in 0..3 {
        let groups = Groups::start(Arc::new(store.clone()), options()).await.unwrap();
        let group = groups.group(SHARD).unwrap();
        let term = leads(&group).await;
        for n in 0..200 {
            soon(group.propose(
                term,
                vec![put(&n.to_string(), &value), put("last", &format!("{round}/{n}"))],
            ))
            .await
            .unwrap();
        }
        let short = async {
            loop {
                let (first, last) = store.log_state(SHARD).unwrap().range.unwrap();
                if last - first < 40 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(short).await;
        assert_eq!(row(&group, "last"), Some(format!("{round}/199")));
        drop(groups);
    }
    let groups = start(store.crash()).await;
    let group = groups.group(SHARD).unwrap();
    leads(&group).await;
    assert_eq!(row(&group, "last").as_deref(), Some("2/199"));
    assert_eq!(row(&group, "0"), Some(value));
}

#[tokio::test]
async fn groups_of_one_node_do_not_wait_for_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let store = RocksStore::open(directory.path(), heronry_storage::Options::default()).unwrap();
    let groups = Groups::start(
        Arc::new(store),
        Options {
            shards: 16,
            threads: 1,
            ..options()
        },
    )
    .await
    .unwrap();
    let mut proposing = Vec::new();
    for shard in 0..16 {
        let group = groups.group(ShardId(shard)).unwrap();
        let term = leads(&group).await;
        proposing.push(tokio::spawn(async move {
            for n in 0..50 {
                group.propose(term, vec![put("n", &n.to_string())]).await.unwrap();
            }
            assert_eq!(row(&group, "n").as_deref(), Some("49"));
        }));
    }
    for proposing in proposing {
        soon(proposing).await.unwrap();
    }
    soon(groups.shutdown()).await.unwrap();
}

#[tokio::test]
async fn the_number_of_shards_is_for_ever() {
    let store = memory();
    drop(start(store.clone()).await);
    let other = Options { shards: 5, ..options() };
    let error = soon(Groups::start(Arc::new(store.crash()), other)).await.unwrap_err();
    assert!(
        matches!(
            error,
            StartError::Shards {
                found: 4,
                configured: 5
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_damaged_log_is_said_at_the_start() {
    let store = memory();
    drop(start(store.clone()).await);
    let record = heronry_storage::Record {
        index: 100,
        bytes: "no entry".into(),
    };
    store.append(SHARD, vec![record], Box::new(|result| result.unwrap()));
    let error = soon(Groups::start(Arc::new(store), options())).await.unwrap_err();
    assert!(matches!(error, StartError::Store(StoreError::Corrupt(_))), "{error}");
}
