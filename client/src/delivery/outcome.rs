//! What becomes of a message.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use heronry_xmpp::{jid::Jid, stanza::StanzaError};
use tokio::sync::oneshot;

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A device of the recipient has it: its receipt came.
    Delivered {
        /// The device.
        by: Jid,
    },
    /// The server has it: it has acknowledged the message in the session that goes on now (XEP-0198), and no receipt came in
    /// time. It may still reach the recipient, or be confirmed by nobody.
    Stored,
    /// It is not known to be anywhere.
    Failed(Failure),
}

/// Why a message is not known to be anywhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The recipient, or a server on its behalf, has returned it. Errors that pass ([`wait`](heronry_xmpp::stanza::ErrorType))
    /// are not told before the deadline.
    #[error("refused: {0}")]
    Refused(Box<StanzaError>),
    /// Neither receipt nor acknowledgement came in time. It may have arrived all the same.
    #[error("nobody confirmed it in time")]
    Deadline,
    /// The client was closed, or there is no connection and none is being made, as after
    /// [`Event::ReconnectFailed`](crate::Event::ReconnectFailed). It may have arrived all the same.
    #[error("disconnected for good")]
    Disconnected,
}

/// Why a message was not taken for delivery.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The message is longer than [`Limits::stanza_bytes_max`](crate::Limits::stanza_bytes_max).
    #[error("the message is too long")]
    TooLong,
    /// No receipt can be expected for it.
    #[error("cannot be delivered reliably: {0}")]
    Unsuitable(&'static str),
    /// Another message with the same id is under way.
    #[error("another message with this id is under way")]
    DuplicateId,
    /// The time was over before there was room for it.
    #[error("too many messages are under way")]
    Full,
    /// The client is closed, or has given up reconnecting.
    #[error("disconnected")]
    Disconnected,
}

/// A message under way. A future of its [`Outcome`]; when it is dropped the message goes on all the same.
#[derive(Debug)]
#[must_use = "the outcome of a delivery is told to nobody else"]
pub struct Delivery {
    pub(super) id: Box<str>,
    pub(super) outcome: oneshot::Receiver<Outcome>,
}

impl Delivery {
    /// The message's id.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Future for Delivery {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.outcome)
            .poll(cx)
            .map(|outcome| outcome.unwrap_or(Outcome::Failed(Failure::Disconnected)))
    }
}
