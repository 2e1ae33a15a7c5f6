//! Nodes are cut off from each other: packets are dropped, nothing is refused and nothing closes.

use std::time::Duration;

use crate::{
    confined::{Network, is_inside},
    fleet::{CORES, EDGES, Fleet},
};

/// Longer than a lease, and longer than it takes until another leads.
const CUT: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_core_is_cut_off_from_the_others_both_ways_and_one_way() {
    if !is_inside(
        module_path!(),
        "a_core_is_cut_off_from_the_others_both_ways_and_one_way",
    ) {
        return;
    }
    let Some(network) = Network::of(CORES + EDGES) else {
        return;
    };
    let fleet = Fleet::start_at((0..CORES + EDGES).map(|host| network.place(host)).collect());
    let load = fleet.load(16).await;
    load.goes_on(20).await;
    for (core, hears, is_heard) in [(0, false, false), (1, false, true), (2, true, false)] {
        fleet.leads(core);
        load.longest();
        for other in (0..CORES).filter(|other| *other != core) {
            if !hears {
                network.cut(other, core);
            }
            if !is_heard {
                network.cut(core, other);
            }
        }
        tokio::time::sleep(CUT).await;
        load.catches_up().await;
        let what = format!("core {core} (hears others: {hears}, is heard: {is_heard})");
        eprintln!("{what} was cut off: the longest wait was {:?}", load.longest());
        for core in 0..CORES {
            network.heal(core);
        }
        load.goes_on(10).await;
        load.catches_up().await;
        eprintln!("{what} was back: the longest wait was {:?}", load.longest());
    }
    load.judge_unnoticed().await;
}

/// All others see the leader, and only this edge does not.
#[tokio::test(flavor = "multi_thread")]
async fn an_edge_is_cut_off_from_a_leader_and_its_stanzas_wait() {
    if !is_inside(module_path!(), "an_edge_is_cut_off_from_a_leader_and_its_stanzas_wait") {
        return;
    }
    let Some(network) = Network::of(CORES + EDGES) else {
        return;
    };
    let fleet = Fleet::start_at((0..CORES + EDGES).map(|host| network.place(host)).collect());
    let load = fleet.load(16).await;
    load.goes_on(20).await;
    for (from, to) in [(0, CORES), (CORES, 0)] {
        network.cut(from, to);
        tokio::time::sleep(CUT).await;
        // Those that need neither that edge nor that leader.
        load.goes_on(2).await;
        network.heal(to);
        load.catches_up().await;
        eprintln!(
            "host {to} did not hear {from}: the longest wait was {:?}",
            load.longest()
        );
        load.goes_on(10).await;
    }
    load.judge_unnoticed().await;
}
