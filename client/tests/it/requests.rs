//! Requests in both directions.

use std::time::Duration;

use heronry_client::{Event, Limits, Request, RequestError, jid::Jid, stanza::Condition, xml::Element};

use crate::{managed, next, plain, server::TestServer};

fn request() -> Request {
    Request::get(Element::new("query", "jabber:iq:roster"))
}

#[tokio::test]
async fn an_answer_reaches_who_asked() {
    let server = TestServer::start(None).await;
    let (client, _events, mut peer) = plain(&server, server.options()).await;
    let answers = async {
        let (one, two) = (peer.element().await, peer.element().await);
        assert_eq!((one.attr("type"), two.attr("type")), (Some("get"), Some("set")));
        // The later one first.
        let id = two.attr("id").expect("id");
        peer.say(&format!(
            "<iq type='result' id='{id}' from='romeo@montague.example/orchard'><second xmlns='x'/></iq>"
        ))
        .await;
        let id = one.attr("id").expect("id");
        peer.say(&format!("<iq type='result' id='{id}'/>")).await;
    };
    let romeo = Jid::parse("romeo@montague.example/orchard").expect("address");
    let second = Request::set(Element::new("do", "x")).to(romeo);
    let (one, two, ()) = tokio::join!(client.request(request()), client.request(second), answers);
    assert_eq!(one.expect("an answer"), None);
    assert!(two.expect("an answer").is_some_and(|payload| payload.is("second", "x")));
}

#[tokio::test]
async fn an_error_is_an_error() {
    let server = TestServer::start(None).await;
    let (client, _events, mut peer) = plain(&server, server.options()).await;
    let refuse = async {
        let id = peer.element().await.attr("id").expect("id").to_owned();
        peer.say(&format!(
            "<iq type='error' id='{id}'><error type='auth'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        ))
        .await;
    };
    let (answer, ()) = tokio::join!(client.request(request()), refuse);
    match answer {
        Err(RequestError::Refused(error)) => assert_eq!(error.condition, Condition::Forbidden),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_from_somebody_else_is_none() {
    let server = TestServer::start(None).await;
    let (client, _events, mut peer) = plain(&server, server.options()).await;
    let forge = async {
        let id = peer.element().await.attr("id").expect("id").to_owned();
        peer.say(&format!(
            "<iq type='result' id='{id}' from='tybalt@capulet.example/x'><forged xmlns='x'/></iq>"
        ))
        .await;
        peer.say(&format!("<iq type='result' id='{id}'><real xmlns='x'/></iq>"))
            .await;
    };
    let (answer, ()) = tokio::join!(client.request(request()), forge);
    assert!(
        answer
            .expect("an answer")
            .is_some_and(|payload| payload.is("real", "x"))
    );
}

#[tokio::test]
async fn a_deadline_passes() {
    let server = TestServer::start(None).await;
    let (client, _events, _peer) = plain(&server, server.options()).await;
    let answer = client.request(request().within(Duration::from_millis(20))).await;
    assert!(matches!(answer, Err(RequestError::Timeout)), "{answer:?}");
}

#[tokio::test]
async fn requests_beyond_the_bound_wait_and_those_given_up_make_room() {
    let server = TestServer::start(None).await;
    let mut limits = Limits::default();
    limits.requests_max = 1;
    let (client, _events, mut peer) = plain(&server, server.options().limits(limits)).await;
    let first = client.request(request().within(Duration::from_millis(20)));
    assert!(matches!(first.await, Err(RequestError::Timeout)));
    peer.element().await;
    let answer = async {
        let id = peer.element().await.attr("id").expect("id").to_owned();
        peer.say(&format!("<iq type='result' id='{id}'/>")).await;
    };
    let (second, ()) = tokio::join!(client.request(request()), answer);
    assert!(second.is_ok(), "{second:?}");
}

#[tokio::test]
async fn a_lost_connection_without_resumption_fails_what_waits() {
    let server = TestServer::start(None).await;
    let (client, mut events, mut peer) = plain(&server, server.options()).await;
    let cut = async {
        peer.element().await;
        drop(peer);
    };
    let (answer, ()) = tokio::join!(client.request(request()), cut);
    assert!(matches!(answer, Err(RequestError::Disconnected)), "{answer:?}");
    assert!(matches!(next(&mut events).await, Event::Disconnected(_)));
    assert!(matches!(
        client.request(request()).await,
        Err(RequestError::Disconnected)
    ));
}

#[tokio::test]
async fn requests_to_us_are_answered_and_counted() {
    let server = TestServer::start(None).await;
    let (_client, _events, mut peer) = managed(&server, server.options()).await;
    peer.say("<iq type='get' id='1' from='capulet.example'><ping xmlns='urn:xmpp:ping'/></iq>")
        .await;
    let answer = peer.stanza().await;
    assert_eq!(
        (answer.attr("type"), answer.attr("id"), answer.attr("to")),
        (Some("result"), Some("1"), Some("capulet.example"))
    );
    peer.say("<iq type='set' id='2' from='a@b/c'><launch xmlns='urn:rockets'/></iq>")
        .await;
    let answer = peer.stanza().await;
    let error = answer.child("error", "jabber:client").expect("an error");
    assert!(
        error
            .child("service-unavailable", "urn:ietf:params:xml:ns:xmpp-stanzas")
            .is_some()
    );
    assert_eq!(peer.received().await, "2");
}

#[tokio::test]
async fn a_server_that_asks_and_never_acknowledges_is_answered_only_so_often() {
    let server = TestServer::start(None).await;
    let mut limits = Limits::default();
    limits.unacknowledged_max = 2;
    let (_client, _events, mut peer) = managed(&server, server.options().limits(limits)).await;
    for id in 0..6 {
        peer.say(&format!(
            "<iq type='get' id='{id}' from='capulet.example'><ping xmlns='urn:xmpp:ping'/></iq>"
        ))
        .await;
    }
    peer.say("<r xmlns='urn:xmpp:sm:3'/>").await;
    let mut answers = 0;
    let h = loop {
        let element = peer.stanza().await;
        match element.name() {
            "iq" => answers += 1,
            _ => break element.attr("h").map(str::to_owned),
        }
    };
    assert_eq!((answers, h.as_deref()), (4, Some("6")));
}
