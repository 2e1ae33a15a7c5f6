//! The roster as the server has told it, shared by the driver, which alone changes it, and whoever looks at it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use heronry_xmpp::{jid::BareJid, xml::Element};
use tokio::sync::mpsc;
use tracing::warn;

use super::{CachedRoster, Contact, ROSTER, RosterCache, RosterChange, contact::Item};
use crate::feed::Feed;

pub(crate) struct SharedRoster {
    account: BareJid,
    table: Mutex<Table>,
    changes: Feed<RosterChange>,
    cache: Option<Arc<dyn RosterCache>>,
    contacts_max: usize,
}

#[derive(Debug, Default)]
struct Table {
    contacts: BTreeMap<BareJid, Contact>,
    /// `None` until the server has given one.
    version: Option<String>,
}

impl SharedRoster {
    /// What the cache has kept, or nothing.
    pub(crate) fn new(
        account: BareJid,
        cache: Option<Arc<dyn RosterCache>>,
        contacts_max: usize,
        changes_max: usize,
    ) -> Self {
        let kept = cache.as_ref().and_then(|cache| cache.load(&account));
        let table = kept.map_or_else(Table::default, |kept| Table {
            contacts: by_address(kept.contacts, contacts_max),
            version: Some(kept.version),
        });
        Self {
            account,
            table: Mutex::new(table),
            changes: Feed::new(changes_max, || RosterChange::Reloaded),
            cache,
            contacts_max,
        }
    }

    /// The request for the roster; with our version where the server knows versions (§2.6.2).
    pub(crate) fn request(&self, versions: bool) -> Element {
        let query = Element::new("query", ROSTER);
        match versions {
            true => query.with_attr("ver", self.table().version.clone().unwrap_or_default()),
            false => query,
        }
    }

    /// The server has answered the request: with the whole roster, or, without an element, that ours is as good.
    pub(crate) fn answered(&self, query: Option<&Element>) {
        let Some(query) = query else { return };
        let contacts = query.children().filter_map(|item| match Item::read(item)? {
            Item::Contact(contact) => Some(contact),
            Item::Removed(_) => None,
        });
        let contacts = by_address(contacts, self.contacts_max);
        let version = query.attr("ver").map(str::to_owned);
        if let (Some(cache), Some(version)) = (&self.cache, &version) {
            let roster = CachedRoster {
                version: version.clone(),
                contacts: contacts.values().cloned().collect(),
            };
            cache.replace(&self.account, &roster);
        }
        *self.table() = Table { contacts, version };
        self.changes.tell(&RosterChange::Reloaded);
    }

    /// The server pushes a change (§2.1.6). False when it says nothing that could be understood.
    pub(crate) fn push(&self, query: &Element) -> bool {
        let mut items = query.children();
        let (Some(item), None) = (items.next().and_then(Item::read), items.next()) else {
            return false;
        };
        let version = query.attr("ver").map(str::to_owned);
        let change = {
            let mut table = self.table();
            let change = match item {
                Item::Removed(jid) => {
                    table.contacts.remove(&jid);
                    RosterChange::Removed(jid)
                }
                Item::Contact(contact) => {
                    if table.contacts.len() >= self.contacts_max && !table.contacts.contains_key(&contact.jid) {
                        warn!(
                            contacts_max = self.contacts_max,
                            "the roster is too long, a contact is left out"
                        );
                        return true;
                    }
                    table.contacts.insert(contact.jid.clone(), contact.clone());
                    RosterChange::Set(contact)
                }
            };
            table.version.clone_from(&version);
            change
        };
        if let (Some(cache), Some(version)) = (&self.cache, &version) {
            cache.change(&self.account, version, &change);
        }
        self.changes.tell(&change);
        true
    }

    pub(crate) fn subscribe(&self) -> mpsc::Receiver<RosterChange> {
        self.changes.subscribe()
    }

    /// The client is closed.
    pub(crate) fn close(&self) {
        self.changes.close();
    }

    pub(crate) fn contacts(&self) -> Vec<Contact> {
        self.table().contacts.values().cloned().collect()
    }

    pub(crate) fn contact(&self, jid: &BareJid) -> Option<Contact> {
        self.table().contacts.get(jid).cloned()
    }

    /// Whether somebody sees our presence.
    pub(crate) fn sees_us(&self, jid: &BareJid) -> bool {
        self.table()
            .contacts
            .get(jid)
            .is_some_and(|contact| contact.subscription.is_seen())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for SharedRoster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedRoster")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

fn by_address(contacts: impl IntoIterator<Item = Contact>, max: usize) -> BTreeMap<BareJid, Contact> {
    let contacts = contacts.into_iter().take(max);
    contacts.map(|contact| (contact.jid.clone(), contact)).collect()
}

#[cfg(test)]
mod tests {
    use heronry_xmpp::xml::Limits;

    use super::{super::Subscription, *};

    #[derive(Default)]
    struct Kept(Mutex<Vec<String>>);

    impl RosterCache for Kept {
        fn load(&self, account: &BareJid) -> Option<CachedRoster> {
            assert_eq!(account.as_str(), "juliet@capulet.example");
            Some(CachedRoster {
                version: "v1".to_owned(),
                contacts: Vec::new(),
            })
        }

        fn replace(&self, _: &BareJid, roster: &CachedRoster) {
            let line = format!("{} is {} contacts", roster.version, roster.contacts.len());
            self.0.lock().expect("no panic").push(line);
        }

        fn change(&self, _: &BareJid, version: &str, change: &RosterChange) {
            let line = match change {
                RosterChange::Set(contact) => format!("{version} sets {}", contact.jid),
                RosterChange::Removed(jid) => format!("{version} removes {jid}"),
                RosterChange::Reloaded => unreachable!("that is no change"),
            };
            self.0.lock().expect("no panic").push(line);
        }
    }

    fn xml(text: &str) -> Element {
        Element::parse(text, &Limits::after_auth()).expect("XML")
    }

    fn account() -> BareJid {
        BareJid::parse("juliet@capulet.example").expect("address")
    }

    fn roster(cache: Option<Arc<dyn RosterCache>>) -> SharedRoster {
        SharedRoster::new(account(), cache, 3, 8)
    }

    fn push(roster: &SharedRoster, item: &str) -> bool {
        roster.push(&xml(&format!(
            "<query xmlns='jabber:iq:roster' ver='next'>{item}</query>"
        )))
    }

    #[test]
    fn an_answer_replaces_and_pushes_change() {
        let roster = roster(None);
        let mut changes = roster.subscribe();
        roster.answered(Some(&xml(
            "<query xmlns='jabber:iq:roster'><item jid='romeo@example.net' name='Romeo' subscription='both'><group>Friends</group></item>\
             <item jid='not an address@@'/><item jid='nurse@example.com' ask='subscribe'/></query>",
        )));
        let contacts = roster.contacts();
        assert_eq!(contacts.len(), 2);
        assert_eq!(
            (contacts[1].name.as_deref(), contacts[1].subscription),
            (Some("Romeo"), Subscription::Both)
        );
        assert_eq!(contacts[1].groups, ["Friends"]);
        assert!(contacts[0].asked && contacts[0].subscription == Subscription::None);
        assert!(push(&roster, "<item jid='romeo@example.net' subscription='remove'/>"));
        assert!(push(&roster, "<item jid='nurse@example.com' subscription='from'/>"));
        assert!(roster.sees_us(&BareJid::parse("nurse@example.com").expect("address")));
        assert!(!roster.sees_us(&BareJid::parse("romeo@example.net").expect("address")));
        assert_eq!(changes.try_recv(), Ok(RosterChange::Reloaded));
        assert!(matches!(changes.try_recv(), Ok(RosterChange::Removed(jid)) if jid.as_str() == "romeo@example.net"));
        assert!(
            matches!(changes.try_recv(), Ok(RosterChange::Set(contact)) if contact.jid.as_str() == "nurse@example.com")
        );
    }

    #[test]
    fn a_push_has_exactly_one_item() {
        let roster = roster(None);
        assert!(!push(&roster, ""));
        assert!(!push(&roster, "<item jid='a@b'/><item jid='c@d'/>"));
        assert!(!push(&roster, "<item jid='@'/>"));
        assert!(!push(&roster, "<item xmlns='other' jid='a@b'/>"));
        assert!(roster.contacts().is_empty());
    }

    #[test]
    fn the_cache_has_what_the_server_said_last() {
        let kept = Arc::new(Kept::default());
        let roster = roster(Some(kept.clone()));
        assert_eq!(roster.request(true).attr("ver"), Some("v1"));
        assert_eq!(roster.request(false).attr("ver"), None);
        roster.answered(None);
        push(&roster, "<item jid='a@b'/>");
        assert_eq!(roster.request(true).attr("ver"), Some("next"));
        push(&roster, "<item jid='a@b' subscription='remove'/>");
        roster.answered(Some(&xml(
            "<query xmlns='jabber:iq:roster' ver='v9'><item jid='c@d'/></query>",
        )));
        let kept = kept.0.lock().expect("no panic");
        assert_eq!(*kept, ["next sets a@b", "next removes a@b", "v9 is 1 contacts"]);
    }

    #[test]
    fn the_roster_is_bounded() {
        let roster = roster(None);
        for contact in 0..5 {
            push(&roster, &format!("<item jid='c{contact}@d'/>"));
        }
        assert_eq!(roster.contacts().len(), 3);
        assert!(
            push(&roster, "<item jid='c0@d' subscription='to'/>"),
            "those in it still change"
        );
        assert!(roster.contacts()[0].subscription.sees());
    }
}
