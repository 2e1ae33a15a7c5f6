//! What an extension tells the broker about itself, and all it may see and cause.
//!
//! A feature is a plain function: a request, rows and the time in; writes, a reply and consequences out. It never waits and never
//! sends.
//! disco#info, the README's table of extensions and the DOAP file are computed from [`Spec`]s.

mod consequence;
mod context;

pub use consequence::{Audience, Consequence, Said};
pub use context::Context;

use crate::shard::Config;
use crate::stanza::{Stanza, StanzaError};
use crate::xml::Element;

/// What a feature is: its line in disco, in the README and in the DOAP file.
#[derive(Debug)]
pub struct Spec {
    /// The document, such as `XEP-0199` or `RFC 6121`.
    pub document: &'static str,
    /// The document's title.
    pub title: &'static str,
    /// The version of the document that is implemented; empty for an RFC.
    pub version: &'static str,
    /// What the broker's domain advertises (XEP-0030).
    pub host_features: &'static [&'static str],
    /// What an account's bare JID advertises.
    pub account_features: &'static [&'static str],
}

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The broker itself: the request went to its domain. Answered in the sender's account, so no shard is hot.
    Host,
    /// The sender's own account: no `to`, or its bare JID (RFC 6120 §10.3.3).
    Own,
    /// Another account's bare JID (RFC 6121 §8.5.2.1.3): its server answers on its behalf.
    Other,
}

impl Target {
    /// For what only the account itself may see and change.
    ///
    /// # Errors
    /// `forbidden` to another account (RFC 6121 §2.3.3), `service-unavailable` when the broker is asked.
    pub fn own_only(self) -> Result<(), StanzaError> {
        match self {
            Self::Own => Ok(()),
            Self::Other => Err(StanzaError::forbidden()),
            Self::Host => Err(StanzaError::service_unavailable()),
        }
    }
}

/// A child of an iq that a feature answers, by expanded name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The element's local name.
    pub name: &'static str,
    /// Its namespace.
    pub namespace: &'static str,
}

/// One extension, serving accounts and the broker's domain.
pub trait Feature: Sync + std::fmt::Debug {
    /// What the feature is.
    fn spec(&self) -> &'static Spec;

    /// Whether the broker's settings have it. Otherwise it answers nothing and is not advertised.
    fn is_on(&self, _config: &Config) -> bool {
        true
    }

    /// The requests that come to [`Self::iq`].
    fn payloads(&self) -> &'static [Payload];

    /// Answers an iq of type get or set with the content of its result.
    ///
    /// # Errors
    /// What the requester is told instead; the writes made so far are dropped.
    fn iq(&self, context: &mut Context<'_>, target: Target, request: &Stanza) -> Result<Option<Element>, StanzaError>;
}

/// The feature that answers `request`: the first one wins.
pub(crate) fn answering(config: &Config, request: &Stanza) -> Option<&'static dyn Feature> {
    let answers = |feature: &&dyn Feature| {
        feature
            .payloads()
            .iter()
            .any(|payload| request.is_payload(payload.name, payload.namespace))
    };
    let mut features = config.features.iter().copied();
    features.find(|feature| answers(feature) && feature.is_on(config))
}
