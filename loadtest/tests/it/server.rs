//! A server just good enough for the scenarios: logs everybody in whose password is theirs, and passes messages on.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use heronry_client::{
    Password,
    jid::BareJid,
    xml::{Element, Frame, Framer, Limits, StreamPrefixes},
};
use heronry_xmpp::{
    sasl::{Credentials, ScramKeys, UnknownUsers},
    stream::{Output, Responder, ResponderConfig, TlsPolicy},
};

pub(crate) struct Server {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<ResponderConfig>,
    sessions: Mutex<HashMap<String, TcpStream>>,
    logins: AtomicUsize,
}

impl Server {
    pub(crate) fn start() -> Self {
        let domain = BareJid::parse("localhost").expect("domain");
        let mut config = ResponderConfig::new(vec![domain], UnknownUsers::new(b"0123456789abcdef", &[]));
        config.tls = TlsPolicy::Off;
        let shared = Arc::new(Shared {
            config: Arc::new(config),
            sessions: Mutex::default(),
            logins: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound").to_string();
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, shared) = (stream.expect("loopback"), accepting.clone());
                // Clients that go away are no failure of a test.
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn logins(&self) -> usize {
        self.shared.logins.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut frames = Frames {
            stream: stream.try_clone()?,
            framer: Framer::new(),
            unread: Vec::new(),
        };
        if !self.negotiate(&mut stream, &mut frames)? {
            return Ok(());
        }
        while let Some(Frame::Element(bytes)) = frames.next()? {
            let element = Element::parse_in(&bytes, &Limits::after_auth(), &StreamPrefixes::client()).expect("XML");
            let to = element.attr("to").unwrap_or_default();
            if let Some(session) = self.sessions.lock().expect("no panic").get_mut(to) {
                session.write_all(&bytes)?;
            }
        }
        stream.write_all(b"</stream:stream>")?;
        // Other handles of the socket are in the table.
        stream.shutdown(Shutdown::Both)
    }

    fn negotiate(&self, stream: &mut TcpStream, frames: &mut Frames) -> io::Result<bool> {
        let mut responder = Responder::new(self.config.clone(), None);
        let mut seed = 0_u8;
        let mut random = move |bytes: &mut [u8]| {
            seed = seed.wrapping_add(1);
            bytes.fill(seed);
        };
        while let Some(frame) = frames.next()? {
            let mut outputs = responder.frame(frame, &mut random);
            while !outputs.is_empty() {
                match outputs.remove(0) {
                    Output::Send(bytes) => stream.write_all(&bytes)?,
                    Output::Restart => frames.framer.restart(),
                    Output::AskCredentials(request) => {
                        let number = request.account.local().unwrap_or_default().trim_start_matches('u');
                        let password = Password::new(&format!("p{number}")).expect("password");
                        let keys = ScramKeys::derive(request.hash.expect("SCRAM"), &password, b"pepper", 4096);
                        let credentials = Credentials::Keys {
                            keys: keys.expect("keys"),
                            version: 1,
                        };
                        outputs.extend(responder.credentials(credentials, &mut random));
                    }
                    Output::Bind(request) => {
                        self.logins.fetch_add(1, Ordering::SeqCst);
                        let session = stream.try_clone()?;
                        self.sessions
                            .lock()
                            .expect("no panic")
                            .insert(request.jid.as_str().to_owned(), session);
                        stream.write_all(&responder.bound(&request.jid).send)?;
                        return Ok(true);
                    }
                    Output::Close(_) => return Ok(false),
                    _ => {}
                }
            }
        }
        Ok(false)
    }
}

struct Frames {
    stream: TcpStream,
    framer: Framer,
    unread: Vec<u8>,
}

impl Frames {
    fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let mut input = &self.unread[..];
            let frame = self
                .framer
                .next(&mut input, &Limits::after_auth())
                .map_err(io::Error::other)?;
            self.unread = input.to_vec();
            if frame.is_some() {
                return Ok(frame);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes)? {
                0 => return Ok(None),
                count => self.unread.extend_from_slice(&bytes[..count]),
            }
        }
    }
}
