//! What happens to a node by itself: items and subscriptions end (XEP-0060 §12.19, `pubsub#item_expire`), subscribers turn out to be
//! gone (§12.4), and subscriptions that the access model does not allow any more are ended.

use super::access::Found;
use super::config::SendLast;
use super::effect::Finding;
use super::evaluation::{Evaluation, Node, decode};
use super::index::deadline_key;
use super::items::end_of_item;
use super::payload::SubscriptionState;
use super::rows::{
    Affiliation, SubscriptionRow, item_key, leases_prefix, order_key, subscriber_of, subscriptions_prefix,
};
use crate::jid::Jid;
use crate::rows::Key;
use crate::stanza::StanzaError;

/// What ends at once, at most; the rest ends a moment later.
const ENDING_MAX: usize = 64;

impl Evaluation<'_> {
    /// Time has come for something of the node to end; `due` is the deadline that says so.
    pub(crate) fn due(&mut self, due: u64) -> Result<(), StanzaError> {
        self.delete(deadline_key(self.shard(), due, self.address));
        let Ok(mut node) = self.node() else { return Ok(()) };
        if node.state.next_deadline != due {
            // An earlier one has taken its place.
            return Ok(());
        }
        node.state.next_deadline = 0;
        self.end_items(&mut node)?;
        self.end_leases(&mut node)?;
        self.evict(&mut node, 0)?;
        self.expire_later(&mut node)?;
        self.keep_state(&node);
        Ok(())
    }

    fn end_items(&mut self, node: &mut Node) -> Result<(), StanzaError> {
        let mut ended = Vec::new();
        while ended.len() < ENDING_MAX
            && let Some((id, item)) = self.oldest_item(node)?
            && end_of_item(&node.config, item.at).is_some_and(|end| end <= self.now.0)
        {
            let (incarnation, generation) = (node.incarnation(), node.state.generation);
            self.delete(item_key(self.address, incarnation, generation, &id));
            self.delete(order_key(self.address, incarnation, generation, item.place));
            node.state.items = node.state.items.saturating_sub(1);
            ended.push(id);
        }
        if node.config.notify_retract {
            self.tell_retracted(node, &ended);
        }
        Ok(())
    }

    fn end_leases(&mut self, node: &mut Node) -> Result<(), StanzaError> {
        let prefix = leases_prefix(self.address, node.incarnation());
        for (key, _) in self.scan(&prefix, &prefix, ENDING_MAX)? {
            let (end, jid, subid) = lease_of(&key, &prefix).ok_or_else(StanzaError::internal_server_error)?;
            if end > self.now.0 {
                break;
            }
            match self.subscription_at(node, &jid, &subid)? {
                Some(found) => self.deny(node, &found)?,
                None => self.delete(key),
            }
        }
        Ok(())
    }

    /// Sees to it that the node is looked at when the next thing of it ends.
    pub(crate) fn expire_later(&mut self, node: &mut Node) -> Result<(), StanzaError> {
        let mut next = None;
        if node.config.item_expire > 0 && node.config.persist_items {
            next = self
                .oldest_item(node)?
                .and_then(|(_, item)| end_of_item(&node.config, item.at));
        }
        let prefix = leases_prefix(self.address, node.incarnation());
        let lease = self.scan(&prefix, &prefix, 1)?;
        let lease = lease.first().and_then(|(key, _)| lease_of(key, &prefix));
        next = next.into_iter().chain(lease.map(|(end, ..)| end)).min();
        if node.state.items > node.config.items_max(self.limits()) {
            next = Some(self.now.0);
        }
        let next = next.unwrap_or_default();
        if next == node.state.next_deadline {
            return Ok(());
        }
        if node.state.next_deadline > 0 {
            self.delete(deadline_key(self.shard(), node.state.next_deadline, self.address));
        }
        if next > 0 {
            self.put_bytes(deadline_key(self.shard(), next, self.address), bytes::Bytes::new());
        }
        node.state.next_deadline = next;
        Ok(())
    }

    /// A subscriber's shard has found something out. `incarnation` 0 is the node that there is now.
    pub(crate) fn hear(
        &mut self,
        incarnation: u64,
        jid: &Jid,
        subid: &str,
        finding: Finding,
    ) -> Result<(), StanzaError> {
        let Ok(mut node) = self.node() else { return Ok(()) };
        if incarnation != 0 && incarnation != node.incarnation() {
            return Ok(());
        }
        match finding {
            Finding::Undeliverable | Finding::Unavailable => {
                let found = self.subscriptions_at(&node, jid)?;
                for found in found
                    .into_iter()
                    .filter(|found| subid.is_empty() || found.subid == subid)
                {
                    self.end_subscription(&mut node, &found)?;
                }
                self.keep_state(&node);
            }
            Finding::Available => {
                if node.config.send_last_published_item() == SendLast::OnSubAndPresence {
                    self.send_last_item(&node, jid)?;
                }
            }
        }
        Ok(())
    }

    /// Looks at a slice of the subscriptions, from this key on: who has no affiliation is not let in any more. Says where to go on.
    pub(crate) fn recheck(&mut self, incarnation: u64, from: &Key) -> Result<Option<Key>, StanzaError> {
        let Ok(mut node) = self.node() else { return Ok(None) };
        if node.incarnation() != incarnation || node.config.lets_anybody_in() {
            return Ok(None);
        }
        let prefix = subscriptions_prefix(self.address, incarnation);
        let rows = self.scan(&prefix, from, ENDING_MAX)?;
        let next = match rows.last() {
            Some((key, _)) if rows.len() == ENDING_MAX => Some([&key[..], &[0]].concat().into()),
            _ => None,
        };
        for (key, value) in rows {
            let subscriber = key.get(prefix.len()..).and_then(subscriber_of);
            let (jid, subid) = subscriber.ok_or_else(StanzaError::internal_server_error)?;
            if self.affiliation(&node, &jid.to_bare())? != Affiliation::None {
                continue;
            }
            let row: SubscriptionRow = decode(value)?;
            let found = Found { jid, subid, row };
            self.end_subscription(&mut node, &found)?;
            self.tell_subscription(&found.jid, &found.jid, &found.subid, SubscriptionState::None);
        }
        self.keep_state(&node);
        Ok(next)
    }
}

/// Reads the key of a lease.
fn lease_of(key: &Key, prefix: &Key) -> Option<(u64, Jid, String)> {
    let (end, rest) = key.get(prefix.len()..)?.split_first_chunk::<8>()?;
    let (jid, subid) = subscriber_of(rest)?;
    Some((u64::from_be_bytes(*end), jid, subid))
}
