//! The frames of one session: numbered by its edge, accepted as a prefix.

/// How many frames a stream may have that are not accepted yet; beyond it the edge does not read (DESIGN §3).
pub(crate) const FRAMES_MAX: u64 = 32;

/// Which frames have come and which of them are done.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    /// Everything up to here is accepted.
    accepted: u64,
    /// The last frame that has come.
    last: u64,
    /// Bit `n`: the frame `accepted + 1 + n` is done.
    done: u64,
    /// The edge has heard of acceptance up to here.
    pub(crate) settled: u64,
    /// Frames up to here came on a former socket: they may have been evaluated already.
    evaluated: u64,
    /// Frames up to here may be sent again by the device itself, on another socket.
    resent: u64,
}

/// What a frame's number says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Numbered {
    /// The next one: evaluate it.
    Next,
    /// It has come before: nothing to do, it will be accepted in its turn.
    Known,
    /// There is a gap, or more than [`FRAMES_MAX`] are open: the edge broke the rules.
    Wrong,
}

impl Inbound {
    /// A session whose frames up to `accepted` are done.
    pub(crate) fn after(accepted: u64) -> Self {
        Self {
            accepted,
            last: accepted,
            done: 0,
            settled: accepted,
            evaluated: accepted,
            resent: accepted,
        }
    }

    /// A session of a former leader, which may have evaluated as many more as a stream may have open.
    pub(crate) fn inherited(accepted: u64) -> Self {
        Self {
            evaluated: accepted + FRAMES_MAX,
            ..Self::after(accepted)
        }
    }

    /// The same session on another socket: its device sends again what was not accepted.
    pub(crate) fn again(&self) -> Self {
        let evaluated = self.last.max(self.evaluated);
        Self {
            evaluated,
            resent: evaluated,
            ..Self::after(self.accepted)
        }
    }

    /// Whether the frame may have been evaluated before.
    pub(crate) fn is_repeat(&self, frame: u64) -> bool {
        frame <= self.evaluated
    }

    /// Whether the device may have sent the frame before, on another socket. Of what an edge sends again it says so itself.
    pub(crate) fn is_resent(&self, frame: u64) -> bool {
        frame <= self.resent
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Takes a frame's number.
    pub(crate) fn number(&mut self, frame: u64) -> Numbered {
        if frame <= self.last {
            return Numbered::Known;
        }
        if frame != self.last + 1 || frame > self.accepted + FRAMES_MAX {
            return Numbered::Wrong;
        }
        self.last = frame;
        Numbered::Next
    }

    /// Marks a frame as done; says whether the accepted prefix grew.
    pub(crate) fn done(&mut self, frame: u64) -> bool {
        if frame <= self.accepted || frame > self.last {
            return false;
        }
        self.done |= 1 << (frame - self.accepted - 1);
        let prefix = u64::from(self.done.trailing_ones());
        self.done = self.done.checked_shr(self.done.trailing_ones()).unwrap_or(0);
        self.accepted += prefix;
        prefix > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acceptance_is_the_longest_prefix_that_is_done() {
        let mut frames = Inbound::default();
        for frame in 1..=4 {
            assert_eq!(frames.number(frame), Numbered::Next);
        }
        assert!(!frames.done(2));
        assert!(!frames.done(4));
        assert_eq!(frames.accepted(), 0);
        assert!(frames.done(1));
        assert_eq!(frames.accepted(), 2);
        assert!(frames.done(3));
        assert_eq!(frames.accepted(), 4);
        assert!(!frames.done(3), "done twice is done once");
    }

    #[test]
    fn repeats_are_known_and_gaps_are_wrong() {
        let mut frames = Inbound::after(7);
        assert_eq!(frames.number(7), Numbered::Known);
        assert_eq!(frames.number(9), Numbered::Wrong);
        for frame in 8..8 + FRAMES_MAX {
            assert_eq!(frames.number(frame), Numbered::Next);
        }
        assert_eq!(frames.number(8 + FRAMES_MAX), Numbered::Wrong, "the window is full");
    }
}
