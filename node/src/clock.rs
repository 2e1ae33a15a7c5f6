//! The clocks and the randomness that `xmpp` gets as arguments.

use std::time::{Duration, Instant, SystemTime};

use heronry_xmpp::{random::Random, rows::Timestamp};

/// A clock that never jumps, since the start of the node; and the wall's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// The wall clock. Before 1970 it is 1970.
    pub(crate) fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Timestamp(since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SystemRandom;

impl Random for SystemRandom {
    /// # Panics
    /// When the operating system has no randomness: nothing made without it would be safe.
    fn fill(&mut self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives no randomness");
    }
}
