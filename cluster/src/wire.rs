//! The way to other nodes, as groups use it.

use std::time::Duration;

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use heronry_storage::NodeId;

use crate::transport::Transport;

/// Why nothing has come back from a node: a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WireError(pub String);

/// Carries requests and snapshots to other nodes.
pub trait Wire: Send + Sync + 'static {
    /// Sends a request; its answer, or why there is none within `timeout`.
    fn call(&self, to: NodeId, request: Bytes, timeout: Duration) -> BoxFuture<'static, Result<Bytes, WireError>>;

    /// Sends a header and chunks; the answer to all of it. Dropping the future ends it.
    fn transfer(
        &self,
        to: NodeId,
        header: Bytes,
        chunks: BoxStream<'static, Bytes>,
    ) -> BoxFuture<'static, Result<Bytes, WireError>>;
}

/// The wire of a node that knows no other.
#[derive(Clone, Copy, Debug)]
pub struct NoWire;

impl Wire for NoWire {
    fn call(&self, _: NodeId, _: Bytes, _: Duration) -> BoxFuture<'static, Result<Bytes, WireError>> {
        Box::pin(async { Err(alone()) })
    }

    fn transfer(
        &self,
        _: NodeId,
        _: Bytes,
        _: BoxStream<'static, Bytes>,
    ) -> BoxFuture<'static, Result<Bytes, WireError>> {
        Box::pin(async { Err(alone()) })
    }
}

fn alone() -> WireError {
    WireError("this node knows no other".to_owned())
}

impl Wire for Transport {
    fn call(&self, to: NodeId, request: Bytes, timeout: Duration) -> BoxFuture<'static, Result<Bytes, WireError>> {
        let transport = self.clone();
        Box::pin(async move {
            let answer = transport.call(to, request, timeout).await;
            answer.map_err(|error| WireError(error.to_string()))
        })
    }

    fn transfer(
        &self,
        to: NodeId,
        header: Bytes,
        chunks: BoxStream<'static, Bytes>,
    ) -> BoxFuture<'static, Result<Bytes, WireError>> {
        let transport = self.clone();
        Box::pin(async move {
            let answer = transport.transfer(to, header, chunks).await;
            answer.map_err(|error| WireError(error.to_string()))
        })
    }
}
