//! The connection is lost.

use std::time::Duration;

use heronry_client::{ConnectError, Event, Reconnect, Request, RequestError, Resumption, SendError, xml::Element};

use crate::{
    ids, managed, next, note, plain,
    server::{OnResume, SM_ID, TestServer, full},
};

const AT_ONCE: Reconnect = Reconnect::Automatic {
    first: Duration::from_millis(1),
    max: Duration::from_millis(5),
};

#[tokio::test]
async fn a_resumed_session_sends_again_what_the_server_had_not_received() {
    let server = TestServer::start(None).await;
    let (client, mut events, mut peer) = managed(&server, server.options()).await;
    peer.say("<message id='1'/><message id='2'/>").await;
    next(&mut events).await;
    next(&mut events).await;
    for id in ["a", "b", "c"] {
        client.send(note(id)).await.expect("connected");
    }
    while peer.stanza().await.attr("id") != Some("c") {}
    drop(peer);
    assert!(matches!(next(&mut events).await, Event::Disconnected(_)));
    assert_eq!(
        client.send(note("lost")).await,
        Err(SendError::Disconnected),
        "nobody reconnects yet"
    );

    let (resumed, mut peer) = tokio::join!(client.resume(), server.accept_and(OnResume::Resume { h: 1 }));
    assert!(matches!(resumed.expect("resumed"), Resumption::Resumed { resent: 2 }));
    let resume = peer.resume.take().expect("resume and not bind");
    assert_eq!((&*resume.previd, resume.h.0), (SM_ID, 2));
    assert_eq!(
        (peer.stanza().await.attr("id"), peer.stanza().await.attr("id")),
        (Some("b"), Some("c"))
    );

    // And it goes on counting.
    client.send(note("d")).await.expect("connected");
    assert_eq!(peer.stanza().await.attr("id"), Some("d"));
    peer.say("<message id='3'/>").await;
    next(&mut events).await;
    assert_eq!(peer.received().await, "3");
    peer.acknowledge(4).await;
    client.flush().await.expect("all four are acknowledged");
}

#[tokio::test]
async fn requests_and_flushes_survive_a_resumption() {
    let server = TestServer::start(None).await;
    let (client, mut events, mut peer) = managed(&server, server.options()).await;
    let asking = client.request(Request::get(Element::new("query", "x")));
    let conversation = async {
        let id = peer.stanza().await.attr("id").expect("id").to_owned();
        drop(peer);
        next(&mut events).await;
        let (resumed, mut peer) = tokio::join!(client.resume(), server.accept_and(OnResume::Resume { h: 0 }));
        resumed.expect("resumed");
        assert_eq!(peer.stanza().await.attr("id"), Some(&*id), "sent once more");
        let flushed = client.flush();
        peer.acknowledge(1).await;
        flushed.await.expect("acknowledged");
        peer.say(&format!("<iq type='result' id='{id}'/>")).await;
        peer
    };
    let (answer, _peer) = tokio::join!(asking, conversation);
    assert_eq!(answer.expect("an answer"), None);
}

#[tokio::test]
async fn a_forgotten_session_gives_back_what_is_not_acknowledged() {
    let server = TestServer::start(None).await;
    let (client, mut events, mut peer) = managed(&server, server.options().resource("first")).await;
    for id in ["a", "b", "c"] {
        client.send(note(id)).await.expect("connected");
    }
    let asking = client.request(Request::get(Element::new("query", "x")));
    let lose = async {
        while peer.stanza().await.name() != "iq" {}
        peer.acknowledge(1).await;
        drop(peer);
        next(&mut events).await;
        let peer = async {
            // The server still knows that it had two.
            let mut peer = server.accept_and(OnResume::Refuse { h: Some(2) }).await;
            peer.enable_management().await;
            peer
        };
        tokio::join!(client.resume(), peer)
    };
    let (answer, (resumed, mut peer)) = tokio::join!(asking, lose);
    assert!(matches!(answer, Err(RequestError::Disconnected)), "{answer:?}");
    match resumed.expect("a session") {
        Resumption::NewSession { jid, unacknowledged } => {
            assert_eq!(jid, full("first"));
            assert_eq!(ids(&unacknowledged), ["c"]);
        }
        other => panic!("{other:?}"),
    }
    // The new session counts from zero and repeats nothing.
    client.send(note("d")).await.expect("connected");
    assert_eq!(peer.stanza().await.attr("id"), Some("d"));
    peer.acknowledge(1).await;
    client.flush().await.expect("acknowledged");
}

#[tokio::test]
async fn without_stream_management_a_new_session_begins() {
    let server = TestServer::start(None).await;
    let (client, mut events, peer) = plain(&server, server.options()).await;
    drop(peer);
    next(&mut events).await;
    let (resumed, _peer) = tokio::join!(client.resume(), server.accept());
    match resumed.expect("a session") {
        Resumption::NewSession { unacknowledged, .. } => assert!(unacknowledged.is_empty()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_failed_attempt_can_be_repeated() {
    let server = TestServer::start(None).await;
    let (client, mut events, peer) = managed(&server, server.options()).await;
    client.send(note("a")).await.expect("connected");
    drop(peer);
    next(&mut events).await;
    let (resumed, ()) = tokio::join!(client.resume(), server.abandon());
    assert!(matches!(resumed, Err(ConnectError::Lost(_))), "{resumed:?}");
    let (resumed, mut peer) = tokio::join!(client.resume(), server.accept_and(OnResume::Resume { h: 0 }));
    assert!(matches!(resumed.expect("resumed"), Resumption::Resumed { resent: 1 }));
    assert_eq!(peer.stanza().await.attr("id"), Some("a"));
}

#[tokio::test]
async fn resuming_what_was_not_lost_does_nothing() {
    let server = TestServer::start(None).await;
    let (client, _events, _peer) = managed(&server, server.options()).await;
    assert!(matches!(client.resume().await, Ok(Resumption::StillConnected)));
}

#[tokio::test]
async fn automatic_reconnection_resumes_and_sends_what_waited() {
    let server = TestServer::start(None).await;
    let (client, mut events, peer) = managed(&server, server.options().reconnect(AT_ONCE)).await;
    drop(peer);
    assert!(matches!(next(&mut events).await, Event::Disconnected(_)));
    let waiting = client.send(note("a"));
    let (sent, mut peer) = tokio::join!(waiting, server.accept_and(OnResume::Resume { h: 0 }));
    sent.expect("there was a connection being made");
    assert!(matches!(
        next(&mut events).await,
        Event::Reconnected(Resumption::Resumed { resent: 0 })
    ));
    assert_eq!(peer.stanza().await.attr("id"), Some("a"));
}

#[tokio::test]
async fn after_a_conflict_nobody_comes_back_by_itself() {
    let server = TestServer::start(None).await;
    let (client, mut events, mut peer) = managed(&server, server.options().reconnect(AT_ONCE)).await;
    peer.say("<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>")
        .await;
    assert!(matches!(next(&mut events).await, Event::Disconnected(_)));
    // A send would wait if reconnecting was under way.
    assert_eq!(client.send(note("a")).await, Err(SendError::Disconnected));
}

#[tokio::test]
async fn an_error_that_does_not_pass_ends_automatic_reconnection() {
    let server = TestServer::start(None).await;
    let (client, mut events, peer) = managed(&server, server.options().reconnect(AT_ONCE)).await;
    drop(peer);
    assert!(matches!(next(&mut events).await, Event::Disconnected(_)));
    server.refuse("host-unknown").await;
    match next(&mut events).await {
        Event::ReconnectFailed(error) => assert!(!error.is_transient(), "{error:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.send(note("a")).await, Err(SendError::Disconnected));
}

#[tokio::test]
async fn closing_ends_a_search_for_the_server() {
    let server = TestServer::start(None).await;
    let patient = Reconnect::Automatic {
        first: Duration::from_secs(600),
        max: Duration::from_secs(600),
    };
    let (client, mut events, peer) = managed(&server, server.options().reconnect(patient)).await;
    drop(peer);
    assert!(matches!(next(&mut events).await, Event::Disconnected(_)));
    client.close().await;
    assert!(events.next().await.is_none());
}
