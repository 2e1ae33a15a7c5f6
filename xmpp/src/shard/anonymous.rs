//! What somebody who is nobody in particular may do (XEP-0175 §3): talk, and leave nothing behind.
//!
//! A temporary account has no row but that of its session, which goes with the socket: it cannot be resumed. Nothing is stored
//! for it, it stores nothing, and it is in nobody's roster.

use crate::im::session_establishment;
use crate::jid::{BareJid, FullJid};
use crate::sasl::{NO_CREDENTIALS, is_anonymous, is_reserved};
use crate::stanza::{IqType, Kind, PresenceType, Stanza, StanzaError};

/// Whether whoever binds this account has authenticated as what it is: a temporary one by nothing.
pub(super) fn is_admitted(account: &BareJid, version: u64) -> bool {
    is_anonymous(account) && version == NO_CREDENTIALS
}

/// Why a stanza is not taken from this session because nobody knows whose it is.
pub(super) fn refusal(from: &FullJid, stanza: &Stanza) -> Option<StanzaError> {
    if !from.local().is_some_and(is_reserved) {
        return None;
    }
    let to = stanza.to.as_ref();
    let own = to.is_none_or(|to| to.local().is_none() || to.as_str() == from.bare_str());
    let refused = match stanza.kind {
        // What changes something at an account or at the broker.
        Kind::Iq(IqType::Set) => own && !stanza.is_payload("session", session_establishment::NS),
        Kind::Presence(kind) => !matches!(
            kind,
            PresenceType::Available | PresenceType::Unavailable | PresenceType::Error
        ),
        _ => false,
    };
    refused.then(|| StanzaError::forbidden().with_text("not for anonymous accounts"))
}
