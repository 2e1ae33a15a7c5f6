//! All a feature may see and cause.

use super::{Audience, Consequence, Said};
use crate::jid::{BareJid, Jid};
use crate::rows::{Key, Rows, RowsError, Timestamp, Value, View, Write};
use crate::shard::Config;
use crate::stanza::{Stanza, StanzaError};
use crate::xml::Element;

/// The world of one evaluation.
pub struct Context<'a> {
    /// Who asks; authenticated. A bare JID when it is an account, not one of its devices.
    pub origin: &'a Jid,
    /// The account that evaluates: its rows are the ones to read and write.
    pub account: &'a BareJid,
    /// The shard's time.
    pub now: Timestamp,
    /// The broker's settings.
    pub config: &'a Config,
    pub(crate) rows: View<'a>,
    pub(crate) writes: Vec<Write>,
    pub(crate) consequences: Vec<Consequence>,
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

    /// Pushes an iq set with this content to resources of the account.
    pub fn push(&mut self, to: Audience, content: Element) {
        self.consequences.push(Consequence::Push(to, content));
    }

    /// Delivers a stanza to resources of the account.
    pub fn deliver(&mut self, to: Audience, stanza: Stanza) {
        self.consequences.push(Consequence::Deliver(to, stanza));
    }

    /// Has the session of the device that asks keep something in mind.
    pub fn remember(&mut self, said: Said) {
        self.consequences.push(Consequence::Remember(said));
    }

    /// Routes a stanza to its `to` exactly once, whatever dies.
    pub fn send(&mut self, stanza: Stanza) {
        self.consequences.push(Consequence::Send(stanza));
    }

    /// Sends the presence of the account's available resources to somebody.
    pub fn show(&mut self, to: Jid) {
        self.consequences.push(Consequence::Show(to));
    }

    /// Tells somebody that the account's available resources are not.
    pub fn hide(&mut self, from: Jid) {
        self.consequences.push(Consequence::Hide(from));
    }

    /// Notes whether the account blocks anybody at all.
    pub fn blocks(&mut self, any: bool) {
        self.consequences.push(Consequence::Blocks(any));
    }
}

fn unreadable(error: RowsError) -> StanzaError {
    tracing::error!(%error, "a request could not read its rows");
    StanzaError::internal_server_error()
}
