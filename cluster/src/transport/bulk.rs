//! The lane of transfers: one connection for each, so that none waits for another, at a pace that all of a node's share.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use heronry_proto::peer::{Piece, call, frame::Body, piece::What};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, sleep_until, timeout},
};

use super::{CallError, connection::Broken, control, inner::Inner, lane::Lane, metrics, queue::Item};

/// Chunks are cut here, bytes, so that the pace is smooth.
const CHUNK_BYTES: usize = 128 << 10;

/// What of a transfer waits to be written, bytes; more is not taken from its source.
const WAITING_BYTES: usize = 512 << 10;

/// Chunks that have come and not been taken; then the connection is not read.
const CHUNKS_WAITING: usize = 4;

/// How fast all transfers of a node may be together.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    /// When the next byte may be sent.
    free: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            free: Mutex::new(Instant::now()),
        }
    }

    /// Waits until so many bytes may be sent.
    async fn take(&self, bytes: usize) {
        let at = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let at = (*free).max(Instant::now());
            *free = at + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
            at
        };
        sleep_until(at).await;
    }
}

/// Sends a transfer and waits for the answer. Dropped, it closes the connection, and the other side's chunks end with an error.
pub(super) async fn send(
    inner: &Inner,
    mut lane: Lane,
    header: Bytes,
    chunks: BoxStream<'static, Bytes>,
) -> Result<Bytes, CallError> {
    let queue = Arc::clone(&lane.queue);
    push(&queue, What::Header(header))?;
    let sent = async {
        let mut chunks = chunks;
        while let Some(mut chunk) = chunks.next().await {
            while !chunk.is_empty() {
                let part = chunk.split_to(chunk.len().min(CHUNK_BYTES));
                inner.pace.take(part.len()).await;
                queue.room(WAITING_BYTES).await;
                metrics::chunk("out", part.len());
                push(&queue, What::Chunk(part))?;
            }
        }
        push(&queue, What::End(true))?;
        // Only the answer ends it now.
        std::future::pending().await
    };
    let answer = async {
        match lane.next().await {
            Ok(Body::Piece(piece)) => match piece.what {
                Some(What::Answer(answer)) => Ok(answer),
                Some(What::Failure(sentence)) => Err(CallError::Failed(sentence)),
                _ => Err(CallError::Broken),
            },
            Ok(_) | Err(_) => Err(CallError::Broken),
        }
    };
    let result = tokio::select! {
        biased;
        answer = answer => answer,
        failed = sent => failed,
    };
    lane.connection.close(Broken::Done);
    metrics::transferred("out", result.is_ok());
    result
}

fn push(queue: &super::queue::Queue, what: What) -> Result<(), CallError> {
    let piece = Piece { what: Some(what) };
    queue
        .push(Item::Alone(Body::Piece(piece)))
        .map_err(|_| CallError::Broken)
}

/// Receives a transfer and answers it.
pub(super) async fn receive(inner: &Inner, mut lane: Lane, place: OwnedSemaphorePermit) {
    let done = take(inner, &mut lane).await;
    metrics::transferred("in", done);
    // The sender closes when it has the answer.
    let _ = timeout(inner.limits.handshake_timeout, lane.next()).await;
    drop(place);
}

async fn take(inner: &Inner, lane: &mut Lane) -> bool {
    let Ok(Ok(Body::Piece(Piece {
        what: Some(What::Header(header)),
    }))) = timeout(inner.limits.handshake_timeout, lane.next()).await
    else {
        lane.connection.close(Broken::Garbled);
        return false;
    };
    let (chunk, chunks) = mpsc::channel(CHUNKS_WAITING);
    let chunks = futures::stream::unfold(chunks, |mut chunks| async {
        chunks.recv().await.map(|next| (next, chunks))
    });
    let mut answer = Arc::clone(&inner.handler).transfer(lane.peer, header, chunks.boxed());
    let answered = tokio::select! {
        answer = &mut answer => answer,
        () = inner.stop.cancelled() => return false,
        () = feed(lane, chunk) => {
            // Nobody waits for the answer; the handler may put away what it has.
            let _ = timeout(inner.limits.handshake_timeout, answer).await;
            return false;
        }
    };
    let done = answered.is_ok();
    let what = match control::reply(answered, inner.limits.call_bytes_max) {
        call::What::Answer(answer) => What::Answer(answer),
        call::What::Failure(sentence) => What::Failure(sentence),
        call::What::Request(_) | call::What::Busy(_) | call::What::OpenBulk(_) => return false,
    };
    push(&lane.queue, what).is_ok() && done
}

/// Gives chunks to the handler as it takes them. Returns when the connection is gone.
async fn feed(lane: &mut Lane, to: mpsc::Sender<Result<Bytes, String>>) {
    let mut to = Some(to);
    loop {
        let broken = match (lane.next().await, &to) {
            (
                Ok(Body::Piece(Piece {
                    what: Some(What::End(_)),
                })),
                Some(_),
            ) => {
                to = None;
                continue;
            }
            (
                Ok(Body::Piece(Piece {
                    what: Some(What::Chunk(chunk)),
                })),
                Some(to),
            ) => {
                metrics::chunk("in", chunk.len());
                // Nobody takes it: the handler does not want the rest, and its answer comes.
                let _ = to.send(Ok(chunk)).await;
                continue;
            }
            (Ok(_), _) => "the transfer cannot be understood",
            (Err(_), _) => "the transfer has broken off",
        };
        if let Some(to) = to {
            let _ = to.send(Err(broken.to_owned())).await;
        }
        return lane.connection.close(Broken::Garbled);
    }
}
