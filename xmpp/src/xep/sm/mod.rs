//! XEP-0198: Stream Management. The elements are here; what they do is done by [`crate::edge`], which counts and acknowledges,
//! and by [`crate::shard`], which keeps sessions for resumption.

mod payload;

pub use payload::{Ack, Counter, Enable, Enabled, Failed, HandledCountTooHigh, Malformed, NS, Nonza, Resume, Resumed};

use crate::feature::Spec;

/// Stream-level: offered as a stream feature, not in disco.
pub static SPEC: Spec = Spec {
    document: "XEP-0198",
    title: "Stream Management",
    version: "1.6.3",
    host_features: &[],
    account_features: &[],
};
