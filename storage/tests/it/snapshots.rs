//! Snapshots of a shard: whole or not at all.

use std::fs;

use heronry_storage::{Chunks, MemoryStore, NodeId, Rows, ShardId, SnapshotId, Staged, Store, StoreError};

use super::*;

const FROM: ShardId = ShardId(1);
const TO: ShardId = ShardId(2);
const OTHER: ShardId = ShardId(3);
const SLOTS: [u16; 4] = [0, 7, 4095, 4097];

/// A store with rows of three shards, interleaved in the same slots.
fn fill(store: &dyn Store) {
    for (shard, count) in [(OTHER, 5), (FROM, 300), (TO, 40)] {
        let writes = SLOTS.iter().flat_map(|slot| {
            (0..count).map(move |row| put(*slot, &format!("{row}"), &format!("{shard} {}", "v".repeat(1000))))
        });
        store
            .apply(shard, &[batch(writes)], text(&format!("position of {shard}")))
            .unwrap();
    }
}

fn all(store: &dyn Store, shard: ShardId) -> Vec<(Bytes, Bytes)> {
    (0..5000u16)
        .flat_map(|slot| store.rows(shard).scan(&slot.to_be_bytes(), &[], usize::MAX).unwrap())
        .collect()
}

fn stores(check: impl Fn(&dyn Store)) {
    let memory = MemoryStore::new(NodeId(1));
    fill(&memory);
    check(&memory);
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    fill(&disk);
    check(&disk);
    disk.close().unwrap();
    drop(disk);
    let disk = open(directory.path());
    assert!(all(&disk, OTHER).len() == 20);
}

#[test]
fn an_installed_snapshot_replaces_all_rows_of_its_shard_and_no_other() {
    stores(|store| {
        let (source, other) = (all(store, FROM), all(store, OTHER));
        let rows = store.rows(TO);
        let position = store.import(TO, store.export(FROM).unwrap()).unwrap();
        assert_eq!(position, "position of 1");
        assert_eq!(store.applied(TO), Ok(Some(position)));
        assert!(all(store, TO) == source);
        assert!(all(store, FROM) == source);
        assert!(all(store, OTHER) == other);
        // A reading taken before shows what is now.
        assert_eq!(rows.scan(&SLOTS[0].to_be_bytes(), &[], usize::MAX).unwrap().len(), 300);
        // And it lives on.
        store.apply(TO, &[batch([put(7, "new", "row")])], text("next")).unwrap();
        assert_eq!(row(store, TO, 7, "new"), Some(text("row")));
        assert_eq!(row(store, FROM, 7, "new"), None);
    });
}

#[test]
fn an_empty_shard_travels_too() {
    stores(|store| {
        store.import(FROM, store.export(ShardId(9)).unwrap()).unwrap();
        assert_eq!(all(store, FROM), []);
    });
}

#[test]
fn a_snapshot_is_of_the_moment_its_first_chunk_is_taken() {
    stores(|store| {
        let mut chunks = store.export(FROM).unwrap();
        let header = chunks.next().unwrap();
        store
            .apply(FROM, &[batch([put(7, "late", "row")])], text("late"))
            .unwrap();
        let position = store
            .import(TO, Box::new(std::iter::once(header).chain(chunks)))
            .unwrap();
        assert_eq!(position, "position of 1");
        assert_eq!(row(store, TO, 7, "late"), None);
        assert_eq!(row(store, FROM, 7, "late"), Some(text("row")));
    });
}

#[test]
fn an_export_that_nobody_finishes_ends() {
    stores(|store| {
        let mut chunks = store.export(FROM).unwrap();
        chunks.next().unwrap().unwrap();
        drop(chunks);
        drop(store.export(FROM).unwrap());
    });
}

/// Every way in which chunks can be wrong: none is installed, and the rows are what they were.
#[test]
fn a_damaged_snapshot_is_refused_and_changes_nothing() {
    stores(|store| {
        let whole: Vec<Bytes> = store.export(FROM).unwrap().map(Result::unwrap).collect();
        assert!(whole.len() > 4, "{} chunks", whole.len());
        let last = whole.len() - 1;
        let garbled = |at: usize, byte: usize| {
            let mut chunks = whole.clone();
            let mut chunk = chunks[at].to_vec();
            chunk[byte] ^= 1;
            chunks[at] = chunk.into();
            chunks
        };
        let mut cases = vec![
            ("nothing", Vec::new()),
            ("no header", whole[1..].to_vec()),
            ("no end", whole[..last].to_vec()),
            ("header alone", whole[..1].to_vec()),
            ("a chunk too few", [&whole[..2], &whole[3..]].concat()),
            ("a chunk twice", [&whole[..3], &whole[2..]].concat()),
            ("a header twice", [&whole[..1], &whole[..]].concat()),
            ("a short chunk", [&whole[..1], &[text("abc")], &whole[1..]].concat()),
            ("an empty chunk", [&whole[..1], &[Bytes::new()], &whole[1..]].concat()),
        ];
        for (at, name) in [(0, "header"), (2, "rows"), (last, "end")] {
            for byte in [0, 4, whole[at].len() - 1] {
                cases.push((name, garbled(at, byte)));
            }
        }
        let before = all(store, TO);
        for (name, chunks) in cases {
            let result = store.import(TO, Box::new(chunks.into_iter().map(Ok)));
            assert!(matches!(result, Err(StoreError::Corrupt(_))), "{name}: {result:?}");
            assert!(all(store, TO) == before, "{name}");
            assert_eq!(store.applied(TO), Ok(Some(text("position of 2"))), "{name}");
        }
        let interrupted: Chunks = Box::new(
            whole
                .clone()
                .into_iter()
                .take(3)
                .map(Ok)
                .chain([Err(StoreError::Io("cut".to_owned()))]),
        );
        assert_eq!(store.import(TO, interrupted), Err(StoreError::Io("cut".to_owned())));
        assert!(all(store, TO) == before);
        // The store is none the worse.
        store.import(TO, Box::new(whole.into_iter().map(Ok))).unwrap();
        assert!(all(store, TO) == all(store, FROM));
    });
}

const ID: Option<SnapshotId> = Some(SnapshotId(7));

fn bytes(chunks: &[Bytes]) -> usize {
    chunks.iter().map(Bytes::len).sum()
}

/// What is sent to somebody who has this much.
fn sent(store: &dyn Store, after: &Staged) -> Vec<Bytes> {
    store.view(FROM).unwrap().chunks(after).map(Result::unwrap).collect()
}

#[test]
fn a_snapshot_that_broke_off_goes_on_after_the_last_row_that_came() {
    stores(|store| {
        let source = all(store, FROM);
        let before = all(store, TO);
        let whole = sent(store, &Staged::default());
        let mut staging = store.stage(TO, ID).unwrap();
        assert_eq!(staging.staged(), Staged::default());
        for chunk in &whole[..whole.len() - 2] {
            assert_eq!(staging.take(chunk.clone()), Ok(false));
        }
        let staged = staging.staged();
        drop(staging);
        assert!(all(store, TO) == before, "nothing is there before all is");

        let mut staging = store.stage(TO, ID).unwrap();
        assert_eq!(staging.staged(), staged);
        assert!(staged.rows > 0 && staged.rows < source.len() as u64, "{staged:?}");
        let rest = sent(store, &staged);
        assert!(
            bytes(&rest) < bytes(&whole) / 2,
            "{} of {} bytes are sent again",
            bytes(&rest),
            bytes(&whole)
        );
        let count = rest.len();
        for (at, chunk) in rest.into_iter().enumerate() {
            assert_eq!(staging.take(chunk), Ok(at + 1 == count));
        }
        assert_eq!(staging.install(), Ok(text("position of 1")));
        assert!(all(store, TO) == source);
        // It is over: the same again begins at its beginning.
        assert_eq!(store.stage(TO, ID).unwrap().staged(), Staged::default());
    });
}

#[test]
fn a_whole_snapshot_that_was_not_installed_need_not_come_again() {
    stores(|store| {
        let source = all(store, FROM);
        let mut staging = store.stage(TO, ID).unwrap();
        for chunk in sent(store, &Staged::default()) {
            staging.take(chunk).unwrap();
        }
        drop(staging);
        let mut staging = store.stage(TO, ID).unwrap();
        let rest = sent(store, &staging.staged());
        assert_eq!(rest.len(), 2, "a header and an end");
        for chunk in rest {
            staging.take(chunk).unwrap();
        }
        staging.install().unwrap();
        assert!(all(store, TO) == source);
    });
}

#[test]
fn a_damaged_chunk_is_refused_and_what_came_before_it_stays() {
    stores(|store| {
        let whole = sent(store, &Staged::default());
        let mut staging = store.stage(TO, ID).unwrap();
        for chunk in &whole[..3] {
            staging.take(chunk.clone()).unwrap();
        }
        let staged = staging.staged();
        let mut garbled = whole[3].to_vec();
        garbled[100] ^= 1;
        for chunk in [garbled.into(), whole[0].clone(), whole[2].clone(), text("no chunk")] {
            assert!(matches!(staging.take(chunk), Err(StoreError::Corrupt(_))));
            assert_eq!(staging.staged(), staged);
        }
        for chunk in &whole[3..] {
            staging.take(chunk.clone()).unwrap();
        }
        staging.install().unwrap();
        assert!(all(store, TO) == all(store, FROM));
    });
}

#[test]
fn another_snapshot_begins_anew_and_two_at_a_time_are_refused() {
    stores(|store| {
        let whole = sent(store, &Staged::default());
        let mut staging = store.stage(TO, ID).unwrap();
        for chunk in &whole[..3] {
            staging.take(chunk.clone()).unwrap();
        }
        assert!(store.stage(TO, ID).is_err(), "one is under way");
        assert!(store.stage(OTHER, ID).is_ok(), "another shard's is another's");
        drop(staging);
        let mut staging = store.stage(TO, Some(SnapshotId(8))).unwrap();
        assert_eq!(staging.staged(), Staged::default());
        // Of another moment under the same name: none of it fits.
        staging.take(whole[0].clone()).unwrap();
        staging.take(whole[1].clone()).unwrap();
        drop(staging);
        store
            .apply(FROM, &[batch([put(7, "late", "row")])], text("late"))
            .unwrap();
        let mut staging = store.stage(TO, Some(SnapshotId(8))).unwrap();
        let later = sent(store, &staging.staged());
        assert!(matches!(staging.take(later[0].clone()), Err(StoreError::Corrupt(_))));
        assert!(staging.install().is_err());
        assert_eq!(store.applied(TO), Ok(Some(text("position of 2"))));
    });
}

#[test]
fn a_view_is_of_one_moment_however_often_it_is_read() {
    stores(|store| {
        let view = store.view(FROM).unwrap();
        let chunks = || view.chunks(&Staged::default()).map(Result::unwrap).collect::<Vec<_>>();
        let first = chunks();
        store
            .apply(FROM, &[batch([put(7, "late", "row")])], text("late"))
            .unwrap();
        assert!(chunks() == first);
        assert_eq!(view.applied(), "position of 1");
        // One that is not read to its end holds up nobody for ever.
        let mut begun = view.chunks(&Staged::default());
        begun.next().unwrap().unwrap();
        drop(begun);
        assert!(chunks() == first);
    });
}

#[test]
fn what_came_before_a_restart_need_not_come_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    fill(&store);
    let whole = sent(&store, &Staged::default());
    let mut staging = store.stage(TO, ID).unwrap();
    for chunk in &whole[..whole.len() - 2] {
        staging.take(chunk.clone()).unwrap();
    }
    let staged = staging.staged();
    drop(staging);
    drop(store);
    let store = open(directory.path());
    let mut staging = store.stage(TO, ID).unwrap();
    assert_eq!(staging.staged(), staged);
    for chunk in sent(&store, &staged) {
        staging.take(chunk).unwrap();
    }
    staging.install().unwrap();
    assert!(all(&store, TO) == all(&store, FROM));
    drop(store);
    let store = open(directory.path());
    assert!(all(&store, TO) == all(&store, FROM));
    assert_eq!(store.applied(TO), Ok(Some(text("position of 1"))));

    // Files that are gone, and a state that is damaged, are nothing.
    for damage in ["000001.sst", "state"] {
        let mut staging = store.stage(TO, ID).unwrap();
        for chunk in &whole[..3] {
            staging.take(chunk.clone()).unwrap();
        }
        drop(staging);
        let file = directory.path().join("incoming/2").join(damage);
        assert!(file.exists(), "{damage}");
        match damage {
            "state" => fs::write(file, [0xff; 9]).unwrap(),
            _ => fs::remove_file(file).unwrap(),
        }
        assert_eq!(store.stage(TO, ID).unwrap().staged(), Staged::default());
    }
    // Nor is anything left of a shard that has gone.
    let mut staging = store.stage(TO, ID).unwrap();
    for chunk in &whole[..3] {
        staging.take(chunk.clone()).unwrap();
    }
    drop(staging);
    store.remove(TO).unwrap();
    assert!(!directory.path().join("incoming/2").exists());
}

/// Rows on disk, of any generation.
fn rows_on_disk(directory: &std::path::Path) -> usize {
    let db = rocksdb::DB::open_cf_for_read_only(
        &rocksdb::Options::default(),
        directory.join("store"),
        ["log", "raft", "rows", "meta"],
        false,
    )
    .unwrap();
    let rows = db.cf_handle("rows").unwrap();
    db.iterator_cf(&rows, rocksdb::IteratorMode::Start).count()
}

#[test]
fn rows_that_are_nobodys_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    fill(&store);
    let chunks: Vec<_> = store.export(FROM).unwrap().collect();
    store.import(TO, Box::new(chunks.clone().into_iter())).unwrap();
    drop(store);
    let expected = 4 * (300 + 300 + 5);
    assert_eq!(rows_on_disk(directory.path()), expected);

    // An import that is cut off by the death of its process: its thread stops where it is and nothing is cleaned up.
    let store = shared(open(directory.path()));
    let (sender, receiver) = mpsc::channel();
    let importing = Arc::clone(&store);
    let cut = chunks.into_iter().take(4).chain(std::iter::once_with(move || {
        sender.send(()).unwrap();
        std::thread::park_timeout(PATIENCE);
        Err(StoreError::Closed)
    }));
    let copy = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let import = scope.spawn(move || importing.import(TO, Box::new(cut)));
        receiver.recv_timeout(PATIENCE).unwrap();
        append(&*store, FROM, [0]).unwrap();
        copy_all(&directory.path().join("incoming/2"), &copy.path().join("incoming/2"));
        copy_all(&directory.path().join("store"), &copy.path().join("store"));
        import.thread().unpark();
        assert!(import.join().unwrap().is_err());
    });
    let reopened = open(copy.path());
    assert!(all(&reopened, TO) == all(&reopened, FROM));
    drop(reopened);
    assert_eq!(rows_on_disk(copy.path()), expected);
    assert!(!copy.path().join("incoming/2").exists(), "nobody will go on with it");
}

fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
