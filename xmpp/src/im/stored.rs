//! XEP-0160: messages stored while no resource could take them, as rows of the account.

use std::sync::Arc;

use bytes::Bytes;

use super::chat_state;
use crate::jid::BareJid;
use crate::rows::{Key, Table, Timestamp, account_key};
use crate::stanza::{Kind, MessageType, Stanza};
use crate::xep::date_time::date_time;
use crate::xml::Element;

/// XEP-0203's namespace.
const NS_DELAY: &str = "urn:xmpp:delay";

/// A stored message.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StoredRow {
    /// [`Stanza::encode`].
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) stanza: Bytes,
    /// When it was accepted first, in the shard's microseconds.
    #[prost(uint64, tag = "2")]
    pub(crate) at: u64,
}

/// How many messages an account has stored.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct StoredCountRow {
    #[prost(uint32, tag = "1")]
    pub(crate) messages: u32,
}

/// The key of a stored message; stamps grow, so messages are read in the order they were stored.
pub(crate) fn stored_key(account: &BareJid, stamp: Timestamp) -> Key {
    account_key(Table::Stored, account.as_str(), &stamp.0.to_be_bytes())
}

/// What the keys of an account's stored messages begin with.
pub(crate) fn stored_prefix(account: &BareJid) -> Key {
    account_key(Table::Stored, account.as_str(), &[])
}

/// The key of the count.
pub(crate) fn stored_count_key(account: &BareJid) -> Key {
    account_key(Table::StoredCount, account.as_str(), &[])
}

/// Whether a stanza that finds no resource is stored for the account: messages people or programs wrote (XEP-0160 §3).
pub(crate) fn is_storable(stanza: &Stanza) -> bool {
    matches!(stanza.kind, Kind::Message(MessageType::Normal | MessageType::Chat)) && !chat_state::is_all(stanza)
}

/// The message with the time it was stored at (XEP-0203 §3), said by `domain`.
pub(crate) fn delayed(stanza: &Stanza, at: Timestamp, domain: &str) -> Arc<Stanza> {
    let delay = Element::new("delay", NS_DELAY)
        .with_attr("from", domain)
        .with_attr("stamp", date_time(at));
    Arc::new(stanza.with_appended(&delay))
}
