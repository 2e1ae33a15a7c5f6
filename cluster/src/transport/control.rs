//! The lane of calls: requests and answers, numbered, both ways, in any order.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt as _;
use heronry_proto::peer::{self, call::What, frame::Body};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    CallError, PeerId,
    connection::{Broken, Connection},
    inner::Inner,
    lane::Lane,
    metrics,
    peer::Peer,
    queue::{Item, NotQueued, Queue},
};

/// Failures are cut here, bytes: a sentence.
const FAILURE_MAX: usize = 4096;

/// Who waits for the answer to which request.
type Waiting = BTreeMap<u64, oneshot::Sender<Result<Bytes, CallError>>>;

/// Requests of ours that wait for an answer over one connection.
pub(super) struct Calls {
    connection: Arc<Connection>,
    queue: Arc<Queue>,
    number: AtomicU64,
    /// By number; `None` once the connection is gone.
    waiting: Mutex<Option<Waiting>>,
    in_flight_max: usize,
}

impl Calls {
    fn new(lane: &Lane, in_flight_max: usize) -> Arc<Self> {
        Arc::new(Self {
            connection: Arc::clone(&lane.connection),
            queue: Arc::clone(&lane.queue),
            number: AtomicU64::new(1),
            waiting: Mutex::new(Some(Waiting::new())),
            in_flight_max,
        })
    }

    /// Asks, and waits for the answer.
    pub(super) async fn call(&self, what: What, within: Duration) -> Result<Bytes, CallError> {
        let begun = Instant::now();
        let result = self.ask(what, within).await;
        metrics::called(&result, begun.elapsed());
        result
    }

    async fn ask(&self, what: What, within: Duration) -> Result<Bytes, CallError> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let answered = self.wait_for(number)?;
        let _forget = Forget { calls: self, number };
        let call = peer::Call {
            number,
            what: Some(what),
            timeout_millis: u32::try_from(within.as_millis()).unwrap_or(u32::MAX),
        };
        match self.queue.push(Item::Call(call)) {
            Ok(()) => {}
            Err(NotQueued::Full) => return Err(CallError::Busy),
            Err(NotQueued::Closed) => return Err(CallError::NotConnected),
        }
        match timeout(within, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(CallError::Broken),
            Err(_) => Err(CallError::TimedOut(within)),
        }
    }

    fn wait_for(&self, number: u64) -> Result<oneshot::Receiver<Result<Bytes, CallError>>, CallError> {
        let mut waiting = self.waiting();
        let Some(table) = &mut *waiting else {
            return Err(CallError::NotConnected);
        };
        if table.len() >= self.in_flight_max {
            return Err(CallError::Busy);
        }
        let (answer, answered) = oneshot::channel();
        table.insert(number, answer);
        Ok(answered)
    }

    /// An answer has come. Nobody waits for one that is late.
    fn answer(&self, number: u64, answer: Result<Bytes, CallError>) {
        let waiting = self.waiting().as_mut().and_then(|table| table.remove(&number));
        if let Some(waiting) = waiting {
            // Who asked may just have ceased to wait.
            let _ = waiting.send(answer);
        }
    }

    /// Nobody gets an answer any more.
    fn end(&self) {
        *self.waiting() = None;
    }

    /// Answers the peer. An answer that does not fit means that it does not read.
    fn reply(&self, number: u64, what: What) {
        let call = peer::Call {
            number,
            what: Some(what),
            timeout_millis: 0,
        };
        if self.queue.push(Item::Call(call)) == Err(NotQueued::Full) {
            self.connection.close(Broken::Full);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a request back whose caller no longer waits.
struct Forget<'c> {
    calls: &'c Calls,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(table) = &mut *self.calls.waiting() {
            table.remove(&self.number);
        }
    }
}

/// Serves the connection until it ends.
pub(super) async fn run(inner: &Arc<Inner>, peer: &Arc<Peer>, mut lane: Lane) -> Broken {
    let calls = Calls::new(&lane, inner.limits.calls_in_flight_max);
    peer.set_calls(&lane.connection, Arc::clone(&calls));
    let process = lane.peer;
    let why = loop {
        let frame = match lane.next().await {
            Ok(Body::Calls(frame)) => frame,
            Ok(_) => break Broken::Garbled,
            Err(why) => break why,
        };
        let broken = frame
            .calls
            .into_iter()
            .find_map(|call| take(inner, peer, process, &calls, call).err());
        if let Some(why) = broken {
            break why;
        }
    };
    peer.release(&lane.connection);
    lane.connection.close(why);
    calls.end();
    why
}

/// Does what one call wants.
fn take(
    inner: &Arc<Inner>,
    peer: &Arc<Peer>,
    process: PeerId,
    calls: &Arc<Calls>,
    call: peer::Call,
) -> Result<(), Broken> {
    let number = call.number;
    let within = Duration::from_millis(call.timeout_millis.into());
    match call.what.ok_or(Broken::Garbled)? {
        What::Request(bytes) | What::Answer(bytes) if bytes.len() > inner.limits.call_bytes_max => {
            return Err(Broken::Oversized);
        }
        What::Request(request) => serve(inner, peer, process, calls, number, request, within),
        // The peer dials itself.
        What::OpenBulk(_) if process.node < inner.identity.id.node => return Err(Broken::Garbled),
        What::OpenBulk(ticket) => open_bulk(inner, peer, calls, number, ticket),
        What::Answer(answer) => calls.answer(number, Ok(answer)),
        What::Failure(sentence) => calls.answer(number, Err(CallError::Failed(sentence))),
        What::Busy(_) => calls.answer(number, Err(CallError::Busy)),
    }
    Ok(())
}

/// Has the handler answer, within the time that the peer waits.
fn serve(
    inner: &Arc<Inner>,
    peer: &Arc<Peer>,
    process: PeerId,
    calls: &Arc<Calls>,
    number: u64,
    request: Bytes,
    within: Duration,
) {
    metrics::call_received();
    let Ok(place) = Arc::clone(&peer.calls_in).try_acquire_owned() else {
        metrics::call_refused();
        return calls.reply(number, What::Busy(true));
    };
    // Called here, in the order of the requests. What can be answered at once is, as a ping always can; the rest waits elsewhere.
    let mut answer = Arc::clone(&inner.handler).call(process, request);
    if let Some(answer) = (&mut answer).now_or_never() {
        return calls.reply(number, reply(answer, inner.limits.call_bytes_max));
    }
    let (calls, call_bytes_max) = (Arc::clone(calls), inner.limits.call_bytes_max);
    inner.spawn(async move {
        let _place = place;
        tokio::select! {
            answer = timeout(within, answer) => {
                if let Ok(answer) = answer {
                    calls.reply(number, reply(answer, call_bytes_max));
                }
            }
            _ = calls.connection.closed() => {}
        }
    });
}

/// An answer as it is said.
pub(super) fn reply(answer: Result<Bytes, String>, bytes_max: usize) -> What {
    match answer {
        Ok(answer) if answer.len() > bytes_max => What::Failure(format!(
            "the answer of {} bytes is larger than {bytes_max}",
            answer.len()
        )),
        Ok(answer) => What::Answer(answer),
        Err(sentence) => What::Failure(sentence.chars().take(FAILURE_MAX / 4).collect()),
    }
}

/// Dials for a transfer of the peer's, which does not dial.
fn open_bulk(inner: &Arc<Inner>, peer: &Arc<Peer>, calls: &Arc<Calls>, number: u64, ticket: u64) {
    let Ok(place) = Arc::clone(&peer.transfers_in).try_acquire_owned() else {
        return calls.reply(number, What::Busy(true));
    };
    let (calls, peer) = (Arc::clone(calls), Arc::clone(peer));
    let transport = Arc::clone(inner);
    inner.spawn(async move {
        let opened = super::dial::member(&transport, &peer, super::lane::Kind::Bulk, ticket).await;
        match opened {
            Ok(lane) => {
                calls.reply(number, What::Answer(Bytes::new()));
                super::bulk::receive(&transport, lane, place).await;
            }
            Err(error) => calls.reply(
                number,
                What::Failure(format!("no connection for the transfer: {error}")),
            ),
        }
    });
}
