//! What this node is in a group, told to whoever evaluates; and the upkeep of the group's log.

use std::sync::{Arc, atomic::Ordering};

use heronry_storage::{NodeId, ShardId};
use openraft::{Raft, ServerState, async_runtime::watch::WatchReceiver, metrics::RaftServerMetrics};
use tokio::sync::watch;

use super::{
    Leadership, State, Term,
    lease::lock,
    machine::{Machine, Progress},
    type_config::Types,
};
use crate::{PeerId, metrics};

/// One task for each group; it sleeps while nothing changes.
pub(super) struct Role {
    shard: ShardId,
    me: PeerId,
    raft: Raft<Types, Machine>,
    state: Arc<State>,
    leadership: watch::Sender<Leadership>,
}

impl Role {
    pub(super) fn start(
        shard: ShardId,
        me: PeerId,
        raft: Raft<Types, Machine>,
        state: Arc<State>,
        progress: watch::Receiver<Progress>,
    ) -> watch::Receiver<Leadership> {
        let (leadership, watching) = watch::channel(Leadership::Follower { leader: None });
        tokio::spawn(
            Self {
                shard,
                me,
                raft,
                state,
                leadership,
            }
            .run(progress),
        );
        watching
    }

    async fn run(self, mut progress: watch::Receiver<Progress>) {
        let mut server = self.raft.server_metrics();
        let mut snapshot = self.raft.watch_snapshot_progress();
        // The log was, or is being, purged up to here; and a snapshot was asked for when entries up to here were to go.
        let (mut purged, mut asked) = (0, 0);
        loop {
            let Progress { term, purge } = *progress.borrow_and_update();
            self.publish(&server.borrow_watched(), term);
            if purge > purged && snapshot.get().is_some_and(|snapshot| snapshot.index >= purge) {
                // It fails only when the group has stopped, which the watches say too.
                let _ = self.raft.trigger().purge_log(purge).await;
                metrics::log_purged();
                purged = purge;
            } else if purge > purged.max(asked) {
                let _ = self.raft.trigger().snapshot().await;
                asked = purge;
            }
            // Each arm only waits, so all are cancel safe.
            let open = tokio::select! {
                changed = server.changed() => changed.is_ok(),
                changed = snapshot.changed() => changed.is_ok(),
                changed = progress.changed() => changed.is_ok(),
                () = self.state.changed.notified() => true,
            };
            if !open {
                break;
            }
        }
        self.set(Leadership::Closed);
    }

    /// `applied`: the term of the last applied entry.
    fn publish(&self, server: &RaftServerMetrics<Types>, applied: u64) {
        let membership = server.membership_config.membership();
        let sets = membership.get_joint_config().iter();
        let voters: Vec<Vec<NodeId>> = sets.map(|set| set.iter().copied().map(NodeId).collect()).collect();
        let node = self.me.node;
        let alone = voters == [[node]];
        *lock(&self.state.voters) = Arc::new(voters);
        self.state.alone.store(alone, Ordering::Release);
        let term = server.vote.leader_id.term;
        let leads =
            server.state == ServerState::Leader && server.vote.committed && server.vote.leader_id.voted_for == node.0;
        if leads {
            self.state.guard.heard_of(self.me, term, 0);
        }
        let released = self.state.released.load(Ordering::Acquire) == term;
        self.set(match server.current_leader {
            // A leader's first entry is of its own term, and comes after all of earlier terms.
            _ if leads && applied >= term && !released => Leadership::Leader { term: Term(term) },
            Some(leader) if leader != node.0 => Leadership::Follower {
                leader: Some(NodeId(leader)),
            },
            _ => Leadership::Follower { leader: None },
        });
    }

    fn set(&self, now: Leadership) {
        let before = *self.leadership.borrow();
        if before == now {
            return;
        }
        let leading = |leadership| {
            if let Leadership::Leader { term } = leadership {
                term.0
            } else {
                0
            }
        };
        // Before it is told: who hears of a leadership may use it, who has lost one must not.
        self.state.leading.store(leading(now), Ordering::Release);
        if leading(before) != 0 {
            metrics::leadership_lost();
        }
        if leading(now) != 0 {
            metrics::leadership_gained();
        }
        tracing::debug!(shard = %self.shard, ?before, ?now, "leadership changed");
        self.leadership.send_replace(now);
    }
}
