//! The floor of every comparison: a relay of epoll, read and write that understands nothing of what it relays.
//!
//! A connection says first which pair it belongs to (four bytes, little endian) and which side it is (one byte, 0 or 1).
//! From then on whatever one side says the other hears.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
};

use rustix::event::epoll;

/// Length of what a connection says first.
pub const HELLO_BYTES: usize = 5;

const LISTENER: u64 = u64::MAX;
const BUFFER_BYTES: usize = 64 * 1024;

/// What a connection says first.
pub fn hello(pair: u32, side: u8) -> [u8; HELLO_BYTES] {
    let [a, b, c, d] = pair.to_le_bytes();
    [a, b, c, d, side]
}

/// Relays until the process ends, or until waiting or accepting fails.
///
/// # Errors
/// Whatever epoll or accept fail with. A connection that fails is only closed.
pub fn run(listener: &TcpListener) -> io::Result<()> {
    let mut relay = Relay {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        ends: HashMap::new(),
    };
    epoll::add(
        &relay.epoll,
        listener,
        epoll::EventData::new_u64(LISTENER),
        epoll::EventFlags::IN,
    )?;
    let mut events = Vec::with_capacity(256);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        events.clear();
        match epoll::wait(&relay.epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => relay.accept(listener)?,
                end => relay.pass_on(end, &mut buffer),
            }
        }
    }
}

struct Relay {
    epoll: std::os::fd::OwnedFd,
    /// By pair and side: twice the pair's number, plus the side.
    ends: HashMap<u64, TcpStream>,
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        // Blocking sockets: read only when epoll says so, and a write waits for a peer that always reads.
        stream.set_nodelay(true)?;
        let mut hello = [0; HELLO_BYTES];
        if stream.read_exact(&mut hello).is_err() {
            return Ok(());
        }
        let [a, b, c, d, side] = hello;
        let end = u64::from(u32::from_le_bytes([a, b, c, d])) * 2 + u64::from(side & 1);
        self.ends.insert(end, stream);
        // Nobody is listened to before there is somebody to tell.
        if self.ends.contains_key(&(end ^ 1)) {
            for end in [end, end ^ 1] {
                let stream = &self.ends[&end];
                epoll::add(
                    &self.epoll,
                    stream,
                    epoll::EventData::new_u64(end),
                    epoll::EventFlags::IN,
                )?;
            }
        }
        Ok(())
    }

    fn pass_on(&mut self, end: u64, buffer: &mut [u8]) {
        let Some(mut from) = self.ends.get(&end) else { return };
        let to = self.ends.get(&(end ^ 1));
        let done = match from.read(buffer) {
            Ok(0) | Err(_) => true,
            Ok(count) => to.is_none_or(|mut to| to.write_all(&buffer[..count]).is_err()),
        };
        if done {
            self.ends.remove(&end); // closing takes it out of the epoll set
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_says_the_other_hears() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || run(&listener));
        let connect = |pair, side| {
            let mut stream = TcpStream::connect(address).expect("relay");
            stream.write_all(&hello(pair, side)).expect("relay");
            stream
        };
        let (mut a, mut other) = (connect(7, 0), connect(8, 0));
        let (mut b, _other_b) = (connect(7, 1), connect(8, 1));
        let mut heard = [0; 5];
        a.write_all(b"hello").expect("relay");
        b.read_exact(&mut heard).expect("relay");
        assert_eq!(&heard, b"hello");
        b.write_all(b"there").expect("relay");
        a.read_exact(&mut heard).expect("relay");
        assert_eq!(&heard, b"there");
        other.set_nonblocking(true).expect("socket");
        assert_eq!(
            other.read(&mut heard).expect_err("nothing for it").kind(),
            io::ErrorKind::WouldBlock
        );
    }
}
