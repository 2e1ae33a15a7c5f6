//! The task that owns a session: it alone reads and writes the connection, counts stanzas, and knows who waits for what.
//!
//! [`Driver::run`] goes back and forth between two states: [`live`](Driver::live) with a connection, and
//! [`reconnected`](Driver::reconnected) without.

mod contacts;
mod live;
mod reconnecting;

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use heronry_xmpp::{
    sasl::Secret,
    stanza::{IqType, Kind, Parsed, Stanza},
    stream::StreamError,
    xep::sm::{Counter, HandledCountTooHigh, NS as SM, Nonza},
    xml::{Element, Frame, XmlError},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;

use self::{
    contacts::{Contacts, RosterLoaded},
    live::{Live, Progress, ask, hand_over, say_goodbye, write, write_acknowledgement, write_some},
};
use crate::{
    Receipts,
    acknowledgement::{Acknowledgements, Origin, Sent},
    answers::answer,
    client::Shared,
    connecting::{Encryption, HostPort},
    connection::{Connection, Session},
    error::{ConnectError, Disconnect},
    event::{Event, Resumption},
    receiving::{Incoming, Receiving},
    requests::{Reply, Requests},
};

/// How long an orderly end may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 8 * 1024;

/// What handles ask of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    Send {
        stanza: Stanza,
        accepted: oneshot::Sender<()>,
    },
    Request {
        stanza: Stanza,
        reply: Reply,
    },
    Flush {
        done: oneshot::Sender<()>,
    },
    Resume {
        outcome: oneshot::Sender<Result<Resumption, ConnectError>>,
    },
    /// There may be messages to deliver.
    Look,
    /// Says our presence, now and, if so wanted, in every session that follows.
    Announce {
        stanza: Stanza,
        again: bool,
        accepted: oneshot::Sender<()>,
    },
    LoadRoster {
        done: oneshot::Sender<RosterLoaded>,
    },
}

pub(crate) struct Driver {
    shared: Arc<Shared>,
    /// With the keys of the last authentication, so that the next one is cheap.
    secret: Secret,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    session: Session,
    acknowledgements: Acknowledgements,
    requests: Requests,
    /// Who waits until how many more stanzas are acknowledged, ascending; without stream management, until all is written.
    flushes: VecDeque<(usize, oneshot::Sender<()>)>,
    /// Where the server has sent us (`see-other-host`), until there is a connection again.
    redirected: Option<(HostPort, Encryption)>,
    receiving: Receiving,
    contacts: Contacts,
    /// The session is new, and what every session begins with is not said yet.
    begins: bool,
}

/// Why a connection is not read and written any more.
#[derive(Debug)]
enum End {
    /// Handles are gone or one was closed.
    Closing,
    Lost(Disconnect),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(Disconnect::Lost(error.kind()))
    }
}

/// What a turn of the loop waited for.
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack of the loop")]
enum Happened<'a> {
    /// The application takes the waiting event, or does not listen any more.
    EventTaken(Option<mpsc::Permit<'a, Event>>),
    Read(usize),
    Wrote(Progress),
    Asked(Option<Command>),
    Silence,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        secret: Secret,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
        session: Session,
    ) -> Self {
        Self {
            receiving: Receiving::new(&shared.options),
            contacts: Contacts::default(),
            begins: false,
            shared,
            secret,
            commands,
            events,
            session,
            acknowledgements: Acknowledgements::default(),
            requests: Requests::default(),
            flushes: VecDeque::new(),
            redirected: None,
        }
    }

    /// Runs until the client is closed.
    pub(crate) async fn run(mut self, connection: Connection) {
        self.run_until_closed(connection).await;
        // The courier first: who hears of the end by another way asks it.
        if let Some(courier) = self.shared.courier.get() {
            courier.close();
        }
        if let Some(roster) = self.shared.roster.get() {
            roster.close();
        }
        if let Some(presence) = self.shared.presence.get() {
            presence.close();
        }
    }

    async fn run_until_closed(&mut self, connection: Connection) {
        let mut connection = connection;
        loop {
            let encryption = connection.encryption;
            match self.live(connection).await {
                End::Closing => return,
                End::Lost(reason) => match self.reconnected(reason, encryption).await {
                    Some(next) => connection = next,
                    None => return,
                },
            }
        }
    }

    async fn live(&mut self, mut connection: Connection) -> End {
        let mut live = Live::new(&mut connection);
        // XEP-0198 §5: after resumption what the server has not received is sent again; a new session has none of it.
        self.acknowledgements
            .unacknowledged()
            .for_each(|stanza| write(stanza, &mut live.output));
        if std::mem::take(&mut self.begins) {
            self.begin_session(&mut live);
        }
        match self.exchange(&mut connection, &mut live).await {
            Ok(()) => {
                self.close(connection, live).await;
                End::Closing
            }
            Err(End::Lost(reason)) => {
                say_goodbye(connection, &reason).await;
                // What was read and not counted the server sends again; but nobody counts without stream management.
                if self.session.management.is_none()
                    && let Some(received) = live.event
                {
                    if self.tell(received.event).await.is_none() {
                        return End::Closing;
                    }
                    // There is no way to send a receipt; who wants one sends the message again.
                    let _ = self.receiving.taken(received.taken);
                }
                End::Lost(reason)
            }
            Err(End::Closing) => End::Closing,
        }
    }

    /// Reads and writes until the client is closed (`Ok`) or the connection is lost.
    async fn exchange(&mut self, connection: &mut Connection, live: &mut Live) -> Result<(), End> {
        let shared = self.shared.clone();
        let (options, closing, events) = (&shared.options, &shared.closing, self.events.clone());
        let output_max = options.limits.stanza_bytes_max;
        loop {
            self.take_frames(connection, live)?;
            self.send_deliveries(live);
            self.ask_for_acknowledgement(live);
            let room = self.has_room(live);
            let due = match live.asked {
                Some(asked) => asked.max(live.heard) + options.ping_timeout,
                None => live.heard + options.ping_interval,
            };
            let may_read = live.event.is_none() && live.output.len() < output_max;
            let must_write = !live.output.is_empty() || live.unflushed;
            let Connection { reader, writer, .. } = &mut *connection;
            // All of these are cancel safe: what was not done is still to be done in the next turn.
            let happened = tokio::select! {
                () = closing.cancelled() => return Ok(()),
                permit = events.reserve(), if live.event.is_some() => Happened::EventTaken(permit.ok()),
                read = reader.read_buf(&mut live.input), if may_read => Happened::Read(read?),
                written = write_some(writer, &mut live.output), if must_write => Happened::Wrote(written?),
                command = self.commands.recv(), if room => Happened::Asked(command),
                // While an event waits nothing is read, so nothing can be heard either.
                () = sleep_until(due), if live.event.is_none() => Happened::Silence,
            };
            match happened {
                Happened::EventTaken(permit) => {
                    let (counted, taken) = hand_over(live.event.take(), permit);
                    self.count(counted);
                    if let Some(receipt) = taken.and_then(|taken| self.receiving.taken(taken)) {
                        self.send_receipt(receipt, live);
                    }
                    live.heard = Instant::now();
                }
                Happened::Read(0) => return Err(End::Lost(Disconnect::Lost(io::ErrorKind::UnexpectedEof))),
                Happened::Read(_) => self.heard(live),
                Happened::Wrote(Progress::Written) => live.unflushed = true,
                Happened::Wrote(Progress::Flushed) => self.flushed(live),
                Happened::Asked(Some(command)) => self.obey(command, live),
                Happened::Asked(None) => return Ok(()),
                Happened::Silence => self.ask_for_life(live)?,
            }
        }
    }

    /// Whether more may be sent.
    fn has_room(&self, live: &Live) -> bool {
        let limits = &self.shared.options.limits;
        live.output.len() < limits.stanza_bytes_max && self.acknowledgements.waiting() < limits.unacknowledged_max
    }

    /// Sends messages under way that are not sent in this session, or are to be sent again.
    fn send_deliveries(&mut self, live: &mut Live) {
        let shared = self.shared.clone();
        let Some(courier) = shared.courier.get() else { return };
        while self.has_room(live)
            && let Some(message) = courier.take_unsent()
        {
            self.receiving.sent(&message);
            self.send(message, Origin::Delivery, live);
        }
    }

    fn heard(&self, live: &mut Live) {
        live.heard = Instant::now();
        if self.session.management.is_none() {
            live.asked = None;
        }
    }

    fn flushed(&mut self, live: &mut Live) {
        live.unflushed = false;
        if self.session.management.is_none() {
            self.flushes.drain(..).for_each(finish);
        }
    }

    /// Takes frames out of what was read until an event must be handed over or more must be read.
    fn take_frames(&mut self, connection: &mut Connection, live: &mut Live) -> Result<(), End> {
        while live.event.is_none()
            && let Some(frame) = live.early.next()
        {
            let parsed = Stanza::parse(frame, &connection.limits, &connection.prefixes).map_err(broken)?;
            self.take(parsed, false, live)?;
        }
        while live.event.is_none() && !live.input.is_empty() {
            let mut input = &live.input[..];
            let frame = connection.framer.next(&mut input, &connection.limits);
            let left = input.len();
            live.input.advance(live.input.len() - left);
            match frame.map_err(broken)? {
                None => break,
                Some(Frame::Element(bytes)) => {
                    let parsed = Stanza::parse(bytes, &connection.limits, &connection.prefixes).map_err(broken)?;
                    self.take(parsed, true, live)?;
                }
                Some(Frame::Close) => return Err(End::Lost(Disconnect::Closed)),
                // The framer gives one only after a restart.
                Some(Frame::Open(_)) => return Err(End::Lost(Disconnect::Broken(StreamError::bad_format()))),
            }
        }
        if live.input.is_empty() && live.input.capacity() > READ_BYTES {
            live.input = BytesMut::new();
        }
        live.input.reserve(READ_BYTES);
        Ok(())
    }

    fn take(&mut self, parsed: Parsed, counted: bool, live: &mut Live) -> Result<(), End> {
        match parsed {
            Parsed::Stanza(stanza) => match stanza.kind {
                Kind::Message(_) => self.take_message(stanza, counted, live),
                Kind::Presence(_) => {
                    if let Some(presence) = self.shared.presence.get() {
                        presence.take(&stanza);
                    }
                    live.set_event(Event::Presence(stanza), counted);
                }
                Kind::Iq(asked) => {
                    self.count(counted);
                    if stanza.kind.is_request() {
                        self.answer(&stanza, asked, live);
                    } else if !self.take_roster(&stanza, live) {
                        self.requests.answer(stanza, &self.session.jid);
                    }
                }
            },
            // The server passed on what is no stanza. It counts, since the server counts it.
            Parsed::Refused { error, .. } => {
                debug!(%error, "malformed stanza from the server dropped");
                self.count(counted);
            }
            Parsed::Other(element) => self.take_other(&element, live)?,
        }
        Ok(())
    }

    fn take_message(&mut self, message: Stanza, counted: bool, live: &mut Live) {
        let courier = self.shared.courier.get().map(Arc::as_ref);
        match self.receiving.read(message, &self.session.jid, courier) {
            Incoming::Event(event, taken) => live.set_message(event, taken, counted),
            Incoming::Done => self.count(counted),
            Incoming::Again(receipt) => {
                self.count(counted);
                if let Some(receipt) = receipt {
                    self.send_receipt(receipt, live);
                }
            }
        }
    }

    fn answer(&mut self, request: &Stanza, asked: IqType, live: &mut Live) {
        let pushed = self.take_push(request, asked, live);
        let receipts = self.shared.options.receipts != Receipts::Never;
        if let Some(answer) = pushed.or_else(|| answer(request, asked, receipts)) {
            self.send_answer(answer, live);
        }
    }

    /// Acknowledgements must be read, so a server that only asks cannot be made to wait. It is not answered any more.
    fn send_answer(&mut self, answer: Stanza, live: &mut Live) {
        if self.acknowledgements.waiting() >= 2 * self.shared.options.limits.unacknowledged_max {
            debug!("requests of a server that acknowledges nothing are not answered");
            return;
        }
        self.send(answer, Origin::Answer, live);
    }

    fn take_other(&mut self, element: &Element, live: &mut Live) -> Result<(), End> {
        if let Some(error) = StreamError::parse(element) {
            return Err(End::Lost(Disconnect::Refused(error)));
        }
        if self.session.management.is_none() || element.ns() != SM {
            return Ok(());
        }
        match Nonza::parse(element) {
            Some(Ok(Nonza::Request)) => write_acknowledgement(self.acknowledgements.received(), live),
            Some(Ok(Nonza::Ack(ack))) => {
                live.asked = None;
                self.acknowledged(ack.h)
                    .map_err(|error| End::Lost(Disconnect::Broken(error.into())))?;
            }
            Some(Ok(_)) | None => {}
            Some(Err(_)) => return Err(End::Lost(Disconnect::Broken(StreamError::bad_format()))),
        }
        Ok(())
    }

    fn acknowledged(&mut self, h: Counter) -> Result<(), HandledCountTooHigh> {
        let courier = self.shared.courier.get();
        let newly = self.acknowledgements.acknowledge(h, |sent| {
            if sent.origin == Origin::Delivery
                && let (Some(courier), Some(id)) = (courier, &sent.stanza.id)
            {
                courier.acknowledged(id);
            }
        })?;
        for (missing, _) in &mut self.flushes {
            *missing = missing.saturating_sub(newly);
        }
        while self.flushes.front().is_some_and(|(missing, _)| *missing == 0) {
            self.flushes.pop_front().into_iter().for_each(finish);
        }
        Ok(())
    }

    fn count(&mut self, counted: bool) {
        if counted {
            self.acknowledgements.receive();
        }
    }

    fn obey(&mut self, command: Command, live: &mut Live) {
        match command {
            Command::Send { stanza, accepted } => {
                // What was to be delivered before is sent before.
                self.send_deliveries(live);
                self.receiving.sent(&stanza);
                self.send(stanza, Origin::Application, live);
                // An error means that the caller does not wait any more.
                let _ = accepted.send(());
            }
            Command::Request { stanza, reply } => {
                let id = stanza.id.clone().unwrap_or_default();
                self.requests
                    .add(id, stanza.to.clone(), reply, self.shared.options.limits.requests_max);
                self.send(stanza, Origin::Request, live);
            }
            Command::Flush { done } => {
                let missing = match self.session.management {
                    Some(_) => self.acknowledgements.waiting(),
                    None => live.output.len() + usize::from(live.unflushed),
                };
                match missing {
                    0 => finish((0, done)),
                    missing => self.flushes.push_back((missing, done)),
                }
            }
            Command::Resume { outcome } => {
                let _ = outcome.send(Ok(Resumption::StillConnected));
            }
            // That happens in every turn.
            Command::Look => {}
            Command::Announce {
                stanza,
                again,
                accepted,
            } => {
                self.contacts.announced = again.then(|| Box::new(stanza.clone()));
                self.send(stanza, Origin::Session, live);
                let _ = accepted.send(());
            }
            Command::LoadRoster { done } => self.load_roster(done, live),
        }
    }

    fn send(&mut self, stanza: Stanza, origin: Origin, live: &mut Live) {
        write(&stanza, &mut live.output);
        if self.session.management.is_some() {
            self.acknowledgements.send(Sent { stanza, origin });
        }
    }

    /// One request for acknowledgement is on its way as long as something waits for it (XEP-0198 §4).
    fn ask_for_acknowledgement(&self, live: &mut Live) {
        if self.session.management.is_some() && self.acknowledgements.waiting() > 0 && live.asked.is_none() {
            ask(b"<r xmlns='urn:xmpp:sm:3'/>", live);
        }
    }

    /// The server has been silent too long: asks for a sign of life, or gives up when one is owed.
    fn ask_for_life(&self, live: &mut Live) -> Result<(), End> {
        if live.asked.is_some() {
            return Err(End::Lost(Disconnect::Silent));
        }
        let question: &[u8] = match self.session.management {
            Some(_) => b"<r xmlns='urn:xmpp:sm:3'/>",
            // Nobody waits for the answer; that bytes come is enough.
            None => b"<iq type='get' id='alive'><ping xmlns='urn:xmpp:ping'/></iq>",
        };
        ask(question, live);
        Ok(())
    }

    /// Sends what was asked for before, says what we have received (XEP-0198 §4), closes the stream, and waits for the server to
    /// do the same (RFC 6120 §4.4).
    async fn close(&mut self, mut connection: Connection, mut live: Live) {
        self.commands.close();
        let room = |driver: &Self| driver.acknowledgements.waiting() < driver.shared.options.limits.unacknowledged_max;
        while room(self)
            && let Ok(command) = self.commands.try_recv()
        {
            self.obey(command, &mut live);
        }
        self.send_deliveries(&mut live);
        if self.session.management.is_some() {
            write_acknowledgement(self.acknowledgements.received(), &mut live);
        }
        live.output.extend_from_slice(b"</stream:stream>");
        let farewell = async {
            connection.writer.write_all_buf(&mut live.output).await?;
            connection.writer.flush().await?;
            let mut rest = vec![0; READ_BYTES];
            while connection.reader.read(&mut rest).await? > 0 {
                let mut input = &rest[..];
                while let Ok(Some(frame)) = connection.framer.next(&mut input, &connection.limits) {
                    if frame == Frame::Close {
                        return connection.writer.shutdown().await;
                    }
                }
            }
            Ok(())
        };
        // Whatever comes of it, the session is over.
        let _ = timeout(CLOSE_TIMEOUT, farewell).await;
    }
}

fn finish((_, done): (usize, oneshot::Sender<()>)) {
    // An error means that nobody waits any more.
    let _ = done.send(());
}

fn broken(error: XmlError) -> End {
    End::Lost(Disconnect::Broken(error.into()))
}
