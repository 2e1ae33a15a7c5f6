//! One connection below a lane: closed from any place at once, also when the peer takes nothing more; and short of time and bytes as
//! long as nobody knows who is at its other end.

use std::{
    io,
    pin::{Pin, pin},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::{limits::STRANGER_BYTES_MAX, net::AnyStream, security::of_certificate};

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The other side or the network between has ended it, or does not answer.
    Gone,
    /// What came cannot be understood, or does not belong here.
    Garbled,
    /// Frames are missing or came again.
    OutOfOrder,
    /// A message larger than one may be.
    Oversized,
    /// The peer does not take what waits for it.
    Full,
    /// The peer, or a later process of its node, has another connection for the same.
    Displaced,
    /// The peer is no longer wanted.
    Unwanted,
    /// What the connection was for is over.
    Done,
    /// Nothing was heard in time.
    Silent,
    /// Too many strangers.
    Crowded,
}

impl Broken {
    /// The name in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Garbled => "garbled",
            Self::OutOfOrder => "out_of_order",
            Self::Oversized => "oversized",
            Self::Full => "full",
            Self::Displaced => "displaced",
            Self::Unwanted => "unwanted",
            Self::Done => "done",
            Self::Silent => "silent",
            Self::Crowded => "crowded",
        }
    }
}

/// What everybody who has to do with a connection holds of it.
#[derive(Debug)]
pub(super) struct Connection {
    /// Where the other end is, for the log.
    pub(super) remote: String,
    closed: CancellationToken,
    why: OnceLock<Broken>,
    /// The other end's Hello fits: bytes are no longer short.
    greeted: AtomicBool,
    /// It is in use: time is no longer short.
    settled: AtomicBool,
    /// Why it is refused has been said.
    refused: AtomicBool,
    /// A certificate was refused while the connection was read or written: by us, and a sentence.
    certificate: OnceLock<(bool, String)>,
    /// It carries its call: there is one in its life.
    used: AtomicBool,
}

impl Connection {
    /// A connection that also ends when `parent` is cancelled.
    pub(super) fn new(remote: String, parent: &CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            remote,
            closed: parent.child_token(),
            why: OnceLock::new(),
            greeted: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            certificate: OnceLock::new(),
            used: AtomicBool::new(false),
        })
    }

    /// Ends it now. The first reason counts.
    pub(super) fn close(&self, why: Broken) {
        let _ = self.why.set(why);
        self.closed.cancel();
    }

    /// Waits until somebody has closed it at this end. Cancel safe.
    pub(super) async fn closed(&self) -> Broken {
        self.closed.cancelled().await;
        self.why()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Why it was closed at this end.
    pub(super) fn why(&self) -> Broken {
        self.why.get().copied().unwrap_or(Broken::Done)
    }

    /// The other end's Hello fits: it may send as much as it likes.
    pub(super) fn greet(&self) {
        self.greeted.store(true, Ordering::Release);
    }

    pub(super) fn is_greeted(&self) -> bool {
        self.greeted.load(Ordering::Acquire)
    }

    /// It is in use: it may take as long as it likes.
    pub(super) fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }

    pub(super) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// Whether why it is refused is said for the first time.
    pub(super) fn refuse_once(&self) -> bool {
        !self.refused.swap(true, Ordering::AcqRel)
    }

    /// Whether a certificate was refused, and whether by us.
    pub(super) fn certificate_refused(&self) -> Option<(bool, String)> {
        self.certificate.get().cloned()
    }

    /// Keeps what an error says of a certificate: above, HTTP/2 keeps its text only.
    fn note<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result
            && let Some(refused) = of_certificate(error)
        {
            let _ = self.certificate.set(refused);
        }
        result
    }

    /// Whether this is the first call on it.
    pub(super) fn use_once(&self) -> bool {
        !self.used.swap(true, Ordering::AcqRel)
    }
}

/// A connection as tonic holds it.
pub(super) struct Guarded {
    stream: AnyStream,
    connection: Arc<Connection>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    shortage: Option<Shortage>,
    /// Told when it is gone.
    gone: Option<Box<dyn FnOnce() + Send>>,
}

/// What a stranger has left.
struct Shortage {
    deadline: Pin<Box<Sleep>>,
    bytes: usize,
}

impl Guarded {
    /// A connection that we have dialed.
    pub(super) fn dialed(stream: AnyStream, connection: Arc<Connection>) -> Self {
        Self {
            stream,
            closed: Box::pin(connection.closed.clone().cancelled_owned()),
            connection,
            shortage: None,
            gone: None,
        }
    }

    /// A connection that has been taken; it has until `deadline` to be put to use. `gone` is called when it is dropped.
    pub(super) fn taken(
        stream: AnyStream,
        connection: Arc<Connection>,
        deadline: Instant,
        gone: Box<dyn FnOnce() + Send>,
    ) -> Self {
        Self {
            stream,
            closed: Box::pin(connection.closed.clone().cancelled_owned()),
            connection,
            shortage: Some(Shortage {
                deadline: Box::pin(tokio::time::sleep_until(deadline)),
                bytes: STRANGER_BYTES_MAX,
            }),
            gone: Some(gone),
        }
    }

    /// As hyper wants it.
    pub(super) fn into_io(self) -> TokioIo<Self> {
        TokioIo::new(self)
    }

    /// Whether it goes on; if so the task is woken when it no longer does.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.closed.as_mut().poll(cx).is_ready() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let Some(shortage) = &mut self.shortage else {
            return Ok(());
        };
        if self.connection.is_settled() {
            self.shortage = None;
        } else if shortage.bytes == 0 && !self.connection.is_greeted() {
            self.connection.close(Broken::Garbled);
            return Err(io::ErrorKind::ConnectionAborted.into());
        } else if shortage.deadline.as_mut().poll(cx).is_ready() {
            self.connection.close(Broken::Silent);
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(gone) = self.gone.take() {
            gone();
        }
    }
}

impl Connected for Guarded {
    type ConnectInfo = Arc<Connection>;

    fn connect_info(&self) -> Arc<Connection> {
        Arc::clone(&self.connection)
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_open(cx)?;
        let before = buffer.filled().len();
        let read = pin!(&mut self.stream).poll_read(cx, buffer);
        ready!(self.connection.note(read))?;
        if let Some(shortage) = &mut self.shortage {
            shortage.bytes = shortage.bytes.saturating_sub(buffer.filled().len() - before);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_open(cx)?;
        let written = pin!(&mut self.stream).poll_write(cx, bytes);
        self.connection.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_open(cx)?;
        let written = pin!(&mut self.stream).poll_write_vectored(cx, slices);
        self.connection.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_open(cx)?;
        let flushed = pin!(&mut self.stream).poll_flush(cx);
        self.connection.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_shutdown(cx)
    }
}
