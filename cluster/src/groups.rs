//! All groups of this node.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    future::{join_all, try_join_all},
    stream::BoxStream,
};
use heronry_proto::group as proto;
use heronry_storage::{NodeId, ShardId, Store, StoreError};
use prost::Message;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{Mutex, oneshot, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, timeout},
};

use crate::{
    Group, Leadership, NoWire, Options, PeerId, StartError, Wire,
    blocking::{blocking, is_simulated},
    group::Peers,
    liveness::{Epoch, Liveness},
    message::{self, Request},
    metrics,
};

/// How often it is looked whether the store stalls.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long a node that is not well waits before it tries again to give away what it leads.
const GIVE_AGAIN: Duration = Duration::from_secs(5);

/// How often it is looked whether a group needs an election.
const ELECTIONS_EVERY: Duration = Duration::from_millis(50);

/// How long threads without work may take to end.
const THREADS_END: Duration = Duration::from_secs(1);

/// All groups of this node, and the threads they run on.
pub struct Groups {
    shared: Arc<Shared>,
    stalled: watch::Receiver<bool>,
    tasks: Vec<JoinHandle<()>>,
    /// `None`: the groups run on the caller's.
    runtime: Option<Runtime>,
}

/// What those who answer other nodes need of the groups.
#[derive(Clone)]
pub struct GroupsHandle(Arc<Shared>);

struct Shared {
    store: Arc<dyn Store>,
    options: Options,
    peers: Arc<Peers>,
    groups: RwLock<BTreeMap<ShardId, Group>>,
    /// Held while a group is made or removed.
    changing: Mutex<()>,
    /// Counts the changes of `groups`.
    changes: watch::Sender<u64>,
    /// Whom to ping.
    others: watch::Sender<Vec<NodeId>>,
    handle: Handle,
}

impl Groups {
    /// Starts the groups of all shards from what the store has, for a node that knows no other. A store that has nothing is founded: each group
    /// with this node as its only voter.
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
        let me = PeerId {
            node: store.node_id(),
            start: 0,
        };
        let groups = Self::open(store, options, me, Arc::new(NoWire)).await?;
        let creating = (0..configured).map(|shard| groups.create(ShardId(shard), true));
        match try_join_all(creating).await {
            Ok(_) => Ok(groups),
            Err(error) => {
                drop(groups);
                Err(error)
            }
        }
    }

    /// Starts the groups that the store has something of. `me` is this process, `wire` the way to others.
    ///
    /// # Errors
    /// When the store cannot be read or written, or holds what a group cannot start from.
    pub async fn open(
        store: Arc<dyn Store>,
        options: Options,
        me: PeerId,
        wire: Arc<dyn Wire>,
    ) -> Result<Self, StartError> {
        let present = store.present()?;
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
        let liveness = Liveness::new(me, options.lease, options.lease_margin);
        let shared = Arc::new(Shared {
            store,
            options,
            peers: Arc::new(Peers { wire, liveness }),
            groups: RwLock::default(),
            changing: Mutex::default(),
            changes: watch::Sender::new(0),
            others: watch::Sender::new(Vec::new()),
            handle: handle.clone(),
        });
        let (stalling, stalled) = watch::channel(false);
        let tasks = vec![
            handle.spawn(watch_store(Arc::clone(&shared), stalling)),
            handle.spawn(watch_groups(Arc::clone(&shared))),
            handle.spawn(ping_others(Arc::clone(&shared), Handle::current())),
        ];
        let groups = Self {
            shared,
            stalled,
            tasks,
            runtime,
        };
        let opening = present.into_iter().map(|shard| groups.create(shard, false));
        try_join_all(opening).await?;
        Ok(groups)
    }

    /// What those who answer other nodes need.
    pub fn handle(&self) -> GroupsHandle {
        GroupsHandle(Arc::clone(&self.shared))
    }

    /// The identity of this node.
    pub fn node_id(&self) -> NodeId {
        self.shared.store.node_id()
    }

    /// The group of a shard; `None`: there is no replica of it here.
    pub fn group(&self, shard: ShardId) -> Option<Group> {
        self.shared.group(shard)
    }

    /// All groups, in the order of their shards' numbers.
    pub fn list(&self) -> Vec<Group> {
        self.shared.list()
    }

    /// Counts how often a group was made here or removed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Makes this node hold a replica of a shard, when it does not: the only one (`found`), or one that waits for a leader.
    ///
    /// # Errors
    /// When the store cannot be read or written, or holds what a group cannot start from.
    pub async fn create(&self, shard: ShardId, found: bool) -> Result<Group, StartError> {
        self.shared.create(shard, found).await
    }

    /// Takes the replica of a shard from this node, and everything it had. The group must have been told before.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn remove(&self, shard: ShardId) -> Result<(), StoreError> {
        self.handle().remove(shard).await
    }

    /// Whether the store stalls: a write has taken longer than `stall_after`. Proposals are refused as busy until it ends, leaderships are
    /// given away, and nobody is promised anything.
    pub fn stalled(&self) -> watch::Receiver<bool> {
        self.stalled.clone()
    }

    /// Why the groups have closed by themselves, when they have: the store's failure.
    pub fn failure(&self) -> Option<StoreError> {
        self.shared.store.log_state(ShardId(0)).err()
    }

    /// Waits for proposals that are under way, stops the groups and closes the store: everything that was committed is durable
    /// when this returns. The proposals and the store are each waited for `shutdown_timeout` at most.
    ///
    /// # Errors
    /// When the store could not write what it was given last, or not in time.
    pub async fn shutdown(mut self) -> Result<(), StoreError> {
        let groups = std::mem::take(&mut *self.shared.groups.write().unwrap_or_else(PoisonError::into_inner));
        join_all(groups.into_values().map(Group::shutdown)).await;
        self.tasks.iter().for_each(JoinHandle::abort);
        let (closing, closed) = oneshot::channel();
        let (store, runtime) = (Arc::clone(&self.shared.store), self.runtime.take());
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
        if self.shared.options.threads == 0 && is_simulated() {
            close();
        // A thread of its own: on a disk that hangs it never ends, and no runtime should wait for it.
        } else if let Err(error) = std::thread::Builder::new().name("close".to_owned()).spawn(close) {
            return Err(StoreError::Io(error.to_string()));
        }
        match timeout(self.shared.options.shutdown_timeout, closed).await {
            Ok(closed) => closed.unwrap_or(Err(StoreError::Closed)),
            Err(_) => Err(StoreError::Io("it did not close in time".to_owned())),
        }
    }
}

impl Drop for Groups {
    /// Without [`shutdown`](Self::shutdown) the groups end as if the process had died.
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        // Waiting for threads is not possible where this may be dropped.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Groups({} of {})", self.list().len(), self.node_id())
    }
}

impl GroupsHandle {
    /// The group of a shard; `None`: there is no replica of it here.
    pub fn group(&self, shard: ShardId) -> Option<Group> {
        self.0.group(shard)
    }

    /// All groups, in the order of their shards' numbers.
    pub fn list(&self) -> Vec<Group> {
        self.0.list()
    }

    /// See [`Groups::create`].
    ///
    /// # Errors
    /// As there.
    pub async fn create(&self, shard: ShardId, found: bool) -> Result<Group, StartError> {
        self.0.create(shard, found).await
    }

    /// See [`Groups::remove`].
    ///
    /// # Errors
    /// As there.
    pub async fn remove(&self, shard: ShardId) -> Result<(), StoreError> {
        let _changing = self.0.changing.lock().await;
        let Some(group) = self.0.groups_mut().remove(&shard) else {
            return Ok(());
        };
        self.0.changes.send_modify(|changes| *changes += 1);
        group.shutdown().await;
        let store = Arc::clone(&self.0.store);
        let removed = blocking(move || store.remove(shard)).await;
        removed.map_err(|error| StoreError::Io(error.to_string()))?
    }

    /// Counts how often a group was made here or removed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Whom to be in touch with: the other nodes that groups of this one have replicas on.
    pub fn know(&self, others: Vec<NodeId>) {
        let others = others
            .into_iter()
            .filter(|node| *node != self.0.store.node_id())
            .collect();
        self.0.others.send_if_modified(|known| {
            let news = *known != others;
            *known = others;
            news
        });
    }

    /// Whether that node has promised something lately: it lives, its disk works, and messages reach it and come back.
    pub fn is_alive(&self, node: NodeId) -> bool {
        self.0.peers.liveness.is_alive(node)
    }

    /// Answers a request of another node that [belongs](Self::is_ours) to groups.
    ///
    /// # Errors
    /// A sentence for the asker.
    pub async fn answer(&self, from: PeerId, request: Bytes) -> Result<Bytes, String> {
        match message::decode(request) {
            Some(Request::Ping(_)) => {
                let epoch = self.0.peers.liveness.promise(from).ok_or("this node is not well")?;
                let epoch = proto::Epoch {
                    start: epoch.start,
                    number: epoch.number,
                };
                Ok(proto::Pong { epoch: Some(epoch) }.encode_to_vec().into())
            }
            Some(Request::Group(call)) => {
                let writes = matches!(call.what, Some(proto::call::What::Append(_)));
                let group = self.group_of(call.shard, writes).await?;
                self.on_our_threads(group.answer(from, call)).await
            }
            Some(Request::Have(have)) => {
                let group = self.group_of(have.shard, true).await?;
                self.on_our_threads(group.have(from, have)).await
            }
            Some(Request::Snapshot(_)) => Err("a snapshot comes with its rows".to_owned()),
            _ => Err("the request cannot be read: it may be of a later version".to_owned()),
        }
    }

    /// Takes what another node transfers: a snapshot.
    ///
    /// # Errors
    /// A sentence for the sender.
    pub async fn receive(
        &self,
        from: PeerId,
        header: Bytes,
        chunks: BoxStream<'static, Result<Bytes, String>>,
    ) -> Result<Bytes, String> {
        let Some(Request::Snapshot(snapshot)) = message::decode(header) else {
            return Err("the transfer cannot be read: it may be of a later version".to_owned());
        };
        let group = self.group_of(snapshot.shard, true).await?;
        self.on_our_threads(group.receive(from, snapshot, chunks)).await
    }

    /// The group that a call is for. A leader that writes to a node without a replica gives it one.
    async fn group_of(&self, shard: u32, writes: bool) -> Result<Group, String> {
        let shard = u16::try_from(shard).map_err(|_| format!("there is no shard {shard}"))?;
        match self.0.group(ShardId(shard)) {
            Some(group) => Ok(group),
            None if writes => self
                .0
                .create(ShardId(shard), false)
                .await
                .map_err(|error| error.to_string()),
            None => Err(format!("there is no replica of shard {shard} here")),
        }
    }

    async fn on_our_threads(
        &self,
        answer: impl Future<Output = Result<Bytes, String>> + Send + 'static,
    ) -> Result<Bytes, String> {
        let answered = self.0.handle.spawn(answer).await;
        answered.unwrap_or_else(|_| Err("this node is stopping".to_owned()))
    }
}

impl std::fmt::Debug for GroupsHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GroupsHandle")
    }
}

impl Shared {
    fn group(&self, shard: ShardId) -> Option<Group> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.get(&shard).cloned()
    }

    fn list(&self) -> Vec<Group> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.values().cloned().collect()
    }

    fn groups_mut(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<ShardId, Group>> {
        self.groups.write().unwrap_or_else(PoisonError::into_inner)
    }

    async fn create(&self, shard: ShardId, found: bool) -> Result<Group, StartError> {
        let _changing = self.changing.lock().await;
        if let Some(group) = self.group(shard) {
            return Ok(group);
        }
        let (store, peers) = (Arc::clone(&self.store), Arc::clone(&self.peers));
        let starting = Group::start(shard, store, self.options.clone(), peers, found);
        let started = self.handle.spawn(starting).await;
        let group = started.unwrap_or_else(|error| Err(StartError::Threads(std::io::Error::other(error))))?;
        self.groups_mut().insert(shard, group.clone());
        self.changes.send_modify(|changes| *changes += 1);
        Ok(group)
    }
}

/// Looks at all groups, for ever.
async fn watch_groups(shared: Arc<Shared>) {
    let mut ticks = ticks(ELECTIONS_EVERY);
    loop {
        ticks.tick().await;
        shared.list().iter().for_each(Group::look);
    }
}

/// Pings all others, for ever. That it is time is told by the threads of the groups: should they hang, this node pings nobody, and loses
/// what it leads. What follows is the links' work, and done on their threads.
async fn ping_others(shared: Arc<Shared>, links: Handle) {
    let mut ticks = ticks(shared.options.ping_interval);
    let mut others = shared.others.subscribe();
    let request = message::encode(Request::Ping(proto::Ping {}));
    loop {
        ticks.tick().await;
        let others = others.borrow_and_update().clone();
        if others.is_empty() {
            continue;
        }
        // Not all that is shared: what waits for an answer must not hold the store.
        let (peers, lease, request) = (Arc::clone(&shared.peers), shared.options.lease, request.clone());
        links.spawn(async move {
            join_all(
                others
                    .into_iter()
                    .map(|other| ping(&peers, other, request.clone(), lease)),
            )
            .await;
        });
    }
}

/// Asks that node for a promise.
async fn ping(peers: &Peers, other: NodeId, request: Bytes, lease: Duration) {
    let sent = Instant::now();
    let answer = peers.wire.call(other, request, lease).await;
    let pong = answer.ok().and_then(|answer| proto::Pong::decode(answer).ok());
    if let Some(proto::Epoch { start, number }) = pong.and_then(|pong| pong.epoch) {
        peers.liveness.promised(other, Epoch { start, number }, sent);
    }
}

async fn watch_store(shared: Arc<Shared>, stalled: watch::Sender<bool>) {
    let mut ticks = ticks(LOOK_EVERY);
    let (mut full, mut unwell, mut given) = (false, false, None::<Instant>);
    loop {
        ticks.tick().await;
        let health = shared.store.health();
        let stalls = health.stalled >= shared.options.stall_after;
        let changed = stalled.send_if_modified(|before| std::mem::replace(before, stalls) != stalls);
        if changed && stalls {
            metrics::stalled();
            tracing::warn!(stalled = ?health.stalled, queued_bytes = health.queued_bytes, "the store stalls");
        } else if changed {
            tracing::info!("the store no longer stalls");
        }
        if std::mem::replace(&mut full, health.full) != health.full {
            if full {
                tracing::warn!("the disk is almost full: this node leads and accepts nothing until it has room");
            } else {
                tracing::info!("the disk has room again");
            }
        }
        let is_unwell = stalls || full;
        if std::mem::replace(&mut unwell, is_unwell) != is_unwell {
            shared.peers.liveness.silence(unwell);
            given = None;
        }
        // Again, for whoever could take them may have been dead.
        if unwell && given.is_none_or(|given| given + GIVE_AGAIN <= Instant::now()) {
            given = Some(Instant::now());
            give_leaderships_away(&shared);
        }
    }
}

/// Hands every leadership to a voter that is alive.
fn give_leaderships_away(shared: &Shared) {
    for group in shared.list() {
        if !matches!(*group.leadership().borrow(), Leadership::Leader { .. }) {
            continue;
        }
        let membership = group.membership();
        let voters = membership.voters.iter().flatten().copied();
        let alive = |node: &NodeId| *node != shared.store.node_id() && shared.peers.liveness.is_alive(*node);
        // The one that lacks least.
        let heir = voters
            .filter(alive)
            .min_by_key(|node| group.lag_of(*node).unwrap_or(u64::MAX));
        if let Some(heir) = heir {
            group.hand_over(heir);
        }
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
