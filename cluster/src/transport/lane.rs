//! A connection on which both sides have said who they are.

use std::sync::Arc;

use heronry_proto::peer::{Frame, frame::Body};
use tonic::{Code, Streaming, transport::Channel};

use super::{
    PeerId,
    connection::{Broken, Connection},
    metrics,
    queue::Queue,
};

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Calls.
    Control,
    /// Messages in order.
    Messages,
    /// One transfer.
    Bulk,
    /// One call, not of a member.
    Ask,
}

impl Kind {
    /// The name in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Messages => "messages",
            Self::Bulk => "bulk",
            Self::Ask => "ask",
        }
    }
}

/// The frames that come.
pub(super) struct Incoming {
    stream: Streaming<Frame>,
    /// Of the last one.
    number: u64,
}

impl Incoming {
    pub(super) fn new(stream: Streaming<Frame>) -> Self {
        Self { stream, number: 0 }
    }

    /// The next frame. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Body, Broken> {
        let frame = match self.stream.message().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(Broken::Gone),
            Err(status) => return Err(broken(&status)),
        };
        if frame.number != self.number + 1 {
            return Err(Broken::OutOfOrder);
        }
        self.number = frame.number;
        metrics::frame_received();
        frame.body.ok_or(Broken::Garbled)
    }
}

/// What an error of tonic's means. What a peer sends is judged by tonic in two ways that have no source: a message that is too
/// large, and bytes that are no message. All others come from the connection.
fn broken(status: &tonic::Status) -> Broken {
    match status.code() {
        Code::OutOfRange => Broken::Oversized,
        Code::Internal if std::error::Error::source(status).is_none() => Broken::Garbled,
        _ => Broken::Gone,
    }
}

/// A connection on which both sides have said who they are.
pub(super) struct Lane {
    pub(super) kind: Kind,
    pub(super) peer: PeerId,
    pub(super) connection: Arc<Connection>,
    pub(super) queue: Arc<Queue>,
    pub(super) incoming: Incoming,
    /// The other side says that messages have passed between these two processes before.
    pub(super) worked: bool,
    /// As long as it lives, HTTP/2's connection does (of the side that dialed).
    pub(super) channel: Option<Channel>,
}

impl Lane {
    /// The next frame, until either side ends the connection. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Body, Broken> {
        tokio::select! {
            biased;
            why = self.connection.closed() => Err(why),
            next = self.incoming.next() => next,
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.queue.abandon();
        self.connection.close(Broken::Done);
        drop(self.channel.take());
    }
}
