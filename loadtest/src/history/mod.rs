//! What devices saw of a server, and whether it kept its promises.
//!
//! A workload records [`Event`]s as they happen, on one clock and in one order; [`check`] reads the [`History`] when the devices have
//! come to rest (everything that was stored has been asked for), and says what was promised and does not hold:
//!
//! | file | promise |
//! |---|---|
//! | `messages.rs` | nothing acknowledged is lost, nothing is invented, nothing comes twice to one session, repeats carry their id |
//! | `order.rs` | what one session sends to one address arrives in that order |
//! | `registers.rs` | reads and writes of a row are linearizable |
//! | `leaders.rs` | a row has one writer: one process leads a shard in a term, and its replicas are the same |
//!
//! The workload must give each message an id and a body that no other message has. Nothing here does I/O but [`History::read`] and
//! [`History::write`], which turn a history into lines of JSON and back, so that it can be judged elsewhere or again.

mod event;
mod leaders;
mod messages;
mod order;
mod registers;
#[cfg(test)]
mod tests;
mod violation;

pub use self::{
    event::{Event, History, Returned, What},
    messages::Summary,
    violation::Violation,
};

/// Everything that was promised and does not hold; empty when all is well. The same history gives the same answer.
pub fn check(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    messages::check(history, &mut found);
    order::check(history, &mut found);
    registers::check(history, &mut found);
    leaders::check(history, &mut found);
    found
}

/// The account of an address: what is before the first slash.
fn account(address: &str) -> &str {
    address.split_once('/').map_or(address, |(account, _)| account)
}
