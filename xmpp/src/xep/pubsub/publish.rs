//! XEP-0060 §7.1: items are published, one or a batch (§12.11).

use std::collections::BTreeSet;

use bytes::Bytes;

use super::config::{Config, OPTIONS_FORM_TYPE, WhenFull};
use super::create::improper;
use super::errors;
use super::evaluation::{Answer, Evaluation, Node};
use super::event::{item_element, items_event, retract_element};
use super::payload::{NS, NS_EVENT, NewItem};
use super::rows::{Affiliation, ItemRow, NodeRow, item_key, node_key, order_key, order_prefix, place};
use crate::stanza::StanzaError;
use crate::xep::data_forms::Form;
use crate::xml::Element;

/// Items that go at once, at most, when a node keeps fewer from now on.
const EVICTED_MAX: usize = 64;

impl Evaluation<'_> {
    /// §7.1.
    pub(crate) fn publish(&mut self, items: &[NewItem], preconditions: Option<&Form>) -> Answer {
        let (mut node, affiliation) = self.node_to_publish_to(preconditions)?;
        self.fits(&node, items)?;
        if node.config.persist_items && items.len() as u64 > node.config.items_max(self.limits()) {
            return Err(errors::max_items_exceeded().into());
        }
        // §7.1.2.3: the service says who published.
        let publisher = self.origin.to_bare().to_string();
        let number = node.state.sequence + 1;
        let mut published = Vec::with_capacity(items.len());
        let mut named = Vec::new();
        for (position, item) in items.iter().enumerate() {
            let row = ItemRow {
                payload: item.payload.as_ref().map_or_else(Bytes::new, Element::to_bytes),
                publisher: publisher.clone(),
                at: self.now.0,
                place: place(number, position),
            };
            if row.payload.len() > node.config.payload_bytes_max(self.limits()) {
                return Err(errors::payload_too_big().into());
            }
            let id = match &item.id {
                Some(id) => id.clone(),
                None => {
                    let id = self.unused_id(&node, position)?;
                    named.push(id.clone());
                    id
                }
            };
            if node.config.persist_items {
                self.keep_item(&mut node, affiliation, &id, &row)?;
            }
            published.push((id, row));
        }
        let retracted = self.make_room(&mut node, &published)?;
        self.tell_published(&mut node, &published)?;
        self.tell_retracted(&mut node, &retracted);
        if node.config.item_expire > 0 && node.state.next_deadline == 0 {
            self.expire_later(&mut node)?;
        }
        self.keep_state(&node);
        let publish = Element::new("publish", NS).with_attr("node", self.address.node.as_str());
        let ids = named.iter().map(|id| Element::new("item", NS).with_attr("id", &**id));
        Ok(Some(Element::new("pubsub", NS).with_child(publish.with_children(ids))))
    }

    /// The node, made if there is none (§7.1.4, §7.1.5), and what who asks is to it.
    fn node_to_publish_to(&mut self, preconditions: Option<&Form>) -> Result<(Node, Affiliation), StanzaError> {
        if preconditions.is_some_and(|form| form.form_type() != Some(OPTIONS_FORM_TYPE)) {
            return Err(StanzaError::bad_request());
        }
        if self.read::<NodeRow>(&node_key(self.address))?.is_some() {
            let node = self.node()?;
            let affiliation = self.may_publish(&node)?;
            if let Some(form) = preconditions
                && !node.config.meets(form, self.limits()).map_err(improper)?
            {
                return Err(errors::precondition_not_met());
            }
            return Ok((node, affiliation));
        }
        let mut config = Config::of_service(self.limits());
        if let Some(form) = preconditions {
            // Unknown fields are refused here, too.
            config.meets(form, self.limits()).map_err(improper)?;
            config = config.with_submitted(form, self.limits()).map_err(improper)?;
        }
        let node = self.new_node(config)?;
        self.keep_node(&node);
        Ok((node, Affiliation::Owner))
    }

    /// Whether the request is one for such a node (§4.3, §7.1.3.6, §7.1.3.7).
    fn fits(&self, node: &Node, items: &[NewItem]) -> Result<(), StanzaError> {
        let config = &node.config;
        let silent_and_transient = !config.persist_items && !config.deliver_payloads;
        if items.is_empty() {
            return if silent_and_transient {
                Ok(())
            } else {
                Err(errors::item_required())
            };
        }
        if silent_and_transient {
            return Err(errors::item_forbidden());
        }
        for item in items {
            match &item.payload {
                None if config.deliver_payloads => return Err(errors::payload_required()),
                Some(payload) if !config.type_.is_empty() && payload.ns() != config.type_ => {
                    return Err(errors::invalid_payload());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// An id for an item that has none.
    fn unused_id(&self, node: &Node, position: usize) -> Result<String, StanzaError> {
        let mut id = format!("{:x}-{position}", self.now.0);
        // Nobody else's evaluation has this time; somebody may have chosen such an id nevertheless.
        while self.item(node, &id)?.is_some() {
            id.push('-');
        }
        Ok(id)
    }

    /// Keeps an item, in place of one with its id. What somebody else has published only owners and publishers replace.
    fn keep_item(
        &mut self,
        node: &mut Node,
        affiliation: Affiliation,
        id: &str,
        row: &ItemRow,
    ) -> Result<(), StanzaError> {
        let (incarnation, generation) = (node.incarnation(), node.state.generation);
        match self.item(node, id)? {
            Some(former) => {
                let own = former.publisher == row.publisher;
                if !own && !matches!(affiliation, Affiliation::Owner | Affiliation::Publisher) {
                    return Err(StanzaError::forbidden());
                }
                self.delete(order_key(self.address, incarnation, generation, former.place));
            }
            None => node.state.items += 1,
        }
        self.put(item_key(self.address, incarnation, generation, id), row);
        let order = order_key(self.address, incarnation, generation, row.place);
        self.put_bytes(order, Bytes::copy_from_slice(id.as_bytes()));
        Ok(())
    }

    /// §7.1.2.5: what goes because the node is full; the ids of what subscribers are to hear of.
    fn make_room(&mut self, node: &mut Node, published: &[(String, ItemRow)]) -> Result<Vec<String>, StanzaError> {
        if node.state.items <= node.config.items_max(self.limits()) {
            return Ok(Vec::new());
        }
        if node.config.publish_node_full() == WhenFull::Reject {
            return Err(errors::node_full());
        }
        let evicted = self.evict(node, published.len())?;
        Ok(match node.config.publish_node_full() {
            WhenFull::RetractOldest if node.config.notify_retract => evicted,
            _ => Vec::new(),
        })
    }

    /// Removes the oldest items of a node that has too many, a slice of them and `more`; says which.
    pub(crate) fn evict(&mut self, node: &mut Node, more: usize) -> Result<Vec<String>, StanzaError> {
        let surplus = node.state.items.saturating_sub(node.config.items_max(self.limits()));
        let surplus = usize::try_from(surplus).unwrap_or(usize::MAX).min(EVICTED_MAX + more);
        if surplus == 0 {
            return Ok(Vec::new());
        }
        let prefix = order_prefix(self.address, node.incarnation(), node.state.generation);
        let oldest = self.scan(&prefix, &prefix, surplus)?;
        let mut evicted = Vec::with_capacity(oldest.len());
        for (key, id) in oldest {
            let id = String::from_utf8(id.to_vec()).map_err(|_| StanzaError::internal_server_error())?;
            self.delete(item_key(self.address, node.incarnation(), node.state.generation, &id));
            self.delete(key);
            node.state.items = node.state.items.saturating_sub(1);
            evicted.push(id);
        }
        Ok(evicted)
    }

    /// §7.1.2.1, §7.1.2.2: everybody is notified of the items, a batch at once.
    fn tell_published(&mut self, node: &mut Node, published: &[(String, ItemRow)]) -> Result<(), StanzaError> {
        let with_payloads = node.config.deliver_payloads;
        let mut entries = Vec::with_capacity(published.len());
        for (id, row) in published {
            entries.push(item_element(NS_EVENT, &node.config, id, row, with_payloads)?);
        }
        let message = self.numbered(node, items_event(&self.address.node, entries));
        if node.config.deliver_notifications {
            self.notify(node, message, false);
        }
        Ok(())
    }

    /// §7.2.2.1: everybody is notified that items are gone.
    pub(crate) fn tell_retracted(&mut self, node: &mut Node, ids: &[String]) {
        let ids: BTreeSet<&String> = ids.iter().collect();
        if ids.is_empty() || !node.config.deliver_notifications {
            return;
        }
        let entries = ids.into_iter().map(|id| retract_element(id));
        let message = self.numbered(node, items_event(&self.address.node, entries));
        self.notify(node, message, false);
    }
}
