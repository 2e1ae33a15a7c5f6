//! What a client tells its application.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;
use heronry_xmpp::{jid::FullJid, stanza::Stanza};
use tokio::sync::mpsc;

use crate::error::{ConnectError, Disconnect};

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// A message came, of whatever type; also errors for messages of ours.
    Message(Stanza),
    /// A presence came: of a contact, a request for subscription, or an error.
    Presence(Stanza),
    /// The connection is gone. With [`Reconnect::Automatic`](crate::Reconnect::Automatic) a
    /// [`Reconnected`](Self::Reconnected) follows sooner or later, unless the server said that another connection has taken
    /// our place; otherwise [`Client::resume`](crate::Client::resume) is awaited.
    Disconnected(Disconnect),
    /// There is a connection again, by [`Reconnect::Automatic`](crate::Reconnect::Automatic).
    Reconnected(Resumption),
    /// Reconnecting failed in a way that does not pass by itself, so it was given up, as if
    /// [`Reconnect::OnDemand`](crate::Reconnect::OnDemand) had been chosen.
    ReconnectFailed(ConnectError),
}

/// How it goes on after a connection was lost.
#[derive(Debug)]
pub enum Resumption {
    /// The session goes on (XEP-0198 §5): nothing was lost, in either direction. Presence and address are as before.
    Resumed {
        /// Stanzas sent once more because the server had not received them.
        resent: usize,
    },
    /// The old session is over; this is a new one, without presence.
    NewSession {
        /// Our address now.
        jid: FullJid,
        /// Stanzas given to [`Client::send`](crate::Client::send) in the old session that the server did not acknowledge,
        /// oldest first. Some may have arrived all the same; whether to send them again is the application's decision. Empty
        /// without stream management, as then nothing is known.
        unacknowledged: Vec<Stanza>,
    },
    /// The connection was not lost at all.
    StillConnected,
}

/// The events of a [`Client`](crate::Client), in order. They must be taken: when
/// [`events_max`](crate::Limits::events_max) wait, nothing more is read from the server, answers to requests included. After
/// an `Events` is dropped, events are dropped too.
#[derive(Debug)]
pub struct Events(pub(crate) mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` once the client is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.0.poll_recv(cx)
    }
}
