//! Requests and answers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use heronry_cluster::{NodeId, transport::CallError};

use super::{SOON, Start, pair, until};

#[tokio::test]
async fn a_request_is_answered_by_who_was_asked() {
    let (one, two) = pair(Start::of(1), Start::of(2)).await;
    assert_eq!(one.asks(&two, "echo").await, Ok(Bytes::from("echo")));
    assert_eq!(two.asks(&one, "who").await, Ok(Bytes::from(two.id.to_string())));
    assert_eq!(
        one.asks(&two, "fail: no").await,
        Err(CallError::Failed("fail: no".to_owned()))
    );
}

#[tokio::test]
async fn answers_find_their_requests_in_any_order() {
    let (one, two) = pair(Start::of(1), Start::of(2)).await;
    let never = one.asks(&two, "never");
    let asked = futures::future::join_all((0..500).map(|number| {
        let (one, two) = (&one, &two);
        async move { (number, one.asks(two, &number.to_string()).await) }
    }));
    tokio::select! {
        _ = never => panic!("it was answered"),
        answers = asked => {
            for (number, answer) in answers {
                assert_eq!(answer, Ok(Bytes::from(number.to_string())));
            }
        }
    }
}

#[tokio::test]
async fn who_is_not_answered_in_time_is_told_and_the_peer_ceases_too() {
    let (one, two) = pair(Start::of(1), Start::of(2)).await;
    let within = Duration::from_millis(50);
    let answer = one.transport.call(two.id.node, Bytes::from("never"), within).await;
    assert_eq!(answer, Err(CallError::TimedOut(within)));
    until(async || Arc::strong_count(&two.under_way) == 2).await;
}

#[tokio::test]
async fn a_request_ends_when_its_link_breaks() {
    let (one, two) = pair(Start::of(1), Start::of(2)).await;
    let (answer, ()) = tokio::join!(one.asks(&two, "never"), async {
        until(async || Arc::strong_count(&two.under_way) == 3).await;
        two.transport.wanted(Vec::new());
    });
    assert_eq!(answer, Err(CallError::Broken));
    until(async || Arc::strong_count(&two.under_way) == 2).await;
}

#[tokio::test]
async fn nobody_is_asked_who_is_not_connected() {
    let one = Start::of(1).go().await;
    let answer = one.transport.call(NodeId(2), Bytes::new(), SOON).await;
    assert_eq!(answer, Err(CallError::NotConnected));
    one.transport.shutdown().await;
    let answer = one.transport.call(NodeId(2), Bytes::new(), SOON).await;
    assert_eq!(answer, Err(CallError::Closed));
}
