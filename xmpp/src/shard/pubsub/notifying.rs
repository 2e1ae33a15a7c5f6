//! Subscribers in this shard are notified, a page of them at a time.
//!
//! A notification is a row from the batch that notes it until a while after its last page; whoever leads next delivers it again. Its
//! stamp is the origin of its deliveries, so edges drop what comes twice, and the key of what is stored. Notifications of one
//! node follow each other; those of different nodes take turns.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;

use super::super::{Io, Output, Place, Read, Reader, Shard, Turn};
use crate::im::delivery::Disposition;
use crate::im::stored::is_storable;
use crate::jid::Jid;
use crate::link::Origin;
use crate::rows::{Key, Timestamp, Value, Write};
use crate::stanza::{Kind, MessageType, Stanza};
use crate::xep::pubsub::effect::{Finding, FollowerRow, Notify, PubsubEffect};
use crate::xep::pubsub::{
    NodeAddress, Options, followers_prefix, node_of_notification, notifying_key, notifyings_prefix, subscriber_of,
};
use crate::xml::{CLIENT, Element};

/// The namespace of XEP-0131.
const NS_SHIM: &str = "http://jabber.org/protocol/shim";

/// How long a notification is kept after its last page. A link that loses a delivery is known to have done so by then, and that
/// begins another round of the term.
const KEEP: Duration = Duration::from_secs(10);

/// Rows that are read or removed at once.
const ROWS: usize = 256;

/// The notifications of a shard.
#[derive(Debug, Default)]
pub(super) struct Notifying {
    /// Nodes that have any, whose turn it is next first. Each once.
    turns: VecDeque<NodeAddress>,
    by_node: HashMap<NodeAddress, VecDeque<Job>>,
    /// The one whose followers are being read, and the ticket of that.
    reading: Option<(u64, NodeAddress)>,
    /// Notifications that are delivered, and since when.
    done: VecDeque<(u64, Duration)>,
    /// How many pages have been asked for.
    tickets: u64,
}

/// A notification that is being delivered.
#[derive(Debug)]
struct Job {
    stamp: u64,
    /// Once it has begun: what it is, and the followers it goes on with.
    begun: Option<(Arc<Notify>, Key)>,
}

impl Shard {
    /// Keeps a notification until it is delivered; says under which stamp. The stamp after it is its own, too.
    pub(super) fn keep_notification(&mut self, turn: &mut Turn, notify: &Notify, io: &Io<'_>) -> u64 {
        let stamp = self.stamp(io).0;
        self.clock += 1;
        let row = PubsubEffect::Notify(notify.clone()).encode();
        turn.writes.push(Write::Put(notifying_key(self.id, stamp), row));
        stamp
    }

    /// A notification is committed: it is delivered when its turn has come.
    pub(in super::super) fn begin_notifying(&mut self, address: NodeAddress, stamp: u64, io: &mut Io<'_>) {
        self.pubsub.notifying.add(address, stamp);
        self.go_on_with_followers(io);
    }

    /// A term begins: what a former leader was delivering is delivered again.
    pub(in super::super) fn go_on_notifying(&mut self, io: &mut Io<'_>) {
        let prefix = notifyings_prefix(self.id);
        let mut from = prefix.clone();
        loop {
            let page = match io.rows.scan(&prefix, &from, ROWS) {
                Ok(page) => page,
                Err(error) => return tracing::error!(%error, "notifications cannot be read"),
            };
            for (key, row) in &page {
                let stamp = key.last_chunk::<8>().map_or(0, |stamp| u64::from_be_bytes(*stamp));
                match PubsubEffect::decode(row.clone()) {
                    Some(effect) => self.pubsub.notifying.add(effect.address().clone(), stamp),
                    None => tracing::error!(stamp, "a notification cannot be read"),
                }
            }
            match page.last() {
                Some((key, _)) if page.len() == ROWS => from = [&key[..], &[0]].concat().into(),
                _ => break,
            }
        }
        self.go_on_with_followers(io);
    }

    /// Asks for the next page of followers, of the node whose turn it is.
    fn go_on_with_followers(&mut self, io: &mut Io<'_>) {
        while self.pubsub.notifying.reading.is_none()
            && let Some(address) = self.pubsub.notifying.turns.pop_front()
        {
            let limit = self.config.limits.pubsub.follower_rows;
            let Some(stamp) = self.pubsub.notifying.first(&address).map(|job| job.stamp) else {
                continue;
            };
            if self
                .pubsub
                .notifying
                .first(&address)
                .is_some_and(|job| job.begun.is_none())
            {
                let row = io.rows.row(&notifying_key(self.id, stamp)).ok().flatten();
                let Some(PubsubEffect::Notify(notify)) = row.and_then(PubsubEffect::decode) else {
                    tracing::error!(stamp, "a notification cannot be read");
                    self.pubsub.notifying.finish(&address);
                    self.pubsub.notifying.take_turn(&address);
                    continue;
                };
                let from = followers_prefix(self.id, &notify.address, notify.incarnation);
                if let Some(job) = self.pubsub.notifying.first(&address) {
                    job.begun = Some((Arc::new(notify), from));
                }
            }
            let begun = self.pubsub.notifying.first(&address).and_then(|job| job.begun.clone());
            let Some((notify, from)) = begun else { continue };
            self.pubsub.notifying.tickets += 1;
            let ticket = self.pubsub.notifying.tickets;
            self.pubsub.notifying.reading = Some((ticket, address));
            io.out.push(Output::Read(Read {
                reader: Reader::Notifying,
                ticket,
                prefix: followers_prefix(self.id, &notify.address, notify.incarnation),
                from,
                limit,
            }));
        }
    }

    /// A page of followers has been read.
    pub(in super::super) fn followers_read(&mut self, ticket: u64, rows: Vec<(Key, Value)>, io: &mut Io<'_>) {
        let reading = self.pubsub.notifying.reading.take_if(|(awaited, _)| *awaited == ticket);
        let Some((_, address)) = reading else { return };
        let job = self.pubsub.notifying.first(&address);
        let Some((stamp, (notify, _))) = job.and_then(|job| Some((job.stamp, job.begun.clone()?))) else {
            return;
        };
        let full = rows.len() == self.config.limits.pubsub.follower_rows;
        let prefix = followers_prefix(self.id, &notify.address, notify.incarnation);
        let mut followers: Vec<Follower> = rows
            .into_iter()
            .filter_map(|row| Follower::read(row, prefix.len()))
            .collect();
        // The subscriptions of one address are notified together: the last one's may go on on the next page.
        let mut next = None;
        if full && let Some(last) = followers.last().map(|last| last.jid.clone()) {
            let whole = followers.iter().filter(|follower| follower.jid != last).count();
            if whole > 0 {
                next = followers.get(whole).map(|first| first.key.clone());
                followers.truncate(whole);
            } else {
                next = followers.last().map(|last| [&last.key[..], &[0]].concat().into());
            }
        }
        for subscriptions in followers.chunk_by(|one, other| one.jid == other.jid) {
            self.notify_subscriber(&notify, stamp, subscriptions, io);
        }
        if notify.ends {
            let mut turn = Turn::of_shard();
            for follower in &followers {
                self.drop_follower(
                    &mut turn,
                    &notify.address,
                    notify.incarnation,
                    &follower.jid,
                    &follower.subid,
                );
            }
            self.finish(turn, io);
        }
        match next {
            Some(next) => {
                if let Some(job) = self.pubsub.notifying.first(&address) {
                    job.begun = Some((notify, next));
                }
            }
            None => {
                self.pubsub.notifying.finish(&address);
                self.pubsub.notifying.done.push_back((stamp, io.elapsed));
            }
        }
        self.pubsub.notifying.take_turn(&address);
        self.go_on_with_followers(io);
    }

    /// Gives a notification to one subscriber, once for all its subscriptions that want it (XEP-0060 §6.1.6).
    fn notify_subscriber(&mut self, notify: &Notify, stamp: u64, subscriptions: &[Follower], io: &mut Io<'_>) {
        let Some(jid) = subscriptions.first().map(|follower| follower.jid.clone()) else {
            return;
        };
        // Whoever has to be there gets it where it is; whoever has not gets it as any message.
        let mut wanting = Vec::new();
        let mut places = Vec::new();
        let mut anyway = false;
        for follower in subscriptions {
            let options = follower.options();
            if notify.ends {
                anyway = true;
            } else if follower.row.since >= notify.number || !options.deliver {
                continue;
            } else if notify.only_available || options.asks_for_presence() {
                let shown = self.shown_as(&jid, &options);
                if shown.is_empty() {
                    continue;
                }
                places.extend(shown);
            } else {
                anyway = true;
            }
            wanting.push(follower);
        }
        if wanting.is_empty() {
            return;
        }
        let mut stanza = (*notify.stanza).clone().with_to(jid.clone());
        if subscriptions.len() > 1 && !notify.ends {
            stanza = stanza.with_appended(&headers(&wanting));
        }
        let stanza = Arc::new(stanza);
        let mut turn = Turn::of(&jid.to_bare());
        if anyway {
            self.bring(&mut turn, &jid, stanza, stamp, io);
        } else {
            places.sort_unstable();
            places.dedup();
            for place in places {
                self.give_notification(&mut turn, place, stamp, &jid, Arc::clone(&stanza), io);
            }
        }
        self.finish(turn, io);
    }

    /// The available resources of a subscriber that show what a subscription wants.
    fn shown_as(&self, jid: &Jid, options: &Options) -> Vec<Place> {
        let wanted = |place: &Place| {
            let presence = self.sessions.get(*place).and_then(|session| session.presence.as_ref());
            presence.is_some_and(|presence| options.takes(show_of(presence).as_deref()))
        };
        self.shown_to(jid).into_iter().filter(wanted).collect()
    }

    /// RFC 6121 §8.5 for a notification: to whoever takes it, stored, dropped, or reported to its node.
    fn bring(&mut self, turn: &mut Turn, jid: &Jid, stanza: Arc<Stanza>, stamp: u64, io: &mut Io<'_>) {
        let (Kind::Message(kind), Some(service)) = (stanza.kind, stanza.from.clone()) else {
            return;
        };
        let account = jid.to_bare();
        if self.blocks(&account, &service, io) {
            return self.undeliverable(turn, jid, &stanza, io);
        }
        match self.dispose(kind, jid, &account, io) {
            Disposition::Deliver(places) => {
                for place in places {
                    self.give_notification(turn, place, stamp, jid, Arc::clone(&stanza), io);
                }
            }
            Disposition::Store if is_storable(&stanza) => {
                self.store(turn, &account, &stanza, Timestamp(stamp), io);
            }
            Disposition::Store | Disposition::Ignore => {}
            Disposition::Bounce(_) => self.undeliverable(turn, jid, &stanza, io),
        }
    }

    fn give_notification(
        &mut self,
        turn: &mut Turn,
        place: Place,
        stamp: u64,
        jid: &Jid,
        stanza: Arc<Stanza>,
        io: &mut Io<'_>,
    ) {
        // A session may be notified as its account and as itself: those are two messages.
        let stamp = if jid.is_bare() { stamp } else { stamp + 1 };
        self.enqueue(turn, place, Origin::Stored { stamp }, stanza, None, io);
    }

    /// §12.4: the node hears that there is nobody.
    fn undeliverable(&mut self, turn: &mut Turn, jid: &Jid, stanza: &Stanza, io: &mut Io<'_>) {
        let service = stanza.from.as_ref().map(Jid::to_bare);
        let node = stanza.id.as_deref().and_then(node_of_notification);
        if let Some((service, node)) = service.zip(node) {
            let address = NodeAddress::new(service, node);
            self.report(turn, address, 0, jid.clone(), "", Finding::Undeliverable, io);
        }
    }

    /// A node says something to one address.
    pub(in super::super) fn node_says(&mut self, turn: &mut Turn, to: &Jid, stanza: &Arc<Stanza>, io: &mut Io<'_>) {
        let Kind::Message(kind) = stanza.kind else { return };
        let account = to.to_bare();
        let blocked = stanza.from.as_ref().is_some_and(|from| self.blocks(&account, from, io));
        match self.dispose(kind, to, &account, io) {
            _ if blocked => self.undeliverable(turn, to, stanza, io),
            Disposition::Deliver(places) => {
                for place in places {
                    self.enqueue_durably(turn, place, Arc::clone(stanza), io);
                }
            }
            Disposition::Store if is_storable(stanza) => {
                let at = self.stamp(io);
                self.store(turn, &account, stanza, at, io);
            }
            Disposition::Store | Disposition::Ignore => {}
            Disposition::Bounce(_) if kind == MessageType::Error => {}
            Disposition::Bounce(_) => self.undeliverable(turn, to, stanza, io),
        }
    }

    /// Removes the rows of notifications that nobody can have missed any more.
    pub(super) fn forget_delivered(&mut self, turn: &mut Turn, io: &Io<'_>) {
        let alone = self.alone;
        let over = |(_, since): &mut (u64, Duration)| alone || io.elapsed.saturating_sub(*since) > KEEP;
        for _ in 0..ROWS {
            match self.pubsub.notifying.done.pop_front_if(over) {
                Some((stamp, _)) => turn.delete(notifying_key(self.id, stamp)),
                None => return,
            }
        }
    }
}

impl Notifying {
    fn add(&mut self, address: NodeAddress, stamp: u64) {
        let jobs = self.by_node.entry(address.clone()).or_default();
        jobs.push_back(Job { stamp, begun: None });
        // With one before it, its node waits for its turn or is being read.
        if jobs.len() == 1 {
            self.turns.push_back(address);
        }
    }

    fn first(&mut self, address: &NodeAddress) -> Option<&mut Job> {
        self.by_node.get_mut(address)?.front_mut()
    }

    /// The node's first notification is delivered.
    fn finish(&mut self, address: &NodeAddress) {
        if let Some(jobs) = self.by_node.get_mut(address) {
            jobs.pop_front();
        }
    }

    /// The node waits for its next turn, if there is anything for it.
    fn take_turn(&mut self, address: &NodeAddress) {
        match self.by_node.get(address) {
            Some(jobs) if jobs.is_empty() => {
                self.by_node.remove(address);
            }
            Some(_) => self.turns.push_back(address.clone()),
            None => {}
        }
    }
}

/// A subscription of somebody in this shard.
struct Follower {
    key: Key,
    jid: Jid,
    subid: String,
    row: FollowerRow,
}

impl Follower {
    fn read((key, row): (Key, Value), prefix: usize) -> Option<Self> {
        let (jid, subid) = key.get(prefix..).and_then(subscriber_of)?;
        let row = FollowerRow::decode(row).ok()?;
        Some(Self { key, jid, subid, row })
    }

    fn options(&self) -> Options {
        self.row.options.unwrap_or_default()
    }
}

/// XEP-0060 §7.1.2.4: for which subscriptions it is.
fn headers(wanting: &[&Follower]) -> Element {
    let header = |follower: &&Follower| {
        Element::new("header", NS_SHIM)
            .with_attr("name", "SubID")
            .with_text(follower.subid.clone())
    };
    Element::new("headers", NS_SHIM).with_children(wanting.iter().map(header))
}

/// RFC 6121 §4.7.2.1.
fn show_of(presence: &Stanza) -> Option<String> {
    let root = presence.root_element().ok()?;
    let show = root.child("show", CLIENT)?.text();
    Some(show.trim().to_owned())
}
