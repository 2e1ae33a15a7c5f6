//! Calls between processes that need not be members.

use std::time::Duration;

use bytes::Bytes;
use heronry_cluster::transport::{CallError, TransportError};

use super::{SOON, Start, address, until};

#[tokio::test]
async fn a_process_without_a_cluster_may_ask_and_is_answered() {
    let founded = Start::of(1).go().await;
    for waiting in [Start::of(2), Start::of(3).with(|start| start.listen = None)] {
        let waiting = waiting.with(|start| start.cluster = None).go().await;
        let asked = waiting
            .transport
            .call_address(&founded.address(), Bytes::from("hello"), SOON)
            .await;
        let (who, answer) = asked.unwrap();
        assert_eq!(who.id, founded.id);
        assert_eq!(who.cluster_name, "colony");
        assert_eq!(answer, Bytes::from(format!("{} says hello", waiting.id)));
    }
}

#[tokio::test]
async fn nobody_at_the_address_is_said_so() {
    let one = Start::of(1).go().await;
    let nobody = one.transport.call_address("127.0.0.1:1", Bytes::new(), SOON).await;
    assert!(matches!(nobody, Err(CallError::Unreachable(_))), "{nobody:?}");
    let listener = tokio::net::TcpListener::bind(address()).await.unwrap();
    let silent = listener.local_addr().unwrap().to_string();
    let within = Duration::from_millis(200);
    let nobody = one.transport.call_address(&silent, Bytes::new(), within).await;
    assert_eq!(nobody, Err(CallError::TimedOut(within)));
}

#[tokio::test]
async fn only_so_many_may_ask_at_once() {
    let one = Start::of(1).with(|start| start.limits.asks_max = 1).go().await;
    let (two, three) = (Start::of(2).go().await, Start::of(3).go().await);
    let address = one.address();
    let never = two.transport.call_address(&address, Bytes::from("never"), SOON);
    let busy = async {
        until(async || three.transport.call_address(&address, Bytes::from("x"), SOON).await == Err(CallError::Busy))
            .await;
    };
    tokio::select! {
        answer = never => panic!("{answer:?}"),
        () = busy => {}
    }
    // The first has gone.
    until(async || {
        three
            .transport
            .call_address(&address, Bytes::from("x"), SOON)
            .await
            .is_ok()
    })
    .await;
}

#[tokio::test]
async fn an_address_in_use_is_an_error_at_the_start() {
    let one = Start::of(1).go().await;
    let listen = one.transport.local_address();
    let refused = Start::of(2).with(|start| start.listen = listen).try_go().await;
    assert!(matches!(refused, Err(TransportError::Listen { .. })), "{refused:?}");
}

#[tokio::test]
async fn limits_that_contradict_each_other_are_an_error_at_the_start() {
    let refused = Start::of(2)
        .with(|start| start.limits.queue_bytes_max = 10)
        .try_go()
        .await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        "`frame_bytes_max` (524288) must not be larger than `queue_bytes_max` (10)"
    );
}
