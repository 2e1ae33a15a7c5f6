//! All nodes are restarted, one after another, with the program that comes after this one.

use crate::fleet::{CORES, EDGES, Fleet, SHARDS, until};

/// A build with debug assertions says of itself what this names.
const NEXT: [&str; 2] = ["env", "NEXT_HERONRY_FEATURE_LEVEL=3"];

#[tokio::test(flavor = "multi_thread")]
async fn every_node_is_upgraded_and_only_the_devices_of_an_edge_reconnect() {
    let mut fleet = Fleet::start();
    let load = fleet.load(16).await;
    load.goes_on(20).await;
    for core in 0..CORES {
        load.longest();
        upgrade(&mut fleet, core);
        // The next may go when this one has all it had.
        fleet.holds(core, SHARDS);
        load.catches_up().await;
        eprintln!("core {core} upgraded: the longest wait was {:?}", load.longest());
    }
    assert_eq!(load.seen().lost, 0, "no edge was restarted yet");
    // Cores that know more, and edges that do not.
    load.goes_on(20).await;
    let held = fleet.nodes[0].place.run(&["cluster", "upgrade"]);
    assert_eq!(held.code, Some(12), "{held:?}");
    for edge in CORES..CORES + EDGES {
        upgrade(&mut fleet, edge);
        load.catches_up().await;
        eprintln!("edge {edge} upgraded: the longest wait was {:?}", load.longest());
    }
    assert_eq!(fleet.status()["feature_level"], 2, "nobody has asked for more");
    let raised = fleet.run(&["cluster", "upgrade"]).stdout;
    assert!(raised.ends_with("at feature level 2, and is at 3 now\n"), "{raised}");
    until("it is known", || fleet.status()["feature_level"] == 3);
    load.goes_on(10).await;
    let (seen, _) = load.judge().await;
    // Half of the devices were at the first, and all at the other when its turn came.
    assert_eq!((seen.lost, seen.resumed, seen.begun_anew), (24, 24, 0), "{seen:?}");
    assert_eq!(seen.refused, 0, "{seen:?}");
}

fn upgrade(fleet: &mut Fleet, node: usize) {
    fleet.end(node, "TERM").ok();
    fleet.nodes[node].place.through = NEXT.map(str::to_owned).to_vec();
    fleet.restart(node);
    until("it says that it knows more", || {
        fleet.member(node)["feature_level"] == 3
    });
}
