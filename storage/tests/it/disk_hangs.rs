//! A disk that hangs: a file system that is frozen.

use std::{
    sync::mpsc::RecvTimeoutError,
    time::{Duration, Instant},
};

use heronry_storage::{Health, Options, RocksStore, ShardId, Store};

use super::{disks::Disk, *};

const SHARD: ShardId = ShardId(0);

/// Waits until the store says so of itself.
fn until(store: &RocksStore, what: impl Fn(Health) -> bool) {
    let began = Instant::now();
    while !what(store.health()) {
        assert!(began.elapsed() < PATIENCE, "{:?}", store.health());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_disk_that_hangs_is_reported_and_loses_nothing() {
    let disk = Disk::new();
    let options = Options {
        queue_bytes_max: 50_000,
        ..Options::default()
    };
    let store = RocksStore::open(&disk.mounted, options).unwrap();
    append(&store, SHARD, [0]).unwrap();
    until(&store, |health| health == Health::default());

    let frozen = disk.freeze();
    let (sender, receiver) = mpsc::channel();
    for index in 1..=20 {
        let sender = sender.clone();
        let record = Record {
            index,
            bytes: vec![0; 5_000].into(),
        };
        store.append(
            SHARD,
            vec![record],
            Box::new(move |result| sender.send(result).unwrap()),
        );
    }
    until(&store, |health| health.stalled > Duration::from_millis(100));
    assert!(store.health().pressed, "{:?}", store.health());
    assert!(store.health().queued_bytes > 50_000);
    assert_eq!(receiver.try_recv().err(), Some(mpsc::TryRecvError::Empty));
    // What is known without the disk can still be read.
    assert_eq!(log(&store, SHARD)[0], record(0));

    drop(frozen);
    for _ in 0..20 {
        match receiver.recv_timeout(PATIENCE) {
            Ok(result) => result.unwrap(),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!("a write was forgotten"),
        }
    }
    until(&store, |health| health == Health::default());
    assert_eq!(log(&store, SHARD).len(), 21);
}
