//! A proposal under way.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use futures::FutureExt;
use heronry_storage::Batch;
use openraft::{errors::ClientWriteError, raft::WriteRequest};
use tokio::sync::{Notify, oneshot};

use super::{
    Group, Leadership, Term,
    type_config::{Respond, Types, WriteResult},
};
use crate::{ProposeError, metrics};

/// An entry is committed and applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The entry's index in the shard's log.
    pub index: u64,
}

/// Batches that were not appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub error: ProposeError,
    /// The batches, as they were.
    pub batches: Vec<Batch>,
}

/// A proposal that is on its way, as a future of what becomes of it.
#[must_use = "what becomes of a proposal is known only from its result"]
pub struct Proposal(Stage);

enum Stage {
    Refused(Option<(ProposeError, Refusal)>),
    Waiting {
        result: oneshot::Receiver<WriteResult>,
        group: Group,
        term: Term,
        batches: usize,
        bytes: usize,
        began: Instant,
    },
}

/// The responder that openraft answers, and the proposal that waits for it.
pub(super) fn pair(group: &Group, term: Term, batches: usize, permit: Permit) -> (Respond<WriteResult>, Proposal) {
    let (sender, result) = oneshot::channel();
    let bytes = permit.bytes;
    let stage = Stage::Waiting {
        result,
        group: group.clone(),
        term,
        batches,
        bytes,
        began: Instant::now(),
    };
    (
        Respond {
            result: sender,
            permit: Some(permit),
        },
        Proposal(stage),
    )
}

/// Hands a write to Raft, now. Raft's queue has room for far more than `in_flight_bytes_max` lets in; were it full, the store
/// does not keep up.
pub(super) fn submit(write: WriteRequest<'_, Types>) -> Result<(), ProposeError> {
    // Without a budget: a task that has done much would otherwise be told to yield here.
    let sent = tokio::task::unconstrained(write.into_future()).now_or_never();
    match sent {
        Some(Ok(())) => Ok(()),
        Some(Err(_fatal)) => Err(ProposeError::Closed),
        None => Err(ProposeError::Busy),
    }
}

impl Proposal {
    pub(super) fn refused(error: ProposeError, in_flight: &Arc<InFlight>) -> Self {
        Self(Stage::Refused(Some((error, InFlight::refuse(in_flight)))))
    }
}

impl Future for Proposal {
    type Output = Result<Committed, ProposeError>;

    /// Cancel safe: dropping it changes nothing of what was proposed.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match &mut self.0 {
            Stage::Refused(error) => Err(error.take().map_or(ProposeError::Closed, |(error, _seen)| error)),
            Stage::Waiting {
                result,
                group,
                term,
                batches,
                bytes,
                began,
            } => match ready!(result.poll_unpin(context)) {
                Ok(Ok(response)) if !response.data => Err(ProposeError::Superseded),
                Ok(Ok(response)) => {
                    metrics::committed(*batches, *bytes, began.elapsed());
                    Ok(Committed {
                        index: response.log_id.index,
                    })
                }
                Ok(Err(error)) => Err(lost(group, *term, &error)),
                // Raft has ended with the proposal in its hands.
                Err(_) => Err(stopped(group)),
            },
        };
        if let Err(error) = &result {
            metrics::proposal_failed(error);
        }
        Poll::Ready(result)
    }
}

impl std::fmt::Debug for Proposal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proposal")
    }
}

fn lost(group: &Group, term: Term, error: &ClientWriteError<Types>) -> ProposeError {
    let forward = match error {
        ClientWriteError::ForwardToLeader(forward) | ClientWriteError::LogEntryDiscarded(forward) => forward,
        // Not for entries of ours.
        ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_) => {
            return ProposeError::NotLeader { leader: None };
        }
    };
    match *group.0.leadership.borrow() {
        Leadership::Leader { term: leading } if leading != term => ProposeError::Fenced {
            proposed: term,
            leading,
        },
        _ => ProposeError::NotLeader {
            leader: forward.leader_id.map(heronry_storage::NodeId),
        },
    }
}

/// Why the group has stopped: its store says so, or it was shut down.
pub(super) fn stopped(group: &Group) -> ProposeError {
    match group.0.store.log_state(group.0.shard) {
        Err(heronry_storage::StoreError::Closed) | Ok(_) => ProposeError::Closed,
        Err(error) => ProposeError::Storage(error),
    }
}

/// What a group has proposed and not yet applied. Full: [`ProposeError::Busy`].
pub(super) struct InFlight {
    bytes: AtomicUsize,
    proposals: AtomicUsize,
    /// Proposals that were refused, and whose caller has not seen it yet.
    refusals: AtomicUsize,
    bytes_max: usize,
    emptied: Notify,
}

/// A proposal's share of what is in flight, given back when dropped.
pub(super) struct Permit {
    in_flight: Arc<InFlight>,
    bytes: usize,
}

impl InFlight {
    pub(super) fn new(bytes_max: usize) -> Self {
        let [bytes, proposals, refusals] = [const { AtomicUsize::new(0) }; 3];
        Self {
            bytes,
            proposals,
            refusals,
            bytes_max,
            emptied: Notify::new(),
        }
    }

    pub(super) fn enter(this: &Arc<Self>, bytes: usize) -> Option<Permit> {
        let before = this.bytes.fetch_add(bytes, Ordering::AcqRel);
        this.proposals.fetch_add(1, Ordering::AcqRel);
        let permit = Permit {
            in_flight: Arc::clone(this),
            bytes,
        };
        // The first is let in whatever its size, or it never would be.
        (before == 0 || before + bytes <= this.bytes_max).then_some(permit)
    }

    fn refuse(this: &Arc<Self>) -> Refusal {
        this.refusals.fetch_add(1, Ordering::AcqRel);
        Refusal(Arc::clone(this))
    }

    /// Somebody does not know yet that a proposal of theirs was refused. What they propose now may build upon it.
    pub(super) fn is_broken(&self) -> bool {
        self.refusals.load(Ordering::Acquire) > 0
    }

    /// Returns when nothing is in flight.
    pub(super) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.proposals.load(Ordering::Acquire) == 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// A refusal that has not been seen; it is when this is dropped.
struct Refusal(Arc<InFlight>);

impl Drop for Refusal {
    fn drop(&mut self) {
        self.0.refusals.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.in_flight.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        if self.in_flight.proposals.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.in_flight.emptied.notify_waiters();
        }
    }
}
