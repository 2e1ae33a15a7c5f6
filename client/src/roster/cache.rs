//! Keeping the roster over restarts of the application (RFC 6121 §2.6).

use heronry_xmpp::jid::BareJid;

use super::{Contact, RosterChange};

/// A roster that was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CachedRoster {
    /// The version that the server gave it. Opaque.
    pub version: String,
    /// Everybody in it.
    pub contacts: Vec<Contact>,
}

/// Where an application keeps the roster, so that a server sends what has changed and not everything. Called from the session's
/// own task: what takes long is to be handed to another.
pub trait RosterCache: Send + Sync {
    /// The roster as it was kept last; `None` when there is none, or what is there cannot be read.
    fn load(&self, account: &BareJid) -> Option<CachedRoster>;

    /// The server has sent all of it: this is to be kept and nothing else.
    fn replace(&self, account: &BareJid, roster: &CachedRoster);

    /// One contact has changed: [`Set`](RosterChange::Set) or [`Removed`](RosterChange::Removed), and with it the version.
    fn change(&self, account: &BareJid, version: &str, change: &RosterChange);
}
