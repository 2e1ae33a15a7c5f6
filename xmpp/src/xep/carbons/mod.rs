//! XEP-0280: Message Carbons. A resource that enabled them gets a copy of what the account's other resources send and receive.

pub mod forward;

use crate::feature::{Context, Feature, Payload, Said, Spec, Target};
use crate::stanza::{IqType, Kind, Stanza, StanzaError};
use crate::xml::Element;
pub(crate) use forward::{Direction, is_eligible, wrap};
use forward::{NS, NS_RULES};

/// Enables and disables carbons for the resource that asks.
#[derive(Debug)]
pub struct Carbons;

impl Feature for Carbons {
    fn spec(&self) -> &'static Spec {
        &Spec {
            document: "XEP-0280",
            title: "Message Carbons",
            version: "1.0.1",
            host_features: &[NS, NS_RULES],
            account_features: &[],
        }
    }

    fn payloads(&self) -> &'static [Payload] {
        &[
            Payload {
                name: "enable",
                namespace: NS,
            },
            Payload {
                name: "disable",
                namespace: NS,
            },
        ]
    }

    /// §4, §5: also when nothing changes.
    fn iq(&self, context: &mut Context<'_>, target: Target, request: &Stanza) -> Result<Option<Element>, StanzaError> {
        target.own_only()?;
        if request.kind != Kind::Iq(IqType::Set) {
            return Err(StanzaError::bad_request());
        }
        context.remember(Said::Carbons(request.is_payload("enable", NS)));
        Ok(None)
    }
}
