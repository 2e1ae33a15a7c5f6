//! Who leads what, and what nodes tell each other of it.

use std::collections::BTreeMap;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
};

use bytes::Bytes;
use heronry_xmpp::link::{EdgeId, NodeId, ShardId, Term, ToEdge, ToPeer};

use super::{Links, Outboxes, flush_now, metrics};
use crate::{
    edge::{Hub, Port},
    shard::{Control, Inboxes, Traffic, tell_now},
    wire::{self, Item},
};

/// What is between this node's edge, its shards, and other nodes.
#[derive(Debug)]
pub(crate) struct Router {
    hub: Arc<Hub>,
    inboxes: Arc<Inboxes>,
    outboxes: Arc<Outboxes>,
    /// The shards this node leads. Locked while something is said to all nodes, and while a link comes up, so that no node hears of
    /// a term too late or never.
    led: Mutex<BTreeMap<ShardId, Led>>,
    leaders: Box<[Leader]>,
    /// Of each node the process heard of last.
    lives: Mutex<BTreeMap<NodeId, Life>>,
    alone: AtomicBool,
    feature_level: AtomicU32,
    /// As if no majority supported this node.
    #[cfg(test)]
    withholds_leases: AtomicBool,
}

/// A shard this node leads: what has been announced.
#[derive(Clone, Copy, Debug)]
struct Led {
    term: Term,
    leads: bool,
}

/// Who leads a shard, as far as other shards are concerned.
#[derive(Debug, Default)]
struct Leader {
    place: AtomicU8,
    said: Mutex<Said>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Said {
    term: Term,
    node: NodeId,
}

/// [`Leader::place`]: nobody has said that it leads.
const UNKNOWN: u8 = 0;
/// This node leads.
const HERE: u8 = 1;
/// Another node leads.
const ELSEWHERE: u8 = 2;

#[derive(Clone, Copy, Debug)]
struct Life {
    start: u64,
    dead: bool,
}

impl Router {
    pub(crate) fn new(hub: Arc<Hub>, inboxes: Arc<Inboxes>, outboxes: Arc<Outboxes>) -> Arc<Self> {
        let leaders = inboxes.iter().map(|_| Leader::default()).collect();
        Arc::new(Self {
            hub,
            inboxes,
            outboxes,
            led: Mutex::default(),
            leaders,
            lives: Mutex::default(),
            alone: AtomicBool::new(true),
            feature_level: AtomicU32::new(0),
            #[cfg(test)]
            withholds_leases: AtomicBool::new(false),
        })
    }

    #[cfg(test)]
    pub(crate) fn withhold_leases(&self, withhold: bool) {
        self.withholds_leases.store(withhold, Ordering::Release);
    }

    #[cfg(test)]
    pub(crate) fn withholds_leases(&self) -> bool {
        self.withholds_leases.load(Ordering::Acquire)
    }

    /// Whether every shard is led by somebody, as far as shards of this node know.
    pub(crate) fn all_led(&self) -> bool {
        let known = |leader: &Leader| leader.place.load(Ordering::Acquire) != UNKNOWN;
        self.leaders.iter().all(known)
    }

    /// From now on there may be links to other nodes.
    pub(crate) fn go_over(&self, links: Arc<dyn Links>) {
        self.outboxes.go_over(links);
    }

    /// Which edge, and which process, this is.
    pub(crate) fn own(&self) -> EdgeId {
        self.hub.id()
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    pub(crate) fn inboxes(&self) -> &Arc<Inboxes> {
        &self.inboxes
    }

    /// Whether this is the only node: then what is here is as safe as it can be.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Acquire)
    }

    /// There are other nodes in the cluster, or there are none.
    pub(crate) fn set_alone(&self, alone: bool) {
        if self.alone.swap(alone, Ordering::AcqRel) != alone {
            self.control_all(|| Control::Alone(alone));
        }
    }

    /// The cluster's feature level; zero as long as it is not known.
    pub(crate) fn feature_level(&self) -> u32 {
        self.feature_level.load(Ordering::Acquire)
    }

    /// The cluster's feature level is this one.
    pub(crate) fn set_feature_level(&self, level: u32) {
        if self.feature_level.fetch_max(level, Ordering::AcqRel) < level {
            self.control_all(|| Control::FeatureLevel(level));
        }
    }

    // --- what shards of this node say ---

    /// A shard of this node begins a term, or has caught up in it: all edges hear of it.
    pub(crate) fn announce(&self, shard: ShardId, term: Term, leads: bool) {
        let mut led = lock(&self.led);
        led.insert(shard, Led { term, leads });
        self.outboxes.send_to_all(true, &announcement(shard, term, leads));
        drop(led);
        self.hub.announce(shard, self.own().node, term, leads);
    }

    /// A shard of this node has caught up: all other shards hear of it.
    pub(crate) fn leads(&self, shard: ShardId, term: Term) {
        let led = lock(&self.led);
        self.outboxes.send_to_all(false, &leading(shard, term));
        drop(led);
        self.peer_leads(shard, term, self.own().node);
        self.to_all_here(shard, term);
    }

    /// A shard of this node is led by it no more.
    pub(crate) fn resigns(&self, shard: ShardId) {
        let mut led = lock(&self.led);
        let Some(Led { term, .. }) = led.remove(&shard) else {
            return;
        };
        self.outboxes.send_to_all(true, &Item::Resigned { shard, term });
        drop(led);
        self.hub.resigned(shard, term);
        if let Some(leader) = self.leaders.get(usize::from(shard.0)) {
            let said = lock(&leader.said);
            if said.node == self.own().node {
                leader.place.store(UNKNOWN, Ordering::Release);
            }
        }
    }

    /// A shard of this node says something to an edge.
    pub(crate) fn to_edge(&self, to: EdgeId, from: ShardId, term: Term, message: ToEdge, woken: &mut Vec<Arc<Port>>) {
        if to == self.own() {
            self.hub.take_from(from, term, message, woken);
        } else {
            self.outboxes.send_to(to, &Item::ToEdge { from, term, message });
        }
    }

    /// A shard of this node says something to another shard, if it is known who leads that.
    pub(crate) fn to_peer(&self, from: ShardId, term: Term, to: ShardId, known: Term, message: ToPeer) {
        let Some(leader) = self.leaders.get(usize::from(to.0)) else {
            return;
        };
        match leader.place.load(Ordering::Acquire) {
            HERE => {
                if let Some(inbox) = self.inboxes.of(to) {
                    inbox.traffic(Traffic::Peer {
                        from,
                        term,
                        known,
                        message,
                    });
                }
            }
            ELSEWHERE => {
                let node = lock(&leader.said).node;
                self.outboxes.send(
                    node,
                    &Item::ToPeer {
                        from,
                        term,
                        to,
                        known,
                        message,
                    },
                );
            }
            _ => metrics::lost("no-leader"),
        }
    }

    /// The node that leads a shard, as far as it has said so; whether it still does, it knows itself.
    pub(crate) fn leader(&self, shard: ShardId) -> Option<NodeId> {
        let leader = self.leaders.get(usize::from(shard.0))?;
        let said = lock(&leader.said);
        (leader.place.load(Ordering::Acquire) != UNKNOWN).then_some(said.node)
    }

    /// A shard of this node has taken so much of what another node's edge had sent it.
    pub(crate) fn taken(&self, edge: EdgeId, shard: ShardId, term: Term, messages: u64, bytes: u64) {
        let item = Item::Taken {
            shard,
            term,
            messages,
            bytes,
        };
        self.outboxes.send_to(edge, &item);
    }

    /// Whether that edge will never attach again: its process is known to have ended, or its node belongs to the cluster no more.
    pub(crate) fn is_dead(&self, edge: EdgeId) -> bool {
        let own = self.own();
        if edge.node == own.node {
            return edge.start != own.start;
        }
        if lock(&self.lives)
            .get(&edge.node)
            .is_some_and(|life| life.dead || life.start != edge.start)
        {
            return true;
        }
        self.outboxes.links().is_none_or(|links| !links.is_member(edge.node))
    }

    /// A shard is on this node from now on, or its actor is a new one: it hears who leads the others.
    pub(crate) fn introduce(&self, shard: ShardId) {
        let Some(inbox) = self.inboxes.of(shard) else { return };
        for (leader, peer) in self.leaders.iter().zip((0..).map(ShardId)) {
            let said = lock(&leader.said);
            if peer != shard && leader.place.load(Ordering::Acquire) != UNKNOWN {
                inbox.traffic(Traffic::PeerLeads { peer, term: said.term });
            }
        }
    }

    // --- what becomes of links ---

    /// The link with that process works; `again`: it worked before, and what was under way then may be lost.
    pub(crate) fn up(&self, peer: EdgeId, again: bool) {
        let led = lock(&self.led);
        let again = again || self.outboxes.connected(peer.node) == Some(peer);
        let muted = if again {
            led.iter().map(|(shard, led)| (*shard, led.term)).collect()
        } else {
            BTreeMap::new()
        };
        // Until a round begins nothing is sent, and nobody is heard who speaks of one before.
        self.hub.unreachable(peer.node);
        let Some(outbox) = self.outboxes.open(peer, muted) else {
            return;
        };
        if again {
            for (shard, Led { term, .. }) in led.iter() {
                self.control(*shard, Control::Again(*term));
            }
        } else {
            for (shard, Led { term, leads }) in led.iter() {
                if outbox.has_edge() {
                    outbox.add(&announcement(*shard, *term, false));
                    if *leads {
                        outbox.add(&announcement(*shard, *term, true));
                    }
                }
                if *leads {
                    outbox.add(&leading(*shard, *term));
                }
            }
        }
        drop(led);
        let life = Life {
            start: peer.start,
            dead: false,
        };
        let former = lock(&self.lives).insert(peer.node, life);
        if let Some(former) = former.filter(|former| former.start != peer.start && !former.dead) {
            self.edge_died(EdgeId {
                node: peer.node,
                start: former.start,
            });
        }
        flush_now();
    }

    /// The link with that process has broken.
    pub(crate) fn down(&self, peer: EdgeId) {
        if self.outboxes.connected(peer.node) == Some(peer) {
            self.outboxes.close(peer);
            self.hub.unreachable(peer.node);
        }
    }

    /// That process has been declared dead.
    pub(crate) fn lost(&self, peer: EdgeId) {
        self.down(peer);
        {
            let mut lives = lock(&self.lives);
            let life = lives.entry(peer.node).or_insert(Life {
                start: peer.start,
                dead: false,
            });
            if life.start != peer.start || std::mem::replace(&mut life.dead, true) {
                return;
            }
        }
        self.edge_died(peer);
    }

    fn edge_died(&self, edge: EdgeId) {
        self.control_all(|| Control::EdgeDied(edge));
    }

    // --- what comes over links ---

    /// A frame has come from that process. One that makes no sense breaks the link.
    pub(crate) fn message(&self, from: EdgeId, frame: Bytes) {
        let (to, items) = match wire::read(frame) {
            Ok(read) => read,
            Err(error) => {
                metrics::refused("malformed");
                tracing::warn!(node = from.node.0, %error, "what came over a link makes no sense: it is broken");
                if let Some(links) = self.outboxes.links() {
                    links.break_link(from.node);
                }
                return;
            }
        };
        if to != self.own().start || self.outboxes.connected(from.node) != Some(from) {
            return metrics::refused("not-for-us");
        }
        metrics::received(items.len());
        let mut woken = Vec::new();
        for item in items {
            self.item(from, item, &mut woken);
        }
        self.hub.wake(&mut woken);
        tell_now();
        flush_now();
    }

    fn item(&self, from: EdgeId, item: Item, woken: &mut Vec<Arc<Port>>) {
        match item {
            Item::ToShard { to, term, message } => {
                let inbox = self.inboxes.of(to);
                if !inbox.is_some_and(|inbox| inbox.take_far(from, term, message)) {
                    metrics::misdirected();
                }
            }
            Item::ToEdge {
                from: shard,
                term,
                message: message @ (ToEdge::Lead | ToEdge::Leading),
            } => {
                let leads = matches!(message, ToEdge::Leading);
                self.hub.announce(shard, from.node, term, leads);
            }
            Item::ToEdge {
                from: shard,
                term,
                message,
            } => self.hub.take_from(shard, term, message, woken),
            Item::ToPeer {
                from: shard,
                term,
                to,
                known,
                message,
            } => {
                let traffic = Traffic::Peer {
                    from: shard,
                    term,
                    known,
                    message,
                };
                if !self.inboxes.of(to).is_some_and(|inbox| inbox.traffic_of_link(traffic)) {
                    metrics::misdirected();
                }
            }
            Item::Taken {
                shard,
                term,
                messages,
                bytes,
            } => self.hub.taken(shard, term, messages, bytes),
            Item::Leads { shard, term } => {
                self.peer_leads(shard, term, from.node);
                self.to_all_here(shard, term);
            }
            Item::Resigned { shard, term } => self.hub.resigned(shard, term),
        }
    }

    /// Notes who leads a shard, unless somebody has said so in a higher term.
    fn peer_leads(&self, shard: ShardId, term: Term, node: NodeId) {
        let Some(leader) = self.leaders.get(usize::from(shard.0)) else {
            return;
        };
        let mut said = lock(&leader.said);
        if term >= said.term {
            *said = Said { term, node };
            let place = if node == self.own().node { HERE } else { ELSEWHERE };
            leader.place.store(place, Ordering::Release);
        }
    }

    /// The shards here hear that `shard` leads; each looks at the term itself.
    fn to_all_here(&self, shard: ShardId, term: Term) {
        for (_, inbox) in self.inboxes.here().filter(|(peer, _)| *peer != shard) {
            inbox.traffic(Traffic::PeerLeads { peer: shard, term });
        }
    }

    fn control(&self, shard: ShardId, control: Control) {
        if let Some(inbox) = self.inboxes.of(shard) {
            inbox.control(control);
        }
    }

    fn control_all(&self, control: impl Fn() -> Control) {
        self.inboxes.here().for_each(|(_, inbox)| inbox.control(control()));
    }
}

fn announcement(from: ShardId, term: Term, leads: bool) -> Item {
    let message = if leads { ToEdge::Leading } else { ToEdge::Lead };
    Item::ToEdge { from, term, message }
}

fn leading(shard: ShardId, term: Term) -> Item {
    Item::Leads { shard, term }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
