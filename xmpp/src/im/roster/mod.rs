//! RFC 6121 §2: the roster of an account, with versioning.

pub(crate) mod change;
pub mod payload;
pub(crate) mod row;

use crate::feature::{Audience, Context, Feature, Payload, Said, Spec, Target};
use crate::im::subscription::State;
use crate::jid::{BareJid, Jid};
use crate::stanza::{IqType, Kind, Stanza, StanzaError};
use crate::xml::Element;
use change::{change, contact};
use payload::{Item, ItemLimits, NS, Request};
use row::{ContactRow, RosterRow, contacts};

/// More changes than this since a client's version, and it gets the whole roster (§2.6.3).
const PUSHES_MAX: usize = 64;

/// Answers roster gets and sets.
#[derive(Debug)]
pub struct Roster;

impl Feature for Roster {
    fn spec(&self) -> &'static Spec {
        &Spec {
            document: "RFC 6121",
            title: "Rosters, presence and subscriptions",
            version: "",
            host_features: &[NS],
            account_features: &[],
        }
    }

    fn payloads(&self) -> &'static [Payload] {
        &[Payload {
            name: "query",
            namespace: NS,
        }]
    }

    fn iq(&self, context: &mut Context<'_>, target: Target, request: &Stanza) -> Result<Option<Element>, StanzaError> {
        target.own_only()?;
        let query = request.payload_element().map_err(|_| StanzaError::bad_request())?;
        let type_ = match request.kind {
            Kind::Iq(type_) => type_,
            _ => IqType::Get,
        };
        let limits = &context.config.limits;
        let limits = ItemLimits {
            name_bytes_max: limits.roster_name_bytes_max,
            group_bytes_max: limits.roster_name_bytes_max,
            groups_max: limits.roster_groups_max,
        };
        match Request::parse(type_, &query, &limits)? {
            Request::Get { version } => get(context, version.as_deref()),
            Request::Put { jid, name, groups } => put(context, &jid, name, groups).map(|()| None),
            Request::Remove { jid } => remove(context, &jid).map(|()| None),
        }
    }
}

/// §2.2: whoever gets the roster hears of its changes from then on.
fn get(context: &mut Context<'_>, version: Option<&str>) -> Result<Option<Element>, StanzaError> {
    context.remember(Said::Roster);
    let roster = change::roster(context)?;
    let limits = &context.config.limits;
    let max = limits.roster_items_max + limits.subscription_requests_max;
    let contacts = contacts(&context.rows, context.account, max).map_err(change::unreadable)?;
    if let Some(changes) = version.and_then(|version| changes_since(version, &roster, &contacts)) {
        // §2.6.3: nothing in the result, then a push for each change, in the order in which they were made.
        for (version, item) in changes {
            context.push(Audience::Origin, payload::query([&item], version));
        }
        return Ok(None);
    }
    let items: Vec<Item> = contacts
        .iter()
        .filter(|(_, row)| row.listed)
        .map(|(jid, row)| item(jid, row))
        .collect();
    Ok(Some(payload::query(&items, roster.version)))
}

/// What has changed since a client's version, unless that is not known any more or a whole roster is shorter.
fn changes_since(version: &str, roster: &RosterRow, contacts: &[(Jid, ContactRow)]) -> Option<Vec<(u64, Item)>> {
    let version: u64 = version.parse().ok()?;
    if version > roster.version || version < roster.forgotten || (version == 0 && roster.version > 0) {
        return None;
    }
    let changed = contacts.iter().filter(|(_, row)| row.listed && row.version > version);
    let changed = changed.map(|(jid, row)| (row.version, item(jid, row)));
    let removed = roster.removed.iter().filter(|removed| removed.version > version);
    let removed = removed.filter_map(|removed| {
        let jid = Jid::parse(&removed.jid).ok()?;
        Some((removed.version, Item::Removed { jid }))
    });
    let mut changes: Vec<(u64, Item)> = changed.chain(removed).collect();
    changes.sort_unstable_by_key(|(version, _)| *version);
    let items = contacts.iter().filter(|(_, row)| row.listed).count();
    (changes.len() <= PUSHES_MAX.min(items.max(1))).then_some(changes)
}

/// §2.3, §2.4: the item is exactly this from now on; its subscription stays what it is.
fn put(context: &mut Context<'_>, jid: &Jid, name: Option<String>, groups: Vec<String>) -> Result<(), StanzaError> {
    let before = contact(context, jid)?;
    let after = ContactRow {
        name,
        groups,
        listed: true,
        ..before.clone().unwrap_or_default()
    };
    change(context, jid, before.as_ref(), after)
}

/// §2.5: the item goes, and with it both subscriptions.
fn remove(context: &mut Context<'_>, jid: &Jid) -> Result<(), StanzaError> {
    let Some(before) = contact(context, jid)?.filter(|row| row.listed) else {
        return Err(StanzaError::item_not_found());
    };
    let state = before.state();
    if state.discloses() {
        context.hide(jid.clone());
    }
    let account: &BareJid = context.account;
    for verb in state.removal() {
        let stanza = Stanza::presence(verb.presence_type(), [])
            .with_from(account)
            .with_to(jid.clone());
        context.send(stanza);
    }
    let mut after = ContactRow::default();
    after.set_state(State::default());
    change(context, jid, Some(&before), after)
}

/// The contact as its owner's clients see it.
fn item(jid: &Jid, row: &ContactRow) -> Item {
    if row.listed {
        Item::listed(jid.clone(), row.name.clone(), row.groups.clone(), row.state())
    } else {
        Item::Removed { jid: jid.clone() }
    }
}
