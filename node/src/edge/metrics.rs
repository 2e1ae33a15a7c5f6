//! What operators see of edges: one function for each event.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use heronry_storage::Metric;
use heronry_xmpp::stanza::Kind;
use metrics::{Counter, counter, gauge, histogram};
use rustls::ProtocolVersion;

const KIND: (&str, &str) = ("kind", "`message`, `presence`, `iq`");

/// The metrics of an edge.
pub(crate) const METRICS: &[Metric] = &[
    Metric::counter(
        "edge_connections_opened_total",
        "Connections of devices that were accepted",
    ),
    Metric::gauge("edge_connections", "Connections of devices").with(&[(
        "phase",
        "`handshake` (TLS), `negotiating` (login), `bound` (has a session), `closing`",
    )]),
    Metric::gauge("edge_connections_max", "Connections that the process can have"),
    Metric::counter("edge_connections_refused_total", "Connections closed at once").with(&[(
        "reason",
        "one for each bound of `limits.edge` and `limits.before_auth`, such as `full`, `address`",
    )]),
    Metric::counter(
        "edge_accept_failures_total",
        "Times the operating system gave no connection, most likely for lack of files",
    ),
    Metric::counter("edge_tls_handshakes_total", "TLS handshakes that ended").with(&[
        ("result", "`done`, `failed`"),
        ("version", "`1.2`, `1.3`, `none` (failed)"),
    ]),
    Metric::histogram("edge_tls_handshake_seconds", "Time of TLS handshakes that succeeded"),
    Metric::counter(
        "edge_negotiation_timeouts_total",
        "Connections that took too long to log in",
    )
    .with(&[(
        "phase",
        "where: a phase with a bound in `limits.before_auth`, or `all` (the whole negotiation)",
    )]),
    Metric::counter(
        "edge_negotiations_too_long_total",
        "Connections that had said too much before they had a session",
    ),
    Metric::gauge("edge_strangers", "Connections that have not logged in"),
    Metric::counter("edge_authentications_total", "Attempts to authenticate that ended").with(&[
        ("mechanism", "a SASL mechanism; absent when it failed"),
        (
            "result",
            "`done`, or a condition of RFC 6120 §6.5 such as `not-authorized`",
        ),
    ]),
    Metric::counter(
        "edge_failed_logins_over_rate_total",
        "Connections closed because too many logins of their address had failed",
    ),
    Metric::counter(
        "edge_registrations_refused_total",
        "Accounts that were not made (XEP-0077) because too many are",
    )
    .with(&[("quota", "which quota of `limits` was used up")]),
    Metric::counter(
        "edge_sessions_established_total",
        "Connections that got a session, bound or resumed",
    ),
    Metric::histogram(
        "edge_login_seconds",
        "Time from a connection's begin until it has a session",
    ),
    Metric::counter(
        "edge_reads_held_total",
        "Times a connection was not read because its shard had enough to do",
    ),
    Metric::counter(
        "edge_messages_fenced_total",
        "Messages of shards that were refused because they were of a former term",
    ),
    Metric::counter(
        "edge_passwords_refused_total",
        "Passwords that were not verified because too many waited (`limits.edge.passwords_waiting_max`)",
    ),
    Metric::gauge("edge_passwords_waiting", "Passwords that wait to be verified"),
    Metric::counter(
        "edge_streams_handed_over_total",
        "Streams ended because the edge is being drained",
    )
    .with(&[(
        "told",
        "`see-other-host`, or `system-shutdown` (no other edge has said how it is reached)",
    )]),
    Metric::counter("edge_stanzas_read_total", "Stanzas that devices have sent")
        .with(&[KIND, ("outcome", "`submitted`, `malformed` (answered with an error)")]),
    Metric::counter("edge_stanzas_written_total", "Stanzas on their way to devices").with(&[KIND]),
    Metric::counter("edge_read_bytes_total", "Bytes read from devices, inside TLS"),
    Metric::counter("edge_written_bytes_total", "Bytes written to devices, inside TLS"),
];

/// A device has been told to go to another edge.
pub(super) fn handed_over(told: &'static str) {
    counter!("edge_streams_handed_over_total", "told" => told).increment(1);
}

/// A connection has been accepted.
pub(super) fn opened() {
    counter!("edge_connections_opened_total").increment(1);
}

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// TLS begins.
    Handshake,
    /// It logs in.
    Negotiating,
    /// It has a session.
    Bound,
    /// Its stream is over.
    Closing,
}

/// How many connections are in each phase. They are counted here, and told when somebody wants to know: a login moves through
/// several phases.
#[derive(Debug, Default)]
pub(super) struct Phases([AtomicI64; 4]);

impl Phases {
    const NAMES: [&str; 4] = ["handshake", "negotiating", "bound", "closing"];

    /// A connection begins in this phase.
    pub(super) fn enter(&self, phase: Phase) {
        self.0[phase as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A connection that was in this phase is in it no more.
    pub(super) fn leave(&self, phase: Phase) {
        self.0[phase as usize].fetch_sub(1, Ordering::Relaxed);
    }

    /// Tells how many there are.
    pub(super) fn tell(&self) {
        for (name, count) in Self::NAMES.into_iter().zip(&self.0) {
            gauge!("edge_connections", "phase" => name).set(count.load(Ordering::Relaxed) as f64);
        }
    }
}

/// So many connections are possible.
pub(super) fn connections_max(connections: usize) {
    gauge!("edge_connections_max").set(connections as f64);
}

/// A connection was not taken.
pub(super) fn refused(reason: &'static str) {
    counter!("edge_connections_refused_total", "reason" => reason).increment(1);
}

/// The operating system gave no connection.
pub(super) fn accept_failed() {
    counter!("edge_accept_failures_total").increment(1);
}

/// A TLS handshake is done.
pub(super) fn handshake_done(version: Option<ProtocolVersion>, took: Duration) {
    let version = match version {
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        _ => "1.3",
    };
    counter!("edge_tls_handshakes_total", "result" => "done", "version" => version).increment(1);
    histogram!("edge_tls_handshake_seconds").record(took.as_secs_f64());
}

/// A TLS handshake has failed.
pub(super) fn handshake_failed() {
    counter!("edge_tls_handshakes_total", "result" => "failed", "version" => "none").increment(1);
}

/// A negotiation took too long, there or all in all.
pub(super) fn timed_out(phase: &'static str) {
    counter!("edge_negotiation_timeouts_total", "phase" => phase).increment(1);
}

/// A negotiation was too long, in bytes.
pub(super) fn negotiation_too_long() {
    counter!("edge_negotiations_too_long_total").increment(1);
}

/// Connections that have not logged in.
pub(super) fn strangers(change: f64) {
    gauge!("edge_strangers").increment(change);
}

/// Somebody has authenticated.
pub(super) fn authenticated(mechanism: &'static str) {
    counter!("edge_authentications_total", "result" => "done", "mechanism" => mechanism).increment(1);
}

/// Somebody has not.
pub(super) fn not_authenticated(condition: &'static str) {
    counter!("edge_authentications_total", "result" => condition, "mechanism" => "").increment(1);
}

/// Too many logins of one address have failed.
pub(super) fn failed_too_often() {
    counter!("edge_failed_logins_over_rate_total").increment(1);
}

/// An account was not made because too many are.
pub(super) fn registration_refused(quota: &'static str) {
    counter!("edge_registrations_refused_total", "quota" => quota).increment(1);
}

/// A session has been bound or resumed, so long after the connection began.
pub(super) fn established(took: Duration) {
    counter!("edge_sessions_established_total").increment(1);
    histogram!("edge_login_seconds").record(took.as_secs_f64());
}

/// A connection is not read because its shard has enough to do.
pub(super) fn held() {
    counter!("edge_reads_held_total").increment(1);
}

/// A message of a former term was refused.
pub(super) fn fenced() {
    counter!("edge_messages_fenced_total").increment(1);
}

/// A password could not be verified because too many are.
pub(super) fn passwords_refused() {
    counter!("edge_passwords_refused_total").increment(1);
}

/// Passwords that wait.
pub(super) fn passwords_waiting(change: f64) {
    gauge!("edge_passwords_waiting").increment(change);
}

/// Counters that are used too often to be looked up by name.
pub(super) struct Stanzas {
    submitted: [Counter; 3],
    malformed: [Counter; 3],
    written: [Counter; 3],
    read_bytes: Counter,
    written_bytes: Counter,
}

impl Stanzas {
    pub(super) fn new() -> Self {
        let kinds = ["message", "presence", "iq"];
        let read =
            |outcome| kinds.map(|kind| counter!("edge_stanzas_read_total", "kind" => kind, "outcome" => outcome));
        Self {
            submitted: read("submitted"),
            malformed: read("malformed"),
            written: kinds.map(|kind| counter!("edge_stanzas_written_total", "kind" => kind)),
            read_bytes: counter!("edge_read_bytes_total"),
            written_bytes: counter!("edge_written_bytes_total"),
        }
    }

    /// A device has sent a stanza.
    pub(super) fn read(&self, kind: Kind, malformed: bool) {
        let counters = if malformed { &self.malformed } else { &self.submitted };
        counters[place(kind)].increment(1);
    }

    /// A stanza is on its way to a device.
    pub(super) fn written(&self, kind: Kind) {
        self.written[place(kind)].increment(1);
    }

    /// So many bytes have come from a device.
    pub(super) fn bytes_read(&self, bytes: usize) {
        self.read_bytes.increment(bytes as u64);
    }

    /// So many bytes have gone to a device.
    pub(super) fn bytes_written(&self, bytes: usize) {
        self.written_bytes.increment(bytes as u64);
    }
}

fn place(kind: Kind) -> usize {
    match kind {
        Kind::Message(_) => 0,
        Kind::Presence(_) => 1,
        Kind::Iq(_) => 2,
    }
}
