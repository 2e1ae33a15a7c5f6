//! The examples, as they are, against the scripted server.

use std::time::Duration;

use heronry_client::{Outcome, jid::BareJid, xml::CLIENT};
use tokio::sync::mpsc;

use crate::server::{Peer, TestServer};

#[path = "../../examples/lamp.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod lamp;
#[path = "../../examples/thermometer.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod thermometer;
#[path = "../../examples/watcher.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod watcher;

fn romeo() -> BareJid {
    BareJid::parse("romeo@montague.example").expect("address")
}

async fn begin(server: &TestServer) -> Peer {
    let mut peer = server.accept().await;
    peer.enable_management().await;
    peer
}

async fn end(mut peer: Peer) {
    while peer.next().await.is_some() {}
    peer.say("</stream:stream>").await;
}

#[tokio::test]
async fn the_thermometer_reports_and_knows_what_became_of_it() {
    let server = TestServer::start(None).await;
    let mut outcomes = Vec::new();
    let reporting = thermometer::report(server.options(), romeo(), Duration::from_millis(5), 2, |outcome| {
        outcomes.push(outcome);
    });
    let owner = async {
        let mut peer = begin(&server).await;
        for _ in 0..2 {
            let report = peer.stanza().await;
            let text = report.child("body", CLIENT).map(|body| body.text());
            assert_eq!(text.as_deref(), Some("21.5 °C"));
            let id = report.attr("id").expect("id");
            peer.say(&format!(
                "<message from='romeo@montague.example/o'><received xmlns='urn:xmpp:receipts' id='{id}'/></message>"
            ))
            .await;
        }
        end(peer).await;
    };
    let (reported, ()) = tokio::join!(reporting, owner);
    reported.expect("reported");
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Delivered { .. }))
            && outcomes.len() == 2
    );
}

#[tokio::test]
async fn the_lamp_obeys_its_owner_and_nobody_else() {
    let server = TestServer::start(None).await;
    let owner = async {
        let mut peer = begin(&server).await;
        let status = |presence: &heronry_client::xml::Element| {
            assert_eq!(presence.name(), "presence", "{presence:?}");
            presence.child("status", CLIENT).map(|status| status.text())
        };
        assert_eq!(status(&peer.stanza().await).as_deref(), Some("off"));
        for (asker, expected) in [
            ("tybalt@capulet.example", "unsubscribed"),
            ("romeo@montague.example", "subscribed"),
        ] {
            peer.say(&format!("<presence type='subscribe' from='{asker}'/>")).await;
            let answer = peer.stanza().await;
            assert_eq!((answer.attr("to"), answer.attr("type")), (Some(asker), Some(expected)));
        }
        peer.say("<message from='tybalt@capulet.example/x'><body>on</body></message>")
            .await;
        peer.say("<message from='romeo@montague.example/o'><body>on</body></message>")
            .await;
        assert_eq!(status(&peer.stanza().await).as_deref(), Some("on"));
        let answer = peer.stanza().await;
        assert_eq!(answer.attr("to"), Some("romeo@montague.example/o"));
        peer.say(
            "<message from='romeo@montague.example/o'><body>off</body>\
             <delay xmlns='urn:xmpp:delay' stamp='2026-11-21T10:00:00Z'/></message>",
        )
        .await;
        let answer = peer.stanza().await;
        let text = answer.child("body", CLIENT).map(|body| body.text());
        assert_eq!(text.as_deref(), Some("too late"));
    };
    tokio::select! {
        ended = lamp::shine(server.options(), romeo()) => panic!("{ended:?}"),
        () = owner => {}
    }
}

#[tokio::test]
async fn the_watcher_asks_and_tells() {
    let server = TestServer::start(None).await;
    let (lines, mut told) = mpsc::unbounded_channel();
    let devices = [romeo(), BareJid::parse("nurse@capulet.example").expect("address")];
    let watching = watcher::watch(server.options(), &devices, |line| {
        let _ = lines.send(line);
    });
    let script = async {
        let mut peer = begin(&server).await;
        let id = peer.stanza().await.attr("id").expect("id").to_owned();
        peer.say(&format!(
            "<iq type='result' id='{id}'><query xmlns='jabber:iq:roster'>\
             <item jid='nurse@capulet.example' subscription='to'/></query></iq>"
        ))
        .await;
        assert_eq!(peer.stanza().await.attr("type"), None);
        let asked = peer.stanza().await;
        assert_eq!(
            (asked.attr("type"), asked.attr("to")),
            (Some("subscribe"), Some("romeo@montague.example"))
        );
        peer.say(
            "<presence type='subscribed' from='romeo@montague.example'/>\
             <presence from='romeo@montague.example/o'><status>on</status></presence>\
             <presence type='unavailable' from='romeo@montague.example/o'/>",
        )
        .await;
        let expected = [
            "romeo@montague.example lets us watch",
            "romeo@montague.example/o is there: on",
            "romeo@montague.example/o is gone",
        ];
        for line in expected {
            assert_eq!(told.recv().await.as_deref(), Some(line));
        }
    };
    tokio::select! {
        ended = watching => panic!("{ended:?}"),
        () = script => {}
    }
}
