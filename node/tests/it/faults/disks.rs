//! Disks of cores are full, or hang.

use std::time::Duration;

use heronry_loadtest::steady::Plan;

use crate::{
    confined::{Disk, is_inside},
    fleet::{CORES, EDGES, Fleet, SHARDS, until},
    process::Place,
};

/// So that the disk is needed at once.
const SMALL: [&str; 2] = [
    "--set=limits.storage.wal_bytes_max=1 MiB",
    "--set=limits.storage.write_buffer_bytes_max=1 MiB",
];

fn places() -> Vec<Place> {
    (0..CORES + EDGES).map(|_| Place::new().with(&SMALL)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_one_core_is_full_and_the_others_go_on() {
    if !is_inside(module_path!(), "the_disk_of_one_core_is_full_and_the_others_go_on") {
        return;
    }
    let mut places = places();
    // Otherwise it would stop in time.
    places[0]
        .flags
        .push("--set=limits.storage.disk_reserve_bytes=0".to_owned());
    let disk = Disk::small(&places[0], "96m");
    let mut fleet = Fleet::start_at(places);
    let writing = Plan {
        interval: Duration::from_millis(20),
        rows_every: 1,
        burst: 1,
        ..Plan::default()
    };
    let load = fleet.load_of(16, writing).await;
    load.goes_on(20).await;
    load.longest();
    disk.fill();
    // A node that cannot write is of no use: it ends, and says why.
    let ended = fleet.wait(0);
    assert_eq!(ended.code, Some(6), "{ended:?}");
    let sentence = ended.sentence(fleet.nodes[0].place.directory.path());
    assert!(sentence.starts_with("the disk of DIR/data is full"), "{sentence}");
    load.catches_up().await;
    eprintln!("disk full: the longest wait was {:?}", load.longest());
    disk.make_room();
    fleet.restart(0);
    fleet.leads(0);
    load.catches_up().await;
    load.judge_unnoticed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_one_core_is_almost_full_and_it_stands_aside_until_it_has_room() {
    let name = "the_disk_of_one_core_is_almost_full_and_it_stands_aside_until_it_has_room";
    if !is_inside(module_path!(), name) {
        return;
    }
    let places = places();
    let disk = Disk::small(&places[0], "96m");
    let fleet = Fleet::start_at(places);
    let load = fleet.load(16).await;
    load.goes_on(20).await;
    load.longest();
    disk.fill();
    until("it leads nothing", || fleet.shards(0).0 == 0);
    load.catches_up().await;
    eprintln!("disk almost full: the longest wait was {:?}", load.longest());
    load.goes_on(20).await;
    let said = fleet.nodes[0].place.run(&["status"]);
    assert!(
        said.code == Some(1)
            && said
                .stdout
                .contains("has less room than limits.storage.disk_reserve_bytes"),
        "{said:?}"
    );
    disk.make_room();
    until("it is well again", || {
        fleet.nodes[0].place.run(&["status"]).code == Some(0)
    });
    fleet.leads(0);
    assert_eq!(fleet.shards(0).1, SHARDS);
    load.judge_unnoticed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_one_core_hangs_and_others_lead() {
    if !is_inside(module_path!(), "the_disk_of_one_core_hangs_and_others_lead") {
        return;
    }
    let places = places();
    let Some(disk) = Disk::in_file(&places[0]) else { return };
    let fleet = Fleet::start_at(places);
    let load = fleet.load(16).await;
    load.goes_on(20).await;
    load.longest();
    disk.freeze();
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Its sockets are open and it answers, but it leads nothing any more.
    load.catches_up().await;
    eprintln!("disk frozen: the longest wait was {:?}", load.longest());
    load.goes_on(20).await;
    let said = fleet.nodes[0].place.run(&["status"]);
    assert!(
        said.code == Some(1) && said.stdout.contains("the disk has not finished a write for"),
        "{said:?}"
    );
    disk.thaw();
    load.catches_up().await;
    eprintln!("disk thawed: the longest wait was {:?}", load.longest());
    until("it is well again", || {
        fleet.nodes[0].place.run(&["status"]).code == Some(0)
    });
    fleet.leads(0);
    assert_eq!(fleet.shards(0).1, SHARDS);
    load.judge_unnoticed().await;
}
