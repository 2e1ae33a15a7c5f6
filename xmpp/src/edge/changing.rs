//! A password that is changed in a session (XEP-0077 §3.3): the edge makes keys of it, and gives the shard those.

use crate::jid::FullJid;
use crate::random::Random;
use crate::sasl::{DeriveKeys, ScramHash};
use crate::stanza::{IqType, Kind, Stanza, StanzaError};
use crate::xep::registration;
use crate::xml::Element;

/// What is to be made of a stanza that changes the password.
pub(super) struct Change {
    /// The stanza, without what it asks for.
    pub(super) stanza: Stanza,
    /// The keys to be made, or what is wrong with it.
    pub(super) keys: Result<DeriveKeys, StanzaError>,
}

/// Whether a stanza of `full` changes its password, and what is to be done then. `hashes` are those that accounts have keys for.
pub(super) fn change(full: &FullJid, stanza: &Stanza, hashes: &[ScramHash], random: &mut dyn Random) -> Option<Change> {
    let asks = stanza.kind == Kind::Iq(IqType::Set)
        && registration::is_request(stanza)
        && registration::is_for_server_of(&full.bare(), stanza)
        && !registration::asks_for_removal(stanza);
    if !asks {
        return None;
    }
    let keys = stanza
        .payload_element()
        .map_err(|_| StanzaError::bad_request())
        .and_then(|query| registration::new_password(&query, &full.bare()))
        .map(|password| DeriveKeys::new(password, hashes, random));
    let mut silent = Stanza::new(stanza.kind, [&Element::new("query", registration::NS)]);
    silent.to.clone_from(&stanza.to);
    silent.from.clone_from(&stanza.from);
    silent.id.clone_from(&stanza.id);
    silent.lang.clone_from(&stanza.lang);
    Some(Change { stanza: silent, keys })
}
