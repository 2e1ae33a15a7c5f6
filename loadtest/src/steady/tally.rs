//! What all devices of a run count together.

use std::{
    collections::HashMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::Recorder;
use crate::{
    history::{History, What},
    measure::latency::{Latencies, Summary},
};

/// What was seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Devices that have a connection now.
    pub sockets: usize,
    /// Connections that were lost.
    pub lost: usize,
    /// Sessions that went on after that.
    pub resumed: usize,
    /// Sessions that did not: the device had to begin anew.
    pub begun_anew: usize,
    /// Devices that gave up.
    pub gone: usize,
    /// Messages sent.
    pub sent: u64,
    /// Messages that the server has acknowledged.
    pub acknowledged: u64,
    /// Messages that arrived, repeats included.
    pub delivered: u64,
    /// Messages that came back as errors.
    pub refused: u64,
    /// Rows that were read or written.
    pub rows: u64,
    /// Reads and writes of rows that failed.
    pub rows_failed: u64,
}

/// Counts what devices see, and writes it down.
#[derive(Debug)]
pub struct Tally(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    seen: Seen,
    recorder: Recorder,
    /// Messages sent that have not arrived and not come back, by name. Holds what is under way, which the devices bound.
    under_way: HashMap<String, UnderWay>,
    /// From sending to arrival.
    latencies: Latencies,
    /// The longest of them since somebody asked.
    longest: Duration,
    /// Connections that end now end because they are to.
    is_over: bool,
}

#[derive(Debug)]
struct UnderWay {
    sent: Instant,
    acknowledged: bool,
}

impl Tally {
    pub(super) fn new(recorder: Recorder) -> Self {
        Self(Mutex::new(Inner {
            seen: Seen::default(),
            recorder,
            under_way: HashMap::new(),
            latencies: Latencies::default(),
            longest: Duration::ZERO,
            is_over: false,
        }))
    }

    /// What has been seen so far.
    pub fn seen(&self) -> Seen {
        self.inner().seen
    }

    /// The longest that a message was under way: of those that arrived since this was last asked, and of those that are under way now.
    pub fn longest(&self) -> Duration {
        let oldest = self.oldest();
        std::mem::take(&mut self.inner().longest).max(oldest)
    }

    /// How long the oldest of the messages that are under way has been so; zero when there is none.
    pub fn oldest(&self) -> Duration {
        let inner = self.inner();
        let waiting = inner.under_way.values().map(|message| message.sent.elapsed());
        waiting.max().unwrap_or_default()
    }

    /// How long messages were under way.
    pub fn latencies(&self) -> Summary {
        self.inner().latencies.summary()
    }

    /// Messages that were acknowledged, and neither arrived nor came back.
    pub fn owed(&self) -> Vec<String> {
        let inner = self.inner();
        let owed = inner.under_way.iter().filter(|(_, message)| message.acknowledged);
        owed.map(|(id, _)| id.clone()).collect()
    }

    /// Has what was recorded in its file.
    ///
    /// # Errors
    /// The first that there was in writing it.
    pub fn flush(&self) -> io::Result<()> {
        self.inner().recorder.flush()
    }

    pub(super) fn take_history(&self) -> History {
        self.inner().recorder.take()
    }

    /// From now on connections end because they are to.
    pub(super) fn end(&self) {
        self.inner().is_over = true;
    }

    pub(super) fn connected(&self) {
        self.inner().seen.sockets += 1;
    }

    pub(super) fn disconnected(&self) {
        let mut inner = self.inner();
        inner.seen.sockets -= 1;
        if !inner.is_over {
            inner.seen.lost += 1;
        }
    }

    pub(super) fn reconnected(&self, is_resumed: bool) {
        let mut inner = self.inner();
        inner.seen.sockets += 1;
        match is_resumed {
            true => inner.seen.resumed += 1,
            false => inner.seen.begun_anew += 1,
        }
    }

    /// It will never be known what became of these messages: their session was lost before they were acknowledged.
    pub(super) fn forget(&self, ids: &[String]) {
        let mut inner = self.inner();
        for id in ids {
            inner.under_way.remove(id);
        }
    }

    pub(super) fn gone(&self) {
        self.inner().seen.gone += 1;
    }

    /// Counts something, and writes it down.
    pub(super) fn saw(&self, by: &str, what: What) {
        let mut inner = self.inner();
        inner.count(&what);
        inner.recorder.record(by, what);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn count(&mut self, what: &What) {
        match what {
            What::Sent { id, .. } => {
                self.seen.sent += 1;
                let message = UnderWay {
                    sent: Instant::now(),
                    acknowledged: false,
                };
                self.under_way.insert(id.clone(), message);
            }
            What::Acknowledged { id } => {
                self.seen.acknowledged += 1;
                if let Some(message) = self.under_way.get_mut(id) {
                    message.acknowledged = true;
                }
            }
            What::Refused { id, .. } => {
                self.seen.refused += 1;
                self.under_way.remove(id);
            }
            What::Delivered { id, .. } => {
                self.seen.delivered += 1;
                if let Some(message) = self.under_way.remove(id) {
                    let took = message.sent.elapsed();
                    self.latencies.record(took);
                    self.longest = self.longest.max(took);
                }
            }
            What::Returned { returned, .. } => match returned {
                crate::history::Returned::Failed => self.seen.rows_failed += 1,
                _ => self.seen.rows += 1,
            },
            _ => {}
        }
    }
}
