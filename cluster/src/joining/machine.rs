//! A node that is to come into a cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use heronry_storage::NodeId;
use tokio::time::Instant;

use super::{About, Answer, Ask, JoinOptions, MET_MAX, Please, SEEDS_MAX, Standing, team::team};
use crate::{identity::ClusterId, map::ClusterMap};

/// How often each address is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How long an answer is waited for; then it is asked again.
const ANSWER_IN: Duration = Duration::from_secs(5);

/// Who has not been heard for so long is not counted among those who have met.
const MET_FOR: Duration = Duration::from_secs(15);

/// How often a node that waits says what it waits for.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What is to be done for a node that is to come into a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask whoever is at this address ([`Ask`], encoded), and give the answer to [`Joining::answered`]. It may be given up after
    /// five seconds.
    Call {
        /// Which question.
        number: u64,
        /// `host:port`.
        address: String,
        /// What to ask.
        ask: Bytes,
    },
    /// Answer the question that was given to [`Joining::asked`] with this ticket ([`Answer`], encoded).
    Reply {
        /// Which question.
        ticket: u64,
        /// What to say.
        answer: Bytes,
    },
    /// Put this on the disk in place of what is there, and call [`Joining::kept`] when it is durable. One at a time.
    Keep(Standing),
    /// Tell the operator.
    Say(String),
    /// The node is a member of the cluster with this map, and its disk says so. Nothing follows. A map of version 0 is that of a
    /// cluster that was founded here: what [`ClusterMap::rows`] says is what its metadata group begins with.
    Done(Box<ClusterMap>),
}

/// The options are no way to come into a cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// More seeds than are asked.
    #[error("there are {0} seeds, and {SEEDS_MAX} at most can be asked")]
    Seeds(usize),
    /// Not all seeds can be among those who found.
    #[error("bootstrap is {bootstrap}, but there are {seeds} seeds, and all of them found the cluster")]
    Bootstrap {
        /// How many nodes found together.
        bootstrap: u16,
        /// How many seeds there are.
        seeds: usize,
    },
    /// More than can meet.
    #[error("bootstrap is {0}; at most {MET_MAX} nodes can found a cluster together, and the others can join it")]
    TooMany(u16),
}

/// `init` was refused. Each is a sentence for an operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoInit {
    /// Another node may be founding at this moment.
    #[error(
        "this node has pledged to let node {to} at {address} found the cluster, which may be doing so; start that node, or run \
         init there; if it is gone for good, force it here"
    )]
    Pledged {
        /// Who may.
        to: NodeId,
        /// Where it is.
        address: String,
    },
    /// A member has answered.
    #[error("there is a cluster, which this node waits to be let into: {address} says: {said}")]
    Cluster {
        /// Where.
        address: String,
        /// What it said.
        said: String,
    },
    /// Something is being written.
    #[error("the node is writing to its disk; ask again")]
    Busy,
}

/// The state machine of a node that is to come into a cluster; see the [module](super).
///
/// After each call of any method, [`poll`](Self::poll) says what is to be done.
#[derive(Debug)]
pub struct Joining {
    options: JoinOptions,
    /// Of a cluster that is founded here.
    cluster: ClusterId,
    standing: Standing,
    keeping: Option<Keeping>,
    seeds: BTreeMap<String, Seed>,
    met: BTreeMap<NodeId, Met>,
    /// Nodes that others have met, and when that was said.
    hearsay: BTreeMap<NodeId, (String, Instant)>,
    /// When an address is asked again, for those that were asked.
    asked: BTreeMap<String, Instant>,
    calls: BTreeMap<u64, Call>,
    last_call: u64,
    /// The last call that was made before the pledge was given for the last time.
    pledged_at: u64,
    candidacy: Option<Candidacy>,
    /// Grows with each candidacy.
    round: u64,
    say_at: Instant,
    done: bool,
    actions: Vec<Action>,
}

#[derive(Debug)]
struct Seed {
    node: Option<NodeId>,
    said: Said,
}

#[derive(Debug)]
enum Said {
    Nothing,
    /// It could not be asked.
    Failed(String),
    /// It waits as well.
    Waits,
    /// It is a member.
    Member(String),
}

#[derive(Debug)]
struct Met {
    about: About,
    heard: Instant,
}

#[derive(Debug)]
struct Call {
    address: String,
    until: Instant,
}

#[derive(Debug)]
struct Keeping {
    standing: Standing,
    /// Who has asked for the pledge that is being written, with its round.
    asked_by: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Candidacy {
    team: BTreeSet<NodeId>,
    pledges: BTreeSet<NodeId>,
}

impl Joining {
    /// A node whose disk says `standing`. `cluster`: a random id, for a cluster that is founded here; `random`: any number.
    ///
    /// # Errors
    /// When the options are no way to come into a cluster.
    pub fn new(
        options: JoinOptions,
        standing: Standing,
        cluster: ClusterId,
        random: u64,
        now: Instant,
    ) -> Result<Self, JoinError> {
        let seeds = options.seeds.len();
        if seeds > SEEDS_MAX {
            return Err(JoinError::Seeds(seeds));
        }
        match options.bootstrap {
            Some(count) if usize::from(count) > MET_MAX => return Err(JoinError::TooMany(count)),
            Some(bootstrap) if usize::from(bootstrap) < seeds => return Err(JoinError::Bootstrap { bootstrap, seeds }),
            _ => {}
        }
        let me = options.me.node;
        let seed = |address: &String| Seed {
            node: (*address == options.me.address).then_some(me),
            said: Said::Nothing,
        };
        let seeds = options
            .seeds
            .iter()
            .map(|address| (address.clone(), seed(address)))
            .collect();
        let mut joining = Self {
            options,
            cluster,
            standing,
            keeping: None,
            seeds,
            met: BTreeMap::new(),
            hearsay: BTreeMap::new(),
            asked: BTreeMap::new(),
            calls: BTreeMap::new(),
            last_call: 0,
            pledged_at: 0,
            candidacy: None,
            round: random,
            say_at: now + SAY_EVERY,
            done: false,
            actions: Vec::new(),
        };
        match joining.standing.clone() {
            Standing::Member(map) => joining.finish(map),
            _ if joining.seeds.is_empty() => joining.found(),
            Standing::Alone | Standing::Pledged { .. } => {}
        }
        Ok(joining)
    }

    /// What is to be done now.
    pub fn poll(&mut self, now: Instant) -> Vec<Action> {
        if !self.done && !self.is_becoming_member() {
            self.forget(now);
            self.stand();
            self.ask(now);
            if now >= self.say_at {
                self.say_at = now + SAY_EVERY;
                self.actions.push(Action::Say(self.sentence()));
            }
        }
        std::mem::take(&mut self.actions)
    }

    /// When [`poll`](Self::poll) is to be called, if nothing happens before; `None`: there is no need.
    pub fn next_poll(&self) -> Option<Instant> {
        if self.done || self.is_becoming_member() {
            return None;
        }
        let calls = self.calls.values().map(|call| call.until);
        let open = self.asked.iter().filter(|(address, _)| !self.is_called(address));
        calls.chain(open.map(|(_, at)| *at)).chain([self.say_at]).min()
    }

    /// What the node waits for, in a sentence.
    pub fn sentence(&self) -> String {
        let name = &self.options.cluster_name;
        if self.done {
            return format!("this node is a member of cluster {name:?}");
        }
        let seeds: Vec<_> = self
            .seeds
            .iter()
            .map(|(address, seed)| format!("{address} {}", seed.said))
            .collect();
        let waits = format!("waiting to be let into cluster {name:?}: {}", seeds.join("; "));
        if self.options.has_data {
            return format!(
                "{waits}; but this node belongs to no cluster and holds data, so nobody will let it in: give it an empty data \
                 directory, or no seeds"
            );
        }
        match (&self.standing, self.options.bootstrap) {
            (Standing::Pledged { to, address }, _) => {
                format!("{waits}; this node has pledged to let node {to} at {address} found the cluster")
            }
            (_, Some(count)) => match team(self.me(), count.into(), &self.known()) {
                Err(reason) => format!("{waits}; to found it together: {reason}"),
                Ok(team) => match &self.candidacy {
                    Some(candidacy) => {
                        let left: Vec<_> = candidacy.missing(self.me()).map(|node| node.to_string()).collect();
                        format!("{waits}; to found it, this node waits for {}", left.join(", "))
                    }
                    None => format!(
                        "{waits}; node {} is to found it",
                        team.first().copied().unwrap_or_else(|| self.me())
                    ),
                },
            },
            (_, None) => format!("{waits}; if there is no cluster yet, run `heronry cluster init` at one node"),
        }
    }

    /// The answer to a call, or why there is none.
    pub fn answered(&mut self, number: u64, answer: Result<Bytes, String>, now: Instant) {
        let Some(call) = self.calls.remove(&number) else { return };
        if self.done || self.is_becoming_member() {
            return;
        }
        let answer = answer.and_then(|bytes| Answer::decode(&bytes).map_err(|error| error.to_string()));
        let said = match answer {
            Ok(Answer::Waiting { about, pledged }) => match self.hear(&about, now) {
                Ok(()) => {
                    self.heard_at(number, &call.address, &about, pledged);
                    Said::Waits
                }
                Err(sentence) => Said::Failed(sentence),
            },
            // What is being written comes first; it asks again in a moment.
            Ok(Answer::Admitted(_)) if self.keeping.is_some() => return,
            Ok(Answer::Admitted(map)) => match self.check_admission(&map) {
                Ok(()) => return self.keep(Standing::Member(map), None),
                Err(sentence) => Said::Failed(sentence),
            },
            Ok(Answer::Refused(sentence) | Answer::NotNow(sentence)) => Said::Member(sentence),
            Err(error) => Said::Failed(error),
        };
        if let Some(seed) = self.seeds.get_mut(&call.address) {
            seed.said = said;
        }
    }

    /// Another node that is no member asks ([`Ask`], encoded). The answer is an [`Action::Reply`] with this ticket, now or after
    /// [`kept`](Self::kept).
    pub fn asked(&mut self, ticket: u64, ask: &[u8], now: Instant) {
        let answer = match Ask::decode(ask) {
            Err(error) => Answer::Refused(error.to_string()),
            Ok(_) if self.done => Answer::NotNow("this node has become a member a moment ago".to_owned()),
            Ok(ask) => match self.hear(&ask.about, now) {
                // It finds out by itself that this node waits for something else.
                Err(_) => self.waiting(None),
                Ok(()) => {
                    let pledged = ask.please.as_ref().filter(|please| self.grants(&ask.about, please));
                    match pledged.map(|please| please.round) {
                        Some(round) if !self.is_pledged_to(ask.about.node.node) => {
                            return self.pledge(&ask.about, (ticket, round));
                        }
                        pledged => {
                            if pledged.is_some() {
                                self.pledged_at = self.last_call;
                            }
                            self.waiting(pledged)
                        }
                    }
                }
            },
        };
        self.reply(ticket, &answer);
    }

    /// What [`Action::Keep`] said is durable.
    pub fn kept(&mut self) {
        let Some(Keeping { standing, asked_by }) = self.keeping.take() else {
            return;
        };
        self.standing = standing;
        if let Standing::Member(map) = &self.standing {
            return self.finish(map.clone());
        }
        if let Some((ticket, round)) = asked_by {
            let answer = self.waiting(Some(round));
            self.reply(ticket, &answer);
        }
    }

    /// An operator says that the cluster begins here. Said again, it changes nothing.
    ///
    /// # Errors
    /// When there is, or may be, another one. `force` goes on all the same: then there may be two clusters.
    pub fn init(&mut self, force: bool) -> Result<(), NoInit> {
        if self.done || self.is_becoming_member() {
            return Ok(());
        }
        if self.keeping.is_some() {
            return Err(NoInit::Busy);
        }
        if let (Standing::Pledged { to, address }, false) = (&self.standing, force) {
            return Err(NoInit::Pledged {
                to: *to,
                address: address.clone(),
            });
        }
        let member = self.seeds.iter().find_map(|(address, seed)| match &seed.said {
            Said::Member(said) => Some((address.clone(), said.clone())),
            _ => None,
        });
        if let (Some((address, said)), false) = (member, force) {
            return Err(NoInit::Cluster { address, said });
        }
        self.found();
        Ok(())
    }

    fn me(&self) -> NodeId {
        self.options.me.node
    }

    /// What is being written makes it a member.
    fn is_becoming_member(&self) -> bool {
        let standing = self.keeping.as_ref().map(|keeping| &keeping.standing);
        matches!(standing, Some(Standing::Member(_)))
    }

    fn is_pledged_to(&self, node: NodeId) -> bool {
        matches!(self.standing, Standing::Pledged { to, .. } if to == node)
    }

    fn is_called(&self, address: &str) -> bool {
        self.calls.values().any(|call| call.address == address)
    }

    fn about(&self) -> About {
        About {
            node: self.options.me.clone(),
            cluster_name: self.options.cluster_name.clone(),
            is_empty: !self.options.has_data,
            bootstrap: self.options.bootstrap,
            seeds: self
                .seeds
                .iter()
                .map(|(address, seed)| (address.clone(), seed.node))
                .collect(),
            // Who is founding is a candidate until its disk says that it is a member.
            is_candidate: self.candidacy.is_some() || self.is_becoming_member(),
            pledged_to: match self.standing {
                Standing::Pledged { to, .. } => Some(to),
                _ => None,
            },
            met: self
                .met
                .iter()
                .map(|(node, met)| (*node, met.about.node.address.clone()))
                .collect(),
        }
    }

    fn waiting(&self, pledged: Option<u64>) -> Answer {
        Answer::Waiting {
            about: Box::new(self.about()),
            pledged,
        }
    }

    fn reply(&mut self, ticket: u64, answer: &Answer) {
        let answer = answer.encode();
        self.actions.push(Action::Reply { ticket, answer });
    }

    /// Everybody who has said something lately, this node included.
    fn known(&self) -> BTreeMap<NodeId, About> {
        let met = self.met.iter().map(|(node, met)| (*node, met.about.clone()));
        met.chain([(self.me(), self.about())]).collect()
    }

    /// Remembers what another node that waits has said of itself.
    fn hear(&mut self, about: &About, now: Instant) -> Result<(), String> {
        let (node, name) = (about.node.node, &self.options.cluster_name);
        if about.cluster_name != *name {
            return Err(format!(
                "node {node} waits for cluster {:?}, and this one for {name:?}",
                about.cluster_name
            ));
        }
        if node == self.me() {
            return Ok(());
        }
        if self.met.len() < MET_MAX || self.met.contains_key(&node) {
            let about = about.clone();
            self.met.insert(node, Met { about, heard: now });
            self.hearsay.remove(&node);
        }
        for (node, address) in &about.met {
            let is_new = *node != self.me() && !self.met.contains_key(node);
            if is_new && (self.hearsay.len() < MET_MAX || self.hearsay.contains_key(node)) {
                self.hearsay.insert(*node, (address.clone(), now));
            }
        }
        Ok(())
    }

    /// Somebody at this address has answered call `number` that it waits too.
    fn heard_at(&mut self, number: u64, address: &str, about: &About, pledged: Option<u64>) {
        let node = about.node.node;
        if let Some(seed) = self.seeds.get_mut(address) {
            seed.node = Some(node);
        }
        if let Some(candidacy) = self.candidacy.as_mut().filter(|_| pledged == Some(self.round)) {
            candidacy.pledges.insert(node);
        }
        // Only what was asked after the pledge was given can end it: an older answer may be of a candidacy before.
        if let (Standing::Pledged { to, address: at }, None) = (&self.standing, &self.keeping)
            && number > self.pledged_at
        {
            let gave_up = node == *to && !about.is_candidate;
            // The data directory of whom it pledged to is gone, and what it may have founded with it.
            let was_replaced = node != *to && node != self.options.me.node && address == at && about.is_empty;
            if gave_up || was_replaced {
                self.keep(Standing::Alone, None);
            }
        }
    }

    fn check_admission(&self, map: &ClusterMap) -> Result<(), String> {
        let me = map.nodes.get(&self.me());
        match me.is_some_and(|me| me.state.is_present()) && map.name == self.options.cluster_name {
            true => Ok(()),
            false => Err("says that this node is a member, and its map does not".to_owned()),
        }
    }

    /// Whether `candidate` may found the cluster with this team.
    fn grants(&self, candidate: &About, please: &Please) -> bool {
        let (me, founder) = (self.me(), candidate.node.node);
        let is_team = please.team.contains(&me)
            && please.team.first() == Some(&founder)
            && founder != me
            && self.options.bootstrap.map(usize::from) == Some(please.team.len());
        let seeds_in_team = self
            .seeds
            .values()
            .all(|seed| seed.node.is_some_and(|node| please.team.contains(&node)));
        let fits = candidate.bootstrap == self.options.bootstrap && candidate.is_empty && !self.options.has_data;
        let is_free = self.standing == Standing::Alone || self.is_pledged_to(founder);
        is_team && seeds_in_team && fits && is_free && self.keeping.is_none()
    }

    fn pledge(&mut self, to: &About, asked_by: (u64, u64)) {
        self.candidacy = None;
        self.pledged_at = self.last_call;
        let standing = Standing::Pledged {
            to: to.node.node,
            address: to.node.address.clone(),
        };
        self.keep(standing, Some(asked_by));
    }

    fn keep(&mut self, standing: Standing, asked_by: Option<(u64, u64)>) {
        self.actions.push(Action::Keep(standing.clone()));
        self.keeping = Some(Keeping { standing, asked_by });
    }

    fn found(&mut self) {
        let JoinOptions {
            me,
            cluster_name,
            shards,
            ..
        } = &self.options;
        let map = ClusterMap::founded(self.cluster, cluster_name, me, *shards);
        self.actions
            .push(Action::Say(format!("founding cluster {cluster_name:?}")));
        self.keep(Standing::Member(Box::new(map)), None);
    }

    fn finish(&mut self, map: Box<ClusterMap>) {
        self.done = true;
        self.actions.push(Action::Done(map));
    }

    fn forget(&mut self, now: Instant) {
        self.calls.retain(|_, call| call.until > now);
        self.met.retain(|_, met| met.heard + MET_FOR > now);
        self.hearsay.retain(|_, (_, said)| *said + MET_FOR > now);
    }

    /// Becomes a candidate, remains or ceases to be one, and founds with the pledges of all.
    fn stand(&mut self) {
        let me = self.me();
        let may = self.standing == Standing::Alone && self.keeping.is_none() && !self.options.has_data;
        let count = self.options.bootstrap.filter(|_| may);
        let team = count.and_then(|count| team(me, count.into(), &self.known()).ok());
        let team = team.filter(|team| team.first() == Some(&me));
        if self.candidacy.as_ref().map(|candidacy| &candidacy.team) != team.as_ref() {
            self.round = self.round.wrapping_add(1);
            self.candidacy = team.map(|team| Candidacy {
                team,
                pledges: BTreeSet::new(),
            });
        }
        if self
            .candidacy
            .as_ref()
            .is_some_and(|candidacy| candidacy.missing(me).next().is_none())
        {
            self.found();
        }
    }

    /// Asks every address whose turn it is.
    fn ask(&mut self, now: Instant) {
        if self.is_becoming_member() {
            return;
        }
        let mut addresses: BTreeSet<String> = self.seeds.keys().cloned().collect();
        if self.options.bootstrap.is_some() {
            addresses.extend(self.met.values().map(|met| met.about.node.address.clone()));
            addresses.extend(self.hearsay.values().map(|(address, _)| address.clone()));
        }
        if let Standing::Pledged { address, .. } = &self.standing {
            addresses.insert(address.clone());
        }
        addresses.remove(&self.options.me.address);
        self.asked.retain(|address, _| addresses.contains(address));
        let ask = Ask {
            about: self.about(),
            please: self.candidacy.as_ref().map(|candidacy| Please {
                round: self.round,
                team: candidacy.team.clone(),
            }),
        };
        for address in addresses {
            if self.is_called(&address) || self.asked.get(&address).is_some_and(|again| *again > now) {
                continue;
            }
            self.asked.insert(address.clone(), now + ASK_EVERY);
            self.last_call += 1;
            let (number, until) = (self.last_call, now + ANSWER_IN);
            self.calls.insert(
                number,
                Call {
                    address: address.clone(),
                    until,
                },
            );
            self.actions.push(Action::Call {
                number,
                address,
                ask: ask.encode(),
            });
        }
    }
}

impl Candidacy {
    /// Those of the team who have not pledged.
    fn missing(&self, me: NodeId) -> impl Iterator<Item = NodeId> {
        self.team
            .iter()
            .copied()
            .filter(move |node| *node != me && !self.pledges.contains(node))
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("has not answered"),
            Self::Failed(error) => write!(f, "did not answer: {error}"),
            Self::Waits => f.write_str("waits as well"),
            Self::Member(said) => write!(f, "says: {said}"),
        }
    }
}
