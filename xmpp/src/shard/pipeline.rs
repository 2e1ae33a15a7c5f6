//! Batches in flight, and what must wait for them.
//!
//! A batch gets the next number when it is evaluated. What an entity causes waits until every batch of that entity up to
//! then is committed, also when the stanza that caused it wrote nothing (DESIGN §4.3): otherwise a reply could tell of a
//! state that a failure takes back.

use std::collections::{BTreeMap, HashMap};

/// The number of a batch in the current term, from 1. Zero is "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchNo(pub u64);

/// Numbers batches and holds effects back. `E` is what waits.
#[derive(Debug)]
pub(super) struct Pipeline<E> {
    evaluated: BatchNo,
    committed: BatchNo,
    held: BTreeMap<BatchNo, Vec<E>>,
    /// The newest batch of each entity that has one in flight, by its name: an account's bare JID, or a pubsub node's address.
    busy: HashMap<Box<str>, BatchNo>,
}

impl<E> Pipeline<E> {
    pub(super) fn new() -> Self {
        Self {
            evaluated: BatchNo(0),
            committed: BatchNo(0),
            held: BTreeMap::new(),
            busy: HashMap::new(),
        }
    }

    /// The number the next batch will have.
    pub(super) fn upcoming(&self) -> BatchNo {
        BatchNo(self.evaluated.0 + 1)
    }

    /// Takes the upcoming number for a batch of `entity`; `None` is the shard itself.
    pub(super) fn evaluated(&mut self, entity: Option<&str>) -> BatchNo {
        self.evaluated = self.upcoming();
        if let Some(entity) = entity {
            self.busy.insert(entity.into(), self.evaluated);
        }
        self.evaluated
    }

    /// The upcoming batch, which is several entities' or the shard's own, changes this one, too.
    pub(super) fn will_write(&mut self, entity: &str) {
        let upcoming = self.upcoming();
        self.busy.insert(entity.into(), upcoming);
    }

    /// The batch that effects of `entity` must wait for; zero when there is none. The shard itself waits for everything.
    pub(super) fn waits_for(&self, entity: Option<&str>) -> BatchNo {
        match entity {
            None => self.evaluated,
            Some(_) if self.busy.is_empty() => BatchNo(0),
            Some(entity) => self.busy.get(entity).copied().unwrap_or_default(),
        }
    }

    /// Whether effects that wait for `batch` may leave.
    pub(super) fn is_committed(&self, batch: BatchNo) -> bool {
        batch <= self.committed
    }

    /// Keeps `effect` until `batch` is committed.
    pub(super) fn hold(&mut self, batch: BatchNo, effect: E) {
        self.held.entry(batch).or_default().push(effect);
    }

    /// Everything up to `batch` is durable: returns what waited for it, in order.
    pub(super) fn committed(&mut self, batch: BatchNo) -> Vec<E> {
        self.committed = self.committed.max(batch);
        let later = self.held.split_off(&BatchNo(batch.0 + 1));
        let released = std::mem::replace(&mut self.held, later);
        self.busy.retain(|_, newest| *newest > batch);
        released.into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_waits_for_every_earlier_batch_of_its_entity() {
        let (juliet, romeo) = ("juliet@example.org", "romeo@example.org");
        let mut pipeline = Pipeline::new();
        let first = pipeline.evaluated(Some(juliet));
        let second = pipeline.evaluated(Some(romeo));
        pipeline.hold(first, "juliet's reply");
        pipeline.hold(second, "romeo's reply");
        pipeline.hold(
            pipeline.waits_for(Some(juliet)),
            "juliet's next reply, which wrote nothing",
        );

        assert_eq!(
            pipeline.committed(first),
            ["juliet's reply", "juliet's next reply, which wrote nothing"]
        );
        assert_eq!(pipeline.waits_for(Some(juliet)), BatchNo(0));
        assert_eq!(pipeline.waits_for(Some(romeo)), second);
        assert_eq!(pipeline.committed(second), ["romeo's reply"]);
    }

    #[test]
    fn a_commit_of_several_batches_releases_in_order() {
        let juliet = "juliet@example.org";
        let mut pipeline = Pipeline::new();
        for reply in 1..=3 {
            let batch = pipeline.evaluated(Some(juliet));
            pipeline.hold(batch, reply);
        }
        assert_eq!(pipeline.committed(BatchNo(2)), [1, 2]);
        assert_eq!(pipeline.committed(BatchNo(3)), [3]);
    }
}
