//! What was executed stays executed: a frame whose evaluation wrote something is noted in the same batch, with its answer. A
//! repeat of the frame after a failover finds the note and gets that answer, so no request is carried out twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::{Io, Shard, Turn};
use crate::jid::BareJid;
use crate::link::{Origin, SessionId};
use crate::rows::{Key, Rows, Table, Timestamp, Write, account_key, shard_key};
use crate::session::FRAMES_MAX;
use crate::stanza::Stanza;

/// Deadlines looked at in one tick.
const DEADLINES: usize = 256;

/// The frames of one session that this account has executed and that may still be repeated.
#[derive(Clone, PartialEq, prost::Message)]
struct ExecutedRow {
    #[prost(message, repeated, tag = "1")]
    frames: Vec<ExecutedFrame>,
    /// When the last one was added, in the shard's microseconds.
    #[prost(uint64, tag = "2")]
    at: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExecutedFrame {
    #[prost(uint64, tag = "1")]
    frame: u64,
    /// [`Stanza::encode`].
    #[prost(bytes = "bytes", repeated, tag = "2")]
    replies: Vec<Bytes>,
}

/// The key of the note.
pub(super) fn executed_key(entity: impl AsRef<str>, session: SessionId) -> Key {
    account_key(Table::Executed, entity.as_ref(), &session.to_bytes())
}

impl Shard {
    /// What the entity of that name answered to that frame, if its evaluation wrote something.
    pub(super) fn executed(
        &self,
        entity: impl AsRef<str>,
        session: SessionId,
        frame: u64,
        io: &Io<'_>,
    ) -> Option<Vec<Arc<Stanza>>> {
        let row = self.executed_row(&executed_key(entity, session), io)?;
        let executed = row.frames.into_iter().find(|executed| executed.frame == frame)?;
        let replies = executed
            .replies
            .into_iter()
            .filter_map(|reply| Stanza::decode(reply).ok());
        Some(replies.map(Arc::new).collect())
    }

    /// Notes that `turn` executes that frame. Frames up to `settled` cannot be repeated any more.
    #[expect(clippy::too_many_arguments, reason = "who, whose, which, until when, what")]
    pub(super) fn note_executed(
        &mut self,
        turn: &mut Turn,
        entity: impl AsRef<str>,
        session: SessionId,
        frame: u64,
        settled: u64,
        replies: &[Arc<Stanza>],
        io: &mut Io<'_>,
    ) {
        let key = executed_key(entity, session);
        let at = self.stamp(io);
        let row = self.executed_row(&key, io);
        if row.is_none() {
            self.look_again(turn, at, &key);
        }
        let mut row = row.unwrap_or_default();
        row.frames.retain(|executed| executed.frame > settled);
        let replies = replies.iter().map(|reply| reply.encode()).collect();
        row.frames.push(ExecutedFrame { frame, replies });
        row.at = at.0;
        turn.put(key, &row);
    }

    /// Notes that `turn` takes care of these frames, which gave their stanzas to a session of `account`: whoever sends them again gets the
    /// answer that they are safe. The session is losing its socket, and with it the edge's memory of repeats.
    pub(super) fn note_delivered(
        &mut self,
        turn: &mut Turn,
        account: &BareJid,
        origins: impl Iterator<Item = Origin>,
        io: &mut Io<'_>,
    ) {
        let mut senders: BTreeMap<SessionId, Vec<u64>> = BTreeMap::new();
        for origin in origins {
            if let Origin::Frame { session, frame } = origin {
                senders.entry(session).or_default().push(frame);
            }
        }
        for (session, frames) in senders {
            let key = executed_key(account, session);
            let at = self.stamp(io);
            let row = self.executed_row(&key, io);
            if row.is_none() {
                self.look_again(turn, at, &key);
            }
            let mut row = row.unwrap_or_default();
            for frame in frames {
                if !row.frames.iter().any(|executed| executed.frame == frame) {
                    row.frames.push(ExecutedFrame {
                        frame,
                        replies: Vec::new(),
                    });
                }
            }
            // Of one stream, no more than these can be repeated.
            let last = row.frames.iter().map(|executed| executed.frame).max();
            row.frames
                .retain(|executed| executed.frame + FRAMES_MAX > last.unwrap_or_default());
            row.at = at.0;
            turn.put(key, &row);
        }
    }

    fn executed_row(&self, key: &Key, io: &Io<'_>) -> Option<ExecutedRow> {
        let row = self.overlay.over(io.rows).row(key).unwrap_or_else(|error| {
            tracing::error!(%error, "a note of executed frames cannot be read");
            None
        })?;
        ExecutedRow::decode(row).ok()
    }

    fn look_again(&self, turn: &mut Turn, at: Timestamp, key: &Key) {
        let due = at.0 + u64::try_from(self.config.limits.executed_keep.as_micros()).unwrap_or(u64::MAX / 2);
        turn.writes.push(Write::Put(self.deadline_key(due, key), Bytes::new()));
    }

    fn deadline_key(&self, due: u64, key: &[u8]) -> Key {
        let mut rest = due.to_be_bytes().to_vec();
        rest.extend_from_slice(key);
        shard_key(Table::Deadline, self.id.0, &rest)
    }

    /// Removes notes whose time has come and that have not been added to since.
    pub(super) fn forget_executed(&mut self, io: &mut Io<'_>) {
        let prefix = shard_key(Table::Deadline, self.id.0, &[]);
        let Ok(deadlines) = self.overlay.over(io.rows).scan(&prefix, &prefix, DEADLINES) else {
            return;
        };
        let now = io.now.0;
        let mut turn = Turn::of_shard();
        for (deadline, _) in deadlines {
            let Some((due, key)) = deadline.get(prefix.len()..).and_then(<[u8]>::split_first_chunk::<8>) else {
                continue;
            };
            if u64::from_be_bytes(*due) > now {
                break;
            }
            let key = deadline.slice_ref(key);
            let keep = u64::try_from(self.config.limits.executed_keep.as_micros()).unwrap_or(u64::MAX / 2);
            match self.executed_row(&key, io) {
                Some(row) if row.at.saturating_add(keep) > now => {
                    turn.writes
                        .push(Write::Put(self.deadline_key(row.at + keep, &key), Bytes::new()));
                }
                Some(_) => turn.delete(key),
                None => {}
            }
            turn.delete(deadline);
        }
        self.finish(turn, io);
    }
}
