//! What shards tell of themselves, for whoever asks at any time.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use heronry_xmpp::{
    link::{ShardId, Term},
    shard::Stats,
};
use tokio::sync::watch;

use super::metrics;

/// The states of all shards of this node.
#[derive(Debug)]
pub(crate) struct Statuses {
    shards: Box<[Status]>,
    /// How many shards are on this node, and how many of them lead.
    counts: watch::Sender<Counts>,
    entries: AtomicU64,
    batches: AtomicU64,
}

/// What has been committed since the node started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    /// Log entries.
    pub(crate) entries: u64,
    /// The batches in them.
    pub(crate) batches: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    here: usize,
    leading: usize,
}

#[derive(Debug, Default)]
struct Status {
    here: AtomicBool,
    /// The term in which it leads; 0: it does not.
    term: AtomicU64,
    stats: Mutex<Stats>,
}

impl Statuses {
    pub(crate) fn new(shards: u16) -> Self {
        Self {
            shards: (0..shards).map(|_| Status::default()).collect(),
            counts: watch::Sender::new(Counts::default()),
            entries: AtomicU64::new(0),
            batches: AtomicU64::new(0),
        }
    }

    /// A shard is on this node, or it is not any more.
    pub(super) fn is_here(&self, shard: ShardId, here: bool) {
        let Some(status) = self.shards.get(usize::from(shard.0)) else {
            return;
        };
        match (status.here.swap(here, Ordering::AcqRel), here) {
            (false, true) => self.counts.send_modify(|counts| counts.here += 1),
            (true, false) => {
                self.leads(shard, None);
                self.stats(shard, Stats::default());
                self.counts.send_modify(|counts| counts.here -= 1);
            }
            _ => {}
        }
    }

    /// A shard leads in this term and evaluates, or it does not.
    pub(super) fn leads(&self, shard: ShardId, term: Option<Term>) {
        let Some(status) = self.shards.get(usize::from(shard.0)) else {
            return;
        };
        let term = term.map_or(0, |term| term.term);
        let before = status.term.swap(term, Ordering::AcqRel);
        match (before, term) {
            (0, 0) => {}
            (0, _) => self.counts.send_modify(|counts| counts.leading += 1),
            (_, 0) => self.counts.send_modify(|counts| counts.leading -= 1),
            _ => {}
        }
    }

    /// What is going on in a shard.
    pub(super) fn stats(&self, shard: ShardId, stats: Stats) {
        if let Some(status) = self.shards.get(usize::from(shard.0)) {
            *status.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
        }
    }

    /// Tells what is going on in all shards, for metrics.
    pub(crate) fn measure(&self) {
        metrics::sums(&self.sums());
    }

    /// Waits until all shards that are on this node evaluate.
    #[cfg(test)]
    pub(crate) async fn until_all_lead(&self) {
        let mut counts = self.counts.subscribe();
        // It fails only when the sender is gone, and that is ours.
        let _ = counts.wait_for(|counts| counts.leading == counts.here).await;
    }

    /// The term in which a shard leads and evaluates.
    pub(crate) fn term(&self, shard: ShardId) -> Option<u64> {
        let status = self.shards.get(usize::from(shard.0))?;
        Some(status.term.load(Ordering::Acquire)).filter(|term| *term != 0)
    }

    /// An entry of that many batches has been committed.
    pub(super) fn has_committed(&self, batches: usize) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.batches.fetch_add(batches as u64, Ordering::Relaxed);
    }

    /// What has been committed since the node started.
    pub(crate) fn committed(&self) -> Committed {
        Committed {
            entries: self.entries.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
        }
    }

    /// What is going on in a shard, some moments old.
    pub(crate) fn stats_of(&self, shard: ShardId) -> Stats {
        let status = self.shards.get(usize::from(shard.0));
        status.map_or_else(Stats::default, |status| {
            *status.stats.lock().unwrap_or_else(PoisonError::into_inner)
        })
    }

    /// Sums over all shards, some moments old.
    pub(crate) fn sums(&self) -> Stats {
        let mut sums = Stats::default();
        for status in &self.shards {
            let stats = *status.stats.lock().unwrap_or_else(PoisonError::into_inner);
            sums.attached += stats.attached;
            sums.detached += stats.detached;
            sums.forwards += stats.forwards;
        }
        sums
    }
}
