//! From batches to entries: whatever is pending is proposed as one entry, a few entries at a time (DESIGN §7).

use std::collections::VecDeque;
use std::sync::Arc;

use heronry_cluster::{Group, ProposeError, Round, Term as RaftTerm};
use heronry_xmpp::{
    link::{ShardId, Term},
    rows::Batch,
    shard::BatchNo,
};

use super::{
    ShardLimits,
    inbox::{Control, Inboxes},
    metrics,
};

/// The batches of one shard on their way to its group.
pub(super) struct Proposer {
    shard: ShardId,
    group: Group,
    inboxes: Arc<Inboxes>,
    limits: ShardLimits,
    term: Term,
    /// Evaluated and not proposed yet.
    waiting: VecDeque<(BatchNo, Batch)>,
    waiting_bytes: usize,
    /// An entry that the group had no room for.
    refused: Option<(BatchNo, Vec<Batch>)>,
    /// Entries proposed and not ended.
    in_flight: usize,
    /// Of those of former terms and rounds that have not ended: which, and how many.
    former: Vec<(Term, usize)>,
    /// One of them could not be committed: the others are waited for, and nothing more is proposed in this term.
    failed: bool,
}

impl Proposer {
    pub(super) fn new(shard: ShardId, group: Group, inboxes: Arc<Inboxes>, limits: ShardLimits) -> Self {
        Self {
            shard,
            group,
            inboxes,
            limits,
            term: Term::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            refused: None,
            in_flight: 0,
            former: Vec::new(),
            failed: false,
        }
    }

    /// Forgets what waits; what is proposed from now on is of this term.
    pub(super) fn begin(&mut self, term: Term) {
        if self.in_flight > 0 {
            self.former.push((self.term, self.in_flight));
        }
        self.term = term;
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.refused = None;
        self.in_flight = 0;
        self.failed = false;
    }

    /// The term of what it proposes.
    pub(super) fn term(&self) -> Term {
        self.term
    }

    /// Takes a batch; [`Self::propose`] sends it.
    pub(super) fn push(&mut self, no: BatchNo, batch: Batch) {
        if !self.failed {
            self.waiting_bytes += batch.size();
            self.waiting.push_back((no, batch));
        }
    }

    /// Whether more may be evaluated that writes.
    pub(super) fn has_room(&self) -> bool {
        !self.failed && self.refused.is_none() && self.waiting_bytes < self.limits.unproposed_bytes_max
    }

    /// Proposes what is pending, as far as entries may be in flight.
    pub(super) fn propose(&mut self) {
        while !self.failed && self.in_flight < self.limits.entries_in_flight_max {
            let Some((no, batches)) = self.refused.take().or_else(|| self.next_entry()) else {
                return;
            };
            let count = batches.len();
            let round = Round {
                term: RaftTerm(self.term.term),
                round: self.term.round,
            };
            match self.group.try_propose(round, batches) {
                Ok(proposal) => {
                    metrics::proposed(count);
                    self.in_flight += 1;
                    self.watch(no, count, proposal);
                }
                Err(refused) if refused.error == ProposeError::Busy => {
                    metrics::proposals_held();
                    self.refused = Some((no, refused.batches));
                    return;
                }
                Err(refused) => {
                    tracing::warn!(shard = self.shard.0, error = %refused.error, "a proposal was refused");
                    self.fail();
                }
            }
        }
    }

    /// What is pending, up to the size of an entry; at least one batch.
    fn next_entry(&mut self) -> Option<(BatchNo, Vec<Batch>)> {
        let mut entry = Vec::new();
        let (mut bytes, mut last) = (0, None);
        while let Some((no, batch)) = self
            .waiting
            .pop_front_if(|(_, batch)| entry.is_empty() || bytes + batch.size() <= self.limits.entry_bytes_target)
        {
            bytes += batch.size();
            last = Some(no);
            entry.push(batch);
        }
        self.waiting_bytes -= bytes;
        Some((last?, entry))
    }

    fn watch(&self, no: BatchNo, batches: usize, proposal: heronry_cluster::Proposal) {
        let (inboxes, shard, term) = (Arc::clone(&self.inboxes), self.shard, self.term);
        tokio::spawn(async move {
            let result = proposal.await.map(drop);
            if let Some(inbox) = inboxes.of(shard) {
                inbox.control(Control::Proposed {
                    term,
                    no,
                    batches,
                    result,
                });
            }
        });
    }

    /// Whether entries that were proposed to Raft in that term, and not in this round, have not ended.
    pub(super) fn is_awaiting(&self, term: u64) -> bool {
        self.former.iter().any(|(former, _)| former.term == term)
    }

    /// A proposal of that term has ended.
    pub(super) fn ended(&mut self, term: Term, result: &Result<(), ProposeError>) {
        if term != self.term {
            if let Some((_, left)) = self.former.iter_mut().find(|(former, _)| *former == term) {
                *left -= 1;
            }
            return self.former.retain(|(_, left)| *left > 0);
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Err(error) = result {
            tracing::warn!(shard = self.shard.0, %error, "a proposal was lost");
            self.fail();
        }
    }

    /// What is evaluated in this term is void: as if a proposal had failed.
    pub(super) fn give_up(&mut self) {
        self.fail();
    }

    fn fail(&mut self) {
        self.failed = true;
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.refused = None;
    }

    /// Whether a proposal has failed and what became of all others is known.
    pub(super) fn has_failed(&self) -> bool {
        self.failed && self.in_flight == 0
    }
}
