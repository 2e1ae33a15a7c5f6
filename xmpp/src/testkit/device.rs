//! A device: logs in, does what its script says, manages its stream, comes back when its socket is cut.

use std::collections::VecDeque;
use std::sync::OnceLock;

use super::Seed;
use super::conversation::How;
use super::counter;
use crate::jid::{BareJid, FullJid, Jid};
use crate::sasl::{ClientKeys, Mechanism, Password, ScramHash, Secret};
use crate::stanza::{IqType, Kind, MessageType, Parsed, PresenceType, Stanza};
use crate::stream::{Initiator, InitiatorConfig, InitiatorOutput, TlsDemand};
use crate::xep::csi;
use crate::xep::sm::{self, Nonza};
use crate::xml::{CLIENT, Element, Frame, Framer, Limits, StreamPrefixes};

/// What a device does.
#[derive(Clone, Debug)]
pub enum Act {
    /// Sends a chat message; its id says which it is.
    Message {
        /// To whom.
        to: Jid,
    },
    /// Sends a request that writes to its own account, or to the one it is sent to.
    Count {
        /// To whom; `None` is its own account.
        to: Option<Jid>,
    },
    /// Sends a message that says no more than that its sender types.
    ChatState {
        /// To whom.
        to: Jid,
    },
    /// Says that nobody looks at it (XEP-0352), or that somebody does again.
    Active(bool),
    /// Pings somebody.
    Ping {
        /// Whom.
        to: Jid,
    },
    /// Says `<presence type='unavailable'/>`, or that it is available again.
    Available(bool),
    /// Loses its socket.
    Cut,
}

/// What a device has done and seen.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Stanzas with an id that were sent, in order, in which of its sessions.
    pub(super) sent: Vec<Sent>,
    /// Messages that came, in order.
    pub(super) received: Vec<Received>,
    /// Ids for which an answer came: a result, or an error.
    pub(super) answered: Vec<(String, bool)>,
    /// Sessions that were resumed, and those bound anew after one was lost.
    pub(super) resumed: u32,
    pub(super) rebound: u32,
}

#[derive(Debug)]
pub(super) struct Received {
    pub(super) id: String,
    /// It had been stored (XEP-0203).
    pub(super) delayed: bool,
}

#[derive(Debug)]
pub(super) struct Sent {
    pub(super) id: String,
    pub(super) act: Act,
    pub(super) session: u32,
    /// The server has said that it handled it.
    pub(super) accepted: bool,
}

enum Phase {
    Offline,
    Negotiating(Box<Initiator>),
    Online(StreamPrefixes),
}

/// A device.
pub(super) struct Device {
    pub(super) account: BareJid,
    resource: String,
    phase: Phase,
    framer: Framer,
    /// Which socket it is on, from 1.
    pub(super) socket: u32,
    pub(super) script: VecDeque<Act>,
    pub(super) log: Log,
    /// Which session it is in, from 1.
    session: u32,
    management: Option<Management>,
    /// What was sent after `<enable/>` and before `<enabled/>`: it counts.
    early: VecDeque<(Option<usize>, Vec<u8>)>,
    /// The session has just been bound.
    fresh: bool,
    /// Whether it asks for XEP-0198 at all.
    manages: bool,
    /// Of one that does as it is told and nothing else.
    told: Option<Told>,
}

/// A device of a conversation.
#[derive(Debug, Default)]
struct Told {
    /// It is to be connected.
    comes: bool,
    /// What it has heard and nobody has taken.
    heard: VecDeque<Element>,
}

/// XEP-0198 as a client keeps it.
struct Management {
    id: Option<Box<str>>,
    handled: sm::Counter,
    acknowledged: sm::Counter,
    /// What was sent and not acknowledged: the index in the log, if it is there, and the bytes.
    unacknowledged: VecDeque<(Option<usize>, Vec<u8>)>,
}

/// What a device wants done.
pub(super) enum Wish {
    Send(Vec<u8>),
    /// Its socket is to be closed.
    HangUp,
}

/// The keys of everybody's password, derived once.
pub(super) fn keys() -> &'static ClientKeys {
    static KEYS: OnceLock<ClientKeys> = OnceLock::new();
    KEYS.get_or_init(|| {
        ClientKeys::derive(ScramHash::Sha1, &password(), b"salt of everybody", 4096).expect("proper keys")
    })
}

fn password() -> Password {
    Password::new("wherefore").expect("a proper password")
}

impl Device {
    pub(super) fn new(jid: &str, manages: bool, script: Vec<Act>) -> Self {
        let jid = Jid::parse(jid).expect("a proper address");
        Self {
            account: jid.to_bare(),
            resource: jid.resource().expect("a device has a resource").to_owned(),
            phase: Phase::Offline,
            framer: Framer::new(),
            socket: 0,
            script: script.into(),
            log: Log::default(),
            session: 0,
            management: None,
            early: VecDeque::new(),
            fresh: false,
            manages,
            told: None,
        }
    }

    /// A device that does as it is told.
    pub(super) fn told(jid: &FullJid) -> Self {
        Self {
            told: Some(Told::default()),
            ..Self::new(jid.as_str(), false, Vec::new())
        }
    }

    pub(super) fn resource(&self) -> &str {
        &self.resource
    }

    pub(super) fn full(&self) -> FullJid {
        self.account.with_resource(&self.resource).expect("a proper resource")
    }

    /// It is told to connect.
    pub(super) fn comes(&mut self, how: How) {
        self.manages = how != How::Unmanaged;
        if how != How::Resuming {
            self.management = None;
        }
        self.told.get_or_insert_default().comes = true;
    }

    /// Whether it wants a socket.
    pub(super) fn wants_socket(&self) -> bool {
        self.is_offline() && self.told.as_ref().is_none_or(|told| told.comes)
    }

    /// It is told to say this.
    pub(super) fn say(&mut self, element: &Element, wishes: &mut Vec<Wish>) {
        let mut text = String::new();
        element.write_str(&mut text, CLIENT);
        if element.ns() == CLIENT {
            self.send_bytes(text.into_bytes(), None, wishes);
        } else {
            wishes.push(Wish::Send(text.into_bytes()));
        }
    }

    pub(super) fn heard(&mut self) -> &mut VecDeque<Element> {
        &mut self.told.get_or_insert_default().heard
    }

    pub(super) fn has_heard(&self) -> bool {
        self.told.as_ref().is_some_and(|told| !told.heard.is_empty())
    }

    pub(super) fn is_offline(&self) -> bool {
        matches!(self.phase, Phase::Offline)
    }

    pub(super) fn is_online(&self) -> bool {
        matches!(self.phase, Phase::Online(_))
    }

    /// Whether everything it sent is known to be handled.
    pub(super) fn is_settled(&self) -> bool {
        self.management
            .as_ref()
            .is_none_or(|management| management.unacknowledged.is_empty())
    }

    /// Opens a new socket.
    pub(super) fn connect(&mut self) -> Vec<u8> {
        self.socket += 1;
        if let Some(told) = &mut self.told {
            told.comes = false;
        }
        self.framer = Framer::new();
        self.early.clear();
        let mut config = InitiatorConfig::new(self.account.clone(), Secret::new(password()).with_keys(keys().clone()));
        config.resource = Some(self.resource.clone());
        config.tls = TlsDemand::Never;
        config.mechanisms = vec![Mechanism::scram(ScramHash::Sha1)];
        config.management = self.manages.then_some(sm::Enable {
            resume: true,
            max_seconds: None,
        });
        config.resume = self.management.as_ref().and_then(|management| {
            let previd = management.id.clone()?;
            Some(sm::Resume {
                previd,
                h: management.handled,
            })
        });
        let initiator = Initiator::new(config, None);
        let opening = initiator.start();
        self.phase = Phase::Negotiating(Box::new(initiator));
        opening
    }

    /// Its socket is gone.
    pub(super) fn cut(&mut self) {
        self.phase = Phase::Offline;
    }

    /// Bytes come from its edge.
    pub(super) fn receive(&mut self, bytes: &[u8], seed: &mut Seed) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let mut input = bytes;
        while !input.is_empty() {
            match self.framer.next(&mut input, &Limits::trusted()) {
                Ok(Some(frame)) => self.frame(frame, seed, &mut wishes),
                Ok(None) => {}
                Err(error) => panic!("the broker sent what is not XML: {error}"),
            }
        }
        wishes
    }

    fn frame(&mut self, frame: Frame, seed: &mut Seed, wishes: &mut Vec<Wish>) {
        match &mut self.phase {
            Phase::Offline => {}
            Phase::Negotiating(initiator) => {
                for output in initiator.frame(frame, seed) {
                    self.negotiated(output, wishes);
                }
            }
            Phase::Online(prefixes) => match frame {
                Frame::Element(bytes) => {
                    let parsed = Stanza::parse(bytes, &Limits::trusted(), prefixes).expect("the broker sends stanzas");
                    self.element(parsed, wishes);
                }
                Frame::Close | Frame::Open(_) => {
                    self.cut();
                    wishes.push(Wish::HangUp);
                }
            },
        }
    }

    fn negotiated(&mut self, output: InitiatorOutput, wishes: &mut Vec<Wish>) {
        match output {
            InitiatorOutput::Send(bytes) => wishes.push(Wish::Send(bytes)),
            InitiatorOutput::Restart => self.framer.restart(),
            InitiatorOutput::Resumed(resumed) => {
                self.log.resumed += 1;
                self.fresh = false;
                self.acknowledged(resumed.h);
            }
            InitiatorOutput::NotResumed(_) => {
                self.log.rebound += 1;
                self.management = None;
            }
            InitiatorOutput::Bound(_) => {
                self.session += 1;
                self.fresh = true;
            }
            InitiatorOutput::Enabled(enabled) => {
                self.management = Some(Management {
                    id: enabled.id,
                    handled: sm::Counter::ZERO,
                    acknowledged: sm::Counter::ZERO,
                    unacknowledged: std::mem::take(&mut self.early),
                });
            }
            InitiatorOutput::Stanza(bytes) => {
                let parsed = Stanza::parse(bytes, &Limits::trusted(), &StreamPrefixes::client());
                self.uncounted(parsed.expect("the broker sends stanzas"), wishes);
            }
            InitiatorOutput::Established { prefixes } => {
                self.phase = Phase::Online(prefixes);
                self.begin(wishes);
            }
            InitiatorOutput::Failed(_) => {
                self.cut();
                wishes.push(Wish::HangUp);
            }
            InitiatorOutput::StartTls => panic!("nobody wants TLS here"),
            InitiatorOutput::Authenticated { .. } | InitiatorOutput::Features(_) | InitiatorOutput::NotEnabled(_) => {}
        }
    }

    /// A session begins, or goes on: what was not acknowledged is sent again, a new one says that it is available.
    fn begin(&mut self, wishes: &mut Vec<Wish>) {
        let again = self
            .management
            .as_ref()
            .map(|management| management.unacknowledged.clone())
            .unwrap_or_default();
        if !self.fresh {
            wishes.extend(again.into_iter().map(|(_, bytes)| Wish::Send(bytes)));
            self.ask(wishes);
            return;
        }
        if self.told.is_some() {
            return;
        }
        self.send(&Stanza::new(Kind::Presence(PresenceType::Available), []), None, wishes);
    }

    fn element(&mut self, parsed: Parsed, wishes: &mut Vec<Wish>) {
        if let Parsed::Stanza(_) = &parsed
            && let Some(management) = &mut self.management
        {
            management.handled = management.handled.plus(1);
        }
        self.uncounted(parsed, wishes);
    }

    fn uncounted(&mut self, parsed: Parsed, wishes: &mut Vec<Wish>) {
        match parsed {
            Parsed::Stanza(stanza) | Parsed::Refused { head: stanza, .. } if self.told.is_some() => {
                let element = stanza.root_element().expect("the broker sends stanzas");
                self.heard().push_back(element);
            }
            Parsed::Stanza(stanza) => self.stanza(&stanza, wishes),
            Parsed::Other(element) => match Nonza::parse(&element) {
                Some(Ok(Nonza::Request)) => {
                    let h = self
                        .management
                        .as_ref()
                        .map_or(sm::Counter::ZERO, |management| management.handled);
                    wishes.push(Wish::Send(Nonza::Ack(sm::Ack { h }).to_bytes()));
                }
                Some(Ok(Nonza::Ack(ack))) => self.acknowledged(ack.h),
                _ if element.name() == "error" => {
                    if self.told.is_some() {
                        self.heard().push_back(element);
                    }
                }
                other => panic!("the broker sent {other:?}"),
            },
            Parsed::Refused { error, .. } => panic!("the broker sent a stanza that is refused: {error:?}"),
        }
    }

    fn stanza(&mut self, stanza: &Stanza, wishes: &mut Vec<Wish>) {
        let id = stanza.id.as_deref().unwrap_or_default().to_owned();
        match stanza.kind {
            Kind::Message(MessageType::Error) | Kind::Iq(IqType::Error) => self.log.answered.push((id, false)),
            Kind::Iq(IqType::Result) => self.log.answered.push((id, true)),
            Kind::Message(_) => {
                let root = stanza.root_element().expect("the broker sends stanzas");
                let delayed = root.child("delay", "urn:xmpp:delay").is_some();
                self.log.received.push(Received { id, delayed });
            }
            Kind::Iq(_) => self.send(&stanza.result(None), None, wishes),
            Kind::Presence(_) => {}
        }
    }

    /// The server has handled so many of what this session sent.
    fn acknowledged(&mut self, h: sm::Counter) {
        let Some(management) = &mut self.management else { return };
        for _ in 0..h.since(management.acknowledged) {
            let (index, _) = management
                .unacknowledged
                .pop_front()
                .expect("the broker counts what was sent and no more");
            if let Some(sent) = index.and_then(|index| self.log.sent.get_mut(index)) {
                sent.accepted = true;
            }
        }
        management.acknowledged = h;
    }

    /// Does the next thing of the script.
    pub(super) fn act(&mut self, wishes: &mut Vec<Wish>) {
        let Some(act) = self.script.pop_front() else { return };
        let id = format!("{}-{}", self.account.local().unwrap_or_default(), self.log.sent.len());
        let stanza = match &act {
            Act::Message { to } => {
                let body = Element::new("body", CLIENT).with_text(id.clone());
                Stanza::new(Kind::Message(MessageType::Chat), [&body])
                    .with_to(to.clone())
                    .with_id(id.clone())
            }
            Act::ChatState { to } => {
                let state = Element::new("composing", "http://jabber.org/protocol/chatstates");
                Stanza::new(Kind::Message(MessageType::Chat), [&state])
                    .with_to(to.clone())
                    .with_id(id.clone())
            }
            Act::Active(active) => {
                let name = if *active { "active" } else { "inactive" };
                wishes.push(Wish::Send(Element::new(name, csi::NS).to_bytes().to_vec()));
                return;
            }
            Act::Count { to } => {
                let count = Element::new("count", counter::NS);
                let mut stanza = Stanza::iq(IqType::Set, id.clone(), Some(&count));
                stanza.to.clone_from(to);
                stanza
            }
            Act::Ping { to } => {
                let ping = Element::new("ping", crate::xep::ping::NS);
                Stanza::iq(IqType::Get, id.clone(), Some(&ping)).with_to(to.clone())
            }
            Act::Available(available) => {
                let kind = if *available {
                    PresenceType::Available
                } else {
                    PresenceType::Unavailable
                };
                Stanza::new(Kind::Presence(kind), [])
            }
            Act::Cut => {
                self.cut();
                wishes.push(Wish::HangUp);
                return;
            }
        };
        self.log.sent.push(Sent {
            id,
            act,
            session: self.session,
            accepted: false,
        });
        let index = self.log.sent.len() - 1;
        self.send(&stanza, Some(index), wishes);
    }

    fn send(&mut self, stanza: &Stanza, index: Option<usize>, wishes: &mut Vec<Wish>) {
        let mut bytes = Vec::new();
        stanza.write(&mut bytes);
        self.send_bytes(bytes, index, wishes);
    }

    fn send_bytes(&mut self, bytes: Vec<u8>, index: Option<usize>, wishes: &mut Vec<Wish>) {
        match &mut self.management {
            Some(management) => management.unacknowledged.push_back((index, bytes.clone())),
            None if self.manages => self.early.push_back((index, bytes.clone())),
            None => {}
        }
        wishes.push(Wish::Send(bytes));
        self.ask(wishes);
    }

    fn ask(&self, wishes: &mut Vec<Wish>) {
        if self.management.is_some() {
            wishes.push(Wish::Send(Nonza::Request.to_bytes()));
        }
    }
}

impl Device {
    /// The session it is in now.
    pub(super) fn last_session(&self) -> u32 {
        self.session
    }
}
