//! What an inactive device is spared (XEP-0352): presence, of which only the newest of each sender is kept, and messages that say
//! no more than that somebody types.
//!
//! They wait here and are written, in the order they came, before anything else is, or when the device is active again. To
//! the shard they are on their way: it keeps them like everything that is not released, and its credit counts them. So what
//! waits is bounded well below the credit, counting what was dropped for something newer: that is released only in its turn.

use crate::im::chat_state;
use crate::link::Delivery;
use crate::stanza::{Kind, PresenceType, Stanza};

/// What waits for an inactive device.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// In the order they came.
    deliveries: Vec<Delivery>,
    /// Of all that came since something waits, also of what was dropped.
    bytes: usize,
}

impl Held {
    /// Keeps a delivery that [can wait](can_wait). Says which one it takes the place of.
    pub(super) fn hold(&mut self, delivery: Delivery) -> Option<u64> {
        self.bytes += delivery.stanza.size();
        let newer = &delivery.stanza;
        let older = |held: &Delivery| {
            newer.kind.is_presence() && held.stanza.kind.is_presence() && held.stanza.from == newer.from
        };
        let place = self.deliveries.iter().position(older);
        let dropped = place.map(|place| self.deliveries.remove(place).seq);
        self.deliveries.push(delivery);
        dropped
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn deliveries(&self) -> &[Delivery] {
        &self.deliveries
    }

    /// Takes everything out, in order.
    pub(super) fn take(&mut self) -> Vec<Delivery> {
        self.bytes = 0;
        std::mem::take(&mut self.deliveries)
    }
}

/// Whether nobody misses it before they look at the device.
pub(super) fn can_wait(stanza: &Stanza) -> bool {
    match stanza.kind {
        Kind::Presence(PresenceType::Available | PresenceType::Unavailable) => true,
        Kind::Message(_) => chat_state::is_all(stanza),
        Kind::Presence(_) | Kind::Iq(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::link::Origin;
    use crate::rows::Timestamp;
    use crate::stanza::Parsed;
    use crate::xml::{Limits, StreamPrefixes};

    fn stanza(xml: &str) -> Stanza {
        let bytes = bytes::Bytes::copy_from_slice(xml.as_bytes());
        match Stanza::parse(bytes, &Limits::after_auth(), &StreamPrefixes::client()) {
            Ok(Parsed::Stanza(stanza)) => stanza,
            other => panic!("{xml}: {other:?}"),
        }
    }

    fn delivery(seq: u64, xml: &str) -> Delivery {
        Delivery {
            seq,
            origin: Origin::None,
            at: Timestamp(seq),
            stanza: Arc::new(stanza(xml)),
        }
    }

    #[test]
    fn what_can_wait() {
        const COMPOSING: &str = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
        let table = [
            ("<presence/>".to_owned(), true),
            (
                "<presence type='unavailable'><status>bye</status></presence>".to_owned(),
                true,
            ),
            ("<presence type='error'/>".to_owned(), false),
            ("<presence type='subscribe'/>".to_owned(), false),
            ("<presence type='unsubscribed'/>".to_owned(), false),
            (format!("<message type='chat'>{COMPOSING}</message>"), true),
            (
                format!("<message type='chat'>{COMPOSING}<body>hi</body></message>"),
                false,
            ),
            ("<iq type='result' id='1'/>".to_owned(), false),
        ];
        for (xml, expected) in table {
            assert_eq!(can_wait(&stanza(&xml)), expected, "{xml}");
        }
    }

    #[test]
    fn of_each_sender_the_newest_presence_is_kept() {
        let mut held = Held::default();
        assert_eq!(
            held.hold(delivery(1, "<presence from='a@b/c'><show>away</show></presence>")),
            None
        );
        assert_eq!(held.hold(delivery(2, "<presence from='a@b/d'/>")), None);
        assert_eq!(held.hold(delivery(3, "<message from='a@b/c'/>")), None);
        assert_eq!(held.hold(delivery(4, "<message from='a@b/c'/>")), None);
        let before = held.bytes();
        assert_eq!(
            held.hold(delivery(5, "<presence from='a@b/c' type='unavailable'/>")),
            Some(1)
        );
        assert!(held.bytes() > before, "what was dropped still counts");
        let order = |held: &[Delivery]| held.iter().map(|delivery| delivery.seq).collect::<Vec<_>>();
        assert_eq!(order(held.deliveries()), [2, 3, 4, 5]);
        assert_eq!(order(&held.take()), [2, 3, 4, 5]);
        assert_eq!((held.bytes(), held.deliveries().len()), (0, 0));
    }
}
