//! The lane of messages: in order, never repeated; when it breaks, what was under way is lost and both sides say so.

use std::sync::Arc;

use heronry_proto::peer::frame::Body;

use super::{connection::Broken, inner::Inner, lane::Lane, metrics, peer::Peer};

/// Serves the connection until it ends.
pub(super) async fn run(inner: &Arc<Inner>, peer: &Arc<Peer>, mut lane: Lane) -> Broken {
    // The former connection has been closed when this one got its place; here its `down` is waited for.
    let turn = tokio::select! {
        turn = peer.turn.lock() => turn,
        why = lane.connection.closed() => return why,
    };
    if !peer.set_messages(&lane.connection, Arc::clone(&lane.queue)) {
        return lane.connection.why();
    }
    let again = inner.works_with(lane.peer) || lane.worked;
    tracing::info!(peer = %lane.peer, again, "linked");
    inner.handler.up(lane.peer, again);
    let why = read(inner, &mut lane).await;
    peer.release(&lane.connection);
    lane.connection.close(why);
    metrics::messages_lost(lane.queue.abandon(), "broken");
    tracing::info!(peer = %lane.peer, reason = why.name(), "the link has broken");
    inner.handler.down(lane.peer);
    drop(turn);
    why
}

async fn read(inner: &Arc<Inner>, lane: &mut Lane) -> Broken {
    loop {
        let messages = match lane.next().await {
            Ok(Body::Messages(frame)) => frame.messages,
            Ok(_) => return Broken::Garbled,
            Err(why) => return why,
        };
        if messages
            .iter()
            .any(|message| message.len() > inner.limits.frame_bytes_max)
        {
            return Broken::Oversized;
        }
        metrics::messages_received(messages.len());
        for message in messages {
            inner.handler.message(lane.peer, message);
        }
    }
}
