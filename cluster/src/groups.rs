//! All groups of this node.

use std::{sync::Arc, time::Duration};

use futures::future::{join_all, try_join_all};
use heronry_storage::{NodeId, ShardId, Store, StoreError};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::{Group, Options, StartError, metrics};

/// How often it is looked whether the store stalls.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long threads without work may take to end.
const THREADS_END: Duration = Duration::from_secs(1);

/// All groups of this node, and the threads they run on.
pub struct Groups {
    store: Arc<dyn Store>,
    groups: Vec<Group>,
    stalled: watch::Receiver<bool>,
    watchdog: JoinHandle<()>,
    shutdown_timeout: Duration,
    /// `None`: the groups run on the caller's.
    runtime: Option<Runtime>,
}

impl Groups {
    /// Starts the groups of all shards from what the store has. A store that has nothing is founded: each group with this node
    /// as its only voter.
    ///
    /// Leaderships follow; see [`Group::leadership`].
    ///
    /// # Errors
    /// When the store cannot be read or written, or holds what a group cannot start from.
    pub async fn start(store: Arc<dyn Store>, options: Options) -> Result<Self, StartError> {
        let (found, configured) = (store.shards(options.shards)?, options.shards);
        if found != configured {
            return Err(StartError::Shards { found, configured });
        }
        let runtime = match options.threads {
            0 => None,
            threads => Some(
                Builder::new_multi_thread()
                    .worker_threads(threads)
                    .thread_name("raft")
                    .enable_all()
                    .build()?,
            ),
        };
        let handle = runtime
            .as_ref()
            .map_or_else(Handle::current, |runtime| runtime.handle().clone());
        let starting = (0..options.shards).map(|shard| {
            let group = Group::start(ShardId(shard), Arc::clone(&store), options.clone());
            let started = handle.spawn(group);
            async move {
                started
                    .await
                    .unwrap_or_else(|error| Err(StartError::Threads(std::io::Error::other(error))))
            }
        });
        let started = try_join_all(starting).await;
        let groups = match started {
            Ok(groups) => groups,
            Err(error) => {
                runtime.into_iter().for_each(Runtime::shutdown_background);
                return Err(error);
            }
        };
        let shutdown_timeout = options.shutdown_timeout;
        let (stalling, stalled) = watch::channel(false);
        let watchdog = handle.spawn(watch_store(Arc::clone(&store), options.stall_after, stalling));
        Ok(Self {
            store,
            groups,
            stalled,
            watchdog,
            shutdown_timeout,
            runtime,
        })
    }

    /// The identity of this node.
    pub fn node_id(&self) -> NodeId {
        self.store.node_id()
    }

    /// The group of a shard.
    ///
    /// # Panics
    /// When there is no such shard: shards are numbered from 0 to `options.shards`.
    pub fn group(&self, shard: ShardId) -> Group {
        self.groups[usize::from(shard.0)].clone()
    }

    /// The groups of all shards, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter()
    }

    /// Whether the store stalls: a write has taken longer than `stall_after`. Proposals are refused as busy until it ends; with
    /// several voters, leaderships are given away.
    pub fn stalled(&self) -> watch::Receiver<bool> {
        self.stalled.clone()
    }

    /// Why the groups have closed by themselves, when they have: the store's failure.
    pub fn failure(&self) -> Option<StoreError> {
        self.store.log_state(ShardId(0)).err()
    }

    /// Waits for proposals that are under way, stops the groups and closes the store: everything that was committed is durable
    /// when this returns. The proposals and the store are each waited for `shutdown_timeout` at most.
    ///
    /// # Errors
    /// When the store could not write what it was given last, or not in time.
    pub async fn shutdown(mut self) -> Result<(), StoreError> {
        join_all(self.groups.drain(..).map(Group::shutdown)).await;
        self.watchdog.abort();
        let (closing, closed) = oneshot::channel();
        let (store, runtime) = (Arc::clone(&self.store), self.runtime.take());
        let close = move || {
            let result = store.close();
            drop(store);
            // So that nothing of ours holds the store when this is done.
            runtime
                .into_iter()
                .for_each(|runtime| runtime.shutdown_timeout(THREADS_END));
            // Whoever waited may have given up.
            let _ = closing.send(result);
        };
        // A thread of its own: on a disk that hangs it never ends, and no runtime should wait for it.
        if let Err(error) = std::thread::Builder::new().name("close".to_owned()).spawn(close) {
            return Err(StoreError::Io(error.to_string()));
        }
        match timeout(self.shutdown_timeout, closed).await {
            Ok(closed) => closed.unwrap_or(Err(StoreError::Closed)),
            Err(_) => Err(StoreError::Io("it did not close in time".to_owned())),
        }
    }
}

impl Drop for Groups {
    /// Without [`shutdown`](Self::shutdown) the groups end as if the process had died.
    fn drop(&mut self) {
        self.watchdog.abort();
        // Waiting for threads is not possible where this may be dropped.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Groups({} of {})", self.groups.len(), self.store.node_id())
    }
}

async fn watch_store(store: Arc<dyn Store>, stall_after: Duration, stalled: watch::Sender<bool>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let health = store.health();
        let stalls = health.stalled >= stall_after;
        let changed = stalled.send_if_modified(|before| std::mem::replace(before, stalls) != stalls);
        if changed && stalls {
            metrics::stalled();
            tracing::warn!(stalled = ?health.stalled, queued_bytes = health.queued_bytes, "the store stalls");
        } else if changed {
            tracing::info!("the store no longer stalls");
        }
    }
}
