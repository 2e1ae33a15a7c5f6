//! XEP-0092: Software Version.

use crate::feature::{Context, Feature, Payload, Spec, Target};
use crate::stanza::{IqType, Kind, Stanza, StanzaError};
use crate::xml::Element;

/// The namespace of XEP-0092.
pub const NS: &str = "jabber:iq:version";

/// Says which software this is; never on which operating system (XEP-0092 §5).
#[derive(Debug)]
pub struct SoftwareVersion;

impl Feature for SoftwareVersion {
    fn spec(&self) -> &'static Spec {
        &Spec {
            document: "XEP-0092",
            title: "Software Version",
            version: "1.1",
            host_features: &[NS],
            account_features: &[],
        }
    }

    fn payloads(&self) -> &'static [Payload] {
        &[Payload {
            name: "query",
            namespace: NS,
        }]
    }

    fn iq(&self, context: &mut Context<'_>, target: Target, request: &Stanza) -> Result<Option<Element>, StanzaError> {
        if target != Target::Host {
            return Err(StanzaError::service_unavailable());
        }
        if request.kind != Kind::Iq(IqType::Get) {
            return Err(StanzaError::not_allowed());
        }
        Ok(Some(
            Element::new("query", NS)
                .with_child(Element::new("name", NS).with_text("Heronry"))
                .with_child(Element::new("version", NS).with_text(context.config.version)),
        ))
    }
}
