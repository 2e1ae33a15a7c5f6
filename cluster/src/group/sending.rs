//! A snapshot on its way to other replicas: kept for a while after a transfer has broken, so that the next one goes on, and the log behind it with
//! it, so that a replica that has it need not be sent another one at once.

use std::{sync::Arc, time::Duration};

use heronry_storage::{ShardId, SnapshotId, SnapshotView, Store, StoreError};

use super::{State, convert::Applied, lease::lock, type_config::LogId};
use crate::PeerId;

/// How long it is kept after it was last sent.
const KEPT: Duration = Duration::from_secs(60);

/// A snapshot that is being sent, or may be gone on with.
#[derive(Clone)]
pub(super) struct Sending {
    pub(super) id: SnapshotId,
    pub(super) view: Arc<dyn SnapshotView>,
    /// Up to where its rows are applied.
    position: Option<LogId>,
}

/// What a group knows of it.
#[derive(Default)]
pub(super) struct Kept {
    sending: Option<Sending>,
    /// Transfers under way.
    users: usize,
    /// Counts ends of transfers.
    ended: u64,
    /// Counts snapshots.
    begun: u16,
}

impl State {
    /// A snapshot that reaches up to `at_least`: the one that is kept, or one of now. Blocks while that is made.
    pub(super) fn begin_sending(
        self: &Arc<Self>,
        me: PeerId,
        store: &dyn Store,
        shard: ShardId,
        at_least: Option<LogId>,
    ) -> Result<(Sending, Using), StoreError> {
        let mut kept = lock(&self.kept);
        let fits = |sending: &&Sending| sending.position >= at_least;
        let sending = match kept.sending.as_ref().filter(fits) {
            Some(sending) => sending.clone(),
            None => {
                let view = store.view(shard)?;
                let position = Applied::from_bytes(view.applied())?.log_id;
                kept.begun = kept.begun.wrapping_add(1);
                let id = name(me, kept.begun);
                Sending { id, view, position }
            }
        };
        kept.sending = Some(sending.clone());
        kept.users += 1;
        Ok((sending, Using(Arc::clone(self))))
    }

    /// Whether the log should stay as it is for the sake of a snapshot.
    pub(super) fn holds_log(&self) -> bool {
        lock(&self.kept).sending.is_some()
    }
}

/// The name of a group's snapshot: no other of this node has it. A process's start is in microseconds, and never twice the same.
fn name(me: PeerId, number: u16) -> SnapshotId {
    let of_node = (u128::from(me.start) << 16 | u128::from(number)) & u128::from(u64::MAX);
    SnapshotId(u128::from(me.node.0) << 64 | of_node)
}

/// Says when a transfer has ended, however it does.
pub(super) struct Using(Arc<State>);

impl Drop for Using {
    fn drop(&mut self) {
        let ended = {
            let mut kept = lock(&self.0.kept);
            kept.users -= 1;
            kept.ended += 1;
            kept.ended
        };
        let state = Arc::downgrade(&self.0);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            tokio::time::sleep(KEPT).await;
            if let Some(state) = state.upgrade() {
                let mut kept = lock(&state.kept);
                if kept.users == 0 && kept.ended == ended {
                    kept.sending = None;
                }
            }
        });
    }
}
