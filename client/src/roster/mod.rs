//! The roster (RFC 6121 §2): who the account's contacts are, and who may see whom.

mod cache;
mod contact;
mod table;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use heronry_xmpp::{jid::BareJid, xml::Element};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

pub(crate) use self::table::SharedRoster;
pub use self::{
    cache::{CachedRoster, RosterCache},
    contact::{Contact, Subscription},
};
use crate::{Client, Request, RequestError, driver::Command};

pub(crate) const ROSTER: &str = "jabber:iq:roster";

/// A change of the roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RosterChange {
    /// A contact is new, or is different from before.
    Set(Contact),
    /// A contact was removed.
    Removed(BareJid),
    /// Look at [`Roster::contacts`]: the roster was read anew in a new session, or more changes came than were taken.
    Reloaded,
}

/// The account's roster: what it is now, and a stream of its changes. Only what the own account says is believed (§2.1.6).
#[derive(Debug)]
pub struct Roster {
    shared: Arc<SharedRoster>,
    changes: mpsc::Receiver<RosterChange>,
}

impl Roster {
    /// All contacts, in the order of their addresses.
    pub fn contacts(&self) -> Vec<Contact> {
        self.shared.contacts()
    }

    /// One of them.
    pub fn contact(&self, jid: &BareJid) -> Option<Contact> {
        self.shared.contact(jid)
    }

    /// The next change, which is in [`contacts`](Self::contacts) already; `None` once the client is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<RosterChange> {
        self.changes.recv().await
    }
}

impl Stream for Roster {
    type Item = RosterChange;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<RosterChange>> {
        self.changes.poll_recv(cx)
    }
}

impl Client {
    /// The roster. It is asked for once in a session, and from then on kept up to date by the server, also in sessions that
    /// follow; with [`Options::roster_cache`](crate::Options::roster_cache) only what has changed is sent (§2.6).
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn roster(&self) -> Result<Roster, RequestError> {
        let (done, loaded) = oneshot::channel();
        let loading = async {
            self.command(Command::LoadRoster { done })
                .await
                .map_err(|()| RequestError::Disconnected)?;
            loaded.await.map_err(|_| RequestError::Disconnected)?
        };
        let shared = timeout(self.options().request_timeout, loading)
            .await
            .map_err(|_| RequestError::Timeout)??;
        let changes = shared.subscribe();
        Ok(Roster { shared, changes })
    }

    /// Adds a contact, or gives one another name and other groups (§2.3, §2.4). That does not ask to see its presence; see
    /// [`subscribe`](Self::subscribe).
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn set_contact(&self, jid: &BareJid, name: Option<&str>, groups: &[&str]) -> Result<(), RequestError> {
        let mut item = Element::new("item", ROSTER).with_attr("jid", jid.as_str());
        if let Some(name) = name {
            item.set_attr("name", name);
        }
        let groups = groups
            .iter()
            .map(|group| Element::new("group", ROSTER).with_text(*group));
        self.set_roster(item.with_children(groups)).await
    }

    /// Removes a contact, and with it every subscription in either direction (§2.5).
    ///
    /// # Errors
    /// See [`RequestError`]; `item-not-found` when it is none.
    pub async fn remove_contact(&self, jid: &BareJid) -> Result<(), RequestError> {
        let item = Element::new("item", ROSTER)
            .with_attr("jid", jid.as_str())
            .with_attr("subscription", "remove");
        self.set_roster(item).await
    }

    async fn set_roster(&self, item: Element) -> Result<(), RequestError> {
        let query = Element::new("query", ROSTER).with_child(item);
        self.request(Request::set(query)).await.map(drop)
    }
}
