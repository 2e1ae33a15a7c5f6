//! All nodes are restarted, one after another.

use crate::fleet::{CORES, EDGES, Fleet, SHARDS};

#[tokio::test(flavor = "multi_thread")]
async fn every_node_is_restarted_and_only_the_devices_of_an_edge_reconnect() {
    let mut fleet = Fleet::start();
    let load = fleet.load(16).await;
    load.goes_on(20).await;
    for core in 0..CORES {
        load.longest();
        fleet.end(core, "TERM").ok();
        fleet.restart(core);
        // The next may go when this one has all it had.
        fleet.holds(core, SHARDS);
        load.catches_up().await;
        eprintln!("core {core} restarted: the longest wait was {:?}", load.longest());
    }
    assert_eq!(load.seen().lost, 0, "no edge was restarted yet");
    for edge in CORES..CORES + EDGES {
        fleet.end(edge, "TERM").ok();
        load.catches_up().await;
        fleet.restart(edge);
        eprintln!("edge {edge} restarted: the longest wait was {:?}", load.longest());
    }
    let (seen, _) = load.judge().await;
    // Half of the devices were at the first, and all at the other when its turn came.
    assert_eq!((seen.lost, seen.resumed, seen.begun_anew), (24, 24, 0), "{seen:?}");
    assert_eq!(seen.refused, 0, "{seen:?}");
}
