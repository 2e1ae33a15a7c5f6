//! What goes wrong, when.
//!
//! At most a few things are wrong at a time, and each for a few seconds; in the end everything is well again.

use super::{net::HostId, world::World};

/// How long the weather is bad, milliseconds.
const STORM: u64 = 25_000;

/// The feature level of a newer program than the one that is installed at first.
const NEWER: u32 = 2;

/// What may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The process is dead.
    Killed,
    /// The machine has no power: nobody is told.
    Dark,
    /// Nothing goes from or to a machine.
    Isolated,
    /// What is sent from a machine does not arrive...
    Mute,
    /// ...or what is sent to it.
    Deaf,
    /// Two machines do not reach each other; or one not the other.
    Parted,
    PartedOneWay,
    /// Connections between two machines break. Over at once.
    Broken,
    /// What goes between two machines is late.
    Slow,
    /// Nothing becomes durable.
    HungDisk,
    /// The process is stopped (SIGSTOP), and does not know it afterwards.
    Stopped,
    /// The clock on the wall is wrong.
    WrongClock,
    /// The other clock goes too fast or too slow.
    Drift,
    /// The process is replaced by one of a newer program.
    Upgraded,
    /// An edge is drained, and another machine takes its place.
    Drained,
}

use Trouble::{
    Broken, Dark, Deaf, Drained, Drift, HungDisk, Isolated, Killed, Mute, Parted, PartedOneWay, Slow, Stopped,
    Upgraded, WrongClock,
};

const ALL: [Trouble; 15] = [
    Killed,
    Dark,
    Isolated,
    Mute,
    Deaf,
    Parted,
    PartedOneWay,
    Broken,
    Slow,
    HungDisk,
    Stopped,
    WrongClock,
    Drift,
    Upgraded,
    Drained,
];

/// What is wrong just now.
pub(super) struct Weather {
    ends: u64,
    next: u64,
    /// What may go wrong in this run: few things, so that what is found has few causes.
    kinds: Vec<Trouble>,
    wrong: Vec<Wrong>,
}

#[derive(Debug)]
struct Wrong {
    trouble: Trouble,
    host: HostId,
    other: HostId,
    until: u64,
}

impl Weather {
    pub(super) fn new(now: u64, random: &mut fastrand::Rng) -> Self {
        let mut kinds = ALL.to_vec();
        random.shuffle(&mut kinds);
        kinds.truncate(random.usize(1..6));
        if let Ok(wanted) = std::env::var("HERON_TROUBLES") {
            kinds = ALL.to_vec();
            kinds.retain(|kind| wanted.split(',').any(|name| name == format!("{kind:?}")));
        }
        Self {
            ends: now + STORM,
            next: now + random.u64(500..4000),
            kinds,
            wrong: Vec::new(),
        }
    }

    /// Does what is due; says whether the weather goes on.
    pub(super) fn goes_on(&mut self, world: &mut World) -> bool {
        let over = world.now >= self.ends;
        let ended: Vec<_> = self
            .wrong
            .extract_if(.., |wrong| over || wrong.until <= world.now)
            .collect();
        if !ended.is_empty() {
            for wrong in ended {
                end(&wrong, world);
            }
            self.cut(world);
        }
        if over {
            world.say("the weather is fine");
            return false;
        }
        if world.now >= self.next {
            self.next = world.now + world.random.u64(300..5000);
            self.begin(world);
            self.cut(world);
        }
        true
    }

    fn begin(&mut self, world: &mut World) {
        if self.kinds.is_empty() {
            return;
        }
        let hosts: Vec<_> = world.hosts.keys().copied().collect();
        let wrong = Wrong {
            trouble: self.kinds[world.random.usize(..self.kinds.len())],
            host: hosts[world.random.usize(..hosts.len())],
            other: hosts[world.random.usize(..hosts.len())],
            until: world.now + world.random.u64(100..6000),
        };
        let is_core = |host: HostId| world.hosts[&host].is_core;
        let afflicted = self
            .wrong
            .iter()
            .filter(|wrong| is_core(wrong.host) && wrong.host != 0)
            .count();
        let known = self.wrong.iter().any(|known| known.host == wrong.host);
        // A second core at the same time seldom: then nobody can do anything.
        if known || (is_core(wrong.host) && afflicted > 0 && world.random.u8(..4) > 0) {
            return;
        }
        let is_mere_edge = !world.hosts[&wrong.host].is_core;
        if wrong.trouble == Drained && !is_mere_edge {
            return;
        }
        world.say(&format!("{wrong:?}"));
        if wrong.trouble == Drained {
            world.drain(wrong.host);
        }
        let (now, random) = (world.now, &mut world.random);
        let host = world.hosts.get_mut(&wrong.host).expect("a machine");
        match wrong.trouble {
            Killed => host.crash(false),
            Dark => host.crash(true),
            Broken => world.network.reset(wrong.host, wrong.other),
            HungDisk => host.hung_disk = Some(now),
            Stopped => host.stopped = Some(0),
            WrongClock => {
                let by = random.i64(1_000_000..600_000_000);
                host.skew = if random.bool() { by } else { -by };
            }
            Drift => host.drift = random.i64(-5..=5),
            Upgraded => {
                host.crash(false);
                host.feature_level = NEWER;
            }
            Slow | Isolated | Mute | Deaf | Parted | PartedOneWay | Drained => {}
        }
        self.wrong.push(wrong);
    }

    /// Cuts what is cut now, and nothing else.
    fn cut(&self, world: &World) {
        world.network.heal();
        let others = |host: HostId| world.everybody().filter(move |other| *other != host);
        for Wrong {
            trouble, host, other, ..
        } in &self.wrong
        {
            if matches!(trouble, Isolated | Mute) {
                others(*host).for_each(|other| world.network.cut(*host, other));
            }
            if matches!(trouble, Isolated | Deaf) {
                others(*host).for_each(|other| world.network.cut(other, *host));
            }
            if matches!(trouble, Parted | PartedOneWay) {
                world.network.cut(*host, *other);
            }
            if matches!(trouble, Parted) {
                world.network.cut(*other, *host);
            }
            if matches!(trouble, Slow) {
                world.network.slow_down(*host, *other, 300);
                world.network.slow_down(*other, *host, 300);
            }
        }
    }
}

/// It is well again.
fn end(wrong: &Wrong, world: &mut World) {
    world.say(&format!("no longer {wrong:?}"));
    let Some(host) = world.hosts.get_mut(&wrong.host) else {
        return;
    };
    match wrong.trouble {
        Killed | Dark | Upgraded => host.start(),
        Drained => host.replace(),
        HungDisk => host.hung_disk = None,
        Stopped => host.go_on(),
        WrongClock => host.skew = 0,
        Drift => host.drift = 0,
        Isolated | Mute | Deaf | Parted | PartedOneWay | Broken | Slow => {}
    }
}
