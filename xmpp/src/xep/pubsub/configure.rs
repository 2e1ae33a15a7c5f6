//! XEP-0060 §8.2 and §8.3: a node's configuration, seen and changed.

use super::config::Config;
use super::errors;
use super::evaluation::{Answer, Evaluation, Node};
use super::index::{LeftoverRow, leftover_key};
use super::payload::{NS_EVENT, NS_OWNER};
use super::rows::subscriptions_prefix;
use crate::stanza::StanzaError;
use crate::xep::data_forms::{Form, Kind};
use crate::xml::Element;

impl Evaluation<'_> {
    /// §8.2.1.
    pub(crate) fn configuration(&self) -> Answer {
        let node = self.owned_node()?;
        let configure = Element::new("configure", NS_OWNER)
            .with_attr("node", self.address.node.as_str())
            .with_child(node.config.form(Kind::Form).to_element());
        Ok(Some(Element::new("pubsub", NS_OWNER).with_child(configure)))
    }

    /// §8.2.4.
    pub(crate) fn configure(&mut self, form: Option<&Form>) -> Answer {
        let mut node = self.owned_node()?;
        let Some(form) = form else { return Ok(None) };
        if form.kind != Kind::Submit {
            return Err(StanzaError::bad_request().into());
        }
        let before = std::mem::take(&mut node.config);
        node.config = self.configured(&before, form)?;
        if node.config == before {
            return Ok(None);
        }
        self.keep_node(&node);
        if node.config.title != before.title || node.config.is_listed() != before.is_listed() {
            self.list(&node);
        }
        self.after_change(&mut node, &before)?;
        if node.config.notify_config && node.config.deliver_notifications {
            let mut content = Element::new("configuration", NS_EVENT).with_attr("node", self.address.node.as_str());
            if node.config.deliver_payloads {
                content.push_child(node.config.form(Kind::Result).to_element());
            }
            let message = self.numbered(&mut node, content);
            self.notify(&node, message, false);
        }
        self.keep_state(&node);
        Ok(None)
    }

    /// What follows from a change besides.
    fn after_change(&mut self, node: &mut Node, before: &Config) -> Result<(), StanzaError> {
        if !node.config.persist_items {
            self.drop_items(node);
        }
        // Those above the new number go in slices.
        self.evict(node, 0)?;
        self.expire_later(node)?;
        let narrower = node.config.access_model() != before.access_model()
            || node.config.roster_groups_allowed != before.roster_groups_allowed;
        if narrower && !node.config.lets_anybody_in() {
            // §14.3: who would not be let in any more is not notified any more.
            let leftover = LeftoverRow {
                entity: self.address.entity().to_owned(),
                incarnation: node.incarnation(),
                prefixes: Vec::new(),
                recheck: Some(subscriptions_prefix(self.address, node.incarnation())),
            };
            self.put(leftover_key(self.shard(), self.now.0), &leftover);
        }
        Ok(())
    }

    /// §8.3.
    pub(crate) fn default_configuration(config: &Config, type_: Option<&str>) -> Result<Element, StanzaError> {
        if type_.is_some_and(|type_| type_ != "leaf") {
            return Err(errors::unsupported("collections"));
        }
        let default = Element::new("default", NS_OWNER).with_child(config.form(Kind::Form).to_element());
        Ok(Element::new("pubsub", NS_OWNER).with_child(default))
    }
}
