//! What waits to be written to one peer.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures::Stream;
use heronry_proto::peer::{Call, Calls, Frame, Messages, call::What, frame::Body};

use super::{
    limits::{BATCH_BYTES, MESSAGE_OVERHEAD},
    metrics,
};

/// A piece of what is written.
#[derive(Debug)]
pub(super) enum Item {
    /// A frame of its own.
    Alone(Body),
    /// Goes into one frame with its neighbours.
    Call(Call),
    /// Goes into one frame with its neighbours.
    Message(Bytes),
}

impl Item {
    /// What it counts for in the queue, bytes.
    fn size(&self) -> usize {
        MESSAGE_OVERHEAD
            + match self {
                Self::Alone(Body::Piece(piece)) => prost::Message::encoded_len(piece),
                Self::Alone(_) => 0,
                Self::Call(call) => match &call.what {
                    Some(What::Request(bytes) | What::Answer(bytes)) => bytes.len(),
                    Some(What::Failure(sentence)) => sentence.len(),
                    Some(What::Busy(_) | What::OpenBulk(_)) | None => 0,
                },
                Self::Message(bytes) => bytes.len(),
            }
    }
}

/// It was not put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotQueued {
    /// More waits than may.
    Full,
    /// Nothing is written any more.
    Closed,
}

/// Items that wait, within a bound in bytes, in order. Full: the item is not taken, and the caller decides.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    bytes_max: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    /// Nothing more is put in; what is there is still written.
    finished: bool,
    /// Of the frame that was written last.
    number: u64,
    writer: Option<Waker>,
    /// Waits for room.
    filler: Option<Waker>,
}

impl Queue {
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            bytes_max: AtomicUsize::new(bytes_max),
        })
    }

    /// Another bound, once it is known what the connection is for.
    pub(super) fn set_bytes_max(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Puts an item in. An empty queue takes any.
    pub(super) fn push(&self, item: Item) -> Result<(), NotQueued> {
        let size = item.size();
        let mut state = self.lock();
        if state.finished {
            return Err(NotQueued::Closed);
        }
        if state.bytes.saturating_add(size) > self.bytes_max.load(Ordering::Relaxed) && !state.items.is_empty() {
            return Err(NotQueued::Full);
        }
        state.bytes += size;
        state.items.push_back(item);
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        Ok(())
    }

    /// Waits until less than `bytes` wait, or nothing is written any more. For one at a time.
    pub(super) async fn room(&self, bytes: usize) {
        std::future::poll_fn(|cx| {
            let mut state = self.lock();
            if state.finished || state.bytes < bytes {
                return Poll::Ready(());
            }
            state.filler = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Nothing more is put in. What waits is still written.
    pub(super) fn finish(&self) {
        self.end(|_| 0);
    }

    /// Nothing is written any more; how many items are lost.
    pub(super) fn abandon(&self) -> usize {
        self.end(|state| {
            state.bytes = 0;
            std::mem::take(&mut state.items).len()
        })
    }

    fn end(&self, how: impl FnOnce(&mut State) -> usize) -> usize {
        let mut state = self.lock();
        state.finished = true;
        let lost = how(&mut state);
        let wakers = [state.writer.take(), state.filler.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
        lost
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What is written at once: the first item, and those after it that go with it.
    fn batch(&mut self) -> Option<Body> {
        let mut room = BATCH_BYTES;
        match self.take(&mut room, |_| true)? {
            Item::Alone(body) => Some(body),
            Item::Message(first) => {
                let mut messages = vec![first];
                while let Some(Item::Message(next)) = self.take(&mut room, |item| matches!(item, Item::Message(_))) {
                    messages.push(next);
                }
                Some(Body::Messages(Messages { messages }))
            }
            Item::Call(first) => {
                let mut calls = vec![first];
                while let Some(Item::Call(next)) = self.take(&mut room, |item| matches!(item, Item::Call(_))) {
                    calls.push(next);
                }
                Some(Body::Calls(Calls { calls }))
            }
        }
    }

    /// The next item, if it is one that is `wanted` and there is room for it. The first finds room whatever its size.
    fn take(&mut self, room: &mut usize, wanted: impl Fn(&Item) -> bool) -> Option<Item> {
        let next = self.items.front()?;
        let size = next.size();
        if !wanted(next) || (size > *room && *room < BATCH_BYTES) {
            return None;
        }
        *room = room.saturating_sub(size);
        self.bytes = self.bytes.saturating_sub(size);
        self.items.pop_front()
    }
}

/// The queue as a stream of numbered frames: what is pending when the connection can take a frame becomes one.
#[derive(Debug)]
pub(super) struct Outgoing(pub(super) Arc<Queue>);

impl Stream for Outgoing {
    type Item = Frame;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Frame>> {
        let mut state = self.0.lock();
        let Some(body) = state.batch() else {
            if state.finished {
                return Poll::Ready(None);
            }
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        };
        state.number += 1;
        let number = state.number;
        let filler = state.filler.take();
        drop(state);
        if let Some(filler) = filler {
            filler.wake();
        }
        metrics::frame_sent(match &body {
            Body::Messages(frame) => frame.messages.len(),
            _ => 0,
        });
        Poll::Ready(Some(Frame {
            number,
            body: Some(body),
        }))
    }
}

impl Drop for Outgoing {
    /// The connection is gone.
    fn drop(&mut self) {
        self.0.finish();
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    fn message(size: usize) -> Item {
        Item::Message(Bytes::from(vec![7; size]))
    }

    fn sizes(frame: Option<Frame>) -> Vec<usize> {
        match frame.and_then(|frame| frame.body) {
            Some(Body::Messages(messages)) => messages.messages.iter().map(Bytes::len).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_pending_becomes_one_frame_and_frames_are_numbered() {
        let queue = Queue::new(1 << 20);
        let mut outgoing = Outgoing(Arc::clone(&queue));
        for size in [1, 2, 3] {
            queue.push(message(size)).unwrap();
        }
        let first = outgoing.next().await.unwrap();
        assert_eq!(first.number, 1);
        assert_eq!(sizes(Some(first)), [1, 2, 3]);
        assert!(outgoing.next().now_or_never().is_none());
        queue.push(message(4)).unwrap();
        assert_eq!(outgoing.next().await.unwrap().number, 2);
    }

    #[tokio::test]
    async fn a_frame_is_no_larger_than_a_batch_unless_one_message_is() {
        let queue = Queue::new(1 << 20);
        let mut outgoing = Outgoing(Arc::clone(&queue));
        for size in [100_000, 40_000, 20_000, 10_000, 1] {
            queue.push(message(size)).unwrap();
        }
        assert_eq!(sizes(outgoing.next().await), [100_000]);
        assert_eq!(sizes(outgoing.next().await), [40_000, 20_000]);
        assert_eq!(sizes(outgoing.next().await), [10_000, 1]);
    }

    #[tokio::test]
    async fn a_full_queue_takes_nothing_until_something_is_written() {
        let queue = Queue::new(1000);
        let mut outgoing = Outgoing(Arc::clone(&queue));
        queue.push(message(5000)).unwrap();
        assert_eq!(queue.push(message(0)), Err(NotQueued::Full));
        assert!(queue.room(1000).now_or_never().is_none());
        assert_eq!(sizes(outgoing.next().await), [5000]);
        assert!(queue.room(1000).now_or_never().is_some());
        while queue.push(message(0)).is_ok() {}
        assert_eq!(sizes(outgoing.next().await).len(), 1000 / MESSAGE_OVERHEAD);
    }

    #[tokio::test]
    async fn what_was_put_in_before_the_end_is_written() {
        let queue = Queue::new(1000);
        let mut outgoing = Outgoing(Arc::clone(&queue));
        queue.push(message(1)).unwrap();
        queue.finish();
        assert_eq!(queue.push(message(2)), Err(NotQueued::Closed));
        assert_eq!(sizes(outgoing.next().await), [1]);
        assert_eq!(outgoing.next().await, None);
    }

    #[tokio::test]
    async fn what_is_abandoned_is_counted_and_not_written() {
        let queue = Queue::new(1000);
        let mut outgoing = Outgoing(Arc::clone(&queue));
        queue.push(message(1)).unwrap();
        queue.push(message(2)).unwrap();
        assert_eq!(queue.abandon(), 2);
        assert_eq!(outgoing.next().await, None);
    }
}
