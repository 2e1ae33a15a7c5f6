//! Message traffic between pairs: A sends, B receives and says nothing; a pair keeps at most a window of messages on the
//! way. Measures when B has what A sent.
//!
//! This is the generator's hot path. Sockets are read into one buffer per thread; the messages that what was read makes
//! room for leave in one write.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use heronry_xmpp::xml::{Frame, Framer, Limits};
use memchr::memmem;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::measure::latency::Latencies;

const READ_BUFFER_BYTES: usize = 64 * 1024;

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice());
}

/// What all pairs of a run count together.
#[derive(Debug, Default)]
pub struct Tally {
    /// Messages that B has received.
    pub received: Cell<u64>,
    /// Messages that came twice, not in order, or after one that is missing.
    pub misplaced: Cell<u64>,
    /// From the write of A to the read of B.
    pub latencies: RefCell<Latencies>,
}

/// One end of a pair: a socket and what is known of the stream it carries.
#[derive(Debug)]
pub struct End<S> {
    io: S,
    framer: Framer,
}

/// Two ends and the messages on the way between them.
#[derive(Debug)]
pub struct Pair<S> {
    sender: End<S>,
    receiver: End<S>,
    /// A message up to its number, and what comes after.
    message: (String, String),
    window: usize,
    /// When each message on the way was written, oldest first.
    on_the_way: VecDeque<Instant>,
    /// Number of the next message to send. The oldest on the way has this less their count.
    next: u64,
    outbox: Vec<u8>,
    tally: Rc<Tally>,
}

/// Why traffic stopped.
#[derive(Debug)]
pub enum Stopped {
    /// A socket failed or was closed.
    Io(io::Error),
    /// The server said something that ends the run, in its own words.
    Refused(String),
}

impl<S: AsyncRead + AsyncWrite + Unpin> End<S> {
    /// An end of which everything up to now was read.
    pub fn new(io: S, framer: Framer) -> Self {
        Self { io, framer }
    }

    /// Reads what is there and gives each element to `element`. Pending when nothing is there.
    ///
    /// # Errors
    /// [`Stopped::Io`] also at the end of the stream; [`Stopped::Refused`] for what is no XMPP.
    pub fn poll_elements(
        &mut self,
        cx: &mut Context<'_>,
        mut element: impl FnMut(&[u8]) -> Result<(), Stopped>,
    ) -> Poll<Result<(), Stopped>> {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut read)).map_err(Stopped::Io)?;
            let mut input = read.filled();
            if input.is_empty() {
                return Poll::Ready(Err(Stopped::Io(io::ErrorKind::UnexpectedEof.into())));
            }
            while !input.is_empty() {
                match self.framer.next(&mut input, &Limits::after_auth()) {
                    Ok(Some(Frame::Element(bytes))) => element(&bytes)?,
                    Ok(Some(Frame::Open(_))) => {}
                    Ok(Some(Frame::Close)) => {
                        return Poll::Ready(Err(Stopped::Io(io::ErrorKind::ConnectionReset.into())));
                    }
                    Ok(None) => break,
                    Err(error) => return Poll::Ready(Err(Stopped::Refused(format!("not XMPP: {error:?}")))),
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Pair<S> {
    /// A pair that has sent nothing yet. `to` is the receiver's full JID.
    pub fn new(sender: End<S>, receiver: End<S>, to: &str, window: u32, body_bytes: usize, tally: Rc<Tally>) -> Self {
        let mut head = String::from("<message type='chat' to='");
        heronry_xmpp::xml::escape_attr(to, &mut head);
        head.push_str("' id='m");
        let tail = format!("'><body>{}</body></message>", "x".repeat(body_bytes));
        Self {
            sender,
            receiver,
            message: (head, tail),
            window: window as usize,
            on_the_way: VecDeque::with_capacity(window as usize),
            next: 0,
            outbox: Vec::new(),
            tally,
        }
    }

    /// Sends and receives until something goes wrong; dropped when the run is over.
    pub async fn run(mut self) -> Stopped {
        loop {
            if let Err(error) = self.fill_window().await {
                return Stopped::Io(error);
            }
            let received = std::future::poll_fn(|cx| self.poll_received(cx)).await;
            if let Err(stopped) = received {
                return stopped;
            }
        }
    }

    async fn fill_window(&mut self) -> io::Result<()> {
        let count = self.window - self.on_the_way.len();
        if count == 0 {
            return Ok(());
        }
        self.outbox.clear();
        for _ in 0..count {
            self.outbox.extend_from_slice(self.message.0.as_bytes());
            push_decimal(self.next, &mut self.outbox);
            self.outbox.extend_from_slice(self.message.1.as_bytes());
            self.next += 1;
        }
        let now = Instant::now();
        self.on_the_way.extend(std::iter::repeat_n(now, count));
        self.sender.write(&self.outbox).await
    }

    /// Reads both ends until nothing is there; ready when the receiver got something.
    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        let Self {
            sender,
            receiver,
            on_the_way,
            next,
            tally,
            ..
        } = self;
        let before = on_the_way.len();
        let mut now = None;
        while let Poll::Ready(read) = receiver.poll_elements(cx, |element| {
            if !element.starts_with(b"<message") {
                return Ok(());
            }
            let expected = *next - on_the_way.len() as u64;
            if message_number(element) == Some(expected)
                && let Some(sent) = on_the_way.pop_front()
            {
                let now = *now.get_or_insert_with(Instant::now);
                tally.latencies.borrow_mut().record(now - sent);
                tally.received.set(tally.received.get() + 1);
                return Ok(());
            }
            tally.misplaced.set(tally.misplaced.get() + 1);
            Ok(())
        }) {
            read?;
        }
        while let Poll::Ready(read) = sender.poll_elements(cx, |element| match is_refusal(element) {
            true => Err(Stopped::Refused(String::from_utf8_lossy(element).into_owned())),
            false => Ok(()),
        }) {
            read?;
        }
        match on_the_way.len() < before {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }
}

/// A message that came back to its sender, or the end of the stream. Roster pushes and the like are none of our business.
fn is_refusal(element: &[u8]) -> bool {
    element.starts_with(b"<message") || element.starts_with(b"<stream:error")
}

/// The number in the `id` of a message of ours.
fn message_number(element: &[u8]) -> Option<u64> {
    let head = &element[..memchr::memchr(b'>', element)?];
    let id = &head[memmem::find(head, b" id=")? + 4..];
    let digits = id.strip_prefix(b"'m").or_else(|| id.strip_prefix(b"\"m"))?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

fn push_decimal(number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = number;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;

    struct Run {
        to_server: DuplexStream,
        from_server: DuplexStream,
        tally: Rc<Tally>,
        pair: tokio::task::JoinHandle<Stopped>,
    }

    /// A pair whose server is the test.
    fn pair(window: u32) -> Run {
        let (sender, to_server) = duplex(1 << 16);
        let (receiver, from_server) = duplex(1 << 16);
        let tally = Rc::new(Tally::default());
        let pair = Pair::new(
            End::new(sender, opened()),
            End::new(receiver, opened()),
            "b@x/it's",
            window,
            3,
            tally.clone(),
        );
        Run {
            to_server,
            from_server,
            tally,
            pair: tokio::task::spawn_local(pair.run()),
        }
    }

    fn opened() -> Framer {
        let mut framer = Framer::new();
        let mut header: &[u8] =
            b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
        assert!(matches!(
            framer.next(&mut header, &Limits::after_auth()),
            Ok(Some(Frame::Open(_)))
        ));
        framer
    }

    fn message(number: u64) -> String {
        format!("<message type='chat' to='b@x/it&apos;s' id='m{number}'><body>xxx</body></message>")
    }

    async fn run(test: impl Future<Output = ()>) {
        tokio::task::LocalSet::new().run_until(test).await;
    }

    async fn read(stream: &mut DuplexStream, expected: &str) {
        let mut bytes = vec![0; expected.len()];
        stream.read_exact(&mut bytes).await.expect("open");
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }

    #[tokio::test]
    async fn a_window_is_filled_at_once_and_refilled_by_what_arrives() {
        run(async {
            let mut run = pair(3);
            read(&mut run.to_server, &(message(0) + &message(1) + &message(2))).await;
            run.from_server
                .write_all((message(0) + &message(1)).as_bytes())
                .await
                .expect("open");
            read(&mut run.to_server, &(message(3) + &message(4))).await;
            assert_eq!(run.tally.received.get(), 2);
            assert_eq!(run.tally.latencies.borrow().summary().count, 2);
            run.pair.abort();
        })
        .await;
    }

    #[tokio::test]
    async fn repeats_and_gaps_are_counted_and_are_no_answer() {
        run(async {
            let mut run = pair(1);
            read(&mut run.to_server, &message(0)).await;
            let said = message(5) + "<presence from='b@x/y'/>" + &message(0) + &message(0);
            run.from_server.write_all(said.as_bytes()).await.expect("open");
            read(&mut run.to_server, &message(1)).await;
            assert_eq!((run.tally.received.get(), run.tally.misplaced.get()), (1, 2));
            run.pair.abort();
        })
        .await;
    }

    #[tokio::test]
    async fn a_returned_message_ends_the_run_in_the_servers_words() {
        run(async {
            let mut run = pair(1);
            let error = "<message type='error' id='m0' from='b@x/y'><error type='cancel'/></message>";
            run.to_server.write_all(error.as_bytes()).await.expect("open");
            let stopped = run.pair.await.expect("no panic");
            assert!(
                matches!(&stopped, Stopped::Refused(text) if text == error),
                "{stopped:?}"
            );
        })
        .await;
    }

    #[tokio::test]
    async fn a_closed_socket_ends_the_run() {
        run(async {
            let run = pair(1);
            drop(run.from_server);
            assert!(matches!(run.pair.await.expect("no panic"), Stopped::Io(_)));
        })
        .await;
    }

    #[test]
    fn numbers_are_found_however_the_server_quotes() {
        assert_eq!(
            message_number(b"<message to=\"b@x/y\" id=\"m17\" type=\"chat\"><body>"),
            Some(17)
        );
        assert_eq!(message_number(b"<message id='m0'>"), Some(0));
        assert_eq!(
            message_number(b"<message to='b' type='chat'><body> id='m3'</body></message>"),
            None
        );
        assert_eq!(message_number(b"<message id='x7'>"), None);
        assert_eq!(message_number(b"<message id='m99999999999999999999999'>"), None);
    }

    #[test]
    fn decimals() {
        let mut out = Vec::new();
        for number in [0, 9, 10, u64::MAX] {
            push_decimal(number, &mut out);
            out.push(b' ');
        }
        assert_eq!(out, format!("0 9 10 {} ", u64::MAX).into_bytes());
    }
}
