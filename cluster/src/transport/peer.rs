//! One other node: which connections with it work.
//!
//! Of each kind there is one at a time. A connection is *held* from the moment when both sides have said Hello; whoever comes later from
//! the same process, or from a later one of the node, takes its place, and an earlier process is refused while a later one is connected.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use heronry_storage::NodeId;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::{
    PeerId, Refusal, RefusalReason,
    connection::{Broken, Connection},
    control::Calls,
    lane::Kind,
    limits::TransportLimits,
    queue::Queue,
};

/// A node that is wanted.
pub(super) struct Peer {
    pub(super) node: NodeId,
    /// `host:port`.
    pub(super) address: watch::Sender<String>,
    /// Cancelled when it is no longer wanted.
    pub(super) unwanted: CancellationToken,
    held: Mutex<Held>,
    /// Whoever has it speaks with the handler: `up`, messages, `down`, and only then the next connection.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Requests of it that may yet be under way.
    pub(super) calls_in: Arc<Semaphore>,
    /// Transfers, to it and of it, that may yet be under way.
    pub(super) transfers_out: Arc<Semaphore>,
    pub(super) transfers_in: Arc<Semaphore>,
}

#[derive(Default)]
struct Held {
    control: Option<Link<Arc<Calls>>>,
    messages: Option<Link<Arc<Queue>>>,
}

/// A connection in its place.
struct Link<W> {
    peer: PeerId,
    connection: Arc<Connection>,
    /// What is used of it, once it works.
    working: Option<W>,
}

impl<W> Link<W> {
    fn is(&self, connection: &Arc<Connection>) -> bool {
        Arc::ptr_eq(&self.connection, connection)
    }
}

impl Peer {
    pub(super) fn new(
        node: NodeId,
        address: String,
        limits: &TransportLimits,
        parent: &CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            address: watch::Sender::new(address),
            unwanted: parent.child_token(),
            held: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            calls_in: Arc::new(Semaphore::new(limits.calls_in_flight_max)),
            transfers_out: Arc::new(Semaphore::new(limits.transfers_max)),
            transfers_in: Arc::new(Semaphore::new(limits.transfers_max)),
        })
    }

    /// Whether a process may connect now: not if a later one of its node is connected.
    pub(super) fn admits(&self, process: PeerId) -> Result<(), Refusal> {
        self.held().admits(process)
    }

    /// Gives the connection its place; those of earlier processes, and the one that had it, are closed.
    pub(super) fn hold(&self, kind: Kind, process: PeerId, connection: &Arc<Connection>) -> Result<(), Refusal> {
        let mut held = self.held();
        if self.unwanted.is_cancelled() {
            let sentence = format!("node {} is no longer a member of the cluster", self.node);
            return Err(Refusal::new(RefusalReason::UnknownNode, sentence));
        }
        held.admits(process)?;
        held.close_older(process);
        match kind {
            Kind::Control => replace(&mut held.control, process, connection),
            Kind::Messages => replace(&mut held.messages, process, connection),
            Kind::Bulk | Kind::Ask => {}
        }
        Ok(())
    }

    /// Gives the connection's place back.
    pub(super) fn release(&self, connection: &Arc<Connection>) {
        let mut held = self.held();
        held.control.take_if(|link| link.is(connection));
        held.messages.take_if(|link| link.is(connection));
    }

    /// Calls can be made over the connection, unless it has lost its place.
    pub(super) fn set_calls(&self, connection: &Arc<Connection>, calls: Arc<Calls>) {
        if let Some(link) = self.held().control.as_mut().filter(|link| link.is(connection)) {
            link.working = Some(calls);
        }
    }

    /// Messages can be sent over the connection; whether it still has its place.
    pub(super) fn set_messages(&self, connection: &Arc<Connection>, queue: Arc<Queue>) -> bool {
        let mut held = self.held();
        let Some(link) = held.messages.as_mut().filter(|link| link.is(connection)) else {
            return false;
        };
        link.working = Some(queue);
        true
    }

    /// How to ask it.
    pub(super) fn calls(&self) -> Option<Arc<Calls>> {
        self.held().control.as_ref()?.working.clone()
    }

    /// Does something with the queue of messages. What it answers with closes the connection and takes the queue away.
    pub(super) fn with_messages<T>(&self, does: impl FnOnce(&Queue) -> (T, Option<Broken>)) -> Option<T> {
        let mut held = self.held();
        let link = held.messages.as_mut()?;
        let (result, broken) = does(link.working.as_ref()?);
        if let Some(why) = broken {
            link.connection.close(why);
            link.working = None;
        }
        Some(result)
    }

    /// The process that messages are sent to.
    pub(super) fn connected(&self) -> Option<PeerId> {
        let held = self.held();
        let link = held.messages.as_ref()?;
        link.working.as_ref().map(|_| link.peer)
    }

    /// Closes everything: it is no longer wanted.
    pub(super) fn close(&self) {
        self.unwanted.cancel();
        let held = self.held();
        let connections = [
            held.control.as_ref().map(|link| &link.connection),
            held.messages.as_ref().map(|link| &link.connection),
        ];
        connections
            .into_iter()
            .flatten()
            .for_each(|connection| connection.close(Broken::Unwanted));
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn connections(&self) -> impl Iterator<Item = (PeerId, &Arc<Connection>)> {
        let control = self.control.iter().map(|link| (link.peer, &link.connection));
        let messages = self.messages.iter().map(|link| (link.peer, &link.connection));
        control
            .chain(messages)
            .filter(|(_, connection)| !connection.is_closed())
    }

    fn admits(&self, process: PeerId) -> Result<(), Refusal> {
        match self
            .connections()
            .find(|(connected, _)| connected.start > process.start)
        {
            None => Ok(()),
            Some((connected, _)) => Err(Refusal::new(
                RefusalReason::OlderProcess,
                format!(
                    "node {} is connected already, by a process that started later ({}) than this one ({})",
                    process.node, connected.start, process.start
                ),
            )),
        }
    }

    fn close_older(&self, process: PeerId) {
        for (connected, connection) in self.connections() {
            if connected.start < process.start {
                connection.close(Broken::Displaced);
            }
        }
    }
}

fn replace<W>(place: &mut Option<Link<W>>, peer: PeerId, connection: &Arc<Connection>) {
    let link = Link {
        peer,
        connection: Arc::clone(connection),
        working: None,
    };
    if let Some(former) = place.replace(link) {
        former.connection.close(Broken::Displaced);
    }
}
