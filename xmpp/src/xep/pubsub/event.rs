//! What subscribers and owners are told: the messages of XEP-0060, written.

use super::address::{NodeId, notification_id};
use super::config::{Config, ItemReply, NotificationType};
use super::evaluation::{Evaluation, Node};
use super::payload::{NS_EVENT, NS_SEQUENCE, SubscriptionState};
use super::rows::ItemRow;
use crate::jid::Jid;
use crate::rows::Timestamp;
use crate::stanza::{MessageType, Stanza, StanzaError};
use crate::xep::data_forms::{self, Field, FieldType, Form};
use crate::xep::date_time::date_time;
use crate::xml::{Element, Limits};

/// What a form that asks an owner says it is (§8.6).
pub(crate) const AUTHORIZATION_FORM_TYPE: &str = "http://jabber.org/protocol/pubsub#subscribe_authorization";

const NS_DELAY: &str = "urn:xmpp:delay";

impl Evaluation<'_> {
    /// A notification with the next number of the node's sequence, for everybody.
    pub(crate) fn numbered(&self, node: &mut Node, content: Element) -> Stanza {
        node.state.sequence += 1;
        let sequence = Element::new("sequence", NS_SEQUENCE)
            .with_attr("number", node.state.sequence.to_string())
            .with_attr("epoch", format!("{:x}", node.incarnation()));
        let event = Element::new("event", NS_EVENT).with_child(content);
        let type_ = message_type(&node.config);
        Stanza::message(type_, [&event, &sequence])
            .with_from(&self.address.service)
            .with_id(notification_id(node.state.sequence, &self.address.node))
    }

    /// A message to one address, of the type that notifications have.
    fn told(&mut self, to: &Jid, type_: MessageType, children: &[Element]) {
        let number = self.message_number();
        let message = Stanza::message(type_, children)
            .with_from(&self.address.service)
            .with_to(to.clone())
            .with_id(notification_id(number, &self.address.node));
        self.send(message);
    }

    /// Sends somebody the last item (§6.1.7).
    pub(crate) fn tell_last_item(
        &mut self,
        node: &Node,
        to: &Jid,
        id: &str,
        item: &ItemRow,
    ) -> Result<(), StanzaError> {
        let element = item_element(NS_EVENT, &node.config, id, item, node.config.deliver_payloads)?;
        let items = Element::new("items", NS_EVENT)
            .with_attr("node", self.address.node.as_str())
            .with_child(element);
        let delay = Element::new("delay", NS_DELAY)
            .with_attr("from", self.address.service.as_str())
            .with_attr("stamp", date_time(Timestamp(item.at)));
        let event = Element::new("event", NS_EVENT).with_child(items);
        self.told(to, message_type(&node.config), &[event, delay]);
        Ok(())
    }

    /// Tells somebody what has become of a subscription (§12.14).
    pub(crate) fn tell_subscription(&mut self, to: &Jid, subscriber: &Jid, subid: &str, state: SubscriptionState) {
        let subscription = Element::new("subscription", NS_EVENT)
            .with_attr("node", self.address.node.as_str())
            .with_attr("jid", subscriber.as_str())
            .with_attr("subid", subid)
            .with_attr("subscription", state.word());
        let event = Element::new("event", NS_EVENT).with_child(subscription);
        self.told(to, MessageType::Normal, &[event]);
    }

    /// Tells the owners what has become of a subscription, if they want to hear of it.
    pub(crate) fn tell_owners(&mut self, node: &Node, subscriber: &Jid, subid: &str, state: SubscriptionState) {
        if !node.config.notify_sub {
            return;
        }
        for owner in node.row.owners.iter().filter_map(|owner| Jid::parse(owner).ok()) {
            if owner.as_str() != subscriber.bare_str() {
                self.tell_subscription(&owner, subscriber, subid, state);
            }
        }
    }

    /// Asks an owner whether somebody may subscribe (§8.6).
    pub(crate) fn ask_owner(&mut self, owner: &Jid, subscriber: &Jid, subid: &str) {
        let form = Form {
            title: Some("Somebody wants to subscribe to a node"),
            ..Form::new(data_forms::Kind::Form, AUTHORIZATION_FORM_TYPE)
        };
        let fields = [
            (FieldType::Hidden, "pubsub#subid", None, subid),
            (
                FieldType::TextSingle,
                "pubsub#node",
                Some("Node ID"),
                self.address.node.as_str(),
            ),
            (
                FieldType::JidSingle,
                "pubsub#subscriber_jid",
                Some("Subscriber address"),
                subscriber.as_str(),
            ),
            (
                FieldType::Boolean,
                "pubsub#allow",
                Some("Allow this address to subscribe to this node?"),
                "false",
            ),
        ];
        let form = fields.into_iter().fold(form, |form, (type_, var, label, value)| {
            form.with(Field {
                label,
                ..Field::of(type_, var, vec![value.to_owned()])
            })
        });
        self.told(owner, MessageType::Normal, &[form.to_element()]);
    }
}

/// The type of a node's notifications.
fn message_type(config: &Config) -> MessageType {
    match config.notification_type() {
        NotificationType::Headline => MessageType::Headline,
        NotificationType::Normal => MessageType::Normal,
    }
}

/// `<items/>` of an event about these.
pub(crate) fn items_event(node: &NodeId, entries: impl IntoIterator<Item = Element>) -> Element {
    Element::new("items", NS_EVENT)
        .with_attr("node", node.as_str())
        .with_children(entries)
}

/// `<retract/>` in `<items/>` (§7.2.2.1).
pub(crate) fn retract_element(id: &str) -> Element {
    Element::new("retract", NS_EVENT).with_attr("id", id)
}

/// An item, in the namespace of what it is in.
pub(crate) fn item_element(
    ns: &'static str,
    config: &Config,
    id: &str,
    item: &ItemRow,
    with_payload: bool,
) -> Result<Element, StanzaError> {
    let mut element = Element::new("item", ns).with_attr("id", id);
    if config.itemreply() == ItemReply::Publisher {
        element.set_attr("publisher", &*item.publisher);
    }
    if with_payload && !item.payload.is_empty() {
        // It was accepted once, under whatever limits.
        let payload = Element::parse(&item.payload, &Limits::trusted());
        element.push_child(payload.map_err(|_| StanzaError::internal_server_error())?);
    }
    Ok(element)
}
