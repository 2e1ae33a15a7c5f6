//! What a device has been sent lately, so that a repeat after a failover does not reach it (DESIGN §4.7).
//!
//! The session's edge drops repeats. What it remembers goes with the session: to a new leader when it attaches, from there into the
//! session's row when it loses its socket, and to the edge at which it is resumed.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::FRAMES_MAX;
use crate::link::{Origin, SessionId};

/// How long a stanza is remembered at least.
const REMEMBER: Duration = Duration::from_secs(60);

/// How many stanzas are remembered that do not come in order; beyond it the older half of them is forgotten.
const ODD_MAX: usize = 4096;

/// How many senders are remembered; beyond it those of the older period are forgotten.
const SENDERS_MAX: usize = 4096;

/// The origins of stanzas one session was given, in two periods: the current one and the one before.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    now: Period,
    before: Period,
    began: Duration,
}

#[derive(Debug, Default)]
struct Period {
    senders: HashMap<SessionId, Frames>,
    /// Answers and stored stanzas do not.
    odd: HashSet<Origin>,
}

/// Which frames of one sender have come. Of a stream no more than [`FRAMES_MAX`] are open, and only those may be sent again.
#[derive(Clone, Copy, Debug, Default)]
struct Frames {
    /// The last that has come.
    last: u64,
    /// Bit `n`: the frame `last - n` has come.
    come: u32,
}

const _: () = assert!(FRAMES_MAX <= u32::BITS as u64, "a bit for each open frame");

impl Repeats {
    /// What somebody else remembered of the session, who told it as [`Self::seen`].
    pub(crate) fn of(origins: impl IntoIterator<Item = Origin>, elapsed: Duration) -> Option<Box<Self>> {
        let mut repeats = Self {
            began: elapsed,
            ..Self::default()
        };
        for origin in origins {
            repeats.now.note(origin);
        }
        (!repeats.now.is_empty()).then(|| Box::new(repeats))
    }

    /// Whether this stanza has come before; remembers it.
    pub(crate) fn is_repeat(&mut self, origin: Origin, elapsed: Duration) -> bool {
        self.turn(elapsed);
        let repeat = self.contains(origin);
        if !repeat {
            self.now.note(origin);
        }
        repeat
    }

    /// Remembers a stanza.
    pub(crate) fn note(&mut self, origin: Origin, elapsed: Duration) {
        self.turn(elapsed);
        self.now.note(origin);
    }

    /// Whether the stanza has come.
    pub(crate) fn contains(&self, origin: Origin) -> bool {
        self.now.contains(origin) || self.before.contains(origin)
    }

    /// The stanza is not to count as one that has come.
    pub(crate) fn retract(&mut self, origin: Origin) {
        self.now.retract(origin);
        self.before.retract(origin);
    }

    /// What is remembered, for whoever deals with the session next. The older period comes first.
    pub(crate) fn seen(&self) -> Vec<Origin> {
        self.before.origins().chain(self.now.origins()).collect()
    }

    /// Whether nothing is remembered that still matters.
    pub(crate) fn is_stale(&self, elapsed: Duration) -> bool {
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

impl Period {
    fn is_empty(&self) -> bool {
        self.senders.is_empty() && self.odd.is_empty()
    }

    fn note(&mut self, origin: Origin) {
        match origin {
            Origin::None => {}
            Origin::Frame { session, frame } => self.senders.entry(session).or_default().note(frame),
            Origin::Answer { .. } | Origin::Stored { .. } => {
                self.odd.insert(origin);
            }
        }
    }

    fn contains(&self, origin: Origin) -> bool {
        match origin {
            Origin::None => false,
            Origin::Frame { session, frame } => self.senders.get(&session).is_some_and(|frames| frames.contains(frame)),
            Origin::Answer { .. } | Origin::Stored { .. } => self.odd.contains(&origin),
        }
    }

    fn retract(&mut self, origin: Origin) {
        match origin {
            Origin::None => {}
            Origin::Frame { session, frame } => {
                if let Some(frames) = self.senders.get_mut(&session) {
                    frames.retract(frame);
                }
            }
            Origin::Answer { .. } | Origin::Stored { .. } => {
                self.odd.remove(&origin);
            }
        }
    }

    fn origins(&self) -> impl Iterator<Item = Origin> {
        let frames = |(session, frames): (&SessionId, &Frames)| {
            let session = *session;
            frames.each().map(move |frame| Origin::Frame { session, frame })
        };
        self.senders.iter().flat_map(frames).chain(self.odd.iter().copied())
    }
}

impl Frames {
    fn note(&mut self, frame: u64) {
        if let Some(further) = frame.checked_sub(self.last).filter(|further| *further > 0) {
            let moved = u32::try_from(further).ok().and_then(|by| self.come.checked_shl(by));
            (self.last, self.come) = (frame, moved.unwrap_or(0) | 1);
        } else if let Some(bit) = self.bit(frame) {
            self.come |= bit;
        }
    }

    fn contains(&self, frame: u64) -> bool {
        // What is further back than a stream may have frames open is not sent any more.
        frame <= self.last && self.bit(frame).is_none_or(|bit| self.come & bit != 0)
    }

    fn retract(&mut self, frame: u64) {
        if let Some(bit) = self.bit(frame) {
            self.come &= !bit;
        }
    }

    fn each(self) -> impl Iterator<Item = u64> {
        let back = (0..FRAMES_MAX).rev().filter(move |back| self.come & (1 << back) != 0);
        back.map(move |back| self.last - back)
    }

    fn bit(&self, frame: u64) -> Option<u32> {
        let back = self.last.checked_sub(frame)?;
        (back < FRAMES_MAX).then(|| 1 << back)
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
    fn a_frame_comes_once() {
        let mut repeats = Repeats::default();
        let at = Duration::ZERO;
        assert!(!repeats.is_repeat(frame(ROMEO, 4), at));
        assert!(!repeats.is_repeat(frame(NURSE, 4), at));
        assert!(repeats.is_repeat(frame(ROMEO, 4), at));
        // It went elsewhere first.
        assert!(!repeats.is_repeat(frame(ROMEO, 3), at));
        assert!(repeats.is_repeat(frame(ROMEO, 3), at));
        assert!(!repeats.is_repeat(frame(ROMEO, 5), at));
        assert!(!repeats.is_repeat(frame(ROMEO, 500), at));
        assert!(repeats.is_repeat(frame(ROMEO, 500), at));
        assert!(!repeats.is_repeat(frame(ROMEO, 499), at));
        assert!(repeats.is_repeat(frame(ROMEO, 5), at), "nobody sends it any more");
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
    fn what_is_told_is_remembered_elsewhere_but_for_what_has_not_come() {
        let mut repeats = Repeats::default();
        let at = Duration::ZERO;
        for origin in [
            frame(ROMEO, 4),
            frame(NURSE, 9),
            Origin::Stored { stamp: 7 },
            Origin::None,
        ] {
            assert!(!repeats.is_repeat(origin, at));
        }
        let mut next = *Repeats::of(repeats.seen(), at).expect("something is remembered");
        next.retract(frame(NURSE, 9));
        next.retract(frame(ROMEO, 5));
        next.retract(Origin::Stored { stamp: 7 });
        assert!(next.contains(frame(ROMEO, 4)));
        assert!(!next.contains(frame(ROMEO, 5)));
        assert!(!next.contains(frame(NURSE, 9)), "it is still under way");
        assert!(!next.contains(frame(NURSE, 8)), "it was for somebody else");
        assert!(!next.contains(Origin::Stored { stamp: 7 }));
        assert!(Repeats::of([Origin::None], at).is_none());
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
