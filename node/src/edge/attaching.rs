//! What an edge holds of a shard, collected from its connections when a new term begins, and sent in parts.

use std::sync::{Arc, Mutex, PoisonError};

use heronry_xmpp::{
    edge::Attach,
    link::{Attachment, Conn, ShardId, Term, ToShard},
};

use super::hub::Hub;

/// Sessions in one part.
const PART_SESSIONS: usize = 256;

/// Bytes of one part, roughly; a session that is larger is a part of its own, and with its credit and one stanza more still a frame.
const PART_BYTES: usize = 128 << 10;

/// Bytes of an origin that has been seen, about.
const SEEN_BYTES: usize = 32;

/// Origins that are told of one session. Of more than that its device may see a repeat.
const SEEN_MAX: usize = 4096;

/// The answer to one `Lead`. Each connection concerned holds a reference until it has said what it has; when all have, the last
/// part leaves.
#[derive(Debug)]
pub(crate) struct Attaching {
    shard: ShardId,
    term: Term,
    hub: Arc<Hub>,
    part: Mutex<Part>,
}

#[derive(Debug, Default)]
struct Part {
    sessions: Vec<Attachment>,
    asking: Vec<Conn>,
    bytes: usize,
}

impl Attaching {
    pub(crate) fn new(shard: ShardId, term: Term, hub: Arc<Hub>) -> Self {
        Self {
            shard,
            term,
            hub,
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
    pub(crate) fn add(&self, attach: Attach) {
        let mut part = self.part.lock().unwrap_or_else(PoisonError::into_inner);
        match attach {
            Attach::Session(mut attachment) => {
                let seen = attachment.seen.len();
                attachment.seen.drain(..seen.saturating_sub(SEEN_MAX));
                let bytes = bytes_of(&attachment);
                if part.bytes > 0 && part.bytes + bytes > PART_BYTES {
                    self.send(std::mem::take(&mut part), false);
                }
                part.bytes += bytes;
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
        self.hub
            .attach(self.shard, self.term, ToShard::Attach { sessions, asking, last });
    }
}

/// About how many bytes a session is on the wire.
fn bytes_of(attachment: &Attachment) -> usize {
    let unreleased = attachment.unreleased.iter().map(|delivery| delivery.stanza.size());
    let presence = attachment.presence.as_ref().map_or(0, |presence| presence.size());
    attachment.seen.len() * SEEN_BYTES + unreleased.sum::<usize>() + presence
}

impl Drop for Attaching {
    fn drop(&mut self) {
        let part = std::mem::take(self.part.get_mut().unwrap_or_else(PoisonError::into_inner));
        self.send(part, true);
    }
}
