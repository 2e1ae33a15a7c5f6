//! A device of a simulation: logs in at any edge, says what chance wants, manages its stream (XEP-0198), comes back when its connection is
//! lost, and says again what was not acknowledged. What it sees goes into the history.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use heronry_cluster::transport::Net as _;
use heronry_loadtest::history::{Event, History, Returned, What};
use heronry_xmpp::{
    jid::{BareJid, Jid},
    random::Random,
    sasl::{ClientKeys, Mechanism, Password, ScramHash, Secret},
    stanza::{IqType, Kind, MessageType, Parsed, PresenceType, Stanza},
    stream::{Initiator, InitiatorConfig, InitiatorOutput, TlsDemand},
    xep::{
        private_xml,
        sm::{self, Nonza},
    },
    xml::{CLIENT, Element, Frame, Framer, Limits, StreamPrefixes},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep_until, timeout},
};

use super::{
    host::C2S_PORT,
    net::{End, HostId, Plug, address},
};

/// How long a device waits for an answer before it takes the connection for lost.
const PATIENCE: Duration = Duration::from_secs(8);

/// The namespace of rows that devices write.
const ROW: &str = "urn:heronry:simulation";

/// What devices share.
pub(super) struct Devices {
    pub(super) history: Mutex<History>,
    /// Milliseconds since the simulation began.
    pub(super) now: AtomicU64,
    /// Nothing new is said, and nobody goes.
    pub(super) calm: AtomicBool,
    /// Writes what devices do to the standard output.
    pub(super) aloud: bool,
}

impl Devices {
    pub(super) fn record(&self, by: &str, what: What) {
        let now = self.now.load(Ordering::Acquire);
        if self.aloud {
            println!("{now:6} {by} {what:?}");
        }
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.push(Event {
            at: now * 1000,
            by: by.to_owned(),
            what,
        });
    }

    fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Acquire)
    }
}

/// The keys of everybody's password, derived once.
pub(super) fn keys() -> &'static ClientKeys {
    static KEYS: OnceLock<ClientKeys> = OnceLock::new();
    KEYS.get_or_init(|| {
        ClientKeys::derive(ScramHash::Sha256, &password(), b"salt of everybody", 4096).expect("proper keys")
    })
}

fn password() -> Password {
    Password::new("wherefore").expect("a proper password")
}

/// Who a device is.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) account: BareJid,
    pub(super) resource: String,
    /// Whom it talks to; nobody: it reads and writes a row of its account instead, which others of its account do too.
    pub(super) friends: Vec<BareJid>,
    /// For how long its session is to wait for it, seconds.
    pub(super) resume_seconds: u32,
}

/// A device.
pub(super) struct Device {
    name: String,
    identity: Identity,
    edges: Vec<HostId>,
    plug: Plug,
    random: fastrand::Rng,
    devices: Arc<Devices>,
    /// It is connected and nothing it said is under way.
    settled: Arc<AtomicBool>,
    sessions: u32,
    /// What it calls the session it is in.
    session: String,
    management: Option<Management>,
    /// What it has to say again in its next session.
    again: Vec<Message>,
    /// Calls without an answer, by the id of their stanza: whether they write.
    calls: BTreeMap<String, bool>,
    said: u32,
}

/// XEP-0198 as a client keeps it.
struct Management {
    id: Option<Box<str>>,
    handled: sm::Counter,
    acknowledged: sm::Counter,
    unacknowledged: VecDeque<(Option<Message>, Vec<u8>)>,
}

#[derive(Clone)]
struct Message {
    id: String,
    to: Jid,
}

impl Message {
    fn body(&self) -> String {
        format!("<text> of {} & nothing else", self.id)
    }
}

/// Why a connection is over.
enum Over {
    /// It was lost, or the device has dropped it.
    Lost,
    /// The device has gone, with a word.
    Gone,
}

/// A connection.
struct Live {
    stream: End,
    framer: Framer,
    phase: Phase,
    heard: Instant,
}

enum Phase {
    Negotiating(Box<Initiator>),
    Online(StreamPrefixes),
}

/// Randomness for `xmpp`.
struct Draw<'a>(&'a mut fastrand::Rng);

impl Random for Draw<'_> {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

impl Device {
    pub(super) fn new(
        identity: Identity,
        edges: Vec<HostId>,
        plug: Plug,
        random: fastrand::Rng,
        devices: Arc<Devices>,
    ) -> (Self, Arc<AtomicBool>) {
        let settled = Arc::new(AtomicBool::new(false));
        let device = Self {
            name: format!("{}/{}", identity.account, identity.resource),
            identity,
            edges,
            plug,
            random,
            devices,
            settled: Arc::clone(&settled),
            sessions: 0,
            session: String::new(),
            management: None,
            again: Vec::new(),
            calls: BTreeMap::new(),
            said: 0,
        };
        (device, settled)
    }

    /// Lives for ever.
    pub(super) async fn run(mut self) {
        loop {
            let edge = self.edges[self.random.usize(..self.edges.len())];
            let edge = address(edge, C2S_PORT).to_string();
            let away = match timeout(PATIENCE, self.plug.dial(&edge)).await {
                Ok(Ok(stream)) => match self.live(stream).await {
                    Over::Lost => self.random.u64(20..1000),
                    Over::Gone => self.random.u64(500..6000),
                },
                Ok(Err(_)) | Err(_) => self.random.u64(100..500),
            };
            self.settled.store(false, Ordering::Release);
            tokio::time::sleep(Duration::from_millis(away)).await;
        }
    }

    async fn live(&mut self, stream: End) -> Over {
        let initiator = Initiator::new(self.config(), None);
        let opening = initiator.start();
        let mut live = Live {
            stream,
            framer: Framer::new(),
            phase: Phase::Negotiating(Box::new(initiator)),
            heard: Instant::now(),
        };
        if live.write(&opening).await.is_err() {
            return Over::Lost;
        }
        let mut next = Instant::now() + Duration::from_millis(50);
        let mut buffer = BytesMut::new();
        loop {
            let mut out = Vec::new();
            let over = tokio::select! {
                biased;
                read = live.stream.read_buf(&mut buffer) => match read {
                    Ok(0) | Err(_) => Some(Over::Lost),
                    Ok(_) => {
                        live.heard = Instant::now();
                        self.heard(&mut live, &mut buffer, &mut out)
                    }
                },
                () = sleep_until(next) => {
                    next = Instant::now() + Duration::from_millis(self.random.u64(20..700));
                    self.act(&live, &mut out)
                }
            };
            if !out.is_empty() && live.write(&out).await.is_err() {
                return Over::Lost;
            }
            if let Some(over) = over {
                if let Over::Gone = over {
                    let _ = live.stream.shutdown().await;
                    self.ends();
                }
                return over;
            }
            self.settled.store(self.is_settled(&live), Ordering::Release);
        }
    }

    fn is_settled(&self, live: &Live) -> bool {
        let unacknowledged = self.management.as_ref().is_none_or(|it| it.unacknowledged.is_empty());
        matches!(live.phase, Phase::Online(_)) && unacknowledged && self.again.is_empty() && self.calls.is_empty()
    }

    fn config(&self) -> InitiatorConfig {
        let secret = Secret::new(password()).with_keys(keys().clone());
        let mut config = InitiatorConfig::new(self.identity.account.clone(), secret);
        config.resource = Some(self.identity.resource.clone());
        config.tls = TlsDemand::Never;
        config.mechanisms = vec![Mechanism::scram(ScramHash::Sha256)];
        config.management = Some(sm::Enable {
            resume: true,
            max_seconds: Some(self.identity.resume_seconds),
        });
        config.resume = self.management.as_ref().and_then(|management| {
            Some(sm::Resume {
                previd: management.id.clone()?,
                h: management.handled,
            })
        });
        config
    }

    /// Its session is over, as far as it knows: what was not acknowledged is said again in the next.
    fn ends(&mut self) {
        if let Some(management) = self.management.take() {
            let unsaid = std::mem::take(&mut self.again);
            let unacknowledged = management.unacknowledged.into_iter().filter_map(|(message, _)| message);
            self.again = unacknowledged.chain(unsaid).collect();
        }
        self.calls.clear();
    }

    fn heard(&mut self, live: &mut Live, buffer: &mut BytesMut, out: &mut Vec<u8>) -> Option<Over> {
        let bytes = buffer.split().freeze();
        let mut input = &bytes[..];
        while !input.is_empty() {
            match live.framer.next(&mut input, &Limits::trusted()) {
                Ok(Some(frame)) => {
                    if let Some(over) = self.frame(live, frame, out) {
                        return Some(over);
                    }
                }
                Ok(None) => {}
                Err(error) => panic!("{} was sent what is not XML: {error}", self.name),
            }
        }
        None
    }

    fn frame(&mut self, live: &mut Live, frame: Frame, out: &mut Vec<u8>) -> Option<Over> {
        match &mut live.phase {
            Phase::Negotiating(initiator) => {
                let outputs = initiator.frame(frame, &mut Draw(&mut self.random));
                for output in outputs {
                    if self.negotiated(live, output, out) {
                        return Some(Over::Lost);
                    }
                }
                None
            }
            Phase::Online(prefixes) => match frame {
                Frame::Element(bytes) => {
                    let parsed = Stanza::parse(bytes, &Limits::trusted(), prefixes).expect("stanzas");
                    self.element(parsed, out);
                    None
                }
                Frame::Close | Frame::Open(_) => Some(Over::Lost),
            },
        }
    }

    /// Says whether the connection is over.
    fn negotiated(&mut self, live: &mut Live, output: InitiatorOutput, out: &mut Vec<u8>) -> bool {
        match output {
            InitiatorOutput::Send(bytes) => out.extend(bytes),
            InitiatorOutput::Restart => live.framer.restart(),
            InitiatorOutput::Resumed(resumed) => {
                self.acknowledged(resumed.h);
                let management = self.management.as_ref();
                let again = management.into_iter().flat_map(|management| &management.unacknowledged);
                again.for_each(|(_, bytes)| out.extend(bytes));
            }
            InitiatorOutput::NotResumed(failed) => {
                if let Some(h) = failed.h {
                    self.acknowledged(h);
                }
                self.ends();
            }
            InitiatorOutput::Bound(_) => {
                self.ends();
                self.sessions += 1;
                self.session = format!("{}#{}", self.name, self.sessions);
            }
            InitiatorOutput::Enabled(enabled) => {
                self.management = Some(Management {
                    id: enabled.id,
                    handled: sm::Counter::ZERO,
                    acknowledged: sm::Counter::ZERO,
                    unacknowledged: VecDeque::new(),
                });
                if !self.identity.friends.is_empty() {
                    self.say(&Stanza::new(Kind::Presence(PresenceType::Available), []), None, out);
                }
                for message in std::mem::take(&mut self.again) {
                    self.send(message, out);
                }
            }
            InitiatorOutput::Stanza(bytes) => {
                let parsed = Stanza::parse(bytes, &Limits::trusted(), &StreamPrefixes::client());
                self.uncounted(parsed.expect("stanzas"), out);
            }
            InitiatorOutput::Established { prefixes } => {
                live.phase = Phase::Online(prefixes);
                out.extend(Nonza::Request.to_bytes());
            }
            InitiatorOutput::Failed(_) => return true,
            InitiatorOutput::NotEnabled(_) => panic!("{} cannot manage its stream", self.name),
            InitiatorOutput::StartTls => panic!("nobody wants TLS here"),
            InitiatorOutput::Authenticated { .. } | InitiatorOutput::Features(_) => {}
        }
        false
    }

    fn element(&mut self, parsed: Parsed, out: &mut Vec<u8>) {
        if let (Parsed::Stanza(_), Some(management)) = (&parsed, &mut self.management) {
            management.handled = management.handled.plus(1);
        }
        self.uncounted(parsed, out);
    }

    fn uncounted(&mut self, parsed: Parsed, out: &mut Vec<u8>) {
        match parsed {
            Parsed::Stanza(stanza) => self.stanza(&stanza, out),
            Parsed::Other(element) => match Nonza::parse(&element) {
                Some(Ok(Nonza::Request)) => {
                    let handled = self.management.as_ref().map(|management| management.handled);
                    let h = handled.unwrap_or(sm::Counter::ZERO);
                    out.extend(Nonza::Ack(sm::Ack { h }).to_bytes());
                }
                Some(Ok(Nonza::Ack(ack))) => self.acknowledged(ack.h),
                // The end of the stream follows.
                _ if element.name() == "error" => {}
                other => panic!("{} was sent {other:?}", self.name),
            },
            Parsed::Refused { error, .. } => panic!("{} was sent a stanza that is refused: {error:?}", self.name),
        }
    }

    fn stanza(&mut self, stanza: &Stanza, out: &mut Vec<u8>) {
        let id = stanza.id.as_deref().unwrap_or_default().to_owned();
        match stanza.kind {
            Kind::Message(MessageType::Error) => {
                let condition = stanza.stanza_error().map(|error| format!("{:?}", error.condition));
                let condition = condition.unwrap_or_default();
                self.devices.record(&self.name, What::Refused { id, condition });
            }
            Kind::Message(_) => {
                let root = stanza.root_element().expect("stanzas");
                let body = root.child("body", CLIENT).map(Element::text).unwrap_or_default();
                let what = What::Delivered {
                    session: self.session.clone(),
                    from: stanza.from.as_ref().map(Jid::to_string).unwrap_or_default(),
                    id,
                    body,
                };
                self.devices.record(&self.name, what);
            }
            Kind::Iq(IqType::Result) => {
                let payload = stanza.payload_element().ok();
                let row = payload.and_then(|query| query.child("row", ROW).map(Element::text));
                match self.calls.remove(&id) {
                    None => {}
                    Some(true) => self.returned(id, Returned::Wrote),
                    Some(false) => self.returned(id, Returned::Read(row.filter(|value| !value.is_empty()))),
                }
            }
            Kind::Iq(IqType::Error) => {
                if self.calls.remove(&id).is_some() {
                    self.returned(id, Returned::Failed);
                }
            }
            Kind::Iq(_) => {
                let result = stanza.result(None);
                self.say(&result, None, out);
            }
            Kind::Presence(_) => {}
        }
    }

    fn returned(&self, call: String, returned: Returned) {
        self.devices.record(&self.name, What::Returned { call, returned });
    }

    /// The server has handled so many of what this session sent.
    fn acknowledged(&mut self, h: sm::Counter) {
        let Some(management) = &mut self.management else { return };
        for _ in 0..h.since(management.acknowledged) {
            let Some((message, _)) = management.unacknowledged.pop_front() else {
                panic!("{} was acknowledged more than it had sent", self.name);
            };
            if let Some(Message { id, .. }) = message {
                self.devices.record(&self.name, What::Acknowledged { id });
            }
        }
        management.acknowledged = h;
    }

    /// Does whatever comes next.
    fn act(&mut self, live: &Live, out: &mut Vec<u8>) -> Option<Over> {
        let unsettled = !self.is_settled(live);
        if unsettled && live.heard.elapsed() > PATIENCE {
            return Some(Over::Lost);
        }
        if !matches!(live.phase, Phase::Online(_)) {
            return None;
        }
        if self.devices.is_calm() {
            if unsettled {
                out.extend(Nonza::Request.to_bytes());
            }
            return None;
        }
        match self.random.u32(..100) {
            0..5 => return Some(Over::Lost),
            5..8 => {
                out.extend(b"</stream:stream>");
                return Some(Over::Gone);
            }
            8..20 => out.extend(Nonza::Request.to_bytes()),
            _ if self.identity.friends.is_empty() => self.call(out),
            _ => {
                for _ in 0..self.random.u32(1..4) {
                    let message = self.message();
                    self.send(message, out);
                }
            }
        }
        None
    }

    fn name_next(&mut self) -> String {
        self.said += 1;
        format!(
            "{}-{}-{}",
            self.identity.account.local().unwrap_or_default(),
            self.identity.resource,
            self.said
        )
    }

    fn message(&mut self) -> Message {
        let friends = &self.identity.friends;
        let friend = friends[self.random.usize(..friends.len())].clone();
        Message {
            id: self.name_next(),
            to: friend.into(),
        }
    }

    fn send(&mut self, message: Message, out: &mut Vec<u8>) {
        let what = What::Sent {
            session: self.session.clone(),
            to: message.to.to_string(),
            id: message.id.clone(),
            body: message.body(),
        };
        self.devices.record(&self.name, what);
        let body = Element::new("body", CLIENT).with_text(message.body());
        let stanza = Stanza::new(Kind::Message(MessageType::Chat), [&body])
            .with_to(message.to.clone())
            .with_id(message.id.clone());
        self.say(&stanza, Some(message), out);
    }

    /// Reads or writes its account's row.
    fn call(&mut self, out: &mut Vec<u8>) {
        if self.calls.len() >= 3 {
            return;
        }
        let call = self.name_next();
        let writes = self.random.bool().then(|| call.clone());
        let row = Element::new("row", ROW).with_text(writes.clone().unwrap_or_default());
        let query = Element::new("query", private_xml::NS).with_child(row);
        let kind = if writes.is_some() { IqType::Set } else { IqType::Get };
        self.calls.insert(call.clone(), writes.is_some());
        let what = What::Called {
            call: call.clone(),
            row: self.identity.account.to_string(),
            writes,
        };
        self.devices.record(&self.name, what);
        self.say(&Stanza::iq(kind, call, Some(&query)), None, out);
    }

    fn say(&mut self, stanza: &Stanza, message: Option<Message>, out: &mut Vec<u8>) {
        let mut bytes = Vec::new();
        stanza.write(&mut bytes);
        out.extend(&bytes);
        if let Some(management) = &mut self.management {
            management.unacknowledged.push_back((message, bytes));
            out.extend(Nonza::Request.to_bytes());
        }
    }
}

impl Live {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), ()> {
        match timeout(PATIENCE, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(()),
        }
    }
}
