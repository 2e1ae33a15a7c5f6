//! A backup comes into a new cluster: its rows become rows here, in steps that may be repeated.
//!
//! What a backup says of sessions is over: no device is connected. So sessions, what they were told, and notes for repeats of
//! their frames stay behind; what their queues held goes to the account's store, as when a session ends. Numbers that shards
//! gave their effects on each other begin anew, so effects that were not done are sent again: subscriptions, whose states
//! converge (RFC 6121 appendix A). As long as a shard restores, nobody logs in to it and no account is made.
//!
//! The order is the same in all shards: first what accounts own, then accounts, then effects. Nobody is there before what is
//! theirs, and an effect finds its account.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use prost::Message;

use super::accounts::AccountRow;
use super::pubsub::{RestoredNodes, is_pubsub};
use super::{Administered, Effect, Io, Shard, ShardMap, Turn};
use crate::im::stored::{StoredCountRow, StoredRow, is_storable, stored_count_key, stored_key};
use crate::jid::{self, BareJid};
use crate::link::{Durable, ShardId};
use crate::rows::{Key, Rows, RowsError, SHARD_SLOTS, Table, Timestamp, Value, Write, shard_key};
use crate::session::QueueRow;
use crate::stanza::Stanza;

/// A step of a restore, of one shard.
#[derive(Clone, PartialEq, Eq)]
pub enum Restore {
    /// Says how far it is, or that it could begin: as [`Restore::Begin`], without beginning.
    Look {
        /// Names the backup.
        backup: u128,
    },
    /// Begins, or says how far it is. Refused when there are accounts, or when another backup is being restored.
    Begin {
        /// Names the backup.
        backup: u128,
        /// No time here is before this one.
        at: Timestamp,
    },
    /// Takes rows; those that are there already change nothing, nor does a phase that is over.
    Rows {
        /// Names the backup.
        backup: u128,
        /// What they are.
        phase: Phase,
        /// As [`place_of`] says. Together they must fit into an entry.
        rows: Arc<[(Key, Value)]>,
    },
    /// All rows of the phases before are here, and in all other shards.
    Advance {
        /// Names the backup.
        backup: u128,
        /// The phase that begins.
        to: Phase,
    },
}

impl std::fmt::Debug for Restore {
    /// Rows hold keys and messages: they are counted, not shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Look { backup } => write!(f, "Look({backup:032x})"),
            Self::Begin { backup, at } => write!(f, "Begin({backup:032x}, {at:?})"),
            Self::Rows { backup, phase, rows } => write!(f, "Rows({backup:032x}, {phase:?}, {} rows)", rows.len()),
            Self::Advance { backup, to } => write!(f, "Advance({backup:032x}, {to:?})"),
        }
    }
}

/// How far a restore is. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Phase {
    /// What accounts own comes.
    Belongings = 0,
    /// Accounts come.
    Accounts = 1,
    /// Effects that were not done come.
    Effects = 2,
    /// It is done: devices may log in.
    Done = 3,
}

impl Phase {
    /// The phase of that number.
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Belongings,
            1 => Self::Accounts,
            2 => Self::Effects,
            3 => Self::Done,
            _ => return None,
        })
    }

    /// The one after it; `Done` stays.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Belongings => Self::Accounts,
            Self::Accounts => Self::Effects,
            Self::Effects | Self::Done => Self::Done,
        }
    }
}

/// Which backup a shard restores, or has restored.
#[derive(Clone, PartialEq, prost::Message)]
struct RestoredRow {
    #[prost(bytes = "vec", tag = "1")]
    backup: Vec<u8>,
    /// [`Phase`].
    #[prost(uint32, tag = "2")]
    phase: u32,
}

/// When a row of a backup comes and to which shard; `None`: it stays behind.
///
/// # Errors
/// When it is not a row that this program knows.
pub fn place_of(key: &[u8], value: &Value, map: &ShardMap) -> Result<Option<(Phase, ShardId)>, RowsError> {
    let unknown = || RowsError(format!("a row is not known, its key is {}", key.escape_ascii()));
    let (slot, rest) = key.split_first_chunk::<2>().ok_or_else(unknown)?;
    let slot = u16::from_be_bytes(*slot);
    let table = *rest.first().ok_or_else(unknown)?;
    let is = |tables: &[Table]| tables.iter().any(|known| *known as u8 == table);
    if slot < SHARD_SLOTS {
        let here = |phase| Ok(Some((phase, map.shard_of(slot))));
        return match () {
            () if is(&[Table::Account]) => here(Phase::Accounts),
            () if is(&[
                Table::Queue,
                Table::Stored,
                Table::PrivateXml,
                Table::Contact,
                Table::Roster,
                Table::Blocked,
                Table::PubsubNode,
                Table::PubsubState,
                Table::PubsubAffiliation,
                Table::PubsubSubscription,
                Table::PubsubLease,
                Table::PubsubItem,
                Table::PubsubItemOrder,
            ]) =>
            {
                here(Phase::Belongings)
            }
            () if is(&[Table::Session, Table::StoredCount, Table::Executed, Table::Farewell]) => Ok(None),
            () => Err(unknown()),
        };
    }
    if is(&[Table::Outbox]) {
        if Durable::pubsub_in(value).is_some() {
            // Followers are made anew, and who was to be notified of what is not known any more.
            return Ok(None);
        }
        let stanza = Stanza::decode(value.clone()).map_err(|_| unknown())?;
        // Those of one sender stay in order.
        let Some(from) = stanza.from.as_ref().map(|from| from.to_bare()) else {
            return Ok(None);
        };
        return Ok(Some((Phase::Effects, map.shard_of(jid::slot(from.as_str())))));
    }
    let stay_behind = [
        Table::OutboxLast,
        Table::InboxLast,
        Table::Deadline,
        Table::Restored,
        Table::PubsubNodeOfShard,
        Table::PubsubNodeCount,
        Table::PubsubNodeOfEntity,
        Table::PubsubDeadline,
        Table::PubsubLeftover,
        Table::PubsubFollower,
        Table::PubsubNotifying,
        Table::PubsubEvent,
        Table::PubsubFollowed,
    ];
    if is(&stay_behind) {
        return Ok(None);
    }
    Err(unknown())
}

impl Shard {
    /// Carries out a step.
    pub(super) fn restore(&mut self, ticket: u64, step: Restore, io: &mut Io<'_>) {
        let mut turn = Turn::of_shard();
        let result = match step {
            Restore::Look { backup } => self.look_at_restore(backup, io),
            Restore::Begin { backup, at } => self.begin_restore(&mut turn, backup, at, io),
            Restore::Rows { backup, phase, rows } => self.restore_rows(&mut turn, backup, phase, &rows, io),
            Restore::Advance { backup, to } => self.advance_restore(&mut turn, backup, to, io),
        };
        let result = result.unwrap_or_else(|error| {
            tracing::error!(%error, "a backup cannot be restored");
            turn.writes.clear();
            turn.effects.clear();
            Administered::Unavailable
        });
        turn.effects.push(Effect::Administered(ticket, result));
        self.finish(turn, io);
    }

    fn begin_restore(
        &mut self,
        turn: &mut Turn,
        backup: u128,
        at: Timestamp,
        io: &Io<'_>,
    ) -> Result<Administered, RowsError> {
        let looked = self.look_at_restore(backup, io)?;
        if looked == Administered::Restoring(Phase::Belongings) {
            self.clock = self.clock.max(at.0);
            self.note_restore(turn, backup, Phase::Belongings);
        }
        Ok(looked)
    }

    fn look_at_restore(&self, backup: u128, io: &Io<'_>) -> Result<Administered, RowsError> {
        Ok(match self.restored(io)? {
            Some((known, phase)) if known == backup => Administered::Restoring(phase),
            Some((_, phase)) if phase != Phase::Done => Administered::OtherRestore,
            _ if self.has_accounts(io)? => Administered::HasAccounts,
            _ => Administered::Restoring(Phase::Belongings),
        })
    }

    fn advance_restore(
        &mut self,
        turn: &mut Turn,
        backup: u128,
        to: Phase,
        io: &Io<'_>,
    ) -> Result<Administered, RowsError> {
        match self.restored(io)? {
            Some((known, phase)) if known == backup => {
                if phase < to {
                    self.note_restore(turn, backup, to);
                }
                Ok(Administered::Restoring(phase.max(to)))
            }
            _ => Ok(Administered::OtherRestore),
        }
    }

    fn note_restore(&mut self, turn: &mut Turn, backup: u128, phase: Phase) {
        self.restoring = phase != Phase::Done;
        let row = RestoredRow {
            backup: backup.to_be_bytes().to_vec(),
            phase: phase as u32,
        };
        turn.put(self.restored_key(), &row);
    }

    fn restore_rows(
        &mut self,
        turn: &mut Turn,
        backup: u128,
        phase: Phase,
        rows: &[(Key, Value)],
        io: &mut Io<'_>,
    ) -> Result<Administered, RowsError> {
        match self.restored(io)? {
            Some((known, now)) if known == backup && now == phase => {}
            Some((known, now)) if known == backup && now > phase => return Ok(Administered::Restoring(now)),
            _ => return Ok(Administered::OtherRestore),
        }
        let mut seen = HashSet::new();
        let mut stored = BTreeMap::new();
        let mut nodes = RestoredNodes::default();
        for (key, value) in rows {
            if !matches!(place_of(key, value, &self.config.map), Ok(Some(place)) if place == (phase, self.id)) {
                return Ok(Administered::NotRows);
            }
            let came = match phase {
                Phase::Belongings if is_pubsub(key) => self.restore_pubsub(turn, &mut nodes, key, value, io)?,
                Phase::Belongings => self.restore_belonging(turn, &mut stored, &mut seen, key, value, io)?,
                Phase::Accounts => self.restore_account(turn, key, value, io)?,
                Phase::Effects => self.restore_effect(turn, value, io),
                Phase::Done => None,
            };
            if came.is_none() {
                return Ok(Administered::NotRows);
            }
        }
        nodes.keep(turn);
        for (account, messages) in stored {
            let key = stored_count_key(&account);
            let row = self.overlay.over(io.rows).row(&key)?;
            let row = row.and_then(|row| StoredCountRow::decode(row).ok());
            let messages = row.map_or(0, |row| row.messages).saturating_add(messages);
            turn.put(key, &StoredCountRow { messages });
        }
        Ok(Administered::Restoring(phase))
    }

    /// `None`: it is not a row of ours.
    fn restore_belonging(
        &mut self,
        turn: &mut Turn,
        stored: &mut BTreeMap<BareJid, u32>,
        seen: &mut HashSet<Key>,
        key: &Key,
        value: &Value,
        io: &Io<'_>,
    ) -> Result<Option<()>, RowsError> {
        let Some(account) = account_of(key) else {
            return Ok(None);
        };
        let table = key.get(2).copied();
        let message = if table == Some(Table::Queue as u8) {
            let Ok(row) = QueueRow::decode(value.clone()) else {
                return Ok(None);
            };
            let Some(stanza) = row.stanza() else { return Ok(None) };
            if !is_storable(&stanza) {
                // Its sender's session is as gone as its recipient's: there is nobody to tell.
                return Ok(Some(()));
            }
            let stanza = stanza.encode();
            Some((
                stored_key(&account, Timestamp(row.at)),
                StoredRow { stanza, at: row.at },
            ))
        } else if table == Some(Table::Stored as u8) {
            let Ok(row) = StoredRow::decode(value.clone()) else {
                return Ok(None);
            };
            Some((key.clone(), row))
        } else {
            None
        };
        let Some((key, row)) = message else {
            turn.writes.push(Write::Put(key.clone(), value.clone()));
            return Ok(Some(()));
        };
        // What comes later is stored behind it.
        self.clock = self.clock.max(row.at);
        if seen.insert(key.clone()) && self.overlay.over(io.rows).row(&key)?.is_none() {
            *stored.entry(account).or_default() += 1;
            turn.put(key, &row);
        }
        Ok(Some(()))
    }

    fn restore_account(
        &mut self,
        turn: &mut Turn,
        key: &Key,
        value: &Value,
        io: &Io<'_>,
    ) -> Result<Option<()>, RowsError> {
        let Some(account) = account_of(key) else {
            return Ok(None);
        };
        let Ok(row) = AccountRow::decode(value.clone()) else {
            return Ok(None);
        };
        if self.account(&account, io)?.is_none() {
            self.clock = self.clock.max(row.version);
            self.pipeline.will_write(account.as_str());
            turn.put(key.clone(), &row);
        }
        Ok(Some(()))
    }

    fn restore_effect(&mut self, turn: &mut Turn, value: &Value, io: &mut Io<'_>) -> Option<()> {
        let stanza = Stanza::decode(value.clone()).ok()?;
        self.durably(turn, Arc::new(stanza), io);
        Some(())
    }

    /// Whether nobody may log in, as the rows say.
    pub(super) fn is_restoring(&self, io: &Io<'_>) -> Result<bool, RowsError> {
        Ok(self.restored(io)?.is_some_and(|(_, phase)| phase != Phase::Done))
    }

    fn restored(&self, io: &Io<'_>) -> Result<Option<(u128, Phase)>, RowsError> {
        let Some(row) = self.overlay.over(io.rows).row(&self.restored_key())? else {
            return Ok(None);
        };
        let read = || {
            let row = RestoredRow::decode(row).ok()?;
            let backup = u128::from_be_bytes(row.backup.try_into().ok()?);
            Some((backup, Phase::from_number(row.phase)?))
        };
        match read() {
            Some(read) => Ok(Some(read)),
            None => Err(RowsError("what is restored cannot be read".to_owned())),
        }
    }

    fn has_accounts(&self, io: &Io<'_>) -> Result<bool, RowsError> {
        let view = self.overlay.over(io.rows);
        for slot in self.config.map.slots_of(self.id) {
            let mut prefix = slot.to_be_bytes().to_vec();
            prefix.push(Table::Account as u8);
            if !view.scan(&prefix, &prefix, 1)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn restored_key(&self) -> Key {
        shard_key(Table::Restored, self.id.0, &[])
    }
}

/// Whose row it is.
fn account_of(key: &[u8]) -> Option<BareJid> {
    let rest = key.get(3..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let account = BareJid::parse(std::str::from_utf8(rest.get(..end)?).ok()?).ok()?;
    let slot = key.first_chunk::<2>()?;
    (account.local().is_some() && jid::slot(account.as_str()).to_be_bytes() == *slot).then_some(account)
}
