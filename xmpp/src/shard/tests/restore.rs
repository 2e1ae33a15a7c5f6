//! A backup comes into a shard.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;

use crate::im::roster::row::contact_key;
use crate::im::stored::{StoredCountRow, StoredRow, stored_count_key, stored_key};
use crate::jid::{self, BareJid};
use crate::link::{Conn, EdgeId, Origin, SessionId, ShardId, ToEdge, ToShard};
use crate::random::testing::Seeded;
use crate::rows::{Key, Rows, RowsError, Table, Timestamp, Value, Write, account_key, shard_key};
use crate::sasl::{Credentials, Password, ScramHash, ScramKeys};
use crate::session::{Item, QueueRow, queue_key, session_key};
use crate::shard::accounts::{AccountRow, key as account_row_key};
use crate::shard::{Account, Administer, Administered, Config, Io, Output, Phase, Restore, Shard, ShardMap, place_of};
use crate::stanza::{MessageType, PresenceType, Stanza};

const BACKUP: u128 = 7;

/// Applied rows.
#[derive(Clone, Debug, Default, PartialEq)]
struct Disk(BTreeMap<Key, Value>);

impl Rows for Disk {
    fn row(&self, key: &[u8]) -> Result<Option<Value>, RowsError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, RowsError> {
        let rows = self.0.iter();
        let rows = rows.filter(|(key, _)| key.starts_with(prefix) && &key[..] >= from);
        let rows = rows.take(limit);
        Ok(rows.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn scan_back(&self, prefix: &[u8], before: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, RowsError> {
        let rows = self.0.iter().rev();
        let rows = rows.filter(|(key, _)| key.starts_with(prefix) && &key[..] < before);
        let rows = rows.take(limit);
        Ok(rows.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

/// A shard that leads; what it proposes is committed at once.
struct Lone {
    shard: Shard,
    disk: Disk,
    said: Vec<ToEdge>,
}

impl Lone {
    fn new() -> Self {
        let mut lone = Self {
            shard: Shard::new(ShardId(0), Arc::new(Config::alone("localhost", 1))),
            disk: Disk::default(),
            said: Vec::new(),
        };
        lone.step(|shard, io| shard.lead(1, io).unwrap());
        lone
    }

    fn step(&mut self, step: impl FnOnce(&mut Shard, &mut Io<'_>)) -> Vec<Administered> {
        let (mut out, mut done) = (Vec::new(), Vec::new());
        let mut random = Seeded(7);
        let disk = self.disk.clone();
        let mut io = Io {
            rows: &disk,
            now: Timestamp(1),
            elapsed: Duration::ZERO,
            random: &mut random,
            out: &mut out,
        };
        step(&mut self.shard, &mut io);
        let mut waiting: VecDeque<_> = out.drain(..).collect();
        while let Some(output) = waiting.pop_front() {
            match output {
                Output::Propose { no, batch } => {
                    for write in &batch.writes {
                        match write {
                            Write::Put(key, value) => self.disk.0.insert(key.clone(), value.clone()),
                            Write::Delete(key) => self.disk.0.remove(key),
                        };
                    }
                    let disk = self.disk.clone();
                    let mut out = Vec::new();
                    let mut io = Io {
                        rows: &disk,
                        now: Timestamp(1),
                        elapsed: Duration::ZERO,
                        random: &mut random,
                        out: &mut out,
                    };
                    self.shard.committed(no, &mut io);
                    waiting.extend(out);
                }
                Output::Administered { result, .. } => done.push(result),
                Output::Edge { message, .. } => self.said.push(message),
                _ => {}
            }
        }
        done
    }

    fn administer(&mut self, request: Administer) -> Administered {
        let mut done = self.step(|shard, io| shard.administer(1, request, io));
        assert_eq!(done.len(), 1, "{done:?}");
        done.remove(0)
    }

    fn restore(&mut self, step: Restore) -> Administered {
        self.administer(Administer::Restore(step))
    }

    fn rows(&mut self, phase: Phase, rows: &[(Key, Value)]) -> Administered {
        self.restore(Restore::Rows {
            backup: BACKUP,
            phase,
            rows: rows.into(),
        })
    }

    fn advance(&mut self, to: Phase) {
        let advanced = self.restore(Restore::Advance { backup: BACKUP, to });
        assert_eq!(advanced, Administered::Restoring(to));
    }

    fn credentials_of(&mut self, name: &str) -> Credentials {
        self.said.clear();
        let message = ToShard::Credentials {
            conn: Conn(1),
            account: jid(name),
            hash: None,
        };
        let term = self.shard.term();
        self.step(|shard, io| shard.from_edge(EdgeId::default(), term, message, io));
        match self.said.pop() {
            Some(ToEdge::Credentials { credentials, .. }) => *credentials,
            said => panic!("{said:?}"),
        }
    }

    fn stored(&self, name: &str) -> (usize, u32) {
        let prefix = account_key(Table::Stored, jid(name).as_str(), &[]);
        let count = self.disk.row(&stored_count_key(&jid(name))).unwrap();
        let count = count.map_or(0, |row| StoredCountRow::decode(row).unwrap().messages);
        (self.disk.scan(&prefix, &prefix, 100).unwrap().len(), count)
    }
}

fn jid(name: &str) -> BareJid {
    BareJid::new(Some(name), "localhost").unwrap()
}

fn account(name: &str) -> Account {
    let password = Password::new("p").unwrap();
    let keys = ScramKeys::derive(ScramHash::Sha256, &password, &[7; 8], 4096).unwrap();
    Account {
        jid: jid(name),
        keys: vec![keys],
    }
}

fn account_row(name: &str) -> (Key, Value) {
    let row = AccountRow::new(5, 5, &account(name).keys);
    (account_row_key(&jid(name)), row.encode_to_vec().into())
}

fn message_of(kind: MessageType, to: &str) -> Stanza {
    Stanza::message(kind, []).with_from(jid("romeo")).with_to(jid(to))
}

fn stored_row(name: &str, at: u64) -> (Key, Value) {
    let stanza = message_of(MessageType::Chat, name).encode();
    let row = StoredRow { stanza, at };
    (stored_key(&jid(name), Timestamp(at)), row.encode_to_vec().into())
}

fn session() -> SessionId {
    SessionId::from_bytes(&[1; 14]).unwrap()
}

fn queue_row(name: &str, kind: MessageType, at: u64) -> (Key, Value) {
    let full = jid(name).with_resource("balcony").unwrap();
    let item = Item {
        origin: Origin::None,
        at: Timestamp(at),
        stanza: Arc::new(message_of(kind, name)),
    };
    let row = QueueRow::new(&item, true);
    (queue_key(&full, session(), at), row.encode_to_vec().into())
}

fn begun() -> Lone {
    let mut lone = Lone::new();
    let at = Timestamp(1_000);
    let begin = Restore::Begin { backup: BACKUP, at };
    assert_eq!(lone.restore(begin), Administered::Restoring(Phase::Belongings));
    lone
}

#[test]
fn what_waited_in_a_store_or_in_a_queue_is_stored_once_however_often_it_comes() {
    let mut lone = begun();
    let rows = [
        queue_row("juliet", MessageType::Chat, 20),
        // Nobody is told that it did not arrive: its sender's session is gone.
        queue_row("juliet", MessageType::Headline, 30),
        stored_row("juliet", 10),
    ];
    for _ in 0..2 {
        assert_eq!(
            lone.rows(Phase::Belongings, &rows),
            Administered::Restoring(Phase::Belongings)
        );
        assert_eq!(lone.stored("juliet"), (2, 2));
    }
    assert_eq!(
        lone.rows(Phase::Belongings, &[stored_row("juliet", 40)]),
        Administered::Restoring(Phase::Belongings)
    );
    assert_eq!(lone.stored("juliet"), (3, 3));
}

#[test]
fn nobody_logs_in_and_no_account_is_made_before_it_is_done() {
    let mut lone = begun();
    lone.advance(Phase::Accounts);
    let rows = [account_row("juliet")];
    assert_eq!(
        lone.rows(Phase::Accounts, &rows),
        Administered::Restoring(Phase::Accounts)
    );
    assert!(matches!(lone.credentials_of("juliet"), Credentials::Unavailable));
    // Nor after a change of leaders.
    lone.step(|shard, io| shard.lead(2, io).unwrap());
    assert!(matches!(lone.credentials_of("juliet"), Credentials::Unavailable));
    assert_eq!(
        lone.administer(Administer::Add(account("romeo"))),
        Administered::Unavailable
    );
    lone.advance(Phase::Effects);
    lone.advance(Phase::Done);
    assert!(matches!(lone.credentials_of("juliet"), Credentials::Keys { .. }));
    assert_eq!(lone.administer(Administer::Add(account("romeo"))), Administered::Done);
    // What comes late changes nothing.
    let before = lone.disk.clone();
    assert_eq!(
        lone.rows(Phase::Belongings, &[stored_row("juliet", 10)]),
        Administered::Restoring(Phase::Done)
    );
    assert_eq!(
        lone.restore(Restore::Begin {
            backup: BACKUP,
            at: Timestamp(1)
        }),
        Administered::Restoring(Phase::Done)
    );
    assert_eq!(lone.disk, before);
}

#[test]
fn an_effect_that_was_not_done_is_done() {
    let mut lone = begun();
    lone.advance(Phase::Accounts);
    lone.rows(Phase::Accounts, &[account_row("romeo"), account_row("juliet")]);
    lone.advance(Phase::Effects);
    let stanza = Stanza::presence(PresenceType::Subscribe, [])
        .with_from(jid("romeo"))
        .with_to(jid("juliet"));
    // It had another number, between shards of other numbers.
    let key = shard_key(Table::Outbox, 3, &[0, 5, 0, 0, 0, 0, 0, 0, 0, 99]);
    let rows = [(key, stanza.encode())];
    assert_eq!(
        lone.rows(Phase::Effects, &rows),
        Administered::Restoring(Phase::Effects)
    );
    assert!(
        lone.disk
            .row(&contact_key(&jid("juliet"), "romeo@localhost"))
            .unwrap()
            .is_some()
    );
}

#[test]
fn only_where_nobody_is_and_nothing_else_is_restored() {
    let mut lone = Lone::new();
    lone.administer(Administer::Add(account("romeo")));
    let before = lone.disk.clone();
    let at = Timestamp(1);
    for step in [Restore::Look { backup: BACKUP }, Restore::Begin { backup: BACKUP, at }] {
        assert_eq!(lone.restore(step), Administered::HasAccounts);
    }
    assert_eq!(
        lone.rows(Phase::Belongings, &[stored_row("juliet", 1)]),
        Administered::OtherRestore
    );
    assert_eq!(lone.disk, before);

    let mut lone = begun();
    let before = lone.disk.clone();
    let other = BACKUP + 1;
    for step in [Restore::Look { backup: other }, Restore::Begin { backup: other, at }] {
        assert_eq!(lone.restore(step), Administered::OtherRestore);
    }
    // A phase that has not begun, and rows that are none.
    assert_eq!(
        lone.rows(Phase::Accounts, &[account_row("juliet")]),
        Administered::OtherRestore
    );
    let (key, _) = stored_row("juliet", 1);
    assert_eq!(
        lone.rows(Phase::Belongings, &[(key, Value::from_static(&[0xff]))]),
        Administered::NotRows
    );
    assert_eq!(
        lone.rows(Phase::Belongings, &[account_row("juliet")]),
        Administered::NotRows
    );
    assert_eq!(lone.disk, before);
}

#[test]
fn sessions_and_numbers_of_shards_stay_behind_and_what_is_not_known_is_refused() {
    let map = ShardMap::even(16);
    let juliet = jid("juliet");
    let behind = [
        session_key(&juliet, session()),
        account_key(Table::Executed, juliet.as_str(), &[1; 14]),
        account_key(Table::Farewell, juliet.as_str(), &[1; 14]),
        stored_count_key(&juliet),
        shard_key(Table::OutboxLast, 3, &[0, 1]),
        shard_key(Table::InboxLast, 3, &[0, 1]),
        shard_key(Table::Deadline, 3, &[1; 20]),
        shard_key(Table::Restored, 3, &[]),
    ];
    for key in behind {
        assert_eq!(place_of(&key, &Value::new(), &map).unwrap(), None, "{key:?}");
    }
    let shard = map.shard_of(jid::slot(juliet.as_str()));
    let (key, value) = account_row("juliet");
    assert_eq!(place_of(&key, &value, &map).unwrap(), Some((Phase::Accounts, shard)));
    let (key, value) = stored_row("juliet", 1);
    assert_eq!(place_of(&key, &value, &map).unwrap(), Some((Phase::Belongings, shard)));
    for unknown in [&[][..], &[0], &[0, 0], &[0, 0, 77, 1], &[0x10, 0, 200], &[0x10, 0, 128]] {
        assert!(
            place_of(unknown, &Value::from_static(&[0xff]), &map).is_err(),
            "{unknown:?}"
        );
    }
}
