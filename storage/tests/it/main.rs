//! Stores, from outside.

#![allow(clippy::unwrap_used)]

mod conformance;
mod damage;
mod disk_full;
mod disk_hangs;
mod disks;
mod killed;
mod locked;
mod memory;
mod power_cut;
mod properties;
mod snapshots;

use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

use bytes::Bytes;
use heronry_storage::{Batch, Done, Options, Record, RocksStore, Rows, ShardId, Store, StoreError, Timestamp, Write};

const PATIENCE: Duration = Duration::from_secs(60);

fn open(directory: &Path) -> RocksStore {
    RocksStore::open(directory, Options::default()).unwrap()
}

/// Queues something and waits until it is durable.
fn durable(queue: impl FnOnce(Done)) -> Result<(), StoreError> {
    let (sender, receiver) = mpsc::channel();
    queue(Box::new(move |result| drop(sender.send(result))));
    receiver.recv_timeout(PATIENCE).unwrap()
}

fn append(store: &dyn Store, shard: ShardId, records: impl IntoIterator<Item = u64>) -> Result<(), StoreError> {
    durable(|done| store.append(shard, records.into_iter().map(record).collect(), done))
}

/// A record whose content tells its index.
fn record(index: u64) -> Record {
    Record {
        index,
        bytes: format!("record {index}").into(),
    }
}

fn put(slot: u16, key: &str, value: &str) -> Write {
    Write::Put(row_key(slot, key), Bytes::copy_from_slice(value.as_bytes()))
}

fn row_key(slot: u16, key: &str) -> Bytes {
    [&slot.to_be_bytes(), key.as_bytes()].concat().into()
}

fn batch(writes: impl IntoIterator<Item = Write>) -> Batch {
    Batch {
        at: Timestamp(1),
        writes: writes.into_iter().collect(),
    }
}

fn row(store: &dyn Store, shard: ShardId, slot: u16, key: &str) -> Option<Bytes> {
    store.rows(shard).row(&row_key(slot, key)).unwrap()
}

fn log(store: &dyn Store, shard: ShardId) -> Vec<Record> {
    store.read_log(shard, 0..u64::MAX, usize::MAX).unwrap()
}

fn text(bytes: &str) -> Bytes {
    Bytes::copy_from_slice(bytes.as_bytes())
}

fn shared(store: impl Store) -> Arc<dyn Store> {
    Arc::new(store)
}
