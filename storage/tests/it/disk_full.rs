//! A full disk.

use heronry_storage::{OpenError, Options, RocksStore, ShardId, Store, StoreError};

use super::{disks::SmallDisk, *};

const SHARD: ShardId = ShardId(1);

fn options() -> Options {
    // Small buffers, so that the disk is not filled by what RocksDB sets aside for its logs.
    Options {
        write_buffer_bytes: 1 << 20,
        wal_bytes_max: 2 << 20,
        ..Options::default()
    }
}

#[test]
fn a_disk_that_becomes_full_is_said_and_what_was_acknowledged_is_found() {
    let disk = SmallDisk::mount("24m");
    let store = RocksStore::open(disk.path(), options()).unwrap();
    let content = vec![b'x'; 64 << 10];
    let (mut acknowledged, mut failure) = (0, None);
    for index in 0..1000u64 {
        let record = Record {
            index,
            bytes: content.clone().into(),
        };
        match durable(|done| store.append(SHARD, vec![record], done)) {
            Ok(()) => acknowledged += 1,
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    let failure = failure.expect("the disk never became full");
    assert!(matches!(failure, StoreError::Full(_)), "{failure}");
    assert!(failure.to_string().starts_with("the disk is full: "), "{failure}");
    assert!(acknowledged > 10, "{acknowledged} records fitted");
    // Nothing more is done, and everybody is told the same.
    assert_eq!(append(&store, SHARD, [acknowledged]), Err(failure.clone()));
    assert_eq!(
        store.apply(SHARD, &[batch([put(1, "a", "1")])], text("1")),
        Err(failure.clone())
    );
    assert_eq!(store.close(), Err(failure));
    drop(store);

    // There is no room to start, and that is said too.
    match RocksStore::open(disk.path(), options()) {
        Err(OpenError::Failed {
            error: StoreError::Full(_),
            ..
        }) => {}
        Err(error) => panic!("{error:?}"),
        // The write that failed has left enough room to open, or to recover into.
        Ok(store) => drop(store),
    }
    disk.grow("64m");
    let store = RocksStore::open(disk.path(), options()).unwrap();
    let found = log(&store, SHARD);
    assert!(
        found.len() as u64 >= acknowledged,
        "{} of {acknowledged} found",
        found.len()
    );
    assert!(
        found
            .iter()
            .enumerate()
            .all(|(index, record)| record.index == index as u64 && record.bytes == content)
    );
    append(&store, SHARD, [found.len() as u64]).unwrap();
}

#[test]
fn a_disk_without_any_room_is_said_at_the_start() {
    let disk = SmallDisk::mount("16k");
    let error = RocksStore::open(disk.path(), options()).err().unwrap();
    assert!(
        matches!(
            error,
            OpenError::Failed {
                error: StoreError::Full(_),
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("the disk is full"), "{error}");
}
