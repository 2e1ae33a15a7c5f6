//! RFC 6121 §4: what a resource shows, and who sees it.
//!
//! Presence is ephemeral: a resource says it once to its shard, which tells every shard where somebody may see it ([`Tell`]).
//! A session's last presence is kept by its edge, so a new leader goes on with it and says nothing ([`super::attach`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Effect, Event, Io, Output, Place, Shard, Teller, Turn};
use crate::feature::Audience;
use crate::im::roster::row::{ContactRow, contacts, state_of};
use crate::im::{delivery, presence};
use crate::jid::{BareJid, Jid};
use crate::link::{Origin, ShardId, Tell, ToPeer};
use crate::rows::RowsError;
use crate::session::Session;
use crate::stanza::{Kind, PresenceType, Stanza, StanzaError};

impl Shard {
    /// Presence without a `to` (§4.2, §4.4, §4.5): the resource becomes available, changes, or becomes unavailable.
    pub(super) fn own_presence(
        &mut self,
        place: Place,
        frame: u64,
        repeat: bool,
        kind: PresenceType,
        stanza: &Arc<Stanza>,
        io: &mut Io<'_>,
    ) {
        match kind {
            PresenceType::Available => self.becomes_available(place, frame, repeat, stanza, io),
            PresenceType::Unavailable => {
                let Some(session) = self.sessions.get(place) else {
                    return;
                };
                let (id, account) = (session.id, session.full.bare());
                let mut turn = Turn::of(&account);
                let teller = Teller::Frame(id, frame);
                if repeat {
                    // The attachment came without the presence that this ends, and the former leader may have told nobody.
                    if let Some(session) = self.sessions.get_mut(place) {
                        session.presence.get_or_insert_with(|| Arc::clone(stanza));
                    }
                }
                if !self.becomes_unavailable(&mut turn, place, Some(stanza), Some(&teller), io) {
                    turn.effects.push(Effect::Done(id, frame));
                }
                self.finish(turn, io);
            }
            // §3: subscriptions are always to somebody.
            _ => self.bounce(place, frame, stanza, StanzaError::bad_request(), io),
        }
    }

    fn becomes_available(&mut self, place: Place, frame: u64, repeat: bool, stanza: &Arc<Stanza>, io: &mut Io<'_>) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let was_taking = session.takes_bare();
        // A repeat may be the first that this leader hears of it.
        let initial = session.priority.is_none() || repeat;
        session.priority = Some(presence::priority(stanza));
        session.presence = Some(Arc::clone(stanza));
        let (id, account, takes) = (session.id, session.full.bare(), session.takes_bare());
        let mut turn = Turn::of(&account);
        let contacts = self.contacts_of(&account, io);
        let teller = Teller::Frame(id, frame);
        if !self.broadcast(&mut turn, place, stanza, &contacts, initial, &teller, io) {
            turn.effects.push(Effect::Done(id, frame));
        }
        if initial {
            self.meet_the_others(&mut turn, &account, place, io);
            self.deliver_requests(&mut turn, place, &contacts, io);
            self.subscriber_available(&mut turn, place, io);
        }
        self.finish(turn, io);
        if takes && (!was_taking || repeat) {
            self.drain_stored(&account, place, io);
        }
    }

    /// The resource shows itself no more: it says so, or has nothing left to say it with (§4.5.2). Says whether anybody is told, for
    /// which `teller` waits.
    pub(super) fn becomes_unavailable(
        &mut self,
        turn: &mut Turn,
        place: Place,
        said: Option<&Arc<Stanza>>,
        teller: Option<&Teller>,
        io: &mut Io<'_>,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(place) else {
            return false;
        };
        let was_available = session.presence.take().is_some();
        session.priority = None;
        let account = session.full.bare();
        self.subscriber_unavailable(turn, place, io);
        let Some(session) = self.sessions.get(place) else {
            return false;
        };
        let directed = session
            .memory
            .as_ref()
            .map_or_else(Vec::new, |memory| memory.directed.clone());
        if !was_available && directed.is_empty() {
            return false;
        }
        self.remember(turn, place, |memory| memory.directed.clear());
        let Some(unavailable) = said.cloned().or_else(|| self.unavailable(place)) else {
            return false;
        };
        let to = self.those_to_leave(&account, was_available, directed, io);
        self.to_own_resources(turn, &account, &unavailable, said.map(|_| place), io);
        self.tell(turn, unavailable, to, Vec::new(), teller, io)
    }

    /// Who has seen a resource that leaves: those with a subscription, if it was available, and those it has shown itself to.
    pub(super) fn those_to_leave(
        &self,
        account: &BareJid,
        was_available: bool,
        directed: Vec<Jid>,
        io: &Io<'_>,
    ) -> Vec<Jid> {
        let contacts = if was_available {
            self.contacts_of(account, io)
        } else {
            Vec::new()
        };
        let mut to = self.those_who_see(account, &contacts, io);
        to.extend(directed.into_iter().filter(|jid| {
            !contacts
                .iter()
                .any(|(contact, row)| row.state().discloses() && contact.as_str() == jid.bare_str())
        }));
        to
    }

    /// §4.2.2, §4.4.2: to everybody with a subscription to it and to the account's own resources; at first it also asks for the presence of
    /// everybody the account has a subscription to (§4.3.1). Says whether anybody is told, for which `teller` waits.
    #[expect(clippy::too_many_arguments, reason = "who says what to whom, and who waits for it")]
    fn broadcast(
        &mut self,
        turn: &mut Turn,
        place: Place,
        stanza: &Arc<Stanza>,
        contacts: &[(Jid, ContactRow)],
        initial: bool,
        teller: &Teller,
        io: &mut Io<'_>,
    ) -> bool {
        let Some(account) = self.sessions.get(place).map(|session| session.full.bare()) else {
            return false;
        };
        let to = self.those_who_see(&account, contacts, io);
        let probes = contacts
            .iter()
            .filter(|(_, row)| initial && row.state().receives())
            .filter(|(contact, _)| !self.blocks(&account, contact, io))
            .map(|(contact, _)| contact.to_bare());
        let probes = probes.collect();
        self.to_own_resources(turn, &account, stanza, Some(place), io);
        self.tell(turn, Arc::clone(stanza), to, probes, Some(teller), io)
    }

    /// The contacts with a subscription to the account.
    fn those_who_see(&self, account: &BareJid, contacts: &[(Jid, ContactRow)], io: &Io<'_>) -> Vec<Jid> {
        let sees = contacts
            .iter()
            .filter(|(_, row)| row.state().discloses())
            .filter(|(contact, _)| !self.blocks(account, contact, io));
        sees.map(|(contact, _)| contact.clone()).collect()
    }

    /// An account sees its own resources (§4.2.2); `also` gets it whether it is available or not.
    fn to_own_resources(
        &mut self,
        turn: &mut Turn,
        account: &BareJid,
        stanza: &Arc<Stanza>,
        also: Option<Place>,
        io: &mut Io<'_>,
    ) {
        let mut places = self.audience(account, Audience::Available);
        places.extend(also.filter(|place| !places.contains(place)));
        for place in places {
            self.show(turn, place, None, stanza, io);
        }
    }

    /// A new resource sees the account's other ones.
    fn meet_the_others(&mut self, turn: &mut Turn, account: &BareJid, place: Place, io: &mut Io<'_>) {
        for (other, presence) in self.shown_by(account) {
            if other != place {
                self.show(turn, place, None, &presence, io);
            }
        }
    }

    /// §3.1.3, rule 4: requests that wait are delivered to every resource that becomes available.
    fn deliver_requests(&mut self, turn: &mut Turn, place: Place, contacts: &[(Jid, ContactRow)], io: &mut Io<'_>) {
        let requests = contacts.iter().filter_map(|(_, row)| row.request.clone());
        for request in requests.filter_map(|request| Stanza::decode(request).ok()) {
            self.enqueue(turn, place, Origin::None, Arc::new(request), None, io);
        }
    }

    /// Gives a presence to a session, for `to` or for its full JID.
    fn show(&mut self, turn: &mut Turn, place: Place, to: Option<&Jid>, presence: &Stanza, io: &mut Io<'_>) {
        let Some(full) = self.sessions.get(place).map(|session| Jid::from(&session.full)) else {
            return;
        };
        let presence = presence.clone().with_to(to.cloned().unwrap_or(full));
        self.enqueue(turn, place, Origin::None, Arc::new(presence), None, io);
    }

    /// Has a presence told to these addresses, and these accounts asked for theirs. Says whether there are any; then `teller` waits
    /// until they have been told.
    pub(super) fn tell(
        &mut self,
        turn: &mut Turn,
        presence: Arc<Stanza>,
        to: Vec<Jid>,
        probes: Vec<BareJid>,
        teller: Option<&Teller>,
        io: &mut Io<'_>,
    ) -> bool {
        let mut by_shard: BTreeMap<ShardId, (Vec<Jid>, Vec<BareJid>)> = BTreeMap::new();
        // RFC 6121 §4.2.2: somebody of another domain is reached when there is federation.
        for jid in to.into_iter().filter(|jid| self.config.is_account(jid)) {
            by_shard
                .entry(self.config.shard_of(jid.bare_str()))
                .or_default()
                .0
                .push(jid);
        }
        for account in probes
            .into_iter()
            .filter(|account| self.config.is_account(&Jid::from(account)))
        {
            by_shard
                .entry(self.config.shard_of(account.as_str()))
                .or_default()
                .1
                .push(account);
        }
        let shards = by_shard.len();
        if let Some(teller) = teller.filter(|_| shards > 0) {
            *self.telling.entry(teller.clone()).or_default() += shards;
        }
        for (shard, (to, probes)) in by_shard {
            let number = self.stamp(io).0;
            let presence = Arc::clone(&presence);
            turn.effects.push(Effect::Tell(
                shard,
                Tell {
                    number,
                    presence,
                    to,
                    probes,
                },
                teller.cloned(),
            ));
        }
        shards > 0
    }

    /// A presence for accounts of this shard.
    pub(super) fn tell_arrives(&mut self, from: ShardId, tell: Tell, io: &mut Io<'_>) {
        let Tell {
            number,
            presence,
            to,
            probes,
        } = tell;
        let Some(sender) = presence.from.clone() else { return };
        for to in to {
            let account = to.to_bare();
            let places = self.shown_to(&to);
            // Most are for somebody who is away: no row is read for them.
            if places.is_empty() || self.blocks(&account, &sender, io) {
                continue;
            }
            let mut turn = Turn::of(&account);
            for place in places {
                self.show(&mut turn, place, Some(&to), &presence, io);
            }
            self.finish(turn, io);
        }
        for account in probes {
            let mut turn = Turn::of(&account);
            self.probed(&mut turn, &account, &sender, io);
            self.finish(turn, io);
        }
        if from != self.id {
            let message = ToPeer::Told { number };
            self.to_peer(from, message, io);
        }
    }

    /// §8.5.2.1.2, §8.5.3: every available resource of a bare JID; the resource of a full JID.
    pub(super) fn shown_to(&self, to: &Jid) -> Vec<Place> {
        match to.resource() {
            Some(resource) => self.sessions.of_resource(to.bare_str(), resource).into_iter().collect(),
            None => delivery::presence(&self.resources(&to.to_bare())),
        }
    }

    /// §4.3.2: a server asks on behalf of somebody who has a subscription, as it believes. To silence the prober has an answer already: it
    /// saw nobody.
    fn probed(&mut self, turn: &mut Turn, account: &BareJid, prober: &Jid, io: &mut Io<'_>) {
        if self.blocks(account, prober, io) {
            return;
        }
        match self.state_between(account, prober, io) {
            Ok(state) if state.discloses() => {
                for (_, presence) in self.shown_by(account) {
                    self.tell(turn, presence, vec![prober.clone()], Vec::new(), None, io);
                }
            }
            Ok(_) => {
                // The two rosters do not agree: the prober's is put right.
                let unsubscribed = Stanza::presence(PresenceType::Unsubscribed, [])
                    .with_from(account)
                    .with_to(prober.to_bare());
                self.durably(turn, Arc::new(unsubscribed), io);
            }
            Err(error) => tracing::error!(%error, "a probe cannot be answered"),
        }
    }

    /// §4.3.2, §4.6.6: what is answered to a probe that a device sends itself.
    pub(super) fn probe(&self, to: &Jid, probe: &Stanza, io: &Io<'_>) -> Vec<Arc<Stanza>> {
        let (account, Some(prober)) = (to.to_bare(), probe.from.as_ref()) else {
            return Vec::new();
        };
        let own = prober.bare_str() == account.as_str();
        let sees = own
            || self
                .state_between(&account, prober, io)
                .is_ok_and(|state| state.discloses());
        let asked = |session: &&Session| to.resource().is_none_or(|resource| session.full.resource() == resource);
        let sessions = self
            .sessions
            .of_account(account.as_str())
            .iter()
            .filter_map(|place| self.sessions.get(*place));
        let answers: Vec<Stanza> = if sees && to.resource().is_none() {
            sessions
                .filter_map(|session| session.presence.as_deref().cloned())
                .collect()
        } else {
            // Mere availability, of that very resource.
            let shown = sessions
                .filter(asked)
                .filter(|session| (sees && session.presence.is_some()) || session.shows_itself_to(prober));
            shown
                .map(|session| Stanza::presence(PresenceType::Available, []).with_from(&session.full))
                .collect()
        };
        let answers = if !answers.is_empty() {
            answers
        } else if sees {
            vec![echo(probe, PresenceType::Unavailable, to)]
        } else {
            vec![echo(probe, PresenceType::Unsubscribed, &Jid::from(&account))]
        };
        answers
            .into_iter()
            .map(|answer| Arc::new(answer.with_to(prober.clone())))
            .collect()
    }

    /// Directed presence (§4.6.3): the session notes to whom it has shown itself.
    pub(super) fn directed(
        &mut self,
        turn: &mut Turn,
        place: Place,
        stanza: &Stanza,
        io: &mut Io<'_>,
    ) -> Result<(), StanzaError> {
        let (Kind::Presence(kind), Some(to)) = (stanza.kind, stanza.to.clone()) else {
            return Ok(());
        };
        let Some(session) = self.sessions.get(place) else {
            return Ok(());
        };
        match kind {
            PresenceType::Available => {
                let account = session.full.bare();
                let known = session.memory.as_ref().map_or(0, |memory| memory.directed.len());
                let sees = session.presence.is_some()
                    && self.state_between(&account, &to, io).map_err(unreadable)?.discloses();
                if sees
                    || session
                        .memory
                        .as_ref()
                        .is_some_and(|memory| memory.directed.contains(&to))
                {
                    return Ok(());
                }
                if known >= self.config.limits.directed_presence_max {
                    io.out.push(Output::Count(Event::Refused("directed-presence")));
                    return Err(StanzaError::resource_constraint().with_text("presence was sent to too many addresses"));
                }
                self.remember(turn, place, |memory| memory.directed.push(to));
            }
            PresenceType::Unavailable => {
                self.remember(turn, place, |memory| memory.directed.retain(|known| *known != to));
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether a request may be given to a session (§8.5.3.1): its account or itself shows presence to who asks.
    pub(super) fn shares_presence(&self, place: Place, other: &Jid, io: &Io<'_>) -> bool {
        let Some(session) = self.sessions.get(place) else {
            return false;
        };
        session.full.bare_str() == other.bare_str()
            || session.shows_itself_to(other)
            || self
                .state_between(&session.full.bare(), other, io)
                .is_ok_and(|state| state.discloses())
    }

    pub(super) fn state_between(
        &self,
        account: &BareJid,
        other: &Jid,
        io: &Io<'_>,
    ) -> Result<crate::im::subscription::State, RowsError> {
        state_of(&self.overlay.over(io.rows), account, other.bare_str())
    }

    pub(super) fn contacts_of(&self, account: &BareJid, io: &Io<'_>) -> Vec<(Jid, ContactRow)> {
        let limits = &self.config.limits;
        let max = limits.roster_items_max + limits.subscription_requests_max;
        contacts(&self.overlay.over(io.rows), account, max).unwrap_or_else(|error| {
            tracing::error!(%error, "a roster cannot be read");
            Vec::new()
        })
    }
}

/// An answer that has no stanza of a device to repeat carries the id of the probe (§4.3.2.1).
fn echo(probe: &Stanza, kind: PresenceType, from: &Jid) -> Stanza {
    let mut answer = Stanza::presence(kind, []).with_from(from.clone());
    answer.id.clone_from(&probe.id);
    answer
}

fn unreadable(error: RowsError) -> StanzaError {
    tracing::error!(%error, "a roster cannot be read");
    StanzaError::internal_server_error()
}
