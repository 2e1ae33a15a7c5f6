//! RFC 6121 §8.5: which resources of an account get a stanza, and what happens when none does.

use crate::stanza::{MessageType, StanzaError};

/// A resource as the rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Resource<P> {
    /// Whatever the caller knows it by.
    pub place: P,
    /// Its presence priority, while available.
    pub priority: Option<i8>,
}

/// What is to be done with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition<P> {
    /// Give it to these resources.
    Deliver(Vec<P>),
    /// Keep it until a resource is available (XEP-0160).
    Store,
    /// Return an error.
    Bounce(StanzaError),
    /// Drop it without a word.
    Ignore,
}

/// The table of RFC 6121 §8.5.4. `addressed` is the resource a full JID matches; `resources` are all of the account, the most
/// recently bound last; `exists` says whether there is such an account at all.
pub fn message<P: Copy>(
    kind: MessageType,
    to_full: bool,
    addressed: Option<P>,
    resources: &[Resource<P>],
    exists: bool,
) -> Disposition<P> {
    if let Some(place) = addressed {
        return Disposition::Deliver(vec![place]);
    }
    let unavailable = || Disposition::Bounce(StanzaError::service_unavailable());
    match (kind, to_full) {
        (MessageType::Error, _) => Disposition::Ignore,
        (MessageType::Headline, false) => all(resources).unwrap_or(Disposition::Ignore),
        (MessageType::Groupchat, _) | (MessageType::Normal | MessageType::Headline, true) => unavailable(),
        (MessageType::Normal, false) | (MessageType::Chat, _) => most_available(resources)
            // §8.5.1: an unknown account is answered like one that stores nothing, with an error.
            .unwrap_or_else(|| if exists { Disposition::Store } else { unavailable() }),
    }
}

/// Presence without a type or of type unavailable, to the bare JID (§8.5.2.1.2): every available resource.
pub fn presence<P: Copy>(resources: &[Resource<P>]) -> Vec<P> {
    resources
        .iter()
        .filter(|resource| resource.priority.is_some())
        .map(|resource| resource.place)
        .collect()
}

/// §8.5.2.1.1, option (a): the highest priority that is not negative, the most recently bound among equals.
fn most_available<P: Copy>(resources: &[Resource<P>]) -> Option<Disposition<P>> {
    let best = resources
        .iter()
        .filter(|resource| resource.priority.is_some_and(|priority| priority >= 0));
    best.max_by_key(|resource| resource.priority)
        .map(|resource| Disposition::Deliver(vec![resource.place]))
}

fn all<P: Copy>(resources: &[Resource<P>]) -> Option<Disposition<P>> {
    let takers = resources
        .iter()
        .filter(|resource| resource.priority.is_some_and(|priority| priority >= 0));
    let takers: Vec<P> = takers.map(|resource| resource.place).collect();
    (!takers.is_empty()).then_some(Disposition::Deliver(takers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use MessageType::{Chat, Error, Groupchat, Headline, Normal};

    const NONE: &[Resource<u8>] = &[];
    const UNAVAILABLE: &[Resource<u8>] = &[Resource {
        place: 1,
        priority: None,
    }];
    const NEGATIVE: &[Resource<u8>] = &[Resource {
        place: 1,
        priority: Some(-1),
    }];
    const ONE: &[Resource<u8>] = &[Resource {
        place: 1,
        priority: Some(0),
    }];
    const THREE: &[Resource<u8>] = &[
        Resource {
            place: 1,
            priority: Some(5),
        },
        Resource {
            place: 2,
            priority: Some(5),
        },
        Resource {
            place: 3,
            priority: Some(-1),
        },
    ];

    fn bounce() -> Disposition<u8> {
        Disposition::Bounce(StanzaError::service_unavailable())
    }

    /// RFC 6121 §8.5.4, table 1, row by row: (resources, exists, to, [normal, chat, groupchat, headline]).
    #[test]
    fn the_table_of_message_delivery_rules() {
        use Disposition::{Deliver, Ignore, Store};
        let to = |places: &[u8]| Deliver(places.to_vec());
        let table = [
            (NONE, false, false, None, [bounce(), bounce(), bounce(), Ignore]),
            (NONE, false, true, None, [bounce(), bounce(), bounce(), bounce()]),
            (NONE, true, false, None, [Store, Store, bounce(), Ignore]),
            (NONE, true, true, None, [bounce(), Store, bounce(), bounce()]),
            (UNAVAILABLE, true, false, None, [Store, Store, bounce(), Ignore]),
            (NEGATIVE, true, false, None, [Store, Store, bounce(), Ignore]),
            (NEGATIVE, true, true, Some(1), [to(&[1]), to(&[1]), to(&[1]), to(&[1])]),
            (NEGATIVE, true, true, None, [bounce(), Store, bounce(), bounce()]),
            (ONE, true, false, None, [to(&[1]), to(&[1]), bounce(), to(&[1])]),
            (ONE, true, true, Some(1), [to(&[1]), to(&[1]), to(&[1]), to(&[1])]),
            (ONE, true, true, None, [bounce(), to(&[1]), bounce(), bounce()]),
            (THREE, true, false, None, [to(&[2]), to(&[2]), bounce(), to(&[1, 2])]),
            (THREE, true, true, None, [bounce(), to(&[2]), bounce(), bounce()]),
        ];
        for (resources, exists, to_full, addressed, expected) in table {
            for (kind, expected) in [Normal, Chat, Groupchat, Headline].into_iter().zip(expected) {
                let actual = message(kind, to_full, addressed, resources, exists);
                assert_eq!(
                    actual, expected,
                    "{kind:?} to {resources:?}, exists {exists}, full {to_full}"
                );
            }
        }
    }

    #[test]
    fn an_error_goes_to_the_resource_it_names_or_nowhere() {
        assert_eq!(message(Error, true, Some(1), ONE, true), Disposition::Deliver(vec![1]));
        assert_eq!(message(Error, true, None, ONE, true), Disposition::Ignore);
        assert_eq!(message(Error, false, None, ONE, true), Disposition::Ignore);
    }

    #[test]
    fn presence_goes_to_every_available_resource_whatever_its_priority() {
        assert_eq!(presence(THREE), [1, 2, 3]);
        assert_eq!(presence(UNAVAILABLE), [] as [u8; 0]);
    }
}
