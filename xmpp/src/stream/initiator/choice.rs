//! Which mechanism a client uses (RFC 6120 §6.3.3): the strongest that both sides have, and what after it failed.

use super::super::Features;
use crate::sasl::{BindingType, ChannelBindings, ClientBinding, Mechanism};

/// The mechanisms left to try on one stream.
#[derive(Default)]
pub(super) struct Choice {
    /// Strongest last.
    left: Vec<Mechanism>,
    /// The channel binding that `-PLUS` uses.
    kind: Option<BindingType>,
    /// The server offers `-PLUS`.
    plus_offered: bool,
}

impl Choice {
    /// From what the server offers on a stream over this channel, those which `acceptable` names. PLAIN needs TLS.
    pub(super) fn new(features: &Features, acceptable: &[Mechanism], tls: Option<&ChannelBindings>) -> Self {
        let offered: Vec<Mechanism> = features
            .mechanisms
            .iter()
            .filter_map(|name| Mechanism::from_name(name))
            .collect();
        // A server that does not say which types it knows (XEP-0440) is believed to know our best.
        let known = |kind: &BindingType| {
            features
                .bindings
                .as_ref()
                .is_none_or(|names| names.iter().any(|name| name == kind.name()))
        };
        let kind = tls.and_then(|bindings| bindings.kinds().find(known));
        let usable = |mechanism: &Mechanism| match mechanism {
            // Whoever wants to be nobody says so with its mechanisms.
            Mechanism::Anonymous => true,
            Mechanism::Plain => tls.is_some(),
            Mechanism::Scram { plus: true, .. } => kind.is_some(),
            Mechanism::Scram { plus: false, .. } => true,
        };
        let mut left: Vec<Mechanism> = offered
            .iter()
            .copied()
            .filter(|mechanism| acceptable.contains(mechanism) && usable(mechanism))
            .collect();
        left.sort_unstable();
        left.dedup();
        let plus_offered = features.mechanisms.iter().any(|name| name.ends_with("-PLUS"));
        Self {
            left,
            kind,
            plus_offered,
        }
    }

    /// The strongest that is left.
    pub(super) fn next(&mut self) -> Option<Mechanism> {
        self.left.pop()
    }

    /// `failed` did not get us in. An account may have keys for another hash function; but nobody who makes an exchange fail
    /// gets us to bind no channel, or to say the password itself.
    pub(super) fn fall_back_from(&mut self, failed: Mechanism) {
        self.left.retain(|mechanism| match (failed, mechanism) {
            (Mechanism::Scram { plus: failed, .. }, Mechanism::Scram { plus, .. }) => failed == *plus,
            _ => false,
        });
    }

    /// What the client says about channel binding.
    pub(super) fn binding<'a>(&self, mechanism: Mechanism, tls: Option<&'a ChannelBindings>) -> ClientBinding<'a> {
        let value = |kind| tls.and_then(|bindings| bindings.value(kind)).map(|value| (kind, value));
        match (mechanism, self.kind.and_then(value)) {
            (Mechanism::Scram { plus: true, .. }, Some((kind, value))) => ClientBinding::Bound(kind, value),
            (Mechanism::Scram { plus: false, .. }, _)
                if tls.is_some_and(|tls| !tls.is_empty()) && !self.plus_offered =>
            {
                ClientBinding::NotOffered
            }
            _ => ClientBinding::Unsupported,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(names: &[&str], bindings: Option<&[&str]>) -> Features {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Features {
            mechanisms: owned(names),
            bindings: bindings.map(owned),
            ..Features::default()
        }
    }

    /// The mechanisms a client tries one after the other when all fail.
    fn tried(features: &Features, tls: Option<&ChannelBindings>) -> Vec<&'static str> {
        let mut choice = Choice::new(features, &Mechanism::ALL, tls);
        let mut tried = Vec::new();
        while let Some(mechanism) = choice.next() {
            tried.push(mechanism.name());
            choice.fall_back_from(mechanism);
        }
        tried
    }

    const ALL: &[&str] = &[
        "PLAIN",
        "SCRAM-SHA-1",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-512",
        "X-OTHER",
    ];

    #[test]
    fn the_strongest_comes_first_whatever_the_servers_order() {
        let plain_tls = ChannelBindings::none();
        assert_eq!(
            tried(&offered(ALL, None), Some(&plain_tls)),
            ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1"]
        );
        assert_eq!(
            tried(&offered(ALL, None), None),
            ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1"]
        );
    }

    #[test]
    fn plain_is_never_said_in_the_clear() {
        assert!(tried(&offered(&["PLAIN"], None), None).is_empty());
        assert_eq!(
            tried(&offered(&["PLAIN"], None), Some(&ChannelBindings::none())),
            ["PLAIN"]
        );
    }

    #[test]
    fn a_bound_channel_is_preferred_and_not_given_up() {
        let channel = ChannelBindings::none().with_exporter([1; 32]);
        assert_eq!(tried(&offered(ALL, None), Some(&channel)), ["SCRAM-SHA-1-PLUS"]);
        assert_eq!(
            tried(&offered(ALL, Some(&["tls-exporter"])), Some(&channel)),
            ["SCRAM-SHA-1-PLUS"]
        );
        // The server says that it knows none of ours.
        assert_eq!(
            tried(&offered(ALL, Some(&["tls-unique"])), Some(&channel))[0],
            "SCRAM-SHA-512"
        );
    }

    #[test]
    fn the_flag_says_whether_plus_was_seen() {
        let channel = ChannelBindings::none().with_exporter([1; 32]);
        let flag = |features: &Features, tls| {
            Choice::new(features, &Mechanism::ALL, Some(tls)).binding(Mechanism::ALL[1], Some(tls))
                == ClientBinding::NotOffered
        };
        assert!(flag(&offered(&["SCRAM-SHA-1"], None), &channel));
        assert!(!flag(
            &offered(&["SCRAM-SHA-1", "SCRAM-SHA-1-PLUS"], Some(&["tls-unique"])),
            &channel
        ));
        assert!(!flag(&offered(&["SCRAM-SHA-1"], None), &ChannelBindings::none()));
    }

    #[test]
    fn only_what_the_client_accepts_is_tried() {
        let mut choice = Choice::new(
            &offered(ALL, None),
            &[Mechanism::ALL[1]],
            Some(&ChannelBindings::none()),
        );
        assert_eq!((choice.next(), choice.next()), (Some(Mechanism::ALL[1]), None));
    }
}
