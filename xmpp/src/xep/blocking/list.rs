//! The block list at rest: one row per address, and whether an address is matched by one of them.

use crate::jid::{BareJid, Jid};
use crate::rows::{Key, Rows, RowsError, Table, account_key};

/// The key of a blocked address.
pub(super) fn blocked_key(account: &BareJid, address: &str) -> Key {
    account_key(Table::Blocked, account.as_str(), address.as_bytes())
}

/// What the keys of an account's blocked addresses begin with.
pub(super) fn blocked_prefix(account: &BareJid) -> Key {
    account_key(Table::Blocked, account.as_str(), &[])
}

/// Whether `other` is blocked: itself, its account, its domain with that resource, or its domain (XEP-0191 §6). An account never
/// blocks its own resources (§5).
pub(crate) fn matches(rows: &dyn Rows, account: &BareJid, other: &Jid) -> Result<bool, RowsError> {
    if other.bare_str() == account.as_str() {
        return Ok(false);
    }
    let mut addresses = vec![other.as_str().to_owned(), other.bare_str().to_owned()];
    if let Some(resource) = other.resource() {
        addresses.push(format!("{}/{resource}", other.domain()));
    }
    addresses.push(other.domain().to_owned());
    addresses.dedup();
    for address in addresses {
        if rows.row(&blocked_key(account, &address))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether blocking `blocked` blocks all of the account or domain `contact`.
pub(super) fn covers(blocked: &Jid, contact: &Jid) -> bool {
    blocked == contact || blocked.as_str() == contact.bare_str() || blocked.as_str() == contact.domain()
}
