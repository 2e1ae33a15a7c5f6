//! The messages under way: who waits for what until when. Pure bookkeeping, with the time as an argument.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use heronry_xmpp::{
    jid::{FullJid, Jid},
    stanza::{ErrorType, Stanza, StanzaError},
};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

use super::{Failure, Outcome};

/// First wait after an error that passes, when nothing else says how long to wait.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Messages by the order in which they were accepted.
#[derive(Debug, Default)]
pub(super) struct Table {
    waiting: BTreeMap<u64, Waiting>,
    numbers: HashMap<Box<str>, u64>,
    /// To be sent in this session, for the first time or again.
    unsent: BTreeSet<u64>,
    /// When something is due for whom.
    due: BTreeSet<(Instant, u64)>,
    next: u64,
}

#[derive(Debug)]
struct Waiting {
    stanza: Stanza,
    deadline: Instant,
    /// When it is sent again in the same session, and how long the wait after that is.
    resend: Option<(Instant, Duration)>,
    resend_after: Option<Duration>,
    /// The server has acknowledged it in this session.
    stored: bool,
    /// The last error that passes.
    error: Option<Box<StanzaError>>,
    outcome: oneshot::Sender<Outcome>,
    _room: OwnedSemaphorePermit,
}

impl Waiting {
    fn due(&self) -> Instant {
        self.resend.map_or(self.deadline, |(at, _)| at.min(self.deadline))
    }

    /// What is to be told when it is over and nobody has confirmed it.
    fn unconfirmed(&mut self, failure: Failure) -> Outcome {
        match self.error.take() {
            _ if self.stored => Outcome::Stored,
            Some(error) => Outcome::Failed(Failure::Refused(error)),
            None => Outcome::Failed(failure),
        }
    }
}

impl Table {
    /// A message that is to be sent. `None` when one with its id is under way.
    pub(super) fn add(
        &mut self,
        stanza: Stanza,
        deadline: Instant,
        resend_after: Option<Duration>,
        room: OwnedSemaphorePermit,
    ) -> Option<oneshot::Receiver<Outcome>> {
        let id = stanza.id.clone()?;
        if self.numbers.contains_key(&id) {
            return None;
        }
        let number = self.next;
        self.next += 1;
        let (outcome, told) = oneshot::channel();
        self.numbers.insert(id, number);
        self.unsent.insert(number);
        self.due.insert((deadline, number));
        let waiting = Waiting {
            stanza,
            deadline,
            resend: None,
            resend_after,
            stored: false,
            error: None,
            outcome,
            _room: room,
        };
        self.waiting.insert(number, waiting);
        Some(told)
    }

    /// The next message to be sent, which counts as sent from now on.
    pub(super) fn take_unsent(&mut self, now: Instant) -> Option<Stanza> {
        let number = self.unsent.pop_first()?;
        let waiting = self.waiting.get_mut(&number)?;
        let stanza = waiting.stanza.clone();
        let wait = waiting.resend.map(|(_, wait)| wait).or(waiting.resend_after);
        // Each wait is twice as long as the one before: a recipient that is away for long finds few copies.
        self.set_resend(number, wait.map(|wait| (now + wait, wait * 2)));
        Some(stanza)
    }

    /// Whether [`take_unsent`](Self::take_unsent) would give one.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The server has acknowledged a message.
    pub(super) fn acknowledged(&mut self, id: &str) {
        if let Some(waiting) = self.numbers.get(id).and_then(|number| self.waiting.get_mut(number)) {
            waiting.stored = true;
        }
    }

    /// A new session: the server may be another one, or may have forgotten.
    pub(super) fn begin_session(&mut self) {
        self.unsent.extend(self.waiting.keys());
        let numbers: Vec<_> = self.waiting.keys().copied().collect();
        for number in numbers {
            if let Some(waiting) = self.waiting.get_mut(&number) {
                waiting.stored = false;
            }
            self.set_resend(number, None);
        }
    }

    /// A receipt came. False when it is for no message of ours, or from somebody else.
    pub(super) fn received(&mut self, id: &str, by: &Jid) -> bool {
        let Some((number, waiting)) = self.find(id) else {
            return false;
        };
        if waiting
            .stanza
            .to
            .as_ref()
            .is_none_or(|to| to.bare_str() != by.bare_str())
        {
            return false;
        }
        self.finish(number, |_| Outcome::Delivered { by: by.clone() });
        true
    }

    /// An error came. False when it is for no message of ours, or from nobody who could know.
    pub(super) fn refused(
        &mut self,
        id: &str,
        by: Option<&Jid>,
        error: StanzaError,
        own: &FullJid,
        now: Instant,
    ) -> bool {
        let Some((number, waiting)) = self.find(id) else {
            return false;
        };
        let speaks_for = |by: &Jid, to: &Jid| {
            let of_recipient = by.bare_str() == to.bare_str() || by.as_str() == to.domain();
            let of_ours = by.as_str() == own.bare_str() || by.as_str() == own.domain();
            of_recipient || of_ours
        };
        if by
            .zip(waiting.stanza.to.as_ref())
            .is_some_and(|(by, to)| !speaks_for(by, to))
        {
            return false;
        }
        if error.type_ == ErrorType::Wait {
            let wait = waiting.resend.map_or(RETRY_AFTER, |(_, wait)| wait);
            if let Some(waiting) = self.waiting.get_mut(&number) {
                waiting.error = Some(Box::new(error));
                waiting.stored = false;
            }
            self.set_resend(number, Some((now + wait, wait * 2)));
        } else {
            self.finish(number, |_| Outcome::Failed(Failure::Refused(Box::new(error))));
        }
        true
    }

    /// Ends what is over and marks what is to be sent again. Says whether there is something to send.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        while let Some(&(due, number)) = self.due.first()
            && due <= now
        {
            self.due.pop_first();
            let Some(waiting) = self.waiting.get_mut(&number) else {
                continue;
            };
            if waiting.deadline <= now {
                self.finish(number, |waiting| waiting.unconfirmed(Failure::Deadline));
                continue;
            }
            self.unsent.insert(number);
            self.due.insert((waiting.deadline, number));
            // The wait is kept for the time after the sending.
            waiting.resend = waiting.resend.map(|(_, wait)| (waiting.deadline, wait));
        }
        self.has_unsent()
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Nothing will be sent or received any more.
    pub(super) fn end(&mut self) {
        let numbers: Vec<_> = self.waiting.keys().copied().collect();
        for number in numbers {
            self.finish(number, |waiting| waiting.unconfirmed(Failure::Disconnected));
        }
    }

    fn find(&self, id: &str) -> Option<(u64, &Waiting)> {
        let number = *self.numbers.get(id)?;
        Some((number, self.waiting.get(&number)?))
    }

    fn set_resend(&mut self, number: u64, resend: Option<(Instant, Duration)>) {
        let Some(waiting) = self.waiting.get_mut(&number) else {
            return;
        };
        self.due.remove(&(waiting.due(), number));
        waiting.resend = resend;
        self.due.insert((waiting.due(), number));
    }

    fn finish(&mut self, number: u64, outcome: impl FnOnce(&mut Waiting) -> Outcome) {
        let Some(mut waiting) = self.waiting.remove(&number) else {
            return;
        };
        self.due.remove(&(waiting.due(), number));
        self.unsent.remove(&number);
        if let Some(id) = &waiting.stanza.id {
            self.numbers.remove(id);
        }
        let outcome = outcome(&mut waiting);
        // An error means that nobody wants to know.
        let _ = waiting.outcome.send(outcome);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    struct World {
        table: Table,
        room: Arc<Semaphore>,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            Self {
                table: Table::default(),
                room: Arc::new(Semaphore::new(8)),
                now: Instant::now(),
            }
        }

        fn add(&mut self, id: &str, resend_after: Option<Duration>) -> oneshot::Receiver<Outcome> {
            let room = self.room.clone().try_acquire_owned().expect("room");
            let stanza = crate::message(jid("juliet@capulet.example"), "hi").with_id(id);
            self.table
                .add(stanza, self.now + 10 * MINUTE, resend_after, room)
                .expect("a new id")
        }

        fn sent(&mut self) -> Vec<String> {
            std::iter::from_fn(|| self.table.take_unsent(self.now))
                .filter_map(|stanza| stanza.id)
                .map(String::from)
                .collect()
        }

        fn after(&mut self, time: Duration) -> Vec<String> {
            self.now += time;
            self.table.expire(self.now);
            self.sent()
        }
    }

    fn jid(text: &str) -> Jid {
        Jid::parse(text).expect("address")
    }

    fn own() -> FullJid {
        FullJid::parse("romeo@montague.example/orchard").expect("address")
    }

    fn told(outcome: &mut oneshot::Receiver<Outcome>) -> Option<Outcome> {
        outcome.try_recv().ok()
    }

    #[test]
    fn a_receipt_of_the_recipient_ends_the_delivery_and_gives_its_room_back() {
        let mut world = World::new();
        let mut outcome = world.add("a", None);
        assert_eq!(world.sent(), ["a"]);
        assert!(!world.table.received("b", &jid("juliet@capulet.example/balcony")));
        assert!(!world.table.received("a", &jid("tybalt@capulet.example/x")));
        assert_eq!((told(&mut outcome), world.room.available_permits()), (None, 7));
        let by = jid("juliet@capulet.example/balcony");
        assert!(world.table.received("a", &by));
        assert_eq!(told(&mut outcome), Some(Outcome::Delivered { by: by.clone() }));
        assert_eq!((world.room.available_permits(), world.table.next_due()), (8, None));
        assert!(!world.table.received("a", &by), "once");
    }

    #[test]
    fn at_the_deadline_it_matters_whether_the_server_has_it() {
        let mut world = World::new();
        let (mut stored, mut lost) = (world.add("stored", None), world.add("lost", None));
        world.sent();
        world.table.acknowledged("stored");
        world.after(9 * MINUTE);
        assert_eq!((told(&mut stored), told(&mut lost)), (None, None));
        world.after(MINUTE);
        assert_eq!(told(&mut stored), Some(Outcome::Stored));
        assert_eq!(told(&mut lost), Some(Outcome::Failed(Failure::Deadline)));
    }

    #[test]
    fn a_new_session_sends_everything_again_in_order_and_believes_no_earlier_acknowledgement() {
        let mut world = World::new();
        let mut outcomes: Vec<_> = ["c", "b", "a"].map(|id| world.add(id, None)).into();
        assert_eq!(world.sent(), ["c", "b", "a"]);
        world.table.acknowledged("b");
        world.table.received("c", &jid("juliet@capulet.example/x"));
        world.table.begin_session();
        assert_eq!(world.sent(), ["b", "a"]);
        world.table.end();
        assert_eq!(told(&mut outcomes[1]), Some(Outcome::Failed(Failure::Disconnected)));
    }

    #[test]
    fn what_is_not_confirmed_is_sent_again_after_waits_that_double() {
        let mut world = World::new();
        let _outcome = world.add("a", Some(MINUTE));
        assert_eq!(world.sent(), ["a"]);
        assert!(world.after(MINUTE / 2).is_empty());
        assert_eq!(world.after(MINUTE / 2), ["a"]);
        assert!(world.after(MINUTE).is_empty());
        assert_eq!(world.after(MINUTE), ["a"]);
        assert!(world.after(3 * MINUTE).is_empty());
        assert_eq!(world.after(MINUTE), ["a"]);
    }

    #[test]
    fn an_error_that_passes_is_tried_again_and_told_at_the_deadline() {
        let mut world = World::new();
        let mut outcome = world.add("a", None);
        world.sent();
        world.table.acknowledged("a");
        let full = StanzaError::resource_constraint();
        assert_eq!(full.type_, ErrorType::Wait);
        let from = jid("juliet@capulet.example");
        assert!(world.table.refused("a", Some(&from), full.clone(), &own(), world.now));
        assert_eq!(told(&mut outcome), None);
        assert_eq!(world.after(RETRY_AFTER), ["a"]);
        world.after(10 * MINUTE);
        assert_eq!(
            told(&mut outcome),
            Some(Outcome::Failed(Failure::Refused(Box::new(full))))
        );
    }

    #[test]
    fn an_error_that_does_not_pass_is_told_at_once_when_it_comes_from_one_who_knows() {
        for (from, believed) in [
            (Some("juliet@capulet.example"), true),
            (Some("juliet@capulet.example/balcony"), true),
            (Some("capulet.example"), true),
            (Some("montague.example"), true),
            (Some("romeo@montague.example"), true),
            (None, true),
            (Some("tybalt@capulet.example"), false),
            (Some("elsewhere.example"), false),
        ] {
            let mut world = World::new();
            let mut outcome = world.add("a", None);
            world.sent();
            let error = StanzaError::service_unavailable();
            let from = from.map(jid);
            assert_eq!(
                world
                    .table
                    .refused("a", from.as_ref(), error.clone(), &own(), world.now),
                believed,
                "{from:?}"
            );
            let failed = Outcome::Failed(Failure::Refused(Box::new(error)));
            assert_eq!(told(&mut outcome), believed.then_some(failed));
        }
    }

    #[test]
    fn two_messages_with_one_id_are_not_under_way_together() {
        let mut world = World::new();
        let _outcome = world.add("a", None);
        let room = world.room.clone().try_acquire_owned().expect("room");
        let again = crate::message(jid("juliet@capulet.example"), "hi").with_id("a");
        assert!(world.table.add(again, world.now, None, room).is_none());
    }
}
