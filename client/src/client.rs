//! The handle an application holds.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use heronry_xmpp::{
    jid::{FullJid, Jid},
    stanza::{IqType, Stanza},
    xml::Element,
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    connection::{self, Begun},
    delivery::Courier,
    driver::{Command, Driver},
    error::{ConnectError, RequestError, SendError},
    event::{Events, Resumption},
    options::Options,
    presence::SharedPresence,
    roster::SharedRoster,
};

/// A session with an XMPP server.
///
/// Clones are handles of the same session. It ends in order when [`close`](Self::close) is called or the last clone is
/// dropped.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    _close_with_the_last: Arc<DropGuard>,
}

/// What handles and driver both see.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    /// Our address; changes when a session cannot be resumed.
    pub(crate) jid: Mutex<FullJid>,
    /// Set when the session is to end.
    pub(crate) closing: CancellationToken,
    next_id: AtomicU64,
    /// Permits for requests that wait.
    requests: Semaphore,
    /// There when messages are delivered reliably.
    pub(crate) courier: OnceLock<Arc<Courier>>,
    /// There when somebody has asked for the roster.
    pub(crate) roster: OnceLock<Arc<SharedRoster>>,
    /// There when somebody watches presence.
    pub(crate) presence: OnceLock<Arc<SharedPresence>>,
}

impl Shared {
    /// An id for a request that no other of this client has.
    pub(crate) fn next_id(&self) -> String {
        format!("q{}", self.next_id.fetch_add(1, Ordering::Relaxed))
    }
}

/// A request to be sent as an iq: to whom, what, and how long to wait.
#[derive(Clone, Debug)]
pub struct Request {
    type_: IqType,
    to: Option<Jid>,
    payload: Element,
    timeout: Option<Duration>,
}

impl Request {
    /// Asks for something (iq of type get). Goes to our own account, that is, to the server in its name, unless
    /// [`to`](Self::to) is called.
    pub fn get(payload: Element) -> Self {
        Self {
            type_: IqType::Get,
            to: None,
            payload,
            timeout: None,
        }
    }

    /// Changes something (iq of type set); otherwise as [`get`](Self::get).
    pub fn set(payload: Element) -> Self {
        Self {
            type_: IqType::Set,
            to: None,
            payload,
            timeout: None,
        }
    }

    /// Whom to ask.
    #[must_use]
    pub fn to(mut self, to: impl Into<Jid>) -> Self {
        self.to = Some(to.into());
        self
    }

    /// How long to wait for the answer, instead of [`Options::request_timeout`].
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

impl Client {
    /// Connects, authenticates, binds a resource, and enables stream management when the server offers it. Must be called
    /// inside a tokio runtime.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(options: Options) -> Result<(Self, Events), ConnectError> {
        let mut secret = options.secret.clone();
        let (connection, begun) = connection::begin(&options, &mut secret, None, None).await?;
        let Begun::Bound { session, .. } = begun else {
            return Err(ConnectError::Protocol("a session was resumed that was never there"));
        };
        let closing = CancellationToken::new();
        let shared = Arc::new(Shared {
            jid: Mutex::new(session.jid.clone()),
            closing: closing.clone(),
            next_id: AtomicU64::new(0),
            requests: Semaphore::new(options.limits.requests_max.max(1)),
            courier: OnceLock::new(),
            roster: OnceLock::new(),
            presence: OnceLock::new(),
            options,
        });
        let (commands, commands_received) = mpsc::channel(shared.options.limits.commands_max.max(1));
        let (events, events_received) = mpsc::channel(shared.options.limits.events_max.max(1));
        let driver = Driver::new(shared.clone(), secret, commands_received, events, session);
        tokio::spawn(driver.run(connection));
        let client = Self {
            commands,
            shared,
            _close_with_the_last: Arc::new(closing.drop_guard()),
        };
        Ok((client, Events(events_received)))
    }

    /// Our address.
    pub fn jid(&self) -> FullJid {
        self.shared.jid.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a message or a presence. Returns when the stanza is kept for sending, and with stream management until the server
    /// has acknowledged it; waits while there is no room. See [`flush`](Self::flush) for knowing that the server has it.
    ///
    /// When the returned future is dropped early the stanza may be sent or not.
    ///
    /// # Errors
    /// [`SendError::Disconnected`] without a connection, unless one is being made
    /// ([`Reconnect::Automatic`](crate::Reconnect::Automatic)): then it waits for that.
    pub async fn send(&self, stanza: Stanza) -> Result<(), SendError> {
        if stanza.size() > self.shared.options.limits.stanza_bytes_max {
            return Err(SendError::TooLong);
        }
        let (accepted, acceptance) = oneshot::channel();
        self.command(Command::Send { stanza, accepted })
            .await
            .map_err(|()| SendError::Disconnected)?;
        acceptance.await.map_err(|_| SendError::Disconnected)
    }

    /// Waits until the server has acknowledged everything that was sent before (XEP-0198 §4). Without stream management until
    /// it is written.
    ///
    /// # Errors
    /// [`SendError::Disconnected`] when the session is lost first; [`Resumption::NewSession`] tells what was not acknowledged.
    pub async fn flush(&self) -> Result<(), SendError> {
        let (done, completion) = oneshot::channel();
        self.command(Command::Flush { done })
            .await
            .map_err(|()| SendError::Disconnected)?;
        completion.await.map_err(|_| SendError::Disconnected)
    }

    /// Sends a request and waits for its answer: the payload of the result, if it has one.
    ///
    /// # Errors
    /// See [`RequestError`]. After [`Timeout`](RequestError::Timeout) and [`Disconnected`](RequestError::Disconnected) the
    /// request may or may not have been carried out.
    pub async fn request(&self, request: Request) -> Result<Option<Element>, RequestError> {
        let timeout = request.timeout.unwrap_or(self.shared.options.request_timeout);
        let mut stanza = Stanza::iq(request.type_, self.shared.next_id(), Some(&request.payload));
        stanza.to = request.to;
        if stanza.size() > self.shared.options.limits.stanza_bytes_max {
            return Err(RequestError::TooLong);
        }
        let answer = tokio::time::timeout(timeout, async {
            // Held until the answer is there or nobody waits for it any more.
            let _permit = self
                .shared
                .requests
                .acquire()
                .await
                .map_err(|_| RequestError::Disconnected)?;
            let (reply, answer) = oneshot::channel();
            self.command(Command::Request { stanza, reply })
                .await
                .map_err(|()| RequestError::Disconnected)?;
            answer.await.map_err(|_| RequestError::Disconnected)
        });
        read_answer(&answer.await.map_err(|_| RequestError::Timeout)??)
    }

    /// Connects again after the connection was lost, and resumes the session if the server still has it (XEP-0198 §5). One
    /// attempt.
    ///
    /// # Errors
    /// When there is no connection after it; the old session is kept for the next attempt.
    pub async fn resume(&self) -> Result<Resumption, ConnectError> {
        let (outcome, result) = oneshot::channel();
        self.command(Command::Resume { outcome })
            .await
            .map_err(|()| ConnectError::Closed)?;
        result.await.map_err(|_| ConnectError::Closed)?
    }

    /// Ends the session in order: what was sent before is written, what is under way has its [`Outcome`](crate::Outcome) now, the server is told what we have received, and the stream is
    /// closed. Returns when that is done, or has taken five seconds.
    pub async fn close(&self) {
        self.shared.closing.cancel();
        self.commands.closed().await;
    }

    pub(crate) async fn command(&self, command: Command) -> Result<(), ()> {
        self.commands.send(command).await.map_err(|_| ())
    }

    pub(crate) fn commands(&self) -> mpsc::Sender<Command> {
        self.commands.clone()
    }

    /// Has the driver look for messages to deliver. When there is no room it is awake and looks anyway.
    pub(crate) fn look(&self) {
        let _ = self.commands.try_send(Command::Look);
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }
}

fn read_answer(answer: &Stanza) -> Result<Option<Element>, RequestError> {
    if let Some(error) = answer.stanza_error() {
        return Err(RequestError::Refused(Box::new(error)));
    }
    answer
        .payload()
        .map(|_| answer.payload_element())
        .transpose()
        .map_err(|_| RequestError::Malformed)
}
