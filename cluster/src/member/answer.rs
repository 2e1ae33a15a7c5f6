//! What other nodes ask of this one.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use tokio::sync::oneshot;

use super::{Inner, change, command, joining::Event, map};
use crate::{
    PeerId,
    map::ClusterMap,
    message::{self, Request},
    transport::{Handler, Identity},
};

/// Hears what comes over links.
pub(super) struct Answers(pub(super) Weak<Inner>);

impl Answers {
    fn member(&self) -> Result<Arc<Inner>, String> {
        self.0.upgrade().ok_or_else(|| "this node is stopping".to_owned())
    }
}

impl Handler for Answers {
    fn call(self: Arc<Self>, from: PeerId, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move {
            let inner = self.member()?;
            match message::decode(request.clone()) {
                Some(Request::MapSince(version)) => {
                    let map = inner.map.borrow().clone();
                    let newer = map.filter(|map| map.version > version);
                    Ok(newer.map_or_else(Bytes::new, |map| map.encode()))
                }
                Some(Request::NewMap(map)) => {
                    let map = ClusterMap::decode(&map).map_err(|error| error.to_string())?;
                    map::heard(&inner, map);
                    Ok(Bytes::new())
                }
                Some(Request::Ask(ask)) => Ok(command::admit(&inner, &ask).await.encode()),
                Some(Request::Command(command)) => command::asked(&inner, from.node, &command).await,
                Some(Request::Report(_)) => Ok(change::report(&inner).encode()),
                Some(Request::Change(wanted)) => change::asked(&inner, wanted).await,
                Some(Request::Remove(wanted)) => change::asked_to_remove(&inner, wanted).await,
                Some(Request::Node(request)) => {
                    let neighbours = Arc::clone(&inner.neighbours);
                    drop(inner);
                    neighbours.call(from, request).await
                }
                // What belongs to groups, and what nobody knows.
                _ => inner.groups.answer(from, request).await,
            }
        })
    }

    fn call_of_stranger(self: Arc<Self>, _from: Identity, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move {
            let inner = self.member()?;
            let (answer, answered) = oneshot::channel();
            let event = Event::Asked { ask: request, answer };
            if inner.asks.try_send(event).is_err() {
                return Err("too many ask at present".to_owned());
            }
            drop(inner);
            answered.await.map_err(|_| "this node is stopping".to_owned())
        })
    }

    fn message(&self, from: PeerId, message: Bytes) {
        if let Some(inner) = self.0.upgrade() {
            inner.neighbours.message(from, message);
        }
    }

    fn transfer(
        self: Arc<Self>,
        from: PeerId,
        header: Bytes,
        chunks: BoxStream<'static, Result<Bytes, String>>,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move {
            let member = self.member()?;
            if let Some(Request::Node(header)) = message::decode(header.clone()) {
                let neighbours = Arc::clone(&member.neighbours);
                drop(member);
                return neighbours.transfer(from, header, chunks).await;
            }
            let groups = member.groups.clone();
            drop(member);
            groups.receive(from, header, chunks).await
        })
    }

    fn up(&self, peer: PeerId, again: bool) {
        tracing::info!(%peer, again, "linked with a node");
        if let Some(inner) = self.0.upgrade() {
            inner.neighbours.up(peer, again);
        }
    }

    fn down(&self, peer: PeerId) {
        tracing::info!(%peer, "the link with a node has broken");
        if let Some(inner) = self.0.upgrade() {
            inner.neighbours.down(peer);
        }
    }
}
