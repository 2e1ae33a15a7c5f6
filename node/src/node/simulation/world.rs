//! A cluster, its devices, and what happens to them, from one number.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use heronry_cluster::{Leadership, Store as _, map::METADATA};
use heronry_loadtest::history::{History, What};
use heronry_xmpp::jid::BareJid;
use tokio::runtime::Runtime;

use super::{
    device::{Device, Devices, Identity, keys},
    host::{C2S_PORT, Host, PEER_PORT, run_for, runtime},
    net::{HostId, Network, address},
    weather::Weather,
};
use crate::{
    admin::{Broker as _, BrokerError},
    clock::DRAWN,
    config::{Config, Mechanism, Role},
};

/// Milliseconds of one step: nothing goes from one machine to another in less.
pub(super) const STEP: u64 = 5;

/// The devices' machine.
const DEVICES: HostId = 200;

/// Milliseconds that anything may take that has to come about.
const PATIENCE: u64 = 240_000;

/// Milliseconds in which nothing new comes before all is taken to be over.
const QUIET: u64 = 4_000;

pub(super) const SHARDS: u16 = 3;

/// A simulation.
pub(super) struct World {
    pub(super) hosts: BTreeMap<HostId, Host>,
    pub(super) network: Network,
    pub(super) devices: Arc<Devices>,
    pub(super) now: u64,
    pub(super) random: fastrand::Rng,
    runtime: Runtime,
    settled: Vec<Arc<AtomicBool>>,
}

impl World {
    /// The machines of a seed, switched off.
    pub(super) fn new(seed: u64, aloud: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        DRAWN.set(Some(random.fork()));
        let network = Network::new(random.fork());
        let mut world = Self {
            hosts: BTreeMap::new(),
            network,
            devices: Arc::new(Devices {
                history: Mutex::default(),
                now: AtomicU64::new(0),
                calm: AtomicBool::new(false),
                aloud,
            }),
            now: 0,
            runtime: runtime(random.u64(..)),
            random,
            settled: Vec::new(),
        };
        let apart = world.random.bool();
        // Who was away for a while needs a snapshot, or finds what it has missed in the log.
        let log_bytes_max = if world.random.bool() { 2 << 10 } else { 4 << 20 };
        if apart {
            for core in 1..=3 {
                world.machine(core, &[Role::Core], log_bytes_max);
            }
            for edge in 4..=5 {
                world.machine(edge, &[Role::Edge], log_bytes_max);
            }
        } else {
            for both in 1..=3 {
                world.machine(both, &[Role::Core, Role::Edge], log_bytes_max);
            }
        }
        world
    }

    fn machine(&mut self, number: HostId, roles: &[Role], log_bytes_max: usize) {
        let mut config = Config {
            roles: roles.to_vec(),
            ..Config::default()
        };
        config.edge.c2s = Vec::new();
        config.edge.c2s_tls = Vec::new();
        config.tls.required = false;
        config.tls.check_interval = Duration::from_secs(86_400);
        config.auth.mechanisms = vec![Mechanism::ScramSha256];
        config.limits.rate.enabled = false;
        config.limits.group.shards = SHARDS;
        config.limits.group.log_bytes_max = log_bytes_max;
        config.edge.advertise = Some(address(number, C2S_PORT).to_string());
        config.peer.listen = Some(address(number, PEER_PORT));
        config.peer.insecure = true;
        config.peer.seeds = (1..=3).map(|seed| address(seed, PEER_PORT).to_string()).collect();
        config.peer.bootstrap = (number <= 3).then_some(3);
        let host = Host::new(number, self.network.clone(), self.random.fork(), config);
        self.hosts.insert(number, host);
    }

    /// Plays everything: what the devices saw.
    pub(super) fn play(&mut self) -> History {
        self.hosts.values_mut().for_each(Host::start);
        self.until("the cluster is founded", |world| {
            world.hosts.values().all(Host::is_open)
        });
        self.until("every shard has three replicas", |world| world.is_replicated());
        self.people();
        let mut weather = Weather::new(self.now, &mut self.random);
        while weather.goes_on(self) {
            self.step();
        }
        self.devices.calm.store(true, Ordering::Release);
        self.until("every device is settled", |world| {
            world.settled.iter().all(|settled| settled.load(Ordering::Acquire))
        });
        self.until_quiet();
        self.compare();
        std::mem::take(&mut self.devices.history.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One step of everybody.
    pub(super) fn step(&mut self) {
        self.now += STEP;
        self.devices.now.store(self.now, Ordering::Release);
        self.network.carry(self.now);
        for host in self.hosts.values_mut() {
            host.step(self.now, STEP);
        }
        run_for(&self.runtime, STEP);
        if self.now.is_multiple_of(50) {
            self.look_at_leaders();
        }
    }

    pub(super) fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let begun = self.now;
        while !holds(self) {
            assert!(self.now - begun < PATIENCE, "never: {what}");
            self.step();
        }
        self.say(what);
    }

    pub(super) fn say(&self, what: &str) {
        if self.devices.aloud {
            println!("{:6} *** {what}", self.now);
        }
    }

    fn until_quiet(&mut self) {
        let count = |world: &Self| {
            let history = world.devices.history.lock().unwrap_or_else(PoisonError::into_inner);
            history
                .events()
                .iter()
                .filter(|event| !matches!(event.what, What::Leads { .. }))
                .count()
        };
        let (mut since, mut before) = (self.now, count(self));
        let begun = self.now;
        while self.now - since < QUIET {
            assert!(self.now - begun < PATIENCE, "it never becomes quiet");
            self.step();
            let now = count(self);
            if now != before {
                (since, before) = (self.now, now);
            }
        }
        self.say("it is quiet");
    }

    fn is_replicated(&self) -> bool {
        let cores: Vec<_> = self.hosts.values().filter(|host| host.is_core).collect();
        cores.iter().all(|host| {
            let Some(node) = host.node() else { return false };
            let groups = node.groups.list();
            let all = groups.len() == usize::from(SHARDS) + 1;
            all && groups.iter().all(|group| {
                let membership = group.membership();
                membership.voters.len() == 1 && membership.voters[0].len() == 3
            })
        })
    }

    /// Accounts, and their devices.
    fn people(&mut self) {
        let account = |name: &str| BareJid::parse(&format!("{name}@localhost")).expect("an address");
        let talkers: Vec<_> = ["juliet", "romeo", "mercutio", "nurse"].map(account).to_vec();
        let clerk = account("clerk");
        let added = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&added);
        let first = self.hosts.values().find(|host| host.is_core);
        if let Some((node, runtime)) = first.and_then(|host| host.node().zip(host.runtime())) {
            let accounts: Vec<_> = talkers.iter().cloned().chain([clerk.clone()]).collect();
            runtime.spawn(async move {
                for account in accounts {
                    loop {
                        match node
                            .broker()
                            .user_add(account.clone(), vec![keys().server_side()])
                            .await
                        {
                            // It may have been done although that could not be said.
                            Ok(()) | Err(BrokerError::AlreadyExists(_)) => break,
                            Err(BrokerError::Unavailable(_)) => {}
                            Err(error) => panic!("{account}: {error}"),
                        }
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
                done.store(true, Ordering::Release);
            });
        }
        self.until("there are accounts", |_| added.load(Ordering::Acquire));
        let resume_seconds = [2, 10, 300][self.random.usize(..3)];
        for talker in &talkers {
            let friends = talkers.iter().filter(|friend| *friend != talker).cloned().collect();
            self.device(Identity {
                account: talker.clone(),
                resource: "device".to_owned(),
                friends,
                resume_seconds,
            });
        }
        for clerks in ["desk", "till"] {
            self.device(Identity {
                account: clerk.clone(),
                resource: clerks.to_owned(),
                friends: Vec::new(),
                resume_seconds,
            });
        }
    }

    /// Has a machine drained, by the first core that can be asked.
    pub(super) fn drain(&self, host: HostId) {
        let Some(leaving) = self.hosts.get(&host).map(|host| host.store().node_id()) else {
            return;
        };
        let mut cores = self
            .hosts
            .values()
            .filter(|host| host.is_core && host.stopped.is_none());
        if let Some((node, runtime)) = cores.find_map(|host| host.node().zip(host.runtime())) {
            let devices = Arc::clone(&self.devices);
            runtime.spawn(async move {
                let said = node.broker().cluster_drain(leaving.to_string()).await;
                if devices.aloud {
                    println!("       draining {leaving}: {said:?}");
                }
            });
        }
    }

    fn device(&mut self, identity: Identity) {
        let edges = self
            .hosts
            .values()
            .filter(|host| host.is_edge)
            .map(|host| host.number)
            .collect();
        let (device, settled) = Device::new(
            identity,
            edges,
            self.network.at(DEVICES),
            self.random.fork(),
            Arc::clone(&self.devices),
        );
        self.settled.push(settled);
        self.runtime.spawn(device.run());
    }

    /// Who leads what goes into the history; two that may act at one moment are the end of it.
    fn look_at_leaders(&self) {
        let mut acting = BTreeMap::new();
        for host in self.hosts.values().filter(|host| host.stopped.is_none()) {
            let Some((node, runtime)) = host.node().zip(host.runtime()) else {
                continue;
            };
            let _context = runtime.enter();
            for group in node.groups.list() {
                let Leadership::Leader { term } = *group.leadership().borrow() else {
                    continue;
                };
                let what = What::Leads {
                    shard: group.shard().0,
                    term: term.0,
                };
                self.devices.record(&host.number.to_string(), what);
                if group.has_lease(term)
                    && let Some(other) = acting.insert(group.shard(), host.number)
                {
                    panic!("{other} and {} may both act for shard {}", host.number, group.shard());
                }
            }
        }
    }

    /// The rows that nodes have at the end.
    fn compare(&self) {
        for host in self.hosts.values() {
            let Some(node) = host.node() else { continue };
            for group in node.groups.list().into_iter().filter(|group| group.shard() != METADATA) {
                let Ok(chunks) = host.store().export(group.shard()) else {
                    continue;
                };
                let mut digest = crc32c::crc32c(b"");
                for chunk in chunks.flatten() {
                    digest = crc32c::crc32c_append(digest, &chunk);
                }
                let what = What::Rows {
                    shard: group.shard().0,
                    applied: group.applied(),
                    digest: format!("{digest:08x}"),
                };
                self.devices.record(&host.number.to_string(), what);
            }
        }
    }

    /// All machines, that of the devices included.
    pub(super) fn everybody(&self) -> impl Iterator<Item = HostId> {
        self.hosts.keys().copied().chain([DEVICES])
    }
}
