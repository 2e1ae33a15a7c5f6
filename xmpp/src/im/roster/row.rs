//! The rows of a roster: one per contact, and one that says how the roster as a whole stands.

use bytes::Bytes;

use crate::im::subscription::{Side, State};
use crate::jid::{BareJid, Jid};
use crate::rows::{Key, Rows, RowsError, Table, account_key};

/// A contact. Also somebody whose request for a subscription waits, which no roster shows (RFC 6121 §3.1.3).
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContactRow {
    #[prost(string, optional, tag = "1")]
    pub(crate) name: Option<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) groups: Vec<String>,
    /// The user's subscription to the contact: 0 none, 1 pending, 2 granted.
    #[prost(uint32, tag = "3")]
    pub(super) to: u32,
    /// The contact's subscription to the user, likewise.
    #[prost(uint32, tag = "4")]
    pub(super) from: u32,
    #[prost(bool, tag = "5")]
    pub(super) approved: bool,
    /// Whether the roster shows it.
    #[prost(bool, tag = "6")]
    pub(crate) listed: bool,
    /// The request that waits, with everything in it (§3.1.3, rule 4): [`crate::stanza::Stanza::encode`].
    #[prost(bytes = "bytes", optional, tag = "7")]
    pub(crate) request: Option<Bytes>,
    /// The roster's version when the item was changed last.
    #[prost(uint64, tag = "8")]
    pub(crate) version: u64,
}

impl ContactRow {
    pub(crate) fn state(&self) -> State {
        State {
            to: side(self.to),
            from: side(self.from),
            approved: self.approved,
        }
    }

    pub(crate) fn set_state(&mut self, state: State) {
        (self.to, self.from, self.approved) = (number(state.to), number(state.from), state.approved);
    }

    /// What it counts against the bytes of its roster.
    pub(super) fn size(&self, contact: &Jid) -> u64 {
        if !self.listed {
            return 0;
        }
        let texts = self.name.iter().chain(&self.groups).map(|text| text.len() + MARKUP);
        (contact.as_str().len() + MARKUP + texts.sum::<usize>()) as u64
    }
}

/// What an element around a text costs, about.
const MARKUP: usize = 64;

fn side(number: u32) -> Side {
    match number {
        1 => Side::Pending,
        2 => Side::Subscribed,
        _ => Side::None,
    }
}

fn number(side: Side) -> u32 {
    match side {
        Side::None => 0,
        Side::Pending => 1,
        Side::Subscribed => 2,
    }
}

/// A roster as a whole.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RosterRow {
    /// Of the last change, in the shard's microseconds (RFC 6121 §2.6).
    #[prost(uint64, tag = "1")]
    pub(crate) version: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) items: u32,
    /// Of the items as they are written, about.
    #[prost(uint64, tag = "3")]
    pub(crate) bytes: u64,
    /// Requests of people who are not in the roster.
    #[prost(uint32, tag = "4")]
    pub(crate) requests: u32,
    /// The items removed last.
    #[prost(message, repeated, tag = "5")]
    pub(crate) removed: Vec<RemovedRow>,
    /// Items removed at this version or earlier are not among them any more.
    #[prost(uint64, tag = "6")]
    pub(crate) forgotten: u64,
}

/// An item that is no longer in the roster.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RemovedRow {
    #[prost(string, tag = "1")]
    pub(crate) jid: String,
    #[prost(uint64, tag = "2")]
    pub(crate) version: u64,
}

/// The key of a contact.
pub(crate) fn contact_key(account: &BareJid, contact: &str) -> Key {
    account_key(Table::Contact, account.as_str(), contact.as_bytes())
}

/// What the keys of an account's contacts begin with.
pub(crate) fn contacts_prefix(account: &BareJid) -> Key {
    account_key(Table::Contact, account.as_str(), &[])
}

/// The key of the roster as a whole.
pub(crate) fn roster_key(account: &BareJid) -> Key {
    account_key(Table::Roster, account.as_str(), &[])
}

/// The state between an account and somebody, by the bare JID.
pub(crate) fn state_of(rows: &dyn Rows, account: &BareJid, contact: &str) -> Result<State, RowsError> {
    let row = rows.row(&contact_key(account, contact))?;
    row.map_or_else(
        || Ok(State::default()),
        |row| decode::<ContactRow>(&row).map(|row| row.state()),
    )
}

/// All contacts, in the order of their addresses.
pub(crate) fn contacts(rows: &dyn Rows, account: &BareJid, max: usize) -> Result<Vec<(Jid, ContactRow)>, RowsError> {
    let prefix = contacts_prefix(account);
    let contact = |(key, value): (Key, Bytes)| {
        let jid = key.get(prefix.len()..).and_then(|jid| std::str::from_utf8(jid).ok());
        let jid = jid.and_then(|jid| Jid::parse(jid).ok());
        let jid = jid.ok_or_else(|| {
            RowsError(format!(
                "the key of a contact is not one of ours: {}",
                key.escape_ascii()
            ))
        })?;
        Ok((jid, decode(&value)?))
    };
    rows.scan(&prefix, &prefix, max)?.into_iter().map(contact).collect()
}

pub(super) fn decode<M: prost::Message + Default>(row: &Bytes) -> Result<M, RowsError> {
    M::decode(row.clone()).map_err(|_| RowsError("a row of a roster is not one of ours".to_owned()))
}
