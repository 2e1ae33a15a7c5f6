//! Messages: in order, never twice; a link that breaks says so.

use bytes::Bytes;
use heronry_cluster::{NodeId, transport::SendError};

use super::{Heard, Start, counts::Counts, pair, peer, until};

#[tokio::test]
async fn messages_arrive_in_order_both_ways_and_share_frames() {
    let counts = Counts::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let (one, two) = pair(Start::of(1), Start::of(2)).await;
    for number in 0..1000 {
        one.send(&two, &format!("{number}"));
        two.send(&one, &format!("{number}"));
    }
    for number in 0..1000 {
        let message = Bytes::from(format!("{number}"));
        assert_eq!(two.hears().await, Heard::Message(one.id, message.clone()));
        assert_eq!(one.hears().await, Heard::Message(two.id, message));
    }
    // All were pending when the connections could take the first of them.
    assert_eq!(counts.of("link_messages_sent_total"), 2000);
    assert!(
        counts.of("link_frames_sent_total") < 100,
        "{}",
        counts.of("link_frames_sent_total")
    );
    assert_eq!(one.transport.connected(two.id.node), Some(two.id));
    assert_eq!(two.transport.connected(one.id.node), Some(one.id));
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_at_once() {
    let one = Start::of(1).go().await;
    let nobody = one.transport.send(NodeId(2), Bytes::from_static(b"x"));
    assert_eq!(nobody, Err(SendError::NotConnected));
    let (one, two) = pair(
        Start::of(1).with(|start| start.limits.frame_bytes_max = 1000),
        Start::of(2),
    )
    .await;
    let large = one.transport.send(two.id.node, Bytes::from(vec![0; 1001]));
    assert_eq!(large, Err(SendError::TooLarge { bytes: 1001, max: 1000 }));
    one.transport.send(two.id.node, Bytes::from(vec![0; 1000])).unwrap();
    assert_eq!(two.hears().await, Heard::Message(one.id, Bytes::from(vec![0; 1000])));
}

#[tokio::test]
async fn a_restarted_process_is_another_one() {
    let (one, two) = pair(Start::of(1), Start::of(2)).await;
    two.transport.shutdown().await;
    assert_eq!(one.hears().await, Heard::Down(two.id));
    assert_eq!(
        one.transport.send(two.id.node, Bytes::new()),
        Err(SendError::NotConnected)
    );
    let restarted = Start::of(2).with(|start| start.identity.id = peer(2, 2)).go().await;
    restarted.wants(&[&one]);
    one.wants(&[&restarted]);
    assert_eq!(one.hears().await, Heard::Up(restarted.id, false));
    assert_eq!(restarted.hears().await, Heard::Up(one.id, false));
    one.send(&restarted, "to the new one");
    assert_eq!(
        restarted.hears().await,
        Heard::Message(one.id, Bytes::from("to the new one"))
    );
}

#[tokio::test]
async fn a_node_that_is_no_longer_wanted_is_left_and_when_it_is_wanted_again_it_is_the_same_process() {
    let (one, two) = pair(Start::of(1), Start::of(2)).await;
    one.transport.wanted(Vec::new());
    assert_eq!(one.hears().await, Heard::Down(two.id));
    assert_eq!(two.hears().await, Heard::Down(one.id));
    until(async || one.transport.connected(two.id.node).is_none()).await;
    one.wants(&[&two]);
    assert_eq!(one.hears().await, Heard::Up(two.id, true));
    assert_eq!(two.hears().await, Heard::Up(one.id, true));
}
