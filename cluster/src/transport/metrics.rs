//! What operators see of links: one function for each event.

use std::time::Duration;

use heronry_storage::Metric;
use metrics::{counter, gauge, histogram};

use super::{CallError, RefusalReason, connection::Broken, lane::Kind};

/// The metrics of links.
pub const METRICS: &[Metric] = &[
    Metric::gauge("link_connections", "Connections with other nodes that work").with(&[LANE]),
    Metric::counter("link_connected_total", "Times such a connection began to work").with(&[LANE]),
    Metric::counter("link_broken_total", "Times such a connection ended").with(&[
        LANE,
        (
            "reason",
            "`gone` (the peer or the network), `garbled`, `out_of_order`, `oversized` (what the peer sent), `full` (it does not \
             read), `displaced` (it has connected again), `unwanted`, `done`, `silent`, `crowded`",
        ),
    ]),
    Metric::counter(
        "link_dials_failed_total",
        "Times another node could not be reached, or did not answer",
    ),
    Metric::counter("link_refusals_total", "Connections that one side refused").with(&[
        ("by", "`us`, `peer`"),
        (
            "reason",
            "`protocol`, `cluster_name`, `cluster_id`, `no_member`, `own_id`, `other_node`, `unknown_node`, `older_process`, \
             `clock_skew`, `feature_level`, `certificate`, `busy`, `garbled`, `silent`, `other`",
        ),
    ]),
    Metric::gauge("link_strangers", "Connections that have not yet said who they are"),
    Metric::counter("link_frames_sent_total", "Frames written: each is what was pending at once"),
    Metric::counter("link_frames_received_total", "Frames read"),
    Metric::counter("link_messages_sent_total", "Messages that were written to other nodes"),
    Metric::counter("link_messages_received_total", "Messages of other nodes"),
    Metric::counter("link_messages_lost_total", "Messages that other nodes were not sent").with(&[(
        "reason",
        "`not_connected`, `full` (this one did not fit; the link breaks), `broken` (it waited when the link broke), `too_large`",
    )]),
    Metric::histogram("link_call_seconds", "Time from a request to another node until its answer"),
    Metric::counter("link_calls_failed_total", "Requests to other nodes without an answer").with(&[(
        "reason",
        "`not_connected`, `broken`, `timed_out`, `busy`, `too_large`, `failed`, `unreachable`, `refused`, `closed`",
    )]),
    Metric::counter("link_calls_received_total", "Requests of other nodes"),
    Metric::counter(
        "link_calls_refused_total",
        "Requests of other nodes that were not looked at, because too many are under way",
    ),
    Metric::counter("link_transfers_total", "Transfers, by us and to us").with(&[
        ("direction", "`out`, `in`"),
        ("result", "`done`, `failed`"),
    ]),
    Metric::counter("link_transfer_bytes_total", "Bytes of their chunks").with(&[("direction", "`out`, `in`")]),
    Metric::gauge(
        "link_certificate_expires_in_seconds",
        "How long the certificate that other nodes are shown is still good, as of the last look at its file",
    ),
    Metric::counter(
        "link_certificate_reloads_total",
        "Times changed certificates or keys were read again",
    )
    .with(&[("result", "`done`, `failed` (the former ones are used)")]),
];

const LANE: (&str, &str) = ("lane", "`control`, `messages`, `bulk`, `ask`");

/// A connection works.
pub(super) fn connected(lane: Kind) {
    gauge!("link_connections", "lane" => lane.name()).increment(1.0);
    counter!("link_connected_total", "lane" => lane.name()).increment(1);
}

/// A connection that worked has ended.
pub(super) fn broken(lane: Kind, why: Broken) {
    gauge!("link_connections", "lane" => lane.name()).decrement(1.0);
    counter!("link_broken_total", "lane" => lane.name(), "reason" => why.name()).increment(1);
}

/// Another node was not reached.
pub(super) fn dial_failed() {
    counter!("link_dials_failed_total").increment(1);
}

/// A connection was refused.
pub(super) fn refused(by_us: bool, reason: RefusalReason) {
    let by = if by_us { "us" } else { "peer" };
    counter!("link_refusals_total", "by" => by, "reason" => reason.name()).increment(1);
}

/// How many strangers there are.
pub(super) fn strangers(count: usize) {
    gauge!("link_strangers").set(count as f64);
}

/// A frame was written.
pub(super) fn frame_sent(messages: usize) {
    counter!("link_frames_sent_total").increment(1);
    if messages > 0 {
        counter!("link_messages_sent_total").increment(messages as u64);
    }
}

/// A frame was read.
pub(super) fn frame_received() {
    counter!("link_frames_received_total").increment(1);
}

/// Messages have come.
pub(super) fn messages_received(count: usize) {
    counter!("link_messages_received_total").increment(count as u64);
}

/// Messages will not be sent.
pub(super) fn messages_lost(count: usize, reason: &'static str) {
    counter!("link_messages_lost_total", "reason" => reason).increment(count as u64);
}

/// A request was answered, or not.
pub(super) fn called<T>(result: &Result<T, CallError>, took: Duration) {
    match result {
        Ok(_) => histogram!("link_call_seconds").record(took.as_secs_f64()),
        Err(error) => counter!("link_calls_failed_total", "reason" => error.name()).increment(1),
    }
}

/// A peer asks.
pub(super) fn call_received() {
    counter!("link_calls_received_total").increment(1);
}

/// A peer asks, and is not heard.
pub(super) fn call_refused() {
    counter!("link_calls_refused_total").increment(1);
}

/// A transfer has ended.
pub(super) fn transferred(direction: &'static str, done: bool) {
    let result = if done { "done" } else { "failed" };
    counter!("link_transfers_total", "direction" => direction, "result" => result).increment(1);
}

/// A chunk was sent, or has come.
pub(super) fn chunk(direction: &'static str, bytes: usize) {
    counter!("link_transfer_bytes_total", "direction" => direction).increment(bytes as u64);
}

/// Changed certificates were read.
pub(super) fn certificates_reloaded(done: bool) {
    let result = if done { "done" } else { "failed" };
    counter!("link_certificate_reloads_total", "result" => result).increment(1);
}

/// The certificate that other nodes are shown is good for so many seconds more.
pub(super) fn certificate_expires_in(seconds: f64) {
    gauge!("link_certificate_expires_in_seconds").set(seconds);
}
