//! A whole cluster in one thread under virtual time: devices, edges, shards, the messages between them, the disk under them,
//! and what may go wrong with each.
//!
//! [`World`] takes one step at a time: a message arrives, a batch is committed, a page is read, a device does the next thing
//! of its script. Which step comes next is drawn from a seed, so a run can be repeated, and stopped anywhere for a
//! [`Fault`]. [`World::verdict`] reads what the devices saw and says which promise was broken. [`conversation`]s are played
//! in it, and on other stages, word by word.

#![cfg_attr(
    not(test),
    allow(dead_code, reason = "what promises are read from is for this crate's own tests")
)]

pub mod conversation;
mod counter;
mod device;
mod disk;
mod lone;
mod network;
mod staged;
mod verdict;
mod world;

#[cfg(test)]
mod presence_tests;
#[cfg(test)]
mod tests;

pub use counter::Counter;
pub use device::Act;
pub use lone::Lone;
pub use world::{Fault, Topology, World};

use crate::random::Random;

/// Numbers drawn from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Seed(u64);

impl Seed {
    /// The numbers of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

impl Random for Seed {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.next().to_be_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }
}
