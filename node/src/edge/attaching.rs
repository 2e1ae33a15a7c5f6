//! What an edge holds of a shard, collected from its connections when a new term begins, and sent in parts.

use std::sync::{Arc, Mutex, PoisonError};

use heronry_xmpp::{
    edge::Attach,
    link::{Attachment, Conn, EdgeId, ShardId, Term, ToShard},
};

use crate::shard::{Inboxes, Traffic};

/// Sessions in one part.
const PART_SESSIONS: usize = 256;

/// Bytes of stanzas in one part, roughly.
const PART_BYTES: usize = 256 << 10;

/// The answer to one `Lead`. Each connection concerned holds a reference until it has said what it has; when all have, the last
/// part leaves.
#[derive(Debug)]
pub(crate) struct Attaching {
    edge: EdgeId,
    shard: ShardId,
    term: Term,
    inboxes: Arc<Inboxes>,
    part: Mutex<Part>,
}

#[derive(Debug, Default)]
struct Part {
    sessions: Vec<Attachment>,
    asking: Vec<Conn>,
    bytes: usize,
}

impl Attaching {
    pub(super) fn new(edge: EdgeId, shard: ShardId, term: Term, inboxes: Arc<Inboxes>) -> Self {
        Self {
            edge,
            shard,
            term,
            inboxes,
            part: Mutex::default(),
        }
    }

    pub(super) fn shard(&self) -> ShardId {
        self.shard
    }

    pub(super) fn term(&self) -> Term {
        self.term
    }

    /// What one connection has to say.
    pub(super) fn add(&self, attach: Attach) {
        let mut part = self.part.lock().unwrap_or_else(PoisonError::into_inner);
        match attach {
            Attach::Session(attachment) => {
                part.bytes += attachment
                    .unreleased
                    .iter()
                    .map(|delivery| delivery.stanza.size())
                    .sum::<usize>();
                part.sessions.push(*attachment);
            }
            Attach::Asking(conn) => part.asking.push(conn),
            Attach::Nothing => return,
        }
        if part.sessions.len() + part.asking.len() >= PART_SESSIONS || part.bytes >= PART_BYTES {
            // Parts leave in order: the lock is held.
            self.send(std::mem::take(&mut part), false);
        }
    }

    fn send(&self, part: Part, last: bool) {
        let Part { sessions, asking, .. } = part;
        if let Some(inbox) = self.inboxes.of(self.shard) {
            inbox.traffic(Traffic::Edge {
                edge: self.edge,
                term: self.term,
                message: ToShard::Attach { sessions, asking, last },
            });
        }
    }
}

impl Drop for Attaching {
    fn drop(&mut self) {
        let part = std::mem::take(self.part.get_mut().unwrap_or_else(PoisonError::into_inner));
        self.send(part, true);
    }
}
