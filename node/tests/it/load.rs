//! A little of everything that a broker has to do, for tests of what operators see.

use std::net::SocketAddr;

use heronry_client::{
    Client, Mechanism, Options, Password, Request, Server, Tls, Trust,
    jid::BareJid,
    message,
    stanza::{PresenceType, Stanza},
    xml::Element,
};

use crate::{broker::Device, process::Place};

/// Passwords and bodies that must not be seen anywhere but where they belong.
pub(crate) const PASSWORD: &str = "correct-horse-battery-staple";
pub(crate) const BODY: &str = "the-lark-the-herald-of-the-morn";

/// Makes the accounts of [`Load`].
pub(crate) fn accounts(place: &Place) {
    for name in ["juliet", "romeo", "nurse"] {
        let jid = format!("{name}@localhost");
        place.run(&["user", "add", &jid, "--password", PASSWORD]).ok();
    }
}

/// Two devices that talk.
pub(crate) struct Load {
    juliet: Device,
    romeo: Device,
    clear: SocketAddr,
    nurse: Options,
}

impl Load {
    /// Logs in, once with TLS from the first byte and once over STARTTLS; and fails to, with each mechanism.
    pub(crate) async fn begin(place: &Place) -> Self {
        let (clear, direct) = ((place.ip, 5222).into(), (place.ip, 5223).into());
        let options = |name: &str, password: &str| {
            let jid = BareJid::parse(&format!("{name}@localhost")).unwrap();
            Options::new(jid, Password::new(password).unwrap())
        };
        let over_starttls = |options: Options| {
            let tls = Tls::StartTls(Trust::dangerous_accept_any());
            options.server(Server::Address(clear)).tls(tls)
        };
        let directly = |options: Options| {
            let tls = Tls::Direct(Trust::dangerous_accept_any());
            options.server(Server::Address(direct)).tls(tls)
        };
        for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
            let mechanism = Mechanism::from_name(mechanism).unwrap();
            let wrong = over_starttls(options("juliet", &format!("{PASSWORD}-wrong")));
            let refused = Client::connect(wrong.mechanism(mechanism).channel_binding(false)).await;
            assert!(refused.is_err());
        }
        let plain = Mechanism::from_name("PLAIN").unwrap();
        let juliet = Device::connect(over_starttls(options("juliet", PASSWORD)).mechanism(plain)).await;
        let romeo = Device::connect(directly(options("romeo", PASSWORD))).await;
        for device in [&juliet, &romeo] {
            let nobody: [&Element; 0] = [];
            device
                .client
                .send(Stanza::presence(PresenceType::Available, nobody))
                .await
                .unwrap();
        }
        let nurse = directly(options("nurse", PASSWORD));
        Self {
            juliet,
            romeo,
            clear,
            nurse,
        }
    }

    /// Messages there and back, to somebody who is away, and requests that are answered and refused.
    pub(crate) async fn some(&mut self) {
        let (juliet, romeo) = (self.juliet.client.jid(), self.romeo.client.jid());
        for n in 0..10 {
            let body = format!("{BODY}-{n}");
            self.juliet.client.send(message(romeo.clone(), &body)).await.unwrap();
            assert_eq!(self.romeo.text().await, body);
            self.romeo.client.send(message(juliet.clone(), &body)).await.unwrap();
            assert_eq!(self.juliet.text().await, body);
        }
        let away = BareJid::parse("nurse@localhost").unwrap();
        self.romeo.client.send(message(away, BODY)).await.unwrap();
        let note = Element::new("note", "urn:example:note").with_text(BODY);
        let query = Element::new("query", "jabber:iq:private").with_child(note);
        self.juliet.client.request(Request::set(query)).await.unwrap();
        let nonsense = Element::new("query", "urn:example:nonsense").with_text(BODY);
        self.juliet.client.request(Request::get(nonsense)).await.unwrap_err();
        let mut nurse = Device::connect(self.nurse.clone()).await;
        let nobody: [&Element; 0] = [];
        nurse
            .client
            .send(Stanza::presence(PresenceType::Available, nobody))
            .await
            .unwrap();
        assert_eq!(nurse.text().await, BODY);
        nurse.client.close().await;
        // Somebody who hangs up at once.
        drop(tokio::net::TcpStream::connect(self.clear).await.unwrap());
    }

    pub(crate) async fn end(self) {
        self.juliet.client.close().await;
        self.romeo.client.close().await;
    }
}

/// What a page of the admin port says.
pub(crate) async fn page(place: &Place, path: &str) -> String {
    http(SocketAddr::from((place.ip, 5280)), &format!("GET {path}"), "").await
}

/// The body of an answer over HTTP/1.0, which ends with the connection.
pub(crate) async fn http(address: SocketAddr, request: &str, body: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{request} HTTP/1.0\r\nhost: {address}\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}
