//! XEP-0060 §8.8: an owner sees and changes who is subscribed.

use super::access::Found;
use super::evaluation::{Answer, Evaluation, Node, Refusal, decode};
use super::options::Options;
use super::payload::{NS_OWNER, SubscriptionChange, SubscriptionState};
use super::rows::{Affiliation, SubscriptionRow, subscriber_of, subscription_key, subscriptions_prefix};
use crate::jid::Jid;
use crate::rows::{Key, Value};
use crate::stanza::StanzaError;
use crate::xep::rsm::{Given, Page, Position};
use crate::xml::Element;

/// Rows that are looked at for those that wait for approval; beyond it an owner asks for the rest by pages.
const PENDING_ROWS: usize = 100_000;

impl Evaluation<'_> {
    /// §8.8.1: those that are in force, in the order of their addresses.
    pub(crate) fn subscriptions(&self, page: Option<Page>) -> Answer {
        let node = self.owned_node()?;
        let prefix = subscriptions_prefix(self.address, node.incarnation());
        let page = page.unwrap_or_default();
        let most = self.limits().page_entries_max;
        let max = page.max.unwrap_or(most).min(most);
        let from = |name: &str| -> Key { [&prefix[..], name.replace(' ', "\0").as_bytes()].concat().into() };
        let (rows, backwards) = match &page.position {
            Position::First => (self.scan(&prefix, &prefix, max)?, false),
            Position::After(name) => (self.scan(&prefix, &[&from(name)[..], &[0]].concat(), max)?, false),
            Position::Before(name) => (self.scan_back(&prefix, &from(name), max)?, true),
            Position::Last => (self.scan_back(&prefix, &[&prefix[..], &[0xff]].concat(), max)?, true),
        };
        let full = rows.len() == max;
        let mut found = self.found(&prefix, rows)?;
        if backwards {
            found.reverse();
        }
        let name = |found: &Found| format!("{} {}", found.jid, found.subid);
        let given = Given {
            first: found
                .first()
                .map(|first| (name(first), (page.position == Position::First).then_some(0))),
            last: found.last().map(name),
            count: usize::try_from(node.state.subscriptions + node.state.pending).ok(),
        };
        let all = page == Page::default() && !full;
        let elements = found
            .iter()
            .filter(|found| !found.row.pending)
            .map(|found| element(found, SubscriptionState::Subscribed));
        let list = Element::new("subscriptions", NS_OWNER)
            .with_attr("node", self.address.node.as_str())
            .with_children(elements);
        let pubsub = Element::new("pubsub", NS_OWNER).with_child(list);
        Ok(Some(if all {
            pubsub
        } else {
            pubsub.with_child(given.to_element())
        }))
    }

    fn found(&self, prefix: &Key, rows: Vec<(Key, Value)>) -> Result<Vec<Found>, StanzaError> {
        let read = |(key, value): (Key, Value)| {
            let subscriber = key.get(prefix.len()..).and_then(subscriber_of);
            let (jid, subid) = subscriber.ok_or_else(StanzaError::internal_server_error)?;
            let row = decode(value)?;
            Ok(Found { jid, subid, row })
        };
        rows.into_iter().map(read).collect()
    }

    /// Up to `max` subscriptions that wait for approval.
    pub(crate) fn pending(&self, node: &Node, max: u64) -> Result<Vec<Found>, StanzaError> {
        if node.state.pending == 0 {
            return Ok(Vec::new());
        }
        let prefix = subscriptions_prefix(self.address, node.incarnation());
        let rows = self.scan(&prefix, &prefix, PENDING_ROWS)?;
        let mut found = self.found(&prefix, rows)?;
        found.retain(|found| found.row.pending);
        found.truncate(usize::try_from(max).unwrap_or(usize::MAX));
        Ok(found)
    }

    /// §8.8.2: what can be done is done, what cannot is said (§8.8.2.4).
    pub(crate) fn modify_subscriptions(&mut self, changes: Vec<SubscriptionChange>) -> Answer {
        let mut node = self.owned_node()?;
        let mut undone = Vec::new();
        for change in changes {
            let Some(to) = change.to else { continue };
            if !self.modify_subscription(&mut node, &change, to)? {
                let found = self.subscriptions_at(&node, &change.jid)?;
                let named = |found: &&Found| change.subid.as_ref().is_none_or(|subid| *subid == found.subid);
                undone.push(match found.iter().find(named) {
                    Some(found) => element(found, found.state()),
                    None => Element::new("subscription", NS_OWNER)
                        .with_attr("jid", change.jid.as_str())
                        .with_attr("subscription", SubscriptionState::None.word()),
                });
            }
        }
        self.keep_state(&node);
        if undone.is_empty() {
            return Ok(None);
        }
        let list = Element::new("subscriptions", NS_OWNER)
            .with_attr("node", self.address.node.as_str())
            .with_children(undone);
        let content = Element::new("pubsub", NS_OWNER).with_child(list);
        Err(Refusal::Partly(StanzaError::not_acceptable(), Box::new(content)))
    }

    /// Says whether it could be done.
    fn modify_subscription(
        &mut self,
        node: &mut Node,
        change: &SubscriptionChange,
        to: SubscriptionState,
    ) -> Result<bool, StanzaError> {
        let existing = self.subscriptions_at(node, &change.jid)?;
        let mut named = existing
            .into_iter()
            .filter(|found| change.subid.as_ref().is_none_or(|subid| *subid == found.subid));
        let (found, another) = (named.next(), named.next());
        match (to, found) {
            // Nobody is made to wait, and one of several has to be named.
            (SubscriptionState::Pending, found) => Ok(found.is_some_and(|found| found.row.pending)),
            (_, Some(_)) if another.is_some() => Ok(false),
            (SubscriptionState::None, None) => Ok(false),
            (SubscriptionState::None, Some(found)) => {
                self.end_subscription(node, &found)?;
                self.tell_subscription(&found.jid, &found.jid, &found.subid, SubscriptionState::None);
                Ok(true)
            }
            (SubscriptionState::Subscribed, Some(found)) if found.row.pending => {
                self.approve(node, found)?;
                Ok(true)
            }
            (SubscriptionState::Subscribed, Some(_)) => Ok(true),
            (SubscriptionState::Subscribed, None) => self.subscribe_for(node, &change.jid),
        }
    }

    /// An owner subscribes somebody.
    fn subscribe_for(&mut self, node: &mut Node, jid: &Jid) -> Result<bool, StanzaError> {
        let affiliation = self.affiliation(node, &jid.to_bare())?;
        let reachable = self.config.is_account(jid);
        let barred = matches!(affiliation, Affiliation::Outcast | Affiliation::PublishOnly);
        if !reachable || barred || node.state.subscriptions >= self.limits().subscriptions_per_node_max {
            return Ok(false);
        }
        let found = Found {
            jid: jid.clone(),
            subid: format!("{:x}", self.message_number()),
            row: SubscriptionRow {
                options: Some(Options {
                    temporary: node.config.tempsub,
                    ..Options::by_default()
                }),
                pending: false,
                since: node.state.sequence,
            },
        };
        self.put_bytes(
            super::index::entity_key(self.shard(), self.address, node.incarnation(), &jid.to_bare()),
            bytes::Bytes::new(),
        );
        self.begin_subscription(node, &found)?;
        self.tell_subscription(jid, jid, &found.subid, SubscriptionState::Subscribed);
        Ok(true)
    }

    /// A subscription that waited comes into force, and its subscriber hears of it (§8.6).
    pub(crate) fn approve(&mut self, node: &mut Node, mut found: Found) -> Result<(), StanzaError> {
        node.state.pending = node.state.pending.saturating_sub(1);
        found.row.pending = false;
        found.row.since = node.state.sequence;
        self.tell_subscription(&found.jid, &found.jid, &found.subid, SubscriptionState::Subscribed);
        self.begin_subscription(node, &found)
    }

    /// A subscription that waited is over, and its subscriber hears of it.
    pub(crate) fn deny(&mut self, node: &mut Node, found: &Found) -> Result<(), StanzaError> {
        self.end_subscription(node, found)?;
        self.tell_subscription(&found.jid, &found.jid, &found.subid, SubscriptionState::None);
        Ok(())
    }

    /// The subscription of a node with exactly this key.
    pub(crate) fn subscription_at(&self, node: &Node, jid: &Jid, subid: &str) -> Result<Option<Found>, StanzaError> {
        let key = subscription_key(self.address, node.incarnation(), jid.as_str(), subid);
        let row: Option<SubscriptionRow> = self.read(&key)?;
        Ok(row.map(|row| Found {
            jid: jid.clone(),
            subid: subid.to_owned(),
            row,
        }))
    }
}

/// `<subscription/>` as owners see it.
fn element(found: &Found, state: SubscriptionState) -> Element {
    Element::new("subscription", NS_OWNER)
        .with_attr("jid", found.jid.as_str())
        .with_attr("subid", &*found.subid)
        .with_attr("subscription", state.word())
}
