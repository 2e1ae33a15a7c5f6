//! What operators see of edges: one function for each event.

use heronry_xmpp::stanza::Kind;
use metrics::{Counter, counter, gauge};

/// A connection has been accepted.
pub(super) fn opened() {
    counter!("edge_connections_opened_total").increment(1);
    gauge!("edge_connections").increment(1.0);
}

/// A connection is no more.
pub(super) fn closed() {
    gauge!("edge_connections").decrement(1.0);
}

/// A connection was not taken.
pub(super) fn refused(reason: &'static str) {
    counter!("edge_connections_refused_total", "reason" => reason).increment(1);
}

/// The operating system gave no connection.
pub(super) fn accept_failed() {
    counter!("edge_accept_failures_total").increment(1);
}

/// A TLS handshake is done, or not.
pub(super) fn handshake(succeeded: bool) {
    let result = if succeeded { "done" } else { "failed" };
    counter!("edge_tls_handshakes_total", "result" => result).increment(1);
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

/// A session has been bound or resumed.
pub(super) fn established() {
    counter!("edge_sessions_established_total").increment(1);
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
    read: [Counter; 3],
    written: [Counter; 3],
}

impl Stanzas {
    pub(super) fn new() -> Self {
        let kinds = ["message", "presence", "iq"];
        Self {
            read: kinds.map(|kind| counter!("edge_stanzas_read_total", "kind" => kind)),
            written: kinds.map(|kind| counter!("edge_stanzas_written_total", "kind" => kind)),
        }
    }

    /// A device has sent a stanza.
    pub(super) fn read(&self, kind: Kind) {
        self.read[place(kind)].increment(1);
    }

    /// A stanza is on its way to a device.
    pub(super) fn written(&self, kind: Kind) {
        self.written[place(kind)].increment(1);
    }
}

fn place(kind: Kind) -> usize {
    match kind {
        Kind::Message(_) => 0,
        Kind::Presence(_) => 1,
        Kind::Iq(_) => 2,
    }
}
