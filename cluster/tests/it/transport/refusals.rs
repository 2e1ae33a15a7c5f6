//! Who is refused, and the sentence.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use heronry_cluster::{
    ClusterId, NodeId,
    transport::{CallError, Net, RefusalReason, Tcp},
};
use heronry_proto::peer::{Hello, Lane};
use tokio::net::{TcpListener, TcpStream};

use super::{
    CLUSTER, Heard, Process, SOON, Start,
    counts::Counts,
    peer,
    raw::{Raw, hello, refusal, short},
    until,
};

/// TCP on a machine whose clock is wrong.
#[derive(Clone)]
struct Skewed(Duration);

impl Net for Skewed {
    type Stream = TcpStream;
    type Listener = TcpListener;

    async fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        Net::listen(&Tcp, address).await
    }

    async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        Tcp::accept(listener).await
    }

    fn local_address(listener: &TcpListener) -> io::Result<SocketAddr> {
        Tcp::local_address(listener)
    }

    async fn dial(&self, address: &str) -> io::Result<TcpStream> {
        Net::dial(&Tcp, address).await
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::now() + self.0
    }
}

/// Node 2, which wants node 1.
async fn two() -> Process {
    let two = Start::of(2).go().await;
    let nowhere = || "127.0.0.1:1".to_owned();
    two.transport
        .wanted(vec![(NodeId(1), nowhere()), (NodeId(3), nowhere())]);
    two
}

/// What node 2 says to a Hello for the lane of messages that is node 1's but for a change.
async fn says_to(two: &Process, change: impl FnOnce(&mut Hello)) -> (String, String) {
    let mut hello = hello(peer(1, 1), Lane::Messages);
    change(&mut hello);
    refusal(Raw::greet(&two.address(), hello).await.1)
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_a_sentence() {
    let counts = Counts::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let two = two().await;
    two.transport.set_feature_level_in_use(1);
    let day = 24 * 3600 * 1_000_000;
    type Change = fn(&mut Hello);
    let cases: [(&str, &str, Change); 10] = [
        (
            "protocol",
            "version 2 of the protocol between nodes is spoken by node 1 (heronry 9.0), version 1 by node 2 (heronry 0.1.0)",
            |hello| (hello.protocol, hello.version) = (2, "9.0".to_owned()),
        ),
        (
            "cluster_name",
            r#"node 1 belongs to the cluster "heron", node 2 to "colony""#,
            |hello| hello.cluster_name = "heron".to_owned(),
        ),
        (
            "cluster_id",
            r#"there are two clusters named "colony": node 1 belongs to 07, node 2 to c1"#,
            |hello| hello.cluster_id = ClusterId(7).to_bytes().to_vec().into(),
        ),
        ("no_member", "node 1 is not a member of a cluster yet", |hello| {
            hello.cluster_id = Bytes::new();
        }),
        ("garbled", "the cluster id does not have 16 bytes", |hello| {
            hello.cluster_id = Bytes::from("x");
        }),
        (
            "own_id",
            "the node id 2 is our own: another process has it: a copy of the data directory is in use",
            |hello| (hello.node_id, hello.start) = (2, 7),
        ),
        ("garbled", "the node with the lower id dials", |hello| hello.node_id = 3),
        (
            "unknown_node",
            "node 4 is not a member of the cluster, as far as node 2 knows",
            |hello| hello.node_id = 4,
        ),
        (
            "feature_level",
            "the cluster is at feature level 1, and node 1 (heronry 0.1.0) knows levels up to 0 only",
            |hello| hello.feature_level = 0,
        ),
        (
            "feature_level",
            "the cluster is at feature level 9, and node 2 (heronry 0.1.0) knows levels up to 1 only",
            |hello| hello.feature_level_in_use = 9,
        ),
    ];
    for (reason, sentence, change) in cases {
        let before = counts.refused("us", reason);
        assert_eq!(says_to(&two, change).await, (reason.to_owned(), sentence.to_owned()));
        assert_eq!(counts.refused("us", reason), before + 1, "{reason}");
    }
    let (reason, sentence) = says_to(&two, |hello| hello.wall_clock_micros += day).await;
    assert_eq!(reason, "clock_skew");
    assert!(
        sentence.starts_with("the clocks of node 1 and node 2 are 8"),
        "{sentence}"
    );
    let (reason, _) = says_to(&two, |hello| hello.wall_clock_micros -= day).await;
    assert_eq!(reason, "clock_skew");
    let (reason, _) = says_to(&two, |hello| hello.lane = 17).await;
    assert_eq!(reason, "garbled");

    // And who fits is let in.
    let _raw = Raw::member(&two.address(), peer(1, 1), Lane::Messages).await;
    assert_eq!(two.hears().await, Heard::Up(peer(1, 1), false));
}

#[tokio::test]
async fn an_earlier_process_does_not_displace_a_later_one_while_it_is_connected() {
    let counts = Counts::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let two = two().await;
    let address = two.address();
    let later = Raw::member(&address, peer(1, 5), Lane::Control).await;
    until(async || {
        two.transport
            .call(NodeId(1), Bytes::new(), Duration::from_millis(1))
            .await
            != Err(CallError::NotConnected)
    })
    .await;
    for lane in [Lane::Control, Lane::Messages, Lane::Bulk] {
        let (_, answer) = Raw::greet(&address, hello(peer(1, 4), lane)).await;
        assert_eq!(
            refusal(answer),
            (
                "older_process".to_owned(),
                "node 1 is connected already, by a process that started later (5) than this one (4)".to_owned()
            )
        );
    }
    assert_eq!(counts.refused("us", "older_process"), 3);
    drop(later);
    until(async || two.transport.call(NodeId(1), Bytes::new(), SOON).await == Err(CallError::NotConnected)).await;
    let _earlier = Raw::member(&address, peer(1, 4), Lane::Messages).await;
    assert_eq!(two.hears().await, Heard::Up(peer(1, 4), false));
}

#[tokio::test]
async fn a_later_process_displaces_an_earlier_one_and_the_same_one_itself() {
    let counts = Counts::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let two = two().await;
    let mut first = Raw::member(&two.address(), peer(1, 5), Lane::Messages).await;
    assert_eq!(two.hears().await, Heard::Up(peer(1, 5), false));
    let mut again = Raw::member(&two.address(), peer(1, 5), Lane::Messages).await;
    assert_eq!(two.hears().await, Heard::Down(peer(1, 5)));
    assert_eq!(two.hears().await, Heard::Up(peer(1, 5), true));
    first.is_left().await;
    let _control = Raw::member(&two.address(), peer(1, 6), Lane::Control).await;
    assert_eq!(two.hears().await, Heard::Down(peer(1, 5)));
    again.is_left().await;
    assert_eq!(counts.broken("messages", "displaced"), 2);
    let _later = Raw::member(&two.address(), peer(1, 6), Lane::Messages).await;
    assert_eq!(two.hears().await, Heard::Up(peer(1, 6), false));
}

#[tokio::test]
async fn both_sides_say_again_when_only_one_knows_that_the_link_worked() {
    let two = two().await;
    let worked = Hello {
        worked_with: two.id.start,
        ..hello(peer(1, 1), Lane::Messages)
    };
    let (mut raw, _) = Raw::greet(&two.address(), worked).await;
    raw.say(heronry_proto::peer::frame::Body::Ready(heronry_proto::peer::Ready {}));
    assert_eq!(two.hears().await, Heard::Up(peer(1, 1), true));
}

#[tokio::test]
async fn members_with_wrong_clocks_are_not_linked_and_both_know_why() {
    let counts = Counts::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let one = Start::of(1).on(Skewed(Duration::from_secs(1000))).await;
    let two = Start::of(2).go().await;
    one.wants(&[&two]);
    two.wants(&[&one]);
    until(async || counts.refused("us", "clock_skew") >= 3 && counts.refused("peer", "clock_skew") >= 3).await;
    assert_eq!(one.transport.connected(two.id.node), None);
    let Err(CallError::Refused(refusal)) = one.transport.call_address(&two.address(), Bytes::new(), SOON).await else {
        panic!("it was let in");
    };
    assert_eq!(refusal.reason, RefusalReason::ClockSkew);
    assert!(
        short(&refusal.sentence).starts_with("the clocks of node 1 and node 2 are"),
        "{refusal}"
    );
    assert!(refusal.sentence.ends_with("s apart, more than 30.0 s"), "{refusal}");
}

#[tokio::test]
async fn who_dials_refuses_too() {
    let counts = Counts::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let one = Start::of(1).go().await;
    let three = Start::of(3).go().await;
    three.wants(&[&one]);
    // Node 2 is said to be where node 3 is, and node 4 to be where we are.
    one.transport
        .wanted(vec![(NodeId(2), three.address()), (NodeId(4), one.address())]);
    until(async || counts.refused("us", "other_node") >= 2 && counts.refused("us", "own_id") >= 2).await;
    assert_eq!(one.transport.connected(NodeId(2)), None);
}

#[tokio::test]
async fn asking_ourselves_is_told_apart() {
    let one = Start::of(1).go().await;
    let answer = one.transport.call_address(&one.address(), Bytes::from("x"), SOON).await;
    let Err(CallError::Refused(refusal)) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(refusal.reason, RefusalReason::OwnId);
    assert_eq!(
        short(&refusal.sentence),
        "the node id 1 is our own: this very process is at the other end"
    );
}

#[tokio::test]
async fn links_begin_when_both_are_members_of_the_same_cluster() {
    let one = Start::of(1).go().await;
    let joining = Start::of(2).with(|start| start.cluster = None).go().await;
    one.wants(&[&joining]);
    joining.wants(&[&one]);
    let asked = joining
        .transport
        .call_address(&one.address(), Bytes::from("let me in"), SOON)
        .await;
    let (who, answer) = asked.unwrap();
    assert_eq!(
        (who.id, &answer[..]),
        (one.id, &b"0000000000000002 (start 1) says let me in"[..])
    );
    assert_eq!(one.transport.connected(joining.id.node), None);
    joining.cluster.send_replace(Some(CLUSTER));
    assert_eq!(one.hears().await, Heard::Up(joining.id, false));
    assert_eq!(joining.hears().await, Heard::Up(one.id, false));
}
