//! A machine of a simulation: a disk that forgets what was not synced, clocks that may be wrong, and a process that may die at any moment.
//!
//! Each process is a runtime of one thread with its own virtual time, and nothing else: when the runtime is dropped, the process is dead.

use std::{
    cell::Cell,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use heronry_cluster::{MemoryStore, NodeId, transport::Net as _};
use tempfile::TempDir;
use tokio::runtime::{Builder, RngSeed, Runtime};

use super::{
    super::{
        Node,
        machine::{Machine, Run},
        start,
    },
    net::{HostId, Network, Plug, address},
};
use crate::{clock::Clock, config::Config, links::flush_now, shard::tell_now};

/// Where nodes listen for each other, and for devices.
pub(super) const PEER_PORT: u16 = 5269;
pub(super) const C2S_PORT: u16 = 5222;

/// The time of day when simulations begin, microseconds since 1970.
const BEGUN: u64 = 1_800_000_000_000_000;

thread_local! {
    /// What the clock on the wall of the machine shows that runs just now, microseconds since 1970.
    static WALL: Cell<u64> = const { Cell::new(BEGUN) };
}

/// The time of day at the machine that runs just now.
pub(super) fn wall() -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(WALL.get())
}

/// A runtime that does nothing but in its steps.
pub(super) fn runtime(seed: u64) -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_be_bytes()))
        .on_thread_park(|| {
            tell_now();
            flush_now();
        })
        .build()
        .expect("a runtime")
}

/// Lets a runtime run for so many of its own milliseconds.
pub(super) fn run_for(runtime: &Runtime, millis: u64) {
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(millis)).await });
    let _context = runtime.enter();
    tell_now();
    flush_now();
}

/// A machine.
pub(super) struct Host {
    pub(super) number: HostId,
    pub(super) is_core: bool,
    pub(super) is_edge: bool,
    /// The highest feature level of the program that is installed.
    pub(super) feature_level: u32,
    config: Config,
    network: Network,
    data: TempDir,
    store: MemoryStore,
    process: Option<Process>,
    /// By how many microseconds the clock on the wall is wrong.
    pub(super) skew: i64,
    /// Of a thousand milliseconds so many more or less pass on its other clock.
    pub(super) drift: i64,
    drifted: i64,
    /// Since when the disk hangs, milliseconds.
    pub(super) hung_disk: Option<u64>,
    /// How many milliseconds it has been stopped.
    pub(super) stopped: Option<u64>,
    /// What the disk does next.
    random: fastrand::Rng,
    starts: u64,
}

/// What is gone when the process dies.
struct Process {
    // Dropped first: its tasks would see their node end.
    node: Arc<OnceLock<Arc<Node>>>,
    is_open: Arc<AtomicBool>,
    runtime: Runtime,
}

impl Host {
    pub(super) fn new(number: HostId, network: Network, random: fastrand::Rng, config: Config) -> Self {
        let store = MemoryStore::new(NodeId(u64::from(number)));
        store.hold_syncs();
        Self {
            number,
            is_core: config.roles.contains(&crate::config::Role::Core),
            is_edge: config.roles.contains(&crate::config::Role::Edge),
            feature_level: 1,
            data: tempfile::tempdir().expect("a directory"),
            config,
            network,
            store,
            process: None,
            skew: 0,
            drift: 0,
            drifted: 0,
            hung_disk: None,
            stopped: None,
            random,
            starts: 0,
        }
    }

    /// Starts the process, if there is none.
    pub(super) fn start(&mut self) {
        if self.process.is_some() {
            return;
        }
        self.starts += 1;
        self.network.darken(self.number, false);
        let runtime = runtime(self.random.u64(..));
        let mut config = self.config.clone();
        config.storage.data = self.data.path().to_owned();
        let (node, is_open) = (Arc::new(OnceLock::new()), Arc::new(AtomicBool::new(false)));
        let (plug, store) = (self.network.at(self.number), self.store.clone());
        let (level, number, is_edge) = (self.feature_level, self.number, self.is_edge);
        let (slot, opened) = (Arc::clone(&node), Arc::clone(&is_open));
        runtime.spawn(async move {
            let machine = Machine {
                store: Arc::new(store),
                net: plug.clone(),
                clock: Clock::with_wall(wall),
                threads: Run::Together,
                feature_level: level,
            };
            let started = Arc::new(start::start(config, machine).await.expect("a node starts"));
            let _ = slot.set(Arc::clone(&started));
            started.open().await.expect("a node opens");
            opened.store(true, Ordering::Release);
            if is_edge {
                serve(number, &plug, &started).await;
            }
        });
        self.process = Some(Process { node, is_open, runtime });
    }

    /// The process dies; with `power`, the machine loses its power, too. Of what was written and not synced, some is on the disk.
    pub(super) fn crash(&mut self, power: bool) {
        let Some(process) = self.process.take() else { return };
        self.network.darken(self.number, power);
        let kept = match self.store.unsynced() {
            0 => 0,
            unsynced => self.random.usize(0..=unsynced),
        };
        self.store = self.store.crash_keeping(kept);
        self.store.hold_syncs();
        self.hung_disk = None;
        self.stopped = None;
        drop(process);
    }

    /// Another machine takes its place: nothing of what it knew is there any more.
    pub(super) fn replace(&mut self) {
        self.crash(false);
        self.store = MemoryStore::new(NodeId(u64::from(self.number) + 1000 * self.starts));
        self.store.hold_syncs();
        self.data = tempfile::tempdir().expect("a directory");
        self.start();
    }

    /// Whether it belongs to a cluster and devices could log in.
    pub(super) fn is_open(&self) -> bool {
        let process = self.process.as_ref();
        process.is_some_and(|process| process.is_open.load(Ordering::Acquire))
    }

    pub(super) fn node(&self) -> Option<Arc<Node>> {
        self.process.as_ref()?.node.get().cloned()
    }

    pub(super) fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// Its runtime, to start something there.
    pub(super) fn runtime(&self) -> Option<&Runtime> {
        self.process.as_ref().map(|process| &process.runtime)
    }

    /// Lets it run for so many milliseconds, up to `now`.
    pub(super) fn step(&mut self, now: u64, millis: u64) {
        self.look_at_the_wall(now);
        self.write(now);
        let Some(process) = &self.process else { return };
        if let Some(stopped) = &mut self.stopped {
            *stopped += millis;
            return;
        }
        self.drifted += i64::try_from(millis).unwrap_or(0) * self.drift;
        let extra = self.drifted / 1000;
        self.drifted -= extra * 1000;
        run_for(&process.runtime, millis.saturating_add_signed(extra));
    }

    /// Goes on after it was stopped: its clock has not.
    pub(super) fn go_on(&mut self) {
        let Some(stopped) = self.stopped.take() else { return };
        if let Some(process) = &self.process {
            process
                .runtime
                .block_on(async { tokio::time::advance(Duration::from_millis(stopped)).await });
        }
    }

    /// From now on the clock on the wall shows this machine's time.
    pub(super) fn look_at_the_wall(&self, now: u64) {
        WALL.set((BEGUN + now * 1000).saturating_add_signed(self.skew));
    }

    /// What the disk does meanwhile.
    fn write(&mut self, now: u64) {
        let _context = self.process.as_ref().map(|process| process.runtime.enter());
        if let Some(since) = self.hung_disk {
            self.store.stall(Duration::from_millis(now - since + 1));
        } else if self.random.u8(..) < 180 {
            self.store.stall(Duration::ZERO);
            self.store.sync();
        }
    }
}

/// Takes connections of devices, for ever.
async fn serve(host: HostId, plug: &Plug, node: &Node) {
    let listener = plug.listen(address(host, C2S_PORT)).await.expect("a listener");
    while let Ok((stream, from)) = Plug::accept(&listener).await {
        let edge = node
            .running()
            .as_ref()
            .map(|running| Arc::clone(&running.edge_part.edge));
        if let Some(edge) = edge {
            edge.take_simulated(Box::new(stream), from.ip());
        }
    }
}
