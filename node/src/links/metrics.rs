//! What operators see of what goes between nodes: one function for each event.

use heronry_storage::Metric;
use metrics::counter;

/// The metrics of links.
pub(crate) const METRICS: &[Metric] = &[
    Metric::counter("route_frames_sent_total", "Frames given to links to other nodes"),
    Metric::counter("route_frames_received_total", "Frames that came from other nodes"),
    Metric::counter("route_items_received_total", "Messages in them"),
    Metric::counter(
        "route_items_lost_total",
        "Messages for other nodes that were not sent: what they mean is said again",
    )
    .with(&[(
        "reason",
        "`no-link`, `muted` (of a term before the link broke), `no-leader` (nobody is known to lead that shard)",
    )]),
    Metric::counter(
        "route_frames_refused_total",
        "Frames that were refused; the link breaks when they make no sense",
    )
    .with(&[(
        "reason",
        "`malformed`, `not-for-us` (for a former process of this node)",
    )]),
    Metric::counter(
        "route_items_misdirected_total",
        "Messages for a shard that this node has no replica of",
    ),
];

/// A frame has been given to a link.
pub(super) fn sent() {
    counter!("route_frames_sent_total").increment(1);
}

/// A frame of so many messages has come.
pub(super) fn received(items: usize) {
    counter!("route_frames_received_total").increment(1);
    counter!("route_items_received_total").increment(items as u64);
}

/// A message was not sent.
pub(super) fn lost(reason: &'static str) {
    counter!("route_items_lost_total", "reason" => reason).increment(1);
}

/// A frame was refused.
pub(super) fn refused(reason: &'static str) {
    counter!("route_frames_refused_total", "reason" => reason).increment(1);
}

/// A message was for a shard that is not here.
pub(super) fn misdirected() {
    counter!("route_items_misdirected_total").increment(1);
}
