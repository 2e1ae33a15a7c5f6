//! What a server's listener offers its clients.

use super::super::features::Offer;
use crate::jid::BareJid;
use crate::sasl::{BindingType, ChannelBindings, Mechanism, ScramHash, UnknownUsers};
use crate::xml::Limits;

/// Whether streams are to be encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPolicy {
    /// There is no certificate: STARTTLS is not offered.
    Off,
    /// STARTTLS is offered, SCRAM works without.
    Optional,
    /// Nothing but STARTTLS works without TLS.
    Required,
}

/// What is the same for every client of a listener.
pub struct ResponderConfig {
    /// The domains that are served here, at least one; the first speaks for the server when a client names none of them.
    pub domains: Vec<BareJid>,
    /// The policy for connections that do not begin with TLS.
    pub tls: TlsPolicy,
    /// The mechanisms in the order of our preference. Of these a stream is offered what its state permits: `-PLUS` where there are
    /// channel bindings, PLAIN inside TLS, SCRAM and ANONYMOUS outside only when TLS is not required.
    pub mechanisms: Vec<Mechanism>,
    /// The only domain whose streams are offered ANONYMOUS; every domain when there is none.
    pub anonymous_domain: Option<BareJid>,
    /// PLAIN is offered without TLS too, where TLS is not required. Passwords travel in the clear then.
    pub plain_without_tls: bool,
    /// Accounts can be made on a stream and changed in a session (XEP-0077), with keys for these hash functions. Offered without
    /// TLS only where TLS is not required.
    pub registration: Option<Box<[ScramHash]>>,
    /// Stream management is offered (XEP-0198).
    pub management: bool,
    /// For frames before authentication.
    pub limits_before_auth: Limits,
    /// For frames after it.
    pub limits_after_auth: Limits,
    /// Failed authentications before the stream is closed, 2 to 5 (RFC 6120 §6.4.5).
    pub sasl_retries_max: u8,
    /// Refused resources before the stream is closed, 5 to 10 (RFC 6120 §7.7.3).
    pub bind_retries_max: u8,
    /// Top-level elements of one negotiation.
    pub elements_max: u16,
    /// Who is asked in place of accounts that do not exist.
    pub unknown_users: UnknownUsers,
}

impl ResponderConfig {
    /// The safe defaults: TLS required, every mechanism but ANONYMOUS, PLAIN inside TLS only.
    pub fn new(domains: Vec<BareJid>, unknown_users: UnknownUsers) -> Self {
        let mut mechanisms = Mechanism::ALL.to_vec();
        mechanisms.reverse();
        Self {
            domains,
            tls: TlsPolicy::Required,
            mechanisms,
            anonymous_domain: None,
            plain_without_tls: false,
            registration: None,
            management: true,
            limits_before_auth: Limits::before_auth(),
            limits_after_auth: Limits::after_auth(),
            sasl_retries_max: 3,
            bind_retries_max: 5,
            elements_max: 50,
            unknown_users,
        }
    }

    /// Whether a stream to `host` with this TLS channel may use the mechanism.
    pub(super) fn permits(&self, mechanism: Mechanism, tls: Option<&ChannelBindings>, host: &str) -> bool {
        let encrypted = tls.is_some();
        self.mechanisms.contains(&mechanism)
            && (encrypted || self.tls != TlsPolicy::Required)
            && match mechanism {
                Mechanism::Anonymous => {
                    let only = self.anonymous_domain.as_ref();
                    only.is_none_or(|only| only.domain() == host)
                }
                Mechanism::Plain => encrypted || self.plain_without_tls,
                Mechanism::Scram { plus: false, .. } => true,
                Mechanism::Scram { plus: true, .. } => tls.is_some_and(|bindings| !bindings.is_empty()),
            }
    }

    /// Whether a stream with this TLS channel may make an account.
    pub(super) fn registers(&self, tls: Option<&ChannelBindings>) -> bool {
        self.registration.is_some() && (tls.is_some() || self.tls != TlsPolicy::Required)
    }

    /// The bindings of the channel, when mechanisms that use them are offered.
    pub(super) fn bindings(&self, tls: Option<&ChannelBindings>) -> ChannelBindings {
        let plus = |mechanism: &Mechanism| matches!(mechanism, Mechanism::Scram { plus: true, .. });
        tls.filter(|_| self.mechanisms.iter().any(plus))
            .cloned()
            .unwrap_or_default()
    }

    /// Appends the features of a stream that has not authenticated (RFC 6120 §5.3.1, §6.4.1).
    pub(super) fn offer(&self, tls: Option<&ChannelBindings>, host: &str, out: &mut String) {
        let permitted = self
            .mechanisms
            .iter()
            .copied()
            .filter(|mechanism| self.permits(*mechanism, tls, host));
        let mechanisms: Vec<Mechanism> = permitted.collect();
        let bindings: Vec<BindingType> = self.bindings(tls).kinds().collect();
        let starttls = match (tls, self.tls) {
            (Some(_), _) | (None, TlsPolicy::Off) => None,
            (None, policy) => Some(policy == TlsPolicy::Required),
        };
        Offer {
            starttls,
            mechanisms: &mechanisms,
            bindings: &bindings,
            registration: self.registers(tls),
            ..Offer::default()
        }
        .write(out);
    }

    /// Appends the features of a stream that has (RFC 6120 §7.4).
    pub(super) fn offer_to_authenticated(&self, out: &mut String) {
        Offer {
            bind: true,
            management: self.management,
            ..Offer::default()
        }
        .write(out);
    }
}
