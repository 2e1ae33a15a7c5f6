//! What a device has been sent lately, so that a repeat after a failover does not reach it (DESIGN §4.7).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::link::{Origin, SessionId};

/// How long a stanza is remembered at least.
const REMEMBER: Duration = Duration::from_secs(60);

/// How many stanzas are remembered that do not come in order; beyond it the older half of them is forgotten.
const ODD_MAX: usize = 4096;

/// How many senders are remembered; beyond it those of the older period are forgotten.
const SENDERS_MAX: usize = 4096;

/// The origins of stanzas one session was given, in two periods: the current one and the one before.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    now: Period,
    before: Period,
    began: Duration,
}

#[derive(Debug, Default)]
struct Period {
    /// Frames of one sender to one recipient come in order: the last one says all.
    senders: HashMap<SessionId, u64>,
    /// Answers and stored stanzas do not.
    odd: HashSet<Origin>,
}

impl Repeats {
    /// Whether this stanza has come before; remembers it.
    pub(super) fn is_repeat(&mut self, origin: Origin, elapsed: Duration) -> bool {
        self.turn(elapsed);
        match origin {
            Origin::None => false,
            Origin::Frame { session, frame } => {
                let last = self
                    .now
                    .senders
                    .get(&session)
                    .or_else(|| self.before.senders.get(&session));
                if last.is_some_and(|last| frame <= *last) {
                    return true;
                }
                self.now.senders.insert(session, frame);
                false
            }
            Origin::Answer { .. } | Origin::Stored { .. } => {
                self.before.odd.contains(&origin) || !self.now.odd.insert(origin)
            }
        }
    }

    /// What is remembered, for whoever evaluates the session next: of each sender the last frame.
    pub(super) fn seen(&self) -> Vec<Origin> {
        let senders = self.before.senders.iter().chain(&self.now.senders);
        let frames = senders.map(|(session, frame)| Origin::Frame {
            session: *session,
            frame: *frame,
        });
        frames
            .chain(self.before.odd.iter().copied())
            .chain(self.now.odd.iter().copied())
            .collect()
    }

    /// Whether nothing is remembered that still matters.
    pub(super) fn is_stale(&self, elapsed: Duration) -> bool {
        elapsed.saturating_sub(self.began) > REMEMBER * 2
    }

    fn turn(&mut self, elapsed: Duration) {
        let full = self.now.odd.len() >= ODD_MAX || self.now.senders.len() >= SENDERS_MAX;
        if full || elapsed.saturating_sub(self.began) > REMEMBER {
            self.before = std::mem::take(&mut self.now);
            self.began = elapsed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROMEO: SessionId = SessionId {
        term: 1,
        counter: 1,
        shard: 0,
    };
    const NURSE: SessionId = SessionId {
        term: 1,
        counter: 2,
        shard: 0,
    };

    fn frame(session: SessionId, frame: u64) -> Origin {
        Origin::Frame { session, frame }
    }

    #[test]
    fn a_frame_comes_once_and_only_in_order() {
        let mut repeats = Repeats::default();
        let at = Duration::ZERO;
        assert!(!repeats.is_repeat(frame(ROMEO, 4), at));
        assert!(!repeats.is_repeat(frame(NURSE, 4), at));
        assert!(repeats.is_repeat(frame(ROMEO, 4), at));
        assert!(repeats.is_repeat(frame(ROMEO, 3), at));
        assert!(!repeats.is_repeat(frame(ROMEO, 5), at));
    }

    #[test]
    fn answers_come_once_in_any_order() {
        let mut repeats = Repeats::default();
        let at = Duration::ZERO;
        assert!(!repeats.is_repeat(Origin::Answer { frame: 9 }, at));
        assert!(!repeats.is_repeat(Origin::Answer { frame: 4 }, at));
        assert!(repeats.is_repeat(Origin::Answer { frame: 9 }, at));
        assert!(!repeats.is_repeat(Origin::Stored { stamp: 9 }, at));
        assert!(!repeats.is_repeat(Origin::None, at));
        assert!(!repeats.is_repeat(Origin::None, at));
    }

    #[test]
    fn a_minute_is_remembered_and_two_are_not() {
        let mut repeats = Repeats::default();
        assert!(!repeats.is_repeat(frame(ROMEO, 1), Duration::ZERO));
        assert!(repeats.is_repeat(frame(ROMEO, 1), Duration::from_secs(60)));
        assert!(repeats.is_repeat(frame(ROMEO, 1), Duration::from_secs(61)));
        assert!(!repeats.is_repeat(frame(ROMEO, 1), Duration::from_secs(183)));
        assert!(repeats.is_stale(Duration::from_secs(400)));
    }
}
