//! Clients of a whole node: logging in, talking, going away.

use heronry_client::{Options, Request, Server, Tls, Trust, message, xml::Element};

use crate::broker::{Broker, Device};

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

    juliet
        .client
        .send(message(romeo.client.jid(), "wherefore art thou"))
        .await
        .unwrap();
    assert_eq!(romeo.text().await, "wherefore art thou");
    romeo
        .client
        .send(message(juliet.client.jid(), "I take thee at thy word"))
        .await
        .unwrap();
    assert_eq!(juliet.text().await, "I take thee at thy word");
    broker.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_keeps_at_its_account_survives_a_restart() {
    let broker = Broker::start().await;
    let juliet = broker.device("juliet").await;
    let note = Element::new("note", "urn:example:note").with_text("the lark");
    let query = |child: Element| Element::new("query", "jabber:iq:private").with_child(child);
    juliet.client.request(Request::set(query(note.clone()))).await.unwrap();

    let broker = broker.restart().await;
    let juliet = Device::connect(broker.options("juliet")).await;
    let asked = Request::get(query(Element::new("note", "urn:example:note")));
    let answer = juliet.client.request(asked).await.unwrap().unwrap();
    assert_eq!(answer.child("note", "urn:example:note").unwrap().text(), "the lark");
    broker.node.shutdown().await;
}
