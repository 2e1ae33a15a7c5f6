//! What an inactive device is spared (XEP-0352): presence, of which only the newest of each sender is kept, and messages that say
//! no more than that somebody types.
//!
//! They wait here and are written, in the order they came, before anything else is, or when the device is active again. To
//! the shard they are on their way: it keeps them like everything that is not released, and its credit counts them. So what
//! waits is bounded well below the credit, counting what was dropped for something newer: that is released only in its turn.

use crate::link::Delivery;
use crate::stanza::{Kind, MessageType, PresenceType, Stanza};
use crate::xep::carbons;
use crate::xml::{CLIENT, Element};

/// XEP-0085.
const NS_CHAT_STATES: &str = "http://jabber.org/protocol/chatstates";

/// What goes along with something and says nothing by itself: XEP-0334, XEP-0203, XEP-0359.
const NS_COMPANIONS: [&str; 3] = ["urn:xmpp:hints", "urn:xmpp:delay", "urn:xmpp:sid:0"];

/// XEP-0297.
const NS_FORWARD: &str = "urn:xmpp:forward:0";

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
        Kind::Message(MessageType::Error) => false,
        Kind::Message(_) => stanza.root_element().is_ok_and(|message| is_chat_state(&message)),
        Kind::Presence(_) | Kind::Iq(_) => false,
    }
}

/// Whether a message says how somebody is engaged in a chat and no more; also the copy of such a message (XEP-0280).
fn is_chat_state(message: &Element) -> bool {
    let copied = message
        .children()
        .find(|child| child.ns() == carbons::forward::NS && matches!(child.name(), "sent" | "received"));
    if let Some(copied) = copied {
        let original = copied.child("forwarded", NS_FORWARD);
        let original = original.and_then(|forwarded| forwarded.child("message", CLIENT));
        // Not the copy of a copy: nobody makes those.
        return original.is_some_and(says_only_chat_states);
    }
    says_only_chat_states(message)
}

fn says_only_chat_states(message: &Element) -> bool {
    let state = |child: &Element| child.ns() == NS_CHAT_STATES;
    let companion = |child: &Element| child.is("thread", CLIENT) || NS_COMPANIONS.contains(&child.ns());
    message.children().any(state) && message.children().all(|child| state(child) || companion(child))
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
        let copy = |content: &str| {
            format!(
                "<message><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
                 <message xmlns='jabber:client' type='chat'>{content}</message></forwarded></sent></message>"
            )
        };
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
                format!(
                    "<message type='chat'>{COMPOSING}<thread>1</thread><no-store xmlns='urn:xmpp:hints'/></message>"
                ),
                true,
            ),
            (format!("<message type='groupchat'>{COMPOSING}</message>"), true),
            (format!("<message type='error'>{COMPOSING}</message>"), false),
            (
                format!("<message type='chat'>{COMPOSING}<body>hi</body></message>"),
                false,
            ),
            (
                format!("<message type='chat'>{COMPOSING}<received xmlns='urn:xmpp:receipts' id='1'/></message>"),
                false,
            ),
            ("<message type='chat'><thread>1</thread></message>".to_owned(), false),
            ("<message/>".to_owned(), false),
            (copy(COMPOSING), true),
            (copy("<body>hi</body>"), false),
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
