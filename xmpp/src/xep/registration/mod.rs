//! XEP-0077: In-Band Registration, when the configuration has it.
//!
//! Three parts do it. Before authentication the stream offers it and the edge asks the account's shard
//! ([`ToShard::Register`](crate::link::ToShard::Register)). After it the edge takes the new password out of a request and puts
//! keys in its place ([`Finding::NewPassword`](crate::link::Finding::NewPassword)), so that no password comes to a shard and none
//! is hashed there. Removal is the shard's own. What is left for the feature is to say what is on file.

mod payload;

pub(crate) use payload::{fields, is_removal, new_password, registration};

use crate::feature::{Context, Feature, Payload, Spec, Target};
use crate::jid::BareJid;
use crate::shard::Config;
use crate::stanza::{IqType, Kind, Stanza, StanzaError};
use crate::xml::Element;

/// The namespace of XEP-0077.
pub const NS: &str = "jabber:iq:register";

/// The namespace of its stream feature (§8).
pub const NS_FEATURE: &str = "http://jabber.org/features/iq-register";

/// Says what is on file for an account.
#[derive(Debug)]
pub struct Registration;

impl Feature for Registration {
    fn spec(&self) -> &'static Spec {
        &Spec {
            document: "XEP-0077",
            title: "In-Band Registration",
            version: "2.4",
            host_features: &[NS],
            account_features: &[],
        }
    }

    fn is_on(&self, config: &Config) -> bool {
        config.registration
    }

    fn payloads(&self) -> &'static [Payload] {
        &[Payload {
            name: "query",
            namespace: NS,
        }]
    }

    fn iq(&self, context: &mut Context<'_>, target: Target, request: &Stanza) -> Result<Option<Element>, StanzaError> {
        if target == Target::Other || !is_for_server_of(context.account, request) {
            return Err(StanzaError::service_unavailable());
        }
        match request.kind {
            Kind::Iq(IqType::Get) => Ok(Some(payload::registered(context.account))),
            // The edge takes out what can be done.
            _ => Err(StanzaError::bad_request()),
        }
    }
}

/// Whether a request is one of XEP-0077.
pub(crate) fn is_request(request: &Stanza) -> bool {
    request.is_payload("query", NS)
}

/// Whether a request of an account is for its own server: to nobody, to the account itself, or to its domain.
pub(crate) fn is_for_server_of(account: &BareJid, request: &Stanza) -> bool {
    let to = request.to.as_ref().map(|to| to.as_str());
    to.is_none_or(|to| to == account.domain() || to == account.as_str())
}

/// Whether it asks for the account to be removed.
pub(crate) fn asks_for_removal(request: &Stanza) -> bool {
    request.payload_element().is_ok_and(|query| payload::is_removal(&query))
}

/// Whether a request to remove an account is that and nothing else (§3.2).
pub(crate) fn asks_for_nothing_else(request: &Stanza) -> bool {
    request
        .payload_element()
        .is_ok_and(|query| query.children().count() == 1)
}
