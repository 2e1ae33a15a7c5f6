//! What comes from a network: other protocols, damage, floods. Nothing of it disturbs those who belong here.

use std::{collections::VecDeque, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use heronry_cluster::{NodeId, transport::CallError};
use heronry_proto::peer::{Call, Calls, Hello, Lane, Messages, Piece, Ready, call::What, frame::Body, piece};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    Heard, Process, SOON, Start,
    counts::Counts,
    pair, peer,
    proxy::Proxy,
    raw::{Raw, hello, messages},
    until,
};

/// Says bytes to a process; that it ends the connection.
async fn shout(to: &Process, bytes: &[u8]) {
    let mut stream = TcpStream::connect(to.address()).await.unwrap();
    // It may have ended it before everything is said.
    let _ = stream.write_all(bytes).await;
    let end = async {
        let mut buffer = [0; 4096];
        while let Ok(1..) = stream.read(&mut buffer).await {}
    };
    tokio::time::timeout(SOON, end)
        .await
        .expect("the connection is still open");
}

#[tokio::test]
async fn other_protocols_are_shown_the_door_and_members_do_not_notice() {
    let counts = Counts::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let (one, two) = pair(Start::of(1), Start::of(2)).await;
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let random: Vec<u8> = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (noise >> 33) as u8
    })
    .take(100_000)
    .collect();
    let mut settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    settings.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let mut flood = settings.clone();
    // Pings without end, and a frame that claims to be large.
    flood.extend([0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8].repeat(2000));
    let mut huge = settings.clone();
    huge.extend([0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]);
    let shouts: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: heronry\r\n\r\n",
        b"<?xml version='1.0'?><stream:stream to='example.org'>\n\n\n\n",
        &[
            22, 3, 1, 0, 5, 1, 0, 0, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ],
        &random,
        &flood,
        &huge,
    ];
    for bytes in shouts {
        let before = counts.refused("us", "garbled");
        shout(&two, bytes).await;
        until(async || counts.refused("us", "garbled") == before + 1).await;
    }
    assert_eq!(one.asks(&two, "still there").await, Ok(Bytes::from("still there")));
    one.send(&two, "x");
    assert_eq!(two.hears().await, Heard::Message(one.id, Bytes::from("x")));
}

#[tokio::test]
async fn who_does_not_say_hello_first_is_not_heard() {
    let counts = Counts::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let two = Start::of(2).go().await;
    two.transport.wanted(vec![(NodeId(1), "127.0.0.1:1".to_owned())]);
    for body in [
        messages(["x"]),
        Body::Ready(Ready {}),
        Body::Piece(Piece { what: None }),
    ] {
        let mut raw = Raw::dial(&two.address()).await;
        raw.say(body);
        raw.is_left().await;
    }
    let mut raw = Raw::dial(&two.address()).await;
    raw.say_as(2, Body::Hello(hello(peer(1, 1), Lane::Messages)));
    raw.is_left().await;
    // More than a stranger may say.
    let mut raw = Raw::dial(&two.address()).await;
    raw.say(Body::Hello(Hello {
        version: "x".repeat(100_000),
        ..hello(peer(1, 1), Lane::Messages)
    }));
    raw.is_left().await;
    until(async || counts.refused("us", "garbled") == 5).await;
}

#[tokio::test]
async fn frames_that_are_missing_repeated_damaged_or_out_of_place_break_the_link() {
    let counts = Counts::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let two = Start::of(2)
        .with(|start| start.limits.frame_bytes_max = 1000)
        .go()
        .await;
    two.transport.wanted(vec![(NodeId(1), "127.0.0.1:1".to_owned())]);
    let large = || {
        let messages = vec![Bytes::from(vec![0; 1001])];
        Body::Messages(Messages { messages })
    };
    let enormous = || {
        let messages = vec![Bytes::from(vec![0; 20 << 20])];
        Body::Messages(Messages { messages })
    };
    let request = || {
        let call = Call {
            number: 1,
            what: Some(What::Request(Bytes::new())),
            timeout_millis: 0,
        };
        Body::Calls(Calls { calls: vec![call] })
    };
    // After Hello, Ready and one message the next frame is the fourth.
    let cases: [(&str, u64, Body); 7] = [
        ("out_of_order", 5, messages(["lost one"])),
        ("out_of_order", 3, messages(["said again"])),
        ("out_of_order", 0, messages(["not numbered"])),
        ("garbled", 4, Body::Hello(hello(peer(1, 1), Lane::Messages))),
        ("garbled", 4, request()),
        ("oversized", 4, large()),
        ("oversized", 4, enormous()),
    ];
    for (round, (reason, number, body)) in cases.into_iter().enumerate() {
        let process = peer(1, 1 + round as u64);
        let mut raw = Raw::member(&two.address(), process, Lane::Messages).await;
        raw.say(messages(["first"]));
        assert_eq!(two.hears().await, Heard::Up(process, false));
        assert_eq!(two.hears().await, Heard::Message(process, Bytes::from("first")));
        let before = counts.broken("messages", reason);
        raw.say_as(number, body);
        assert_eq!(two.hears().await, Heard::Down(process), "{reason}");
        raw.is_left().await;
        until(async || counts.broken("messages", reason) == before + 1).await;
    }
}

#[tokio::test]
async fn a_message_of_which_a_part_is_missing_is_not_heard() {
    let two = Start::of(2).go().await;
    let proxy = Proxy::to(two.address()).await;
    let one = Start::of(1).go().await;
    one.transport.wanted(vec![(two.id.node, proxy.address.clone())]);
    two.wants(&[&one]);
    assert_eq!(one.hears().await, Heard::Up(two.id, false));
    assert_eq!(two.hears().await, Heard::Up(one.id, false));
    proxy
        .cut_after
        .store(proxy.carried.load(Ordering::Relaxed) + 200_000, Ordering::Relaxed);
    one.transport.send(two.id.node, Bytes::from(vec![7; 400_000])).unwrap();
    assert_eq!(two.hears().await, Heard::Down(one.id));
    assert_eq!(one.hears().await, Heard::Down(two.id));
    proxy.cut_after.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(two.hears().await, Heard::Up(one.id, true));
    assert_eq!(one.hears().await, Heard::Up(two.id, true));
}

#[tokio::test]
async fn more_calls_than_may_be_are_refused_on_both_sides() {
    let counts = Counts::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let two = Start::of(2)
        .with(|start| start.limits.calls_in_flight_max = 3)
        .go()
        .await;
    let one = Start::of(1).go().await;
    one.wants(&[&two]);
    two.wants(&[&one]);
    one.reaches(&two).await;
    two.reaches(&one).await;
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(one.asks(&two, "never"))).collect();
    let busy = async {
        until(async || std::sync::Arc::strong_count(&two.under_way) == 5).await;
        one.asks(&two, "echo").await
    };
    tokio::select! {
        _ = futures::future::select_all(&mut waiting) => panic!("it was answered"),
        answer = busy => assert_eq!(answer, Err(CallError::Busy)),
    }
    assert_eq!(counts.of("link_calls_refused_total"), 1);
    drop(waiting);
    // Our own are refused here, before the peer has to.
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(two.asks(&one, "never"))).collect();
    let busy = async {
        until(async || std::sync::Arc::strong_count(&one.under_way) == 5).await;
        two.asks(&one, "echo").await
    };
    tokio::select! {
        _ = futures::future::select_all(&mut waiting) => panic!("it was answered"),
        answer = busy => assert_eq!(answer, Err(CallError::Busy)),
    }
    assert_eq!(counts.of("link_calls_refused_total"), 1);
}

#[tokio::test]
async fn a_flood_of_connections_that_say_nothing_is_bounded_and_keeps_nobody_out() {
    let counts = Counts::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let two = Start::of(2)
        .with(|start| {
            start.limits.strangers_max = 8;
            start.limits.handshake_timeout = Duration::from_secs(6);
        })
        .go()
        .await;
    let mut flood = Vec::new();
    for _ in 0..50 {
        flood.push(TcpStream::connect(two.address()).await.unwrap());
    }
    until(async || counts.refused("us", "busy") == 42).await;
    let one = Start::of(1).go().await;
    one.wants(&[&two]);
    two.wants(&[&one]);
    one.reaches(&two).await;
    assert_eq!(two.hears().await, Heard::Up(one.id, false));
    // Those that are left have had their time.
    until(async || counts.refused("us", "silent") + counts.refused("us", "busy") == 50).await;
    for mut stream in flood {
        let end = async {
            let mut buffer = [0; 4096];
            while let Ok(1..) = stream.read(&mut buffer).await {}
        };
        tokio::time::timeout(SOON, end)
            .await
            .expect("a connection is still open");
    }
    assert_eq!(one.asks(&two, "echo").await, Ok(Bytes::from("echo")));
}

#[tokio::test]
async fn half_a_handshake_has_its_time_too() {
    let counts = Counts::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let two = Start::of(2)
        .with(|start| start.limits.handshake_timeout = Duration::from_secs(4))
        .go()
        .await;
    two.transport.wanted(vec![(NodeId(1), "127.0.0.1:1".to_owned())]);
    // A call without a Hello, Hellos without a Ready, and a question that is not asked.
    let mut quiet = Raw::dial(&two.address()).await;
    let mut greeted = Vec::new();
    for lane in [Lane::Messages, Lane::Ask] {
        let (raw, answer) = Raw::greet(&two.address(), hello(peer(1, 1), lane)).await;
        assert!(matches!(answer, Ok(Some(Body::Hello(_)))), "{answer:?}");
        greeted.push(raw);
    }
    greeted.push(Raw::member(&two.address(), peer(1, 1), Lane::Ask).await);
    quiet.is_left().await;
    for mut raw in greeted {
        raw.is_left().await;
    }
    until(async || counts.refused("us", "silent") == 4).await;
}

#[tokio::test]
async fn any_frame_of_a_member_is_understood_or_breaks_its_connection_only() {
    let counts = Counts::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let two = Start::of(2).go().await;
    let one = Start::of(1).go().await;
    let nowhere = "127.0.0.1:1".to_owned();
    one.wants(&[&two]);
    two.transport
        .wanted(vec![(NodeId(1), one.address()), (NodeId(0), nowhere)]);
    assert_eq!(one.hears().await, Heard::Up(two.id, false));
    assert_eq!(two.hears().await, Heard::Up(one.id, false));
    one.reaches(&two).await;
    let call = |number, what| {
        let calls = vec![Call {
            number,
            what,
            timeout_millis: u32::MAX,
        }];
        Body::Calls(Calls { calls })
    };
    let piece = |what| Body::Piece(Piece { what: Some(what) });
    let bytes = Bytes::from_static(b"\xff\0");
    let bodies = [
        Body::Hello(Hello::default()),
        Body::Refusal(Default::default()),
        Body::Ready(Ready {}),
        Body::Calls(Calls { calls: Vec::new() }),
        call(0, None),
        call(u64::MAX, Some(What::Answer(bytes.clone()))),
        call(7, Some(What::Failure(String::new()))),
        call(7, Some(What::Busy(false))),
        call(7, Some(What::OpenBulk(u64::MAX))),
        call(0, Some(What::Request(bytes.clone()))),
        Body::Messages(Messages { messages: Vec::new() }),
        messages(["", "x"]),
        Body::Piece(Piece { what: None }),
        piece(piece::What::Header(bytes.clone())),
        piece(piece::What::Chunk(bytes.clone())),
        piece(piece::What::End(false)),
        piece(piece::What::Answer(bytes.clone())),
        piece(piece::What::Failure(String::new())),
    ];
    let mut start = 0;
    // The last ones stay, so that what they have said is read.
    let mut open = VecDeque::new();
    for lane in [Lane::Control, Lane::Messages, Lane::Bulk, Lane::Ask] {
        for first in &bodies {
            for second in &bodies {
                start += 1;
                let mut raw = Raw::member(&two.address(), peer(0, start), lane).await;
                raw.say(first.clone());
                raw.say(second.clone());
                open.push_back(raw);
                if open.len() > 16 {
                    open.pop_front();
                }
            }
        }
    }
    assert_eq!(one.asks(&two, "echo").await, Ok(Bytes::from("echo")));
    one.send(&two, "x");
    let arrived = Heard::Message(one.id, Bytes::from("x"));
    while two.hears().await != arrived {}
    for lane in ["control", "messages"] {
        assert!(
            counts.broken(lane, "garbled") > 100,
            "{lane}: {}",
            counts.broken(lane, "garbled")
        );
    }
}
