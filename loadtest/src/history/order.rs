//! What one session sends to one address arrives in that order.
//!
//! An account and a resource of it are two addresses: what is for the account waits until a device is available, what is for the resource does
//! not (RFC 6121 §8.5).
//!
//! Judged by when the account, by whichever of its devices, received a message for the first time. A message that the device has sent in
//! several sessions may have come from any of them, so two messages are only compared when no session has sent them the other way round.

use std::collections::BTreeMap;

use super::{History, Violation, What, account};

/// Ids in the order they were sent, by session and recipient.
type Sent<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a str>>;

pub(super) fn check(history: &History, found: &mut Vec<Violation>) {
    let (mut sent, mut came) = (Sent::new(), BTreeMap::new());
    for (place, event) in history.events().iter().enumerate() {
        match &event.what {
            What::Sent { session, to, id, .. } => sent.entry((session, to)).or_default().push(id),
            What::Delivered { id, .. } => {
                came.entry((account(&event.by), id.as_str())).or_insert(place);
            }
            _ => {}
        }
    }
    for ((session, recipient), ids) in &sent {
        let mut latest: Option<(usize, &str)> = None;
        for id in ids {
            let Some(place) = came.get(&(account(recipient), *id)).copied() else {
                continue;
            };
            match latest {
                Some((before, later)) if place < before => {
                    if !sent_otherwise(&sent, recipient, later, id) {
                        found.push(Violation::Order {
                            session: (*session).to_owned(),
                            recipient: (*recipient).to_owned(),
                            // `later` was sent before `id`, and came after it.
                            earlier: later.to_owned(),
                            later: (*id).to_owned(),
                        });
                    }
                }
                _ => latest = Some((place, id)),
            }
        }
    }
}

/// Whether a session has sent `other` before `one`.
fn sent_otherwise(sent: &Sent<'_>, recipient: &str, one: &str, other: &str) -> bool {
    let of_recipient = sent.iter().filter(|((_, to), _)| *to == recipient);
    of_recipient.into_iter().any(|(_, ids)| {
        let place = |wanted: &str| ids.iter().position(|id| *id == wanted);
        matches!((place(one), place(other)), (Some(one), Some(other)) if other < one)
    })
}
