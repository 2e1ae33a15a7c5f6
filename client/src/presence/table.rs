//! Who is there, shared by the driver, which alone changes it, and whoever looks at it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use heronry_xmpp::{
    jid::{BareJid, Jid},
    stanza::{Kind, PresenceType, Stanza},
    xml::CLIENT,
};
use tokio::sync::mpsc;
use tracing::debug;

use super::{Presence, PresenceChange};
use crate::feed::Feed;

#[derive(Debug)]
pub(crate) struct SharedPresence {
    table: Mutex<Table>,
    changes: Feed<PresenceChange>,
    presences_max: usize,
}

#[derive(Debug, Default)]
struct Table {
    accounts: HashMap<BareJid, Vec<(Jid, Presence)>>,
    /// Devices of all accounts.
    devices: usize,
}

impl SharedPresence {
    pub(crate) fn new(presences_max: usize, changes_max: usize) -> Self {
        Self {
            table: Mutex::default(),
            changes: Feed::new(changes_max, || PresenceChange::Reset),
            presences_max,
        }
    }

    pub(crate) fn subscribe(&self) -> mpsc::Receiver<PresenceChange> {
        self.changes.subscribe()
    }

    /// The client is closed.
    pub(crate) fn close(&self) {
        self.changes.close();
    }

    /// A presence came.
    pub(crate) fn take(&self, stanza: &Stanza) {
        let (Kind::Presence(type_), Some(from)) = (stanza.kind, stanza.from.clone()) else {
            return;
        };
        if let Some(change) = self.change(type_, from, stanza) {
            self.changes.tell(&change);
        }
    }

    /// A new session: nothing is known any more.
    pub(crate) fn reset(&self) {
        *self.table() = Table::default();
        self.changes.tell(&PresenceChange::Reset);
    }

    /// The devices of an account, the highest priority first.
    pub(crate) fn of(&self, account: &BareJid) -> Vec<(Jid, Presence)> {
        let mut devices = self.table().accounts.get(account).cloned().unwrap_or_default();
        devices.sort_by_key(|(_, presence)| std::cmp::Reverse(presence.priority));
        devices
    }

    fn change(&self, type_: PresenceType, from: Jid, stanza: &Stanza) -> Option<PresenceChange> {
        let content = stanza.root_element().ok()?;
        let status = || content.child("status", CLIENT).map(|status| status.text());
        let by = from.to_bare();
        Some(match type_ {
            PresenceType::Available => {
                let presence = Presence::read(&content);
                if !self.table().set(&from, &presence, self.presences_max) {
                    debug!(%from, "presence of too many devices, one is left out");
                    return None;
                }
                PresenceChange::Available { jid: from, presence }
            }
            PresenceType::Unavailable => {
                self.table().remove(&from);
                let status = status();
                PresenceChange::Unavailable { jid: from, status }
            }
            // RFC 6121 §4.3.3: who answers a probe with an error is not there, as far as we can see.
            PresenceType::Error => {
                self.table().remove(&from);
                let error = Box::new(stanza.stanza_error()?);
                PresenceChange::Error { from, error }
            }
            PresenceType::Subscribe => PresenceChange::Asked { by, status: status() },
            PresenceType::Subscribed => PresenceChange::Approved { by },
            PresenceType::Unsubscribed => PresenceChange::Denied { by },
            PresenceType::Unsubscribe => PresenceChange::Left { by },
            PresenceType::Probe => return None,
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// False when there is no room for another device.
    fn set(&mut self, jid: &Jid, presence: &Presence, max: usize) -> bool {
        let account = jid.to_bare();
        let known = self
            .accounts
            .get_mut(&account)
            .and_then(|devices| devices.iter_mut().find(|(device, _)| device == jid));
        match known {
            Some((_, known)) => *known = presence.clone(),
            None if self.devices >= max => return false,
            None => {
                self.devices += 1;
                self.accounts
                    .entry(account)
                    .or_default()
                    .push((jid.clone(), presence.clone()));
            }
        }
        true
    }

    fn remove(&mut self, jid: &Jid) {
        let account = jid.to_bare();
        let Some(devices) = self.accounts.get_mut(&account) else {
            return;
        };
        let before = devices.len();
        if jid.is_bare() {
            devices.clear();
        } else {
            devices.retain(|(device, _)| device != jid);
        }
        self.devices -= before - devices.len();
        if devices.is_empty() {
            self.accounts.remove(&account);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Show, *};
    use crate::testing::message as stanza;

    fn romeo() -> BareJid {
        BareJid::parse("romeo@montague.example").expect("address")
    }

    fn after(presences: &[&str]) -> SharedPresence {
        let shared = SharedPresence::new(2, 16);
        presences.iter().for_each(|xml| shared.take(&stanza(xml)));
        shared
    }

    #[test]
    fn devices_come_and_go() {
        let shared = after(&[
            "<presence from='romeo@montague.example/phone'><priority>-1</priority></presence>",
            "<presence from='romeo@montague.example/orchard'><show>dnd</show><status>sighing</status></presence>",
        ]);
        let devices = shared.of(&romeo());
        assert_eq!(devices[0].0.resource(), Some("orchard"));
        assert_eq!(
            devices[0].1,
            Presence::available().show(Show::DoNotDisturb).status("sighing")
        );
        assert_eq!(devices[1].1.priority, -1);
        shared.take(&stanza("<presence from='romeo@montague.example/orchard'/>"));
        assert_eq!(shared.of(&romeo()).len(), 2, "changed, not added");
        shared.take(&stanza(
            "<presence type='unavailable' from='romeo@montague.example/phone'/>",
        ));
        assert_eq!(shared.of(&romeo()).len(), 1);
        shared.take(&stanza("<presence type='unavailable' from='romeo@montague.example'/>"));
        assert!(shared.of(&romeo()).is_empty() && shared.table().devices == 0);
    }

    #[test]
    fn everything_is_told_as_what_it_is() {
        let shared = SharedPresence::new(2, 16);
        let mut changes = shared.subscribe();
        for type_ in [
            "subscribe",
            "subscribed",
            "unsubscribe",
            "unsubscribed",
            "probe",
            "error",
        ] {
            shared.take(&stanza(&format!(
                "<presence type='{type_}' from='romeo@montague.example/x'/>"
            )));
        }
        shared.reset();
        let mut told = Vec::new();
        while let Ok(change) = changes.try_recv() {
            told.push(change);
        }
        let by = romeo;
        assert_eq!(
            told[..4],
            [
                PresenceChange::Asked { by: by(), status: None },
                PresenceChange::Approved { by: by() },
                PresenceChange::Left { by: by() },
                PresenceChange::Denied { by: by() },
            ]
        );
        assert!(matches!(told[4], PresenceChange::Error { .. }) && told[5] == PresenceChange::Reset && told.len() == 6);
    }

    #[test]
    fn strangers_cannot_fill_the_memory() {
        let shared = after(&[
            "<presence from='a@b/1'/>",
            "<presence from='a@b/2'/>",
            "<presence from='a@b/3'/>",
        ]);
        assert_eq!(shared.of(&BareJid::parse("a@b").expect("address")).len(), 2);
    }
}
