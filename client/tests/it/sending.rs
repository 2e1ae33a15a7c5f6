//! Acknowledgements, and bounds in both directions.

use std::time::Duration;

use heronry_client::{Disconnect, Event, Limits, SendError, message};
use tokio::time::timeout;

use crate::{
    managed, next, note, plain,
    server::{TestServer, full},
};

#[tokio::test]
async fn messages_go_both_ways() {
    let server = TestServer::start(None).await;
    let (client, mut events, mut peer) = managed(&server, server.options()).await;
    client
        .send(message(full("kitchen"), "21.5 <°C>"))
        .await
        .expect("connected");
    let sent = peer.stanza().await;
    assert_eq!(sent.attr("to"), Some("juliet@capulet.example/kitchen"));
    assert_eq!(
        sent.child("body", "jabber:client").map(|body| body.text()).as_deref(),
        Some("21.5 <°C>")
    );
    peer.say("<message from='romeo@montague.example/o' id='m'><body>hi</body></message><presence from='romeo@montague.example/o'/>")
        .await;
    match next(&mut events).await {
        Event::Message(message) => assert_eq!(message.id.as_deref(), Some("m")),
        other => panic!("{other:?}"),
    }
    assert!(matches!(next(&mut events).await, Event::Presence(_)));
}

#[tokio::test]
async fn flush_waits_for_the_acknowledgement_of_what_was_sent_before_it() {
    let server = TestServer::start(None).await;
    let (client, _events, mut peer) = managed(&server, server.options()).await;
    client.flush().await.expect("nothing was sent, so nothing is missing");
    client.send(note("a")).await.expect("connected");
    client.send(note("b")).await.expect("connected");
    let flushed = client.flush();
    tokio::pin!(flushed);
    assert_eq!(
        (peer.stanza().await.attr("id"), peer.stanza().await.attr("id")),
        (Some("a"), Some("b"))
    );
    peer.acknowledge(1).await;
    assert!(
        timeout(Duration::from_millis(30), &mut flushed).await.is_err(),
        "one is missing"
    );
    peer.acknowledge(2).await;
    flushed.await.expect("acknowledged");
}

#[tokio::test]
async fn without_stream_management_flush_waits_until_all_is_written() {
    let server = TestServer::start(None).await;
    let (client, _events, mut peer) = plain(&server, server.options()).await;
    client.send(note("a")).await.expect("connected");
    client.flush().await.expect("written");
    assert_eq!(peer.element().await.attr("id"), Some("a"));
}

#[tokio::test]
async fn an_acknowledgement_is_asked_for_once_at_a_time() {
    let server = TestServer::start(None).await;
    let (client, _events, mut peer) = managed(&server, server.options()).await;
    client.send(note("a")).await.expect("connected");
    assert_eq!(peer.element().await.name(), "message");
    assert_eq!(peer.element().await.name(), "r");
    client.send(note("b")).await.expect("connected");
    assert_eq!(peer.element().await.name(), "message");
    peer.acknowledge(1).await;
    assert_eq!(peer.element().await.name(), "r");
}

#[tokio::test]
async fn sending_waits_while_too_much_is_unacknowledged() {
    let server = TestServer::start(None).await;
    let mut limits = Limits::default();
    limits.unacknowledged_max = 2;
    let (client, _events, mut peer) = managed(&server, server.options().limits(limits)).await;
    client.send(note("a")).await.expect("room");
    client.send(note("b")).await.expect("room");
    let third = client.send(note("c"));
    tokio::pin!(third);
    assert!(timeout(Duration::from_millis(30), &mut third).await.is_err(), "no room");
    peer.acknowledge(1).await;
    third.await.expect("room again");
}

#[tokio::test]
async fn what_is_too_long_is_not_sent() {
    let server = TestServer::start(None).await;
    let mut limits = Limits::default();
    limits.stanza_bytes_max = 10_000;
    let (client, _events, mut peer) = plain(&server, server.options().limits(limits)).await;
    let long = message(full("x"), &"x".repeat(10_000));
    assert_eq!(client.send(long).await, Err(SendError::TooLong));
    client.send(note("a")).await.expect("the session goes on");
    assert_eq!(peer.element().await.attr("id"), Some("a"));
}

#[tokio::test]
async fn only_what_the_application_has_room_for_is_acknowledged() {
    let server = TestServer::start(None).await;
    let mut limits = Limits::default();
    limits.events_max = 1;
    let (_client, mut events, mut peer) = managed(&server, server.options().limits(limits)).await;
    peer.say("<message id='1'/>").await;
    assert_eq!(peer.received().await, "1");
    // The second waits for the first to be taken, and with it everything behind it.
    peer.say("<message id='2'/><r xmlns='urn:xmpp:sm:3'/>").await;
    assert!(
        timeout(Duration::from_millis(30), peer.element()).await.is_err(),
        "no answer before there is room"
    );
    for id in ["1", "2"] {
        match next(&mut events).await {
            Event::Message(message) => assert_eq!(message.id.as_deref(), Some(id)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(peer.element().await.attr("h"), Some("2"));
}

#[tokio::test]
async fn an_application_that_does_not_listen_holds_nothing_up() {
    let server = TestServer::start(None).await;
    let mut limits = Limits::default();
    limits.events_max = 1;
    let (_client, events, mut peer) = managed(&server, server.options().limits(limits)).await;
    drop(events);
    peer.say("<message id='1'/><message id='2'/><message id='3'/>").await;
    assert_eq!(peer.received().await, "3");
}

#[tokio::test]
async fn an_acknowledgement_of_what_was_never_sent_ends_the_stream() {
    let server = TestServer::start(None).await;
    let (_client, mut events, mut peer) = managed(&server, server.options()).await;
    peer.acknowledge(7).await;
    assert!(matches!(
        next(&mut events).await,
        Event::Disconnected(Disconnect::Broken(_))
    ));
    let error = peer.element().await;
    let too_high = error
        .child("handled-count-too-high", "urn:xmpp:sm:3")
        .expect("the error for it");
    assert_eq!(
        (too_high.attr("h"), too_high.attr("send-count")),
        (Some("7"), Some("0"))
    );
}
