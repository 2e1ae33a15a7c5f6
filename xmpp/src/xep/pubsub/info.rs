//! XEP-0060 §5.1, §5.3 and §5.4: what a service and a node are.

use super::evaluation::{Answer, Evaluation};
use super::payload::NS;
use super::rows::Affiliation;
use crate::rows::Timestamp;
use crate::stanza::StanzaError;
use crate::xep::data_forms::{Field, FieldType, Form, Kind};
use crate::xep::date_time::date_time;
use crate::xep::disco::NS_INFO;
use crate::xml::Element;

/// What a form about a node says it is.
const METADATA_FORM_TYPE: &str = "http://jabber.org/protocol/pubsub#meta-data";

/// What a service can do (§10).
pub(crate) static FEATURES: &[&str] = &[
    "http://jabber.org/protocol/commands",
    "http://jabber.org/protocol/disco#info",
    "http://jabber.org/protocol/disco#items",
    "http://jabber.org/protocol/pubsub",
    "http://jabber.org/protocol/pubsub#access-authorize",
    "http://jabber.org/protocol/pubsub#access-open",
    "http://jabber.org/protocol/pubsub#access-presence",
    "http://jabber.org/protocol/pubsub#access-roster",
    "http://jabber.org/protocol/pubsub#access-whitelist",
    "http://jabber.org/protocol/pubsub#auto-create",
    "http://jabber.org/protocol/pubsub#config-node",
    "http://jabber.org/protocol/pubsub#config-node-max",
    "http://jabber.org/protocol/pubsub#create-and-configure",
    "http://jabber.org/protocol/pubsub#create-nodes",
    "http://jabber.org/protocol/pubsub#delete-items",
    "http://jabber.org/protocol/pubsub#delete-nodes",
    "http://jabber.org/protocol/pubsub#get-pending",
    "http://jabber.org/protocol/pubsub#instant-nodes",
    "http://jabber.org/protocol/pubsub#item-ids",
    "http://jabber.org/protocol/pubsub#leased-subscription",
    "http://jabber.org/protocol/pubsub#manage-subscriptions",
    "http://jabber.org/protocol/pubsub#member-affiliation",
    "http://jabber.org/protocol/pubsub#meta-data",
    "http://jabber.org/protocol/pubsub#modify-affiliations",
    "http://jabber.org/protocol/pubsub#multi-items",
    "http://jabber.org/protocol/pubsub#multi-subscribe",
    "http://jabber.org/protocol/pubsub#outcast-affiliation",
    "http://jabber.org/protocol/pubsub#persistent-items",
    "http://jabber.org/protocol/pubsub#presence-notifications",
    "http://jabber.org/protocol/pubsub#publish",
    "http://jabber.org/protocol/pubsub#publish-node-full",
    "http://jabber.org/protocol/pubsub#publish-only-affiliation",
    "http://jabber.org/protocol/pubsub#publish-options",
    "http://jabber.org/protocol/pubsub#publisher-affiliation",
    "http://jabber.org/protocol/pubsub#purge-nodes",
    "http://jabber.org/protocol/pubsub#retract-items",
    "http://jabber.org/protocol/pubsub#retrieve-affiliations",
    "http://jabber.org/protocol/pubsub#retrieve-default",
    "http://jabber.org/protocol/pubsub#retrieve-default-sub",
    "http://jabber.org/protocol/pubsub#retrieve-items",
    "http://jabber.org/protocol/pubsub#retrieve-subscriptions",
    "http://jabber.org/protocol/pubsub#rsm",
    "http://jabber.org/protocol/pubsub#subscribe",
    "http://jabber.org/protocol/pubsub#subscription-notifications",
    "http://jabber.org/protocol/pubsub#subscription-options",
    "http://jabber.org/protocol/rsm",
    super::payload::NS_SEQUENCE,
];

/// §5.1: what the service is.
pub(crate) fn service_info() -> Element {
    let identity = Element::new("identity", NS_INFO)
        .with_attr("category", "pubsub")
        .with_attr("type", "service")
        .with_attr("name", "Heronry");
    let features = FEATURES
        .iter()
        .map(|var| Element::new("feature", NS_INFO).with_attr("var", *var));
    Element::new("query", NS_INFO)
        .with_child(identity)
        .with_children(features)
}

impl Evaluation<'_> {
    /// §5.3, §5.4.
    pub(crate) fn info(&self) -> Answer {
        let node = self.node()?;
        if self.affiliation(&node, &self.origin.to_bare())? == Affiliation::Outcast {
            return Err(StanzaError::forbidden().into());
        }
        let identity = Element::new("identity", NS_INFO)
            .with_attr("category", "pubsub")
            .with_attr("type", "leaf");
        let identity = match &*node.config.title {
            "" => identity,
            title => identity.with_attr("name", title),
        };
        let own = [
            (FieldType::JidSingle, "pubsub#creator", vec![node.row.creator.clone()]),
            (
                FieldType::TextSingle,
                "pubsub#creation_date",
                vec![date_time(Timestamp(node.incarnation()))],
            ),
            (FieldType::JidMulti, "pubsub#owner", node.row.owners.clone()),
            (
                FieldType::TextSingle,
                "pubsub#num_subscribers",
                vec![node.state.subscriptions.to_string()],
            ),
            (
                FieldType::TextSingle,
                "pubsub#num_items",
                vec![node.state.items.to_string()],
            ),
        ];
        let own = own
            .into_iter()
            .map(|(type_, var, values)| Field::of(type_, var, values));
        let form = node
            .config
            .metadata()
            .chain(own)
            .fold(Form::new(Kind::Result, METADATA_FORM_TYPE), Form::with);
        let query = Element::new("query", NS_INFO)
            .with_attr("node", self.address.node.as_str())
            .with_child(identity)
            .with_child(Element::new("feature", NS_INFO).with_attr("var", NS))
            .with_child(form.to_element());
        Ok(Some(query))
    }
}
