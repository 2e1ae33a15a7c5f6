//! This node as a member of its cluster: what holds groups, links and the map together.
//!
//! | file | |
//! |---|---|
//! | `joining.rs` | how it comes in: [`crate::joining`]'s state machine, with a disk and a network |
//! | `map.rs` | the newest map: kept, read from the metadata group's rows, told to others |
//! | `command.rs` | changes of the map, by whoever leads the metadata group |
//! | `answer.rs` | what others ask |
//! | `introduction.rs` | what has changed about this member since the map was told |
//! | `control.rs` | where the metadata group is led: [`crate::controller`]'s decisions, carried out |
//! | `change.rs` | who holds replicas of a group, and what is known of groups here and elsewhere |

mod answer;
mod change;
mod command;
mod control;
mod introduction;
mod joining;
mod map;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak, atomic::AtomicU64},
    time::Duration,
};

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use heronry_storage::{NodeId, Store, StoreError};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::JoinHandle,
};

pub use self::{
    change::{Change, GroupReport, Report},
    control::{OperatorError, Overview},
};
use crate::{
    ClusterId, Groups, GroupsHandle, Options, PeerId, Wire, WireError,
    joining::JoinOptions,
    map::{ClusterMap, Newcomer, Refused},
    message::{self, Request},
    transport::{Identity, Net, Security, Transport, TransportError, TransportLimits},
};

/// Questions of processes that are no members which wait for an answer. Full: refused. Transport bounds them too.
const ASKS_MAX: usize = 64;

/// What a node is told and asked by others, beside what groups say: by edges and shards, and for operators.
pub trait Neighbours: Send + Sync + 'static {
    /// A message; in order from each process. Must not block.
    fn message(&self, from: PeerId, message: Bytes);

    /// A question ([`Member::ask`]). An error is a sentence for whoever asked. The future is dropped when nobody waits for it any more, and
    /// how many there are at a time is bounded by [`TransportLimits::calls_in_flight_max`] for each node.
    fn call(&self, from: PeerId, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>>;

    /// What another node [transfers](Member::transfer), and the answer to it. Chunks that are not taken hold up the sender; an error among
    /// them is that it has broken off.
    fn transfer(
        &self,
        from: PeerId,
        header: Bytes,
        chunks: BoxStream<'static, Result<Bytes, String>>,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let _ = (from, header, chunks);
        Box::pin(async { Err("nothing is expected".to_owned()) })
    }

    /// Messages can be sent to that process. `again`: this was so before, and what was under way then may be lost.
    fn up(&self, peer: PeerId, again: bool);

    /// The link with that process has broken.
    fn down(&self, peer: PeerId);
}

/// What a member is, and how it comes in.
#[derive(Clone, Debug)]
pub struct MemberOptions {
    /// This node, as others shall see it.
    pub me: Newcomer,
    /// What operators call the cluster.
    pub cluster_name: String,
    /// Addresses to ask to be let in; none: a cluster is founded here, if this node belongs to none.
    pub seeds: Vec<String>,
    /// How many nodes found a cluster together.
    pub bootstrap: Option<u16>,
    /// Where other nodes connect.
    pub listen: Option<SocketAddr>,
    /// How links are protected.
    pub security: Security,
    /// How groups behave.
    pub groups: Options,
    /// Bounds on links.
    pub transport: TransportLimits,
}

/// What is drawn for each start of a process.
#[derive(Clone, Copy, Debug)]
pub struct Drawn {
    /// Names the process: greater than that of any earlier one of this node.
    pub start: u64,
    /// Names the cluster, if one is founded here: at random.
    pub cluster: u128,
}

/// A node could not be started as a member.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The groups.
    #[error(transparent)]
    Groups(#[from] crate::StartError),
    /// The links.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The store, or what it says of the cluster.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The options are no way to come into a cluster.
    #[error(transparent)]
    Join(#[from] crate::joining::JoinError),
}

/// The map was not changed, or it is not known that it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It may not be.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It cannot be at present: a sentence. It may be done all the same.
    #[error("{0}")]
    Unavailable(String),
    /// Another member has refused it: a sentence.
    #[error("{0}")]
    Elsewhere(String),
}

/// This node's part in its cluster. Clones are handles.
#[derive(Clone)]
pub struct Member(Arc<Process>);

/// What ends with the last handle.
struct Process {
    inner: Arc<Inner>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl std::ops::Deref for Process {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl Drop for Process {
    /// Without a shutdown it ends as if the process had died.
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().for_each(JoinHandle::abort);
        drop(self.inner.owned.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let (Some(transport), Ok(runtime)) = (self.inner.transport.get().cloned(), Handle::try_current()) {
            runtime.spawn(async move { transport.shutdown().await });
        }
    }
}

/// A handle of a [`Member`] that does not keep it running.
#[derive(Clone)]
pub struct WeakMember(Weak<Process>);

impl WeakMember {
    /// The member, if it still runs.
    pub fn upgrade(&self) -> Option<Member> {
        self.0.upgrade().map(Member)
    }
}

struct Inner {
    id: PeerId,
    options: MemberOptions,
    store: Arc<dyn Store>,
    neighbours: Arc<dyn Neighbours>,
    groups: GroupsHandle,
    /// `None` once it has been shut down.
    owned: Mutex<Option<Groups>>,
    transport: OnceLock<Transport>,
    cluster: watch::Sender<Option<ClusterId>>,
    map: watch::Sender<Option<Arc<ClusterMap>>>,
    /// What this node waits for, while it is no member.
    waits_for: watch::Sender<String>,
    asks: mpsc::Sender<joining::Event>,
    /// Commands are evaluated one after the other: each upon what the one before has made.
    /// Connections of devices.
    streams: AtomicU64,
    commanding: tokio::sync::Mutex<command::Rounds>,
}

impl Member {
    /// Starts groups and links from what the store has. The node comes into its cluster, if it is in none, afterwards: see [`map`](Self::map).
    /// Tasks run on the runtime of the caller.
    ///
    /// # Errors
    /// When the store cannot be used, the address cannot be listened at, or the options contradict each other or what is stored.
    pub async fn start<N: Net>(
        net: N,
        store: Arc<dyn Store>,
        drawn: Drawn,
        options: MemberOptions,
        neighbours: Arc<dyn Neighbours>,
    ) -> Result<Self, MemberError> {
        let node = store.node_id();
        let id = PeerId {
            node,
            start: drawn.start,
        };
        let standing = joining::standing(&*store)?;
        let has_data = !store.present()?.is_empty();
        let way = Arc::new(Way::default());
        let groups = Groups::open(Arc::clone(&store), options.groups.clone(), id, Arc::clone(&way) as _).await?;
        let identity = Identity {
            id,
            cluster_name: options.cluster_name.clone(),
            version: options.me.version.clone(),
            feature_level: options.me.feature_level,
        };
        let join = JoinOptions {
            me: options.me.clone(),
            cluster_name: options.cluster_name.clone(),
            seeds: options.seeds.clone(),
            bootstrap: options.bootstrap,
            shards: options.groups.shards,
            has_data,
        };
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let machine = joining::machine(join, standing, drawn)?;
        let (cluster, known) = watch::channel(None);
        let (net_of_transport, listen) = (net, options.listen);
        let (security, limits) = (options.security.clone(), options.transport.clone());
        let inner = Arc::new(Inner {
            id,
            options,
            store,
            neighbours,
            groups: groups.handle(),
            owned: Mutex::new(Some(groups)),
            transport: OnceLock::new(),
            cluster,
            map: watch::Sender::new(None),
            waits_for: watch::Sender::new(String::new()),
            asks,
            streams: AtomicU64::new(0),
            commanding: tokio::sync::Mutex::default(),
        });
        // Whoever calls before both are there is told that nobody is reached yet.
        let _ = way.0.set(Arc::downgrade(&inner));
        let handler = Arc::new(answer::Answers(Arc::downgrade(&inner)));
        let transport = Transport::start(net_of_transport, listen, identity, security, known, limits, handler).await?;
        let _ = inner.transport.set(transport);
        let tasks = vec![
            tokio::spawn(joining::run(Arc::clone(&inner), machine, asked)),
            tokio::spawn(map::follow(Arc::clone(&inner))),
            tokio::spawn(map::run(Arc::clone(&inner))),
            tokio::spawn(control::run(Arc::clone(&inner))),
            tokio::spawn(introduction::run(Arc::clone(&inner))),
        ];
        let tasks = Mutex::new(tasks);
        Ok(Self(Arc::new(Process { inner, tasks })))
    }

    /// This process.
    pub fn id(&self) -> PeerId {
        self.0.id
    }

    /// Where it listens for other nodes.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.0.transport.get().and_then(Transport::local_address)
    }

    /// The newest map that this node has heard of; `None` while it belongs to no cluster.
    pub fn map(&self) -> watch::Receiver<Option<Arc<ClusterMap>>> {
        self.0.map.subscribe()
    }

    /// What it waits for while it belongs to no cluster, in a sentence.
    pub fn waits_for(&self) -> String {
        self.0.waits_for.borrow().clone()
    }

    /// The groups on this node.
    pub fn groups(&self) -> GroupsHandle {
        self.0.groups.clone()
    }

    /// Counts how often a group came to this node or left it.
    pub fn groups_changed(&self) -> watch::Receiver<u64> {
        self.0.groups.changes()
    }

    /// Sends a message to the shards and edges of a node. Never waits. `false`: it is lost, since the node is not connected or too much waits
    /// for it.
    pub fn send(&self, to: NodeId, message: Bytes) -> bool {
        let transport = self.0.transport.get();
        transport.is_some_and(|transport| transport.send(to, message).is_ok())
    }

    /// Asks another node's [`Neighbours`] something, and waits for the answer for as long as `timeout`. Neither may be longer than
    /// [`TransportLimits::call_bytes_max`], less some bytes.
    ///
    /// # Errors
    /// A sentence: the other node's, or that it is not connected, busy, or has not answered in time. It may have done what it was asked.
    pub async fn ask(&self, node: NodeId, request: Bytes, timeout: Duration) -> Result<Bytes, String> {
        let request = message::encode(Request::Node(request));
        self.0.call(node, request, timeout).await
    }

    /// Transfers chunks to another node's [`Neighbours`], over a connection of their own and no faster than all bulk of this node may be; the
    /// answer. Dropped, it breaks off.
    ///
    /// # Errors
    /// A sentence, as for [`ask`](Self::ask).
    pub async fn transfer(
        &self,
        node: NodeId,
        header: Bytes,
        chunks: BoxStream<'static, Bytes>,
    ) -> Result<Bytes, String> {
        let header = message::encode(Request::Node(header));
        let transferred = self.0.transport()?.transfer(node, header, chunks).await;
        transferred.map_err(|error| error.to_string())
    }

    /// Breaks the link of messages with a node: what came over it makes no sense. It is tried again.
    pub fn break_link(&self, to: NodeId) {
        if let Some(transport) = self.0.transport.get() {
            transport.break_link(to);
        }
    }

    /// Whether a process has ended, as far as can be told: it is neither connected nor does it answer, or another process of its node does.
    pub fn is_gone(&self, peer: PeerId) -> bool {
        match self.connected(peer.node) {
            Some(connected) => connected != peer,
            None => !self.0.groups.is_alive(peer.node),
        }
    }

    /// Looks at the files of the links' certificates now.
    pub async fn reread_certificates(&self) {
        if let Some(transport) = self.0.transport.get() {
            transport.reread_certificates().await;
        }
    }

    /// Until when the certificate of links is good, in seconds since the Unix epoch; `None`: there is none.
    pub fn certificate_not_after(&self) -> Option<i64> {
        self.0.transport.get()?.certificate_not_after()
    }

    /// A handle that does not keep it running.
    pub fn downgrade(&self) -> WeakMember {
        WeakMember(Arc::downgrade(&self.0))
    }

    /// The process that messages to that node go to, while the link works.
    pub fn connected(&self, to: NodeId) -> Option<PeerId> {
        self.0.transport.get()?.connected(to)
    }

    /// Whether that node answers.
    pub fn is_alive(&self, node: NodeId) -> bool {
        node == self.0.id.node || self.0.groups.is_alive(node)
    }

    /// Ends links and groups and closes the store: everything that was committed is durable when this returns.
    ///
    /// # Errors
    /// When the store could not write what it was given last, or not in time.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        let tasks = std::mem::take(&mut *self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.iter().for_each(JoinHandle::abort);
        let groups = self.0.owned.lock().unwrap_or_else(PoisonError::into_inner).take();
        let result = match groups {
            Some(groups) => groups.shutdown().await,
            None => Ok(()),
        };
        if let Some(transport) = self.0.transport.get() {
            transport.shutdown().await;
        }
        result
    }
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Member({})", self.0.id)
    }
}

impl Inner {
    fn transport(&self) -> Result<&Transport, String> {
        self.transport.get().ok_or_else(|| "this node is starting".to_owned())
    }

    async fn call(&self, to: NodeId, request: Bytes, timeout: Duration) -> Result<Bytes, String> {
        let called = self.transport()?.call(to, request, timeout).await;
        called.map_err(|error| error.to_string())
    }
}

/// The groups' way to other nodes: the transport, once it is there.
#[derive(Default)]
struct Way(OnceLock<Weak<Inner>>);

impl Way {
    fn transport(&self) -> Result<Transport, WireError> {
        let inner = self.0.get().and_then(Weak::upgrade);
        let transport = inner.as_ref().and_then(|inner| inner.transport.get());
        transport
            .cloned()
            .ok_or_else(|| WireError("this node is starting".to_owned()))
    }
}

impl Wire for Way {
    fn call(&self, to: NodeId, request: Bytes, timeout: Duration) -> BoxFuture<'static, Result<Bytes, WireError>> {
        match self.transport() {
            Ok(transport) => Wire::call(&transport, to, request, timeout),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }

    fn transfer(
        &self,
        to: NodeId,
        header: Bytes,
        chunks: BoxStream<'static, Bytes>,
    ) -> BoxFuture<'static, Result<Bytes, WireError>> {
        match self.transport() {
            Ok(transport) => Wire::transfer(&transport, to, header, chunks),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }
}
