//! The conversations of `xmpp/tests/conversations`, over TCP with a whole node.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use heronry_node::{admin::Broker as _, config::Mechanism};
use heronry_xmpp::{
    jid::FullJid,
    testkit::conversation::{Action, Conversation, DOMAIN, How, Puppet, Stage, play, read_all},
    xml::Element,
};

use crate::broker::{Broker, PATIENCE};

/// How long it must be quiet after everybody's ping has been answered. Too short a time only overlooks what comes too late.
const QUIET: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn conversations_come_true_over_tcp() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xmpp/tests/conversations");
    let conversations = read_all(&directory);
    assert!(!conversations.is_empty(), "there are no conversations");
    let mut failed = Vec::new();
    for (name, conversation) in conversations {
        let broker = Broker::with(|config| {
            config.domains = vec![DOMAIN.to_owned()];
            config.tls.required = false;
            config.auth.mechanisms = vec![Mechanism::ScramSha1];
        })
        .await;
        for account in &conversation.accounts {
            let node = broker.node.broker();
            node.user_add(account.clone(), vec![Puppet::keys()]).await.unwrap();
        }
        let address = broker.c2s();
        let played =
            tokio::task::spawn_blocking(move || play(&conversation, &mut Sockets::new(address, &conversation)));
        if let Err(problem) = played.await.unwrap() {
            failed.push(format!("{name}: {problem}"));
        }
        broker.node.shutdown().await;
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// The devices of a conversation, with their sockets.
struct Sockets {
    address: SocketAddr,
    devices: BTreeMap<FullJid, Device>,
    pings: u32,
}

struct Device {
    puppet: Puppet,
    socket: Option<TcpStream>,
}

impl Device {
    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match (action, &mut self.socket) {
                (Action::Send(bytes), Some(socket)) => {
                    // What the broker has closed is read to its end below.
                    let _ = socket.write_all(&bytes);
                }
                (Action::HangUp, socket) => *socket = None,
                (Action::Send(_), None) => {}
            }
        }
    }

    /// Takes in what has come, waiting for something at most this long; says whether anything has.
    fn read(&mut self, patience: Duration) -> bool {
        let Some(socket) = &mut self.socket else { return false };
        socket
            .set_read_timeout(Some(patience.max(Duration::from_millis(1))))
            .unwrap();
        let mut bytes = [0; 16 << 10];
        match socket.read(&mut bytes) {
            Ok(0) => {
                self.puppet.cut();
                self.socket = None;
                false
            }
            Ok(length) => {
                let actions = self.puppet.receive(&bytes[..length]);
                self.perform(actions);
                true
            }
            Err(_) => false,
        }
    }

    /// Takes in what comes until `done`; gives up after a while.
    fn read_until(&mut self, done: impl Fn(&mut Self) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if done(self) {
                return true;
            }
            let Some(left) = deadline
                .checked_duration_since(Instant::now())
                .filter(|_| self.socket.is_some())
            else {
                return done(self);
            };
            self.read(left);
        }
    }
}

impl Sockets {
    fn new(address: SocketAddr, conversation: &Conversation) -> Self {
        let device = |(seed, jid): (u64, &FullJid)| {
            let puppet = Puppet::new(jid, seed);
            (jid.clone(), Device { puppet, socket: None })
        };
        Self {
            address,
            devices: (0..).zip(&conversation.devices).map(device).collect(),
            pings: 0,
        }
    }

    fn device(&mut self, who: &FullJid) -> &mut Device {
        self.devices.get_mut(who).expect("a device of the conversation")
    }
}

impl Stage for Sockets {
    fn connect(&mut self, who: &FullJid, how: How) {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_nodelay(true).unwrap();
        let device = self.device(who);
        device.socket = Some(socket);
        let opening = device.puppet.connect(how);
        device.perform(vec![Action::Send(opening)]);
        assert!(
            device.read_until(|device| device.puppet.is_online()),
            "{who} cannot log in"
        );
    }

    fn disconnect(&mut self, who: &FullJid) {
        let device = self.device(who);
        device.perform(vec![Action::Send(b"</stream:stream>".to_vec())]);
        assert!(
            device.read_until(|device| device.puppet.is_offline()),
            "{who}'s stream does not end"
        );
        device.socket = None;
    }

    fn cut(&mut self, who: &FullJid) {
        let device = self.device(who);
        device.puppet.cut();
        device.socket = None;
    }

    fn say(&mut self, who: &FullJid, element: &Element) {
        let device = self.device(who);
        let actions = device.puppet.say(element);
        device.perform(actions);
    }

    fn hear(&mut self, who: &FullJid) -> Option<Element> {
        let device = self.device(who);
        device.read_until(|device| !device.puppet.heard().is_empty());
        device.puppet.heard().pop_front()
    }

    /// Whoever is there pings the server, twice: what was said before is done then, as far as it stays in one account, and once
    /// more for what it causes elsewhere.
    fn quiet(&mut self) -> Vec<(FullJid, Element)> {
        for _ in 0..2 {
            self.pings += 1;
            let id = format!("quiet-{}", self.pings);
            let ping = Element::new("iq", "jabber:client")
                .with_attr("type", "get")
                .with_attr("id", &id)
                .with_attr("to", DOMAIN)
                .with_child(Element::new("ping", "urn:xmpp:ping"));
            let answer = |element: &Element| element.name() == "iq" && element.attr("id") == Some(&id);
            let listens = |puppet: &Puppet| puppet.is_online() && !puppet.is_inactive();
            for device in self.devices.values_mut().filter(|device| listens(&device.puppet)) {
                let actions = device.puppet.say(&ping);
                device.perform(actions);
                device.read_until(|device| device.puppet.heard().iter().any(answer));
                device.puppet.heard().retain(|element| !answer(element));
            }
        }
        let mut heard = Vec::new();
        std::thread::sleep(QUIET);
        for (jid, device) in &mut self.devices {
            while device.puppet.is_online() && device.read(Duration::ZERO) {}
            heard.extend(device.puppet.heard().drain(..).map(|element| (jid.clone(), element)));
        }
        heard
    }
}
