//! RFC 6121 §3: subscription stanzas as the account that sends them and the account they are for evaluate them. The states and their
//! changes are [`super::subscription`]'s; each side commits its half, and the stanza between them is a durable effect.

use super::roster::change::{change, contact};
use super::roster::row::ContactRow;
use super::subscription::{self, Disclosure, State, Verb};
use crate::feature::{Audience, Context};
use crate::jid::{BareJid, Jid};
use crate::stanza::{Kind, PresenceType, Stanza, StanzaError};

impl Verb {
    /// The verb of a presence, if it is about subscriptions.
    pub(crate) fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Presence(PresenceType::Subscribe) => Some(Self::Subscribe),
            Kind::Presence(PresenceType::Unsubscribe) => Some(Self::Unsubscribe),
            Kind::Presence(PresenceType::Subscribed) => Some(Self::Subscribed),
            Kind::Presence(PresenceType::Unsubscribed) => Some(Self::Unsubscribed),
            _ => None,
        }
    }

    /// The type of a presence that says it.
    pub(crate) fn presence_type(self) -> PresenceType {
        match self {
            Self::Subscribe => PresenceType::Subscribe,
            Self::Unsubscribe => PresenceType::Unsubscribe,
            Self::Subscribed => PresenceType::Subscribed,
            Self::Unsubscribed => PresenceType::Unsubscribed,
        }
    }
}

/// The account says `verb` to `other` (§3.1.2, §3.1.5, §3.2.2, §3.3.2, §3.4.2).
///
/// # Errors
/// When the roster has no room, or cannot be read; nothing is written then.
pub(crate) fn sent(context: &mut Context<'_>, verb: Verb, other: &BareJid, stanza: &Stanza) -> Result<(), StanzaError> {
    let jid = Jid::from(other);
    let row = contact(context, &jid)?;
    let state = state(row.as_ref());
    let outcome = subscription::outbound(state, verb);
    store(context, &jid, row, state, outcome.next, None)?;
    let disclosure = state.disclosure(outcome.next);
    if disclosure == Some(Disclosure::Ends) {
        context.hide(jid.clone());
    }
    if outcome.route {
        context.send(stamped(stanza, context.account, &jid));
    }
    if disclosure == Some(Disclosure::Begins) {
        context.show(jid);
    }
    Ok(())
}

/// `other` says `verb` to the account (§3.1.3, §3.1.6, §3.2.3, §3.3.3).
///
/// # Errors
/// When there is no room for what has to be kept, or the roster cannot be read; nothing is written then.
pub(crate) fn received(
    context: &mut Context<'_>,
    verb: Verb,
    other: &BareJid,
    stanza: &Stanza,
) -> Result<(), StanzaError> {
    let jid = Jid::from(other);
    let row = contact(context, &jid)?;
    let state = state(row.as_ref());
    let outcome = subscription::inbound(state, verb);
    let delivered = stanza.clone().with_to(context.account);
    if outcome.deliver {
        // §3.1.6: before the push.
        let audience = if verb == Verb::Subscribe {
            Audience::Available
        } else {
            Audience::Interested
        };
        context.deliver(audience, delivered.clone());
    }
    store(context, &jid, row, state, outcome.next, Some(&delivered))?;
    if let Some(reply) = outcome.reply {
        let reply = Stanza::presence(reply.presence_type(), []);
        context.send(stamped(&reply, context.account, &jid));
    }
    // A request that was granted before is answered with the presence too: whoever asks again has lost it.
    let asks_again = verb == Verb::Subscribe && outcome.next.discloses();
    match state.disclosure(outcome.next) {
        Some(Disclosure::Ends) => context.hide(jid),
        Some(Disclosure::Begins) => context.show(jid),
        None if asks_again => context.show(jid),
        None => {}
    }
    Ok(())
}

fn state(row: Option<&ContactRow>) -> State {
    row.map(ContactRow::state).unwrap_or_default()
}

/// Stores the contact with another state; a request that waits is kept whole (§3.1.3, rule 4).
fn store(
    context: &mut Context<'_>,
    jid: &Jid,
    row: Option<ContactRow>,
    state: State,
    next: State,
    request: Option<&Stanza>,
) -> Result<(), StanzaError> {
    let mut after = row.clone().unwrap_or_default();
    after.set_state(next);
    // §3.1.3: a request that waits is no reason for an item; whatever else changes is.
    after.listed |= state.shows_otherwise(next);
    if !next.is_requested() {
        after.request = None;
    } else if !state.is_requested() {
        after.request = request.map(Stanza::encode);
    }
    change(context, jid, row.as_ref(), after)
}

/// §3.1.2: from bare JID to bare JID.
fn stamped(stanza: &Stanza, account: &BareJid, to: &Jid) -> Stanza {
    stanza.clone().with_from(account).with_to(to.clone())
}
