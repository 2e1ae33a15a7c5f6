//! Applying committed entries to a shard's rows.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use futures::{Stream, StreamExt};
use heronry_storage::{Batch, ShardId, Staging, Store, StoreError};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
};
use tokio::sync::watch;

use super::{
    State,
    convert::{Applied, io_error},
    decode,
    log::Log,
    type_config::{LogId, Snapshot, SnapshotMeta, StoredMembership, Types},
};
use crate::{blocking, metrics};

/// What is applied in one write to the store, bytes of encoded entries.
const APPLY_BYTES: usize = 1 << 20;

/// A shard's rows, as openraft sees them.
pub(super) struct Machine {
    shard: ShardId,
    store: Arc<dyn Store>,
    log: Log,
    state: Arc<State>,
    applied: Applied,
    /// The position the current snapshot was built or installed for. Its rows are the shard's rows.
    snapshot: Option<Applied>,
    progress: watch::Sender<Progress>,
}

/// What the machine tells about entries it has applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The term of the last applied entry.
    pub(super) term: u64,
    /// The log should be purged up to here.
    pub(super) purge: u64,
}

/// The rows of a shard on their way to, or from, another replica.
pub(super) enum SnapshotData {
    /// They are read when they are wanted.
    Out(Arc<dyn Store>),
    /// They have come.
    In(Box<dyn Staging>),
}

impl Machine {
    pub(super) fn open(
        shard: ShardId,
        store: Arc<dyn Store>,
        log: Log,
        state: Arc<State>,
    ) -> Result<(Self, watch::Receiver<Progress>), StoreError> {
        let applied = store
            .applied(shard)?
            .map_or_else(|| Ok(Applied::default()), Applied::from_bytes)?;
        let (progress, watching) = watch::channel(Progress::default());
        let snapshot = applied.log_id.is_some().then(|| applied.clone());
        let machine = Self {
            shard,
            store,
            log,
            state,
            applied,
            snapshot,
            progress,
        };
        machine.publish();
        Ok((machine, watching))
    }

    /// Applies entries with one write, then answers for them.
    fn apply_entries(&mut self, pending: &mut Pending) -> Result<(), StoreError> {
        if let Some(log_id) = pending.last.take() {
            self.applied.log_id = Some(log_id);
            if let Some(membership) = pending.membership.take() {
                self.applied.membership = membership;
            }
            self.applied.at = pending
                .batches
                .iter()
                .map(|batch| batch.at.0)
                .fold(self.applied.at, u64::max);
            self.store
                .apply(self.shard, &pending.batches, self.applied.to_bytes())?;
            self.publish();
            self.log.applied(log_id.index);
        }
        pending.batches.clear();
        pending.bytes = 0;
        for (responder, applied) in pending.responders.drain(..) {
            responder.send(applied);
        }
        Ok(())
    }

    fn publish(&self) {
        self.state.at.store(self.applied.at, Ordering::Release);
        let Some(log_id) = self.applied.log_id else { return };
        self.state.applied.store(log_id.index, Ordering::Release);
        let (term, purge) = (*log_id.leader_id, self.log.to_purge(self.state.holds_log()));
        self.progress.send_if_modified(|progress| {
            let now = Progress {
                term,
                purge: purge.map_or(progress.purge, |purge| purge.min(log_id.index)),
            };
            std::mem::replace(progress, now) != now
        });
    }
}

/// Entries that are being collected for one write.
#[derive(Default)]
struct Pending {
    batches: Vec<Batch>,
    bytes: usize,
    last: Option<LogId>,
    membership: Option<StoredMembership>,
    /// Who waits, and whether its entry was applied.
    responders: Vec<(ApplyResponder<Types>, bool)>,
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied.log_id, self.applied.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut pending = Pending::default();
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            // An installed snapshot may be ahead of where it was asked for; what it contains is not applied again.
            if Some(entry.log_id) <= self.applied.log_id {
                pending.responders.extend(responder.map(|responder| (responder, true)));
                continue;
            }
            pending.last = Some(entry.log_id);
            let mut fits = true;
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(normal) => {
                    pending.bytes += normal.0.len();
                    let (batches, link) = decode(normal.0).map_err(|_| {
                        io_error(StoreError::Corrupt("a log entry's batches cannot be read".to_owned()))
                    })?;
                    fits = self.applied.chain.goes_on(*entry.log_id.leader_id, link);
                    if fits {
                        pending.batches.extend(batches);
                    } else {
                        metrics::entry_passed_over();
                    }
                }
                EntryPayload::Membership(membership) => {
                    pending.membership = Some(StoredMembership::new(Some(entry.log_id), membership));
                }
            }
            pending.responders.extend(responder.map(|responder| (responder, fits)));
            if pending.bytes >= APPLY_BYTES {
                self.apply_entries(&mut pending).map_err(io_error)?;
            }
        }
        self.apply_entries(&mut pending).map_err(io_error)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        // Building reads nothing: the rows are on disk. So the position may be noted here.
        self.snapshot = Some(self.applied.clone());
        Builder(self.applied.clone(), Arc::clone(&self.store))
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> Result<(), io::Error> {
        let (store, shard) = (Arc::clone(&self.store), self.shard);
        let install = move || match snapshot {
            SnapshotData::In(staging) => staging.install(),
            SnapshotData::Out(from) => store.import(shard, from.export(shard)?),
        };
        let installed = blocking(install).await;
        let applied = installed
            .map_err(io::Error::other)?
            .and_then(Applied::from_bytes)
            .map_err(io_error)?;
        if applied.log_id < meta.last_log_id {
            let text = "a snapshot is older than it was said to be".to_owned();
            return Err(io_error(StoreError::Corrupt(text)));
        }
        self.applied = applied;
        self.snapshot = Some(self.applied.clone());
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let snapshot = self.snapshot.clone();
        Ok(snapshot.map(|applied| Builder(applied, Arc::clone(&self.store)).snapshot()))
    }
}

/// Makes a snapshot: a position, and the promise to read the rows when they are asked for. They are then of that position or a
/// later one, and say so themselves.
pub(super) struct Builder(Applied, Arc<dyn Store>);

impl Builder {
    fn snapshot(&self) -> Snapshot {
        Snapshot {
            meta: SnapshotMeta {
                last_log_id: self.0.log_id,
                last_membership: self.0.membership.clone(),
            },
            snapshot: SnapshotData::Out(Arc::clone(&self.1)),
        }
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        Ok(self.snapshot())
    }
}
