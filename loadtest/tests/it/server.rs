//! A server just good enough for the scenarios: logs everybody in whose password is theirs, passes messages on, and knows who
//! sees whom.

use std::{
    collections::{HashMap, HashSet},
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
    /// Pairs of accounts: the first sees the presence of the second.
    sees: Mutex<HashSet<(String, String)>>,
    /// Accounts of which the first has asked to see the second, and has no answer.
    asked: Mutex<HashSet<(String, String)>>,
    /// Sessions that have said that they are there.
    present: Mutex<HashSet<String>>,
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
            sees: Mutex::default(),
            asked: Mutex::default(),
            present: Mutex::default(),
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
        let Some(own) = self.negotiate(&mut stream, &mut frames)? else {
            return Ok(());
        };
        while let Some(Frame::Element(bytes)) = frames.next()? {
            let element = Element::parse_in(&bytes, &Limits::after_auth(), &StreamPrefixes::client()).expect("XML");
            let to = element.attr("to").unwrap_or_default();
            match element.name() {
                "iq" => self.answer(&own, &element)?,
                "presence" => self.presence(&own, &element)?,
                _ => {}
            }
            if let Some(session) = self.sessions.lock().expect("no panic").get_mut(to) {
                session.write_all(&bytes)?;
            }
        }
        stream.write_all(b"</stream:stream>")?;
        self.present.lock().expect("no panic").remove(&own);
        // Other handles of the socket are in the table.
        stream.shutdown(Shutdown::Both)
    }

    /// A roster, to whoever asks for it.
    fn answer(&self, own: &str, request: &Element) -> io::Result<()> {
        let account = bare(own);
        let mut contacts = HashSet::new();
        for (who, whom) in self.sees.lock().expect("no panic").iter() {
            if who == account {
                contacts.insert(whom.clone());
            } else if whom == account {
                contacts.insert(who.clone());
            }
        }
        let items: String = contacts.iter().map(|contact| self.item(account, contact)).collect();
        let id = request.attr("id").unwrap_or_default();
        self.say(
            own,
            &format!("<iq type='result' id='{id}'><query xmlns='jabber:iq:roster'>{items}</query></iq>"),
        )
    }

    fn item(&self, account: &str, contact: &str) -> String {
        let sees = self.sees.lock().expect("no panic");
        let sees = |who: &str, whom: &str| sees.contains(&(who.to_owned(), whom.to_owned()));
        let subscription = match (sees(account, contact), sees(contact, account)) {
            (false, false) => "none",
            (true, false) => "to",
            (false, true) => "from",
            (true, true) => "both",
        };
        format!("<item jid='{contact}' subscription='{subscription}'/>")
    }

    fn presence(&self, own: &str, presence: &Element) -> io::Result<()> {
        let account = bare(own);
        match (presence.attr("type"), presence.attr("to")) {
            (Some("subscribe"), Some(to)) => {
                self.asked
                    .lock()
                    .expect("no panic")
                    .insert((account.to_owned(), to.to_owned()));
                self.say_to_all(to, &format!("<presence type='subscribe' from='{account}'/>"))
            }
            (Some("subscribed"), Some(to)) => {
                self.asked
                    .lock()
                    .expect("no panic")
                    .remove(&(to.to_owned(), account.to_owned()));
                self.sees
                    .lock()
                    .expect("no panic")
                    .insert((to.to_owned(), account.to_owned()));
                for (one, other) in [(account, to), (to, account)] {
                    let item = self.item(one, other);
                    self.say_to_all(
                        one,
                        &format!("<iq type='set' id='push'><query xmlns='jabber:iq:roster'>{item}</query></iq>"),
                    )?;
                }
                Ok(())
            }
            (None, None) => {
                self.present.lock().expect("no panic").insert(own.to_owned());
                let asked = self.asked.lock().expect("no panic").clone();
                for (from, _) in asked.iter().filter(|(_, to)| to == account) {
                    self.say(own, &format!("<presence type='subscribe' from='{from}'/>"))?;
                }
                let sees = self.sees.lock().expect("no panic").clone();
                for session in self.present.lock().expect("no panic").iter() {
                    if sees.contains(&(bare(session).to_owned(), account.to_owned())) {
                        self.say(session, &format!("<presence from='{own}'/>"))?;
                    }
                    if sees.contains(&(account.to_owned(), bare(session).to_owned())) {
                        self.say(own, &format!("<presence from='{session}'/>"))?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn say_to_all(&self, account: &str, words: &str) -> io::Result<()> {
        let of_account = |session: &&String| bare(session) == account;
        let sessions: Vec<String> = {
            let sessions = self.sessions.lock().expect("no panic");
            sessions.keys().filter(of_account).cloned().collect()
        };
        sessions.iter().try_for_each(|session| self.say(session, words))
    }

    /// Those who are gone hear nothing.
    fn say(&self, session: &str, words: &str) -> io::Result<()> {
        if let Some(session) = self.sessions.lock().expect("no panic").get_mut(session) {
            let _ = session.write_all(words.as_bytes());
        }
        Ok(())
    }

    fn negotiate(&self, stream: &mut TcpStream, frames: &mut Frames) -> io::Result<Option<String>> {
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
                        return Ok(Some(request.jid.as_str().to_owned()));
                    }
                    Output::Close(_) => return Ok(None),
                    _ => {}
                }
            }
        }
        Ok(None)
    }
}

fn bare(session: &str) -> &str {
    session.split('/').next().unwrap_or_default()
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
