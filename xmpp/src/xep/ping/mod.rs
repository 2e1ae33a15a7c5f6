//! XEP-0199: XMPP Ping.

use crate::feature::{Context, Feature, Payload, Spec, Target};
use crate::stanza::{IqType, Kind, Stanza, StanzaError};
use crate::xml::Element;

/// The namespace of XEP-0199.
pub const NS: &str = "urn:xmpp:ping";

/// Answers pings to the broker and on behalf of accounts (XEP-0199 §4.1, §4.2).
#[derive(Debug)]
pub struct Ping;

impl Feature for Ping {
    fn spec(&self) -> &'static Spec {
        &Spec {
            document: "XEP-0199",
            title: "XMPP Ping",
            version: "2.0.1",
            host_features: &[NS],
            account_features: &[NS],
        }
    }

    fn payloads(&self) -> &'static [Payload] {
        &[Payload {
            name: "ping",
            namespace: NS,
        }]
    }

    fn iq(&self, _: &mut Context<'_>, _: Target, request: &Stanza) -> Result<Option<Element>, StanzaError> {
        match request.kind {
            Kind::Iq(IqType::Get) => Ok(None),
            _ => Err(StanzaError::bad_request()),
        }
    }
}
