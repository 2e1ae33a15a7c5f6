//! Transfers, from and to the side that dials.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use heronry_cluster::{NodeId, transport::CallError};
use tokio::time::Instant;

use super::{Heard, Process, Start, counts::Counts, pair, peer, until};

const MIB: usize = 1 << 20;

/// Sends so many chunks of 300 kB.
async fn transfer(from: &Process, to: &Process, header: &'static str, chunks: usize) -> Result<Bytes, CallError> {
    let chunks = stream::iter((0..chunks).map(|number| Bytes::from(vec![number as u8; 300_000])));
    from.transport
        .transfer(to.id.node, Bytes::from(header), chunks.boxed())
        .await
}

#[tokio::test]
async fn a_transfer_arrives_whole_whoever_dials() {
    let (one, two) = pair(Start::of(1), Start::of(2)).await;
    let sum = (0..20_u8)
        .flat_map(|number| std::iter::repeat_n(number, 300_000))
        .fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let expected = Ok(Bytes::from(format!("snapshot 6000000 {sum}")));
    assert_eq!(transfer(&one, &two, "snapshot", 20).await, expected);
    assert_eq!(transfer(&two, &one, "snapshot", 20).await, expected);
    assert_eq!(transfer(&two, &one, "empty", 0).await, Ok(Bytes::from("empty 0 0")));
}

#[tokio::test]
async fn the_receiver_may_refuse_at_any_time() {
    let (one, two) = pair(Start::of(1), Start::of(2)).await;
    for (from, to) in [(&one, &two), (&two, &one)] {
        let refused = transfer(from, to, "refuse", 1000).await;
        assert_eq!(refused, Err(CallError::Failed("no room".to_owned())));
    }
}

#[tokio::test]
async fn a_transfer_that_is_dropped_breaks_off_at_the_other_side() {
    let (one, two) = pair(Start::of(1), Start::of(2)).await;
    for (from, to) in [(&one, &two), (&two, &one)] {
        let chunks = stream::iter([Bytes::from("some")]).chain(stream::pending());
        let sending = from
            .transport
            .transfer(to.id.node, Bytes::from("watched"), chunks.boxed());
        tokio::select! {
            answer = sending => panic!("{answer:?}"),
            begun = to.hears() => assert_eq!(begun, Heard::Message(peer(0, 0), Bytes::from("begun"))),
        }
        assert_eq!(to.hears().await, Heard::Message(peer(0, 0), Bytes::from("begun")));
        let broken = Bytes::from("the transfer has broken off");
        assert_eq!(to.hears().await, Heard::Message(peer(0, 0), broken));
    }
}

#[tokio::test]
async fn transfers_keep_the_pace_and_leave_calls_alone() {
    let slow = |start: &mut Start| start.limits.bulk_bytes_per_second = 2 * MIB as u64;
    let (one, two) = pair(Start::of(1).with(slow), Start::of(2)).await;
    let begun = Instant::now();
    let (answer, asked) = tokio::join!(transfer(&one, &two, "snapshot", 10), one.asks(&two, "echo"));
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(asked, Ok(Bytes::from("echo")));
    // 3 MB less the last chunk at 2 MiB/s; slower is no error.
    assert!(begun.elapsed() > Duration::from_millis(1200), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn more_transfers_than_may_be_are_refused() {
    let counts = Counts::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let few = |start: &mut Start| start.limits.transfers_max = 2;
    let (one, two) = pair(Start::of(1).with(few), Start::of(2)).await;
    for (from, to) in [(&one, &two), (&two, &one)] {
        let never = || {
            from.transport
                .transfer(to.id.node, Bytes::from("never"), stream::pending().boxed())
        };
        let mut first = Box::pin(never());
        let mut second = Box::pin(never());
        let third = async {
            // Both have reached the limit: at the sender, or at the receiver.
            let mut last = Ok(Bytes::new());
            until(async || {
                last = transfer(from, to, "third", 0).await;
                last == Err(CallError::Busy)
            })
            .await;
        };
        tokio::select! {
            biased;
            _ = &mut first => panic!("it was answered"),
            _ = &mut second => panic!("it was answered"),
            () = third => {}
        }
        drop((first, second));
    }
}

#[tokio::test]
async fn nothing_is_transferred_to_who_is_not_there() {
    let one = Start::of(1).go().await;
    let nobody = one
        .transport
        .transfer(NodeId(2), Bytes::new(), stream::empty().boxed())
        .await;
    assert_eq!(nobody, Err(CallError::NotConnected));
    let (one, two) = pair(Start::of(3), Start::of(2)).await;
    let (left, ()) = tokio::join!(
        one.transport
            .transfer(two.id.node, Bytes::from("never"), stream::pending().boxed()),
        async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            two.transport.shutdown().await;
        }
    );
    assert_eq!(left, Err(CallError::Broken));
}
