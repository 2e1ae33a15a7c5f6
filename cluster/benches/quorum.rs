//! What a write costs that a majority of three nodes has fsynced, against the disk's own fsync.
//!
//! `cargo bench -p heronry-cluster --bench quorum [-- SECONDS]`. Three members with links over loopback, in one process, with stores in temporary directories
//! (`TMPDIR` moves them) on one disk, which so does three times the work of one node's. CPU is that of the whole process: three
//! nodes and the proposers.

#![allow(clippy::unwrap_used)]

mod measure;

use std::{
    fs,
    io::{Seek as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use heronry_cluster::{
    Group, Leadership, Options, PeerId, RocksStore, ShardId, Store, Term,
    map::{METADATA, Newcomer, Roles, Services},
    member::{Drawn, Member, MemberOptions, Neighbours},
    transport::{Security, Tcp, TransportLimits},
};

use self::measure::{
    Fsyncs,
    proposing::{HEADS, at, measure},
};

const NODES: u64 = 3;
const SHARDS: u16 = 16;
/// What is written before each of the disk's own fsyncs, bytes.
const BLOCK_BYTES: usize = 1000;
/// How long the file is that does not grow, in blocks.
const BLOCKS: u64 = 10_000;

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
        fsync_alone(length, true);
        fsync_alone(length, false);
        let cluster = Cluster::start(SHARDS).await;
        let led = cluster.led().await;
        println!("{HEADS}");
        for proposers in [1, 64, 1024] {
            measure(&led, proposers, length).await;
        }
        cluster.stop().await;
    });
}

/// The floor: what the disk takes for one such write and nothing else, to a file that grows as a log at first does, or to one that does not, as when the
/// log's files are written again.
fn fsync_alone(length: Duration, grows: bool) {
    let directory = tempfile::tempdir().unwrap();
    let mut file = fs::File::create(directory.path().join("log")).unwrap();
    if !grows {
        file.write_all(&vec![b'x'; BLOCK_BYTES * BLOCKS as usize]).unwrap();
        file.sync_all().unwrap();
        file.rewind().unwrap();
    }
    let (began, mut took) = (Instant::now(), Vec::new());
    for block in 1u64.. {
        if began.elapsed() >= length {
            break;
        }
        let before = Instant::now();
        file.write_all(&[b'x'; BLOCK_BYTES]).unwrap();
        file.sync_data().unwrap();
        took.push(before.elapsed());
        if !grows && block % BLOCKS == 0 {
            file.rewind().unwrap();
        }
    }
    took.sort();
    let what = if grows {
        "of a file that grows"
    } else {
        "of one that does not"
    };
    println!(
        "fsync alone, {what}: p50 {:.2} ms, p99 {:.2} ms",
        at(&took, 0.5),
        at(&took, 0.99)
    );
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
