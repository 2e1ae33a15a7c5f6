//! XEP-0160: messages stored while no resource could take them, as rows of the account.

use std::sync::Arc;

use bytes::Bytes;

use super::chat_state;
use crate::jid::BareJid;
use crate::rows::{Key, Table, Timestamp, account_key};
use crate::stanza::{Kind, MessageType, Stanza};
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

/// XEP-0082 §3.2, in UTC, to the second.
fn date_time(at: Timestamp) -> String {
    let seconds = at.0 / 1_000_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// The civil date of a day counted from 1970-01-01 (H. Hinnant's `civil_from_days`, for days that are not negative).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_written_in_the_profile_of_xep_0082() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_031_669_011, "2002-09-10T14:43:31Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date_time(Timestamp(seconds * 1_000_000)), text);
        }
    }
}
