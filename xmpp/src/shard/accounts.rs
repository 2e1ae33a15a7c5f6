//! The row of an account, and what an operator does with it.

use std::sync::Arc;

use prost::Message;

use super::{Effect, Io, Shard, Turn};
use crate::jid::BareJid;
use crate::rows::{Key, Rows, RowsError, Table, account_key};
use crate::sasl::{Credentials, ScramHash, ScramKeys};
use crate::stanza::Stanza;
use crate::stream::StreamError;

/// An account as it is stored.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AccountRow {
    /// Grows with each change of the credentials.
    #[prost(uint64, tag = "1")]
    pub(super) version: u64,
    #[prost(message, repeated, tag = "2")]
    keys: Vec<KeysRow>,
    /// In the shard's microseconds.
    #[prost(uint64, tag = "3")]
    created: u64,
    /// Whether it blocks anybody (XEP-0191): most do not, and then there is no row to look for.
    #[prost(bool, tag = "4")]
    pub(super) blocks: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeysRow {
    /// The hash function's registered name.
    #[prost(string, tag = "1")]
    hash: String,
    #[prost(bytes = "vec", tag = "2")]
    salt: Vec<u8>,
    #[prost(uint32, tag = "3")]
    iterations: u32,
    #[prost(bytes = "vec", tag = "4")]
    stored_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    server_key: Vec<u8>,
}

/// An account as an operator hands it over.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its address; has a localpart.
    pub jid: BareJid,
    /// Its keys, one for each hash it may log in with.
    pub keys: Vec<ScramKeys>,
}

/// What an operator asks for.
#[derive(Clone, Debug)]
pub enum Administer {
    /// Creates an account.
    Add(Account),
    /// Replaces an account's keys and ends its sessions.
    SetKeys(Account),
    /// Removes an account, its rows and its sessions.
    Delete(BareJid),
}

/// What came of an operator's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Administered {
    /// It is committed.
    Done,
    /// There is such an account already.
    Exists,
    /// There is no such account.
    Unknown,
    /// The shard has no leader here, or its rows cannot be read: try again.
    Unavailable,
}

impl AccountRow {
    pub(super) fn new(version: u64, created: u64, keys: &[ScramKeys]) -> Self {
        let keys = keys.iter().map(|keys| KeysRow {
            hash: keys.hash().name().to_owned(),
            salt: keys.salt().to_vec(),
            iterations: keys.iterations(),
            stored_key: keys.stored_key().to_vec(),
            server_key: keys.server_key().to_vec(),
        });
        Self {
            version,
            keys: keys.collect(),
            created,
            blocks: false,
        }
    }

    /// The account with other keys, from now on.
    pub(super) fn with_keys(self, version: u64, keys: &[ScramKeys]) -> Self {
        let Self { keys, version, .. } = Self::new(version, self.created, keys);
        Self { version, keys, ..self }
    }

    /// Whether its keys are these.
    pub(super) fn has(&self, keys: &[ScramKeys]) -> bool {
        self.keys == Self::new(0, 0, keys).keys
    }

    /// The keys for that hash; the strongest when any will do.
    pub(super) fn credentials(&self, hash: Option<ScramHash>) -> Credentials {
        let keys = self.keys.iter().filter_map(KeysRow::keys);
        let fitting = keys.filter(|keys| hash.is_none_or(|hash| keys.hash() == hash));
        match fitting.max_by_key(ScramKeys::hash) {
            Some(keys) => Credentials::Keys {
                keys,
                version: self.version,
            },
            None => Credentials::UnknownUser,
        }
    }
}

impl KeysRow {
    fn keys(&self) -> Option<ScramKeys> {
        let hash = ScramHash::from_name(&self.hash)?;
        ScramKeys::new(hash, &self.salt, self.iterations, &self.stored_key, &self.server_key).ok()
    }
}

/// The key of an account's row.
pub(super) fn key(account: &BareJid) -> Key {
    account_key(Table::Account, account.as_str(), &[])
}

/// Everything an account leaves behind, by table.
const TABLES: [Table; 9] = [
    Table::Account,
    Table::Queue,
    Table::Stored,
    Table::StoredCount,
    Table::Executed,
    Table::PrivateXml,
    Table::Contact,
    Table::Roster,
    Table::Blocked,
];

/// Rows of one table that are removed with an account; its limits keep them fewer.
const ROWS: usize = 65_536;

impl Shard {
    /// Carries out an operator's request; [`super::Output::Administered`] says what came of it, once it is committed.
    pub fn administer(&mut self, ticket: u64, request: Administer, io: &mut Io<'_>) {
        if !self.is_leading() {
            let result = Administered::Unavailable;
            return io.out.push(super::Output::Administered { ticket, result });
        }
        let account = match &request {
            Administer::Add(account) | Administer::SetKeys(account) => account.jid.clone(),
            Administer::Delete(jid) => jid.clone(),
        };
        let mut turn = Turn::of(&account);
        let result = match (self.account(&account, io), request) {
            (Err(error), _) => {
                tracing::error!(%error, "an account cannot be read");
                Administered::Unavailable
            }
            (Ok(Some(_)), Administer::Add(_)) => Administered::Exists,
            (Ok(None), Administer::SetKeys(_) | Administer::Delete(_)) => Administered::Unknown,
            (Ok(None), Administer::Add(account)) => {
                let at = self.stamp(io);
                // Later than the version of any account that had this address before.
                turn.put(key(&account.jid), &AccountRow::new(at.0, at.0, &account.keys));
                Administered::Done
            }
            (Ok(Some(row)), Administer::SetKeys(account)) => {
                let at = self.stamp(io);
                let blocks = row.blocks;
                turn.put(
                    key(&account.jid),
                    &AccountRow {
                        blocks,
                        ..AccountRow::new(at.0, row.created, &account.keys)
                    },
                );
                self.end_all(&mut turn, &account.jid, StreamError::reset(), "password-changed", io);
                Administered::Done
            }
            (Ok(Some(_)), Administer::Delete(jid)) => self.remove(&mut turn, &jid, io),
        };
        turn.effects.push(Effect::Administered(ticket, result));
        self.finish(turn, io);
    }

    pub(super) fn remove(&mut self, turn: &mut Turn, account: &BareJid, io: &mut Io<'_>) -> Administered {
        self.end_all(turn, account, StreamError::not_authorized(), "account-removed", io);
        let view = self.overlay.over(io.rows);
        for table in TABLES {
            let prefix = account_key(table, account.as_str(), &[]);
            let Ok(rows) = view.scan(&prefix, &prefix, ROWS) else {
                return Administered::Unavailable;
            };
            rows.into_iter().for_each(|(key, _)| turn.delete(key));
        }
        self.part_from_contacts(turn, account, io);
        // What the ended sessions left to the store goes too.
        let stored = account_key(Table::Stored, account.as_str(), &[]);
        turn.writes
            .retain(|write| !(matches!(write, crate::rows::Write::Put(key, _) if key.starts_with(&stored))));
        turn.delete(account_key(Table::StoredCount, account.as_str(), &[]));
        Administered::Done
    }

    /// Both subscriptions with every contact end (RFC 6121 §2.5.2), so that nobody waits for somebody who is gone.
    fn part_from_contacts(&mut self, turn: &mut Turn, account: &BareJid, io: &mut Io<'_>) {
        for (contact, row) in self.contacts_of(account, io) {
            for verb in row.state().removal() {
                let stanza = Stanza::presence(verb.presence_type(), [])
                    .with_from(account)
                    .with_to(contact.clone());
                self.durably(turn, Arc::new(stanza), io);
            }
        }
    }

    fn end_all(
        &mut self,
        turn: &mut Turn,
        account: &BareJid,
        error: StreamError,
        reason: &'static str,
        io: &mut Io<'_>,
    ) {
        for place in self.sessions.of_account(account.as_str()).to_vec() {
            self.expel(turn, place, error.clone(), reason, io);
        }
    }

    /// Notes whether the account blocks anybody, where every login and every stanza for it looks.
    pub(super) fn note_blocks(&self, turn: &mut Turn, account: &BareJid, any: bool, io: &Io<'_>) {
        match self.account(account, io) {
            Ok(Some(row)) if row.blocks != any => turn.put(key(account), &AccountRow { blocks: any, ..row }),
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "an account cannot be read"),
        }
    }

    /// Whether the account blocks anybody, from its row.
    pub(super) fn account_blocks(&self, account: &BareJid, io: &Io<'_>) -> bool {
        // What cannot be read is looked for.
        self.account(account, io)
            .is_ok_and(|row| row.is_some_and(|row| row.blocks))
    }

    pub(super) fn account(&self, account: &BareJid, io: &Io<'_>) -> Result<Option<AccountRow>, RowsError> {
        let Some(row) = self.overlay.over(io.rows).row(&key(account))? else {
            return Ok(None);
        };
        AccountRow::decode(row)
            .map(Some)
            .map_err(|_| RowsError(format!("the row of {account} is not one of ours")))
    }
}

/// The accounts among `rows`, in the order of their keys: for a listing.
pub fn accounts_of(
    rows: &dyn Rows,
    slot: u16,
    after: Option<&BareJid>,
    limit: usize,
) -> Result<Vec<BareJid>, RowsError> {
    let mut prefix = slot.to_be_bytes().to_vec();
    prefix.push(Table::Account as u8);
    let from = after.map_or_else(|| prefix.clone(), |jid| [&key(jid)[..], &[0]].concat());
    let name = |key: Key| {
        let bare = key.get(3..key.len().checked_sub(1)?)?;
        BareJid::parse(std::str::from_utf8(bare).ok()?).ok()
    };
    Ok(rows
        .scan(&prefix, &from, limit)?
        .into_iter()
        .filter_map(|(key, _)| name(key))
        .collect())
}
