//! XEP-0030: Service Discovery, of the broker's domain and of accounts. Features are computed from the
//! [`Spec`]s of everything that is registered, so they cannot drift.

use std::collections::BTreeSet;

use crate::feature::{Context, Feature, Payload, Spec, Target};
use crate::jid::Jid;
use crate::sasl::is_anonymous;
use crate::stanza::{IqType, Kind, Stanza, StanzaError};
use crate::xml::Element;

/// Identities and features.
pub const NS_INFO: &str = "http://jabber.org/protocol/disco#info";
/// Items.
pub const NS_ITEMS: &str = "http://jabber.org/protocol/disco#items";

/// Answers disco#info and disco#items.
#[derive(Debug)]
pub struct Disco;

impl Feature for Disco {
    fn spec(&self) -> &'static Spec {
        &Spec {
            document: "XEP-0030",
            title: "Service Discovery",
            version: "2.5.0",
            host_features: &[NS_INFO, NS_ITEMS],
            account_features: &[NS_INFO, NS_ITEMS],
        }
    }

    fn payloads(&self) -> &'static [Payload] {
        &[
            Payload {
                name: "query",
                namespace: NS_INFO,
            },
            Payload {
                name: "query",
                namespace: NS_ITEMS,
            },
        ]
    }

    fn iq(&self, context: &mut Context<'_>, target: Target, request: &Stanza) -> Result<Option<Element>, StanzaError> {
        if request.kind != Kind::Iq(IqType::Get) {
            return Err(StanzaError::bad_request());
        }
        // RFC 6121 §8.5.1: what a stranger asks of an account is answered as if there were none.
        if target == Target::Other {
            return Err(StanzaError::service_unavailable());
        }
        let query = request.payload_element().map_err(|_| StanzaError::bad_request())?;
        let node = query.attr("node");
        if node.is_some_and(|node| !node.is_empty()) {
            return Err(StanzaError::item_not_found());
        }
        Ok(Some(if query.ns() == NS_ITEMS {
            items(context, target, request, node)
        } else {
            info(context, target, node)
        }))
    }
}

/// §4: of a domain, its pubsub service.
fn items(context: &Context<'_>, target: Target, request: &Stanza, node: Option<&str>) -> Element {
    let query = with_node(Element::new("query", NS_ITEMS), node);
    let domain = request.to.as_ref().filter(|_| target == Target::Host).map(Jid::domain);
    let services = context.config.pubsub_services.iter();
    let of_domain = services.filter(|service| domain.is_some() && service.split_once('.').map(|(_, of)| of) == domain);
    query.with_children(of_domain.map(|service| Element::new("item", NS_ITEMS).with_attr("jid", &**service)))
}

fn info(context: &Context<'_>, target: Target, node: Option<&str>) -> Element {
    let (category, kind) = match target {
        Target::Host => ("server", "im"),
        // XEP-0175 §5.
        Target::Own | Target::Other if is_anonymous(context.account) => ("account", "anonymous"),
        Target::Own | Target::Other => ("account", "registered"),
    };
    let identity = Element::new("identity", NS_INFO)
        .with_attr("category", category)
        .with_attr("type", kind);
    let identity = if target == Target::Host {
        identity.with_attr("name", "Heronry")
    } else {
        identity
    };
    let features: BTreeSet<&str> = context
        .config
        .features
        .iter()
        .filter(|feature| feature.is_on(context.config))
        .map(|feature| feature.spec())
        .flat_map(|spec| {
            if target == Target::Host {
                spec.host_features
            } else {
                spec.account_features
            }
        })
        .copied()
        .collect();
    features.into_iter().fold(
        with_node(Element::new("query", NS_INFO), node).with_child(identity),
        |query, feature| query.with_child(Element::new("feature", NS_INFO).with_attr("var", feature)),
    )
}

fn with_node(query: Element, node: Option<&str>) -> Element {
    match node {
        Some(node) => query.with_attr("node", node),
        None => query,
    }
}
