//! Requests of ours that wait for their answer.

use std::collections::HashMap;

use heronry_xmpp::{
    jid::{FullJid, Jid},
    stanza::Stanza,
};
use tokio::sync::oneshot;

/// What a waiting request gets: an iq of type result or error.
pub(crate) type Reply = oneshot::Sender<Stanza>;

/// Requests by their id.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    waiting: HashMap<Box<str>, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    to: Option<Jid>,
    reply: Reply,
}

impl Requests {
    /// A request is being sent. Handles let no more than [`requests_max`](crate::Limits::requests_max) wait at once; those
    /// whose deadline has passed are forgotten when there seem to be more.
    pub(crate) fn add(&mut self, id: Box<str>, to: Option<Jid>, reply: Reply, max: usize) {
        if self.waiting.len() >= max {
            self.waiting.retain(|_, request| !request.reply.is_closed());
        }
        self.waiting.insert(id, Waiting { to, reply });
    }

    /// An iq of type result or error has come. An id alone proves nothing, anybody can guess it: the answer must come from
    /// where the request went (RFC 6120 §8.2.3). What nobody waits for is dropped.
    pub(crate) fn answer(&mut self, answer: Stanza, own: &FullJid) {
        let Some(id) = answer.id.as_deref() else { return };
        let Some(waiting) = self.waiting.get(id) else { return };
        if !comes_from(answer.from.as_ref(), waiting.to.as_ref(), own) {
            return;
        }
        if let Some(waiting) = self.waiting.remove(id) {
            // An error here means that the deadline was faster.
            let _ = waiting.reply.send(answer);
        }
    }

    /// No answer will come any more.
    pub(crate) fn fail_all(&mut self) {
        self.waiting.clear();
    }
}

/// A request without `to` goes to our own account, and its answer comes from nobody, from the account or from ourselves
/// (RFC 6120 §8.1.2.1); some servers answer as their domain.
pub(crate) fn comes_from(from: Option<&Jid>, to: Option<&Jid>, own: &FullJid) -> bool {
    let account = own.bare();
    let of_own_account = |jid: &Jid| jid.as_str() == account.as_str() || jid.as_str() == own.as_str();
    match (from, to) {
        (Some(from), Some(to)) if from == to => true,
        (None, None) => true,
        (None, Some(to)) => of_own_account(to) || to.as_str() == own.domain(),
        (Some(from), None) => of_own_account(from) || from.as_str() == own.domain(),
        (Some(_), Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> Jid {
        Jid::parse(text).expect("an address")
    }

    #[test]
    fn requests_nobody_waits_for_are_forgotten() {
        let mut requests = Requests::default();
        let replies: Vec<_> = (0..3).map(|_| oneshot::channel()).collect();
        for (id, (reply, answer)) in replies.into_iter().enumerate() {
            drop(answer);
            requests.add(id.to_string().into(), None, reply, 2);
        }
        assert_eq!(requests.waiting.len(), 1);
    }

    #[test]
    fn an_answer_comes_from_where_the_request_went() {
        let own = FullJid::parse("romeo@montague.example/orchard").expect("an address");
        let comes_from = |from: &str, to: &str| {
            let address = |text: &str| (!text.is_empty()).then(|| jid(text));
            comes_from(address(from).as_ref(), address(to).as_ref(), &own)
        };
        for (from, to, expected) in [
            ("", "", true),
            ("romeo@montague.example", "", true),
            ("romeo@montague.example/orchard", "", true),
            ("montague.example", "", true),
            ("juliet@capulet.example/balcony", "", false),
            ("juliet@capulet.example/balcony", "juliet@capulet.example/balcony", true),
            ("juliet@capulet.example", "juliet@capulet.example/balcony", false),
            ("", "juliet@capulet.example/balcony", false),
            ("", "romeo@montague.example", true),
            ("", "montague.example", true),
            ("tybalt@capulet.example/x", "montague.example", false),
        ] {
            assert_eq!(
                comes_from(from, to),
                expected,
                "answer from {from:?} to a request to {to:?}"
            );
        }
    }
}
