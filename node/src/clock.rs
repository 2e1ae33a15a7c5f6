//! The clocks and the randomness that `xmpp` gets as arguments.

use std::time::{Duration, SystemTime};

use heronry_xmpp::{random::Random, rows::Timestamp};
use tokio::time::Instant;

/// A clock that never jumps, since the start of the node; and the wall's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
    wall: fn() -> SystemTime,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        Self::with_wall(SystemTime::now)
    }

    /// A clock that starts now, in a place with another clock on the wall.
    pub(crate) fn with_wall(wall: fn() -> SystemTime) -> Self {
        Self {
            began: Instant::now(),
            wall,
        }
    }

    /// The time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The wall clock. Before 1970 it is 1970.
    pub(crate) fn wall(&self) -> Timestamp {
        let since = (self.wall)().duration_since(SystemTime::UNIX_EPOCH);
        Timestamp(since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SystemRandom;

#[cfg(test)]
thread_local! {
    /// What this thread draws instead, in a simulation.
    pub(crate) static DRAWN: std::cell::RefCell<Option<fastrand::Rng>> = const { std::cell::RefCell::new(None) };
}

impl Random for SystemRandom {
    /// # Panics
    /// When the operating system has no randomness: nothing made without it would be safe.
    fn fill(&mut self, bytes: &mut [u8]) {
        #[cfg(test)]
        if DRAWN.with_borrow_mut(|drawn| drawn.as_mut().map(|drawn| drawn.fill(bytes)).is_some()) {
            return;
        }
        getrandom::fill(bytes).expect("the operating system gives no randomness");
    }
}
