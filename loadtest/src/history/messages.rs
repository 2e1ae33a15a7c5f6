//! Nothing acknowledged is lost, nothing is invented, nothing comes twice to one session, and repeats carry their id.

use std::collections::{BTreeMap, BTreeSet};

use super::{Event, History, Violation, What, account};

/// How much happened: for a test that wants to know that something did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Messages that were sent.
    pub sent: usize,
    /// Of those: acknowledged.
    pub acknowledged: usize,
    /// Of those: received at least once.
    pub delivered: usize,
    /// Of those: came back as errors.
    pub refused: usize,
    /// Of those: received more than once.
    pub repeated: usize,
    /// Rows were read or written so often, with an answer that is no error.
    pub returned: usize,
}

impl Summary {
    /// Counts what happened.
    pub fn of(history: &History) -> Self {
        let messages = Messages::of(history, &mut Vec::new());
        let count = |is: fn(&Message<'_>) -> bool| messages.0.values().filter(|message| is(message)).count();
        let answered = |event: &&Event| matches!(&event.what, What::Returned { returned, .. } if *returned != super::Returned::Failed);
        Self {
            sent: messages.0.len(),
            acknowledged: count(|message| message.acknowledged),
            delivered: count(|message| !message.delivered.is_empty()),
            refused: count(|message| message.refused),
            repeated: count(|message| message.delivered.values().sum::<usize>() > 1),
            returned: history.events().iter().filter(answered).count(),
        }
    }
}

/// What became of a message.
struct Message<'a> {
    by: &'a str,
    to: &'a str,
    body: &'a str,
    /// In which sessions it was sent.
    sessions: BTreeSet<&'a str>,
    acknowledged: bool,
    refused: bool,
    stored: bool,
    /// How often it was received, by device and session.
    delivered: BTreeMap<(&'a str, &'a str), usize>,
}

/// By id.
struct Messages<'a>(BTreeMap<&'a str, Message<'a>>);

pub(super) fn check(history: &History, found: &mut Vec<Violation>) {
    let messages = Messages::of(history, found);
    for (id, message) in &messages.0 {
        if message.acknowledged && message.delivered.is_empty() && !message.refused && !message.stored {
            found.push(Violation::Lost {
                id: (*id).to_owned(),
                from: message.by.to_owned(),
                to: message.to.to_owned(),
            });
        }
        for ((by, session), times) in &message.delivered {
            if *times > message.sessions.len() {
                found.push(Violation::Repeated {
                    id: (*id).to_owned(),
                    by: (*by).to_owned(),
                    session: (*session).to_owned(),
                    times: *times,
                    sent: message.sessions.len(),
                });
            }
        }
    }
}

impl<'a> Messages<'a> {
    fn of(history: &'a History, found: &mut Vec<Violation>) -> Self {
        let mut messages = Self(BTreeMap::new());
        // By body: who comes without its id is found all the same.
        let mut bodies = BTreeMap::new();
        for Event { by, what, .. } in history.events() {
            match what {
                What::Sent { session, to, id, body } => {
                    bodies.insert(body.as_str(), id.as_str());
                    messages.sent(by, session, to, id, body, found);
                }
                What::Acknowledged { id } => match messages.of_sender(by, id) {
                    Some(message) => message.acknowledged = true,
                    None => found.push(unsent(by, id, "acknowledged")),
                },
                What::Refused { id, .. } => match messages.of_sender(by, id) {
                    Some(message) => message.refused = true,
                    None => found.push(unsent(by, id, "refused")),
                },
                What::Delivered {
                    session,
                    from,
                    id,
                    body,
                } => {
                    let sent = bodies.get(body.as_str()).copied();
                    messages.delivered(by, session, (from, id, body), sent, found);
                }
                What::Stored { id } => match messages.0.get_mut(id.as_str()) {
                    Some(message) => message.stored = true,
                    None => found.push(invented(by, id, "it is stored, and nobody has sent it")),
                },
                What::Called { .. } | What::Returned { .. } | What::Leads { .. } | What::Rows { .. } => {}
            }
        }
        messages
    }

    fn sent(
        &mut self,
        by: &'a str,
        session: &'a str,
        to: &'a str,
        id: &'a str,
        body: &'a str,
        found: &mut Vec<Violation>,
    ) {
        let message = self.0.entry(id).or_insert_with(|| Message {
            by,
            to,
            body,
            sessions: BTreeSet::new(),
            acknowledged: false,
            refused: false,
            stored: false,
            delivered: BTreeMap::new(),
        });
        if (message.by, message.to, message.body) != (by, to, body) {
            found.push(Violation::Nonsense(format!("two messages have the id {id}")));
        } else if !message.sessions.insert(session) {
            found.push(Violation::Nonsense(format!(
                "message {id} is sent twice in session {session}"
            )));
        }
    }

    fn of_sender(&mut self, by: &str, id: &str) -> Option<&mut Message<'a>> {
        self.0.get_mut(id).filter(|message| message.by == by)
    }

    fn delivered(
        &mut self,
        by: &'a str,
        session: &'a str,
        (from, id, body): (&str, &str, &str),
        sent: Option<&str>,
        found: &mut Vec<Violation>,
    ) {
        let Some(message) = self.0.get_mut(id) else {
            found.push(match sent {
                Some(sent) => Violation::OtherId {
                    sent: sent.to_owned(),
                    carried: id.to_owned(),
                    by: by.to_owned(),
                },
                None => invented(by, id, "nobody has sent it"),
            });
            return;
        };
        let wrong = [
            (message.body != body, "its text is another"),
            (account(message.by) != account(from), "its sender is another"),
            (account(message.to) != account(by), "it is for another account"),
        ];
        match wrong.into_iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, why)) => found.push(invented(by, id, why)),
            None => *message.delivered.entry((by, session)).or_default() += 1,
        }
    }
}

fn invented(by: &str, id: &str, why: &'static str) -> Violation {
    Violation::Invented {
        id: id.to_owned(),
        by: by.to_owned(),
        why,
    }
}

fn unsent(by: &str, id: &str, told: &'static str) -> Violation {
    Violation::Unsent {
        id: id.to_owned(),
        by: by.to_owned(),
        told,
    }
}
