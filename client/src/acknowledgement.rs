//! Counting stanzas (XEP-0198): which of ours the server has taken responsibility for, and how many of its stanzas we have.
//!
//! Pure bookkeeping; the [driver](crate::driver) does the talking.

use std::collections::VecDeque;

use heronry_xmpp::{
    stanza::Stanza,
    xep::sm::{Counter, HandledCountTooHigh},
};

/// A stanza of ours that the server has not acknowledged, and who wanted it sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) stanza: Stanza,
    pub(crate) origin: Origin,
}

/// Who wanted a stanza sent. Only the application gets its stanzas back when a session is lost: a request fails by itself,
/// and an answer to a request is of no use to a new session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Application,
    /// Sent again in a new session by whoever watches over it ([`Courier`](crate::delivery::Courier)).
    Delivery,
    Request,
    Answer,
    /// Belongs to one session, and is said again in a new one: our presence, the request for the roster.
    Session,
}

/// Both counters of one session, and the stanzas between sent and acknowledged, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Acknowledgements {
    unacknowledged: VecDeque<Sent>,
    /// Ours that the server acknowledged.
    acknowledged: Counter,
    /// Of the server's, those we have taken responsibility for.
    received: Counter,
}

impl Acknowledgements {
    /// Stanzas waiting for acknowledgement.
    pub(crate) fn waiting(&self) -> usize {
        self.unacknowledged.len()
    }

    /// Our `h`.
    pub(crate) fn received(&self) -> Counter {
        self.received
    }

    /// We took responsibility for one more of the server's stanzas.
    pub(crate) fn receive(&mut self) {
        self.received = self.received.plus(1);
    }

    /// One more stanza goes to the server.
    pub(crate) fn send(&mut self, sent: Sent) {
        self.unacknowledged.push_back(sent);
    }

    /// The server's `h`: it has taken responsibility for that many. Says how many are acknowledged by it, and gives each.
    pub(crate) fn acknowledge(&mut self, h: Counter, each: impl FnMut(Sent)) -> Result<usize, HandledCountTooHigh> {
        // The queue is bounded far below 2^32.
        let sent = self.acknowledged.plus(self.unacknowledged.len() as u32);
        let newly = self.acknowledged.acknowledge(sent, h)? as usize;
        self.unacknowledged.drain(..newly).for_each(each);
        self.acknowledged = h;
        Ok(newly)
    }

    /// What must be sent again after resumption.
    pub(crate) fn unacknowledged(&self) -> impl Iterator<Item = &Stanza> {
        self.unacknowledged.iter().map(|sent| &sent.stanza)
    }

    /// The session is over: what the application had sent and the server did not acknowledge.
    pub(crate) fn give_back(self) -> Vec<Stanza> {
        let of_application = |sent: Sent| (sent.origin == Origin::Application).then_some(sent.stanza);
        self.unacknowledged.into_iter().filter_map(of_application).collect()
    }
}

#[cfg(test)]
mod tests {
    use heronry_xmpp::stanza::MessageType;

    use super::*;

    fn sent(id: &str, origin: Origin) -> Sent {
        Sent {
            stanza: Stanza::message(MessageType::Chat, []).with_id(id),
            origin,
        }
    }

    fn ids(stanzas: impl IntoIterator<Item = Stanza>) -> Vec<String> {
        stanzas
            .into_iter()
            .filter_map(|stanza| stanza.id)
            .map(String::from)
            .collect()
    }

    #[test]
    fn what_is_acknowledged_is_forgotten_and_the_rest_is_sent_again() {
        let mut acks = Acknowledgements::default();
        ["a", "b", "c"]
            .into_iter()
            .for_each(|id| acks.send(sent(id, Origin::Application)));
        assert_eq!(acks.acknowledge(Counter(2), drop), Ok(2));
        assert_eq!(ids(acks.unacknowledged().cloned()), ["c"]);
        assert_eq!(acks.acknowledge(Counter(2), drop), Ok(0), "an h may be repeated");
        assert_eq!(acks.waiting(), 1);
    }

    #[test]
    fn an_h_beyond_what_was_sent_or_below_what_was_acknowledged_is_an_error() {
        let mut acks = Acknowledgements::default();
        ["a", "b"]
            .into_iter()
            .for_each(|id| acks.send(sent(id, Origin::Application)));
        assert!(acks.acknowledge(Counter(3), drop).is_err());
        assert_eq!(acks.acknowledge(Counter(2), drop), Ok(2));
        assert!(acks.acknowledge(Counter(1), drop).is_err());
    }

    #[test]
    fn counters_wrap_at_2_to_the_32() {
        let almost = Counter(u32::MAX - 1);
        let mut acks = Acknowledgements {
            acknowledged: almost,
            received: Counter(u32::MAX),
            ..Default::default()
        };
        ["a", "b", "c"]
            .into_iter()
            .for_each(|id| acks.send(sent(id, Origin::Application)));
        assert_eq!(acks.acknowledge(Counter(0), drop), Ok(2));
        assert_eq!(ids(acks.unacknowledged().cloned()), ["c"]);
        acks.receive();
        assert_eq!(acks.received(), Counter(0));
    }

    #[test]
    fn only_the_applications_stanzas_go_back_to_it() {
        let mut acks = Acknowledgements::default();
        acks.send(sent("a", Origin::Application));
        acks.send(sent("b", Origin::Request));
        acks.send(sent("c", Origin::Answer));
        acks.send(sent("x", Origin::Delivery));
        acks.send(sent("y", Origin::Session));
        acks.send(sent("d", Origin::Application));
        assert_eq!(ids(acks.give_back()), ["a", "d"]);
    }
}
