//! The promises of DESIGN §4, with something going wrong at every step.

use proptest::prelude::*;

use super::verdict::Leniency;
use super::{Act, Fault, Seed, Topology, World, conversation};
use crate::jid::{FullJid, Jid};
use crate::xml::Element;

fn to(jid: &str) -> Jid {
    Jid::parse(jid).expect("a proper address")
}

fn message(jid: &str) -> Act {
    Act::Message { to: to(jid) }
}

/// Two devices on two edges and of two shards: 1:1 messages both ways, to bare and full addresses, requests that write
/// to the own account and to another, pings between devices, a socket that is lost.
fn balcony(topology: Topology, seed: u64) -> World {
    let romeo = vec![
        message("juliet@example.org"),
        Act::Count { to: None },
        message("juliet@example.org/balcony"),
        Act::Count {
            to: Some(to("juliet@example.org")),
        },
        Act::Ping {
            to: to("juliet@example.org/balcony"),
        },
        message("juliet@example.org"),
        Act::Count { to: None },
        message("juliet@example.org/balcony"),
    ];
    let juliet = vec![
        message("romeo@example.org/orchard"),
        Act::Cut,
        message("romeo@example.org"),
        Act::Count { to: None },
        message("romeo@example.org/orchard"),
    ];
    let devices = vec![
        ("romeo@example.org/orchard", true, romeo),
        ("juliet@example.org/balcony", true, juliet),
    ];
    World::new(topology, seed, devices)
}

fn steps_of(topology: Topology, seed: u64) -> usize {
    let mut world = balcony(topology, seed);
    while world.run(1) {}
    world.steps()
}

fn check(mut world: World, leniency: Leniency, what: &dyn std::fmt::Debug) {
    world.settle();
    let broken = world.verdict(leniency);
    assert!(broken.is_empty(), "{what:?}: {broken:#?}\n{}", world.situation());
}

#[test]
fn without_a_fault_everything_comes_once_and_in_order() {
    for topology in [Topology::Apart, Topology::Together, Topology::Alone] {
        for seed in 0..50 {
            check(balcony(topology, seed), Leniency::default(), &(topology, seed));
        }
    }
}

fn at_every_step(topology: Topology, seed: u64, leniency: Leniency, faults: &[Fault]) {
    for fault in faults {
        for step in 0..steps_of(topology, seed) {
            let mut world = balcony(topology, seed);
            world.run(step);
            world.fault(*fault);
            check(world, leniency, &(topology, seed, step, fault));
        }
    }
}

fn leader_faults() -> Vec<Fault> {
    let mut faults = Vec::new();
    for shard in 0..3 {
        for keep_messages in [false, true] {
            for keep_batches in [false, true] {
                faults.push(Fault::Leader {
                    shard,
                    keep_messages,
                    keep_batches,
                });
            }
        }
        faults.push(Fault::Commit { shard });
    }
    faults
}

fn node_faults(nodes: std::ops::Range<usize>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for node in nodes {
        for keep_messages in [false, true] {
            for keep_batches in [false, true] {
                faults.push(Fault::Node {
                    node,
                    keep_messages,
                    keep_batches,
                });
            }
        }
    }
    faults
}

#[test]
fn a_leader_changes_at_every_step() {
    at_every_step(Topology::Apart, 1, Leniency::default(), &leader_faults());
}

#[test]
fn a_leader_changes_at_every_step_beside_the_edges() {
    at_every_step(Topology::Together, 2, Leniency::default(), &leader_faults());
}

#[test]
fn an_edge_dies_at_every_step() {
    at_every_step(Topology::Apart, 3, Leniency::default(), &node_faults(0..2));
}

#[test]
fn a_core_node_dies_at_every_step() {
    at_every_step(Topology::Apart, 4, Leniency::default(), &node_faults(2..5));
}

#[test]
fn a_node_with_edge_and_core_dies_at_every_step() {
    at_every_step(
        Topology::Together,
        5,
        Leniency {
            sessions_die: true,
            two_may_die: false,
        },
        &node_faults(0..3),
    );
}

#[test]
fn a_socket_is_lost_at_every_step() {
    let faults = [Fault::Socket { device: 0 }, Fault::Socket { device: 1 }];
    for topology in [Topology::Apart, Topology::Together, Topology::Alone] {
        at_every_step(topology, 6, Leniency::default(), &faults);
    }
}

/// Juliet looks away from her device while Romeo types and writes.
fn looking_away(topology: Topology, seed: u64) -> World {
    let state = |jid: &str| Act::ChatState { to: to(jid) };
    let romeo = vec![
        state("juliet@example.org/balcony"),
        message("juliet@example.org/balcony"),
        state("juliet@example.org/balcony"),
        state("juliet@example.org"),
        message("juliet@example.org"),
        state("juliet@example.org/balcony"),
        Act::Ping {
            to: to("juliet@example.org/balcony"),
        },
        state("juliet@example.org/balcony"),
    ];
    let juliet = vec![
        Act::Active(false),
        Act::Count { to: None },
        message("romeo@example.org/orchard"),
        Act::Active(true),
        Act::Active(false),
        Act::Count { to: None },
    ];
    let devices = vec![
        ("romeo@example.org/orchard", true, romeo),
        ("juliet@example.org/balcony", true, juliet),
    ];
    World::new(topology, seed, devices)
}

#[test]
fn what_an_inactive_device_is_spared_is_neither_repeated_nor_reordered() {
    let faults = [
        Fault::Leader {
            shard: 0,
            keep_messages: true,
            keep_batches: true,
        },
        Fault::Leader {
            shard: 2,
            keep_messages: false,
            keep_batches: false,
        },
        Fault::Socket { device: 1 },
    ];
    for topology in [Topology::Apart, Topology::Alone] {
        for seed in 0..20 {
            check(looking_away(topology, seed), Leniency::default(), &(topology, seed));
        }
        let mut world = looking_away(topology, 7);
        while world.run(1) {}
        for fault in faults {
            for step in 0..world.steps() {
                let mut world = looking_away(topology, 7);
                world.run(step);
                world.fault(fault);
                check(world, Leniency::default(), &(topology, step, fault));
            }
        }
    }
}

/// Several things go wrong, at any time; everybody comes back.
fn storm(topology: Topology, seed: u64) {
    let mut world = balcony(topology, seed);
    let mut draw = Seed::new(seed ^ 0x5eed);
    for _ in 0..1 + draw.below(4) {
        world.run(draw.below(120));
        let (keep_messages, keep_batches) = (draw.below(2) == 0, draw.below(2) == 0);
        world.fault(match draw.below(4) {
            0 => Fault::Leader {
                shard: draw.below(3),
                keep_messages,
                keep_batches,
            },
            1 => Fault::Commit { shard: draw.below(3) },
            2 => Fault::Socket { device: draw.below(2) },
            _ => Fault::Node {
                node: draw.below(5),
                keep_messages,
                keep_batches,
            },
        });
        world.restart_edges();
    }
    // Two deaths within one failover may take both places a session was in: what is left is that nothing is invented,
    // reordered, or carried out twice.
    let leniency = Leniency {
        sessions_die: true,
        two_may_die: true,
    };
    check(world, leniency, &(topology, seed));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_storm_invents_nothing_and_executes_nothing_twice(
        topology in prop_oneof![Just(Topology::Apart), Just(Topology::Together), Just(Topology::Alone)],
        seed: u64,
    ) {
        storm(topology, seed);
    }
}

/// The files of `tests/conversations`, which the node's tests play over TCP.
#[test]
fn conversations_come_true_wherever_edges_and_shards_are() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conversations");
    let mut failed = Vec::new();
    let mut played = 0;
    for (name, conversation) in conversation::read_all(directory.as_ref()) {
        played += 1;
        let stages = [Topology::Apart, Topology::Together, Topology::Alone]
            .into_iter()
            .flat_map(|topology| (0..4).map(move |seed| (topology, seed)));
        let play = |(topology, seed)| {
            let mut world = World::stage(topology, seed, &conversation);
            let problem = conversation::play(&conversation, &mut world).err()?;
            Some(format!("{name}, {topology:?}, seed {seed}: {problem}"))
        };
        failed.extend(stages.into_iter().find_map(play));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    assert!(played > 0, "there are no conversations");
}

/// The world, in which a shard gets another leader before one of the things that are said.
struct Shaken {
    world: World,
    shard: usize,
    /// So many things are said before.
    left: usize,
}

impl conversation::Stage for Shaken {
    fn connect(&mut self, who: &FullJid, how: conversation::How) {
        self.world.connect(who, how);
    }

    fn disconnect(&mut self, who: &FullJid) {
        self.world.disconnect(who);
    }

    fn cut(&mut self, who: &FullJid) {
        self.world.cut(who);
    }

    fn say(&mut self, who: &FullJid, element: &Element) {
        if self.left == 0 {
            self.world.calm();
            self.world.fault(Fault::Leader {
                shard: self.shard,
                keep_messages: true,
                keep_batches: true,
            });
        }
        self.left = self.left.wrapping_sub(1);
        self.world.say(who, element);
    }

    fn hear(&mut self, who: &FullJid) -> Option<Element> {
        self.world.hear(who)
    }

    fn quiet(&mut self) -> Vec<(FullJid, Element)> {
        self.world.quiet()
    }
}

/// Of the death of a core node devices notice nothing. When a device says that it is available soon after that, the new leader
/// cannot know whether it is the first time, and tells it again who else is: so it is said before.
#[test]
fn conversations_come_true_whatever_leader_changes() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conversations");
    let mut failed = Vec::new();
    for (name, conversation) in conversation::read_all(directory.as_ref()) {
        let faults = conversation
            .said_when_available()
            .flat_map(|left| (0..3).map(move |shard| (left, shard)));
        let play = |(left, shard)| {
            let world = World::stage(Topology::Apart, 1, &conversation);
            let problem = conversation::play(&conversation, &mut Shaken { world, shard, left }).err()?;
            Some(format!("{name}, shard {shard} at {left}: {problem}"))
        };
        failed.extend(faults.filter_map(play).take(1));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
