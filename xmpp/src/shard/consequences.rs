//! What an evaluation of an account causes, in the words of sessions, shards and edges.

use std::sync::Arc;

use super::{Io, Place, Shard, Turn};
use crate::feature::{Audience, Consequence, Said};
use crate::jid::{BareJid, Jid};
use crate::link::{Memory, ToEdge};
use crate::rows::Timestamp;
use crate::stanza::{IqType, PresenceType, Stanza};

impl Shard {
    /// Adds to the turn what an evaluation of `account` causes; `asking` is the session of the device that asked, if one did.
    pub(super) fn carry_out(
        &mut self,
        turn: &mut Turn,
        account: &BareJid,
        asking: Option<Place>,
        consequences: Vec<Consequence>,
        io: &mut Io<'_>,
    ) {
        for consequence in consequences {
            match consequence {
                Consequence::Push(to, content) => {
                    let Timestamp(id) = self.stamp(io);
                    let push = Stanza::iq(IqType::Set, format!("push-{id:x}"), Some(&content));
                    self.address(turn, account, asking, to, &push, io);
                }
                Consequence::Deliver(to, stanza) => self.address(turn, account, asking, to, &stanza, io),
                Consequence::Remember(said) => {
                    if let Some(place) = asking {
                        self.remember(turn, place, |memory| match said {
                            Said::Roster => memory.roster = true,
                            Said::Blocklist => memory.blocklist = true,
                            Said::Carbons(wanted) => memory.carbons = wanted,
                        });
                    }
                }
                Consequence::Send(stanza) => self.durably(turn, Arc::new(stanza), io),
                Consequence::Show(to) => {
                    for (_, presence) in self.shown_by(account) {
                        self.tell(turn, presence, vec![to.clone()], Vec::new(), None, io);
                    }
                }
                Consequence::Hide(from) => {
                    for (place, _) in self.shown_by(account) {
                        if let Some(unavailable) = self.unavailable(place) {
                            self.tell(turn, unavailable, vec![from.clone()], Vec::new(), None, io);
                        }
                    }
                }
                Consequence::Blocks(any) => {
                    self.note_blocks(turn, account, any, io);
                    for place in self.sessions.of_account(account.as_str()).to_vec() {
                        if let Some(session) = self.sessions.get_mut(place) {
                            session.blocks = any;
                        }
                    }
                }
            }
        }
    }

    /// Gives a stanza to those resources of the account that want such, committed with the turn.
    fn address(
        &mut self,
        turn: &mut Turn,
        account: &BareJid,
        asking: Option<Place>,
        to: Audience,
        stanza: &Stanza,
        io: &mut Io<'_>,
    ) {
        let places: Vec<Place> = match to {
            Audience::Origin => asking.into_iter().collect(),
            to => self.audience(account, to),
        };
        for place in places {
            let Some(session) = self.sessions.get(place) else {
                continue;
            };
            let mut stanza = stanza.clone();
            // What has a recipient keeps it (RFC 6121 §8.5.2.1.2).
            if stanza.to.is_none() {
                stanza.to = Some(Jid::from(&session.full));
            }
            self.enqueue_durably(turn, place, Arc::new(stanza), io);
        }
    }

    /// The sessions of an account that hear of something.
    pub(super) fn audience(&self, account: &BareJid, audience: Audience) -> Vec<Place> {
        let places = self.sessions.of_account(account.as_str()).iter().copied();
        let hears = |place: &Place| self.sessions.get(*place).is_some_and(|session| session.hears(audience));
        places.filter(hears).collect()
    }

    /// Changes what a session keeps in mind, and has its edge keep it too.
    pub(super) fn remember(&mut self, turn: &mut Turn, place: Place, change: impl FnOnce(&mut Memory)) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let before = session.memory.as_deref().cloned().unwrap_or_default();
        let mut after = before.clone();
        change(&mut after);
        if after == before {
            return;
        }
        session.memory = (after != Memory::default()).then(|| Arc::new(after));
        if session.is_attached() {
            let (conn, memory) = (session.conn, session.memory.clone());
            turn.to_edge(session.edge, ToEdge::Remember { conn, memory });
        }
    }

    /// The presence of each available resource of an account.
    pub(super) fn shown_by(&self, account: &BareJid) -> Vec<(Place, Arc<Stanza>)> {
        let places = self.sessions.of_account(account.as_str()).iter();
        places
            .filter_map(|place| Some((*place, Arc::clone(self.sessions.get(*place)?.presence.as_ref()?))))
            .collect()
    }

    /// What is said of a resource that has nothing to say itself.
    pub(super) fn unavailable(&self, place: Place) -> Option<Arc<Stanza>> {
        let full = &self.sessions.get(place)?.full;
        Some(Arc::new(
            Stanza::presence(PresenceType::Unavailable, []).with_from(full),
        ))
    }
}
