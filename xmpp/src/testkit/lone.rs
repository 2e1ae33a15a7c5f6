//! A broker of one edge and one shard that strangers talk to in XML: what is said, and what is heard.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Seed;
use super::disk::Disk;
use crate::edge::{self, Attach, Connection, Shards};
use crate::jid::BareJid;
use crate::link::{Conn, EdgeId, ShardId, Term, ToEdge, ToShard};
use crate::rows::{Batch, Key, Rows as _, Timestamp};
use crate::sasl::{Condition, Mechanism, PasswordJob, UnknownUsers};
use crate::shard::{self, Account, Administer, BatchNo, Config, Event, Output, Read, Shard};
use crate::stream::{NegotiationPhase, ResponderConfig, TlsPolicy};
use crate::xml::Framer;

/// The wall clock when everything begins, in microseconds.
const BEGINNING: u64 = 1_700_000_000_000_000;

const EDGE: EdgeId = EdgeId {
    node: crate::link::NodeId(0),
    start: 1,
};

/// A lone broker for `example.org`. Everything happens at once, but for commits while they are [held](Self::hold_commits).
pub struct Lone {
    disk: Disk,
    shard: Shard,
    shard_config: Arc<Config>,
    edge_config: Arc<edge::Config>,
    standing: Standing,
    strangers: BTreeMap<Conn, Stranger>,
    seed: Seed,
    elapsed: Duration,
    to_shard: VecDeque<(Term, ToShard)>,
    to_edge: VecDeque<(Term, ToEdge)>,
    proposed: VecDeque<(BatchNo, Batch)>,
    reads: VecDeque<Read>,
    jobs: VecDeque<(Conn, Box<PasswordJob>)>,
    held: bool,
    /// Work on passwords is not done.
    pub passwords_full: bool,
    /// What an operator would have counted of the shard.
    pub counted: Vec<Event>,
    /// Of authentications: how, and after how many failures for the same account; or why not.
    pub authentications: Vec<Result<(Mechanism, u8), Condition>>,
    /// Of negotiations that took too long.
    pub timed_out: Vec<NegotiationPhase>,
}

#[derive(Clone, Copy, Default)]
struct Standing {
    term: Term,
    leads: bool,
}

impl Shards for Standing {
    fn shard_of(&self, _: &str) -> ShardId {
        ShardId(0)
    }

    fn leading(&self, _: ShardId) -> Option<Term> {
        self.leads.then_some(self.term)
    }

    fn is_elsewhere(&self, _: ShardId) -> bool {
        false
    }
}

/// Somebody at the other end of a socket.
struct Stranger {
    connection: Connection,
    framer: Framer,
    input: VecDeque<u8>,
    heard: String,
    taken: u64,
    open: bool,
}

impl Lone {
    /// A broker that leads, with TLS not required; `configure` may change that and more.
    pub fn new(configure: impl FnOnce(&mut ResponderConfig, &mut Config, &mut edge::EdgeLimits)) -> Self {
        let domain = BareJid::new(None, "example.org").expect("a proper domain");
        let mut responder = ResponderConfig::new(vec![domain], UnknownUsers::new(b"secret", &[4096]));
        responder.tls = TlsPolicy::Off;
        responder.plain_without_tls = true;
        let mut shard_config = Config::alone("example.org", 1);
        let mut limits = edge::EdgeLimits::default();
        configure(&mut responder, &mut shard_config, &mut limits);
        let shard_config = Arc::new(shard_config);
        let mut lone = Self {
            disk: Disk::default(),
            shard: Shard::new(ShardId(0), Arc::clone(&shard_config)),
            shard_config,
            edge_config: Arc::new(edge::Config {
                responder: Arc::new(responder),
                limits,
                location: None,
            }),
            standing: Standing::default(),
            strangers: BTreeMap::new(),
            seed: Seed::new(7),
            elapsed: Duration::ZERO,
            to_shard: VecDeque::new(),
            to_edge: VecDeque::new(),
            proposed: VecDeque::new(),
            reads: VecDeque::new(),
            jobs: VecDeque::new(),
            held: false,
            passwords_full: false,
            counted: Vec::new(),
            authentications: Vec::new(),
            timed_out: Vec::new(),
        };
        lone.lead();
        lone
    }

    fn lead(&mut self) {
        let term = self.standing.term.term + 1;
        self.with_shard(|shard, io| shard.lead(term, io).expect("readable"));
        self.run();
    }

    /// An operator adds an account.
    pub fn add(&mut self, account: Account) {
        self.with_shard(|shard, io| shard.administer(0, Administer::Add(account), io));
        self.run();
    }

    /// Whoever connects from now on is asked to come back to this place (XEP-0198 §5).
    pub fn be_at(&mut self, place: &str) {
        Arc::make_mut(&mut self.edge_config).location = Some(place.into());
    }

    /// Somebody connects and says this.
    pub fn connect(&mut self, xml: &str) -> (Conn, String) {
        let conn = Conn(self.strangers.len() as u64 + 1);
        let stranger = Stranger {
            connection: Connection::new(conn, Arc::clone(&self.edge_config), None),
            framer: Framer::new(),
            input: VecDeque::new(),
            heard: String::new(),
            taken: 0,
            open: true,
        };
        self.strangers.insert(conn, stranger);
        let heard = self.say(conn, xml);
        (conn, heard)
    }

    /// Somebody says this; what does it hear?
    pub fn say(&mut self, conn: Conn, xml: &str) -> String {
        if let Some(stranger) = self.strangers.get_mut(&conn) {
            stranger.input.extend(xml.as_bytes());
        }
        self.feed(conn);
        self.run();
        self.heard(conn)
    }

    /// What somebody has heard since.
    pub fn heard(&mut self, conn: Conn) -> String {
        let stranger = self.strangers.get_mut(&conn);
        stranger
            .map(|stranger| std::mem::take(&mut stranger.heard))
            .unwrap_or_default()
    }

    /// Whether somebody's socket is open.
    pub fn is_open(&self, conn: Conn) -> bool {
        self.strangers.get(&conn).is_some_and(|stranger| stranger.open)
    }

    /// Somebody's socket is gone.
    pub fn cut(&mut self, conn: Conn) {
        if let Some(stranger) = self.strangers.get_mut(&conn) {
            stranger.open = false;
        }
        self.with_connection(conn, |connection, io| connection.closed(io));
        self.run();
    }

    /// Time passes, half a second at a time.
    pub fn pass(&mut self, time: Duration) {
        let end = self.elapsed + time;
        while self.elapsed < end {
            self.elapsed += Duration::from_millis(500);
            self.with_shard(Shard::tick);
            for conn in self.strangers.keys().copied().collect::<Vec<_>>() {
                self.with_connection(conn, |connection, io| {
                    if connection.needs_ticks() {
                        connection.tick(io);
                    }
                });
            }
            self.run();
        }
    }

    /// From now on nothing is committed.
    pub fn hold_commits(&mut self) {
        self.held = true;
    }

    /// The shard gets another leader. What had been proposed is committed, or is not; nobody has heard of it.
    pub fn fail_over(&mut self, committed: bool) {
        for (_, batch) in std::mem::take(&mut self.proposed) {
            if committed {
                self.disk.apply(&batch);
            }
        }
        self.held = false;
        self.to_edge.clear();
        self.shard = Shard::new(ShardId(0), Arc::clone(&self.shard_config));
        self.lead();
    }

    /// The keys of all rows of an account.
    pub fn rows_of(&self, account: &str) -> Vec<Key> {
        let slot = crate::jid::slot(account).to_be_bytes();
        let own = |key: &&Key| {
            key.starts_with(&slot) && key.get(3..).is_some_and(|rest| rest.starts_with(account.as_bytes()))
        };
        self.disk.keys().filter(own).cloned().collect()
    }

    /// The keys of all rows of the shard itself.
    pub fn rows_of_shard(&self) -> Vec<Key> {
        let slot = crate::rows::SHARD_SLOTS.to_be_bytes();
        self.disk.keys().filter(|key| key.starts_with(&slot)).cloned().collect()
    }

    fn run(&mut self) {
        loop {
            if let Some((term, message)) = self.to_shard.pop_front() {
                self.with_shard(|shard, io| shard.from_edge(EDGE, term, message, io));
            } else if let Some((term, message)) = self.to_edge.pop_front() {
                self.from_shard(term, message);
            } else if let Some((conn, job)) = self.jobs.pop_front() {
                let full = self.passwords_full;
                self.with_connection(conn, |connection, io| match full {
                    false => connection.password_done(job.run(), io),
                    true => connection.password_refused(io),
                });
                self.feed(conn);
            } else if let Some(read) = self.reads.pop_front() {
                let rows = self.disk.scan(&read.prefix, &read.from, read.limit).expect("readable");
                self.with_shard(|shard, io| shard.page(read.reader, read.ticket, rows, io));
            } else if !self.held && !self.proposed.is_empty() {
                while let Some((no, batch)) = self.proposed.pop_front() {
                    self.disk.apply(&batch);
                    self.with_shard(|shard, io| shard.committed(no, io));
                }
            } else {
                return;
            }
        }
    }

    fn with_shard(&mut self, step: impl FnOnce(&mut Shard, &mut shard::Io<'_>)) {
        let mut out = Vec::new();
        let mut io = shard::Io {
            rows: &self.disk,
            now: Timestamp(BEGINNING + self.elapsed.as_micros() as u64),
            elapsed: self.elapsed,
            random: &mut self.seed,
            out: &mut out,
        };
        step(&mut self.shard, &mut io);
        self.shard.flush(&mut io);
        for output in out {
            match output {
                Output::Propose { no, batch } => self.proposed.push_back((no, batch)),
                Output::Edge { term, message, .. } | Output::AllEdges { term, message } => {
                    self.to_edge.push_back((term, message));
                }
                Output::Read(read) => self.reads.push_back(read),
                Output::Count(event) => self.counted.push(event),
                Output::Await(_) | Output::Peer { .. } | Output::AllPeers { .. } | Output::Administered { .. } => {}
            }
        }
    }

    fn from_shard(&mut self, term: Term, message: ToEdge) {
        match &message {
            ToEdge::Lead => {
                self.standing = Standing { term, leads: false };
                let (mut sessions, mut asking) = (Vec::new(), Vec::new());
                for stranger in self.strangers.values_mut() {
                    match stranger.connection.attach(ShardId(0)) {
                        Attach::Session(attachment) => sessions.push(*attachment),
                        Attach::Asking(conn) => asking.push(conn),
                        Attach::Nothing => {}
                    }
                }
                let last = true;
                let attach = ToShard::Attach { sessions, asking, last };
                return self.to_shard.push_back((term, attach));
            }
            ToEdge::Leading => {
                self.standing = Standing { term, leads: true };
                for conn in self.strangers.keys().copied().collect::<Vec<_>>() {
                    self.with_connection(conn, |connection, io| connection.leading(ShardId(0), io));
                    self.feed(conn);
                }
                return;
            }
            _ if term != self.standing.term => return,
            _ => {}
        }
        let conn = match &message {
            ToEdge::Accepted(accepted) => {
                for (conn, up_to) in accepted.clone() {
                    self.with_connection(conn, |connection, io| connection.accepted(up_to, io));
                    self.feed(conn);
                }
                return;
            }
            ToEdge::Credentials { conn, .. }
            | ToEdge::Registered { conn, .. }
            | ToEdge::Remember { conn, .. }
            | ToEdge::Bound { conn, .. }
            | ToEdge::Resumed { conn, .. }
            | ToEdge::Managed { conn, .. }
            | ToEdge::Deliver { conn, .. }
            | ToEdge::Detached { conn }
            | ToEdge::Close { conn, .. } => *conn,
            ToEdge::Lead | ToEdge::Leading => return,
        };
        self.with_connection(conn, |connection, io| connection.from_shard(message, io));
        self.feed(conn);
    }

    fn feed(&mut self, conn: Conn) {
        while let Some(stranger) = self.strangers.get_mut(&conn) {
            if !stranger.connection.wants_frames() || stranger.input.is_empty() {
                return;
            }
            let length = stranger.input.len();
            let mut input: &[u8] = stranger.input.make_contiguous();
            let frame = stranger.framer.next(&mut input, stranger.connection.limits());
            let used = length - input.len();
            stranger.input.drain(..used);
            match frame {
                Ok(Some(frame)) => self.with_connection(conn, |connection, io| connection.frame(frame, io)),
                Ok(None) => return,
                Err(error) => self.with_connection(conn, |connection, io| connection.malformed(error, io)),
            }
        }
    }

    fn with_connection(&mut self, conn: Conn, step: impl FnOnce(&mut Connection, &mut edge::Io<'_>)) {
        let Some(mut stranger) = self.strangers.remove(&conn) else {
            return;
        };
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        let mut io = edge::Io {
            shards: &self.standing,
            elapsed: self.elapsed,
            random: &mut self.seed,
            bytes: &mut bytes,
            taken: stranger.taken,
            out: &mut out,
        };
        step(&mut stranger.connection, &mut io);
        stranger.connection.flush(&mut io);
        let total = io.taken + io.bytes.len() as u64;
        if stranger.open {
            stranger.connection.written(total, &mut io);
            stranger.heard.push_str(&String::from_utf8_lossy(&bytes));
        }
        stranger.taken = total;
        for output in out {
            match output {
                edge::Output::Shard { term, message, .. } => self.to_shard.push_back((term, message)),
                edge::Output::Restart => stranger.framer.restart(),
                edge::Output::Close => stranger.open = false,
                edge::Output::Password(job) | edge::Output::Register(job) => self.jobs.push_back((conn, job)),
                edge::Output::TimedOut(phase) => self.timed_out.push(phase),
                edge::Output::Authenticated {
                    mechanism,
                    failed_before,
                } => self.authentications.push(Ok((mechanism, failed_before))),
                edge::Output::NotAuthenticated(condition) => self.authentications.push(Err(condition)),
                edge::Output::Forget | edge::Output::StartTls => {}
            }
        }
        self.strangers.insert(conn, stranger);
    }
}
