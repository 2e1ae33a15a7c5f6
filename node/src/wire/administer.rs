//! What a node asks of a shard's leader on another node for an operator, as bytes: `proto/heronry/v1/administer.proto`.

use bytes::Bytes;
use heronry_proto::{
    administer::{self as proto, administer, answer, ask, restore},
    raft::SnapshotRow,
};
use heronry_xmpp::{
    jid::BareJid,
    link::ShardId,
    rows::{SHARD_SLOTS, Timestamp},
    shard::{Account, Administer, Administered, Existing, Imported, Listed, Phase, Restore},
};
use prost::Message;

use super::{WireError, decode, encode};
use crate::admin::UserFilter;

type Read<T> = Result<T, WireError>;

const fn no<T>(what: &'static str) -> Read<T> {
    Err(WireError::Content(what))
}

/// What a node asks.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// A shard is to do that.
    Administer(ShardId, Administer),
    /// A part of the list of accounts.
    Page(Page),
    /// The rows of a shard, as a transfer whose header is [`coming`] with this ticket.
    Backup(ShardId, u64),
}

/// A part of the list of the accounts of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Where it starts; of the shard that has this slot.
    pub(crate) from: Position,
    /// Which accounts are meant.
    pub(crate) filter: UserFilter,
    /// At most so many.
    pub(crate) count: usize,
    /// At most so many are looked at, about.
    pub(crate) looked_at_max: usize,
}

/// A place in the list of all accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The slot.
    pub(crate) slot: u16,
    /// After this account of it; `None`: from its first.
    pub(crate) after: Option<BareJid>,
}

/// What comes of it.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// The shard has said so.
    Administered(Administered),
    /// The accounts.
    Listing(Listing),
    /// Nothing was done: the shard is not led there, but on another node, or by nobody who is known.
    NotLed {
        /// On another node.
        elsewhere: bool,
    },
    /// It failed: a sentence.
    Failed(String),
    /// The rows that were asked for come as a transfer.
    Coming,
    /// The shard has not said what came of it: it may have been done.
    Silent,
}

/// A part of the list of the accounts of one shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listing {
    /// In the order of slots and of rows.
    pub(crate) accounts: Vec<Listed>,
    /// How many were looked at.
    pub(crate) looked_at: usize,
    /// Where the next part starts; `None`: these slots have no more.
    pub(crate) next: Option<Position>,
}

impl Ask {
    /// As it is sent.
    pub(crate) fn encode(&self) -> Bytes {
        let what = match self {
            Self::Administer(shard, request) => ask::What::Administer(proto::Administer {
                shard: shard.0.into(),
                what: Some(administer_of(request)),
            }),
            Self::Page(page) => ask::What::Page(proto::Page {
                slot: page.from.slot.into(),
                after: page.from.after.as_ref().map(|jid| jid.as_str().to_owned()),
                domain: page.filter.domain.clone(),
                prefix: page.filter.prefix.clone(),
                count: number(page.count),
                looked_at_max: number(page.looked_at_max),
            }),
            Self::Backup(shard, ticket) => ask::What::Backup(proto::Backup {
                shard: shard.0.into(),
                ticket: *ticket,
            }),
        };
        proto::Ask { what: Some(what) }.encode_to_vec().into()
    }

    /// Reads what [`Self::encode`] wrote.
    pub(crate) fn decode(bytes: Bytes) -> Read<Self> {
        let ask = proto::Ask::decode(bytes).map_err(form)?;
        Ok(match ask.what {
            Some(ask::What::Administer(request)) => Self::Administer(shard(request.shard)?, administer(request.what)?),
            Some(ask::What::Backup(backup)) => Self::Backup(shard(backup.shard)?, backup.ticket),
            Some(ask::What::Page(page)) if page.count == 0 => return no("a page without accounts"),
            Some(ask::What::Page(page)) => Self::Page(Page {
                from: position(page.slot, page.after)?,
                filter: UserFilter {
                    domain: page.domain,
                    prefix: page.prefix,
                },
                count: page.count as usize,
                looked_at_max: page.looked_at_max as usize,
            }),
            None => return no("a question that asks nothing"),
        })
    }
}

impl Answer {
    /// As it is sent.
    pub(crate) fn encode(&self) -> Bytes {
        let outcome = |outcome: proto::Outcome| answer::What::Outcome(outcome.into());
        let what = match self {
            Self::Administered(Administered::Done) => outcome(proto::Outcome::Done),
            Self::Administered(Administered::Exists) => outcome(proto::Outcome::Exists),
            Self::Administered(Administered::Unknown) => outcome(proto::Outcome::Unknown),
            Self::Administered(Administered::Unavailable) => outcome(proto::Outcome::Unavailable),
            Self::Administered(Administered::HasAccounts) => outcome(proto::Outcome::HasAccounts),
            Self::Administered(Administered::OtherRestore) => outcome(proto::Outcome::OtherRestore),
            Self::Administered(Administered::NotRows) => outcome(proto::Outcome::NotRows),
            Self::Administered(Administered::Restoring(phase)) => answer::What::Restoring(*phase as u32),
            Self::Administered(Administered::Imported(results)) => answer::What::Imported(proto::Imported {
                fates: results.iter().map(|result| fate_of(*result).into()).collect(),
            }),
            Self::Listing(listing) => answer::What::Listing(listing_of(listing)),
            Self::NotLed { elsewhere } => answer::What::NotLed(proto::NotLed { elsewhere: *elsewhere }),
            Self::Failed(sentence) => answer::What::Failed(sentence.clone()),
            Self::Coming => answer::What::Coming(true),
            Self::Silent => answer::What::NoAnswer(proto::NoAnswer {}),
        };
        proto::Answer { what: Some(what) }.encode_to_vec().into()
    }

    /// Reads what [`Self::encode`] wrote.
    pub(crate) fn decode(bytes: Bytes) -> Read<Self> {
        let answer = proto::Answer::decode(bytes).map_err(form)?;
        Ok(match answer.what {
            Some(answer::What::Outcome(outcome)) => Self::Administered(match proto::Outcome::try_from(outcome) {
                Ok(proto::Outcome::Done) => Administered::Done,
                Ok(proto::Outcome::Exists) => Administered::Exists,
                Ok(proto::Outcome::Unknown) => Administered::Unknown,
                Ok(proto::Outcome::Unavailable) => Administered::Unavailable,
                Ok(proto::Outcome::HasAccounts) => Administered::HasAccounts,
                Ok(proto::Outcome::OtherRestore) => Administered::OtherRestore,
                Ok(proto::Outcome::NotRows) => Administered::NotRows,
                Err(_) => return no("an outcome that is not known"),
            }),
            Some(answer::What::Imported(imported)) => {
                let results: Read<_> = imported.fates.into_iter().map(fate).collect();
                Self::Administered(Administered::Imported(results?))
            }
            Some(answer::What::Listing(listing)) => Self::Listing(self::listing(listing)?),
            Some(answer::What::NotLed(not_led)) => Self::NotLed {
                elsewhere: not_led.elsewhere,
            },
            Some(answer::What::Failed(sentence)) => Self::Failed(sentence),
            Some(answer::What::Restoring(number)) => Self::Administered(Administered::Restoring(phase(number)?)),
            Some(answer::What::Coming(_)) => Self::Coming,
            Some(answer::What::NoAnswer(_)) => Self::Silent,
            None => return no("an answer that says nothing"),
        })
    }
}

/// What goes before the rows of a shard.
pub(crate) fn coming(ticket: u64) -> Bytes {
    proto::Coming { ticket }.encode_to_vec().into()
}

/// Reads what [`coming`] wrote.
pub(crate) fn ticket_of(bytes: Bytes) -> Read<u64> {
    Ok(proto::Coming::decode(bytes).map_err(form)?.ticket)
}

/// How many bytes an account takes in a [`Listing`].
pub(crate) fn listed_bytes(account: &Listed) -> usize {
    listed_of(account).encoded_len()
}

fn form(error: prost::DecodeError) -> WireError {
    WireError::Form(error.to_string())
}

fn shard(number: u32) -> Read<ShardId> {
    u16::try_from(number)
        .map(ShardId)
        .map_err(|_| WireError::Content("a shard that cannot be"))
}

fn phase(number: u32) -> Read<Phase> {
    Phase::from_number(number).ok_or(WireError::Content("a phase that is not known"))
}

fn restore_of(step: &Restore) -> proto::Restore {
    let (backup, what) = match step {
        Restore::Look { backup } => (backup, restore::What::Look(true)),
        Restore::Begin { backup, at } => (backup, restore::What::Begin(at.0)),
        Restore::Rows { backup, phase, rows } => {
            let row = |(key, value): &(Bytes, Bytes)| SnapshotRow {
                key: key.clone(),
                value: value.clone(),
            };
            let rows = rows.iter().map(row).collect();
            let phase = *phase as u32;
            (backup, restore::What::Rows(proto::RestoreRows { phase, rows }))
        }
        Restore::Advance { backup, to } => (backup, restore::What::Advance(*to as u32)),
    };
    proto::Restore {
        backup: backup.to_be_bytes().to_vec().into(),
        what: Some(what),
    }
}

fn restore(step: proto::Restore) -> Read<Restore> {
    let Ok(backup) = step.backup[..].try_into().map(u128::from_be_bytes) else {
        return no("a backup without a name");
    };
    Ok(match step.what {
        Some(restore::What::Look(_)) => Restore::Look { backup },
        Some(restore::What::Begin(at)) => Restore::Begin {
            backup,
            at: Timestamp(at),
        },
        Some(restore::What::Rows(rows)) => Restore::Rows {
            backup,
            phase: phase(rows.phase)?,
            rows: rows.rows.into_iter().map(|row| (row.key, row.value)).collect(),
        },
        Some(restore::What::Advance(to)) => Restore::Advance { backup, to: phase(to)? },
        None => return no("a step that does nothing"),
    })
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn administer_of(request: &Administer) -> administer::What {
    match request {
        Administer::Add(account) => administer::What::Add(account_of(account)),
        Administer::SetKeys(account) => administer::What::SetKeys(account_of(account)),
        Administer::Delete(jid) => administer::What::Delete(jid.as_str().to_owned()),
        Administer::Import { accounts, existing } => {
            let existing = match existing {
                Existing::Replace => proto::Existing::Replace,
                Existing::Keep => proto::Existing::Keep,
                Existing::Refuse => proto::Existing::Refuse,
            };
            administer::What::Import(proto::Import {
                accounts: accounts.iter().map(account_of).collect(),
                existing: existing.into(),
            })
        }
        Administer::Restore(step) => administer::What::Restore(restore_of(step)),
    }
}

fn administer(what: Option<administer::What>) -> Read<Administer> {
    Ok(match what {
        Some(administer::What::Add(account)) => Administer::Add(self::account(&account)?),
        Some(administer::What::SetKeys(account)) => Administer::SetKeys(self::account(&account)?),
        Some(administer::What::Delete(jid)) => Administer::Delete(address(&jid)?),
        Some(administer::What::Import(import)) => Administer::Import {
            accounts: import.accounts.iter().map(account).collect::<Read<_>>()?,
            existing: match proto::Existing::try_from(import.existing) {
                Ok(proto::Existing::Replace) => Existing::Replace,
                Ok(proto::Existing::Keep) => Existing::Keep,
                Ok(proto::Existing::Refuse) => Existing::Refuse,
                Err(_) => return no("an import of a kind that is not known"),
            },
        },
        Some(administer::What::Restore(step)) => Administer::Restore(restore(step)?),
        None => return no("a request for nothing"),
    })
}

fn account_of(account: &Account) -> proto::Account {
    proto::Account {
        jid: account.jid.as_str().to_owned(),
        keys: account.keys.iter().map(encode::keys_of).collect(),
    }
}

fn account(account: &proto::Account) -> Read<Account> {
    Ok(Account {
        jid: address(&account.jid)?,
        keys: decode::all_keys(&account.keys)?.into_vec(),
    })
}

/// The address of an account: one with a localpart.
fn address(text: &str) -> Read<BareJid> {
    match BareJid::parse(text) {
        Ok(jid) if jid.local().is_some() => Ok(jid),
        _ => no("what is not the address of an account"),
    }
}

const fn fate_of(result: Imported) -> proto::Fate {
    match result {
        Imported::Created => proto::Fate::Created,
        Imported::Replaced => proto::Fate::Replaced,
        Imported::Kept => proto::Fate::Kept,
        Imported::Exists => proto::Fate::Exists,
    }
}

fn fate(fate: i32) -> Read<Imported> {
    Ok(match proto::Fate::try_from(fate) {
        Ok(proto::Fate::Created) => Imported::Created,
        Ok(proto::Fate::Replaced) => Imported::Replaced,
        Ok(proto::Fate::Kept) => Imported::Kept,
        Ok(proto::Fate::Exists) => Imported::Exists,
        Err(_) => return no("an account of which nobody knows what became"),
    })
}

fn listing_of(listing: &Listing) -> proto::Listing {
    proto::Listing {
        accounts: listing.accounts.iter().map(listed_of).collect(),
        looked_at: number(listing.looked_at),
        next: listing.next.as_ref().map(|next| proto::Position {
            slot: next.slot.into(),
            after: next.after.as_ref().map(|jid| jid.as_str().to_owned()),
        }),
    }
}

fn listing(listing: proto::Listing) -> Read<Listing> {
    let listed = |listed: proto::Listed| {
        let Some(Account { jid, keys }) = listed.account.as_ref().map(account).transpose()? else {
            return no("no account in a list");
        };
        let created = Timestamp(listed.created);
        Ok(Listed { jid, created, keys })
    };
    let next = listing.next.map(|next| position(next.slot, next.after)).transpose()?;
    Ok(Listing {
        accounts: listing.accounts.into_iter().map(listed).collect::<Read<_>>()?,
        looked_at: listing.looked_at as usize,
        next,
    })
}

fn listed_of(listed: &Listed) -> proto::Listed {
    proto::Listed {
        account: Some(proto::Account {
            jid: listed.jid.as_str().to_owned(),
            keys: listed.keys.iter().map(encode::keys_of).collect(),
        }),
        created: listed.created.0,
    }
}

fn position(slot: u32, after: Option<String>) -> Read<Position> {
    match u16::try_from(slot) {
        Ok(slot) if slot < SHARD_SLOTS => Ok(Position {
            slot,
            after: after.map(|jid| address(&jid)).transpose()?,
        }),
        _ => no("a slot that cannot be"),
    }
}
