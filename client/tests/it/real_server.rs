//! The SDK against a real server, by default at 127.0.0.1:15222 with accounts u0 and u1, passwords p0 and p1. Run by hand:
//!
//! ```text
//! python3 loadtest/compare/servers.py ejabberd --scram-hash sha512      # keeps running
//! cargo test -p heronry-client --test it -- --ignored
//! ```
//!
//! `HERONRY_CLIENT_TEST_PORT` is the port in the clear, direct TLS is at the next one; `HERONRY_CLIENT_TEST_BINDING` switches
//! channel binding on, of which ejabberd 23.01 knows `tls-unique` alone.

use std::{
    env, io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use heronry_client::{
    Client, ConnectError, Event, Events, Options, Password, Request, RequestError, Resumption, Server, Tls, Trust,
    jid::BareJid, message, stanza::Condition, xml::Element,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{ids, next};

fn plain() -> SocketAddr {
    let port = env::var("HERONRY_CLIENT_TEST_PORT").map_or(15222, |port| port.parse().expect("a port"));
    ([127, 0, 0, 1], port).into()
}

fn tls() -> SocketAddr {
    let plain = plain();
    (plain.ip(), plain.port() + 1).into()
}

fn options(user: u32, server: SocketAddr, tls: Tls) -> Options {
    let account = BareJid::parse(&format!("u{user}@localhost")).expect("account");
    Options::new(account, Password::new(&format!("p{user}")).expect("password"))
        .server(Server::Address(server))
        .tls(tls)
        .channel_binding(env::var_os("HERONRY_CLIENT_TEST_BINDING").is_some())
}

type Relay = JoinHandle<io::Result<(u64, u64)>>;

/// A way to the server that can be cut.
struct Cable {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<Relay>>>,
}

impl Cable {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let connections: Arc<Mutex<Vec<Relay>>> = Arc::default();
        let accepted = connections.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let relay = tokio::spawn(async move {
                    let mut far = TcpStream::connect(server).await?;
                    copy_bidirectional(&mut near, &mut far).await
                });
                accepted.lock().expect("no panic").push(relay);
            }
        });
        Self { address, connections }
    }

    fn cut(&self) {
        self.connections
            .lock()
            .expect("no panic")
            .drain(..)
            .for_each(|connection| connection.abort());
    }
}

async fn message_id(events: &mut Events) -> String {
    loop {
        if let Event::Message(message) = next(events).await {
            return message.id.map(String::from).unwrap_or_default();
        }
    }
}

async fn presence(client: &Client) {
    let presence = heronry_client::stanza::Stanza::presence(heronry_client::stanza::PresenceType::Available, []);
    client.send(presence).await.expect("connected");
}

#[tokio::test]
#[ignore = "needs a server: see the head of the file"]
async fn every_way_in_leads_to_a_conversation() {
    for (address, tls) in [
        (plain(), Tls::None),
        (plain(), Tls::StartTls(Trust::dangerous_accept_any())),
        (tls(), Tls::Direct(Trust::dangerous_accept_any())),
    ] {
        let (juliet, _juliet_events) = Client::connect(options(0, address, tls.clone())).await.expect("in");
        let (romeo, mut romeo_events) = Client::connect(options(1, address, tls)).await.expect("in");
        juliet
            .send(message(romeo.jid(), "wherefore").with_id("w"))
            .await
            .expect("connected");
        juliet.flush().await.expect("acknowledged");
        assert_eq!(message_id(&mut romeo_events).await, "w");

        let ping = || Request::get(Element::new("ping", "urn:xmpp:ping"));
        let server = BareJid::parse("localhost").expect("domain");
        assert_eq!(juliet.request(ping().to(server)).await.expect("a pong"), None);
        assert_eq!(
            juliet
                .request(ping().to(romeo.jid()))
                .await
                .expect("a pong of the other client"),
            None
        );
        match juliet
            .request(Request::get(Element::new("launch", "urn:rockets")).to(romeo.jid()))
            .await
        {
            Err(RequestError::Refused(error)) => assert_eq!(error.condition, Condition::ServiceUnavailable),
            other => panic!("{other:?}"),
        }
        juliet.close().await;
        romeo.close().await;
    }
}

#[tokio::test]
#[ignore = "needs a server: see the head of the file"]
async fn a_cut_cable_loses_nothing_in_either_direction() {
    let cable = Cable::to(plain()).await;
    let starttls = Tls::StartTls(Trust::dangerous_accept_any());
    let (juliet, mut juliet_events) = Client::connect(options(0, cable.address, starttls)).await.expect("in");
    let direct = options(1, plain(), Tls::None);
    let (romeo, mut romeo_events) = Client::connect(direct).await.expect("in");
    presence(&juliet).await;
    presence(&romeo).await;
    juliet.flush().await.expect("acknowledged");

    for round in 0..5 {
        for n in 0..10 {
            juliet
                .send(message(romeo.jid(), "to Romeo").with_id(format!("{round}-{n}")))
                .await
                .expect("connected");
            romeo
                .send(message(juliet.jid(), "to Juliet").with_id(format!("{round}-{n}")))
                .await
                .expect("connected");
        }
        cable.cut();
        while !matches!(next(&mut juliet_events).await, Event::Disconnected(_)) {}
        romeo.flush().await.expect("acknowledged");
        let resumed = juliet.resume().await.expect("a connection");
        assert!(matches!(resumed, Resumption::Resumed { .. }), "{resumed:?}");
        for n in 0..10 {
            assert_eq!(message_id(&mut romeo_events).await, format!("{round}-{n}"));
        }
    }
}

#[tokio::test]
#[ignore = "needs a server: see the head of the file"]
async fn a_session_the_server_has_ended_gives_back_what_is_open() {
    let cable = Cable::to(plain()).await;
    let options = options(0, cable.address, Tls::None)
        .resource("same")
        .ping(Duration::from_secs(600), Duration::from_secs(600));
    let (first, mut events) = Client::connect(options.clone()).await.expect("in");
    first.flush().await.expect("acknowledged");
    cable.cut();
    while !matches!(next(&mut events).await, Event::Disconnected(_)) {}
    // The same resource again: the old session is gone.
    let (_second, _second_events) = Client::connect(options).await.expect("in");
    match first.resume().await {
        Ok(Resumption::NewSession { unacknowledged, .. }) => assert!(ids(&unacknowledged).is_empty()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs a server: see the head of the file"]
async fn a_wrong_password_is_not_let_in() {
    let account = BareJid::parse("u0@localhost").expect("account");
    let options = Options::new(account, Password::new("wrong").expect("password"))
        .server(Server::Address(plain()))
        .tls(Tls::None);
    assert!(matches!(
        Client::connect(options).await,
        Err(ConnectError::NotAuthenticated(_))
    ));
}
