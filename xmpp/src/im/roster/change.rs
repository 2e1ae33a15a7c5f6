//! One change of one contact: its row, the roster's row, and the push that goes with it (RFC 6121 §2.1.6, §2.6).

use super::row::{ContactRow, RemovedRow, RosterRow, contact_key, decode, roster_key};
use super::{item, payload};
use crate::feature::{Audience, Context};
use crate::im::subscription::State;
use crate::jid::Jid;
use crate::stanza::StanzaError;

/// Items removed last that are remembered, to tell a client with an old version what has changed.
const REMOVED: usize = 32;

/// The contact as it is stored; `None` for a stranger.
///
/// # Errors
/// `internal-server-error` when the row cannot be read.
pub(crate) fn contact(context: &Context<'_>, contact: &Jid) -> Result<Option<ContactRow>, StanzaError> {
    let row = context.row(&contact_key(context.account, contact.as_str()))?;
    row.map(|row| decode(&row).map_err(unreadable)).transpose()
}

/// The roster as a whole.
pub(super) fn roster(context: &Context<'_>) -> Result<RosterRow, StanzaError> {
    let row = context.row(&roster_key(context.account))?;
    row.map_or_else(|| Ok(RosterRow::default()), |row| decode(&row).map_err(unreadable))
}

/// Stores the contact as it is from now on, and pushes it when the roster shows a difference. At most once in an evaluation.
///
/// # Errors
/// `resource-constraint` when the roster has no room for it; nothing is written then.
pub(crate) fn change(
    context: &mut Context<'_>,
    jid: &Jid,
    before: Option<&ContactRow>,
    mut after: ContactRow,
) -> Result<(), StanzaError> {
    let nobody = ContactRow::default();
    let before = before.unwrap_or(&nobody);
    if *before == after {
        return Ok(());
    }
    let mut roster = roster(context)?;
    count(context, &mut roster, jid, before, &after)?;
    let shown = before.listed || after.listed;
    if shown && item(jid, before) != item(jid, &after) {
        roster.version = context.now.0;
        after.version = roster.version;
        roster.removed.retain(|removed| removed.jid != jid.as_str());
        if !after.listed {
            roster.removed.push(RemovedRow {
                jid: jid.as_str().to_owned(),
                version: roster.version,
            });
        }
        while roster.removed.len() > REMOVED {
            roster.forgotten = roster.removed.remove(0).version;
        }
        let pushed = payload::query([&item(jid, &after)], roster.version);
        context.push(Audience::Interested, pushed);
    }
    let key = contact_key(context.account, jid.as_str());
    if after.listed || after.request.is_some() || after.state() != State::default() {
        context.put(key, prost::Message::encode_to_vec(&after));
    } else {
        context.delete(key);
    }
    context.put(roster_key(context.account), prost::Message::encode_to_vec(&roster));
    Ok(())
}

/// What the change counts against the account's bounds.
fn count(
    context: &Context<'_>,
    roster: &mut RosterRow,
    jid: &Jid,
    before: &ContactRow,
    after: &ContactRow,
) -> Result<(), StanzaError> {
    let limits = &context.config.limits;
    roster.items = (roster.items + u32::from(after.listed)).saturating_sub(u32::from(before.listed));
    roster.bytes = (roster.bytes + after.size(jid)).saturating_sub(before.size(jid));
    let waits = |row: &ContactRow| u32::from(row.request.is_some());
    roster.requests = (roster.requests + waits(after)).saturating_sub(waits(before));
    let too = |what: &str| Err(StanzaError::resource_constraint().with_text(what));
    if after.listed && !before.listed && roster.items as usize > limits.roster_items_max {
        return too("the roster is full");
    }
    if after.size(jid) > before.size(jid) && roster.bytes > limits.roster_bytes_max as u64 {
        return too("the roster is full");
    }
    if waits(after) > waits(before) && roster.requests as usize > limits.subscription_requests_max {
        return too("too many requests wait for this account's answer");
    }
    Ok(())
}

/// A row that cannot be read is the broker's trouble, not the client's.
pub(super) fn unreadable(error: crate::rows::RowsError) -> StanzaError {
    tracing::error!(%error, "a roster cannot be read");
    StanzaError::internal_server_error()
}
