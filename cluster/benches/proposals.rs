//! What a committed write costs on one node: writes per second, latency and CPU, by the number of concurrent proposers.
//!
//! `cargo bench -p heronry-cluster --bench proposals [-- SECONDS]`. The store is on disk, in a temporary directory
//! (`TMPDIR` moves it), with the default options: 16 shards, every proposal waits for its fsync.

#![allow(clippy::unwrap_used)]

mod measure;

use std::{fs, sync::Arc, time::Duration};

use heronry_cluster::{Group, Groups, Leadership, Options, RocksStore, Store, Term};

use self::measure::{
    Fsyncs, cpu_time,
    proposing::{HEADS, measure},
};

fn main() {
    metrics::set_global_recorder(Fsyncs).expect("it is the first");
    let seconds = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(5);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        idle(Duration::from_secs(seconds.max(10))).await;
        println!("{HEADS}");
        for proposers in [1, 8, 64, 256] {
            with(proposers, Duration::from_secs(seconds)).await;
        }
    });
}

async fn start(directory: &std::path::Path) -> (Groups, Vec<(Group, Term)>) {
    let store: Arc<dyn Store> = Arc::new(RocksStore::open(directory, heronry_storage::Options::default()).unwrap());
    let groups = Groups::start(store, Options::default()).await.unwrap();
    let mut led = Vec::new();
    for group in groups.list() {
        let mut leadership = group.leadership();
        let leader = *leadership
            .wait_for(|now| matches!(now, Leadership::Leader { .. }))
            .await
            .unwrap();
        let Leadership::Leader { term } = leader else {
            unreachable!()
        };
        led.push((group, term));
    }
    (groups, led)
}

async fn with(proposers: u16, length: Duration) {
    let directory = tempfile::tempdir().unwrap();
    let (groups, led) = start(directory.path()).await;
    measure(&led, proposers, length).await;
    groups.shutdown().await.unwrap();
}

async fn idle(length: Duration) {
    let directory = tempfile::tempdir().unwrap();
    let (groups, _) = start(directory.path()).await;
    let cpu = cpu_time();
    tokio::time::sleep(length).await;
    let cpu = cpu_time() - cpu;
    println!(
        "idle: {:.3} % of one core, {:.1} MiB resident, with 16 groups",
        cpu.as_secs_f64() / length.as_secs_f64() * 100.0,
        resident() as f64 / f64::from(1 << 20)
    );
    groups.shutdown().await.unwrap();
}

/// What the process has in memory, bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
