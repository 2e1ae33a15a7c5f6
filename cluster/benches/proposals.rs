//! What a committed write costs on one node: writes per second, latency and CPU, by the number of concurrent proposers.
//!
//! `cargo bench -p heronry-cluster --bench proposals [-- SECONDS]`. The store is on disk, in a temporary directory
//! (`TMPDIR` moves it), with the default options: 16 shards, every proposal waits for its fsync. A write is a batch with one row of
//! 1 KB. CPU is that of the whole process, and so includes the proposers.

#![allow(clippy::unwrap_used)]

mod process;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use heronry_cluster::{
    Batch, Groups, Leadership, Options, ProposeError, RocksStore, ShardId, Store, Term, Timestamp, Write,
};

use self::process::{Fsyncs, cpu_time, fsyncs, resident};

const ROW_BYTES: usize = 1000;
/// Rows that are written again and again, for each proposer.
const ROWS: u64 = 1000;

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
        println!("proposers  writes/s  p50 ms  p99 ms  CPU us/write  entries/fsync  refused as busy");
        for proposers in [1, 8, 64, 256] {
            measure(proposers, Duration::from_secs(seconds)).await;
        }
    });
}

async fn start(directory: &std::path::Path) -> (Groups, Vec<Term>) {
    let store: Arc<dyn Store> = Arc::new(RocksStore::open(directory, heronry_storage::Options::default()).unwrap());
    let groups = Groups::start(store, Options::default()).await.unwrap();
    let mut terms = Vec::new();
    for group in groups.list() {
        let mut leadership = group.leadership();
        let leader = *leadership
            .wait_for(|now| matches!(now, Leadership::Leader { .. }))
            .await
            .unwrap();
        let Leadership::Leader { term } = leader else {
            unreachable!()
        };
        terms.push(term);
    }
    (groups, terms)
}

async fn measure(proposers: u16, length: Duration) {
    let directory = tempfile::tempdir().unwrap();
    let (groups, terms) = start(directory.path()).await;
    let (began, cpu, syncs) = (Instant::now(), cpu_time(), fsyncs());
    let deadline = began + length;
    let proposing: Vec<_> = (0..proposers)
        .map(|proposer| {
            let shard = proposer % terms.len() as u16;
            let (group, term) = (groups.group(ShardId(shard)).unwrap(), terms[usize::from(shard)]);
            tokio::spawn(async move {
                let (mut latencies, mut busy) = (Vec::new(), 0);
                let mut count = 0u64;
                while Instant::now() < deadline {
                    let began = Instant::now();
                    match group.propose(term, vec![batch(proposer, count % ROWS)]).await {
                        Ok(_) => latencies.push(began.elapsed()),
                        Err(ProposeError::Busy) => {
                            busy += 1;
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        Err(error) => panic!("{error}"),
                    }
                    count += 1;
                }
                (latencies, busy)
            })
        })
        .collect();
    let (mut latencies, mut busy) = (Vec::new(), 0);
    for proposing in proposing {
        let (more, refused) = proposing.await.unwrap();
        latencies.extend(more);
        busy += refused;
    }
    let (took, cpu, syncs) = (began.elapsed(), cpu_time() - cpu, fsyncs() - syncs);
    groups.shutdown().await.unwrap();
    latencies.sort();
    let writes = latencies.len();
    let at = |share: f64| latencies[((writes - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{proposers:9}  {:8.0}  {:6.2}  {:6.2}  {:12.1}  {:13.1}  {busy:15}",
        writes as f64 / took.as_secs_f64(),
        at(0.5),
        at(0.99),
        cpu.as_secs_f64() * 1e6 / writes as f64,
        writes as f64 / syncs.max(1) as f64,
    );
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

fn batch(proposer: u16, row: u64) -> Batch {
    let key = [&(proposer % 4096).to_be_bytes()[..], &row.to_be_bytes()].concat();
    Batch {
        at: Timestamp(row),
        writes: vec![Write::Put(key.into(), vec![b'x'; ROW_BYTES].into())],
    }
}
