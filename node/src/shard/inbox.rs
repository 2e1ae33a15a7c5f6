//! What waits for a shard. Mailboxes of actors have no bound, so a shard's mail is kept here and counted; its actor is only
//! told that there is some, once for a whole run of messages.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use heronry_cluster::{Leadership, ProposeError};
use heronry_xmpp::{
    link::{Conn, EdgeId, ShardId, Term, ToPeer, ToShard},
    rows::{Key, RowsError, Value},
    shard::{Administer, Administered, BatchNo, Reader},
};
use ractor::ActorRef;
use tokio::sync::oneshot;

use super::ShardLimits;

/// The inboxes of all shards there are, by number; those of shards that are not on this node take nothing.
#[derive(Debug)]
pub(crate) struct Inboxes(Box<[Inbox]>);

/// The inbox of one shard.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    messages_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Queue {
    /// The shard is on this node.
    here: bool,
    /// Whoever is to be told; `None` before the actor has started.
    actor: Option<ActorRef<Wake>>,
    /// It has been told, and has not looked yet.
    told: bool,
    tick: bool,
    leadership: Vec<Leadership>,
    control: Vec<Control>,
    traffic: Vec<Traffic>,
    traffic_bytes: usize,
    /// Connections that read no more until there is room.
    held: Vec<Conn>,
    /// What of the traffic came from edges on other nodes.
    far: Vec<Far>,
}

/// What has come from the edge of another node, which bounds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Far {
    pub(crate) edge: EdgeId,
    pub(crate) messages: u64,
    /// Bytes of stanzas.
    pub(crate) bytes: u64,
}

/// What the shard is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    /// Only what has changed about leadership: this node may not act for the shard.
    Leadership,
    /// Everything but traffic: proposals do not keep up.
    Control,
    /// Everything.
    All,
}

/// There is something in the inbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wake;

thread_local! {
    /// Actors that this thread is about to tell.
    static TO_TELL: RefCell<Vec<ActorRef<Wake>>> = const { RefCell::new(Vec::new()) };
}

/// Tells the actors whose telling was put off: by [`Inbox::take_from`], or while a frame of another node was read. A thread that puts it off calls this
/// before it rests: so a shard is told once of what many had to say.
pub(crate) fn tell_now() {
    // Telling may run code of the runtime, which may rest: nothing is borrowed then.
    let actors = TO_TELL.take();
    for actor in actors {
        // An actor that has ended is replaced or not needed.
        let _ = actor.cast(Wake);
    }
}

/// What is to be evaluated. Waits while the shard's proposals do not keep up.
#[derive(Debug)]
pub(crate) enum Traffic {
    /// An edge says something.
    Edge {
        /// Which edge.
        edge: EdgeId,
        /// The term it knows.
        term: Term,
        /// What.
        message: ToShard,
    },
    /// Another shard says something.
    Peer {
        /// Which shard.
        from: ShardId,
        /// Its term.
        term: Term,
        /// The term in which it knows this shard.
        known: Term,
        /// What.
        message: ToPeer,
    },
    /// Another shard says that it leads.
    PeerLeads {
        /// Which shard.
        peer: ShardId,
        /// Its term.
        term: Term,
    },
}

/// What is never put off.
#[derive(Debug)]
pub(crate) enum Control {
    /// Messages of this term may have been lost with a link: another round begins.
    Again(Term),
    /// That edge is dead, with all its sockets.
    EdgeDied(EdgeId),
    /// There are other nodes, or there are none.
    Alone(bool),
    /// The cluster's feature level is this one.
    FeatureLevel(u32),
    /// A proposal has ended.
    Proposed {
        /// The term it was evaluated in.
        term: Term,
        /// Its last batch.
        no: BatchNo,
        /// How many batches there were.
        batches: usize,
        /// What became of it.
        result: Result<(), ProposeError>,
    },
    /// A page of rows has been read.
    Page {
        /// The term in which it was asked for.
        term: Term,
        /// For whom.
        reader: Reader,
        /// For which of its reads.
        ticket: u64,
        /// The rows.
        rows: Result<Vec<(Key, Value)>, RowsError>,
    },
    /// An operator wants something.
    Administer {
        /// What.
        request: Box<Administer>,
        /// Who is to hear of it; dropped when nobody can say.
        answer: oneshot::Sender<Administered>,
    },
}

/// One run of messages.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) tick: bool,
    pub(crate) leadership: Vec<Leadership>,
    pub(crate) control: Vec<Control>,
    pub(crate) traffic: Vec<Traffic>,
    pub(crate) held: Vec<Conn>,
    pub(crate) far: Vec<Far>,
}

impl Inboxes {
    /// Empty inboxes for `shards` shards.
    pub(crate) fn new(shards: u16, limits: &ShardLimits) -> Self {
        let inbox = |_| Inbox {
            queue: Mutex::default(),
            messages_max: limits.inbox_messages_max,
            bytes_max: limits.inbox_bytes_max,
        };
        Self((0..shards).map(inbox).collect())
    }

    /// The inbox of a shard; `None` when there is no such shard.
    pub(crate) fn of(&self, shard: ShardId) -> Option<&Inbox> {
        self.0.get(usize::from(shard.0))
    }

    /// How many messages and bytes wait for one shard, about.
    pub(crate) fn bounds(&self) -> (usize, usize) {
        self.0
            .first()
            .map_or((usize::MAX, usize::MAX), |inbox| (inbox.messages_max, inbox.bytes_max))
    }

    /// Gives a shard a message of an edge that belongs to no connection, or to several.
    pub(crate) fn take_one(&self, shard: ShardId, edge: EdgeId, term: Term, message: ToShard) {
        if let Some(inbox) = self.of(shard) {
            inbox.traffic(Traffic::Edge { edge, term, message });
        }
    }

    /// Those of the shards that are on this node.
    pub(crate) fn here(&self) -> impl Iterator<Item = (ShardId, &Inbox)> {
        self.iter().filter(|(_, inbox)| inbox.is_here())
    }

    /// All of them, with their shards.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ShardId, &Inbox)> {
        (0..).map(ShardId).zip(self.0.iter())
    }
}

impl Inbox {
    /// The shard is on this node from now on, and its actor about to start.
    pub(crate) fn open(&self) {
        self.queue().here = true;
    }

    /// The shard leaves this node: nothing is taken any more, and what is there is dropped. Returns the connections that
    /// were held.
    pub(crate) fn close(&self) -> Vec<Conn> {
        std::mem::take(&mut *self.queue()).held
    }

    /// Whether the shard is on this node.
    pub(crate) fn is_here(&self) -> bool {
        self.queue().here
    }

    /// From now on this actor is told.
    pub(crate) fn belongs_to(&self, actor: ActorRef<Wake>) {
        let mut queue = self.queue();
        queue.actor = Some(actor);
        queue.told = false;
        tell(queue);
    }

    /// Takes what a connection sends, and empties `messages`. Says whether there is room for more; if not, the connection reads
    /// no further until its edge is told that there is. The shard is told when this thread calls [`tell_now`].
    pub(crate) fn take_from(&self, edge: EdgeId, conn: Conn, messages: &mut Vec<(Term, ToShard)>) -> bool {
        let mut queue = self.queue();
        if !queue.here {
            return true;
        }
        for (term, message) in messages.drain(..) {
            queue.traffic_bytes += bytes_of(&message);
            queue.traffic.push(Traffic::Edge { edge, term, message });
        }
        let room = queue.traffic.len() < self.messages_max && queue.traffic_bytes < self.bytes_max;
        if !room {
            queue.held.push(conn);
        }
        put_off(&mut queue);
        room
    }

    /// Takes one message that belongs to no connection, or to several. What may come this way is bounded by who sends it. Says
    /// whether the shard is here.
    pub(crate) fn traffic(&self, message: Traffic) -> bool {
        let mut queue = self.queue();
        if !queue.here {
            return false;
        }
        queue.traffic.push(message);
        tell(queue);
        true
    }

    /// As [`traffic`](Self::traffic), of another node: the shard is told when this thread calls [`tell_now`].
    pub(crate) fn traffic_of_link(&self, message: Traffic) -> bool {
        let mut queue = self.queue();
        if !queue.here {
            return false;
        }
        queue.traffic.push(message);
        put_off(&mut queue);
        true
    }

    /// Takes a message of another node's edge, which does not send more than it has been told was taken, but for one turn of
    /// each connection. Says whether the shard is here, which is told when this thread calls [`tell_now`].
    pub(crate) fn take_far(&self, edge: EdgeId, term: Term, message: ToShard) -> bool {
        let mut queue = self.queue();
        if !queue.here {
            return false;
        }
        if !matches!(message, ToShard::Attach { .. }) {
            let bytes = bytes_of(&message) as u64;
            match queue.far.iter_mut().find(|far| far.edge == edge) {
                Some(far) => (far.messages, far.bytes) = (far.messages + 1, far.bytes + bytes),
                None => queue.far.push(Far {
                    edge,
                    messages: 1,
                    bytes,
                }),
            }
        }
        queue.traffic.push(Traffic::Edge { edge, term, message });
        put_off(&mut queue);
        true
    }

    /// This node is something else in the shard's group now.
    pub(crate) fn leadership(&self, leadership: Leadership) {
        let mut queue = self.queue();
        if queue.here {
            queue.leadership.push(leadership);
            tell(queue);
        }
    }

    /// Takes what is never put off.
    pub(crate) fn control(&self, message: Control) {
        let mut queue = self.queue();
        if !queue.here {
            return;
        }
        queue.control.push(message);
        tell(queue);
    }

    /// Time has passed.
    pub(crate) fn tick(&self) {
        let mut queue = self.queue();
        if queue.here {
            queue.tick = true;
            tell(queue);
        }
    }

    /// Moves what is there, and wanted, into `run`, whose vectors are empty. What is left is looked at again when something comes,
    /// at the next tick at the latest.
    pub(crate) fn take(&self, what: Take, run: &mut Run) {
        let mut queue = self.queue();
        queue.told = false;
        std::mem::swap(&mut queue.leadership, &mut run.leadership);
        if what == Take::Leadership {
            return;
        }
        run.tick = std::mem::take(&mut queue.tick);
        std::mem::swap(&mut queue.control, &mut run.control);
        if what == Take::All {
            std::mem::swap(&mut queue.traffic, &mut run.traffic);
            queue.traffic_bytes = 0;
            std::mem::swap(&mut queue.held, &mut run.held);
            std::mem::swap(&mut queue.far, &mut run.far);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the actor, unless it has been told.
fn tell(mut queue: MutexGuard<'_, Queue>) {
    if std::mem::replace(&mut queue.told, true) {
        return;
    }
    let Some(actor) = queue.actor.clone() else { return };
    drop(queue);
    // An actor that has ended is replaced or not needed.
    let _ = actor.cast(Wake);
}

/// Has [`tell_now`] tell the actor.
fn put_off(queue: &mut Queue) {
    if !std::mem::replace(&mut queue.told, true)
        && let Some(actor) = queue.actor.clone()
    {
        TO_TELL.with_borrow_mut(|actors| actors.push(actor));
    }
}

/// What a message counts against the bound, bytes.
pub(crate) fn bytes_of(message: &ToShard) -> usize {
    const BASE: usize = 128;
    match message {
        ToShard::Submit { stanza, .. } => BASE + stanza.size(),
        _ => BASE,
    }
}
