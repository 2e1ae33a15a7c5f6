//! One process at a time.

use std::process::Command;

use heronry_storage::{OpenError, Options, RocksStore, ShardId, Store};

use super::*;

/// Set for a copy of this test program that is to open a store and say what happened.
const OPENER: &str = "HERONRY_TEST_OPEN";

#[test]
fn a_second_process_is_told_who_has_the_store() {
    if let Some(directory) = std::env::var_os(OPENER) {
        match RocksStore::open(directory.as_ref(), Options::default()) {
            Ok(store) => println!("opened by {}", store.node_id()),
            Err(error) => println!("refused: {error}"),
        }
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let other_process = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "locked::a_second_process_is_told_who_has_the_store",
            "--nocapture",
        ]);
        let output = command.env(OPENER, directory.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };

    let store = open(directory.path());
    let sentence = format!(
        "refused: {} is in use by process {}",
        directory.path().display(),
        std::process::id()
    );
    let said = other_process();
    assert!(said.contains(&sentence), "{said}");
    drop(store);
    let said = other_process();
    assert!(said.contains("opened by"), "{said}");
}

#[test]
fn the_same_process_is_refused_as_well_while_rows_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let refused = |result: Result<RocksStore, _>| {
        let pid = Some(std::process::id());
        assert_eq!(
            result.err(),
            Some(OpenError::Locked {
                path: directory.path().to_owned(),
                pid
            })
        );
    };
    refused(RocksStore::open(directory.path(), Options::default()));
    let rows = store.rows(ShardId(0));
    drop(store);
    refused(RocksStore::open(directory.path(), Options::default()));
    drop(rows);
    open(directory.path());
}

#[test]
fn a_lock_file_left_by_a_dead_process_is_no_lock() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("lock"), "not a number \u{1F980}").unwrap();
    open(directory.path());
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = RocksStore::open(&file.join("data"), Options::default()).err();
    assert!(matches!(error, Some(OpenError::Failed { .. })), "{error:?}");
}
