//! XEP-0191: Blocking Command. Whom an account blocks it does not hear, and cannot speak to.

mod list;
pub mod payload;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::feature::{Audience, Context, Feature, Payload, Said, Spec, Target};
use crate::im::roster::row::contacts;
use crate::jid::Jid;
use crate::rows::RowsError;
use crate::stanza::{IqType, Kind, Stanza, StanzaError};
use crate::xml::Element;
pub(crate) use list::matches;
use list::{blocked_key, blocked_prefix, covers};
pub(crate) use payload::blocked;
use payload::{BLOCK, BLOCKLIST, Command, NS, UNBLOCK};

/// Answers the three commands.
#[derive(Debug)]
pub struct Blocking;

impl Feature for Blocking {
    fn spec(&self) -> &'static Spec {
        &Spec {
            document: "XEP-0191",
            title: "Blocking Command",
            version: "1.3",
            host_features: &[NS],
            account_features: &[],
        }
    }

    fn payloads(&self) -> &'static [Payload] {
        const fn of(name: &'static str) -> Payload {
            Payload { name, namespace: NS }
        }
        const { &[of(BLOCKLIST), of(BLOCK), of(UNBLOCK)] }
    }

    fn iq(&self, context: &mut Context<'_>, target: Target, request: &Stanza) -> Result<Option<Element>, StanzaError> {
        target.own_only()?;
        let Kind::Iq(type_ @ (IqType::Get | IqType::Set)) = request.kind else {
            return Err(StanzaError::bad_request());
        };
        let command = request.payload_element().map_err(|_| StanzaError::bad_request())?;
        let command = Command::parse(type_, &command)?;
        let blocked = blocked_by(context)?;
        let after: BTreeSet<Jid> = match &command {
            Command::List => {
                // §3.3: whoever has asked for the list hears of its changes.
                context.remember(Said::Blocklist);
                return Ok(Some(payload::list(&blocked)));
            }
            Command::Block(jids) => blocked.union(jids).cloned().collect(),
            Command::Unblock(jids) => blocked.difference(jids).cloned().collect(),
            Command::UnblockAll => BTreeSet::new(),
        };
        if after.len() > context.config.limits.blocked_max.max(blocked.len()) {
            return Err(StanzaError::resource_constraint().with_text("this account blocks too many addresses"));
        }
        change(context, &blocked, &after)?;
        if let Some(push) = command.push() {
            context.push(Audience::Blocklist, push);
        }
        Ok(None)
    }
}

fn blocked_by(context: &Context<'_>) -> Result<BTreeSet<Jid>, StanzaError> {
    let prefix = blocked_prefix(context.account);
    let rows = context.scan(&prefix, &prefix, context.config.limits.blocked_max)?;
    let jid = |key: &[u8]| Jid::parse(std::str::from_utf8(key.get(prefix.len()..)?).ok()?).ok();
    Ok(rows.into_iter().filter_map(|(key, _)| jid(&key)).collect())
}

/// Stores the list as it is from now on. Contacts that may see the account see it leave, or come back (§3.3, §3.4).
fn change(context: &mut Context<'_>, before: &BTreeSet<Jid>, after: &BTreeSet<Jid>) -> Result<(), StanzaError> {
    let limits = &context.config.limits;
    let max = limits.roster_items_max + limits.subscription_requests_max;
    let contacts = contacts(&context.rows, context.account, max).map_err(unreadable)?;
    let seeing: Vec<Jid> = contacts
        .into_iter()
        .filter(|(_, row)| row.state().discloses())
        .map(|(jid, _)| jid)
        .collect();
    for jid in after.difference(before) {
        context.put(blocked_key(context.account, jid.as_str()), Bytes::new());
    }
    for jid in before.difference(after) {
        context.delete(blocked_key(context.account, jid.as_str()));
    }
    let hidden = |list: &BTreeSet<Jid>, contact: &Jid| list.iter().any(|blocked| covers(blocked, contact));
    for contact in seeing {
        match (hidden(before, &contact), hidden(after, &contact)) {
            (false, true) => context.hide(contact),
            (true, false) => context.show(contact),
            _ => one_resource(context, &contact, before, after),
        }
    }
    context.blocks(!after.is_empty());
    Ok(())
}

/// §6: a single resource of a contact may be blocked, too.
fn one_resource(context: &mut Context<'_>, contact: &Jid, before: &BTreeSet<Jid>, after: &BTreeSet<Jid>) {
    let of_contact = |jid: &&Jid| !jid.is_bare() && jid.bare_str() == contact.as_str();
    for jid in after.difference(before).filter(of_contact) {
        context.hide(jid.clone());
    }
    for jid in before.difference(after).filter(of_contact) {
        context.show(jid.clone());
    }
}

/// What somebody who is blocked is told (§3.3): what an account that is not there would say, and to presence nothing.
pub(crate) fn answer(stanza: &Stanza) -> Vec<Arc<Stanza>> {
    let speaks = stanza.kind.is_message() || stanza.kind.is_request();
    let error = speaks
        .then(|| stanza.error(&StanzaError::service_unavailable()))
        .flatten();
    error.map(Arc::new).into_iter().collect()
}

fn unreadable(error: RowsError) -> StanzaError {
    tracing::error!(%error, "a roster cannot be read");
    StanzaError::internal_server_error()
}
