//! What a write costs that a majority of three nodes has fsynced, against the disk's own fsync; and what replicas cost that do nothing.
//!
//! `cargo bench -p heronry-cluster --bench quorum [-- SECONDS]`. Three members with links over loopback, in one process, with stores in temporary directories
//! (`TMPDIR` moves them) on one disk, which so does three times the work of one node's. A write is a batch with one row of 1 KB. CPU is that of the whole
//! process: three nodes and the proposers.

#![allow(clippy::unwrap_used)]

mod process;

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use heronry_cluster::{
    Batch, Group, Leadership, Options, PeerId, ProposeError, RocksStore, ShardId, Store, Term, Timestamp, Write,
    map::{METADATA, Newcomer, Roles, Services},
    member::{Drawn, Member, MemberOptions, Neighbours},
    transport::{Security, Tcp, TransportLimits},
};

use self::process::{Fsyncs, cpu_time, fsyncs, resident};

const NODES: u64 = 3;
const ROW_BYTES: usize = 1000;
/// Rows that are written again and again, for each proposer.
const ROWS: u64 = 1000;
const MIB: f64 = (1 << 20) as f64;

fn main() {
    metrics::set_global_recorder(Fsyncs).expect("it is the first");
    let seconds = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(5);
    let length = Duration::from_secs(seconds);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        fsync_alone(length);
        for shards in [1, 64] {
            idle(shards, length.max(Duration::from_secs(10))).await;
        }
        println!("proposers  writes/s  p50 ms  p99 ms  CPU us/write  writes/fsync  refused as busy");
        let cluster = Cluster::start(16).await;
        for proposers in [1, 64, 1024] {
            measure(&cluster, proposers, length).await;
        }
        cluster.stop().await;
    });
}

/// The floor: what the disk takes for the same bytes and nothing else.
fn fsync_alone(length: Duration) {
    let directory = tempfile::tempdir().unwrap();
    let mut file = fs::File::create(directory.path().join("log")).unwrap();
    let (began, mut took) = (Instant::now(), Vec::new());
    while began.elapsed() < length {
        let before = Instant::now();
        file.write_all(&[b'x'; ROW_BYTES]).unwrap();
        file.sync_data().unwrap();
        took.push(before.elapsed());
    }
    took.sort();
    println!(
        "fsync alone: p50 {:.2} ms, p99 {:.2} ms",
        at(&took, 0.5),
        at(&took, 0.99)
    );
}

async fn idle(shards: u16, length: Duration) {
    let before = resident();
    let cluster = Cluster::start(shards).await;
    // What founding and placement left is over.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let cpu = cpu_time();
    tokio::time::sleep(length).await;
    let cpu = cpu_time() - cpu;
    println!(
        "idle: {:.2} % of one core and {:.1} MiB for each of {NODES} nodes with {shards} shards and the metadata group",
        cpu.as_secs_f64() / length.as_secs_f64() * 100.0 / NODES as f64,
        resident().saturating_sub(before) as f64 / MIB / NODES as f64,
    );
    cluster.stop().await;
}

async fn measure(cluster: &Cluster, proposers: u16, length: Duration) {
    let led = cluster.led().await;
    let (began, cpu, syncs) = (Instant::now(), cpu_time(), fsyncs());
    let deadline = began + length;
    let proposing: Vec<_> = (0..proposers)
        .map(|proposer| {
            let (group, term) = led[usize::from(proposer) % led.len()].clone();
            tokio::spawn(async move {
                let (mut latencies, mut busy) = (Vec::new(), 0);
                for count in 0.. {
                    if Instant::now() >= deadline {
                        break;
                    }
                    let began = Instant::now();
                    match group.propose(term, vec![batch(proposer, count % ROWS)]).await {
                        Ok(_) => latencies.push(began.elapsed()),
                        Err(ProposeError::Busy) => {
                            busy += 1;
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        Err(error) => panic!("{error}"),
                    }
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
    latencies.sort();
    println!(
        "{proposers:9}  {:8.0}  {:6.2}  {:6.2}  {:12.1}  {:12.1}  {busy:15}",
        latencies.len() as f64 / took.as_secs_f64(),
        at(&latencies, 0.5),
        at(&latencies, 0.99),
        cpu.as_secs_f64() * 1e6 / latencies.len() as f64,
        latencies.len() as f64 / syncs.max(1) as f64,
    );
}

/// Milliseconds.
fn at(sorted: &[Duration], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3
}

fn batch(proposer: u16, row: u64) -> Batch {
    let key = [&(proposer % 4096).to_be_bytes()[..], &row.to_be_bytes()].concat();
    Batch {
        at: Timestamp(row),
        writes: vec![Write::Put(key.into(), vec![b'x'; ROW_BYTES].into())],
    }
}

/// Nobody at the other end of the links.
struct Nobody;

impl Neighbours for Nobody {
    fn message(&self, _: PeerId, _: Bytes) {}
    fn call(&self, _: PeerId, _: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async { Err("nobody is here".to_owned()) })
    }
    fn up(&self, _: PeerId, _: bool) {}
    fn down(&self, _: PeerId) {}
}

struct Cluster {
    members: Vec<Member>,
    shards: u16,
    _directories: Vec<tempfile::TempDir>,
}

impl Cluster {
    /// Three nodes with a replica of every shard each, and leaders where they should be.
    async fn start(shards: u16) -> Self {
        // Links of an earlier cluster may linger.
        static STARTS: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(1);
        let start = STARTS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let [_, a, b, _] = std::process::id().to_be_bytes();
        let address = |node: u64| SocketAddr::from((Ipv4Addr::new(127, 192 | a, b, start * 8 + node as u8), 5269));
        let mut starting = Vec::new();
        let mut directories = Vec::new();
        for _ in 0..NODES {
            directories.push(tempfile::tempdir().unwrap());
        }
        for node in 1..=NODES {
            let path = directories[node as usize - 1].path();
            let store: Arc<dyn Store> = Arc::new(RocksStore::open(path, heronry_storage::Options::default()).unwrap());
            let options = MemberOptions {
                me: Newcomer {
                    node: store.node_id(),
                    roles: Roles { edge: true, core: true },
                    address: address(node).to_string(),
                    zone: String::new(),
                    feature_level: 1,
                    version: "benchmark".to_owned(),
                    services: Services::new(),
                },
                cluster_name: "benchmark".to_owned(),
                seeds: (1..=NODES).map(|node| address(node).to_string()).collect(),
                bootstrap: Some(NODES as u16),
                listen: Some(address(node)),
                security: Security::Plain,
                groups: Options {
                    shards,
                    ..Options::default()
                },
                transport: TransportLimits::default(),
            };
            let drawn = Drawn {
                start: node,
                cluster: u128::from(node) + u128::from(start),
            };
            starting.push(Member::start(Tcp, store, drawn, options, Arc::new(Nobody)));
        }
        let members = futures::future::try_join_all(starting).await.unwrap();
        let cluster = Self {
            members,
            shards,
            _directories: directories,
        };
        cluster.is_placed().await;
        cluster
    }

    /// Waits until there is nothing to be moved.
    async fn is_placed(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let Ok(overview) = self.members[0].overview().await else {
                continue;
            };
            let placed = |shard| {
                let target = overview
                    .map
                    .shards
                    .get(&shard)
                    .map(|placement| placement.target.clone());
                let report = overview.shards.get(&shard);
                report.zip(target).is_some_and(|(report, target)| {
                    report.voters.len() == NODES as usize && target.first() == Some(&report.leader)
                })
            };
            if overview.map.shards.len() == usize::from(self.shards) + 1
                && overview.map.shards.keys().all(|shard| placed(*shard))
            {
                return;
            }
        }
    }

    /// The shards, each where it is led.
    async fn led(&self) -> Vec<(Group, Term)> {
        let mut led = Vec::new();
        for member in &self.members {
            for group in member.groups().list() {
                if let Leadership::Leader { term } = *group.leadership().borrow()
                    && group.shard() != METADATA
                {
                    led.push((group.clone(), term));
                }
            }
        }
        led.sort_by_key(|(group, _): &(Group, Term)| group.shard());
        assert!(
            led.iter()
                .map(|(group, _)| group.shard())
                .eq((0..self.shards).map(ShardId))
        );
        led
    }

    async fn stop(self) {
        for member in self.members {
            member.shutdown().await.unwrap();
        }
    }
}
