//! Several nodes in one process, in virtual time, on disks that forget what was not synced, with a network that does as it is told.

mod replicated;
mod storm;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream::BoxStream};
use heronry_cluster::{
    Batch, Group, Groups, GroupsHandle, Leadership, MemoryStore, NodeId, Options, PeerId, Rows, ShardId, Term,
    Timestamp, Wire, WireError, Write,
};
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take, in virtual time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The nodes and what is between them. Clones are handles.
#[derive(Clone)]
pub(crate) struct Town(Arc<Mutex<Streets>>);

#[derive(Default)]
struct Streets {
    nodes: BTreeMap<NodeId, Node>,
    /// What is sent from the first to the second does not arrive.
    cut: BTreeSet<(NodeId, NodeId)>,
    delay: Duration,
    /// Of a thousand messages so many are lost.
    loss: u32,
    random: Option<fastrand::Rng>,
    starts: u64,
    /// Bytes of snapshots that were sent.
    carried: usize,
    /// A transfer breaks when so many bytes of it have been sent.
    carries_max: Option<usize>,
    /// A bit of the next chunk of that many that are sent is turned over.
    garbles: Option<usize>,
}

struct Node {
    store: MemoryStore,
    /// `None`: it is dead.
    groups: Option<Groups>,
    start: u64,
}

pub(crate) fn id(node: u64) -> NodeId {
    NodeId(node)
}

pub(crate) fn options() -> Options {
    Options {
        threads: 0,
        ..Options::default()
    }
}

impl Town {
    /// Nodes 1 to `nodes`, which know each other and hold nothing.
    pub(crate) async fn new(nodes: u64) -> Self {
        let town = Self(Arc::default());
        town.streets().delay = Duration::from_millis(1);
        for node in 1..=nodes {
            let store = MemoryStore::new(id(node));
            town.start_on(id(node), store).await;
        }
        town
    }

    pub(crate) fn streets_are_bad(&self, random: fastrand::Rng, loss: u32) {
        let mut streets = self.streets();
        streets.random = Some(random);
        streets.loss = loss;
    }

    fn streets(&self) -> MutexGuard<'_, Streets> {
        self.0.lock().unwrap()
    }

    async fn start_on(&self, node: NodeId, store: MemoryStore) {
        let start = {
            let mut streets = self.streets();
            streets.starts += 1;
            streets.starts
        };
        let (me, wire) = (
            PeerId { node, start },
            Road {
                town: self.clone(),
                from: PeerId { node, start },
            },
        );
        let groups = Groups::open(Arc::new(store.clone()), options(), me, Arc::new(wire))
            .await
            .unwrap();
        let groups = Some(groups);
        self.streets().nodes.insert(node, Node { store, groups, start });
        self.everybody_knows_everybody();
    }

    fn everybody_knows_everybody(&self) {
        let streets = self.streets();
        let all: Vec<_> = streets.nodes.keys().copied().collect();
        for groups in streets.nodes.values().filter_map(|node| node.groups.as_ref()) {
            groups.handle().know(all.clone());
        }
    }

    /// The process dies, and what its disk had not synced is gone.
    pub(crate) fn kill(&self, node: u64) {
        let mut streets = self.streets();
        let node = streets.nodes.get_mut(&id(node)).unwrap();
        drop(node.groups.take());
        node.store = node.store.crash();
    }

    /// Starts a dead node again, on its disk.
    pub(crate) async fn revive(&self, node: u64) {
        let store = self.streets().nodes[&id(node)].store.clone();
        self.start_on(id(node), store).await;
    }

    pub(crate) fn is_alive(&self, node: u64) -> bool {
        self.streets().nodes[&id(node)].groups.is_some()
    }

    pub(crate) fn store(&self, node: u64) -> MemoryStore {
        self.streets().nodes[&id(node)].store.clone()
    }

    pub(crate) fn cut(&self, from: u64, to: u64) {
        self.streets().cut.insert((id(from), id(to)));
    }

    /// Nobody reaches the node, and it reaches nobody.
    pub(crate) fn isolate(&self, node: u64) {
        let all: Vec<_> = self.streets().nodes.keys().map(|node| node.0).collect();
        for other in all.into_iter().filter(|other| *other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    /// From now on transfers break when so many bytes of one have been sent; `None`: they do not.
    pub(crate) fn carry_at_most(&self, bytes: Option<usize>) {
        self.streets().carries_max = bytes;
    }

    /// The chunk after that many more is damaged.
    pub(crate) fn garble_after(&self, chunks: usize) {
        self.streets().garbles = Some(chunks);
    }

    /// Bytes of snapshots that were sent since this was asked last.
    pub(crate) fn carried(&self) -> usize {
        std::mem::take(&mut self.streets().carried)
    }

    /// A chunk as it arrives, if it does.
    fn carry(&self, mut chunk: Bytes, sent: &mut usize) -> Result<Bytes, String> {
        let mut streets = self.streets();
        streets.carried += chunk.len();
        *sent += chunk.len();
        if streets.carries_max.is_some_and(|max| *sent > max) {
            return Err("the road has ended".to_owned());
        }
        match streets.garbles {
            Some(0) => {
                streets.garbles = None;
                let mut garbled = chunk.to_vec();
                let middle = garbled.len() / 2;
                garbled[middle] ^= 1;
                chunk = garbled.into();
            }
            Some(more) => streets.garbles = Some(more - 1),
            None => {}
        }
        Ok(chunk)
    }

    pub(crate) fn heal(&self) {
        self.streets().cut.clear();
    }

    pub(crate) fn groups(&self, node: u64) -> Option<GroupsHandle> {
        self.streets().nodes[&id(node)].groups.as_ref().map(Groups::handle)
    }

    pub(crate) fn group(&self, node: u64, shard: ShardId) -> Option<Group> {
        self.groups(node)?.group(shard)
    }

    /// Makes these nodes the voters of a shard, which is founded on the first of them.
    pub(crate) async fn found(&self, shard: ShardId, voters: &[u64]) {
        let group = self.groups(voters[0]).unwrap().create(shard, true).await.unwrap();
        leads(&group).await;
        for node in &voters[1..] {
            group.add_learner(id(*node)).await.unwrap();
        }
        group
            .change_voters(&voters.iter().copied().map(id).collect())
            .await
            .unwrap();
        self.leader(shard).await;
    }

    /// The node that leads a shard and has its lease, once there is one.
    pub(crate) async fn leader(&self, shard: ShardId) -> (u64, Group, Term) {
        let begun = Instant::now();
        loop {
            if let Some(found) = self.leaders(shard).into_iter().next() {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "shard {shard} has no leader");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// All that lead a shard and have the lease: never two.
    pub(crate) fn leaders(&self, shard: ShardId) -> Vec<(u64, Group, Term)> {
        let streets = self.streets();
        let groups = streets
            .nodes
            .iter()
            .filter_map(|(node, it)| Some((node.0, it.groups.as_ref()?.group(shard)?)));
        groups
            .filter_map(|(node, group)| match *group.leadership().borrow() {
                Leadership::Leader { term } if group.has_lease(term) => Some((node, group.clone(), term)),
                _ => None,
            })
            .collect()
    }

    fn road(&self, from: PeerId, to: NodeId) -> Option<(GroupsHandle, Duration)> {
        let mut streets = self.streets();
        let streets = &mut *streets;
        // A process that has died sends nothing any more.
        let sender = streets.nodes.get(&from.node);
        let lives = sender.is_some_and(|node| node.start == from.start && node.groups.is_some());
        let lost = streets
            .random
            .as_mut()
            .is_some_and(|random| random.u32(0..1000) < streets.loss);
        let extra = streets.random.as_mut().map_or(0, |random| random.u64(0..5));
        if !lives || lost || streets.cut.contains(&(from.node, to)) {
            return None;
        }
        let groups = streets.nodes.get(&to)?.groups.as_ref()?.handle();
        Some((groups, streets.delay + Duration::from_millis(extra)))
    }

    fn peer(&self, node: NodeId) -> PeerId {
        let start = self.streets().nodes[&node].start;
        PeerId { node, start }
    }
}

/// The way from one process to others.
struct Road {
    town: Town,
    from: PeerId,
}

fn lost() -> WireError {
    WireError("it does not answer".to_owned())
}

impl Wire for Road {
    fn call(&self, to: NodeId, request: Bytes, limit: Duration) -> BoxFuture<'static, Result<Bytes, WireError>> {
        let (town, from) = (self.town.clone(), self.from);
        Box::pin(async move {
            let answering = async {
                let Some((groups, delay)) = town.road(from, to) else {
                    return futures::future::pending().await;
                };
                sleep(delay).await;
                let there = town.peer(to);
                let answer = groups.answer(from, request).await;
                let Some((_, delay)) = town.road(there, from.node) else {
                    return futures::future::pending().await;
                };
                sleep(delay).await;
                answer
            };
            timeout(limit, answering).await.map_err(|_| lost())?.map_err(WireError)
        })
    }

    fn transfer(
        &self,
        to: NodeId,
        header: Bytes,
        chunks: BoxStream<'static, Bytes>,
    ) -> BoxFuture<'static, Result<Bytes, WireError>> {
        let (town, from) = (self.town.clone(), self.from);
        Box::pin(async move {
            let (groups, _) = town.road(from, to).ok_or_else(lost)?;
            let (way, mut sent) = (town.clone(), 0);
            let chunks = chunks.map(move |chunk| way.carry(chunk, &mut sent));
            groups.receive(from, header, chunks.boxed()).await.map_err(WireError)
        })
    }
}

/// The term in which this node leads, once it does.
pub(crate) async fn leads(group: &Group) -> Term {
    let mut leadership = group.leadership();
    let leading = leadership.wait_for(|now| matches!(now, Leadership::Leader { .. }));
    match *timeout(PATIENCE, leading).await.unwrap().unwrap() {
        Leadership::Leader { term } => term,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn key(name: &str) -> Bytes {
    [&1u16.to_be_bytes(), name.as_bytes()].concat().into()
}

pub(crate) fn put(name: &str, value: u64) -> Batch {
    Batch {
        at: Timestamp(value),
        writes: vec![Write::Put(key(name), value.to_string().into())],
    }
}

pub(crate) fn read(group: &Group, name: &str) -> Option<u64> {
    try_read(group, name).unwrap()
}

/// `None`: the store is dead.
pub(crate) fn try_read(group: &Group, name: &str) -> Option<Option<u64>> {
    let row = group.rows().row(&key(name)).ok()?;
    Some(row.map(|row| String::from_utf8(row.to_vec()).unwrap().parse().unwrap()))
}

/// Returns once the condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
