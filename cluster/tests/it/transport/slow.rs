//! A peer that does not read.

use std::time::Duration;

use bytes::Bytes;
use heronry_cluster::transport::SendError;

use super::{Heard, Start, counts::Counts, proxy::Proxy};

#[tokio::test]
async fn a_peer_that_does_not_read_loses_its_link_and_delays_nobody_else() {
    let counts = Counts::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let one = Start::of(1)
        .with(|start| start.limits.queue_bytes_max = 1 << 20)
        .go()
        .await;
    let (two, three) = (Start::of(2).go().await, Start::of(3).go().await);
    let proxy = Proxy::to(two.address()).await;
    one.transport.wanted(vec![
        (two.id.node, proxy.address.clone()),
        (three.id.node, three.address()),
    ]);
    two.wants(&[&one]);
    three.wants(&[&one]);
    let ups = [one.hears().await, one.hears().await];
    assert!(
        ups.contains(&Heard::Up(two.id, false)) && ups.contains(&Heard::Up(three.id, false)),
        "{ups:?}"
    );
    one.reaches(&three).await;
    proxy.stall();
    // What the system and HTTP/2 hold for a connection is some MiB; then our queue fills.
    let mut full = None;
    for _ in 0..4000 {
        match one.transport.send(two.id.node, Bytes::from(vec![7; 32 << 10])) {
            Ok(()) => {}
            Err(error) => {
                full = Some(error);
                break;
            }
        }
        one.send(&three, "x");
        let asked = one
            .transport
            .call(three.id.node, Bytes::from("echo"), super::SOON)
            .await;
        assert_eq!(asked, Ok(Bytes::from("echo")));
    }
    assert_eq!(full, Some(SendError::Full));
    let again = one.transport.send(two.id.node, Bytes::new());
    assert_eq!(again, Err(SendError::NotConnected));
    assert_eq!(one.hears().await, Heard::Down(two.id));
    assert_eq!(counts.broken("messages", "full"), 1);
    assert_eq!(counts.of("link_messages_lost_total{reason=full}"), 1);
    assert!(counts.of("link_messages_lost_total{reason=broken}") > 0);
    assert_eq!(one.asks(&three, "echo").await, Ok(Bytes::from("echo")));
}

#[tokio::test]
async fn a_peer_that_has_fallen_silent_is_left() {
    let quick = |start: &mut Start| {
        start.limits.keep_alive_interval = Duration::from_millis(200);
        start.limits.keep_alive_timeout = Duration::from_secs(5);
    };
    let one = Start::of(1).with(quick).go().await;
    let two = Start::of(2).with(quick).go().await;
    let proxy = Proxy::to(two.address()).await;
    one.transport.wanted(vec![(two.id.node, proxy.address.clone())]);
    two.wants(&[&one]);
    assert_eq!(one.hears().await, Heard::Up(two.id, false));
    assert_eq!(two.hears().await, Heard::Up(one.id, false));
    proxy.stall();
    assert_eq!(one.hears().await, Heard::Down(two.id));
    assert_eq!(two.hears().await, Heard::Down(one.id));
    proxy.cut();
    assert_eq!(one.hears().await, Heard::Up(two.id, true));
    assert_eq!(two.hears().await, Heard::Up(one.id, true));
}

#[tokio::test]
async fn a_link_that_is_cut_comes_back_and_says_again() {
    let (one, two) = (Start::of(1).go().await, Start::of(2).go().await);
    let proxy = Proxy::to(two.address()).await;
    one.transport.wanted(vec![(two.id.node, proxy.address.clone())]);
    two.wants(&[&one]);
    assert_eq!(one.hears().await, Heard::Up(two.id, false));
    assert_eq!(two.hears().await, Heard::Up(one.id, false));
    for round in ["a", "b", "c"] {
        one.send(&two, round);
        assert_eq!(two.hears().await, Heard::Message(one.id, Bytes::from(round)));
        proxy.cut();
        assert_eq!(one.hears().await, Heard::Down(two.id));
        assert_eq!(two.hears().await, Heard::Down(one.id));
        assert_eq!(one.hears().await, Heard::Up(two.id, true));
        assert_eq!(two.hears().await, Heard::Up(one.id, true));
        one.reaches(&two).await;
    }
}
