//! A power cut: what the disk has is what was synced, whatever the kernel still held.
//!
//! The store is on a file system in a file. The file, copied while nobody writes, is what a machine would find after its power
//! was cut at that moment: pages that were only written, and not synced, are in the kernel's cache above it. (Needs root.)

use heronry_storage::{Options, RocksStore, Rows, ShardId, Store};

use super::{disks::Disk, *};

const SHARD: ShardId = ShardId(6);

#[test]
fn what_was_acknowledged_is_on_the_disk_and_rows_are_not_ahead() {
    let disk = Disk::new();
    // Some flushes and new write-ahead logs on the way.
    let options = Options {
        write_buffer_bytes: 1 << 20,
        wal_bytes_max: 2 << 20,
        ..Options::default()
    };
    let store = RocksStore::open(&disk.mounted, options.clone()).unwrap();
    let node = store.node_id();
    let mut next = 0;
    for records in [1, 3, 40, 200, 1, 60] {
        for _ in 0..records {
            let record = Record {
                index: next,
                bytes: vec![next as u8; 4000].into(),
            };
            durable(|done| store.append(SHARD, vec![record], done)).unwrap();
            store
                .apply(
                    SHARD,
                    &[batch([put(1, &next.to_string(), "applied")])],
                    text(&next.to_string()),
                )
                .unwrap();
            next += 1;
        }
        durable(|done| store.save_vote(SHARD, text(&next.to_string()), done)).unwrap();
        // Not acknowledged: it may be there or not.
        store
            .apply(
                SHARD,
                &[batch([put(1, "unsynced", "row")])],
                text(&(next - 1).to_string()),
            )
            .unwrap();

        let after = disk.cut();
        let found = RocksStore::open(&after.mounted, options.clone()).unwrap();
        assert_eq!(found.node_id(), node);
        let records = log(&found, SHARD);
        assert_eq!(records.len() as u64, next);
        assert!(
            records
                .iter()
                .all(|record| record.bytes == vec![record.index as u8; 4000])
        );
        assert_eq!(found.log_state(SHARD).unwrap().vote, Some(text(&next.to_string())));
        let applied: u64 = String::from_utf8(found.applied(SHARD).unwrap().unwrap().to_vec())
            .unwrap()
            .parse()
            .unwrap();
        let rows = found.rows(SHARD).scan(&1u16.to_be_bytes(), &[], usize::MAX).unwrap();
        let rows = rows.iter().filter(|(key, _)| *key != row_key(1, "unsynced")).count() as u64;
        assert_eq!(rows, applied + 1, "the rows are those of the position");
        assert!(applied < next);
        found.close().unwrap();
    }
    // What nobody waited for was lost now and then, or this would prove nothing: the last row is applied, and not synced.
    let last = text(&next.to_string());
    store.apply(SHARD, &[batch([put(1, "last", "row")])], last).unwrap();
    let after = disk.cut();
    let found = RocksStore::open(&after.mounted, options.clone()).unwrap();
    assert_eq!(row(&found, SHARD, 1, "last"), None);
    store.close().unwrap();
    let after = disk.cut();
    let found = RocksStore::open(&after.mounted, options).unwrap();
    assert_eq!(row(&found, SHARD, 1, "last"), Some(text("row")), "a close syncs");
}
