//! Nodes hang: their sockets stay open, and nothing comes.

use std::time::Duration;

use crate::fleet::{CORES, Fleet};

/// Longer than a lease, and longer than it takes until another leads.
const HANG: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn cores_hang_in_turn_and_what_they_led_is_led_by_others() {
    let fleet = Fleet::start();
    let load = fleet.load(16).await;
    load.goes_on(20).await;
    for core in 0..CORES {
        fleet.leads(core);
        load.longest();
        fleet.signal(core, "STOP");
        tokio::time::sleep(HANG).await;
        // Also while it still hangs.
        load.catches_up().await;
        eprintln!("core {core} hung: the longest wait was {:?}", load.longest());
        load.goes_on(10).await;
        // It wakes up as the leader that it was.
        fleet.signal(core, "CONT");
        load.goes_on(10).await;
        load.catches_up().await;
        eprintln!("core {core} went on: the longest wait was {:?}", load.longest());
    }
    load.judge_unnoticed().await;
}
