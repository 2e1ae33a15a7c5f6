//! XEP-0060 §7.2, §8.4 and §8.5: items are retracted, a node is purged or deleted.

use super::errors;
use super::evaluation::{Answer, Evaluation, Node};
use super::index::{LeftoverRow, NodeCountRow, deadline_key, leftover_key, node_count_key, node_of_shard_key};
use super::payload::NS_EVENT;
use super::rows::{
    Affiliation, NodeRow, affiliations_prefix, item_key, items_prefix, leases_prefix, node_key, order_key,
    order_prefix, state_key, subscriptions_prefix,
};
use crate::stanza::StanzaError;
use crate::xml::Element;

impl Evaluation<'_> {
    /// §7.2: owners retract any item, others what they have published. All of them or none (§12.11).
    pub(crate) fn retract(&mut self, ids: &[String], notify: bool) -> Answer {
        let mut node = self.node()?;
        if !node.config.persist_items {
            return Err(errors::unsupported("persistent-items").into());
        }
        let entity = self.origin.to_bare();
        let affiliation = self.affiliation(&node, &entity)?;
        if affiliation == Affiliation::Outcast {
            return Err(StanzaError::forbidden().into());
        }
        for id in ids {
            let Some(item) = self.item(&node, id)? else {
                // Who may not publish is not told what there is.
                self.may_publish(&node)?;
                return Err(StanzaError::item_not_found().into());
            };
            if affiliation != Affiliation::Owner && item.publisher != entity.as_str() {
                return Err(StanzaError::forbidden().into());
            }
            self.delete(item_key(self.address, node.incarnation(), node.state.generation, id));
            self.delete(order_key(
                self.address,
                node.incarnation(),
                node.state.generation,
                item.place,
            ));
            node.state.items = node.state.items.saturating_sub(1);
        }
        if notify || node.config.notify_retract {
            self.tell_retracted(&mut node, ids);
        }
        self.keep_state(&node);
        Ok(None)
    }

    /// §8.5.
    pub(crate) fn purge(&mut self) -> Answer {
        let mut node = self.owned_node()?;
        if !node.config.persist_items {
            return Err(errors::unsupported("persistent-items").into());
        }
        self.drop_items(&mut node);
        if node.config.deliver_notifications {
            let purge = Element::new("purge", NS_EVENT).with_attr("node", self.address.node.as_str());
            let message = self.numbered(&mut node, purge);
            self.notify(&node, message, false);
        }
        self.keep_state(&node);
        Ok(None)
    }

    /// All items are gone, at once; their rows go in slices.
    pub(crate) fn drop_items(&mut self, node: &mut Node) {
        if node.state.items == 0 {
            return;
        }
        let (incarnation, generation) = (node.incarnation(), node.state.generation);
        self.leave(
            node,
            vec![
                items_prefix(self.address, incarnation, generation),
                order_prefix(self.address, incarnation, generation),
            ],
        );
        node.state.generation += 1;
        node.state.items = 0;
    }

    fn leave(&mut self, node: &Node, prefixes: Vec<crate::rows::Key>) {
        let leftover = LeftoverRow {
            entity: self.address.entity().to_owned(),
            incarnation: node.incarnation(),
            prefixes,
            recheck: None,
        };
        self.put(leftover_key(self.shard(), self.now.0), &leftover);
    }

    /// §8.4.
    pub(crate) fn delete_node(&mut self, redirect: Option<String>) -> Answer {
        let mut node = self.owned_node()?;
        let mut content = Element::new("delete", NS_EVENT).with_attr("node", self.address.node.as_str());
        if let Some(uri) = &redirect {
            content.push_child(Element::new("redirect", NS_EVENT).with_attr("uri", &**uri));
        }
        let message = self.numbered(&mut node, content);
        // The followers go with the notification, so it is sent in any case; who waits for approval is told, too (§8.4.2).
        for subscriber in self.pending(&node, self.limits().pending_per_node_max)? {
            self.send(message.clone().with_to(subscriber.jid));
        }
        self.notify(&node, message, true);
        let (incarnation, generation) = (node.incarnation(), node.state.generation);
        self.leave(
            &node,
            vec![
                items_prefix(self.address, incarnation, generation),
                order_prefix(self.address, incarnation, generation),
                leases_prefix(self.address, incarnation),
                subscriptions_prefix(self.address, incarnation),
                affiliations_prefix(self.address, incarnation),
            ],
        );
        if node.state.next_deadline > 0 {
            self.delete(deadline_key(self.shard(), node.state.next_deadline, self.address));
        }
        self.delete(state_key(self.address));
        self.delete(node_of_shard_key(self.shard(), self.address));
        let count_key = node_count_key(self.shard(), &self.address.service);
        let nodes = self.read::<NodeCountRow>(&count_key)?.unwrap_or_default().nodes;
        let nodes = nodes.saturating_sub(1);
        self.put(count_key, &NodeCountRow { nodes });
        match redirect {
            Some(uri) => {
                let moved = NodeRow {
                    moved: Some(uri),
                    incarnation,
                    ..NodeRow::default()
                };
                self.put(node_key(self.address), &moved);
            }
            None => self.delete(node_key(self.address)),
        }
        Ok(None)
    }
}
