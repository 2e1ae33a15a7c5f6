//! The world as a stage for conversations.

use std::time::Duration;

use super::conversation::{Conversation, How, Stage};
use super::device::{Device, Wish};
use super::{Topology, World};
use crate::jid::FullJid;
use crate::xml::Element;

/// How long somebody who expects to hear something listens, in quarters of a second in which nothing happens.
const PATIENCE: usize = 60;

/// How long it must be quiet.
const QUIET: usize = 12;

impl World {
    /// A world in which a conversation can be played.
    pub fn stage(topology: Topology, seed: u64, conversation: &Conversation) -> Self {
        let mut devices: Vec<Device> = conversation.devices.iter().map(Device::told).collect();
        for account in &conversation.accounts {
            if !devices.iter().any(|device| device.account == *account) {
                let nowhere = account.with_resource("nowhere").expect("a proper resource");
                devices.push(Device::told(&nowhere));
            }
        }
        Self::of(topology, seed, devices)
    }

    fn told(&self, who: &FullJid) -> usize {
        let is = |device: &Device| device.account == who.bare() && device.resource() == who.resource();
        self.devices.iter().position(is).expect("a device of the conversation")
    }

    /// Has a device end its stream, and does not wait for that.
    pub(super) fn hang_up(&mut self, who: &FullJid) {
        let device = self.told(who);
        self.grant(device, vec![Wish::Send(b"</stream:stream>".to_vec())]);
    }

    /// Lets everything happen that is under way.
    pub(super) fn calm(&mut self) {
        self.until(QUIET, |_| false);
    }

    /// Lets things happen until `done`; gives up when nothing has happened for `patience` quarters of a second.
    fn until(&mut self, patience: usize, done: impl Fn(&Self) -> bool) -> bool {
        let mut waited = 0;
        while !done(self) {
            if self.step() {
                continue;
            }
            if waited == patience {
                return false;
            }
            waited += 1;
            self.pass(Duration::from_millis(250));
        }
        true
    }
}

impl Stage for World {
    fn connect(&mut self, who: &FullJid, how: How) {
        let device = self.told(who);
        self.devices[device].comes(how);
        let online = self.until(PATIENCE, |world| world.devices[device].is_online());
        assert!(online, "{who} cannot log in: {}", self.situation());
    }

    fn disconnect(&mut self, who: &FullJid) {
        let device = self.told(who);
        self.hang_up(who);
        let offline = self.until(PATIENCE, |world| world.devices[device].is_offline());
        assert!(offline, "{who}'s stream does not end");
    }

    fn cut(&mut self, who: &FullJid) {
        let device = self.told(who);
        self.devices[device].cut();
        self.grant(device, vec![Wish::HangUp]);
    }

    fn say(&mut self, who: &FullJid, element: &Element) {
        let device = self.told(who);
        let mut wishes = Vec::new();
        self.devices[device].say(element, &mut wishes);
        self.grant(device, wishes);
    }

    fn hear(&mut self, who: &FullJid) -> Option<Element> {
        let device = self.told(who);
        self.until(PATIENCE, |world| world.devices[device].has_heard());
        self.devices[device].heard().pop_front()
    }

    fn quiet(&mut self) -> Vec<(FullJid, Element)> {
        self.calm();
        let mut heard = Vec::new();
        for device in &mut self.devices {
            let full = device.full();
            heard.extend(device.heard().drain(..).map(|element| (full.clone(), element)));
        }
        heard
    }
}
