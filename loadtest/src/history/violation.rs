//! What was promised and does not hold.

/// A promise that was not kept, as a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// It was acknowledged, and nobody has it.
    #[error("message {id} of {from} to {to} was acknowledged, and neither delivered, stored nor refused")]
    Lost {
        /// Its id.
        id: String,
        /// Who sent it.
        from: String,
        /// For whom.
        to: String,
    },
    /// Nobody had sent it when it came, or not so.
    #[error("{by} received a message {id} that was not sent so: {why}")]
    Invented {
        /// The id it carried.
        id: String,
        /// Who received it.
        by: String,
        /// What does not fit.
        why: &'static str,
    },
    /// A message came again without its id.
    #[error("{by} received message {sent} with the id {carried:?}")]
    OtherId {
        /// The id it was sent with.
        sent: String,
        /// The id it came with.
        carried: String,
        /// Who received it.
        by: String,
    },
    /// It came to one session more often than it was sent.
    #[error("{by} received message {id} {times} times in session {session}; it was sent {sent} times")]
    Repeated {
        /// Its id.
        id: String,
        /// Who received it.
        by: String,
        /// Where.
        session: String,
        /// How often.
        times: usize,
        /// In how many sessions it was sent.
        sent: usize,
    },
    /// An acknowledgement or an error for what the device had not sent.
    #[error("{by} was told of a message {id} that it had not sent: {told}")]
    Unsent {
        /// Its id.
        id: String,
        /// Who was told.
        by: String,
        /// What.
        told: &'static str,
    },
    /// What was sent later came first.
    #[error("{recipient} received {later} before {earlier}, which session {session} had sent before it")]
    Order {
        /// The sender's session.
        session: String,
        /// The address it was sent to.
        recipient: String,
        /// What was sent first.
        earlier: String,
        /// What came first.
        later: String,
    },
    /// No order of the calls explains what was read.
    #[error("row {row} is not linearizable: no order of its {calls} calls explains what they returned")]
    NotLinearizable {
        /// Which row.
        row: String,
        /// How many calls there were.
        calls: usize,
    },
    /// Two nodes led a shard in one term.
    #[error("shard {shard} was led by {one} and by {other} in term {term}")]
    TwoLeaders {
        /// Which.
        shard: u16,
        /// The term.
        term: u64,
        /// One of them.
        one: String,
        /// The other.
        other: String,
    },
    /// Two replicas have applied the same entries and are not the same.
    #[error("the rows of shard {shard} at entry {applied} are not the same at {one} and at {other}")]
    Diverged {
        /// Which.
        shard: u16,
        /// The index of the entry applied last.
        applied: u64,
        /// One of them.
        one: String,
        /// The other.
        other: String,
    },
    /// The history contradicts itself: the workload has recorded it badly, so nothing can be said.
    #[error("the history makes no sense: {0}")]
    Nonsense(String),
}
