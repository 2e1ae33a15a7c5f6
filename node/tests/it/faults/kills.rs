//! Nodes are killed.

use crate::fleet::{CORES, Fleet, SHARDS};

#[tokio::test(flavor = "multi_thread")]
async fn cores_are_killed_in_turn_and_no_device_notices() {
    let mut fleet = Fleet::start();
    let load = fleet.load(16).await;
    load.goes_on(20).await;
    for core in 0..CORES {
        fleet.leads(core);
        load.longest();
        fleet.end(core, "KILL");
        // Whatever it led is led by another in a moment.
        load.catches_up().await;
        eprintln!("core {core} killed: the longest wait was {:?}", load.longest());
        load.goes_on(10).await;
        fleet.restart(core);
        fleet.holds(core, SHARDS);
    }
    load.judge_unnoticed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_is_killed_and_its_devices_go_on_at_the_other() {
    let mut fleet = Fleet::start();
    let load = fleet.load(16).await;
    load.goes_on(20).await;
    fleet.end(CORES, "KILL");
    load.catches_up().await;
    load.goes_on(20).await;
    fleet.restart(CORES);
    fleet.end(CORES + 1, "KILL");
    load.catches_up().await;
    load.goes_on(20).await;
    let (seen, _) = load.judge().await;
    // Half of the devices were at the first, and all at the other when its turn came.
    assert_eq!((seen.lost, seen.resumed, seen.begun_anew), (24, 24, 0), "{seen:?}");
}
