//! Which nodes live, and what they have promised each other (docs/decisions/0005-cluster.md).
//!
//! Liveness is judged per pair of nodes and not per group. Who answers a ping promises its sender to support nobody else, for a
//! while, as leader of any group that the sender leads. A leader that is supported by a majority has its lease.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use heronry_storage::NodeId;
use tokio::time::Instant;

use crate::PeerId;

/// Names a run of promises without a gap: as long as it is the same, the promising process has supported no other leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Epoch {
    /// The process that promises.
    pub(crate) start: u64,
    /// Grows whenever a promise had run out before the next was asked for.
    pub(crate) number: u64,
}

/// What this process has promised, and what it has been promised.
#[derive(Debug)]
pub(crate) struct Liveness {
    me: PeerId,
    lease: Duration,
    margin: Duration,
    /// A process before this one may have made promises that still hold.
    quiet_until: Instant,
    given: Mutex<HashMap<NodeId, Given>>,
    got: Mutex<HashMap<NodeId, Got>>,
    epochs: AtomicU64,
    /// This node is not well: it promises nothing.
    silent: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Given {
    start: u64,
    epoch: u64,
    until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Got {
    epoch: Epoch,
    until: Instant,
}

impl Liveness {
    /// A process that starts now; `lease` is how long a promise lasts, `margin` how much earlier its receiver gives it up.
    pub(crate) fn new(me: PeerId, lease: Duration, margin: Duration) -> Self {
        Self {
            me,
            lease,
            margin,
            quiet_until: Instant::now() + lease,
            given: Mutex::default(),
            got: Mutex::default(),
            epochs: AtomicU64::new(0),
            silent: AtomicBool::new(false),
        }
    }

    pub(crate) fn me(&self) -> PeerId {
        self.me
    }

    /// Until then a vote could break the promise of the process before this one.
    pub(crate) fn quiet_until(&self) -> Instant {
        self.quiet_until
    }

    /// From now on this node promises nothing, or does again.
    pub(crate) fn silence(&self, silent: bool) {
        self.silent.store(silent, Ordering::Release);
    }

    /// This node is not well: it neither promises nor votes.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Acquire)
    }

    /// A ping has come: makes a promise. `None`: none is made.
    pub(crate) fn promise(&self, to: PeerId) -> Option<Epoch> {
        if self.silent.load(Ordering::Acquire) {
            return None;
        }
        let now = Instant::now();
        let until = now + self.lease;
        let mut given = lock(&self.given);
        let unbroken = given
            .get(&to.node)
            .filter(|given| given.start == to.start && now < given.until)
            .map(|given| given.epoch);
        let epoch = unbroken.unwrap_or_else(|| self.epochs.fetch_add(1, Ordering::Relaxed) + 1);
        let start = to.start;
        given.insert(to.node, Given { start, epoch, until });
        Some(self.epoch(epoch))
    }

    fn epoch(&self, number: u64) -> Epoch {
        let start = self.me.start;
        Epoch { start, number }
    }

    /// The epoch of the promises made to that process, if it has one, run out or not.
    pub(crate) fn epoch_of(&self, to: PeerId) -> Option<Epoch> {
        let given = lock(&self.given);
        let given = given.get(&to.node).filter(|given| given.start == to.start)?;
        Some(self.epoch(given.epoch))
    }

    /// A promise made to that process holds now.
    pub(crate) fn holds(&self, to: PeerId) -> bool {
        let now = Instant::now();
        lock(&self.given)
            .get(&to.node)
            .is_some_and(|given| given.start == to.start && now < given.until)
    }

    /// A ping that was sent at that time has been answered.
    pub(crate) fn promised(&self, by: NodeId, epoch: Epoch, sent: Instant) {
        let until = sent + self.lease.saturating_sub(self.margin);
        let mut got = lock(&self.got);
        let later = got.get(&by).is_none_or(|known| known.until < until);
        if later {
            got.insert(by, Got { epoch, until });
        }
    }

    /// The epoch in which that node promises now; `None`: no promise of it holds.
    pub(crate) fn promise_of(&self, by: NodeId) -> Option<Epoch> {
        let now = Instant::now();
        lock(&self.got)
            .get(&by)
            .filter(|got| now < got.until)
            .map(|got| got.epoch)
    }

    /// Whether that node has answered lately.
    pub(crate) fn is_alive(&self, node: NodeId) -> bool {
        node == self.me.node || self.promise_of(node).is_some()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const A: PeerId = PeerId {
        node: NodeId(1),
        start: 11,
    };
    const B: PeerId = PeerId {
        node: NodeId(2),
        start: 22,
    };
    const LEASE: Duration = Duration::from_millis(1000);

    fn of(me: PeerId) -> Liveness {
        Liveness::new(me, LEASE, Duration::from_millis(100))
    }

    #[tokio::test(start_paused = true)]
    async fn an_epoch_lasts_as_long_as_promises_have_no_gap() {
        let b = of(B);
        let first = b.promise(A).unwrap();
        advance(LEASE - Duration::from_millis(1)).await;
        assert!(b.holds(A));
        assert_eq!(b.promise(A), Some(first));
        advance(LEASE).await;
        assert!(!b.holds(A));
        assert_eq!(b.epoch_of(A), Some(first));
        assert_ne!(b.promise(A), Some(first));
    }

    #[tokio::test(start_paused = true)]
    async fn another_process_of_a_node_is_another() {
        let b = of(B);
        let first = b.promise(A).unwrap();
        let restarted = PeerId { start: 12, ..A };
        assert!(!b.holds(restarted));
        assert_ne!(b.promise(restarted), Some(first));
        assert!(!b.holds(A));
        assert_eq!(b.epoch_of(A), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_promised_gives_up_before_who_promised() {
        let (a, b) = (of(A), of(B));
        let sent = Instant::now();
        advance(Duration::from_millis(300)).await;
        let epoch = b.promise(A).unwrap();
        a.promised(B.node, epoch, sent);
        while a.promise_of(B.node).is_some() {
            assert!(b.holds(A));
            advance(Duration::from_millis(1)).await;
        }
        assert!(b.holds(A));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_not_well_promises_nothing() {
        let b = of(B);
        b.silence(true);
        assert_eq!(b.promise(A), None);
        b.silence(false);
        assert!(b.promise(A).is_some());
    }
}
