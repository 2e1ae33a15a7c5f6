//! The contacts of a session: the roster, our presence, and receipts for those the roster knows.

use std::sync::Arc;

use heronry_xmpp::stanza::{IqType, Kind, Stanza, StanzaError};
use tokio::sync::oneshot;
use tracing::debug;

use super::{Driver, live::Live};
use crate::{
    RequestError,
    acknowledgement::Origin,
    blocking::{BLOCKING, BlockListChange},
    event::Event,
    options::Options,
    requests::comes_from,
    roster::{ROSTER, SharedRoster},
};

/// Receipts held back until the roster tells whether their receivers may know that we are there. More are not given.
const RECEIPTS_HELD_MAX: usize = 32;

/// What whoever waits for the roster gets.
pub(super) type RosterLoaded = Result<Arc<SharedRoster>, RequestError>;

#[derive(Debug, Default)]
pub(super) struct Contacts {
    /// Our presence, to be said again in new sessions.
    pub(super) announced: Option<Box<Stanza>>,
    state: RosterState,
    waiting: Vec<oneshot::Sender<RosterLoaded>>,
    receipts: Vec<Stanza>,
}

/// How far this session is with the roster.
#[derive(Debug, Default, PartialEq, Eq)]
enum RosterState {
    #[default]
    NotAsked,
    /// By the request with this id.
    Asked(Box<str>),
    Known,
    /// There is none to be had.
    Refused,
}

impl Contacts {
    /// The session is over, and with it what was asked in it.
    pub(super) fn fail(&mut self) {
        self.state = RosterState::NotAsked;
        self.waiting.clear();
        self.receipts.clear();
    }
}

impl Driver {
    /// Says what every session begins with. RFC 6121 §2.2: the roster comes first, then presence.
    pub(super) fn begin_session(&mut self, live: &mut Live) {
        if self.shared.roster.get().is_some() {
            self.ask_for_roster(live);
        }
        if let Some(presence) = self.contacts.announced.clone() {
            self.send(*presence, Origin::Session, live);
        }
        if let Some(courier) = self.shared.courier.get() {
            courier.begin_session();
        }
    }

    /// Somebody wants the roster.
    pub(super) fn load_roster(&mut self, done: oneshot::Sender<RosterLoaded>, live: &mut Live) {
        let roster = self.shared_roster();
        if self.contacts.state == RosterState::Known {
            // An error means that nobody waits any more.
            let _ = done.send(Ok(roster));
            return;
        }
        self.contacts.waiting.retain(|waiting| !waiting.is_closed());
        self.contacts.waiting.push(done);
        if !matches!(self.contacts.state, RosterState::Asked(_)) {
            self.ask_for_roster(live);
        }
    }

    fn ask_for_roster(&mut self, live: &mut Live) {
        let query = self.shared_roster().request(self.session.roster_versions);
        let id: Box<str> = self.shared.next_id().into();
        let request = Stanza::iq(IqType::Get, id.clone(), Some(&query));
        self.contacts.state = RosterState::Asked(id);
        self.send(request, Origin::Session, live);
    }

    /// Takes the answer to our request for the roster. False when it is the answer to another.
    pub(super) fn take_roster(&mut self, answer: &Stanza, live: &mut Live) -> bool {
        let RosterState::Asked(id) = &self.contacts.state else {
            return false;
        };
        if answer.id.as_ref() != Some(id) {
            return false;
        }
        if !comes_from(answer.from.as_ref(), None, &self.session.jid) {
            debug!(from = ?answer.from, "roster from somebody else dropped");
            return true;
        }
        let roster = self.shared_roster();
        let waiting = std::mem::take(&mut self.contacts.waiting);
        let held = std::mem::take(&mut self.contacts.receipts);
        if answer.kind == Kind::Iq(IqType::Result) {
            let query = answer
                .is_payload("query", ROSTER)
                .then(|| answer.payload_element().ok());
            roster.answered(query.flatten().as_ref());
            self.contacts.state = RosterState::Known;
            held.into_iter().for_each(|receipt| self.send_receipt(receipt, live));
        } else {
            self.contacts.state = RosterState::Refused;
        }
        for done in waiting {
            let loaded = match answer.stanza_error() {
                None => Ok(roster.clone()),
                Some(error) => Err(RequestError::Refused(Box::new(error))),
            };
            let _ = done.send(loaded);
        }
        true
    }

    /// Takes what the account says has changed, and gives the answer. `None` when the request is none of that, or is from
    /// somebody else (RFC 6121 §2.1.6): it is answered as any other.
    pub(super) fn take_push(&mut self, request: &Stanza, asked: IqType, live: &mut Live) -> Option<Stanza> {
        let ns = request.payload()?.ns;
        if asked != IqType::Set || (ns != ROSTER && ns != BLOCKING) {
            return None;
        }
        let is_own = |from: &str| from == self.session.jid.bare_str();
        if !request.from.as_ref().is_none_or(|from| is_own(from.as_str())) {
            debug!(from = ?request.from, ns, "push from somebody else refused");
            return None;
        }
        let understood = if ns == BLOCKING {
            let change = BlockListChange::read(request);
            let understood = change.is_some();
            if let Some(change) = change {
                // The request is counted already.
                live.set_event(Event::BlockList(change), false);
            }
            understood
        } else {
            let roster = self.shared.roster.get()?;
            request.payload_element().is_ok_and(|query| roster.push(&query))
        };
        match understood {
            true => Some(request.result(None)),
            false => request.error(&StanzaError::bad_request()),
        }
    }

    /// Sends a receipt, if its receiver may know that we are there.
    pub(super) fn send_receipt(&mut self, receipt: Stanza, live: &mut Live) {
        let Some(to) = receipt.to.as_ref().map(heronry_xmpp::jid::Jid::to_bare) else {
            return;
        };
        let known = self.receiving.may_know(&to, &self.session.jid);
        let may_know = known.or_else(|| match self.contacts.state {
            RosterState::Known => Some(self.shared_roster().sees_us(&to)),
            RosterState::Refused => Some(false),
            RosterState::NotAsked | RosterState::Asked(_) => None,
        });
        match may_know {
            Some(true) => self.send_answer(receipt, live),
            Some(false) => debug!(%to, "no receipt for somebody who may not see our presence"),
            None => {
                if self.contacts.receipts.len() < RECEIPTS_HELD_MAX {
                    self.contacts.receipts.push(receipt);
                }
                if self.contacts.state == RosterState::NotAsked {
                    self.ask_for_roster(live);
                }
            }
        }
    }

    fn shared_roster(&self) -> Arc<SharedRoster> {
        let Options {
            account,
            roster_cache,
            limits,
            ..
        } = &self.shared.options;
        let new = || {
            SharedRoster::new(
                account.clone(),
                roster_cache.clone(),
                limits.contacts_max,
                limits.changes_max,
            )
        };
        self.shared.roster.get_or_init(|| Arc::new(new())).clone()
    }
}
