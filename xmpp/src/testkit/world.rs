//! The world: who is where, what happens next, what goes wrong.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Seed;
use super::counter::Counter;
use super::device::{self, Act, Device, Wish};
use super::disk::Disk;
use super::network::{Network, Parcel, Party};
use crate::edge::{self, Attach, Connection, Shards};
use crate::feature::Feature;
use crate::jid::BareJid;
use crate::link::{Conn, EdgeId, NodeId, ShardId, Term, ToEdge, ToShard};
use crate::rows::{Batch, Rows, Timestamp};
use crate::sasl::UnknownUsers;
use crate::shard::{self, Account, Administer, BatchNo, Config, Output, Read, Shard, ShardMap};
use crate::stream::{ResponderConfig, TlsPolicy};
use crate::xep;
use crate::xml::Framer;

/// Where edges and shards are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Each edge and each shard on a node of its own.
    Apart,
    /// An edge and a shard on each node.
    Together,
    /// One node for everything.
    Alone,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// A node dies: its edge with all sockets, its shards' leaders with all they had not committed.
    Node {
        /// Which.
        node: usize,
        /// What it had sent still arrives.
        keep_messages: bool,
        /// What it had proposed is committed nevertheless.
        keep_batches: bool,
    },
    /// A shard gets another leader.
    Leader {
        /// Which shard.
        shard: usize,
        /// What the former leader had sent still arrives.
        keep_messages: bool,
        /// What it had proposed is committed nevertheless.
        keep_batches: bool,
    },
    /// A proposal fails: the leader starts over.
    Commit {
        /// Of which shard.
        shard: usize,
    },
    /// A device loses its socket.
    Socket {
        /// Which device.
        device: usize,
    },
}

/// A shard and its disk.
struct Host {
    disk: Disk,
    shard: Shard,
    term: u64,
    node: usize,
    /// Proposed and not committed.
    proposed: VecDeque<(BatchNo, Batch)>,
    /// Committed, and the shard has not heard of it.
    applied: VecDeque<BatchNo>,
    reads: VecDeque<Read>,
    /// Nobody leads: somebody will.
    vacant: bool,
    clock: u64,
}

/// An edge and its sockets.
struct EdgeHost {
    id: EdgeId,
    node: usize,
    connections: BTreeMap<Conn, Socket>,
    conns: u64,
    /// The highest term of each shard, and whether it has said that it leads.
    terms: BTreeMap<ShardId, (Term, bool)>,
    /// Shards whose highest term is on another node.
    elsewhere: BTreeSet<ShardId>,
    map: ShardMap,
}

struct Socket {
    connection: Connection,
    framer: Framer,
    input: VecDeque<u8>,
    /// The device at the other end, and which of its sockets this is; `None` once it is gone.
    peer: Option<(usize, u32)>,
    taken: u64,
}

impl Shards for EdgeHost {
    fn shard_of(&self, bare: &str) -> ShardId {
        self.map.shard_of(crate::jid::slot(bare))
    }

    fn leading(&self, shard: ShardId) -> Option<Term> {
        self.terms
            .get(&shard)
            .filter(|(_, leading)| *leading)
            .map(|(term, _)| *term)
    }

    fn is_elsewhere(&self, shard: ShardId) -> bool {
        self.elsewhere.contains(&shard)
    }
}

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Event {
    Arrive((Party, Party)),
    Apply(usize),
    Hear(usize),
    Page(usize),
    Elect(usize),
    Act(usize),
    Connect(usize),
}

/// A whole cluster in one thread.
pub struct World {
    topology: Topology,
    seed: Seed,
    network: Network,
    hosts: Vec<Host>,
    edges: Vec<Option<EdgeHost>>,
    edge_config: Arc<edge::Config>,
    shard_config: Config,
    pub(super) devices: Vec<Device>,
    elapsed: Duration,
    lives: u64,
    dead: BTreeSet<EdgeId>,
    steps: usize,
}

/// The wall clock when the world begins, in microseconds.
const BEGINNING: u64 = 1_700_000_000_000_000;

/// What the shards answer in the world: everything there is, and a counter.
static FEATURES: std::sync::OnceLock<Vec<&'static dyn Feature>> = std::sync::OnceLock::new();

impl World {
    /// A world of two edges (one if alone) and three shards, with these devices: address, XEP-0198 or not, script.
    pub fn new(topology: Topology, seed: u64, devices: Vec<(&str, bool, Vec<Act>)>) -> Self {
        let device = |(jid, manages, script)| Device::new(jid, manages, script);
        Self::of(topology, seed, devices.into_iter().map(device).collect())
    }

    pub(super) fn of(topology: Topology, seed: u64, devices: Vec<Device>) -> Self {
        let features = FEATURES.get_or_init(|| {
            let counter: &'static dyn Feature = &Counter;
            std::iter::once(counter).chain(xep::FEATURES.iter().copied()).collect()
        });
        let domain = BareJid::new(None, "example.org").expect("a proper domain");
        let mut responder = ResponderConfig::new(vec![domain], UnknownUsers::new(b"secret", &[4096]));
        responder.tls = TlsPolicy::Off;
        let alone = topology == Topology::Alone;
        let shard_config = Config {
            alone,
            features: features.as_slice(),
            ..Config::alone("example.org", 3)
        };
        let mut world = Self {
            topology,
            seed: Seed::new(seed),
            network: Network::default(),
            hosts: Vec::new(),
            edges: Vec::new(),
            edge_config: Arc::new(edge::Config {
                responder: Arc::new(responder),
                limits: edge::EdgeLimits::default(),
                location: None,
            }),
            shard_config,
            devices,
            elapsed: Duration::ZERO,
            lives: 0,
            dead: BTreeSet::new(),
            steps: 0,
        };
        for shard in 0..3 {
            world.found_shard(shard);
        }
        for edge in 0..if alone { 1 } else { 2 } {
            world.edges.push(None);
            world.start_edge(edge);
        }
        world.add_accounts();
        world
    }

    fn found_shard(&mut self, shard: usize) {
        let node = self.node_of_shard(shard);
        let id = ShardId(shard as u16);
        let config = Arc::new(Config {
            node: NodeId(node as u64),
            ..self.shard_config.clone()
        });
        self.hosts.push(Host {
            disk: Disk::default(),
            shard: Shard::new(id, config),
            term: 0,
            node,
            proposed: VecDeque::new(),
            applied: VecDeque::new(),
            reads: VecDeque::new(),
            vacant: true,
            clock: 0,
        });
        self.elect(shard);
    }

    fn add_accounts(&mut self) {
        let accounts: BTreeSet<BareJid> = self.devices.iter().map(|device| device.account.clone()).collect();
        for (ticket, jid) in accounts.into_iter().enumerate() {
            let shard = usize::from(self.shard_config.shard_of(jid.as_str()).0);
            let account = Account {
                jid,
                keys: vec![device::keys().server_side()],
            };
            self.with_shard(shard, |shard, io| {
                shard.administer(ticket as u64, Administer::Add(account), io);
            });
        }
        while self
            .hosts
            .iter()
            .any(|host| !host.proposed.is_empty() || !host.applied.is_empty())
        {
            for shard in 0..self.hosts.len() {
                self.apply(shard);
                self.hear(shard);
            }
        }
    }

    fn node_of_shard(&self, shard: usize) -> usize {
        match self.topology {
            Topology::Apart => 2 + shard,
            Topology::Together => shard,
            Topology::Alone => 0,
        }
    }

    /// How many steps have been taken.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Takes `steps` steps, or as many as there are; says whether there were that many.
    pub fn run(&mut self, steps: usize) -> bool {
        let end = self.steps + steps;
        while self.steps < end {
            if !self.step() && !self.wait() {
                return false;
            }
        }
        true
    }

    /// Runs until every device has done what it wanted and nothing happens any more.
    ///
    /// # Panics
    /// When that does not come about within minutes of virtual time.
    pub fn settle(&mut self) {
        let limit = self.elapsed + Duration::from_secs(240);
        loop {
            while self.step() {}
            let done = self
                .devices
                .iter()
                .all(|device| device.is_online() && device.script.is_empty() && device.is_settled());
            if done
                && self
                    .hosts
                    .iter()
                    .all(|host| host.shard.is_leading() && host.shard.stats().forwards == 0)
            {
                // A little longer: what was put off until the next tick is done too.
                for _ in 0..8 {
                    self.pass(Duration::from_millis(250));
                    while self.step() {}
                }
                return;
            }
            assert!(self.elapsed < limit, "the world does not settle: {}", self.situation());
            self.pass(Duration::from_millis(250));
        }
    }

    /// What everybody is doing, for whoever looks into a failure.
    pub(super) fn situation(&self) -> String {
        let devices: Vec<String> = self
            .devices
            .iter()
            .map(|device| {
                let (online, settled) = (device.is_online(), device.is_settled());
                format!(
                    "{}: online {online}, settled {settled}, left {:?}",
                    device.account, device.script
                )
            })
            .collect();
        let shards: Vec<String> = self.hosts.iter().map(|host| format!("{:#?}", host.shard)).collect();
        format!("{devices:#?} {}", shards.join("\n"))
    }

    /// Nothing happens: lets time pass, unless everything is done.
    fn wait(&mut self) -> bool {
        if self
            .devices
            .iter()
            .all(|device| device.is_online() && device.script.is_empty())
        {
            return false;
        }
        self.pass(Duration::from_millis(250));
        self.steps += 1;
        true
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.elapsed += time;
        for shard in 0..self.hosts.len() {
            self.with_shard(shard, Shard::tick);
        }
        for edge in 0..self.edges.len() {
            for conn in self.conns(edge) {
                self.with_connection(edge, conn, |connection, io| {
                    if connection.needs_ticks() {
                        connection.tick(io);
                    }
                });
            }
        }
    }

    pub(super) fn step(&mut self) -> bool {
        let events = self.events();
        if events.is_empty() {
            return false;
        }
        let event = events[self.seed.below(events.len())];
        self.steps += 1;
        self.happen(event);
        true
    }

    fn events(&self) -> Vec<Event> {
        let mut events: Vec<Event> = self.network.busy().map(Event::Arrive).collect();
        for (shard, host) in self.hosts.iter().enumerate() {
            if host.vacant {
                events.push(Event::Elect(shard));
            }
            if !host.proposed.is_empty() {
                events.push(Event::Apply(shard));
            }
            if !host.applied.is_empty() {
                events.push(Event::Hear(shard));
            }
            if !host.reads.is_empty() {
                events.push(Event::Page(shard));
            }
        }
        for (place, device) in self.devices.iter().enumerate() {
            if device.is_online() && !device.script.is_empty() {
                events.push(Event::Act(place));
            } else if device.wants_socket() && self.edges.iter().any(Option::is_some) {
                events.push(Event::Connect(place));
            }
        }
        events
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(link) => self.arrive(link),
            Event::Apply(shard) => self.apply(shard),
            Event::Hear(shard) => self.hear(shard),
            Event::Page(shard) => {
                if let Some(read) = self.hosts[shard].reads.pop_front() {
                    let rows = self.hosts[shard]
                        .disk
                        .scan(&read.prefix, &read.from, read.limit)
                        .expect("readable");
                    self.with_shard(shard, |shard, io| shard.page(read.reader, read.ticket, rows, io));
                }
            }
            Event::Elect(shard) => self.elect(shard),
            Event::Act(place) => {
                let mut wishes = Vec::new();
                self.devices[place].act(&mut wishes);
                self.grant(place, wishes);
            }
            Event::Connect(place) => self.connect(place),
        }
    }

    // --- shards ---

    fn apply(&mut self, shard: usize) {
        let host = &mut self.hosts[shard];
        if let Some((no, batch)) = host.proposed.pop_front() {
            host.disk.apply(&batch);
            host.clock = host.clock.max(batch.at.0);
            host.applied.push_back(no);
        }
    }

    fn hear(&mut self, shard: usize) {
        if let Some(no) = self.hosts[shard].applied.pop_front() {
            self.with_shard(shard, |shard, io| shard.committed(no, io));
        }
    }

    fn elect(&mut self, shard: usize) {
        let host = &mut self.hosts[shard];
        host.vacant = false;
        host.term += 1;
        let term = host.term;
        self.with_shard(shard, |shard, io| shard.lead(term, io).expect("readable"));
        // Who has said that it leads says so to whoever comes later.
        let leading: Vec<(ShardId, Term)> = self
            .hosts
            .iter()
            .filter(|other| other.shard.is_leading() && other.shard.id() != ShardId(shard as u16))
            .map(|other| (other.shard.id(), other.shard.term()))
            .collect();
        for (other, term) in leading {
            let parcel = Parcel::PeerLeads(term);
            self.network
                .send(Party::Shard(other), Party::Shard(ShardId(shard as u16)), parcel);
        }
    }

    fn with_shard(&mut self, place: usize, step: impl FnOnce(&mut Shard, &mut shard::Io<'_>)) {
        let mut out = Vec::new();
        let now = BEGINNING + self.elapsed.as_micros() as u64;
        let Host { disk, shard, clock, .. } = &mut self.hosts[place];
        let mut io = shard::Io {
            rows: disk,
            now: Timestamp(now.max(*clock)),
            elapsed: self.elapsed,
            random: &mut self.seed,
            out: &mut out,
        };
        step(shard, &mut io);
        shard.flush(&mut io);
        for output in out {
            self.shard_output(place, output);
        }
    }

    fn shard_output(&mut self, place: usize, output: Output) {
        let from = Party::Shard(ShardId(place as u16));
        match output {
            Output::Propose { no, batch } => self.hosts[place].proposed.push_back((no, batch)),
            Output::Edge { to, term, message } => {
                if !self.dead.contains(&to) {
                    self.network.send(from, Party::Edge(to), Parcel::ToEdge(term, message));
                }
            }
            Output::AllEdges { term, message } => {
                let edges: Vec<EdgeId> = self.edges.iter().flatten().map(|edge| edge.id).collect();
                for edge in edges {
                    self.network
                        .send(from, Party::Edge(edge), Parcel::ToEdge(term, message.clone()));
                }
            }
            Output::Await(edges) => {
                for edge in edges.into_iter().filter(|edge| self.dead.contains(edge)) {
                    self.network.send(Party::Edge(edge), from, Parcel::Died(edge));
                }
            }
            Output::Peer {
                to,
                term,
                known,
                message,
            } => {
                self.network
                    .send(from, Party::Shard(to), Parcel::ToPeer(term, known, message));
            }
            Output::AllPeers { term } => {
                for other in (0..self.hosts.len()).filter(|other| *other != place) {
                    let to = Party::Shard(ShardId(other as u16));
                    self.network.send(from, to, Parcel::PeerLeads(term));
                }
            }
            Output::Read(read) => self.hosts[place].reads.push_back(read),
            Output::Administered { .. } | Output::Count(_) => {}
        }
    }

    // --- edges ---

    fn start_edge(&mut self, place: usize) {
        self.lives += 1;
        let id = EdgeId {
            node: NodeId(place as u64),
            start: self.lives,
        };
        let terms = self
            .hosts
            .iter()
            .map(|host| (host.shard.id(), (host.shard.term(), host.shard.is_leading())));
        let elsewhere = self.hosts.iter().filter(|host| host.node != place);
        let elsewhere = elsewhere.map(|host| host.shard.id()).collect();
        self.edges[place] = Some(EdgeHost {
            elsewhere,
            id,
            node: place,
            connections: BTreeMap::new(),
            conns: 0,
            terms: terms.collect(),
            map: self.shard_config.map.clone(),
        });
    }

    fn conns(&self, edge: usize) -> Vec<Conn> {
        self.edges[edge]
            .iter()
            .flat_map(|edge| edge.connections.keys().copied())
            .collect()
    }

    fn with_connection(&mut self, place: usize, conn: Conn, step: impl FnOnce(&mut Connection, &mut edge::Io<'_>)) {
        let Some(edge) = &mut self.edges[place] else { return };
        let Some(mut socket) = edge.connections.remove(&conn) else {
            return;
        };
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        let mut io = edge::Io {
            shards: edge,
            elapsed: self.elapsed,
            random: &mut self.seed,
            bytes: &mut bytes,
            taken: socket.taken,
            out: &mut out,
        };
        step(&mut socket.connection, &mut io);
        socket.connection.flush(&mut io);
        let total = io.taken + io.bytes.len() as u64;
        if socket.peer.is_some() {
            // The operating system takes everything at once.
            socket.connection.written(total, &mut io);
        }
        socket.taken = total;
        let id = edge.id;
        if let Some((device, number)) = socket.peer.filter(|_| !bytes.is_empty()) {
            self.network
                .send(Party::Edge(id), Party::Device(device), Parcel::Bytes(number, bytes));
        }
        let mut forget = false;
        for output in out {
            match output {
                edge::Output::Shard { to, term, message } => {
                    self.network
                        .send(Party::Edge(id), Party::Shard(to), Parcel::ToShard(term, message));
                }
                edge::Output::Restart => socket.framer.restart(),
                edge::Output::Close => {
                    if let Some((device, number)) = socket.peer.take() {
                        self.network
                            .send(Party::Edge(id), Party::Device(device), Parcel::End(number));
                    }
                }
                edge::Output::Forget => forget = true,
                edge::Output::Authenticated { .. } | edge::Output::NotAuthenticated(_) | edge::Output::TimedOut(_) => {}
                edge::Output::StartTls | edge::Output::Password(_) | edge::Output::Register(_) => {
                    panic!("nobody asks for this here")
                }
            }
        }
        if let Some(edge) = &mut self.edges[place]
            && !forget
        {
            edge.connections.insert(conn, socket);
        }
    }

    /// Feeds a connection what it has been sent, as far as it wants it.
    fn feed(&mut self, place: usize, conn: Conn) {
        loop {
            let Some(edge) = &mut self.edges[place] else { return };
            let Some(socket) = edge.connections.get_mut(&conn) else {
                return;
            };
            if !socket.connection.wants_frames() || socket.input.is_empty() {
                return;
            }
            let length = socket.input.len();
            let mut input: &[u8] = socket.input.make_contiguous();
            let frame = socket.framer.next(&mut input, socket.connection.limits());
            let used = length - input.len();
            socket.input.drain(..used);
            match frame {
                Ok(Some(frame)) => self.with_connection(place, conn, |connection, io| connection.frame(frame, io)),
                Ok(None) => return,
                Err(error) => panic!("a device sent what is not XML: {error}"),
            }
        }
    }

    fn from_shard(&mut self, place: usize, shard: ShardId, term: Term, message: ToEdge) {
        let Some(edge) = &mut self.edges[place] else { return };
        let known = edge.terms.entry(shard).or_default();
        if term < known.0 {
            return;
        }
        match &message {
            ToEdge::Lead => {
                *known = (term, false);
                let host = &self.hosts[usize::from(shard.0)];
                // Should it have gone on already, its next term is about to be heard of.
                if host.node == edge.node {
                    edge.elsewhere.remove(&shard);
                } else {
                    edge.elsewhere.insert(shard);
                }
            }
            ToEdge::Leading => *known = (term, true),
            _ if term > known.0 => return,
            _ => {}
        }
        match message {
            ToEdge::Lead => self.attach(place, shard, term),
            ToEdge::Leading => {
                for conn in self.conns(place) {
                    self.with_connection(place, conn, |connection, io| connection.leading(shard, io));
                    self.feed(place, conn);
                }
            }
            ToEdge::Accepted(accepted) => {
                for (conn, up_to) in accepted {
                    let message = ToEdge::Accepted(vec![(conn, up_to)]);
                    self.with_connection(place, conn, |connection, io| connection.from_shard(message, io));
                    self.feed(place, conn);
                }
            }
            ToEdge::Credentials { conn, .. }
            | ToEdge::Registered { conn, .. }
            | ToEdge::Bound { conn, .. }
            | ToEdge::Resumed { conn, .. }
            | ToEdge::Managed { conn, .. }
            | ToEdge::Remember { conn, .. }
            | ToEdge::Deliver { conn, .. }
            | ToEdge::Detached { conn }
            | ToEdge::Close { conn, .. } => {
                self.with_connection(place, conn, |connection, io| connection.from_shard(message, io));
                self.feed(place, conn);
            }
        }
    }

    fn attach(&mut self, place: usize, shard: ShardId, term: Term) {
        let Some(edge) = &mut self.edges[place] else { return };
        let (mut sessions, mut asking) = (Vec::new(), Vec::new());
        for socket in edge.connections.values_mut() {
            match socket.connection.attach(shard) {
                Attach::Session(attachment) => sessions.push(*attachment),
                Attach::Asking(conn) => asking.push(conn),
                Attach::Nothing => {}
            }
        }
        let message = ToShard::Attach {
            sessions,
            asking,
            last: true,
        };
        self.network.send(
            Party::Edge(edge.id),
            Party::Shard(shard),
            Parcel::ToShard(term, message),
        );
    }

    // --- devices ---

    fn connect(&mut self, device: usize) {
        let open: Vec<usize> = (0..self.edges.len())
            .filter(|place| self.edges[*place].is_some())
            .collect();
        // Each device has an edge it prefers: sessions of one account are spread.
        let place = open
            .iter()
            .copied()
            .find(|place| *place == device % 2)
            .unwrap_or(open[0]);
        let opening = self.devices[device].connect();
        let number = self.devices[device].socket;
        let Some(edge) = &mut self.edges[place] else { return };
        edge.conns += 1;
        let conn = Conn(edge.conns);
        let connection = Connection::new(conn, Arc::clone(&self.edge_config), None);
        let peer = Some((device, number));
        let socket = Socket {
            connection,
            framer: Framer::new(),
            input: VecDeque::new(),
            peer,
            taken: 0,
        };
        edge.connections.insert(conn, socket);
        let id = edge.id;
        self.network
            .send(Party::Device(device), Party::Edge(id), Parcel::Bytes(number, opening));
    }

    pub(super) fn grant(&mut self, device: usize, wishes: Vec<Wish>) {
        let number = self.devices[device].socket;
        let edge = self.edges.iter().flatten().find(|edge| {
            edge.connections
                .values()
                .any(|socket| socket.peer == Some((device, number)))
        });
        let Some(id) = edge.map(|edge| edge.id) else { return };
        for wish in wishes {
            let parcel = match wish {
                Wish::Send(bytes) => Parcel::Bytes(number, bytes),
                Wish::HangUp => Parcel::End(number),
            };
            self.network.send(Party::Device(device), Party::Edge(id), parcel);
        }
    }

    fn socket_of(&self, edge: EdgeId, device: usize, number: u32) -> Option<(usize, Conn)> {
        let place = self
            .edges
            .iter()
            .position(|host| host.as_ref().is_some_and(|host| host.id == edge))?;
        let host = self.edges[place].as_ref()?;
        let socket = host
            .connections
            .iter()
            .find(|(_, socket)| socket.peer == Some((device, number)));
        socket.map(|(conn, _)| (place, *conn))
    }

    // --- what arrives ---

    fn arrive(&mut self, link: (Party, Party)) {
        let Some(parcel) = self.network.receive(link) else {
            return;
        };
        match (link, parcel) {
            ((Party::Device(device), Party::Edge(edge)), Parcel::Bytes(number, bytes)) => {
                let Some((place, conn)) = self.socket_of(edge, device, number) else {
                    return;
                };
                if let Some(socket) = self.edges[place]
                    .as_mut()
                    .and_then(|host| host.connections.get_mut(&conn))
                {
                    socket.input.extend(bytes);
                }
                self.feed(place, conn);
            }
            ((Party::Device(device), Party::Edge(edge)), Parcel::End(number)) => {
                let Some((place, conn)) = self.socket_of(edge, device, number) else {
                    return;
                };
                if let Some(socket) = self.edges[place]
                    .as_mut()
                    .and_then(|host| host.connections.get_mut(&conn))
                {
                    socket.peer = None;
                }
                self.with_connection(place, conn, |connection, io| connection.closed(io));
            }
            ((Party::Edge(_), Party::Device(device)), Parcel::Bytes(number, bytes)) => {
                if self.devices[device].socket == number && !self.devices[device].is_offline() {
                    let wishes = self.devices[device].receive(&bytes, &mut self.seed);
                    self.grant(device, wishes);
                }
            }
            ((Party::Edge(_), Party::Device(device)), Parcel::End(number)) => {
                if self.devices[device].socket == number {
                    self.devices[device].cut();
                }
            }
            ((Party::Edge(edge), Party::Shard(shard)), Parcel::ToShard(term, message)) => {
                self.with_shard(usize::from(shard.0), |shard, io| {
                    shard.from_edge(edge, term, message, io);
                });
            }
            ((_, Party::Shard(shard)), Parcel::Died(edge)) => {
                self.with_shard(usize::from(shard.0), |shard, io| shard.edge_died(edge, io));
            }
            ((Party::Shard(shard), Party::Edge(edge)), Parcel::ToEdge(term, message)) => {
                let place = self
                    .edges
                    .iter()
                    .position(|host| host.as_ref().is_some_and(|host| host.id == edge));
                if let Some(place) = place {
                    self.from_shard(place, shard, term, message);
                }
            }
            ((Party::Shard(peer), Party::Shard(to)), Parcel::PeerLeads(term)) => {
                self.with_shard(usize::from(to.0), |shard, io| shard.peer_leads(peer, term, io));
            }
            ((Party::Shard(from), Party::Shard(to)), Parcel::ToPeer(term, known, message)) => {
                self.with_shard(usize::from(to.0), |shard, io| {
                    shard.from_peer(from, term, known, message, io);
                });
            }
            (link, parcel) => panic!("{parcel:?} on {link:?}"),
        }
    }

    // --- what goes wrong ---

    /// Something goes wrong.
    pub fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Node {
                node,
                keep_messages,
                keep_batches,
            } => self.node_dies(node, keep_messages, keep_batches),
            Fault::Leader {
                shard,
                keep_messages,
                keep_batches,
            } => {
                self.leader_goes(shard, keep_messages, keep_batches);
            }
            Fault::Commit { shard } => self.commit_fails(shard),
            Fault::Socket { device } => {
                if !self.devices[device].is_offline() {
                    self.devices[device].cut();
                    self.grant(device, vec![Wish::HangUp]);
                }
            }
        }
    }

    fn leader_goes(&mut self, shard: usize, keep_messages: bool, keep_batches: bool) {
        let host = &mut self.hosts[shard];
        while keep_batches && !host.proposed.is_empty() {
            if let Some((_, batch)) = host.proposed.pop_front() {
                host.disk.apply(&batch);
                host.clock = host.clock.max(batch.at.0);
            }
        }
        host.proposed.clear();
        host.applied.clear();
        host.reads.clear();
        host.vacant = true;
        let id = ShardId(shard as u16);
        let nodes = match self.topology {
            Topology::Apart => 2..5,
            Topology::Together => 0..3,
            Topology::Alone => 0..1,
        };
        let others: Vec<usize> = nodes.clone().filter(|node| *node != host.node).collect();
        host.node = if others.is_empty() {
            nodes.start
        } else {
            others[self.seed.below(others.len())]
        };
        let config = Arc::new(Config {
            node: NodeId(host.node as u64),
            ..self.shard_config.clone()
        });
        host.shard = Shard::new(id, config);
        if !keep_messages {
            self.network.forget_from(Party::Shard(id));
        }
    }

    fn commit_fails(&mut self, shard: usize) {
        let host = &mut self.hosts[shard];
        host.proposed.clear();
        host.reads.clear();
        // What was committed before is heard of before.
        while !self.hosts[shard].applied.is_empty() {
            self.hear(shard);
        }
        self.hosts[shard].proposed.clear();
        if !self.hosts[shard].vacant {
            self.with_shard(shard, |shard, io| shard.failed(io).expect("readable"));
        }
    }

    fn node_dies(&mut self, node: usize, keep_messages: bool, keep_batches: bool) {
        for shard in 0..self.hosts.len() {
            if self.hosts[shard].node == node {
                self.leader_goes(shard, keep_messages, keep_batches);
            }
        }
        let Some(place) = self
            .edges
            .iter()
            .position(|edge| edge.as_ref().is_some_and(|edge| edge.node == node))
        else {
            return;
        };
        let Some(edge) = self.edges[place].take() else { return };
        self.dead.insert(edge.id);
        self.network.dies(Party::Edge(edge.id), keep_messages);
        for socket in edge.connections.values() {
            if let Some((device, number)) = socket.peer {
                self.network
                    .send(Party::Edge(edge.id), Party::Device(device), Parcel::End(number));
            }
        }
        for shard in 0..self.hosts.len() {
            let to = Party::Shard(ShardId(shard as u16));
            self.network.send(Party::Edge(edge.id), to, Parcel::Died(edge.id));
        }
        if self.edges.iter().all(Option::is_none) {
            self.start_edge(place);
        }
    }

    /// Starts every edge that died, as another one.
    pub fn restart_edges(&mut self) {
        for place in 0..self.edges.len() {
            if self.edges[place].is_none() {
                self.start_edge(place);
            }
        }
    }

    /// The shard that an account belongs to.
    pub(super) fn shard_of(&self, account: &BareJid) -> usize {
        usize::from(self.shard_config.shard_of(account.as_str()).0)
    }

    /// The disk of the shard that an account belongs to.
    pub(super) fn disk_of(&self, account: &BareJid) -> &Disk {
        &self.hosts[self.shard_of(account)].disk
    }

    pub(super) fn disks(&self) -> impl Iterator<Item = &Disk> {
        self.hosts.iter().map(|host| &host.disk)
    }

    /// Sessions there are, attached and detached.
    pub(super) fn sessions(&self) -> usize {
        self.hosts
            .iter()
            .map(|host| host.shard.stats())
            .map(|stats| stats.attached + stats.detached)
            .sum()
    }
}
