//! XEP-0049: Private XML Storage. An account keeps elements of its own, one per expanded name.

use std::collections::BTreeSet;

use crate::feature::{Context, Feature, Payload, Spec, Target};
use crate::rows::{Key, Table, account_key};
use crate::stanza::{IqType, Kind, Stanza, StanzaError};
use crate::xml::{Element, Limits};

/// The namespace of XEP-0049.
pub const NS: &str = "jabber:iq:private";

/// How many elements one request may set.
const ELEMENTS_MAX: usize = 16;

/// Stores and returns the account's own elements.
#[derive(Debug)]
pub struct PrivateXml;

impl Feature for PrivateXml {
    fn spec(&self) -> &'static Spec {
        &Spec {
            document: "XEP-0049",
            title: "Private XML Storage",
            version: "1.2",
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
        target.own_only()?;
        let query = request.payload_element().map_err(|_| StanzaError::bad_request())?;
        match request.kind {
            Kind::Iq(IqType::Set) => set(context, &query).map(|()| None),
            _ => get(context, &query).map(Some),
        }
    }
}

fn set(context: &mut Context<'_>, query: &Element) -> Result<(), StanzaError> {
    let elements: Vec<&Element> = query.children().collect();
    if elements.is_empty() {
        return Err(StanzaError::not_acceptable().with_text("there is no element to store"));
    }
    if elements.len() > ELEMENTS_MAX {
        return Err(StanzaError::resource_constraint().with_text("too many elements in one request"));
    }
    if elements.iter().any(|element| reserved(element.ns())) {
        return Err(StanzaError::not_acceptable().with_text("an element needs a namespace of its own"));
    }
    let max = context.config.limits.private_elements_max;
    let prefix = account_key(Table::PrivateXml, context.account.as_str(), &[]);
    let stored: BTreeSet<Key> = context
        .scan(&prefix, &prefix, max)?
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    let keys: BTreeSet<Key> = elements.iter().map(|element| element_key(context, element)).collect();
    if stored.union(&keys).count() > max {
        return Err(StanzaError::resource_constraint().with_text("this account stores too many elements"));
    }
    for element in elements {
        context.put(element_key(context, element), element.to_bytes());
    }
    Ok(())
}

fn get(context: &Context<'_>, query: &Element) -> Result<Element, StanzaError> {
    let mut asked = query.children();
    let (Some(asked), None) = (asked.next(), asked.next()) else {
        return Err(StanzaError::not_acceptable().with_text("one element is asked for at a time"));
    };
    let stored = match context.row(&element_key(context, asked))? {
        Some(xml) => Element::parse(&xml, &Limits::after_auth()).map_err(|_| StanzaError::internal_server_error())?,
        None => Element::new(asked.name().to_owned(), asked.ns().to_owned()),
    };
    Ok(Element::new("query", NS).with_child(stored))
}

/// XEP-0049 §3: namespaces that belong to XMPP itself are not for private data.
fn reserved(namespace: &str) -> bool {
    namespace.is_empty() || namespace == NS || namespace == "jabber:client" || namespace == "jabber:server"
}

fn element_key(context: &Context<'_>, element: &Element) -> Key {
    let mut rest = Vec::with_capacity(element.ns().len() + element.name().len() + 1);
    rest.extend_from_slice(element.ns().as_bytes());
    rest.push(0);
    rest.extend_from_slice(element.name().as_bytes());
    account_key(Table::PrivateXml, context.account.as_str(), &rest)
}
