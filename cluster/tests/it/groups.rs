//! One-voter groups on both stores.

use std::{sync::Arc, time::Duration};

use heronry_cluster::{
    Batch, Group, Groups, Leadership, MemoryStore, NodeId, Options, Rows, ShardId, Store, Term, Timestamp, Write,
};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

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

/// The term in which this node leads, once it does.
async fn leads(group: &Group) -> Term {
    let mut leadership = group.leadership();
    let leader = leadership.wait_for(|now| matches!(now, Leadership::Leader { .. }));
    match *timeout(PATIENCE, leader).await.unwrap().unwrap() {
        Leadership::Leader { term } => term,
        other => panic!("{other:?}"),
    }
}

fn put(key: &str, value: &str) -> Batch {
    let key = [&1u16.to_be_bytes(), key.as_bytes()].concat();
    Batch {
        at: Timestamp(1),
        writes: vec![Write::Put(key.into(), value.to_owned().into())],
    }
}

fn row(group: &Group, key: &str) -> Option<String> {
    let key = [&1u16.to_be_bytes(), key.as_bytes()].concat();
    group
        .rows()
        .row(&key)
        .unwrap()
        .map(|value| String::from_utf8(value.to_vec()).unwrap())
}

#[tokio::test]
async fn what_is_proposed_is_visible_when_the_proposal_ends() {
    let groups = start(memory()).await;
    let group = groups.group(ShardId(2));
    let term = leads(&group).await;
    group
        .propose(term, vec![put("a", "1"), put("b", "2"), put("a", "3")])
        .await
        .unwrap();
    assert_eq!(row(&group, "a").as_deref(), Some("3"));
    assert_eq!(row(&group, "b").as_deref(), Some("2"));
    assert_eq!(row(&groups.group(ShardId(1)), "a"), None);
}
