//! How links behave, and their bounds.

use std::time::Duration;

use super::TransportError;

/// What is written at once at most, unless a single message is larger, bytes.
pub(super) const BATCH_BYTES: usize = 64 << 10;

/// What a message costs in a queue beside its bytes, so that a bound in bytes bounds empty ones too.
pub(super) const MESSAGE_OVERHEAD: usize = 64;

/// What a stranger may send before it is known, bytes: HTTP/2's preface, headers, and a Hello.
pub(super) const STRANGER_BYTES_MAX: usize = 16 << 10;

/// HTTP/2's window for what one stream may have sent and nobody has read, bytes.
pub(super) const STREAM_WINDOW: u32 = 4 << 20;

/// The same for a connection.
pub(super) const CONNECTION_WINDOW: u32 = 8 << 20;

/// Bounds of a [`Transport`](super::Transport) and how it behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportLimits {
    /// The largest message, bytes; a larger one is not sent, and a peer that sends one loses its link. The same on all
    /// nodes. Default 512 KiB.
    pub frame_bytes_max: usize,
    /// The largest request, answer, or header of a transfer, bytes. The same on all nodes. Default 8 MiB.
    pub call_bytes_max: usize,
    /// Messages that wait for a peer, bytes. Full: its link breaks, and what waits is lost, since a peer that does not read must not
    /// hold up anybody else. Default 16 MiB.
    pub queue_bytes_max: usize,
    /// Requests and answers that wait for a peer, bytes. Full: requests are refused as busy; an answer breaks the link.
    /// Default 32 MiB.
    pub call_queue_bytes_max: usize,
    /// Requests of one peer, and to one, that are not answered; more are refused as busy. Default 1024.
    pub calls_in_flight_max: usize,
    /// Bytes per second of all transfers that this node sends. Default 64 MiB.
    pub bulk_bytes_per_second: u64,
    /// Transfers of one peer, and to one, at the same time; more are refused as busy. Default 4.
    pub transfers_max: usize,
    /// Connections that have not yet said who they are. Full: the oldest of them is closed. Default 64.
    pub strangers_max: usize,
    /// Calls of processes that are no members, at the same time; more are refused. Default 16.
    pub asks_max: usize,
    /// How long such a call may take, whatever its caller says. Default 60 s.
    pub ask_timeout_max: Duration,
    /// How long a connection may take from the first byte until both sides have said who they are. Default 5 s.
    pub handshake_timeout: Duration,
    /// By how much the wall clocks of two nodes may differ. Default 5 s.
    pub clock_skew_max: Duration,
    /// A peer that has said nothing for so long is asked whether it is there. Default 1 s.
    pub keep_alive_interval: Duration,
    /// How long it may take to say so; then the link breaks. Default 4 s.
    pub keep_alive_timeout: Duration,
    /// The wait before the second attempt to connect; the first is at once. It doubles with every attempt. Default 50 ms.
    pub reconnect_min: Duration,
    /// The longest wait between attempts. Default 1 s.
    pub reconnect_max: Duration,
    /// How often the files of certificates are looked at. Default 60 s.
    pub certificate_check_interval: Duration,
    /// How long a shutdown waits for what is under way. Default 4 s.
    pub shutdown_timeout: Duration,
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 512 << 10,
            call_bytes_max: 8 << 20,
            queue_bytes_max: 16 << 20,
            call_queue_bytes_max: 32 << 20,
            calls_in_flight_max: 1024,
            bulk_bytes_per_second: 64 << 20,
            transfers_max: 4,
            strangers_max: 64,
            asks_max: 16,
            ask_timeout_max: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(5),
            clock_skew_max: Duration::from_secs(5),
            keep_alive_interval: Duration::from_secs(1),
            keep_alive_timeout: Duration::from_secs(4),
            reconnect_min: Duration::from_millis(50),
            reconnect_max: Duration::from_secs(1),
            certificate_check_interval: Duration::from_secs(60),
            shutdown_timeout: Duration::from_secs(4),
        }
    }
}

impl TransportLimits {
    /// The largest frame that any lane may carry, as HTTP/2's messages count.
    pub(super) fn wire_bytes_max(&self) -> usize {
        self.frame_bytes_max.max(self.call_bytes_max).max(BATCH_BYTES) + BATCH_BYTES
    }

    /// Whether they fit together.
    pub(super) fn check(&self) -> Result<(), TransportError> {
        let pairs = [
            (
                "frame_bytes_max",
                self.frame_bytes_max,
                "queue_bytes_max",
                self.queue_bytes_max,
            ),
            (
                "call_bytes_max",
                self.call_bytes_max,
                "call_queue_bytes_max",
                self.call_queue_bytes_max,
            ),
        ];
        for (small_name, small, large_name, large) in pairs {
            if small > large {
                return Err(TransportError::Limits(format!(
                    "`{small_name}` ({small}) must not be larger than `{large_name}` ({large})"
                )));
            }
        }
        Ok(())
    }
}
