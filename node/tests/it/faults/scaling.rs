//! Nodes come and go for good.

use crate::{
    fleet::{Fleet, SHARDS, until},
    process::Place,
};

#[tokio::test(flavor = "multi_thread")]
async fn cores_join_leave_and_are_replaced_and_no_device_notices() {
    let mut fleet = Fleet::start();
    let load = fleet.load(16).await;
    load.goes_on(20).await;

    let fourth = fleet.join(Place::new());
    fleet.run(&["cluster", "rebalance"]);
    until("shards have moved to the fourth core", || {
        let each = [0, 1, 2, fourth].map(|core| fleet.shards(core));
        let replicas: usize = each.iter().map(|(_, here)| here).sum();
        each.iter()
            .all(|(led, here)| *led > 0 && (SHARDS / 2..SHARDS).contains(here))
            && replicas == 3 * SHARDS
    });
    load.catches_up().await;
    eprintln!("grown: the longest wait was {:?}", load.longest());

    fleet.run(&["cluster", "drain", &fleet.address(0), "--wait"]);
    until("the first has left", || fleet.member(0)["state"] == "left");
    fleet.spread_over(&[1, 2, fourth]);
    fleet.end(0, "TERM").ok();
    load.catches_up().await;
    eprintln!("shrunk: the longest wait was {:?}", load.longest());

    fleet.end(1, "KILL");
    let fifth = fleet.join(Place::new());
    until("the fifth is there", || fleet.member(fifth)["alive"] == true);
    fleet.run(&["cluster", "evict", &fleet.address(1)]);
    fleet.spread_over(&[2, fourth, fifth]);
    load.catches_up().await;
    eprintln!("replaced: the longest wait was {:?}", load.longest());
    load.judge_unnoticed().await;
}
