//! Who was refused and why: said once, and again when the reason changes.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::{Refusal, RefusalReason, metrics};

/// How many peers are remembered. More: all are forgotten, and said once more.
const REMEMBERED_MAX: usize = 1024;

/// What was said last of whom.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<String, (bool, RefusalReason)>>);

impl Refusals {
    /// One side has refused the other. `who` is the peer as operators know it, never a name that strangers choose.
    pub(super) fn note(&self, by_us: bool, who: &str, refusal: &Refusal) {
        metrics::refused(by_us, refusal.reason);
        let reason = refusal.reason.name();
        let sentence = &refusal.sentence;
        match (self.is_new(who, (by_us, refusal.reason)), by_us) {
            (false, _) => tracing::debug!(peer = who, reason, "a link is refused again: {sentence}"),
            (true, true) => tracing::warn!(peer = who, reason, "a link is refused: {sentence}"),
            (true, false) => tracing::warn!(peer = who, reason, "a peer refuses the link: {sentence}"),
        }
    }

    /// The link works: what is wrong next is said again.
    pub(super) fn forget(&self, who: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(who);
    }

    fn is_new(&self, who: &str, what: (bool, RefusalReason)) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= REMEMBERED_MAX && !said.contains_key(who) {
            said.clear();
        }
        said.insert(who.to_owned(), what) != Some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_new_once_per_peer_and_reason() {
        let refusals = Refusals::default();
        let (skew, name) = ((true, RefusalReason::ClockSkew), (true, RefusalReason::ClusterName));
        assert!(refusals.is_new("a", skew));
        assert!(!refusals.is_new("a", skew));
        assert!(refusals.is_new("b", skew));
        assert!(refusals.is_new("a", name));
        assert!(refusals.is_new("a", skew));
        refusals.forget("a");
        assert!(refusals.is_new("a", skew));
        assert!(!refusals.is_new("b", skew));
    }

    #[test]
    fn no_more_peers_are_remembered_than_may_be() {
        let refusals = Refusals::default();
        for number in 0..3 * REMEMBERED_MAX {
            refusals.is_new(&number.to_string(), (true, RefusalReason::Garbled));
        }
        assert!(refusals.0.lock().unwrap().len() <= REMEMBERED_MAX);
    }
}
