//! TLS, authentication, binding, and the end of a session.

use std::time::Duration;

use heronry_client::{
    Client, ConnectError, Disconnect, Event, Mechanism, Options, Password, Server, StreamCondition, Tls, Trust,
    jid::BareJid,
};
use heronry_xmpp::stream::InitiatorError;

use crate::{
    PATIENCE, managed, next, note, plain,
    server::{ACCOUNT, ServerTls, TestServer, full},
};

#[tokio::test]
async fn a_session_begins_with_the_resource_asked_for() {
    let server = TestServer::start(None).await;
    let (client, _events, _peer) = plain(&server, server.options()).await;
    assert_eq!(client.jid(), full("balcony"));
}

#[tokio::test]
async fn tls_by_starttls_and_direct_with_a_pinned_certificate() {
    for direct in [false, true] {
        let server = TestServer::start(Some(ServerTls::new(direct))).await;
        let (client, _events, mut peer) = plain(&server, server.options()).await;
        client.send(note("a")).await.expect("connected");
        assert_eq!(peer.element().await.attr("id"), Some("a"));
    }
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_is_refused() {
    for direct in [false, true] {
        let server = TestServer::start(Some(ServerTls::new(direct))).await;
        for trust in [
            Trust::web_pki(),
            Trust::certificates(ServerTls::new(direct).pem.as_bytes()).expect("certificate"),
        ] {
            let tls = if direct {
                Tls::Direct(trust)
            } else {
                Tls::StartTls(trust)
            };
            let (connected, ()) = tokio::join!(Client::connect(server.options().tls(tls)), server.accept_failure());
            let error = connected.expect_err("untrusted");
            assert!(
                matches!(error, ConnectError::Untrusted(_)) && !error.is_transient(),
                "{error:?}"
            );
        }
    }
}

#[tokio::test]
async fn any_certificate_will_do_when_told_so() {
    let server = TestServer::start(Some(ServerTls::new(false))).await;
    let options = server.options().tls(Tls::StartTls(Trust::dangerous_accept_any()));
    let (client, _events, _peer) = plain(&server, options).await;
    assert_eq!(client.jid(), full("balcony"));
}

#[tokio::test]
async fn without_the_tls_we_insist_on_nothing_is_said() {
    let server = TestServer::start(None).await;
    let options = server.options().tls(Tls::StartTls(Trust::web_pki()));
    let (connected, ()) = tokio::join!(Client::connect(options), server.accept_failure());
    let error = connected.expect_err("no TLS");
    assert!(
        matches!(error, ConnectError::Negotiation(InitiatorError::TlsNotOffered)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_wrong_password_is_told_apart() {
    let server = TestServer::start(None).await;
    let account = BareJid::parse(ACCOUNT).expect("account");
    let options = Options::new(account, Password::new("wrong").expect("password"))
        .server(Server::Address(server.address()))
        .mechanism(Mechanism::from_name("SCRAM-SHA-256").expect("mechanism"))
        .tls(Tls::None);
    let (connected, ()) = tokio::join!(Client::connect(options), server.accept_failure());
    let error = connected.expect_err("wrong password");
    assert!(
        matches!(error, ConnectError::NotAuthenticated(_)) && !error.is_transient(),
        "{error:?}"
    );
}

#[tokio::test]
async fn nobody_there_is_transient() {
    let server = TestServer::start(None).await;
    let options = server.options();
    drop(server);
    let error = Client::connect(options).await.expect_err("nobody there");
    assert!(
        matches!(error, ConnectError::Unreachable(_)) && error.is_transient(),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let server = TestServer::start(None).await;
    let options = server.options().connect_timeout(Duration::from_millis(50));
    let error = Client::connect(options).await.expect_err("nobody answers");
    assert!(
        matches!(error, ConnectError::Timeout) && error.is_transient(),
        "{error:?}"
    );
}

#[tokio::test]
async fn closing_writes_what_was_sent_says_what_was_received_and_ends_the_stream() {
    let server = TestServer::start(None).await;
    let (client, mut events, mut peer) = managed(&server, server.options()).await;
    peer.say("<message id='1'/>").await;
    assert!(matches!(next(&mut events).await, Event::Message(_)));
    client.send(note("a")).await.expect("connected");
    let closing = async {
        let mut seen = Vec::new();
        while let Some(element) = peer.next().await {
            seen.push((element.name().to_owned(), element.attr("h").map(str::to_owned)));
        }
        peer.say("</stream:stream>").await;
        seen
    };
    let ((), mut seen) = tokio::join!(client.close(), closing);
    seen.retain(|(name, _)| name != "r");
    assert_eq!(
        seen,
        [("message".to_owned(), None), ("a".to_owned(), Some("1".to_owned()))]
    );
    assert!(events.next().await.is_none());
    assert!(client.send(note("b")).await.is_err());
}

#[tokio::test]
async fn dropping_the_last_handle_closes() {
    let server = TestServer::start(None).await;
    let (client, _events, mut peer) = plain(&server, server.options()).await;
    let other = client.clone();
    drop(client);
    other.send(note("a")).await.expect("another handle keeps it open");
    drop(other);
    assert_eq!(peer.element().await.attr("id"), Some("a"));
    assert!(peer.next().await.is_none());
}

#[tokio::test]
async fn a_stream_error_is_passed_on() {
    let server = TestServer::start(None).await;
    let (_client, mut events, mut peer) = plain(&server, server.options()).await;
    peer.say(
        "<stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>",
    )
    .await;
    match next(&mut events).await {
        Event::Disconnected(Disconnect::Refused(error)) => assert_eq!(error.condition, StreamCondition::SystemShutdown),
        other => panic!("{other:?}"),
    }
    assert!(peer.next().await.is_none(), "the client closes its stream too");
}

#[tokio::test]
async fn what_is_not_xml_ends_the_stream_with_the_error_for_it() {
    let server = TestServer::start(None).await;
    let (_client, mut events, mut peer) = plain(&server, server.options()).await;
    peer.say("<message><body></message>").await;
    assert!(matches!(
        next(&mut events).await,
        Event::Disconnected(Disconnect::Broken(_))
    ));
    let error = peer.element().await;
    assert!(
        error
            .child("not-well-formed", "urn:ietf:params:xml:ns:xmpp-streams")
            .is_some(),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_silent_server_is_asked_and_then_given_up() {
    let server = TestServer::start(None).await;
    let options = server
        .options()
        .ping(Duration::from_millis(30), Duration::from_millis(700));
    let (_client, mut events, mut peer) = managed(&server, options.clone()).await;
    assert_eq!(peer.element().await.name(), "r");
    assert!(matches!(
        next(&mut events).await,
        Event::Disconnected(Disconnect::Silent)
    ));

    let (_client, mut events, mut peer) = plain(&server, options).await;
    let ping = peer.element().await;
    assert!(ping.child("ping", "urn:xmpp:ping").is_some(), "{ping:?}");
    peer.say("<iq type='result' id='alive'/>").await;
    let ping = tokio::time::timeout(PATIENCE, peer.element())
        .await
        .expect("still connected, and asked again");
    assert!(ping.child("ping", "urn:xmpp:ping").is_some(), "{ping:?}");
    assert!(matches!(
        next(&mut events).await,
        Event::Disconnected(Disconnect::Silent)
    ));
}
