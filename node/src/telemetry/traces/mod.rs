//! Spans of a stanza on its way: read by an edge, evaluated by shards, committed, delivered by an edge. For OpenTelemetry.
//!
//! Nothing about a trace is sent with a stanza. The stanza's name in the cluster, its sender's session and its frame, goes wherever
//! it goes; from that name everybody who touches it derives whether it is traced, the trace's id and the ids of its spans. So
//! edges and shards agree without a word, and what is not traced costs nothing: without an endpoint, one branch a stanza.
//!
//! Attributes are numbers and names of kinds. Addresses, bodies and anything else that a device has said are not among them.

mod export;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use heronry_cluster::ClusterId;
use heronry_storage::Metric;
use heronry_xmpp::{
    link::{Conn, SessionId, ShardId},
    stanza::Stanza,
};
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use tokio::sync::mpsc;

pub(crate) use self::export::Export;

/// The metrics of traces.
pub(crate) const METRICS: &[Metric] = &[Metric::counter(
    "telemetry_spans_total",
    "Spans of traced stanzas by what became of them",
)
.with(&[(
    "outcome",
    "`sent`, `failed` (the endpoint did not take them), `dropped` (too many waited, `limits.spans_waiting_max`)",
)])];

/// Traces stanzas, or does not. Clones share everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traces(Option<Arc<Tracer>>);

#[derive(Debug)]
struct Tracer {
    /// Keeps the ids of one cluster apart from those of others; the same at all nodes of a cluster.
    seed: AtomicU64,
    /// Of all hashes those below it are traced.
    below: u64,
    scope: InstrumentationScope,
    /// Spans that wait to be sent. Full: they are dropped and counted.
    spans: mpsc::Sender<SpanData>,
}

/// One stanza that is traced.
#[derive(Debug)]
pub(crate) struct Trace {
    tracer: Arc<Tracer>,
    id: u128,
    /// The shard of the sender's session.
    sender: ShardId,
}

/// What happens to a stanza, by what tells it from the same elsewhere.
#[derive(Clone, Copy)]
enum Step {
    Read,
    Evaluate(ShardId),
    Commit(ShardId),
    Deliver(Conn),
}

impl Traces {
    /// Traces nothing.
    pub(crate) fn off() -> Self {
        Self(None)
    }

    fn to(spans: mpsc::Sender<SpanData>, ratio: f64) -> Self {
        Self(Some(Arc::new(Tracer {
            seed: AtomicU64::default(),
            // Saturates: a ratio of 1 is everything but one hash in 2^64.
            below: (ratio * u64::MAX as f64) as u64,
            scope: InstrumentationScope::builder("heronry")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            spans,
        })))
    }

    /// The node is a member of this cluster: whoever else is agrees with it from now on. It has no stanzas before that.
    pub(crate) fn belong_to(&self, cluster: ClusterId) {
        if let Some(tracer) = &self.0 {
            let parts = cluster.to_bytes();
            let (high, low) = parts.split_at(parts.len() / 2);
            let seed = [high, low].map(|half| half.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
            tracer.seed.store(mix(seed[0]) ^ seed[1], Ordering::Relaxed);
        }
    }

    /// The trace of a stanza, if it is traced.
    #[inline]
    pub(crate) fn of(&self, session: SessionId, frame: u64) -> Option<Trace> {
        self.0.as_ref()?.of(session, frame)
    }

    /// The time, when anything is traced at all.
    #[inline]
    pub(crate) fn now(&self) -> Option<SystemTime> {
        self.0.as_ref().map(|_| SystemTime::now())
    }
}

impl Tracer {
    fn of(self: &Arc<Self>, session: SessionId, frame: u64) -> Option<Trace> {
        let bound = u64::from(session.counter) << 16 | u64::from(session.shard);
        let low = [session.term, bound, frame]
            .into_iter()
            .fold(self.seed.load(Ordering::Relaxed), |hash, part| mix(hash ^ part));
        let sampled = low < self.below;
        sampled.then(|| Trace {
            tracer: Arc::clone(self),
            id: u128::from(mix(low)) << 64 | u128::from(low),
            sender: ShardId(session.shard),
        })
    }
}

impl Trace {
    /// An edge has read the stanza since `began`, and given it to its shard now.
    pub(crate) fn read(&self, began: SystemTime, stanza: &Stanza) {
        let attributes = vec![
            KeyValue::new("xmpp.stanza.kind", stanza.kind.name()),
            KeyValue::new("xmpp.stanza.bytes", number(stanza.size())),
        ];
        self.end("edge read", SpanKind::Server, Step::Read, None, began, attributes);
    }

    /// A shard has evaluated the stanza since `began`.
    pub(crate) fn evaluated(&self, shard: ShardId, began: SystemTime, wrote: bool) {
        let parent = if shard == self.sender {
            Step::Read
        } else {
            Step::Evaluate(self.sender)
        };
        let attributes = vec![
            KeyValue::new("heronry.shard", i64::from(shard.0)),
            KeyValue::new("heronry.wrote", wrote),
        ];
        let step = Step::Evaluate(shard);
        self.end(
            "shard evaluate",
            SpanKind::Internal,
            step,
            Some(parent),
            began,
            attributes,
        );
    }

    /// What the stanza wrote in a shard was proposed when `began`, and is committed now.
    pub(crate) fn committed(&self, shard: ShardId, began: SystemTime) {
        let attributes = vec![KeyValue::new("heronry.shard", i64::from(shard.0))];
        let parent = Some(Step::Evaluate(shard));
        self.end(
            "commit",
            SpanKind::Internal,
            Step::Commit(shard),
            parent,
            began,
            attributes,
        );
    }

    /// An edge has had the stanza for a device of `shard` since `began`, and has given it to the socket as far as that took it.
    pub(crate) fn delivered(&self, conn: Conn, shard: ShardId, began: SystemTime, written: bool) {
        let attributes = vec![KeyValue::new("heronry.written", written)];
        let (step, parent) = (Step::Deliver(conn), Some(Step::Evaluate(shard)));
        self.end("deliver", SpanKind::Producer, step, parent, began, attributes);
    }

    fn end(
        &self,
        name: &'static str,
        span_kind: SpanKind,
        step: Step,
        parent: Option<Step>,
        start_time: SystemTime,
        attributes: Vec<KeyValue>,
    ) {
        let trace = TraceId::from_bytes(self.id.to_be_bytes());
        let flags = TraceFlags::SAMPLED;
        let span = SpanData {
            span_context: SpanContext::new(trace, self.span(step), flags, false, TraceState::default()),
            parent_span_id: parent.map_or(SpanId::INVALID, |parent| self.span(parent)),
            parent_span_is_remote: false,
            span_kind,
            name: name.into(),
            start_time,
            end_time: SystemTime::now().max(start_time),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.tracer.scope.clone(),
        };
        if self.tracer.spans.try_send(span).is_err() {
            export::dropped();
        }
    }

    /// The id of a span: everybody gets the same.
    fn span(&self, step: Step) -> SpanId {
        let (which, where_) = match step {
            Step::Read => (1, 0),
            Step::Evaluate(shard) => (2, u64::from(shard.0)),
            Step::Commit(shard) => (3, u64::from(shard.0)),
            Step::Deliver(conn) => (4, conn.0),
        };
        let id = mix(mix(self.id as u64 ^ which) ^ where_);
        // Zero is no id.
        SpanId::from_bytes(id.max(1).to_be_bytes())
    }
}

/// Spreads a number over all 64 bits (splitmix64's finaliser). It is part of what cluster nodes must agree on.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(counter: u32) -> SessionId {
        SessionId {
            term: 7 << 16,
            counter,
            shard: 3,
        }
    }

    #[test]
    fn the_part_of_stanzas_that_is_wanted_is_traced_and_everybody_agrees_which() {
        let (spans, _waiting) = mpsc::channel(1);
        let of = |cluster, ratio| {
            let traces = Traces::to(spans.clone(), ratio);
            traces.belong_to(ClusterId(cluster));
            traces
        };
        let (one, other, stranger) = (of(9, 0.1), of(9, 0.1), of(10, 0.1));
        let mut traced = 0;
        for frame in 0..10_000 {
            let stranger = stranger.of(session(1), frame).map(|trace| trace.id);
            let (one, other) = (one.of(session(1), frame), other.of(session(1), frame));
            assert!(stranger.is_none() || stranger != one.as_ref().map(|trace| trace.id));
            assert_eq!(one.as_ref().map(|trace| trace.id), other.map(|trace| trace.id));
            traced += usize::from(one.is_some());
        }
        assert!((900..1100).contains(&traced), "{traced}");
        let (none, all) = (of(9, 0.0), of(9, 1.0));
        for frame in 0..1000 {
            assert!(none.of(session(1), frame).is_none());
            assert!(all.of(session(1), frame).is_some());
            assert!(Traces::off().of(session(1), frame).is_none());
        }
    }

    #[test]
    fn spans_of_different_steps_and_stanzas_have_different_ids() {
        let (spans, _waiting) = mpsc::channel(1);
        let traces = Traces::to(spans, 1.0);
        let mut seen = std::collections::HashSet::new();
        for frame in 0..1000 {
            let trace = traces.of(session(2), frame).unwrap();
            assert!(seen.insert(trace.id.to_be_bytes().to_vec()));
            for step in [
                Step::Read,
                Step::Evaluate(ShardId(0)),
                Step::Evaluate(ShardId(3)),
                Step::Commit(ShardId(0)),
                Step::Deliver(Conn(0)),
            ] {
                assert!(seen.insert(trace.span(step).to_bytes().to_vec()));
            }
        }
    }

    #[test]
    fn a_tracer_that_is_off_is_a_null_pointer() {
        // What is asked of it for every stanza is one comparison with zero: nothing is allocated, nothing is counted.
        assert_eq!(size_of::<Traces>(), size_of::<usize>());
        assert!(Traces::off().now().is_none());
    }
}
