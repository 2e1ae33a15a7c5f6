//! RFC 3921 §3: session establishment, which RFC 6121 made a no-op. Advertised as optional for older libraries.

use crate::feature::{Context, Feature, Payload, Spec, Target};
use crate::stanza::{IqType, Kind, Stanza, StanzaError};
use crate::xml::Element;

/// The namespace of RFC 3921 §3.
pub const NS: &str = "urn:ietf:params:xml:ns:xmpp-session";

/// Says that there is nothing to do.
#[derive(Debug)]
pub struct SessionEstablishment;

impl Feature for SessionEstablishment {
    fn spec(&self) -> &'static Spec {
        &Spec {
            document: "RFC 3921",
            title: "Session establishment (optional)",
            version: "",
            host_features: &[],
            account_features: &[],
        }
    }

    fn payloads(&self) -> &'static [Payload] {
        &[Payload {
            name: "session",
            namespace: NS,
        }]
    }

    fn iq(&self, _: &mut Context<'_>, target: Target, request: &Stanza) -> Result<Option<Element>, StanzaError> {
        match (target, request.kind) {
            (Target::Host | Target::Own, Kind::Iq(IqType::Set)) => Ok(None),
            _ => Err(StanzaError::service_unavailable()),
        }
    }
}
