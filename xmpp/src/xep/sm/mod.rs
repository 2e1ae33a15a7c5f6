//! XEP-0198: Stream Management (1.6.3).

mod payload;

pub use payload::{Ack, Counter, Enable, Enabled, Failed, HandledCountTooHigh, Malformed, NS, Nonza, Resume, Resumed};
