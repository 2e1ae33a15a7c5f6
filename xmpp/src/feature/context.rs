//! All a feature may see and cause.

use crate::jid::{BareJid, FullJid};
use crate::rows::{Key, Rows, RowsError, Timestamp, Value, View, Write};
use crate::shard::Config;
use crate::stanza::StanzaError;

/// The world of one evaluation.
pub struct Context<'a> {
    /// Who asks; authenticated.
    pub origin: &'a FullJid,
    /// The account that evaluates: its rows are the ones to read and write.
    pub account: &'a BareJid,
    /// The shard's time.
    pub now: Timestamp,
    /// The broker's settings.
    pub config: &'a Config,
    pub(crate) rows: View<'a>,
    pub(crate) writes: Vec<Write>,
}

impl Context<'_> {
    /// A row as this account's earlier evaluations left it. The writes of this very evaluation do not show.
    ///
    /// # Errors
    /// `internal-server-error` when the store cannot be read.
    pub fn row(&self, key: &[u8]) -> Result<Option<Value>, StanzaError> {
        self.rows.row(key).map_err(unreadable)
    }

    /// Up to `limit` rows under `prefix`, from `from` on.
    ///
    /// # Errors
    /// `internal-server-error` when the store cannot be read.
    pub fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, StanzaError> {
        self.rows.scan(prefix, from, limit).map_err(unreadable)
    }

    /// Creates or replaces a row, durable before anybody hears of it.
    pub fn put(&mut self, key: Key, value: impl Into<Value>) {
        self.writes.push(Write::Put(key, value.into()));
    }

    /// Removes a row.
    pub fn delete(&mut self, key: Key) {
        self.writes.push(Write::Delete(key));
    }
}

fn unreadable(error: RowsError) -> StanzaError {
    tracing::error!(%error, "a request could not read its rows");
    StanzaError::internal_server_error()
}
