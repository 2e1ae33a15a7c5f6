//! Clients of a whole node: logging in, talking, going away and coming back.

use heronry_client::{
    Client, ConnectError, Disconnect, Event, Mechanism, Options, Password, Request, RequestError, Resumption, Server,
    StreamCondition, Tls, Trust,
    jid::{BareJid, FullJid, Jid},
    message,
    stanza::{PresenceType, Stanza},
    xml::Element,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    broker::{Broker, Device, PATIENCE},
    proxy::Proxy,
};

fn full(text: &str) -> FullJid {
    BareJid::parse("juliet@localhost").unwrap().with_resource(text).unwrap()
}

/// A private element of XEP-0049 in its query.
fn note(text: &str) -> Element {
    let note = Element::new("note", "urn:example:note").with_text(text);
    Element::new("query", "jabber:iq:private").with_child(note)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_talk_over_starttls_and_direct_tls() {
    let broker = Broker::start().await;
    let mut juliet = broker.device("juliet").await;
    broker.user("romeo").await;
    let direct = |options: Options| {
        options
            .server(Server::Address(broker.c2s_tls()))
            .tls(Tls::Direct(Trust::dangerous_accept_any()))
    };
    let mut romeo = Device::connect(direct(broker.options("romeo"))).await;

    let (to_romeo, to_juliet) = (romeo.client.jid(), juliet.client.jid());
    juliet
        .client
        .send(message(to_romeo, "wherefore art thou"))
        .await
        .unwrap();
    assert_eq!(romeo.text().await, "wherefore art thou");
    romeo
        .client
        .send(message(to_juliet, "I take thee at thy word"))
        .await
        .unwrap();
    assert_eq!(juliet.text().await, "I take thee at thy word");
    broker.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_sender_arrive_in_their_order() {
    let broker = Broker::start().await;
    let mut juliet = broker.device("juliet").await;
    let romeo = broker.device("romeo").await;
    let to = juliet.client.jid();
    let sent = tokio::spawn(async move {
        for n in 0..2000 {
            romeo.client.send(message(to.clone(), &n.to_string())).await.unwrap();
        }
        romeo.client.flush().await.unwrap();
    });
    for n in 0..2000 {
        assert_eq!(juliet.text().await, n.to_string());
    }
    sent.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mechanism_that_is_offered_lets_in_and_a_wrong_password_does_not() {
    let broker = Broker::start().await;
    broker.user("juliet").await;
    for mechanism in ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN"] {
        let mechanism = Mechanism::from_name(mechanism).unwrap();
        // A client that could bind to the channel says so when it does not, and the server wonders why (RFC 5802 §6).
        let plus = matches!(mechanism, Mechanism::Scram { plus: true, .. });
        Device::connect(broker.options("juliet").mechanism(mechanism).channel_binding(plus)).await;
        for account in ["juliet@localhost", "nobody@localhost"] {
            let wrong = Options::new(BareJid::parse(account).unwrap(), Password::new("wrong").unwrap())
                .server(Server::Address(broker.c2s()))
                .tls(Tls::StartTls(Trust::dangerous_accept_any()))
                .channel_binding(plus)
                .mechanism(mechanism);
            let error = Client::connect(wrong).await.unwrap_err();
            assert!(
                matches!(error, ConnectError::NotAuthenticated(_)),
                "{mechanism} {account}: {error}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_of_two_connections_with_one_resource_stays() {
    let broker = Broker::start().await;
    broker.user("juliet").await;
    let balcony = || broker.options("juliet").resource("balcony");
    let mut first = Device::connect(balcony()).await;
    let second = Device::connect(balcony()).await;
    assert_eq!(second.client.jid(), full("balcony"));
    let Event::Disconnected(Disconnect::Refused(error)) = first.event().await else {
        panic!("the first connection goes on");
    };
    assert_eq!(error.condition, StreamCondition::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_domain_answers_disco_and_pings() {
    let broker = Broker::start().await;
    let juliet = broker.device("juliet").await;
    let domain: Jid = Jid::parse("localhost").unwrap();
    let disco = "http://jabber.org/protocol/disco#info";
    let asked = Request::get(Element::new("query", disco)).to(domain.clone());
    let info = juliet.client.request(asked).await.unwrap().unwrap();
    assert!(info.child("identity", disco).is_some());
    let ping = Request::get(Element::new("ping", "urn:xmpp:ping")).to(domain.clone());
    assert!(juliet.client.request(ping).await.unwrap().is_none());
    let unknown = Request::get(Element::new("query", "urn:example:unknown")).to(domain);
    let refused = juliet.client.request(unknown).await.unwrap_err();
    assert!(matches!(refused, RequestError::Refused(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_keeps_at_its_account_survives_a_restart() {
    let broker = Broker::start().await;
    let juliet = broker.device("juliet").await;
    juliet.client.request(Request::set(note("the lark"))).await.unwrap();

    let broker = broker.restart().await;
    let juliet = Device::connect(broker.options("juliet")).await;
    let answer = juliet.client.request(Request::get(note(""))).await.unwrap().unwrap();
    assert_eq!(answer.child("note", "urn:example:note").unwrap().text(), "the lark");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_for_an_account_that_is_away_wait_in_its_store_also_through_a_restart() {
    let broker = Broker::start().await;
    let juliet = broker.user("juliet").await;
    let romeo = broker.device("romeo").await;
    for n in 0..100 {
        romeo
            .client
            .send(message(juliet.clone(), &n.to_string()))
            .await
            .unwrap();
    }
    romeo.client.flush().await.unwrap();

    let broker = broker.restart().await;
    let mut juliet = Device::connect(broker.options("juliet")).await;
    juliet
        .client
        .send(Stanza::presence(PresenceType::Available, []))
        .await
        .unwrap();
    for n in 0..100 {
        assert_eq!(juliet.text().await, n.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_session_is_resumed_and_nothing_is_lost() {
    let broker = Broker::start().await;
    let proxy = Proxy::start(broker.c2s()).await;
    broker.user("juliet").await;
    let through_proxy = broker.options("juliet").server(Server::Address(proxy.address()));
    let mut juliet = Device::connect(through_proxy).await;
    let romeo = broker.device("romeo").await;
    let to = juliet.client.jid();
    let mut sent = 0;
    for _ in 0..3 {
        romeo.client.send(message(to.clone(), &sent.to_string())).await.unwrap();
        romeo.client.flush().await.unwrap();
        proxy.cut();
        for n in sent + 1..sent + 50 {
            romeo.client.send(message(to.clone(), &n.to_string())).await.unwrap();
        }
        romeo.client.flush().await.unwrap();
        let mut seen = Vec::new();
        loop {
            match juliet.event().await {
                Event::Message(_) => seen.push(()),
                Event::Disconnected(_) => break,
                other => panic!("{other:?}"),
            }
        }
        let resumption = juliet.client.resume().await.unwrap();
        assert!(matches!(resumption, Resumption::Resumed { .. }), "{resumption:?}");
        for n in sent + seen.len()..sent + 50 {
            assert_eq!(juliet.text().await, n.to_string());
        }
        sent += 50;
    }
    assert_eq!(juliet.client.jid(), to);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_a_restart_of_the_broker() {
    let broker = Broker::start().await;
    broker.user("juliet").await;
    let mut juliet = Device::connect(broker.options("juliet").server(Server::Address(broker.c2s()))).await;
    let to = juliet.client.jid();
    let address = broker.c2s();
    let mut broker = broker;
    broker.config.edge.c2s = vec![address];
    let broker = broker.restart().await;
    let Event::Disconnected(Disconnect::Refused(error)) = juliet.event().await else {
        panic!("the stream ended without a word");
    };
    assert_eq!(error.condition, StreamCondition::SystemShutdown);

    let romeo = broker.device("romeo").await;
    romeo
        .client
        .send(message(to.clone(), "while you were away"))
        .await
        .unwrap();
    romeo.client.flush().await.unwrap();
    let resumption = juliet.client.resume().await.unwrap();
    assert!(matches!(resumption, Resumption::Resumed { .. }), "{resumption:?}");
    assert_eq!(juliet.text().await, "while you were away");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_between_devices_are_answered_by_the_device_or_by_its_absence() {
    let broker = Broker::start().await;
    let juliet = broker.device("juliet").await;
    let romeo = broker.device("romeo").await;
    let ping = |to: FullJid| Request::get(Element::new("ping", "urn:xmpp:ping")).to(to);
    let other = Device::connect(broker.options("juliet")).await;
    // The client answers pings itself.
    assert!(other.client.request(ping(juliet.client.jid())).await.unwrap().is_none());
    let nobody = other.client.request(ping(full("nowhere"))).await.unwrap_err();
    assert!(matches!(nobody, RequestError::Refused(_)), "{nobody}");
    // Whoever may not see a device cannot tell whether it is there (RFC 6121 §8.5.3.2.3).
    for to in [juliet.client.jid(), full("nowhere")] {
        let hidden = romeo.client.request(ping(to)).await.unwrap_err();
        assert!(matches!(hidden, RequestError::Refused(_)), "{hidden}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stanza_beyond_the_limit_ends_the_stream_with_policy_violation() {
    let broker = Broker::with(|config| config.limits.stanza_bytes_max = 20_000).await;
    let mut juliet = broker.device("juliet").await;
    let to = juliet.client.jid();
    juliet
        .client
        .send(message(to.clone(), &"x".repeat(19_000)))
        .await
        .unwrap();
    assert_eq!(juliet.text().await.len(), 19_000);
    juliet.client.send(message(to, &"x".repeat(21_000))).await.unwrap();
    let Event::Disconnected(Disconnect::Refused(error)) = juliet.event().await else {
        panic!("the stream goes on");
    };
    assert_eq!(error.condition, StreamCondition::PolicyViolation);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_does_not_read_holds_up_nobody() {
    let broker = Broker::start().await;
    broker.user("juliet").await;
    let deaf = broker.options("juliet").resource("deaf");
    let deaf = heronry_client::connection::OpenSession::open(&deaf).await.unwrap();
    let mut hearing = Device::connect(broker.options("juliet").resource("hearing")).await;
    // What comes back is of no interest.
    let Device { client: romeo, .. } = broker.device("romeo").await;
    let body = "x".repeat(10_000);
    // Far more than sockets and credit hold.
    for _ in 0..2000 {
        romeo.send(message(deaf.jid.clone(), &body)).await.unwrap();
    }
    romeo.send(message(hearing.client.jid(), "you hear")).await.unwrap();
    romeo.flush().await.unwrap();
    assert_eq!(hearing.text().await, "you hear");
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_is_not_read_faster_than_its_stanzas_are_accepted() {
    let broker = Broker::start().await;
    broker.user("juliet").await;
    let romeo = broker.device("romeo").await;
    let juliet = BareJid::parse("juliet@localhost").unwrap();
    // Each is stored: the disk sets the pace, and no message is refused for it before the store is full.
    for n in 0..900 {
        romeo
            .client
            .send(message(juliet.clone(), &n.to_string()))
            .await
            .unwrap();
    }
    romeo.client.flush().await.unwrap();
    let mut juliet = Device::connect(broker.options("juliet")).await;
    juliet
        .client
        .send(Stanza::presence(PresenceType::Available, []))
        .await
        .unwrap();
    for n in 0..900 {
        assert_eq!(juliet.text().await, n.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_talk_at_once() {
    const DEVICES: usize = 200;
    let broker = Broker::with(|config| config.tls.required = false).await;
    let mut devices = Vec::new();
    for n in 0..DEVICES {
        let name = format!("device{n}");
        broker.user(&name).await;
        devices.push(Device::connect(broker.options(&name).tls(Tls::None)).await);
    }
    let addresses: Vec<_> = devices.iter().map(|device| device.client.jid()).collect();
    let mut talking = tokio::task::JoinSet::new();
    for (n, mut device) in devices.into_iter().enumerate() {
        let to = addresses[(n + 1) % DEVICES].clone();
        talking.spawn(async move {
            for count in 0..20 {
                device
                    .client
                    .send(message(to.clone(), &count.to_string()))
                    .await
                    .unwrap();
            }
            for count in 0..20 {
                assert_eq!(device.text().await, count.to_string());
            }
            device.client.close().await;
        });
    }
    while let Some(done) = talking.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_says_nothing_is_asked_to_leave() {
    let broker = Broker::with(|config| {
        config.limits.before_auth.negotiation_timeout = std::time::Duration::from_millis(700);
    })
    .await;
    let mut socket = tokio::net::TcpStream::connect(broker.c2s()).await.unwrap();
    socket.write_all(b"<?xml version='1.0'?><stream:stream ").await.unwrap();
    let mut said = String::new();
    tokio::time::timeout(PATIENCE, socket.read_to_string(&mut said))
        .await
        .unwrap()
        .unwrap();
    assert!(
        said.contains("<connection-timeout") && said.ends_with("</stream:stream>"),
        "{said}"
    );

    let mut silent = tokio::net::TcpStream::connect(broker.c2s_tls()).await.unwrap();
    let mut said = Vec::new();
    tokio::time::timeout(PATIENCE, silent.read_to_end(&mut said))
        .await
        .unwrap()
        .unwrap();
    assert!(said.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_of_one_address_are_limited_and_devices_are_not() {
    let broker = Broker::with(|config| config.limits.before_auth.connections_per_address_max = 2).await;
    let _one = broker.device("juliet").await;
    let _two = broker.device("romeo").await;
    let open = || tokio::net::TcpStream::connect(broker.c2s());
    let (_first, _second) = (open().await.unwrap(), open().await.unwrap());
    // Both are accepted before the third is: there is one listener.
    let mut third = open().await.unwrap();
    let mut said = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, third.read_to_end(&mut said))
        .await
        .unwrap();
    assert!(said.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn text_in_the_clear_is_forgotten_when_tls_begins() {
    let broker = Broker::start().await;
    let mut socket = tokio::net::TcpStream::connect(broker.c2s()).await.unwrap();
    // RFC 6120 §5.4.3.3: what follows <starttls/> must not be taken for something said under TLS.
    let injected = "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                    xmlns:stream='http://etherx.jabber.org/streams'>\
                    <starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' \
                    mechanism='PLAIN'>AGp1bGlldABqdWxpZXQ=</auth>";
    socket.write_all(injected.as_bytes()).await.unwrap();
    let mut said = String::new();
    let mut buffer = [0; 4096];
    while !said.contains("<proceed") {
        let length = tokio::time::timeout(PATIENCE, socket.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert!(length > 0, "{said}");
        said.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
    assert!(
        said.ends_with("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
        "{said}"
    );
    // What is no TLS ends the connection without a word (RFC 6120 §5.4.3.2).
    socket.write_all(b"<auth/>\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut rest))
        .await
        .unwrap();
    assert!(!rest.starts_with(b"<"), "{}", rest.escape_ascii());
}

#[tokio::test(flavor = "multi_thread")]
async fn stanzas_that_cannot_be_processed_are_answered_in_their_turn() {
    let broker = Broker::start().await;
    broker.user("juliet").await;
    let options = broker.options("juliet");
    let mut session = heronry_client::connection::OpenSession::open(&options).await.unwrap();
    let three = "<iq type='get' id='a'><ping xmlns='urn:xmpp:ping'/></iq>\
                 <iq type='nonsense' id='b'><ping xmlns='urn:xmpp:ping'/></iq>\
                 <iq type='get' id='c' to='@'><ping xmlns='urn:xmpp:ping'/></iq>\
                 <iq type='get' id='d'><ping xmlns='urn:xmpp:ping'/></iq>";
    session.transport.write_all(three.as_bytes()).await.unwrap();
    let mut said = String::new();
    let mut buffer = [0; 4096];
    while !said.contains("id='d'") && !said.contains("id=\"d\"") {
        let length = tokio::time::timeout(PATIENCE, session.transport.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert!(length > 0, "{said}");
        said.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
    let place = |id: char| {
        said.find(&format!("id='{id}'"))
            .or_else(|| said.find(&format!("id=\"{id}\"")))
            .unwrap()
    };
    assert!(
        place('a') < place('b') && place('b') < place('c') && place('c') < place('d'),
        "{said}"
    );
    assert!(said.contains("bad-request") && said.contains("jid-malformed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_an_account_ends_its_sessions() {
    use heronry_node::admin::{Broker as _, BrokerError};
    let broker = Broker::start().await;
    let mut juliet = broker.device("juliet").await;
    let jid = BareJid::parse("juliet@localhost").unwrap();
    broker.node.broker().user_delete(jid.clone()).await.unwrap();
    let Event::Disconnected(Disconnect::Refused(error)) = juliet.event().await else {
        panic!("the stream goes on");
    };
    assert_eq!(error.condition, StreamCondition::NotAuthorized);
    let again = broker.node.broker().user_delete(jid.clone()).await;
    assert_eq!(again, Err(BrokerError::NotFound(jid)));
}
