//! Between the session and the socket: what was read and not yet taken, what is to be written.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use heronry_xmpp::{
    stanza::Stanza,
    stream::StreamError,
    xep::sm::{Ack, Counter, Nonza},
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::{Instant, timeout},
};

use crate::{connection::Connection, error::Disconnect, event::Event, receiving::Taken};

/// How long the last words on a stream that is over may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);

/// What is between the session and the socket while there is one.
pub(super) struct Live {
    pub(super) input: BytesMut,
    pub(super) output: BytesMut,
    /// Stanzas that came before counting began; they come first and are not counted.
    pub(super) early: std::vec::IntoIter<Bytes>,
    /// Something was written and may sit in TLS's buffers.
    pub(super) unflushed: bool,
    /// An event read and not yet taken by the application; nothing more is read until it is.
    pub(super) event: Option<Received>,
    /// The last byte from the server.
    pub(super) heard: Instant,
    /// Since when an answer to `<r/>` or a ping is owed.
    pub(super) asked: Option<Instant>,
}

impl Live {
    /// Begins with what was read beyond the negotiation.
    pub(super) fn new(connection: &mut Connection) -> Self {
        Self {
            input: std::mem::take(&mut connection.input),
            early: std::mem::take(&mut connection.early).into_iter(),
            output: BytesMut::new(),
            unflushed: false,
            event: None,
            heard: Instant::now(),
            asked: None,
        }
    }

    pub(super) fn set_event(&mut self, event: Event, counted: bool) {
        self.set_message(event, Taken::default(), counted);
    }

    pub(super) fn set_message(&mut self, event: Event, taken: Taken, counted: bool) {
        self.event = Some(Received { event, taken, counted });
    }
}

/// An event made of what the server sent.
pub(super) struct Received {
    pub(super) event: Event,
    /// What is due when the application has it.
    pub(super) taken: Taken,
    pub(super) counted: bool,
}

pub(super) enum Progress {
    Written,
    Flushed,
}

pub(super) fn write(stanza: &Stanza, output: &mut BytesMut) {
    let mut bytes = Vec::with_capacity(stanza.size());
    stanza.write(&mut bytes);
    output.extend_from_slice(&bytes);
}

/// Writes what the network takes, or flushes when everything is written.
pub(super) async fn write_some(writer: &mut (impl AsyncWrite + Unpin), output: &mut BytesMut) -> io::Result<Progress> {
    if output.is_empty() {
        writer.flush().await?;
        return Ok(Progress::Flushed);
    }
    match writer.write_buf(output).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        _ => Ok(Progress::Written),
    }
}

/// Gives an event to the application, or drops it when that does not listen. From now on we are responsible for it, so it
/// counts if stanzas of its time do. What is due then is given back when the application has it.
pub(super) fn hand_over(received: Option<Received>, permit: Option<mpsc::Permit<'_, Event>>) -> (bool, Option<Taken>) {
    let Some(Received { event, taken, counted }) = received else {
        return (false, None);
    };
    let Some(permit) = permit else {
        return (counted, None);
    };
    permit.send(event);
    (counted, Some(taken))
}

pub(super) fn write_acknowledgement(h: Counter, live: &mut Live) {
    live.output.extend_from_slice(&Nonza::Ack(Ack { h }).to_bytes());
}

/// Asks for a sign of life that is owed from now on.
pub(super) fn ask(question: &[u8], live: &mut Live) {
    live.output.extend_from_slice(question);
    live.asked = Some(Instant::now());
}

/// Closes a stream that is over (RFC 6120 §4.4, §4.9.1.1), if the network takes it at once.
pub(super) async fn say_goodbye(mut connection: Connection, reason: &Disconnect) {
    let mut words = String::new();
    match reason {
        Disconnect::Lost(_) => return,
        Disconnect::Closed | Disconnect::Refused(_) => {}
        Disconnect::Silent => StreamError::connection_timeout().write(&mut words),
        Disconnect::Broken(error) => error.write(&mut words),
    }
    words.push_str("</stream:stream>");
    let said = async {
        connection.writer.write_all(words.as_bytes()).await?;
        connection.writer.shutdown().await
    };
    let _ = timeout(GOODBYE_TIMEOUT, said).await;
}
