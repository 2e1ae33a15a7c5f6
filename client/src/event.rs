//! What a client tells its application.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;
use heronry_xmpp::{jid::FullJid, stanza::Stanza};
use tokio::sync::mpsc;

use crate::{
    blocking::BlockListChange,
    error::{ConnectError, Disconnect},
    receiving::Carbon,
};

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// A message came, of whatever type; also errors for messages of ours. [`Delay`](crate::Delay) tells whether it is an
    /// old one. What [`Client::deliver`](crate::Client::deliver) waits for does not come here.
    Message(Stanza),
    /// Another device of our account has sent or received a message, after
    /// [`Client::enable_carbons`](crate::Client::enable_carbons).
    Carbon(Carbon),
    /// A presence came: of a contact, a request for subscription, or an error.
    /// [`Client::presence`](crate::Client::presence) makes more of it.
    Presence(Stanza),
    /// Another device of our account has blocked or unblocked somebody.
    BlockList(BlockListChange),
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
    /// The old session is over; this is a new one. Said again in it by itself: what
    /// [`Client::set_presence`](crate::Client::set_presence) said last, the request for the roster if there was one, and what
    /// [`Client::deliver`](crate::Client::deliver) has under way. Everything else begins anew.
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
