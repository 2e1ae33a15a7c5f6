//! Who is seen, when a leader dies before everybody has been told.

use super::conversation::{self, Conversation, Stage};
use super::{Fault, Topology, World};
use crate::jid::FullJid;
use crate::xml::Element;

const ROMEO: &str = "romeo@example.org/orchard";
/// She is of another shard than Romeo.
const NURSE: &str = "nurse@example.org/balcony";

fn full(jid: &str) -> FullJid {
    FullJid::parse(jid).expect("a proper address")
}

/// Romeo and the nurse see each other, and have seen each other.
fn world(topology: Topology, seed: u64) -> World {
    let text = "romeo and nurse see each other\n\
                romeo/orchard connects managed\n\
                nurse/balcony connects managed\n\
                romeo/orchard > <presence/>\n\
                nurse/balcony > <presence/>\n";
    let conversation = Conversation::read(text).expect("a conversation");
    let mut world = World::stage(topology, seed, &conversation);
    // What they hear is not written down: only what is said matters here.
    let _ = conversation::play(&conversation, &mut world);
    world.quiet();
    world
}

fn away() -> Element {
    let show = Element::new("show", crate::xml::CLIENT).with_text("away");
    Element::new("presence", crate::xml::CLIENT).with_child(show)
}

/// What `who` has heard of `other`'s presence.
fn seen(heard: &[(FullJid, Element)], who: &str, other: &str) -> Vec<Element> {
    let of = |element: &Element| element.name() == "presence" && element.attr("from") == Some(other);
    let heard = heard.iter().filter(|(by, element)| by.as_str() == who && of(element));
    heard.map(|(_, element)| element.clone()).collect()
}

fn shard_of(world: &World, jid: &str) -> usize {
    world.shard_of(&full(jid).bare())
}

/// Does something, lets something go wrong after each number of steps, and asks what the nurse has seen of Romeo in the end.
fn at_every_step(act: impl Fn(&mut World), is_right: impl Fn(&[Element]) -> bool) {
    let mut wrong = Vec::new();
    for topology in [Topology::Apart, Topology::Together] {
        for seed in 0..6 {
            let mut steps = 0;
            loop {
                let mut world = world(topology, seed);
                let shard = shard_of(&world, ROMEO);
                assert_ne!(shard, shard_of(&world, NURSE), "they are of two shards");
                act(&mut world);
                let all = (0..steps).all(|_| world.step());
                world.fault(Fault::Leader {
                    shard,
                    keep_messages: seed % 2 == 0,
                    keep_batches: seed % 3 != 0,
                });
                let seen = seen(&world.quiet(), NURSE, ROMEO);
                if !is_right(&seen) {
                    wrong.push(format!("{topology:?}, seed {seed}, step {steps}: {seen:?}"));
                }
                if !all {
                    break;
                }
                steps += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{} times, first {}", wrong.len(), wrong[0]);
}

#[test]
fn presence_is_said_again_when_its_leader_has_died_with_it() {
    at_every_step(
        |world| world.say(&full(ROMEO), &away()),
        |seen| {
            seen.last()
                .is_some_and(|last| last.child("show", crate::xml::CLIENT).is_some())
        },
    );
}

#[test]
fn a_resource_says_farewell_whoever_dies_meanwhile() {
    at_every_step(
        |world| world.hang_up(&full(ROMEO)),
        |seen| seen.last().is_some_and(|last| last.attr("type") == Some("unavailable")),
    );
}

#[test]
fn what_has_been_said_to_everybody_is_not_kept() {
    let mut world = world(Topology::Apart, 1);
    world.hang_up(&full(ROMEO));
    let heard = world.quiet();
    assert_eq!(seen(&heard, NURSE, ROMEO).len(), 1);
    let farewells = world
        .disks()
        .flat_map(super::disk::Disk::keys)
        .filter(|key| key.get(2) == Some(&(crate::rows::Table::Farewell as u8)));
    assert_eq!(farewells.count(), 0);
}

#[test]
fn a_change_of_presence_after_a_change_of_leader_asks_nobody_again() {
    for seed in 0..6 {
        let mut world = world(Topology::Apart, seed);
        let shard = shard_of(&world, ROMEO);
        world.fault(Fault::Leader {
            shard,
            keep_messages: true,
            keep_batches: true,
        });
        assert!(world.quiet().is_empty(), "of the change nobody hears");
        world.say(&full(ROMEO), &away());
        let heard = world.quiet();
        assert_eq!(seen(&heard, NURSE, ROMEO).len(), 1, "seed {seed}");
        assert!(seen(&heard, ROMEO, NURSE).is_empty(), "seed {seed}: {heard:?}");
    }
}
