//! Messages that the application has had, so that it does not get them twice.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use heronry_xmpp::{
    stanza::{Kind, MessageType, Stanza},
    xml::{CLIENT, Element},
};
use tokio::time::Instant;

use crate::delivery::{STANZA_IDS, receipt::is_requested};

/// A bounded memory of messages, by hashes that nobody outside can foresee. The oldest is forgotten for the newest.
#[derive(Debug)]
pub(super) struct Duplicates {
    hasher: RandomState,
    /// Oldest first.
    seen: VecDeque<(Instant, u64)>,
    keys: HashSet<u64>,
    max: usize,
    window: Duration,
}

impl Duplicates {
    pub(super) fn new(max: usize, window: Duration) -> Self {
        Self {
            hasher: RandomState::new(),
            seen: VecDeque::new(),
            keys: HashSet::new(),
            max,
            window,
        }
    }

    /// What a message is known by, if its sender may send it again. An `origin-id` (XEP-0359) is promised to be used once by
    /// the account; any other id is unique on one stream at best (RFC 6120 §8.1.3), so there the sender's device and the text
    /// count, too.
    pub(super) fn key(&self, message: &Stanza, content: &Element) -> Option<u64> {
        if !matches!(
            message.kind,
            Kind::Message(MessageType::Normal | MessageType::Chat | MessageType::Headline)
        ) {
            return None;
        }
        let from = message.from.as_ref()?;
        let origin = content
            .child("origin-id", STANZA_IDS)
            .and_then(|origin| origin.attr("id"));
        match (origin, message.id.as_deref()) {
            (Some(origin), _) => Some(self.hasher.hash_one((from.bare_str(), origin))),
            (None, Some(id)) if is_requested(content) => {
                let text = content.child("body", CLIENT).map(Element::text);
                Some(self.hasher.hash_one((from.as_str(), id, text)))
            }
            _ => None,
        }
    }

    pub(super) fn contains(&mut self, key: u64) -> bool {
        self.forget_old();
        self.keys.contains(&key)
    }

    pub(super) fn remember(&mut self, key: u64) {
        if self.max == 0 || !self.keys.insert(key) {
            return;
        }
        self.forget_old();
        if self.seen.len() == self.max {
            self.forget_oldest();
        }
        self.seen.push_back((Instant::now(), key));
    }

    fn forget_old(&mut self) {
        while self.seen.front().is_some_and(|(at, _)| at.elapsed() > self.window) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.seen.pop_front() {
            self.keys.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::message;

    const DAY: Duration = Duration::from_secs(86_400);

    fn is_duplicate(first: &str, second: &str) -> bool {
        let mut duplicates = Duplicates::new(4, DAY);
        let key = |duplicates: &Duplicates, xml: &str| {
            let message = message(xml);
            let content = message.root_element().expect("XML");
            duplicates.key(&message, &content)
        };
        if let Some(key) = key(&duplicates, first) {
            duplicates.remember(key);
        }
        key(&duplicates, second).is_some_and(|key| duplicates.contains(key))
    }

    #[test]
    fn an_origin_id_is_the_accounts_for_ever() {
        let first = "<message from='a@b/c' id='1'><body>x</body><origin-id xmlns='urn:xmpp:sid:0' id='o'/></message>";
        for (second, expected) in [
            (first, true),
            // Another session of the sender, and the recipient's server has held it back.
            (
                "<message from='a@b/d' id='1'><body>x</body><origin-id xmlns='urn:xmpp:sid:0' id='o'/><delay xmlns='urn:xmpp:delay' stamp='2002-09-10T23:08:25Z'/></message>",
                true,
            ),
            (
                "<message from='b@b/c' id='1'><body>x</body><origin-id xmlns='urn:xmpp:sid:0' id='o'/></message>",
                false,
            ),
            (
                "<message from='a@b/c' id='1'><body>x</body><origin-id xmlns='urn:xmpp:sid:0' id='p'/></message>",
                false,
            ),
        ] {
            assert_eq!(is_duplicate(first, second), expected, "{second}");
        }
    }

    #[test]
    fn another_id_counts_with_device_and_text_when_a_receipt_is_wanted() {
        let first = "<message from='a@b/c' id='1'><body>x</body><request xmlns='urn:xmpp:receipts'/></message>";
        for (second, expected) in [
            (first, true),
            (
                "<message from='a@b/d' id='1'><body>x</body><request xmlns='urn:xmpp:receipts'/></message>",
                false,
            ),
            (
                "<message from='a@b/c' id='1'><body>y</body><request xmlns='urn:xmpp:receipts'/></message>",
                false,
            ),
            (
                "<message from='a@b/c' id='2'><body>x</body><request xmlns='urn:xmpp:receipts'/></message>",
                false,
            ),
        ] {
            assert_eq!(is_duplicate(first, second), expected, "{second}");
        }
        let unconfirmed = "<message from='a@b/c' id='1'><body>x</body></message>";
        assert!(!is_duplicate(unconfirmed, unconfirmed));
    }

    #[test]
    fn the_memory_is_bounded_in_number_and_time() {
        let mut duplicates = Duplicates::new(2, DAY);
        [1, 2, 2, 3].into_iter().for_each(|key| duplicates.remember(key));
        assert_eq!([1, 2, 3].map(|key| duplicates.contains(key)), [false, true, true]);
        assert_eq!((duplicates.seen.len(), duplicates.keys.len()), (2, 2));
        let mut forgetful = Duplicates::new(2, Duration::ZERO);
        forgetful.remember(1);
        std::thread::sleep(Duration::from_millis(1));
        assert!(!forgetful.contains(1));
    }
}
