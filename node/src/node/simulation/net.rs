//! The network of a simulation: connections that are ordered, late, cut in one direction or both, and broken.
//!
//! Nothing moves while a host runs: between two steps [`Network::carry`] brings what is due to whoever reads it. A direction that is cut
//! holds what goes that way until it is healed, as TCP does, unless somebody loses patience first.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::SystemTime,
};

use bytes::{Buf, Bytes};
use heronry_cluster::transport::Net;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{mpsc, oneshot},
};

use super::host::wall;

/// A machine, by the last number of its address.
pub(super) type HostId = u8;

/// Bytes that one direction of a connection holds before whoever writes has to wait.
const WINDOW_BYTES: usize = 256 << 10;

/// Milliseconds after which what nobody answered is asked again.
const AGAIN: u64 = 1000;

pub(super) fn address(host: HostId, port: u16) -> SocketAddr {
    (IpAddr::from(Ipv4Addr::new(10, 0, 0, host)), port).into()
}

fn host_of(address: SocketAddr) -> HostId {
    match address.ip() {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(_) => 0,
    }
}

/// All machines and what is between them. Clones are handles.
#[derive(Clone)]
pub(super) struct Network(Arc<Mutex<Streets>>);

struct Streets {
    /// Milliseconds since the simulation began.
    now: u64,
    random: fastrand::Rng,
    /// Machines without power: nothing arrives there, and nobody says so.
    dark: BTreeSet<HostId>,
    listeners: BTreeMap<SocketAddr, mpsc::UnboundedSender<(End, SocketAddr)>>,
    dialing: Vec<Dialing>,
    connections: BTreeMap<u64, Connection>,
    last_connection: u64,
    /// What goes from the first to the second does not arrive.
    cut: BTreeSet<(HostId, HostId)>,
    /// How much longer it takes from the first to the second, milliseconds.
    slow: BTreeMap<(HostId, HostId), u64>,
}

struct Dialing {
    from: HostId,
    to: SocketAddr,
    due: u64,
    answer: oneshot::Sender<io::Result<End>>,
}

struct Connection {
    hosts: [HostId; 2],
    /// What the end of that number says.
    ways: [Way; 2],
}

/// One direction.
#[derive(Default)]
struct Way {
    flying: VecDeque<(u64, Piece)>,
    ready: VecDeque<Bytes>,
    bytes: usize,
    /// How it has ended, once that has arrived.
    ended: Option<Ending>,
    /// Nothing more is said.
    said: bool,
    /// Nobody reads any more.
    deaf: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

enum Piece {
    Bytes(Bytes),
    End(Ending),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Closed,
    Reset,
}

impl Network {
    pub(super) fn new(random: fastrand::Rng) -> Self {
        Self(Arc::new(Mutex::new(Streets {
            now: 0,
            random,
            dark: BTreeSet::new(),
            listeners: BTreeMap::new(),
            dialing: Vec::new(),
            connections: BTreeMap::new(),
            last_connection: 0,
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
        })))
    }

    fn streets(&self) -> MutexGuard<'_, Streets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The network as one machine sees it.
    pub(super) fn at(&self, host: HostId) -> Plug {
        Plug {
            network: self.clone(),
            host,
        }
    }

    /// Brings what is due by now.
    pub(super) fn carry(&self, now: u64) {
        let mut wakers = Vec::new();
        let mut answers = Vec::new();
        {
            let mut streets = self.streets();
            streets.now = now;
            let streets = &mut *streets;
            streets.carry(&mut wakers);
            streets.connect(self, &mut answers);
        }
        // Both may run code that looks at the network.
        for answer in answers {
            answer();
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Nothing arrives at `to` any more that is sent from `from`.
    pub(super) fn cut(&self, from: HostId, to: HostId) {
        self.streets().cut.insert((from, to));
    }

    /// Everything arrives again, as fast as ever.
    pub(super) fn heal(&self) {
        let mut streets = self.streets();
        streets.cut.clear();
        streets.slow.clear();
    }

    /// What arrives from `from` at `to` takes that many milliseconds longer.
    pub(super) fn slow_down(&self, from: HostId, to: HostId, by: u64) {
        self.streets().slow.insert((from, to), by);
    }

    /// Breaks all connections between two machines.
    pub(super) fn reset(&self, one: HostId, other: HostId) {
        let mut wakers = Vec::new();
        {
            let mut streets = self.streets();
            let between =
                |connection: &&mut Connection| connection.hosts == [one, other] || connection.hosts == [other, one];
            for connection in streets.connections.values_mut().filter(between) {
                for way in &mut connection.ways {
                    way.flying.clear();
                    way.ready.clear();
                    way.ended = Some(Ending::Reset);
                    wakers.extend(way.reader.take());
                    wakers.extend(way.writer.take());
                }
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The machine loses its power, or gets it back. To be said before its process is dropped.
    pub(super) fn darken(&self, host: HostId, dark: bool) {
        let mut streets = self.streets();
        if dark {
            streets.dark.insert(host);
        } else {
            streets.dark.remove(&host);
        }
    }
}

impl Streets {
    fn reaches(&self, from: HostId, to: HostId) -> bool {
        !self.cut.contains(&(from, to)) && !self.dark.contains(&to) && !self.dark.contains(&from)
    }

    /// When something that is sent now arrives.
    fn due(&mut self, from: HostId, to: HostId) -> u64 {
        let slow = self.slow.get(&(from, to)).copied().unwrap_or(0);
        let lost = if self.random.u8(..) < 3 { 200 } else { 0 };
        self.now + self.random.u64(1..15) + slow + lost
    }

    fn carry(&mut self, wakers: &mut Vec<Waker>) {
        let mut over = Vec::new();
        let (now, cut, dark) = (self.now, &self.cut, &self.dark);
        for (number, connection) in &mut self.connections {
            for end in [0, 1] {
                let (from, to) = (connection.hosts[end], connection.hosts[1 - end]);
                if cut.contains(&(from, to)) || dark.contains(&to) {
                    continue;
                }
                let mut refused = false;
                let way = &mut connection.ways[end];
                while way.flying.front().is_some_and(|(due, _)| *due <= now) {
                    let Some((_, piece)) = way.flying.pop_front() else {
                        break;
                    };
                    match piece {
                        _ if way.ended.is_some() => {}
                        Piece::Bytes(bytes) if way.deaf => {
                            way.bytes -= bytes.len();
                            refused = true;
                        }
                        Piece::Bytes(bytes) => way.ready.push_back(bytes),
                        Piece::End(ending) => {
                            way.ended = Some(ending);
                            if ending == Ending::Reset {
                                way.ready.clear();
                            }
                        }
                    }
                    wakers.extend(way.reader.take());
                }
                let back = &mut connection.ways[1 - end];
                if refused
                    && !back
                        .flying
                        .iter()
                        .any(|(_, piece)| matches!(piece, Piece::End(Ending::Reset)))
                {
                    // Nobody is there who knows of this connection.
                    back.flying.clear();
                    back.flying.push_back((now + 5, Piece::End(Ending::Reset)));
                }
                if connection.ways[1 - end].ended == Some(Ending::Reset) {
                    wakers.extend(connection.ways[end].writer.take());
                }
            }
            if connection.ways.iter().all(|way| way.deaf) {
                over.push(*number);
            }
        }
        for number in over {
            self.connections.remove(&number);
        }
    }

    fn connect(&mut self, network: &Network, answers: &mut Vec<Box<dyn FnOnce()>>) {
        for mut dialing in std::mem::take(&mut self.dialing) {
            if dialing.answer.is_closed() {
                continue;
            }
            if dialing.due > self.now {
                self.dialing.push(dialing);
                continue;
            }
            let (from, to) = (dialing.from, host_of(dialing.to));
            if !self.reaches(from, to) || !self.reaches(to, from) {
                dialing.due = self.now + AGAIN;
                self.dialing.push(dialing);
                continue;
            }
            let listener = self.listeners.get(&dialing.to).filter(|listener| !listener.is_closed());
            let Some(listener) = listener.cloned() else {
                let answer = dialing.answer;
                answers.push(Box::new(move || {
                    let _ = answer.send(Err(io::ErrorKind::ConnectionRefused.into()));
                }));
                continue;
            };
            self.last_connection += 1;
            let connection = Connection {
                hosts: [from, to],
                ways: Default::default(),
            };
            self.connections.insert(self.last_connection, connection);
            let [near, far] = [0, 1].map(|end| End {
                network: network.clone(),
                connection: self.last_connection,
                end,
            });
            answers.push(Box::new(move || {
                let _ = listener.send((far, address(from, 40000)));
                let _ = dialing.answer.send(Ok(near));
            }));
        }
    }
}

/// The network as one machine sees it.
#[derive(Clone)]
pub(super) struct Plug {
    network: Network,
    host: HostId,
}

/// Takes connections until it is dropped.
pub(super) struct Listener {
    address: SocketAddr,
    arriving: tokio::sync::Mutex<mpsc::UnboundedReceiver<(End, SocketAddr)>>,
}

impl Net for Plug {
    type Stream = End;
    type Listener = Listener;

    async fn listen(&self, address: SocketAddr) -> io::Result<Listener> {
        let (arrives, arriving) = mpsc::unbounded_channel();
        self.network.streets().listeners.insert(address, arrives);
        Ok(Listener {
            address,
            arriving: tokio::sync::Mutex::new(arriving),
        })
    }

    async fn accept(listener: &Listener) -> io::Result<(End, SocketAddr)> {
        let arrived = listener.arriving.lock().await.recv().await;
        arrived.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn local_address(listener: &Listener) -> io::Result<SocketAddr> {
        Ok(listener.address)
    }

    async fn dial(&self, address: &str) -> io::Result<End> {
        let to: SocketAddr = address.parse().map_err(io::Error::other)?;
        let (answer, answered) = oneshot::channel();
        {
            let mut streets = self.network.streets();
            let due = streets.due(self.host, host_of(to)) + streets.due(host_of(to), self.host) - streets.now;
            streets.dialing.push(Dialing {
                from: self.host,
                to,
                due,
                answer,
            });
        }
        answered.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    fn wall_clock(&self) -> SystemTime {
        wall()
    }
}

/// One end of a connection.
pub(super) struct End {
    network: Network,
    connection: u64,
    end: usize,
}

impl End {
    fn with<R>(&self, with: impl FnOnce(&mut Streets, &mut Connection) -> R) -> R {
        let mut streets = self.network.streets();
        // It is there as long as one of its ends is.
        let mut connection = streets.connections.remove(&self.connection).expect("a connection");
        let result = with(&mut streets, &mut connection);
        streets.connections.insert(self.connection, connection);
        result
    }

    fn say(&self, piece: Piece, streets: &mut Streets, connection: &mut Connection) {
        let due = streets.due(connection.hosts[self.end], connection.hosts[1 - self.end]);
        let way = &mut connection.ways[self.end];
        let due = way.flying.back().map_or(due, |(last, _)| due.max(*last));
        way.flying.push_back((due, piece));
    }
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (result, writer) = self.with(|_, connection| {
            let way = &mut connection.ways[1 - self.end];
            if way.ready.is_empty() {
                let result = match way.ended {
                    None => {
                        way.reader = Some(context.waker().clone());
                        Poll::Pending
                    }
                    Some(Ending::Closed) => Poll::Ready(Ok(())),
                    Some(Ending::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                };
                return (result, None);
            }
            while let Some(bytes) = way.ready.front_mut() {
                let count = bytes.len().min(buffer.remaining());
                if count == 0 {
                    break;
                }
                buffer.put_slice(&bytes[..count]);
                bytes.advance(count);
                way.bytes -= count;
                if bytes.is_empty() {
                    way.ready.pop_front();
                }
            }
            (Poll::Ready(Ok(())), way.writer.take())
        });
        if let Some(writer) = writer {
            writer.wake();
        }
        result
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|streets, connection| {
            let broken = connection.ways[1 - self.end].ended == Some(Ending::Reset);
            let way = &mut connection.ways[self.end];
            if broken || way.said {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let count = WINDOW_BYTES.saturating_sub(way.bytes).min(bytes.len());
            if count == 0 && !bytes.is_empty() {
                way.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
            way.bytes += count;
            let piece = Piece::Bytes(Bytes::copy_from_slice(&bytes[..count]));
            self.say(piece, streets, connection);
            Poll::Ready(Ok(count))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|streets, connection| {
            if !std::mem::replace(&mut connection.ways[self.end].said, true) {
                self.say(Piece::End(Ending::Closed), streets, connection);
            }
        });
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.with(|streets, connection| {
            let dark = streets.dark.contains(&connection.hosts[self.end]);
            if !std::mem::replace(&mut connection.ways[self.end].said, true) && !dark {
                self.say(Piece::End(Ending::Closed), streets, connection);
            }
            let way = &mut connection.ways[1 - self.end];
            way.deaf = true;
            way.ready.clear();
            way.reader = None;
        });
    }
}
