//! The row of an account, and what an operator does with it.

use std::collections::HashSet;
use std::sync::Arc;

use prost::Message;

use super::{Effect, Io, Phase, Restore, Shard, Turn};
use crate::jid::BareJid;
use crate::rows::{Key, Rows, RowsError, Table, Timestamp, account_key};
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
    /// Creates many accounts at once: what they write is one batch.
    Import {
        /// All of this shard. Their rows must fit into an entry together.
        accounts: Arc<[Account]>,
        /// What happens to those that exist.
        existing: Existing,
    },
    /// A step of the restore of a backup.
    Restore(Restore),
}

/// What an import does with an account that exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// It gets the new keys, and its sessions end: as [`Administer::SetKeys`].
    #[default]
    Replace,
    /// It stays as it is.
    Keep,
    /// It stays as it is, and that counts as a refusal.
    Refuse,
}

/// What became of one account of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    /// It is new.
    Created,
    /// It existed and has the new keys.
    Replaced,
    /// It existed and is as it was; also whenever it has exactly these keys already, so that an import may be repeated.
    Kept,
    /// It existed, and that was not wanted; or it is in the request before.
    Exists,
}

/// What came of an operator's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Administered {
    /// It is committed.
    Done,
    /// An import is committed: what became of each account, in their order.
    Imported(Vec<Imported>),
    /// There is such an account already.
    Exists,
    /// There is no such account.
    Unknown,
    /// The shard has no leader here, restores a backup, or its rows cannot be read: try again.
    Unavailable,
    /// A step of a restore is committed, or changes nothing: how far the shard is.
    Restoring(Phase),
    /// A backup is restored only where there are no accounts, and here are some.
    HasAccounts,
    /// Another backup is being restored, or none.
    OtherRestore,
    /// What is to be restored are no rows, or not of this shard.
    NotRows,
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
        if self.restoring && !matches!(request, Administer::Restore(_)) {
            let result = Administered::Unavailable;
            return io.out.push(super::Output::Administered { ticket, result });
        }
        let account = match &request {
            Administer::Restore(step) => return self.restore(ticket, step.clone(), io),
            Administer::Add(account) | Administer::SetKeys(account) => account.jid.clone(),
            Administer::Delete(jid) => jid.clone(),
            Administer::Import { accounts, existing } => {
                return self.import(ticket, &Arc::clone(accounts), *existing, io);
            }
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
            // Returned above.
            (Ok(_), Administer::Import { .. } | Administer::Restore(_)) => Administered::Unavailable,
        };
        turn.effects.push(Effect::Administered(ticket, result));
        self.finish(turn, io);
    }

    /// Writes many accounts in one batch. All of them wait for it: nobody logs in with keys that are not committed.
    fn import(&mut self, ticket: u64, accounts: &[Account], existing: Existing, io: &mut Io<'_>) {
        let mut turn = Turn::of_shard();
        let mut seen = HashSet::with_capacity(accounts.len());
        let mut results = Vec::with_capacity(accounts.len());
        for account in accounts {
            let result = if seen.insert(&account.jid) {
                self.import_one(&mut turn, account, existing, io)
            } else {
                Ok(Imported::Exists)
            };
            match result {
                Ok(result) => results.push(result),
                Err(error) => {
                    tracing::error!(%error, "an account cannot be read");
                    let result = Administered::Unavailable;
                    return io.out.push(super::Output::Administered { ticket, result });
                }
            }
        }
        let wrote = !turn.writes.is_empty();
        turn.effects
            .push(Effect::Administered(ticket, Administered::Imported(results)));
        if wrote {
            for account in accounts {
                self.pipeline.will_write(account.jid.as_str());
            }
        }
        self.finish(turn, io);
    }

    fn import_one(
        &mut self,
        turn: &mut Turn,
        account: &Account,
        existing: Existing,
        io: &mut Io<'_>,
    ) -> Result<Imported, RowsError> {
        let Some(row) = self.account(&account.jid, io)? else {
            let at = self.stamp(io);
            turn.put(key(&account.jid), &AccountRow::new(at.0, at.0, &account.keys));
            return Ok(Imported::Created);
        };
        if row.has(&account.keys) {
            return Ok(Imported::Kept);
        }
        match existing {
            Existing::Keep => Ok(Imported::Kept),
            Existing::Refuse => Ok(Imported::Exists),
            Existing::Replace => {
                let at = self.stamp(io);
                turn.put(key(&account.jid), &row.with_keys(at.0, &account.keys));
                self.end_all(turn, &account.jid, StreamError::reset(), "password-changed", io);
                Ok(Imported::Replaced)
            }
        }
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

/// An account as a listing or an export shows it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its address.
    pub jid: BareJid,
    /// When it was made, in the shard's time.
    pub created: Timestamp,
    /// Its keys.
    pub keys: Vec<ScramKeys>,
}

/// Up to `limit` accounts of a slot, in the order of their keys.
///
/// # Errors
/// When the rows cannot be read, or one of them is not an account's.
pub fn accounts_of(
    rows: &dyn Rows,
    slot: u16,
    after: Option<&BareJid>,
    limit: usize,
) -> Result<Vec<Listed>, RowsError> {
    let mut prefix = slot.to_be_bytes().to_vec();
    prefix.push(Table::Account as u8);
    let from = after.map_or_else(|| prefix.clone(), |jid| [&key(jid)[..], &[0]].concat());
    let listed = |(key, value): (Key, crate::rows::Value)| {
        let bare = key.get(3..key.len().checked_sub(1)?)?;
        let jid = BareJid::parse(std::str::from_utf8(bare).ok()?).ok()?;
        let row = AccountRow::decode(value).ok()?;
        Some(Listed {
            jid,
            created: Timestamp(row.created),
            keys: row.keys.iter().filter_map(KeysRow::keys).collect(),
        })
    };
    let rows = rows.scan(&prefix, &from, limit)?.into_iter();
    rows.map(|row| {
        listed(row).ok_or_else(|| RowsError(format!("a row of an account in slot {slot} is not one of ours")))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::link::{Conn, EdgeId, ShardId, ToShard};
    use crate::random::testing::Seeded;
    use crate::rows::{Value, Write};
    use crate::sasl::Password;
    use crate::shard::{Config, Output};

    /// Applied rows.
    #[derive(Default)]
    struct Applied(BTreeMap<Key, Value>);

    impl Rows for Applied {
        fn row(&self, key: &[u8]) -> Result<Option<Value>, RowsError> {
            Ok(self.0.get(key).cloned())
        }

        fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, RowsError> {
            let rows = self
                .0
                .iter()
                .filter(|(key, _)| key.starts_with(prefix) && &key[..] >= from);
            Ok(rows
                .take(limit)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect())
        }

        fn scan_back(&self, prefix: &[u8], before: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, RowsError> {
            let rows = self.0.iter().rev();
            let rows = rows.filter(|(key, _)| key.starts_with(prefix) && &key[..] < before);
            Ok(rows
                .take(limit)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect())
        }
    }

    /// A shard that leads, and its rows.
    struct Lone {
        shard: Shard,
        rows: Applied,
    }

    impl Lone {
        fn new() -> Self {
            let shard = Shard::new(ShardId(0), Arc::new(Config::alone("localhost", 1)));
            let mut lone = Self {
                shard,
                rows: Applied::default(),
            };
            lone.step(|shard, io| shard.lead(1, io).unwrap());
            assert!(lone.shard.is_leading());
            lone
        }

        fn step(&mut self, step: impl FnOnce(&mut Shard, &mut Io<'_>)) -> Vec<Output> {
            let mut out = Vec::new();
            let mut io = Io {
                rows: &self.rows,
                now: Timestamp(1),
                elapsed: Duration::ZERO,
                random: &mut Seeded(7),
                out: &mut out,
            };
            step(&mut self.shard, &mut io);
            out
        }

        /// Imports; gives what came of it and how many rows the one batch had.
        fn import(&mut self, accounts: Vec<Account>, existing: Existing) -> (Administered, usize) {
            let accounts = accounts.into();
            let out = self.step(|shard, io| shard.administer(9, Administer::Import { accounts, existing }, io));
            let mut batches = out.iter().filter_map(|output| match output {
                Output::Propose { no, batch } => Some((*no, batch.clone())),
                _ => None,
            });
            let answered = |out: &[Output]| {
                out.iter().find_map(|output| match output {
                    Output::Administered { ticket: 9, result } => Some(result.clone()),
                    _ => None,
                })
            };
            let Some((no, batch)) = batches.next() else {
                return (answered(&out).unwrap(), 0);
            };
            assert!(batches.next().is_none(), "more than one batch");
            assert_eq!(answered(&out), None, "answered before it is committed");
            for write in &batch.writes {
                match write {
                    Write::Put(key, value) => self.rows.0.insert(key.clone(), value.clone()),
                    Write::Delete(key) => self.rows.0.remove(key),
                };
            }
            let out = self.step(|shard, io| shard.committed(no, io));
            (answered(&out).unwrap(), batch.writes.len())
        }
    }

    fn account(name: &str, salt: u8) -> Account {
        let password = Password::new("p").unwrap();
        let keys = ScramKeys::derive(ScramHash::Sha256, &password, &[salt; 8], 4096).unwrap();
        Account {
            jid: BareJid::new(Some(name), "localhost").unwrap(),
            keys: vec![keys],
        }
    }

    #[test]
    fn accounts_of_an_import_are_one_batch_and_answered_when_it_is_committed() {
        use Imported::{Created, Exists, Kept, Replaced};
        let mut lone = Lone::new();
        let twice = vec![account("a", 1), account("b", 1), account("a", 2)];
        let (result, rows) = lone.import(twice, Existing::Replace);
        assert_eq!(result, Administered::Imported(vec![Created, Created, Exists]));
        assert_eq!(rows, 2);
        for (existing, of_others, rows) in [
            (Existing::Keep, Kept, 0),
            (Existing::Refuse, Exists, 0),
            (Existing::Replace, Replaced, 1),
        ] {
            // The same keys change nothing, others are what was asked for.
            let again = lone.import(vec![account("a", 1), account("b", 2)], existing);
            assert_eq!(
                again,
                (Administered::Imported(vec![Kept, of_others]), rows),
                "{existing:?}"
            );
        }
    }

    #[test]
    fn nobody_logs_in_with_imported_keys_before_they_are_committed() {
        let mut lone = Lone::new();
        let accounts: Arc<[Account]> = vec![account("a", 1)].into();
        let existing = Existing::Replace;
        lone.step(|shard, io| shard.administer(1, Administer::Import { accounts, existing }, io));
        let ask = |account: &str| ToShard::Credentials {
            conn: Conn(1),
            account: BareJid::new(Some(account), "localhost").unwrap(),
            hash: None,
        };
        let term = lone.shard.term();
        let asked = lone.step(|shard, io| shard.from_edge(EdgeId::default(), term, ask("a"), io));
        assert!(asked.is_empty(), "{asked:?}");
        let other = lone.step(|shard, io| shard.from_edge(EdgeId::default(), term, ask("b"), io));
        assert_eq!(other.len(), 1, "{other:?}");
    }
}
