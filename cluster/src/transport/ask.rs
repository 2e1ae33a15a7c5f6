//! One call between processes that need not be members of the same cluster: how a node asks to join.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use heronry_proto::peer::{self, call::What, frame::Body};
use tokio::time::timeout;

use super::{
    CallError, Identity,
    connection::Broken,
    control,
    dial::{self, NoLane},
    inner::Inner,
    lane::Lane,
    metrics,
    queue::Item,
};

/// Asks whoever is at the address.
pub(super) async fn call(
    inner: &Arc<Inner>,
    address: &str,
    request: Bytes,
    within: Duration,
) -> Result<(Identity, Bytes), CallError> {
    let (identity, mut lane) = dial::stranger(inner, address).await.map_err(no_lane)?;
    let call = peer::Call {
        number: 1,
        what: Some(What::Request(request)),
        timeout_millis: u32::try_from(within.as_millis()).unwrap_or(u32::MAX),
    };
    lane.queue.push(Item::Call(call)).map_err(|_| CallError::Broken)?;
    let answer = match lane.next().await {
        Ok(Body::Calls(mut calls)) => calls.calls.pop().and_then(|call| call.what),
        Ok(_) | Err(_) => None,
    };
    match answer {
        Some(What::Answer(answer)) => Ok((identity, answer)),
        Some(What::Failure(sentence)) => Err(CallError::Failed(sentence)),
        Some(What::Busy(_)) => Err(CallError::Busy),
        Some(What::Request(_) | What::OpenBulk(_)) | None => Err(CallError::Broken),
    }
}

fn no_lane(error: NoLane) -> CallError {
    match error {
        NoLane::Unreachable(sentence) => CallError::Unreachable(sentence),
        NoLane::Refused { by_us, refusal } => {
            metrics::refused(by_us, refusal.reason);
            CallError::Refused(refusal)
        }
    }
}

/// Answers one call and waits until the other side closes.
pub(super) async fn serve(inner: &Arc<Inner>, mut lane: Lane, from: Identity) {
    let Ok(call) = timeout(inner.limits.handshake_timeout, lane.next()).await else {
        return lane.connection.close(Broken::Silent);
    };
    let Some((number, within, request)) = request(inner, call) else {
        return lane.connection.close(Broken::Garbled);
    };
    let answer = match Arc::clone(&inner.asks).try_acquire_owned() {
        Err(_) => {
            metrics::call_refused();
            What::Busy(true)
        }
        Ok(_place) => {
            inner.strangers.settle(&lane.connection);
            metrics::call_received();
            let answer = Arc::clone(&inner.handler).call_of_stranger(from, request);
            let answered = tokio::select! {
                answered = timeout(within.min(inner.limits.ask_timeout_max), answer) => answered,
                // It has gone.
                _ = lane.next() => return,
            };
            match answered {
                Ok(answer) => control::reply(answer, inner.limits.call_bytes_max),
                Err(_) => return,
            }
        }
    };
    let call = peer::Call {
        number,
        what: Some(answer),
        timeout_millis: 0,
    };
    let answered = lane.queue.push(Item::Call(call));
    lane.queue.finish();
    if answered.is_ok() {
        let _ = timeout(inner.limits.handshake_timeout, lane.next()).await;
    }
}

fn request(inner: &Inner, call: Result<Body, Broken>) -> Option<(u64, Duration, Bytes)> {
    let Ok(Body::Calls(mut calls)) = call else {
        return None;
    };
    let call = calls.calls.pop().filter(|_| calls.calls.is_empty())?;
    let within = Duration::from_millis(call.timeout_millis.into());
    match call.what {
        Some(What::Request(request)) if request.len() <= inner.limits.call_bytes_max => {
            Some((call.number, within, request))
        }
        _ => None,
    }
}
