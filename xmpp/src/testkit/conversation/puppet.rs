//! A device of a conversation, without a socket: logs in, keeps its stream, and otherwise does as it is told.

use std::collections::VecDeque;

use super::How;
use crate::jid::FullJid;
use crate::sasl::ScramKeys;
use crate::testkit::Seed;
use crate::testkit::device::{self, Device, Wish};
use crate::xep::csi::ClientState;
use crate::xml::Element;

/// What is to be done with a device's socket.
#[derive(Debug)]
pub enum Action {
    /// Write these bytes.
    Send(Vec<u8>),
    /// Close it.
    HangUp,
}

/// A device of a conversation.
pub struct Puppet {
    device: Device,
    seed: Seed,
    is_inactive: bool,
}

impl Puppet {
    /// A device that is not connected.
    pub fn new(jid: &FullJid, seed: u64) -> Self {
        Self {
            device: Device::told(jid),
            seed: Seed::new(seed),
            is_inactive: false,
        }
    }

    /// The keys of every account in a conversation, for SCRAM-SHA-1.
    pub fn keys() -> ScramKeys {
        device::keys().server_side()
    }

    /// Begins on a new socket; these bytes are to be written.
    pub fn connect(&mut self, how: How) -> Vec<u8> {
        self.device.comes(how);
        self.is_inactive = false;
        self.device.connect()
    }

    /// Whether it has a session.
    pub fn is_online(&self) -> bool {
        self.device.is_online()
    }

    /// Whether its stream is over.
    pub fn is_offline(&self) -> bool {
        self.device.is_offline()
    }

    /// Its socket is gone.
    pub fn cut(&mut self) {
        self.device.cut();
    }

    /// Bytes have come.
    pub fn receive(&mut self, bytes: &[u8]) -> Vec<Action> {
        actions(self.device.receive(bytes, &mut self.seed))
    }

    /// Whether it has said that nobody looks at it (XEP-0352): then it is not to be asked anything either.
    pub fn is_inactive(&self) -> bool {
        self.is_inactive
    }

    /// It says this.
    pub fn say(&mut self, element: &Element) -> Vec<Action> {
        if let Some(state) = ClientState::parse(element) {
            self.is_inactive = state == ClientState::Inactive;
        }
        let mut wishes = Vec::new();
        self.device.say(element, &mut wishes);
        actions(wishes)
    }

    /// What it has heard and nobody has taken.
    pub fn heard(&mut self) -> &mut VecDeque<Element> {
        self.device.heard()
    }
}

fn actions(wishes: Vec<Wish>) -> Vec<Action> {
    let action = |wish| match wish {
        Wish::Send(bytes) => Action::Send(bytes),
        Wish::HangUp => Action::HangUp,
    };
    wishes.into_iter().map(action).collect()
}
