//! XEP-0060 §6.1 to §6.4 and §5.6: who subscribes, with which options, and who no longer does.

use super::access::{Entry, Found};
use super::config::SendLast;
use super::effect::{FollowerRow, PubsubEffect};
use super::errors;
use super::evaluation::{Answer, Evaluation, Node, NodeEffect};
use super::index::entity_key;
use super::options::Options;
use super::payload::{NS, SubscriptionState};
use super::rows::{Affiliation, SubscriptionRow, lease_key, subscription_key};
use crate::jid::Jid;
use crate::stanza::StanzaError;
use crate::xep::data_forms::{Form, Kind};
use crate::xml::Element;

impl Evaluation<'_> {
    /// §6.1. An address that subscribes with options that one of its subscriptions has, is told of that one: several subscriptions
    /// of one address differ in their options (§6.1.6).
    pub(crate) fn subscribe(&mut self, jid: &Jid, form: Option<&Form>) -> Answer {
        if jid.bare_str() != self.origin.bare_str() {
            return Err(errors::invalid_jid().into());
        }
        let mut node = self.node()?;
        let entry = self.may_subscribe(&node)?;
        let mut options = Options::by_default();
        if let Some(form) = form {
            options = options
                .with_submitted(form, self.now)
                .ok_or_else(errors::invalid_options)?;
        }
        options.temporary |= node.config.tempsub;
        let existing = self.subscriptions_at(&node, jid)?;
        if existing.iter().any(|found| found.row.pending) {
            return Err(errors::pending_subscription().into());
        }
        let same = |found: &&Found| form.is_none() || found.row.options == Some(options);
        if let Some(found) = existing.iter().find(same) {
            return Ok(Some(subscribed(
                self.address.node.as_str(),
                found,
                form.is_some().then_some(&options),
            )));
        }
        let limits = self.limits();
        let pending = entry == Entry::Pending;
        let full = existing.len() >= limits.subscriptions_per_jid_max
            || node.state.subscriptions >= limits.subscriptions_per_node_max
            || (pending && node.state.pending >= limits.pending_per_node_max);
        if full {
            return Err(errors::too_many_subscriptions().into());
        }
        let found = Found {
            jid: jid.clone(),
            subid: format!("{:x}", self.now.0),
            row: SubscriptionRow {
                options: Some(options),
                pending,
                since: node.state.sequence,
            },
        };
        self.put_bytes(
            entity_key(self.shard(), self.address, node.incarnation(), &jid.to_bare()),
            bytes::Bytes::new(),
        );
        if pending {
            node.state.pending += 1;
            self.keep_subscription(&node, &found);
            for owner in node.row.owners.clone() {
                let owner = Jid::parse(&owner).map_err(|_| StanzaError::internal_server_error())?;
                self.ask_owner(&owner, jid, &found.subid);
            }
        } else {
            self.begin_subscription(&mut node, &found)?;
        }
        if options.expire > 0 {
            self.expire_later(&mut node)?;
        }
        self.keep_state(&node);
        Ok(Some(subscribed(
            self.address.node.as_str(),
            &found,
            form.is_some().then_some(&options),
        )))
    }

    /// A subscription comes into force: it is kept and counted, its shard notifies it, it gets the last item, owners hear of it.
    pub(crate) fn begin_subscription(&mut self, node: &mut Node, found: &Found) -> Result<(), StanzaError> {
        node.state.follow(self.config.shard_of(found.jid.bare_str()).0);
        self.keep_subscription(node, found);
        self.follow(node, found);
        self.tell_owners(node, &found.jid, &found.subid, SubscriptionState::Subscribed);
        if node.config.send_last_published_item() != SendLast::Never {
            self.send_last_item(node, &found.jid)?;
        }
        Ok(())
    }

    /// Sends the last item, if there is one.
    pub(crate) fn send_last_item(&mut self, node: &Node, to: &Jid) -> Result<(), StanzaError> {
        match self.newest_item(node)? {
            Some((id, item)) => self.tell_last_item(node, to, &id, &item),
            None => Ok(()),
        }
    }

    /// The subscriber's shard notifies this subscription from now on.
    fn follow(&mut self, node: &Node, found: &Found) {
        let row = FollowerRow::of(&node.config, &found.row);
        let shard = self.config.shard_of(found.jid.bare_str());
        let follow = PubsubEffect::Follow {
            address: self.address.clone(),
            incarnation: node.incarnation(),
            jid: found.jid.clone(),
            subid: found.subid.clone(),
            row,
        };
        self.effects.push(NodeEffect::Owe(shard, follow));
    }

    /// Keeps a subscription's row, and when it ends.
    fn keep_subscription(&mut self, node: &Node, found: &Found) {
        let key = subscription_key(self.address, node.incarnation(), found.jid.as_str(), &found.subid);
        self.put(key, &found.row);
        let end = found.row.options.unwrap_or_default().expire;
        if end > 0 {
            let lease = lease_key(self.address, node.incarnation(), end, &found.jid, &found.subid);
            self.put_bytes(lease, bytes::Bytes::new());
        }
    }

    /// Ends a subscription, or a request for one.
    pub(crate) fn end_subscription(&mut self, node: &mut Node, found: &Found) -> Result<(), StanzaError> {
        self.delete(subscription_key(
            self.address,
            node.incarnation(),
            found.jid.as_str(),
            &found.subid,
        ));
        self.end_lease(node, found);
        if found.row.pending {
            node.state.pending = node.state.pending.saturating_sub(1);
        } else {
            let shard = self.config.shard_of(found.jid.bare_str());
            node.state.unfollow(shard.0);
            let unfollow = PubsubEffect::Unfollow {
                address: self.address.clone(),
                incarnation: node.incarnation(),
                jid: found.jid.clone(),
                subid: found.subid.clone(),
            };
            self.effects.push(NodeEffect::Owe(shard, unfollow));
            self.tell_owners(node, &found.jid, &found.subid, SubscriptionState::None);
        }
        self.forget_entity(node, &found.jid)
    }

    fn end_lease(&mut self, node: &Node, found: &Found) {
        let end = found.row.options.unwrap_or_default().expire;
        if end > 0 {
            self.delete(lease_key(
                self.address,
                node.incarnation(),
                end,
                &found.jid,
                &found.subid,
            ));
        }
    }

    /// Takes the node out of an entity's list when nothing connects them any more.
    pub(crate) fn forget_entity(&mut self, node: &Node, jid: &Jid) -> Result<(), StanzaError> {
        let entity = jid.to_bare();
        let connected =
            self.affiliation(node, &entity)? != Affiliation::None || !self.subscriptions_of(node, &entity)?.is_empty();
        if !connected {
            self.delete(entity_key(self.shard(), self.address, node.incarnation(), &entity));
        }
        Ok(())
    }

    /// §6.2.
    pub(crate) fn unsubscribe(&mut self, jid: &Jid, subid: Option<&str>) -> Answer {
        let mut node = self.node()?;
        self.own(jid)?;
        let found = self.subscription(&node, jid, subid, errors::not_subscribed)?;
        self.end_subscription(&mut node, &found)?;
        self.keep_state(&node);
        let element = subscription_element(Some(self.address.node.as_str()), &found, SubscriptionState::None);
        Ok(Some(Element::new("pubsub", NS).with_child(element)))
    }

    /// §6.3.2.
    pub(crate) fn options(&self, jid: &Jid, subid: Option<&str>) -> Answer {
        let node = self.node()?;
        self.own(jid)?;
        let found = self.subscription(&node, jid, subid, errors::no_such_subscriber)?;
        let options = found.row.options.unwrap_or_else(Options::by_default);
        let element = Element::new("options", NS)
            .with_attr("node", self.address.node.as_str())
            .with_attr("jid", jid.as_str())
            .with_attr("subid", &*found.subid)
            .with_child(options.form(Kind::Form).to_element());
        Ok(Some(Element::new("pubsub", NS).with_child(element)))
    }

    /// §6.3.5.
    pub(crate) fn set_options(&mut self, jid: &Jid, subid: Option<&str>, form: &Form) -> Answer {
        let mut node = self.node()?;
        self.own(jid)?;
        let mut found = self.subscription(&node, jid, subid, errors::no_such_subscriber)?;
        match form.kind {
            Kind::Cancel => return Ok(None),
            Kind::Submit => {}
            Kind::Form | Kind::Result => return Err(errors::invalid_options().into()),
        }
        let before = found.row.options.unwrap_or_else(Options::by_default);
        let mut options = before
            .with_submitted(form, self.now)
            .ok_or_else(errors::invalid_options)?;
        options.temporary |= node.config.tempsub;
        self.end_lease(&node, &found);
        found.row.options = Some(options);
        self.keep_subscription(&node, &found);
        if !found.row.pending {
            self.follow(&node, &found);
        }
        self.expire_later(&mut node)?;
        self.keep_state(&node);
        Ok(None)
    }

    /// §6.4.
    pub(crate) fn default_options(&self) -> Answer {
        self.node()?;
        let form = Options::by_default().form(Kind::Result).to_element();
        let default = Element::new("default", NS)
            .with_attr("node", self.address.node.as_str())
            .with_child(form);
        Ok(Some(Element::new("pubsub", NS).with_child(default)))
    }

    /// §6.4, of all nodes.
    pub(crate) fn service_options() -> Element {
        let form = Options::by_default().form(Kind::Result).to_element();
        Element::new("pubsub", NS).with_child(Element::new("default", NS).with_child(form))
    }

    /// §5.6, of this node.
    pub(crate) fn own_subscriptions(&self) -> Answer {
        let node = self.node()?;
        let name = self.address.node.as_str();
        let found = self.subscriptions_of(&node, &self.origin.to_bare())?;
        let list = found
            .iter()
            .map(|found| subscription_element(Some(name), found, found.state()));
        let list = Element::new("subscriptions", NS)
            .with_attr("node", name)
            .with_children(list);
        Ok(Some(Element::new("pubsub", NS).with_child(list)))
    }

    /// Subscriptions are their own account's business (§6.2.3.3, §6.3.4.1).
    fn own(&self, jid: &Jid) -> Result<(), StanzaError> {
        if jid.bare_str() == self.origin.bare_str() {
            Ok(())
        } else {
            Err(StanzaError::forbidden())
        }
    }
}

impl Found {
    pub(crate) fn state(&self) -> SubscriptionState {
        if self.row.pending {
            SubscriptionState::Pending
        } else {
            SubscriptionState::Subscribed
        }
    }
}

/// `<subscription/>` as subscribers see it.
pub(crate) fn subscription_element(node: Option<&str>, found: &Found, state: SubscriptionState) -> Element {
    let mut element = Element::new("subscription", NS);
    if let Some(node) = node {
        element.set_attr("node", node);
    }
    element
        .with_attr("jid", found.jid.as_str())
        .with_attr("subid", &*found.subid)
        .with_attr("subscription", state.word())
}

/// §6.1.2, and §6.3.7 when options were asked for.
fn subscribed(node: &str, found: &Found, options: Option<&Options>) -> Element {
    let pubsub = Element::new("pubsub", NS).with_child(subscription_element(Some(node), found, found.state()));
    match options {
        Some(options) => {
            let form = options.form(Kind::Result).to_element();
            pubsub.with_child(Element::new("options", NS).with_child(form))
        }
        None => pubsub,
    }
}
