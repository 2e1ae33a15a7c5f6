//! What this replica has promised to the leader of its group, looked at before anybody else gets its vote.

use std::sync::{Mutex, MutexGuard, PoisonError};

use heronry_storage::NodeId;

use crate::PeerId;

/// The guard of one group.
#[derive(Debug, Default)]
pub(super) struct Guard(Mutex<Record>);

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// The leader that was heard of last, and its term.
    leader: Option<(PeerId, u64)>,
    /// Its hand-overs up to this one permit nothing.
    void: u64,
    /// The highest term for which a vote was let through.
    let_through: u64,
    /// How many votes were let through.
    votes: u64,
    /// How many of them Raft has not answered yet.
    voting: u32,
}

/// A leader's permission to be followed by another while promises to it still hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HandOver {
    /// The leader's term.
    pub(super) term: u64,
    /// Counts its hand-overs in that term, from 1.
    pub(super) number: u64,
}

/// A vote that was let through, until Raft has answered it.
#[derive(Debug)]
pub(super) struct Ticket {
    term: u64,
    before: u64,
}

/// An append on its way through Raft.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hearing {
    term: u64,
    votes: u64,
}

impl Guard {
    /// That process leads in `term`, and its hand-overs up to `void` permit nothing. To be called before Raft hears of it.
    pub(super) fn heard_of(&self, leader: PeerId, term: u64, void: u64) -> Hearing {
        let mut record = self.record();
        if record.leader == Some((leader, term)) {
            record.void = record.void.max(void);
        } else if record.leader.is_none_or(|(_, known)| known <= term) && record.let_through <= term {
            record.leader = Some((leader, term));
            record.void = void;
        }
        let votes = record.votes;
        Hearing { term, votes }
    }

    /// Raft has accepted what was heard: says whether that leader is supported.
    pub(super) fn accepted(&self, hearing: Hearing) -> bool {
        let mut record = self.record();
        if record.voting == 0 && record.votes == hearing.votes {
            // Every vote was answered before, and none of a later term can have been granted.
            record.let_through = record.let_through.min(hearing.term);
        }
        record.let_through <= hearing.term
    }

    /// Whether nobody has been let through in a later term.
    pub(super) fn supports(&self, term: u64) -> bool {
        self.record().let_through <= term
    }

    /// The leader that was heard of last, and its term.
    pub(super) fn leader(&self) -> Option<(PeerId, u64)> {
        self.record().leader
    }

    /// Whether a vote in `term` for that candidate would break a promise; `holds` says whether one to a process holds now.
    /// `handed_over`: the leader wants the candidate to follow it.
    pub(super) fn would_let_through(
        &self,
        candidate: NodeId,
        term: u64,
        handed_over: Option<HandOver>,
        holds: impl Fn(PeerId) -> bool,
    ) -> bool {
        self.record().admits(candidate, term, handed_over, holds)
    }

    /// Lets the vote through, unless it [would break](Self::would_let_through) a promise.
    pub(super) fn let_through(
        &self,
        candidate: NodeId,
        term: u64,
        handed_over: Option<HandOver>,
        holds: impl Fn(PeerId) -> bool,
    ) -> Option<Ticket> {
        let mut record = self.record();
        if !record.admits(candidate, term, handed_over, holds) {
            return None;
        }
        let before = record.let_through;
        record.let_through = before.max(term);
        record.votes += 1;
        record.voting += 1;
        Some(Ticket { term, before })
    }

    /// Raft has granted the vote, or not.
    pub(super) fn voted(&self, ticket: &Ticket, granted: bool) {
        let mut record = self.record();
        record.voting = record.voting.saturating_sub(1);
        if !granted && record.let_through == ticket.term {
            record.let_through = ticket.before;
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn admits(
        &self,
        candidate: NodeId,
        term: u64,
        handed_over: Option<HandOver>,
        holds: impl Fn(PeerId) -> bool,
    ) -> bool {
        match self.leader {
            // A leader that asks again has begun anew, and follows nobody but itself.
            Some((leader, led)) if leader.node != candidate && led < term => {
                let permitted = handed_over.is_some_and(|by| by.term == led && by.number > self.void);
                permitted || !holds(leader)
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId {
        node: NodeId(1),
        start: 11,
    };
    const C: NodeId = NodeId(3);

    #[test]
    fn a_promise_that_holds_is_kept() {
        let guard = Guard::default();
        guard.heard_of(A, 4, 0);
        assert!(guard.let_through(C, 5, None, |leader| leader == A).is_none());
        assert!(guard.supports(4));
        assert!(guard.let_through(C, 5, None, |_| false).is_some());
        assert!(!guard.supports(4));
    }

    #[test]
    fn a_leader_may_hand_over_its_own_term_only() {
        let guard = Guard::default();
        guard.heard_of(A, 4, 0);
        let by = |term, number| Some(HandOver { term, number });
        assert!(guard.let_through(C, 5, by(3, 1), |_| true).is_none());
        guard.heard_of(A, 4, 1);
        assert!(guard.let_through(C, 5, by(4, 1), |_| true).is_none());
        assert!(guard.let_through(C, 5, by(4, 2), |_| true).is_some());
    }

    #[test]
    fn what_raft_does_not_grant_is_taken_back() {
        let guard = Guard::default();
        guard.heard_of(A, 4, 0);
        let ticket = guard.let_through(C, 9, None, |_| false).unwrap();
        guard.voted(&ticket, false);
        assert!(guard.supports(4));
        assert!(guard.let_through(C, 5, None, |_| true).is_none());
    }

    #[test]
    fn an_append_does_not_count_once_somebody_else_was_let_through() {
        let guard = Guard::default();
        let hearing = guard.heard_of(A, 4, 0);
        let ticket = guard.let_through(C, 5, None, |_| false).unwrap();
        assert!(!guard.accepted(hearing));
        guard.voted(&ticket, true);
        assert!(!guard.accepted(hearing));
    }

    #[test]
    fn a_leader_that_goes_on_is_supported_again() {
        let guard = Guard::default();
        let one = guard.let_through(C, 5, None, |_| false).unwrap();
        let two = guard.let_through(NodeId(4), 7, None, |_| false).unwrap();
        guard.voted(&one, false);
        guard.voted(&two, false);
        assert!(!guard.supports(4));
        assert!(guard.accepted(guard.heard_of(A, 4, 0)));
        assert!(guard.supports(4));
    }

    #[test]
    fn a_leader_of_an_earlier_term_is_not_heard_any_more() {
        let guard = Guard::default();
        guard.heard_of(A, 4, 0);
        let _ = guard.let_through(C, 6, None, |_| false);
        guard.heard_of(A, 5, 0);
        assert_eq!(guard.leader(), Some((A, 4)));
        let c = PeerId { node: C, start: 33 };
        guard.heard_of(c, 6, 0);
        assert_eq!(guard.leader(), Some((c, 6)));
    }
}
