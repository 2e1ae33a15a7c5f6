//! The deliveries of one session at its edge: written, counted, acknowledged, released.

use std::collections::VecDeque;

use super::inactive::Held;
use crate::link::Delivery;
use crate::xep::sm::{Counter, HandledCountTooHigh};

/// What came from the shard and is not released yet.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The last delivery that came.
    received: u64,
    /// The last delivery the shard may forget.
    released: u64,
    queue: VecDeque<Item>,
    /// What came after that and waits: the device is inactive (XEP-0352).
    held: Option<Box<Held>>,
    /// Bytes of the stream that are in the hands of the operating system.
    written: u64,
    /// XEP-0198, once enabled.
    counters: Option<Counters>,
    /// What the shard has been told.
    told_received: u64,
    told_released: u64,
    /// Bytes released since.
    untold_bytes: usize,
    voided: Vec<u64>,
}

#[derive(Debug)]
struct Item {
    delivery: Delivery,
    /// Where it ends in the stream's bytes.
    end: u64,
    /// Released by an acknowledgement, not by having been written.
    counted: bool,
}

/// How many stanzas the device was sent, and how many it says it has handled.
#[derive(Debug, Clone, Copy)]
struct Counters {
    sent: Counter,
    acknowledged: Counter,
    /// `<r/>` has been sent and not been answered.
    asked: bool,
}

/// What the shard is to be told.
pub(super) struct Told {
    pub(super) received: u64,
    pub(super) released: u64,
    pub(super) voided: Vec<u64>,
}

impl Outgoing {
    pub(super) fn after(released: u64, acknowledged: Option<u32>) -> Self {
        let counters = acknowledged.map(|h| Counters {
            sent: Counter(h),
            acknowledged: Counter(h),
            asked: false,
        });
        Self {
            received: released,
            released,
            queue: VecDeque::new(),
            held: None,
            written: 0,
            counters,
            told_received: released,
            told_released: released,
            untold_bytes: 0,
            voided: Vec::new(),
        }
    }

    /// Takes note of a delivery; says whether it is new.
    pub(super) fn receive(&mut self, seq: u64) -> bool {
        let new = seq > self.received;
        self.received = self.received.max(seq);
        new
    }

    /// The delivery is not for the device: it has had the stanza.
    pub(super) fn void(&mut self, seq: u64) {
        self.voided.push(seq);
        self.catch_up();
    }

    /// The delivery is in the stream, up to this byte.
    pub(super) fn sent(&mut self, delivery: Delivery, end: u64) {
        let counted = self.counters.is_some();
        if let Some(counters) = &mut self.counters {
            counters.sent = counters.sent.plus(1);
        }
        self.queue.push_back(Item { delivery, end, counted });
    }

    /// XEP-0198: the device counts from here.
    pub(super) fn count_from_here(&mut self) {
        self.counters = Some(Counters {
            sent: Counter::ZERO,
            acknowledged: Counter::ZERO,
            asked: false,
        });
    }

    /// The operating system has the stream's bytes up to here.
    pub(super) fn written(&mut self, bytes: u64) {
        self.written = self.written.max(bytes);
        self.release_written();
    }

    fn release_written(&mut self) {
        let written = self.written;
        while let Some(item) = self.queue.pop_front_if(|item| !item.counted && item.end <= written) {
            self.forget(&item);
        }
        self.catch_up();
    }

    /// The device has handled `h` stanzas.
    pub(super) fn acknowledge(&mut self, h: Counter) -> Result<(), HandledCountTooHigh> {
        let Some(counters) = &mut self.counters else {
            return Ok(());
        };
        let mut handled = counters.acknowledged.acknowledge(counters.sent, h)?;
        counters.acknowledged = h;
        counters.asked = false;
        while handled > 0 {
            // What it has handled it has been sent, and so has everything before.
            let Some(item) = self.queue.pop_front() else { break };
            handled -= u32::from(item.counted);
            self.forget(&item);
        }
        self.release_written();
        Ok(())
    }

    fn forget(&mut self, item: &Item) {
        self.released = item.delivery.seq;
        self.untold_bytes += item.delivery.stanza.size();
    }

    /// With nothing under way, everything that came is released, up to what waits.
    fn catch_up(&mut self) {
        if self.queue.is_empty() {
            let waits = self.held().first();
            self.released = waits.map_or(self.received, |delivery| delivery.seq - 1);
        }
    }

    /// XEP-0352: from now on deliveries may wait.
    pub(super) fn become_inactive(&mut self) {
        self.held.get_or_insert_default();
    }

    /// Whether deliveries may wait.
    pub(super) fn is_inactive(&self) -> bool {
        self.held.is_some()
    }

    /// The device is active: returns what has waited, to be written at once.
    pub(super) fn become_active(&mut self) -> Vec<Delivery> {
        self.held.take().map_or_else(Vec::new, |mut held| held.take())
    }

    /// The delivery waits. Says how many bytes there are now.
    pub(super) fn hold(&mut self, delivery: Delivery) -> usize {
        let held = self.held.get_or_insert_default();
        let dropped = held.hold(delivery);
        let bytes = held.bytes();
        if let Some(seq) = dropped {
            self.void(seq);
        }
        bytes
    }

    /// Returns what has waited, to be written at once. The device is as inactive as before.
    pub(super) fn take_held(&mut self) -> Vec<Delivery> {
        self.held.as_mut().map_or_else(Vec::new, |held| held.take())
    }

    fn held(&self) -> &[Delivery] {
        self.held.as_ref().map_or(&[], |held| held.deliveries())
    }

    /// Whether the device is to be asked how far it is; it counts as asked from now on.
    pub(super) fn asks(&mut self) -> bool {
        match &mut self.counters {
            Some(counters) if !counters.asked && counters.sent != counters.acknowledged => {
                counters.asked = true;
                true
            }
            _ => false,
        }
    }

    /// What the device had acknowledged at `released`.
    pub(super) fn acknowledged(&self) -> u32 {
        self.counters.map_or(0, |counters| counters.acknowledged.0)
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn released(&self) -> u64 {
        self.released
    }

    /// What is not released, oldest first.
    pub(super) fn unreleased(&self) -> Vec<Delivery> {
        let sent = self.queue.iter().map(|item| &item.delivery);
        sent.chain(self.held()).cloned().collect()
    }

    /// Bytes released that the shard has not been told of.
    pub(super) fn untold_bytes(&self) -> usize {
        self.untold_bytes
    }

    /// Whether the shard does not know how far deliveries have come.
    pub(super) fn has_news(&self) -> bool {
        self.told_released != self.released || self.told_received != self.received || !self.voided.is_empty()
    }

    /// Whether a sender may be waiting to hear that its stanza has come here.
    pub(super) fn has_received_news(&self) -> bool {
        self.told_received != self.received || !self.voided.is_empty()
    }

    /// What the shard is told now.
    pub(super) fn tell(&mut self) -> Told {
        (self.told_received, self.told_released, self.untold_bytes) = (self.received, self.released, 0);
        Told {
            received: self.received,
            released: self.released,
            voided: std::mem::take(&mut self.voided),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::link::Origin;
    use crate::rows::Timestamp;
    use crate::stanza::{PresenceType, Stanza};
    use crate::xml::Element;

    fn presence(seq: u64, from: &str) -> Delivery {
        let stanza = Stanza::presence(PresenceType::Available, [])
            .with_from(from.parse::<crate::jid::Jid>().expect("an address"));
        Delivery {
            seq,
            origin: Origin::None,
            at: Timestamp(seq),
            stanza: Arc::new(stanza),
        }
    }

    fn iq(seq: u64) -> Delivery {
        let ping = Element::new("ping", "urn:xmpp:ping");
        Delivery {
            stanza: Arc::new(Stanza::iq(crate::stanza::IqType::Get, "1", Some(&ping))),
            ..presence(seq, "a@b")
        }
    }

    fn comes(outgoing: &mut Outgoing, delivery: Delivery, waits: bool) {
        assert!(outgoing.receive(delivery.seq));
        if waits {
            outgoing.hold(delivery);
        } else {
            for held in outgoing.take_held() {
                let end = held.seq;
                outgoing.sent(held, end);
            }
            let end = delivery.seq;
            outgoing.sent(delivery, end);
        }
    }

    fn order(deliveries: &[Delivery]) -> Vec<u64> {
        deliveries.iter().map(|delivery| delivery.seq).collect()
    }

    #[test]
    fn what_waits_is_not_released_and_what_was_dropped_is_voided() {
        let mut outgoing = Outgoing::after(0, None);
        comes(&mut outgoing, iq(1), false);
        outgoing.become_inactive();
        comes(&mut outgoing, presence(2, "a@b/c"), true);
        comes(&mut outgoing, presence(3, "a@b/d"), true);
        comes(&mut outgoing, presence(4, "a@b/c"), true);
        // Everything that was written is released; 2 was dropped for 4, and 3 waits.
        outgoing.written(1);
        assert_eq!((outgoing.received(), outgoing.released()), (4, 2));
        assert_eq!(order(&outgoing.unreleased()), [3, 4]);
        assert_eq!(outgoing.tell().voided, [2]);
        // What cannot wait comes after what did.
        comes(&mut outgoing, iq(5), false);
        assert_eq!(order(&outgoing.unreleased()), [3, 4, 5]);
        outgoing.written(5);
        assert_eq!(outgoing.released(), 5);
        assert!(outgoing.unreleased().is_empty());
        assert!(outgoing.is_inactive());
    }

    #[test]
    fn nothing_sent_what_waits_first_is_where_release_ends() {
        let mut outgoing = Outgoing::after(7, None);
        outgoing.become_inactive();
        comes(&mut outgoing, presence(8, "a@b/c"), true);
        outgoing.written(100);
        assert_eq!(outgoing.released(), 7);
        comes(&mut outgoing, presence(9, "a@b/c"), true);
        assert_eq!(outgoing.released(), 8, "8 was dropped");
        assert_eq!(order(&outgoing.become_active()), [9]);
        assert!(!outgoing.is_inactive());
    }

    #[test]
    fn a_device_acknowledges_what_it_was_sent_and_not_what_waits() {
        let mut outgoing = Outgoing::after(0, None);
        outgoing.count_from_here();
        comes(&mut outgoing, iq(1), false);
        outgoing.become_inactive();
        comes(&mut outgoing, presence(2, "a@b/c"), true);
        comes(&mut outgoing, presence(3, "a@b/c"), true);
        assert!(outgoing.acknowledge(Counter(2)).is_err(), "only one was sent");
        assert!(outgoing.acknowledge(Counter(1)).is_ok());
        assert_eq!((outgoing.released(), outgoing.acknowledged()), (2, 1));
        for held in outgoing.become_active() {
            outgoing.sent(held, 3);
        }
        assert!(outgoing.acknowledge(Counter(2)).is_ok());
        assert_eq!((outgoing.released(), outgoing.acknowledged()), (3, 2));
    }
}
