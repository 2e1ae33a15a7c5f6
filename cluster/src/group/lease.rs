//! By whom this replica is supported as leader.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use heronry_storage::NodeId;

use super::{Group, State, Term, guard::HandOver};
use crate::liveness::{Epoch, Liveness};

/// Who has accepted something of this leader, and in which epoch of its promises.
#[derive(Clone, Debug, Default)]
pub(super) struct Supports {
    term: u64,
    by: Vec<(NodeId, Epoch)>,
}

/// Hand-overs of one term.
#[derive(Debug, Default)]
pub(super) struct HandOvers {
    term: u64,
    begun: u64,
    void: u64,
}

impl HandOvers {
    fn in_term(&mut self, term: u64) -> &mut Self {
        if self.term != term {
            let (begun, void) = (0, 0);
            *self = Self { term, begun, void };
        }
        self
    }
}

/// Who votes: one set, or two while the membership changes.
pub(super) type Voters = Vec<Vec<NodeId>>;

impl State {
    /// A replica has accepted an append of this leader's term.
    pub(super) fn supported_by(&self, node: NodeId, term: u64, epoch: Epoch) {
        let mut supports = lock(&self.supports);
        if supports.term > term {
            return;
        }
        if supports.term < term {
            *supports = Supports { term, by: Vec::new() };
        }
        match supports.by.iter_mut().find(|(by, _)| *by == node) {
            Some((_, known)) => *known = epoch,
            None => supports.by.push((node, epoch)),
        }
    }

    /// Whether that replica supports this leader of `term` at present.
    pub(super) fn is_supported_by(&self, liveness: &Liveness, node: NodeId, term: u64) -> bool {
        let epoch = {
            let supports = lock(&self.supports);
            let by = supports.by.iter().find(|(by, _)| *by == node);
            by.filter(|_| supports.term == term).map(|(_, epoch)| *epoch)
        };
        epoch.is_some() && epoch == liveness.promise_of(node)
    }

    /// Whether a majority of every set of voters supports this leader of `term`.
    pub(super) fn has_quorum(&self, liveness: &Liveness, me: NodeId, term: u64) -> bool {
        let voters = std::sync::Arc::clone(&lock(&self.voters));
        !voters.is_empty()
            && voters.iter().all(|set| {
                let support = |node: &&NodeId| **node == me || self.is_supported_by(liveness, **node, term);
                set.iter().filter(support).count() > set.len() / 2
            })
    }

    /// What permits this node to be elected at present, before promises have run out.
    pub(super) fn handed_over(&self) -> Option<HandOver> {
        *lock(&self.handed_over)
    }

    /// This leader's hand-overs up to this number have not worked.
    pub(super) fn void_hand_overs(&self, term: u64) -> u64 {
        lock(&self.hand_overs).in_term(term).void
    }

    /// The leader of `term` acts again: what supported it might be about to elect another, so it counts anew.
    pub(super) fn acts_again(&self, term: u64) {
        let mut hand_overs = lock(&self.hand_overs);
        let of_term = hand_overs.in_term(term);
        of_term.void = of_term.begun;
        *lock(&self.supports) = Supports::default();
    }

    /// The leader of `term` is about to hand over.
    pub(super) fn hands_over(&self, term: u64) -> HandOver {
        let mut hand_overs = lock(&self.hand_overs);
        let of_term = hand_overs.in_term(term);
        of_term.begun += 1;
        let number = of_term.begun;
        HandOver { term, number }
    }
}

impl Group {
    /// This node leads in `term` and no other node can, at this moment. Without it no effect may be performed, not even one
    /// that depends on no row.
    pub fn has_lease(&self, term: Term) -> bool {
        let inner = &*self.0;
        let state = &inner.state;
        term.0 != 0
            && state.leading.load(Ordering::Acquire) == term.0
            && (state.alone.load(Ordering::Acquire)
                || (state.guard.supports(term.0) && state.has_quorum(&inner.peers.liveness, inner.node, term.0)))
    }
}

pub(super) fn lock<T>(mutex: &std::sync::Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
