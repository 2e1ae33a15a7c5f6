//! How the store keeps up.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use crate::metrics;

/// How long an answer to "would RocksDB delay a write?" is good.
const PRESSURE_AGE: Duration = Duration::from_millis(50);

/// How the store keeps up, for whoever asks.
pub(super) struct Pressure {
    since: Instant,
    pub(super) queued_bytes: AtomicUsize,
    /// When the write under way began, microseconds after `since`; 0: none is.
    pub(super) committing: AtomicU64,
    pub(super) applying: AtomicU64,
    sampled: AtomicU64,
    delayed: AtomicBool,
    /// As `sampled` and `delayed`, of the room on the disk.
    room_sampled: AtomicU64,
    full: AtomicBool,
}

impl Pressure {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            queued_bytes: AtomicUsize::new(0),
            committing: AtomicU64::new(0),
            applying: AtomicU64::new(0),
            sampled: AtomicU64::new(0),
            delayed: AtomicBool::new(false),
            room_sampled: AtomicU64::new(0),
            full: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        // Microseconds of more than half a million years do not fit; zero means "none".
        u64::try_from(self.since.elapsed().as_micros())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// Something that may hang has begun; it ends when the guard is dropped.
    pub(super) fn busy<'a>(&self, what: &'a AtomicU64) -> Busy<'a> {
        what.store(self.now(), Ordering::Relaxed);
        Busy(what)
    }

    pub(super) fn stalled(&self) -> Duration {
        let oldest = [&self.committing, &self.applying].map(|began| began.load(Ordering::Relaxed));
        let oldest = oldest.into_iter().filter(|began| *began > 0).min();
        oldest.map_or(Duration::ZERO, |began| {
            Duration::from_micros(self.now().saturating_sub(began))
        })
    }

    /// Whether the disk has too little room, asked of the operating system now and then.
    pub(super) fn full(&self, has_room: impl FnOnce() -> bool) -> bool {
        let (now, sampled) = (self.now(), self.room_sampled.load(Ordering::Relaxed));
        let old = sampled == 0 || now.saturating_sub(sampled) > PRESSURE_AGE.as_micros() as u64;
        let ours = || {
            let swapped = self
                .room_sampled
                .compare_exchange(sampled, now, Ordering::Relaxed, Ordering::Relaxed);
            swapped.is_ok()
        };
        if old && ours() {
            let full = !has_room();
            if self.full.swap(full, Ordering::Relaxed) != full {
                metrics::full(full);
            }
        }
        self.full.load(Ordering::Relaxed)
    }

    pub(super) fn delayed(&self, sample: impl FnOnce() -> bool) -> bool {
        let (now, sampled) = (self.now(), self.sampled.load(Ordering::Relaxed));
        let old = now.saturating_sub(sampled) > PRESSURE_AGE.as_micros() as u64;
        if old
            && self
                .sampled
                .compare_exchange(sampled, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            let delayed = sample();
            if self.delayed.swap(delayed, Ordering::Relaxed) != delayed {
                metrics::pressed(delayed);
            }
        }
        self.delayed.load(Ordering::Relaxed)
    }
}

pub(super) struct Busy<'a>(&'a AtomicU64);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}
