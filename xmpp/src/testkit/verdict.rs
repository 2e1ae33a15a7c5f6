//! What the devices saw, against what was promised.

use std::collections::{BTreeMap, BTreeSet};

use super::counter::counted;
use super::device::{Act, Device, Sent};
use super::world::World;
use crate::jid::Jid;
use crate::rows::Table;

/// How strict the reading is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Leniency {
    /// A device's session and its edge may die together, so what was accepted for it may die with them, and a message may
    /// come a second time after the device had to bind anew (DESIGN §4, the table's third row).
    pub(super) sessions_die: bool,
    /// Two nodes may die at once, so what was accepted may die with them.
    pub(super) two_may_die: bool,
}

impl World {
    /// The broken promises, a sentence each. To be asked when the world has settled.
    pub(super) fn verdict(&self, leniency: Leniency) -> Vec<String> {
        let mut broken = Vec::new();
        for device in &self.devices {
            self.read_messages(device, leniency, &mut broken);
            self.read_answers(device, leniency, &mut broken);
        }
        self.read_invented(&mut broken);
        self.read_counters(&mut broken);
        self.read_leftovers(&mut broken);
        broken
    }

    fn recipients<'w>(&'w self, to: &'w Jid) -> impl Iterator<Item = &'w Device> {
        self.devices.iter().filter(move |device| device.account == to.to_bare())
    }

    /// Accepted messages have come, once and in order.
    fn read_messages(&self, sender: &Device, leniency: Leniency, broken: &mut Vec<String>) {
        let answered: BTreeSet<&str> = sender.log.answered.iter().map(|(id, _)| id.as_str()).collect();
        let mut last_seen: BTreeMap<_, (usize, &str)> = BTreeMap::new();
        for sent in &sender.log.sent {
            // What says only that somebody types may get lost.
            let (to, matters) = match &sent.act {
                Act::Message { to } => (to, true),
                Act::ChatState { to } => (to, false),
                _ => continue,
            };
            let mut came = 0;
            for (place, device) in self.recipients(to).enumerate() {
                let received = || device.log.received.iter().filter(|received| received.id == sent.id);
                came += received().count();
                let position = device.log.received.iter().position(|received| received.id == sent.id);
                let (Some(position), Some(received)) = (position, received().next()) else {
                    continue;
                };
                // Order holds per sending stream and recipient. What was stored waits for presence, which what is for the full
                // JID does not: those two are read apart.
                let key = (device.account.clone(), sent.session, place, received.delayed);
                if let Some((before, earlier)) = last_seen.insert(key, (position, &sent.id))
                    && before > position
                {
                    broken.push(format!("{} came before {earlier}, which was sent first", sent.id));
                }
            }
            if matters && sent.accepted && came == 0 && !answered.contains(sent.id.as_str()) && !leniency.two_may_die {
                broken.push(format!("{} was accepted and never came", sent.id));
            }
            if came > 1 && !leniency.sessions_die {
                broken.push(format!("{} came {came} times", sent.id));
            }
        }
    }

    /// An accepted request has had exactly one answer.
    fn read_answers(&self, device: &Device, leniency: Leniency, broken: &mut Vec<String>) {
        for Sent {
            id,
            act,
            accepted,
            session,
        } in &device.log.sent
        {
            let answers = device
                .log
                .answered
                .iter()
                .filter(|(answered, _)| answered == id)
                .count();
            let request = matches!(act, Act::Count { .. });
            if request && *accepted && answers == 0 && *session == device.last_session() && !leniency.sessions_die {
                broken.push(format!("{id} was accepted and never answered"));
            }
            // A request between devices is ephemeral: when its recipient changes sockets in the middle of a failover, neither
            // socket's edge knows what the other was given, and it is asked twice. Any other is answered again when the device
            // has the answer, and whoever knew that its request was accepted is dead: it sends the request again, which is not
            // carried out again.
            if answers > usize::from(!request || leniency.sessions_die) + 1 {
                broken.push(format!("{id} was answered {answers} times"));
            }
        }
    }

    /// Nothing came that was not sent.
    fn read_invented(&self, broken: &mut Vec<String>) {
        let sent: BTreeSet<&str> = self
            .devices
            .iter()
            .flat_map(|device| &device.log.sent)
            .map(|sent| &*sent.id)
            .collect();
        for device in &self.devices {
            let answered = device.log.answered.iter().map(|(id, _)| id);
            for id in device.log.received.iter().map(|received| &received.id).chain(answered) {
                if !sent.contains(id.as_str()) {
                    broken.push(format!("{id} came to {} and was never sent", device.account));
                }
            }
        }
    }

    /// No request was carried out twice, in another order than it was sent, or not at all though it was accepted.
    fn read_counters(&self, broken: &mut Vec<String>) {
        for device in &self.devices {
            let counted = counted(self.disk_of(&device.account), device.account.as_str());
            let distinct: BTreeSet<&String> = counted.iter().collect();
            if distinct.len() != counted.len() {
                broken.push(format!("{} carried out a request twice: {counted:?}", device.account));
            }
            for sender in &self.devices {
                let for_it = |sent: &&Sent| match &sent.act {
                    Act::Count { to: Some(to) } => to.to_bare() == device.account,
                    Act::Count { to: None } => sender.account == device.account,
                    _ => false,
                };
                let sent: Vec<&Sent> = sender.log.sent.iter().filter(for_it).collect();
                let places: Vec<Option<usize>> = sent
                    .iter()
                    .map(|sent| counted.iter().position(|id| *id == sent.id))
                    .collect();
                let carried_out: Vec<usize> = places.iter().flatten().copied().collect();
                if !carried_out.is_sorted() {
                    broken.push(format!(
                        "{} carried out requests in another order: {counted:?}",
                        device.account
                    ));
                }
                for (sent, place) in sent.iter().zip(places) {
                    let refused = sender.log.answered.iter().any(|(id, result)| *id == sent.id && !result);
                    if sent.accepted && place.is_none() && !refused {
                        broken.push(format!("{} was accepted and not carried out", sent.id));
                    }
                }
            }
        }
    }

    /// Nothing is left in the disks but accounts, sessions and what is remembered against repeats.
    fn read_leftovers(&self, broken: &mut Vec<String>) {
        for key in self.disks().flat_map(super::disk::Disk::keys) {
            let table = key.get(2).copied().unwrap_or_default();
            let left = [
                Table::Queue,
                Table::Stored,
                Table::StoredCount,
                Table::Outbox,
                Table::Farewell,
            ];
            if left.iter().any(|left| *left as u8 == table) {
                broken.push(format!("a row is left: {}", key.escape_ascii()));
            }
        }
        if self.sessions() != self.devices.len() {
            broken.push(format!(
                "there are {} sessions of {} devices",
                self.sessions(),
                self.devices.len()
            ));
        }
    }
}
