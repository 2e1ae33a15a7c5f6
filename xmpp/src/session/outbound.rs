//! The deliveries of one session: numbered here, kept until the edge says they may be forgotten.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::link::{Delivery, Origin, SessionId, ShardId};
use crate::rows::{Key, Timestamp};
use crate::stanza::Stanza;

/// What was given to the edge and not yet released.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    last: u64,
    /// The edge has said that it has deliveries up to this one.
    received: u64,
    released: u64,
    /// The delivery after which XEP-0198 counts.
    base: u64,
    /// XEP-0198: how many counted deliveries lie at or below `released`, modulo 2^32.
    acknowledged: u32,
    bytes: usize,
    queue: VecDeque<Queued>,
}

/// A stanza for a session.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) origin: Origin,
    /// When it was accepted: no two stanzas of a shard share one.
    pub(crate) at: Timestamp,
    pub(crate) stanza: Arc<Stanza>,
}

impl Item {
    /// What is under way.
    pub(crate) fn of(delivery: &Delivery) -> Self {
        let Delivery { origin, at, stanza, .. } = delivery;
        Self {
            origin: *origin,
            at: *at,
            stanza: Arc::clone(stanza),
        }
    }
}

/// A delivery under way.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) delivery: Delivery,
    /// The row it was read from or is kept in, to be removed once released.
    pub(crate) row: Option<Key>,
    /// Who waits to hear that it is at the edge.
    pub(crate) receipt: Option<Receipt>,
    /// The edge dropped it as a repeat: the device never saw it.
    pub(crate) voided: bool,
}

/// Someone who waits for a delivery to be safe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receipt {
    /// The shard of the sender.
    pub(crate) shard: ShardId,
    /// The sender's session.
    pub(crate) session: SessionId,
    /// Its frame.
    pub(crate) frame: u64,
}

impl Outbound {
    /// A session whose deliveries up to `released` are done, of which the device counts `acknowledged`.
    pub(crate) fn after(released: u64, base: u64, acknowledged: u32) -> Self {
        Self {
            last: released,
            received: released,
            released,
            base,
            acknowledged,
            bytes: 0,
            queue: VecDeque::new(),
        }
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    pub(crate) fn released(&self) -> u64 {
        self.released
    }

    pub(crate) fn acknowledged(&self) -> u32 {
        self.acknowledged
    }

    /// Bytes under way, which the credit bounds.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// XEP-0198: deliveries from the next one on count.
    pub(crate) fn count_from_here(&mut self) {
        self.base = self.last;
        self.acknowledged = 0;
    }

    /// Numbers a stanza and keeps it until it is released.
    pub(crate) fn push(&mut self, item: Item, row: Option<Key>, receipt: Option<Receipt>) -> Delivery {
        self.last += 1;
        let Item { origin, at, stanza } = item;
        self.bytes += stanza.size();
        let delivery = Delivery {
            seq: self.last,
            origin,
            at,
            stanza,
        };
        self.queue.push_back(Queued {
            delivery: delivery.clone(),
            row,
            receipt,
            voided: false,
        });
        delivery
    }

    /// Takes over a delivery as its edge still holds it; what lies between was dropped as a repeat.
    pub(crate) fn restore(&mut self, delivery: Delivery) {
        self.last = self.last.max(delivery.seq);
        self.bytes += delivery.stanza.size();
        self.queue.push_back(Queued {
            delivery,
            row: None,
            receipt: None,
            voided: false,
        });
    }

    /// The edge has heard of deliveries up to `received`.
    pub(crate) fn resume_after(&mut self, received: u64) {
        self.last = self.last.max(received);
        self.received = self.received.max(received);
    }

    /// A delivery under way of that origin, and whether its edge has it.
    pub(crate) fn find(&mut self, origin: Origin) -> Option<(&mut Queued, bool)> {
        let received = self.received;
        let queued = self.queue.iter_mut().find(|queued| queued.delivery.origin == origin)?;
        let there = queued.delivery.seq <= received;
        Some((queued, there))
    }

    /// The edge dropped this delivery as a repeat: it will not count.
    pub(crate) fn void(&mut self, seq: u64) {
        if let Ok(place) = self.queue.binary_search_by_key(&seq, |queued| queued.delivery.seq) {
            self.queue[place].voided = true;
        }
    }

    /// Whether a row is under way already: it is then removed when that delivery is released.
    pub(crate) fn is_under_way(&mut self, row: &Key, origin: Origin) -> bool {
        let same = |queued: &&mut Queued| match &queued.row {
            Some(kept) => kept == row,
            None => queued.delivery.origin == origin,
        };
        self.queue
            .iter_mut()
            .find(same)
            .map(|queued| queued.row = Some(row.clone()))
            .is_some()
    }

    /// The receipts owed for deliveries up to `received`.
    pub(crate) fn received(&mut self, received: u64) -> Vec<Receipt> {
        self.received = self.received.max(received.min(self.last));
        let heard = self.queue.partition_point(|queued| queued.delivery.seq <= received);
        self.queue
            .iter_mut()
            .take(heard)
            .filter_map(|queued| queued.receipt.take())
            .collect()
    }

    /// Forgets deliveries up to `released` and returns them.
    pub(crate) fn release(&mut self, released: u64) -> Vec<Queued> {
        let mut done = Vec::new();
        while let Some(queued) = self.queue.pop_front_if(|queued| queued.delivery.seq <= released) {
            self.forget(&queued);
            done.push(queued);
        }
        self.released = self.released.max(released.min(self.last));
        done
    }

    /// Takes everything that is not released, oldest first.
    pub(crate) fn take(&mut self) -> Vec<Queued> {
        self.bytes = 0;
        std::mem::take(&mut self.queue).into()
    }

    fn counts(&self, queued: &Queued) -> bool {
        queued.delivery.seq > self.base && !queued.voided
    }

    fn forget(&mut self, queued: &Queued) {
        self.bytes -= queued.delivery.stanza.size();
        self.released = queued.delivery.seq;
        if self.counts(queued) {
            self.acknowledged = self.acknowledged.wrapping_add(1);
        }
    }
}
