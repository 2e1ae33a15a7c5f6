//! Whether an account wants to hear of somebody (XEP-0191): nearly always yes, and then without reading a row.

use super::{Io, Place, Shard};
use crate::jid::{BareJid, Jid};
use crate::xep::blocking;

impl Shard {
    /// Whether `account` blocks `other`.
    pub(super) fn blocks(&self, account: &BareJid, other: &Jid, io: &Io<'_>) -> bool {
        self.blocks_anybody(account, io) && {
            let matched = blocking::matches(&self.overlay.over(io.rows), account, other);
            matched.unwrap_or_else(|error| {
                tracing::error!(%error, "a block list cannot be read");
                true
            })
        }
    }

    /// A term begins: which of the sessions' accounts block anybody.
    pub(super) fn read_blocks(&mut self, io: &Io<'_>) {
        let accounts: Vec<(Place, BareJid)> = self
            .sessions
            .iter()
            .map(|(place, session)| (place, session.full.bare()))
            .collect();
        for (place, account) in accounts {
            let blocks = self.account_blocks(&account, io);
            if let Some(session) = self.sessions.get_mut(place) {
                session.blocks = blocks;
            }
        }
    }

    fn blocks_anybody(&self, account: &BareJid, io: &Io<'_>) -> bool {
        let session = self.sessions.of_account(account.as_str()).first();
        match session.and_then(|place| self.sessions.get(*place)) {
            Some(session) => session.blocks,
            None => self.account_blocks(account, io),
        }
    }
}
