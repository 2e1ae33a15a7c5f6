//! What is owed to and by other shards.
//!
//! Ephemeral: a stanza for another shard's account is kept until that shard answers; when it gets a new leader, everything
//! unanswered is sent again, in order. Durable: an effect is a row with a number per pair of shards; the target notes the last
//! one it has done in the batch that does it, so each is done exactly once, in order (DESIGN §4.7).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::{Effect, Event, Io, Output, Shard, Teller, Turn};
use crate::im::delivery::Disposition;
use crate::im::subscription::Verb;
use crate::link::{Ask, Durable, Forward, SessionId, ShardId, Tell, Term, ToPeer};
use crate::rows::{Key, Rows, Table, shard_key};
use crate::stanza::{Kind, Stanza, StanzaError};

/// Rows of the outbox that are read, or removed, at once.
const OUTBOX_ROWS: usize = 256;

/// Other shards, as this one knows them.
#[derive(Debug, Default)]
pub(super) struct Peers(HashMap<ShardId, Peer>);

#[derive(Debug, Default)]
struct Peer {
    /// The highest term heard of. Kept when this shard starts over.
    term: Term,
    /// Whether that term has said that it leads.
    leads: bool,
    /// Unanswered, in order.
    forwards: VecDeque<Pending>,
    /// The number of the last durable effect for that shard, once read.
    outbox_last: Option<u64>,
    /// Durable effects up to this number are done.
    done: u64,
    /// Rows of the outbox up to this number are removed.
    removed: u64,
}

#[derive(Debug)]
struct Pending {
    what: Ephemeral,
    since: Duration,
}

impl Pending {
    /// Whether it is the stanza in that frame.
    fn is_of(&self, session: SessionId, frame: u64) -> bool {
        matches!(&self.what, Ephemeral::Forward(forward) if forward.session == session && forward.frame == frame)
    }
}

/// What is kept until the other shard has answered.
#[derive(Clone, Debug)]
enum Ephemeral {
    Forward(Forward),
    Tell(Tell, Option<Teller>),
    Ask(Ask),
}

impl Ephemeral {
    /// As it is sent again to a new leader.
    fn again(&self) -> ToPeer {
        match self {
            Self::Forward(forward) => ToPeer::Forward(Forward {
                repeat: true,
                ..forward.clone()
            }),
            Self::Tell(tell, _) => ToPeer::Tell(tell.clone()),
            Self::Ask(ask) => ToPeer::Ask(ask.clone()),
        }
    }
}

/// The number of the last durable effect: of the outbox for a shard, or of a shard's that was done here.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct LastRow {
    #[prost(uint64, tag = "1")]
    number: u64,
}

impl Peers {
    /// Whether a message from that term may be heard; notes a newer one.
    pub(super) fn admits(&mut self, peer: ShardId, term: Term) -> bool {
        let known = self.0.entry(peer).or_default();
        if term > known.term {
            known.term = term;
            known.leads = false;
        }
        term == known.term
    }

    /// The term in which that shard is known.
    fn term(&self, peer: ShardId) -> Term {
        self.0.get(&peer).map(|peer| peer.term).unwrap_or_default()
    }

    /// That shard has caught up in its newest term. Noted at any time: it is said only once.
    pub(super) fn leads(&mut self, peer: ShardId) {
        self.0.entry(peer).or_default().leads = true;
    }

    /// That shard has told a presence. Returns what waits for it.
    pub(super) fn told(&mut self, peer: ShardId, number: u64) -> Option<Teller> {
        let peer = self.0.get_mut(&peer)?;
        let is_it = |pending: &Pending| matches!(&pending.what, Ephemeral::Tell(tell, _) if tell.number == number);
        let place = peer.forwards.iter().position(is_it)?;
        match peer.forwards.remove(place)?.what {
            Ephemeral::Tell(_, teller) => teller,
            Ephemeral::Forward(_) | Ephemeral::Ask(_) => None,
        }
    }

    /// A question has been answered.
    pub(super) fn answered(&mut self, number: u64) {
        let is_it = |pending: &Pending| matches!(&pending.what, Ephemeral::Ask(ask) if ask.number == number);
        for peer in self.0.values_mut() {
            if let Some(place) = peer.forwards.iter().position(is_it) {
                peer.forwards.remove(place);
            }
        }
    }

    /// Stanzas that wait for an answer.
    pub(super) fn forwards(&self) -> usize {
        self.0.values().map(|peer| peer.forwards.len()).sum()
    }

    /// Durable effects up to `number` are done.
    pub(super) fn done(&mut self, peer: ShardId, number: u64) {
        let peer = self.0.entry(peer).or_default();
        peer.done = peer.done.max(number);
    }

    /// This shard starts over: forgets all but the terms of the others.
    pub(super) fn forget(&mut self) {
        for peer in self.0.values_mut() {
            *peer = Peer {
                term: peer.term,
                leads: peer.leads,
                ..Peer::default()
            };
        }
    }
}

impl Shard {
    /// Says something to another shard, in the term in which it is known: what leaves when that is over is not heard in the next.
    pub(super) fn to_peer(&self, to: ShardId, message: ToPeer, io: &mut Io<'_>) {
        io.out.push(Output::Peer {
            to,
            term: self.term,
            known: self.peers.term(to),
            message,
        });
    }

    /// A stanza for an account of another shard. A frame that its device has sent again while it waits for its answer goes on waiting:
    /// one answer settles it.
    pub(super) fn forward(&mut self, to: ShardId, forward: Forward, io: &mut Io<'_>) {
        let peer = self.peers.0.entry(to).or_default();
        if forward.repeat
            && peer
                .forwards
                .iter()
                .any(|pending| pending.is_of(forward.session, forward.frame))
        {
            return;
        }
        let message = peer.leads.then(|| ToPeer::Forward(forward.clone()));
        peer.forwards.push_back(Pending {
            what: Ephemeral::Forward(forward),
            since: io.elapsed,
        });
        if let Some(message) = message {
            self.to_peer(to, message, io);
        }
    }

    /// Presence for accounts of another shard. When too much waits for others it is dropped: presence is what may be.
    pub(super) fn tell_peer(&mut self, to: ShardId, tell: Tell, teller: Option<Teller>, io: &mut Io<'_>) {
        if self.peers.forwards() >= self.config.limits.forwards_max {
            io.out.push(Output::Count(Event::Refused("forwards-full")));
            if let Some(teller) = teller {
                self.has_told(teller, io);
            }
            return;
        }
        let peer = self.peers.0.entry(to).or_default();
        let message = peer.leads.then(|| ToPeer::Tell(tell.clone()));
        peer.forwards.push_back(Pending {
            what: Ephemeral::Tell(tell, teller),
            since: io.elapsed,
        });
        if let Some(message) = message {
            self.to_peer(to, message, io);
        }
    }

    /// A question for an account of another shard.
    pub(super) fn ask(&mut self, to: ShardId, ask: Ask, io: &mut Io<'_>) {
        let peer = self.peers.0.entry(to).or_default();
        let message = peer.leads.then(|| ToPeer::Ask(ask.clone()));
        peer.forwards.push_back(Pending {
            what: Ephemeral::Ask(ask),
            since: io.elapsed,
        });
        if let Some(message) = message {
            self.to_peer(to, message, io);
        }
    }

    /// Another shard has a leader that has caught up: everything it has not answered is sent again.
    pub(super) fn send_again(&mut self, to: ShardId, io: &mut Io<'_>) {
        let peer = self.peers.0.entry(to).or_default();
        let again: Vec<ToPeer> = peer.forwards.iter().map(|pending| pending.what.again()).collect();
        for message in again {
            self.to_peer(to, message, io);
        }
        self.send_outbox(to, io);
        self.say_late_farewells(io);
    }

    /// Another shard has taken responsibility for a stanza.
    pub(super) fn peer_answers(
        &mut self,
        from: ShardId,
        session: SessionId,
        frame: u64,
        replies: Vec<Arc<Stanza>>,
        io: &mut Io<'_>,
    ) {
        let peer = self.peers.0.entry(from).or_default();
        let Some(place) = peer.forwards.iter().position(|pending| pending.is_of(session, frame)) else {
            return;
        };
        peer.forwards.remove(place);
        self.answered(session, frame, replies, io);
    }

    /// Answers what has waited too long for a shard that has no leader.
    pub(super) fn expire_forwards(&mut self, io: &mut Io<'_>) {
        let oldest = io.elapsed.saturating_sub(self.config.limits.forward_timeout);
        let mut expired = Vec::new();
        for peer in self.peers.0.values_mut() {
            while let Some(pending) = peer.forwards.pop_front_if(|pending| pending.since < oldest) {
                expired.push(pending.what);
            }
        }
        for what in expired {
            io.out.push(Output::Count(Event::Refused("forward-timeout")));
            let forward = match what {
                Ephemeral::Forward(forward) => forward,
                Ephemeral::Tell(_, teller) => {
                    if let Some(teller) = teller {
                        self.tells_in_vain(teller, io);
                    }
                    continue;
                }
                // Its sender's shard gives the request up at the same time.
                Ephemeral::Ask(ask) => {
                    self.pubsub.forget_parked(ask.number);
                    continue;
                }
            };
            let error = forward.stanza.error(&StanzaError::recipient_unavailable());
            self.answered(
                forward.session,
                forward.frame,
                error.map(Arc::new).into_iter().collect(),
                io,
            );
        }
    }

    /// Has a stanza routed to its `to` exactly once, whatever dies.
    pub(super) fn durably(&mut self, turn: &mut Turn, stanza: Arc<Stanza>, io: &mut Io<'_>) {
        let Some(account) = stanza.to.as_ref().map(crate::jid::Jid::to_bare) else {
            return;
        };
        if !self.config.serves(account.domain()) || account.local().is_none() {
            return;
        }
        let to = self.config.shard_of(account.as_str());
        let row = stanza.encode();
        self.owe(turn, to, Durable::Stanza(stanza), row, io);
    }

    /// Has another shard do something exactly once, in order; `row` is what the outbox keeps of it.
    pub(super) fn owe(&mut self, turn: &mut Turn, to: ShardId, effect: Durable, row: Bytes, io: &mut Io<'_>) {
        let last_key = self.outbox_last_key(to);
        let last = self.peers.0.get(&to).and_then(|peer| peer.outbox_last);
        let number = last.unwrap_or_else(|| self.last_number(&last_key, io)) + 1;
        self.peers.0.entry(to).or_default().outbox_last = Some(number);
        turn.put(last_key, &LastRow { number });
        turn.writes
            .push(crate::rows::Write::Put(self.outbox_key(to, number), row));
        turn.effects.push(if to == self.id {
            Effect::Durable { number, effect }
        } else {
            Effect::Peer(to, ToPeer::Durable { number, effect })
        });
    }

    /// A durable effect of another shard, or of this one.
    pub(super) fn durable_arrives(&mut self, from: ShardId, number: u64, effect: Durable, io: &mut Io<'_>) {
        let key = self.inbox_last_key(from);
        let last = self.last_number(&key, io);
        if number > last + 1 {
            // One before it was lost with a connection; all will be sent again.
            return;
        }
        if number == last + 1 {
            let note = |turn: &mut Turn| turn.put(key, &LastRow { number });
            match effect {
                Durable::Stanza(stanza) => {
                    let Some(to) = stanza.to.clone() else { return };
                    let mut turn = Turn::of(&to.to_bare());
                    note(&mut turn);
                    self.route_durable(&mut turn, &to, stanza, io);
                    self.finish(turn, io);
                }
                Durable::Pubsub(effect) => {
                    let mut turn = Turn::of_node(effect.address());
                    note(&mut turn);
                    self.pubsub_arrives(&mut turn, &effect, io);
                    self.finish(turn, io);
                }
            }
        }
        // The shard's own turn waits for everything in flight, the note of this effect included.
        let mut turn = Turn::of_shard();
        if from == self.id {
            self.peers.done(from, number);
        } else {
            turn.effects.push(Effect::Peer(from, ToPeer::Done { number }));
        }
        self.finish(turn, io);
    }

    /// Subscription stanzas, errors for the resource that sent a message or request that came back, and messages of pubsub nodes.
    fn route_durable(&mut self, turn: &mut Turn, to: &crate::jid::Jid, stanza: Arc<Stanza>, io: &mut Io<'_>) {
        let account = to.to_bare();
        if let Some(verb) = Verb::of(stanza.kind) {
            return self.subscription_arrives(turn, &account, verb, &stanza, io);
        }
        if stanza
            .from
            .as_ref()
            .is_some_and(|from| self.config.is_pubsub_service(from))
        {
            return self.node_says(turn, to, &stanza, io);
        }
        let place = match stanza.kind {
            Kind::Message(kind) => match self.dispose(kind, to, &account, io) {
                Disposition::Deliver(places) => places.first().copied(),
                _ => None,
            },
            Kind::Iq(_) | Kind::Presence(_) => to
                .resource()
                .and_then(|resource| self.sessions.of_resource(account.as_str(), resource)),
        };
        if let Some(place) = place {
            self.enqueue_durably(turn, place, stanza, io);
        }
    }

    /// Sends every durable effect that is not done, to every shard that leads.
    pub(super) fn send_outboxes(&mut self, io: &mut Io<'_>) {
        let mut shards: Vec<ShardId> = self
            .peers
            .0
            .iter()
            .filter(|(_, peer)| peer.leads)
            .map(|(id, _)| *id)
            .collect();
        shards.sort_unstable();
        for shard in shards {
            self.send_outbox(shard, io);
        }
        self.send_outbox(self.id, io);
    }

    fn send_outbox(&mut self, to: ShardId, io: &mut Io<'_>) {
        let prefix = shard_key(Table::Outbox, self.id.0, &to.0.to_be_bytes());
        let mut from = prefix.clone();
        loop {
            // Applied rows only: what is in flight is sent when it is committed.
            let page = match io.rows.scan(&prefix, &from, OUTBOX_ROWS) {
                Ok(page) => page,
                Err(error) => return tracing::error!(%error, "durable effects cannot be read"),
            };
            for (key, value) in &page {
                self.send_outbox_row(to, key, value, io);
            }
            match page.last() {
                Some((key, _)) if page.len() == OUTBOX_ROWS => {
                    let mut next = key.to_vec();
                    next.push(0);
                    from = next.into();
                }
                _ => return,
            }
        }
    }

    fn send_outbox_row(&mut self, to: ShardId, key: &Key, value: &Bytes, io: &mut Io<'_>) {
        let number = key.last_chunk::<8>().map_or(0, |number| u64::from_be_bytes(*number));
        let Some(effect) = self.effect_in_row(value, io) else {
            return tracing::error!(number, "a durable effect cannot be read");
        };
        if to == self.id {
            self.durable_arrives(to, number, effect, io);
        } else {
            self.to_peer(to, ToPeer::Durable { number, effect }, io);
        }
    }

    /// Removes the rows of durable effects that are done.
    pub(super) fn forget_done_effects(&mut self, io: &mut Io<'_>) {
        let mut shards: Vec<ShardId> = self
            .peers
            .0
            .iter()
            .filter(|(_, peer)| peer.done > peer.removed)
            .map(|(id, _)| *id)
            .collect();
        shards.sort_unstable();
        let mut turn = Turn::of_shard();
        for shard in shards {
            let prefix = shard_key(Table::Outbox, self.id.0, &shard.0.to_be_bytes());
            let Ok(page) = self.overlay.over(io.rows).scan(&prefix, &prefix, OUTBOX_ROWS) else {
                continue;
            };
            let Some(peer) = self.peers.0.get_mut(&shard) else {
                continue;
            };
            let through = self_outbox_key(self.id, shard, peer.done);
            let done: Vec<Key> = page
                .into_iter()
                .map(|(key, _)| key)
                .filter(|key| *key <= through)
                .collect();
            if done.len() < OUTBOX_ROWS {
                peer.removed = peer.done;
            }
            done.into_iter().for_each(|key| turn.delete(key));
        }
        if !turn.writes.is_empty() {
            self.finish(turn, io);
        }
    }

    /// The first rows of each shard's outbox, and whether there may be more; `None` when they cannot be read.
    pub(super) fn outbox_pages(&self, io: &Io<'_>) -> Option<Vec<(Vec<Bytes>, bool)>> {
        let page = |shard: u16| {
            let prefix = shard_key(Table::Outbox, self.id.0, &shard.to_be_bytes());
            let rows = self.overlay.over(io.rows).scan(&prefix, &prefix, OUTBOX_ROWS).ok()?;
            let full = rows.len() == OUTBOX_ROWS;
            Some((rows.into_iter().map(|(_, row)| row).collect(), full))
        };
        (0..self.config.map.shards()).map(page).collect()
    }

    fn last_number(&self, key: &Key, io: &Io<'_>) -> u64 {
        let row = self.overlay.over(io.rows).row(key).ok().flatten();
        row.and_then(|row| LastRow::decode(row).ok())
            .map_or(0, |row| row.number)
    }

    fn outbox_key(&self, to: ShardId, number: u64) -> Key {
        self_outbox_key(self.id, to, number)
    }

    fn outbox_last_key(&self, to: ShardId) -> Key {
        shard_key(Table::OutboxLast, self.id.0, &to.0.to_be_bytes())
    }

    fn inbox_last_key(&self, from: ShardId) -> Key {
        shard_key(Table::InboxLast, self.id.0, &from.0.to_be_bytes())
    }
}

fn self_outbox_key(from: ShardId, to: ShardId, number: u64) -> Key {
    let mut rest = to.0.to_be_bytes().to_vec();
    rest.extend_from_slice(&number.to_be_bytes());
    shard_key(Table::Outbox, from.0, &rest)
}
