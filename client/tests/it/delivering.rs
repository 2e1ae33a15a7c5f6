//! Messages whose outcome is known, and what the other side does for it.

use std::time::Duration;

use heronry_client::{
    DeliveryError, Event, Events, Failure, Limits, Outcome, Receipts, Reconnect, Resumption, jid::Jid, message,
    stanza::Condition, xml::CLIENT,
};
use tokio::time::timeout;

use crate::{
    PATIENCE, managed, next, note, plain,
    server::{OnResume, Peer, TestServer, full},
};

const AT_ONCE: Reconnect = Reconnect::Automatic {
    first: Duration::from_millis(1),
    max: Duration::from_millis(5),
};
const RECEIPTS: &str = "urn:xmpp:receipts";

async fn outcome(delivery: heronry_client::Delivery) -> Outcome {
    timeout(PATIENCE, delivery).await.expect("an outcome in time")
}

async fn receipt(peer: &mut Peer, id: &str) {
    peer.say(&format!(
        "<message from='romeo@montague.example/o'><received xmlns='{RECEIPTS}' id='{id}'/></message>"
    ))
    .await;
}

/// A message that asks for a receipt, from Romeo.
async fn ask(peer: &mut Peer, id: &str) {
    peer.say(&format!(
        "<message from='romeo@montague.example/o' id='{id}' type='chat'><body>hi</body><request xmlns='{RECEIPTS}'/></message>"
    ))
    .await;
}

/// Takes what is next from the client, which must be a receipt.
async fn receipted(peer: &mut Peer) -> String {
    let stanza = peer.stanza().await;
    let received = stanza.child("received", RECEIPTS);
    let id = received.and_then(|received| received.attr("id"));
    id.unwrap_or_else(|| panic!("not a receipt: {stanza:?}")).to_owned()
}

async fn message_id(events: &mut Events) -> String {
    match next(events).await {
        Event::Message(message) => message.id.map(String::from).unwrap_or_default(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_receipt_is_asked_for_and_tells_the_sender() {
    let server = TestServer::start(None).await;
    let (client, mut events, mut peer) = managed(&server, server.options()).await;
    let delivery = client.deliver(note("a"), PATIENCE).await.expect("accepted");
    assert_eq!(delivery.id(), "a");
    let sent = peer.stanza().await;
    assert!(sent.child("request", RECEIPTS).is_some() && sent.child("body", CLIENT).is_some());
    assert_eq!(
        sent.child("origin-id", "urn:xmpp:sid:0")
            .and_then(|origin| origin.attr("id")),
        Some("a")
    );
    // Tybalt knows nothing of it.
    peer.say(&format!(
        "<message from='tybalt@capulet.example/x' id='t'><received xmlns='{RECEIPTS}' id='a'/></message>"
    ))
    .await;
    assert_eq!(message_id(&mut events).await, "t");
    receipt(&mut peer, "a").await;
    let by = Jid::parse("romeo@montague.example/o").expect("address");
    assert_eq!(outcome(delivery).await, Outcome::Delivered { by });
    // The receipt was for nobody else, and a later one is as any message.
    receipt(&mut peer, "a").await;
    assert_eq!(message_id(&mut events).await, "");
}

#[tokio::test]
async fn without_receipt_the_servers_acknowledgement_decides() {
    let server = TestServer::start(None).await;
    let (client, _events, mut peer) = managed(&server, server.options()).await;
    let acknowledged = client
        .deliver(note("a"), Duration::from_secs(2))
        .await
        .expect("accepted");
    assert_eq!(peer.stanza().await.attr("id"), Some("a"));
    peer.acknowledge(1).await;
    let lost = client
        .deliver(note("b"), Duration::from_millis(10))
        .await
        .expect("accepted");
    assert_eq!(outcome(acknowledged).await, Outcome::Stored);
    assert_eq!(outcome(lost).await, Outcome::Failed(Failure::Deadline));
}

#[tokio::test]
async fn an_error_is_the_outcome_and_nothing_else() {
    let server = TestServer::start(None).await;
    let (client, mut events, mut peer) = managed(&server, server.options()).await;
    let delivery = client.deliver(note("a"), PATIENCE).await.expect("accepted");
    peer.stanza().await;
    peer.say(
        "<message type='error' id='a' from='romeo@montague.example'><error type='cancel'>\
         <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message><message id='after'/>",
    )
    .await;
    match outcome(delivery).await {
        Outcome::Failed(Failure::Refused(error)) => assert_eq!(error.condition, Condition::ServiceUnavailable),
        other => panic!("{other:?}"),
    }
    assert_eq!(message_id(&mut events).await, "after");
}

#[tokio::test]
async fn a_resumed_session_repeats_what_is_unacknowledged_and_no_more() {
    let server = TestServer::start(None).await;
    let (client, mut events, mut peer) = managed(&server, server.options().reconnect(AT_ONCE)).await;
    let first = client.deliver(note("a"), PATIENCE).await.expect("accepted");
    let second = client.deliver(note("b"), PATIENCE).await.expect("accepted");
    while peer.stanza().await.attr("id") != Some("b") {}
    drop(peer);
    let mut peer = server.accept_and(OnResume::Resume { h: 1 }).await;
    assert_eq!(peer.stanza().await.attr("id"), Some("b"));
    client.send(note("next")).await.expect("connected");
    assert_eq!(peer.stanza().await.attr("id"), Some("next"));
    receipt(&mut peer, "b").await;
    receipt(&mut peer, "a").await;
    assert!(matches!(outcome(first).await, Outcome::Delivered { .. }));
    assert!(matches!(outcome(second).await, Outcome::Delivered { .. }));
    assert!(matches!(next(&mut events).await, Event::Disconnected(_)));
}

#[tokio::test]
async fn a_new_session_repeats_what_has_no_receipt_under_the_same_id() {
    let server = TestServer::start(None).await;
    let (client, mut events, mut peer) = managed(&server, server.options().reconnect(AT_ONCE)).await;
    let mut deliveries = Vec::new();
    for id in ["a", "b", "c"] {
        deliveries.push(client.deliver(note(id), PATIENCE).await.expect("accepted"));
    }
    client.send(note("once")).await.expect("connected");
    while peer.stanza().await.attr("id") != Some("once") {}
    // The server has the first two, and it is not known whether anybody got the second.
    receipt(&mut peer, "a").await;
    peer.acknowledge(2).await;
    assert!(matches!(outcome(deliveries.remove(0)).await, Outcome::Delivered { .. }));
    drop(peer);
    let mut peer = server.accept().await;
    peer.enable_management().await;
    assert_eq!(peer.stanza().await.attr("id"), Some("b"));
    assert_eq!(peer.stanza().await.attr("id"), Some("c"));
    while !matches!(next(&mut events).await, Event::Disconnected(_)) {}
    match next(&mut events).await {
        // What is under way is not the application's to send again.
        Event::Reconnected(Resumption::NewSession { unacknowledged, .. }) => {
            assert_eq!(crate::ids(&unacknowledged), ["once"]);
        }
        other => panic!("{other:?}"),
    }
    peer.acknowledge(2).await;
    client.flush().await.expect("acknowledged");
}

#[tokio::test]
async fn what_is_accepted_while_nobody_is_connected_is_sent_later() {
    let server = TestServer::start(None).await;
    let (client, mut events, peer) = managed(&server, server.options()).await;
    drop(peer);
    assert!(matches!(next(&mut events).await, Event::Disconnected(_)));
    let delivery = client.deliver(note("a"), PATIENCE).await.expect("accepted");
    let (resumed, mut peer) = tokio::join!(client.resume(), server.accept_and(OnResume::Resume { h: 0 }));
    resumed.expect("resumed");
    assert_eq!(peer.stanza().await.attr("id"), Some("a"));
    receipt(&mut peer, "a").await;
    assert!(matches!(outcome(delivery).await, Outcome::Delivered { .. }));
}

#[tokio::test]
async fn what_nobody_confirms_is_sent_again_in_the_same_session() {
    let server = TestServer::start(None).await;
    let options = server.options().resend_after(Some(Duration::from_millis(20)));
    let (client, _events, mut peer) = managed(&server, options).await;
    let _delivery = client.deliver(note("a"), PATIENCE).await.expect("accepted");
    for _ in 0..3 {
        assert_eq!(peer.stanza().await.attr("id"), Some("a"));
    }
}

#[tokio::test]
async fn deliveries_keep_their_place_among_other_messages() {
    let server = TestServer::start(None).await;
    let (client, _events, mut peer) = managed(&server, server.options()).await;
    let mut deliveries = Vec::new();
    for n in 0..20 {
        deliveries.push(
            client
                .deliver(note(&format!("d{n}")), PATIENCE)
                .await
                .expect("accepted"),
        );
        client.send(note(&format!("s{n}"))).await.expect("connected");
    }
    for n in 0..20 {
        for kind in ["d", "s"] {
            assert_eq!(peer.stanza().await.attr("id"), Some(&*format!("{kind}{n}")));
        }
    }
}

#[tokio::test]
async fn there_is_room_for_so_many_and_no_more() {
    let server = TestServer::start(None).await;
    let mut limits = Limits::default();
    limits.deliveries_max = 1;
    let (client, _events, mut peer) = managed(&server, server.options().limits(limits)).await;
    let first = client.deliver(note("a"), PATIENCE).await.expect("room");
    let full = client.deliver(note("b"), Duration::from_millis(30)).await;
    assert_eq!(full.expect_err("no room"), DeliveryError::Full);
    let second = client.deliver(note("b"), PATIENCE);
    receipt(&mut peer, "a").await;
    let _second = second.await.expect("room again");
    assert!(matches!(outcome(first).await, Outcome::Delivered { .. }));
}

#[tokio::test]
async fn closing_tells_the_outcome_of_everything() {
    let server = TestServer::start(None).await;
    let (client, _events, mut peer) = managed(&server, server.options()).await;
    let stored = client.deliver(note("a"), PATIENCE).await.expect("accepted");
    peer.stanza().await;
    peer.acknowledge(1).await;
    client.flush().await.expect("acknowledged");
    let open = client.deliver(note("b"), PATIENCE).await.expect("accepted");
    let other = client.clone();
    let farewell = async {
        while peer.next().await.is_some() {}
        peer.say("</stream:stream>").await;
    };
    tokio::join!(client.close(), farewell);
    assert_eq!(outcome(stored).await, Outcome::Stored);
    assert_eq!(outcome(open).await, Outcome::Failed(Failure::Disconnected));
    assert_eq!(
        other.deliver(note("c"), PATIENCE).await.expect_err("closed"),
        DeliveryError::Disconnected
    );
}

#[tokio::test]
async fn nothing_is_accepted_by_a_closed_client() {
    let server = TestServer::start(None).await;
    let (client, _events, mut peer) = managed(&server, server.options()).await;
    let farewell = async {
        while peer.next().await.is_some() {}
        peer.say("</stream:stream>").await;
    };
    tokio::join!(client.close(), farewell);
    let refused = client.deliver(note("a"), PATIENCE).await;
    assert_eq!(refused.expect_err("closed"), DeliveryError::Disconnected);
}

#[tokio::test]
async fn who_has_given_up_coming_back_has_given_up_delivering() {
    let server = TestServer::start(None).await;
    let (client, mut events, mut peer) = managed(&server, server.options().reconnect(AT_ONCE)).await;
    let delivery = client.deliver(note("a"), PATIENCE).await.expect("accepted");
    peer.stanza().await;
    drop(peer);
    server.refuse("host-unknown").await;
    assert_eq!(outcome(delivery).await, Outcome::Failed(Failure::Disconnected));
    while !matches!(next(&mut events).await, Event::ReconnectFailed(_)) {}
}

#[tokio::test]
async fn a_receipt_is_given_when_the_application_has_the_message_and_again_for_a_repetition() {
    let server = TestServer::start(None).await;
    let mut limits = Limits::default();
    limits.events_max = 1;
    let options = server.options().receipts(Receipts::Everybody).limits(limits);
    let (_client, mut events, mut peer) = managed(&server, options).await;
    ask(&mut peer, "1").await;
    assert_eq!(receipted(&mut peer).await, "1");
    // The application has no room for the second.
    ask(&mut peer, "2").await;
    assert!(
        timeout(Duration::from_millis(30), peer.stanza()).await.is_err(),
        "no receipt yet"
    );
    assert_eq!(message_id(&mut events).await, "1");
    assert_eq!(receipted(&mut peer).await, "2");
    ask(&mut peer, "1").await;
    assert_eq!(receipted(&mut peer).await, "1");
    ask(&mut peer, "3").await;
    assert_eq!(message_id(&mut events).await, "2");
    assert_eq!(message_id(&mut events).await, "3", "the first came once");
}

#[tokio::test]
async fn a_repetition_is_found_in_a_new_session_too() {
    let server = TestServer::start(None).await;
    let options = server.options().receipts(Receipts::Everybody).reconnect(AT_ONCE);
    let (_client, mut events, mut peer) = plain(&server, options).await;
    ask(&mut peer, "1").await;
    assert_eq!(receipted(&mut peer).await, "1");
    assert_eq!(message_id(&mut events).await, "1");
    drop(peer);
    let mut peer = server.accept().await;
    while !matches!(next(&mut events).await, Event::Reconnected(_)) {}
    ask(&mut peer, "1").await;
    assert_eq!(receipted(&mut peer).await, "1");
    ask(&mut peer, "2").await;
    assert_eq!(message_id(&mut events).await, "2");
}

#[tokio::test]
async fn strangers_get_no_receipts_and_the_roster_tells_who_is_one() {
    let server = TestServer::start(None).await;
    let (client, mut events, mut peer) = managed(&server, server.options()).await;
    ask(&mut peer, "1").await;
    assert_eq!(message_id(&mut events).await, "1");
    let asked = peer.stanza().await;
    assert!(asked.child("query", "jabber:iq:roster").is_some(), "{asked:?}");
    // Meanwhile somebody else asks, too.
    peer.say(&format!(
        "<message from='nurse@capulet.example/x' id='2'><request xmlns='{RECEIPTS}'/></message>"
    ))
    .await;
    assert_eq!(message_id(&mut events).await, "2");
    let id = asked.attr("id").expect("id");
    peer.say(&format!(
        "<iq type='result' id='{id}'><query xmlns='jabber:iq:roster'><item jid='nurse@capulet.example' subscription='from'/>\
         <item jid='romeo@montague.example' subscription='to'/></query></iq>"
    ))
    .await;
    assert_eq!(receipted(&mut peer).await, "2");
    // We write to Romeo, so he knows that we are there.
    client.send(note("hello")).await.expect("connected");
    assert_eq!(peer.stanza().await.attr("id"), Some("hello"));
    ask(&mut peer, "3").await;
    assert_eq!(receipted(&mut peer).await, "3");
}

#[tokio::test]
async fn who_gives_no_receipts_gives_none() {
    let server = TestServer::start(None).await;
    let options = server.options().receipts(Receipts::Never);
    let (client, mut events, mut peer) = managed(&server, options).await;
    ask(&mut peer, "1").await;
    ask(&mut peer, "1").await;
    assert_eq!(message_id(&mut events).await, "1");
    assert_eq!(message_id(&mut events).await, "1");
    client.send(note("a")).await.expect("connected");
    assert_eq!(peer.stanza().await.attr("id"), Some("a"));
}

#[tokio::test]
async fn carbons_are_asked_for_and_told_as_what_they_are() {
    let server = TestServer::start(None).await;
    let (client, mut events, mut peer) = managed(&server, server.options()).await;
    let conversation = async {
        let enable = peer.stanza().await;
        assert!(enable.child("enable", "urn:xmpp:carbons:2").is_some());
        let id = enable.attr("id").expect("id");
        peer.say(&format!("<iq type='result' id='{id}'/>")).await;
        for (kind, from) in [("sent", "tybalt@capulet.example"), ("sent", "juliet@capulet.example")] {
            peer.say(&format!(
                "<message from='{from}'><{kind} xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
                 <message xmlns='jabber:client' id='{from}' to='romeo@montague.example'><body>x</body></message>\
                 </forwarded></{kind}></message>"
            ))
            .await;
        }
    };
    let (enabled, ()) = tokio::join!(client.enable_carbons(), conversation);
    enabled.expect("enabled");
    match next(&mut events).await {
        Event::Carbon(carbon) => {
            assert_eq!(carbon.message.id.as_deref(), Some("juliet@capulet.example"));
            assert_eq!(carbon.direction, heronry_client::Direction::Sent);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_message_to_nobody_is_not_accepted() {
    let server = TestServer::start(None).await;
    let (client, _events, _peer) = plain(&server, server.options()).await;
    let mut nobody = message(full("x"), "hi");
    nobody.to = None;
    assert!(matches!(
        client.deliver(nobody, PATIENCE).await,
        Err(DeliveryError::Unsuitable(_))
    ));
    let long = message(full("x"), &"x".repeat(300_000));
    assert!(matches!(
        client.deliver(long, PATIENCE).await,
        Err(DeliveryError::TooLong)
    ));
}
