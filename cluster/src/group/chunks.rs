//! Chunks of a snapshot, from a store that may wait for its disk.

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use heronry_storage::{Chunks, StoreError};

use crate::blocking;

/// Each is read when it is asked for, on a thread that may wait; no thread waits for whoever takes them.
pub(super) fn stream(chunks: Chunks) -> BoxStream<'static, Result<Bytes, StoreError>> {
    futures::stream::unfold(Some(chunks), |chunks| async {
        let mut chunks = chunks?;
        let read = blocking(move || (chunks.next(), chunks)).await;
        match read {
            Ok((chunk, chunks)) => Some((chunk?, Some(chunks))),
            Err(error) => Some((Err(StoreError::Io(error.to_string())), None)),
        }
    })
    .boxed()
}
