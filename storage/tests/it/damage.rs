//! Stores that are newer, damaged, or somebody else's: each is refused with a sentence.

use std::{
    fs,
    path::{Path, PathBuf},
};

use heronry_storage::{OpenError, Options, RocksStore, Rows, ShardId, Store, StoreError};

use super::*;

const SHARD: ShardId = ShardId(2);

fn refusal(directory: &Path) -> OpenError {
    RocksStore::open(directory, Options::default())
        .err()
        .expect("it should have been refused")
}

fn is_corrupt(directory: &Path) -> String {
    match refusal(directory) {
        OpenError::Failed {
            error: StoreError::Corrupt(text),
            ..
        } => text,
        other => panic!("{other:?}"),
    }
}

/// A store with something of everything, closed.
fn store() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    append(&store, SHARD, 0..100).unwrap();
    for position in 0..20 {
        let writes = (0..50).map(|row| put(row % 7, &format!("{position}/{row}"), &"x".repeat(200)));
        store
            .apply(SHARD, &[batch(writes)], text(&position.to_string()))
            .unwrap();
    }
    store.close().unwrap();
    directory
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(directory.join("store"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|file| file.to_string_lossy().ends_with(extension))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no {extension}");
    files
}

/// Opens RocksDB itself, behind the store's back.
fn behind_its_back(directory: &Path, families: &[&str], change: impl FnOnce(&rocksdb::DB)) {
    let mut options = rocksdb::Options::default();
    options.create_missing_column_families(true);
    let db = rocksdb::DB::open_cf(&options, directory.join("store"), families).unwrap();
    change(&db);
    db.flush_wal(true).unwrap();
}

const FAMILIES: [&str; 4] = ["log", "raft", "rows", "meta"];

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let directory = store();
    behind_its_back(directory.path(), &FAMILIES, |db| {
        db.put_cf(&db.cf_handle("meta").unwrap(), "format", 7u32.to_be_bytes())
            .unwrap();
    });
    let error = refusal(directory.path());
    assert_eq!(
        error,
        OpenError::Newer {
            path: directory.path().to_owned(),
            found: 7,
            known: 1
        }
    );
    let sentence = "has the on-disk format 7, this program knows formats up to 1; run the newer version";
    assert!(error.to_string().ends_with(sentence), "{error}");
}

#[test]
fn a_newer_format_with_column_families_we_do_not_know_is_refused_by_its_number() {
    let directory = store();
    behind_its_back(directory.path(), &["log", "raft", "rows", "meta", "novelty"], |db| {
        db.put_cf(&db.cf_handle("meta").unwrap(), "format", 2u32.to_be_bytes())
            .unwrap();
    });
    assert!(matches!(
        refusal(directory.path()),
        OpenError::Newer { found: 2, known: 1, .. }
    ));
}

#[test]
fn a_column_family_that_nobody_made_is_damage() {
    let directory = store();
    behind_its_back(directory.path(), &["log", "raft", "rows", "meta", "strange"], |_| {});
    assert!(is_corrupt(directory.path()).contains("strange"));
}

#[test]
fn a_store_without_a_format_or_an_owner_is_damage() {
    for key in ["format", "node"] {
        let directory = store();
        behind_its_back(directory.path(), &FAMILIES, |db| {
            db.delete_cf(&db.cf_handle("meta").unwrap(), key).unwrap();
        });
        is_corrupt(directory.path());
    }
}

#[test]
fn a_missing_column_family_is_damage() {
    let directory = store();
    behind_its_back(directory.path(), &FAMILIES, |db| db.drop_cf("rows").unwrap());
    is_corrupt(directory.path());
}

#[test]
fn a_store_that_is_gone_while_its_mark_is_there_is_damage() {
    let directory = store();
    fs::remove_dir_all(directory.path().join("store")).unwrap();
    is_corrupt(directory.path());
}

#[test]
fn rocksdb_files_that_are_garbled_or_cut_are_damage() {
    for (file, damage) in [
        ("CURRENT", Damage::Garble),
        ("CURRENT", Damage::Empty),
        ("MANIFEST", Damage::Garble),
        ("MANIFEST", Damage::Empty),
        ("MANIFEST", Damage::Remove),
    ] {
        let directory = store();
        let found = fs::read_dir(directory.path().join("store"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut found = found.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(file));
        damage.to(&found.next().unwrap());
        let sentence = refusal(directory.path()).to_string();
        assert!(sentence.contains("the store is corrupt"), "{file}: {sentence}");
    }
}

#[derive(Clone, Copy)]
enum Damage {
    Garble,
    Empty,
    Remove,
}

impl Damage {
    fn to(self, file: &Path) {
        match self {
            Self::Garble => {
                let mut bytes = fs::read(file).unwrap();
                bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
                fs::write(file, bytes).unwrap();
            }
            Self::Empty => fs::write(file, "").unwrap(),
            Self::Remove => fs::remove_file(file).unwrap(),
        }
    }
}

/// RocksDB takes the end of a damaged write-ahead log for the end of a crash. We do not.
#[test]
fn a_write_ahead_log_that_is_cut_or_garbled_is_damage_wherever() {
    for cut in [true, false] {
        for share in [0.1, 0.5, 0.9, 0.99] {
            let directory = store();
            let log = files(directory.path(), ".log").pop().unwrap();
            let mut bytes = fs::read(&log).unwrap();
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            let at = (used as f64 * share) as usize;
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 0xff;
            }
            fs::write(&log, bytes).unwrap();
            let text = is_corrupt(directory.path());
            assert!(text.contains("had been synced"), "{text}");
        }
    }
}

#[test]
fn a_write_ahead_log_that_is_gone_is_damage() {
    let directory = store();
    for log in files(directory.path(), ".log") {
        fs::remove_file(log).unwrap();
    }
    is_corrupt(directory.path());
}

/// A store whose rows are in sorted files, which one gets by filling the write buffers.
fn store_in_files() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        write_buffer_bytes: 256 << 10,
        wal_bytes_max: 1 << 20,
        ..Options::default()
    };
    let store = RocksStore::open(directory.path(), options).unwrap();
    for position in 0..200u64 {
        let writes = (0..50).map(|row| put(row % 7, &format!("{position}/{row}"), &noise(position, row)));
        store
            .apply(SHARD, &[batch(writes)], text(&position.to_string()))
            .unwrap();
        append(&store, SHARD, [position]).unwrap();
    }
    store.close().unwrap();
    directory
}

/// Text that does not compress.
fn noise(position: u64, row: u16) -> String {
    let mut state = position * 1000 + u64::from(row) + 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(b' ' + (state >> 40) as u8 % 90)
    };
    (0..300).map(|_| next()).collect()
}

#[test]
fn a_sorted_file_that_is_gone_or_cut_is_damage() {
    for damage in [Damage::Remove, Damage::Empty] {
        let directory = store_in_files();
        damage.to(files(directory.path(), ".sst").last().unwrap());
        is_corrupt(directory.path());
    }
}

#[test]
fn a_sorted_file_that_is_garbled_is_an_error_at_the_latest_when_it_is_read() {
    let directory = store_in_files();
    for file in files(directory.path(), ".sst") {
        let mut bytes = fs::read(&file).unwrap();
        // The footer stays, so that the file still looks like one.
        let end = bytes.len() - 100;
        bytes[..end].iter_mut().step_by(7).for_each(|byte| *byte ^= 0x5a);
        fs::write(&file, bytes).unwrap();
    }
    match RocksStore::open(directory.path(), Options::default()) {
        Err(error) => assert!(error.to_string().contains("corrupt"), "{error}"),
        Ok(store) => {
            let error = (0..7u16).find_map(|slot| store.rows(SHARD).scan(&slot.to_be_bytes(), &[], 100_000).err());
            let error = error.expect("a garbled row was read").to_string();
            assert!(error.contains("corrupt"), "{error}");
        }
    }
}

#[test]
fn values_of_ours_that_are_malformed_are_damage() {
    for (family, key) in [
        ("meta", &b"format"[..]),
        ("meta", b"node"),
        ("meta", b"generation"),
        ("meta", b"shards"),
        ("raft", &[0, 2, b'g'][..]),
    ] {
        let directory = store();
        behind_its_back(directory.path(), &FAMILIES, |db| {
            db.put_cf(&db.cf_handle(family).unwrap(), key, "not a number").unwrap();
        });
        match RocksStore::open(directory.path(), Options::default()) {
            Err(error) => assert!(error.to_string().contains("corrupt"), "{error}"),
            // Some are read when they are needed.
            Ok(store) => {
                let read = [store.shards(16).map(drop), store.apply(ShardId(9), &[], text("1"))];
                assert!(
                    read.iter().any(|read| matches!(read, Err(StoreError::Corrupt(_)))),
                    "{read:?}"
                );
            }
        }
    }
}
