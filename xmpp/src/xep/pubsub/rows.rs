//! The rows of a pubsub node (`docs/decisions/0011-publish-subscribe.md`), and how their keys are made.

use bytes::Bytes;

use super::address::NodeAddress;
use super::config::Config;
use super::options::Options;
use crate::jid::{BareJid, Jid};
use crate::rows::{Key, Table, account_key};

/// A node: what changes only when an owner says so.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NodeRow {
    #[prost(message, optional, tag = "1")]
    pub(crate) config: Option<Config>,
    /// A bare JID.
    #[prost(string, tag = "2")]
    pub(crate) creator: String,
    /// When it was made, in the shard's microseconds: no two nodes that follow each other under one address share it.
    #[prost(uint64, tag = "3")]
    pub(crate) incarnation: u64,
    /// Bare JIDs, in their order. They are among the affiliations, too.
    #[prost(string, repeated, tag = "4")]
    pub(crate) owners: Vec<String>,
    /// The node is gone, and this is where to go instead (§8.4). Nothing else is said then.
    #[prost(string, optional, tag = "5")]
    pub(crate) moved: Option<String>,
}

/// What changes with nearly every request that changes anything.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StateRow {
    /// The number of the last notification.
    #[prost(uint64, tag = "1")]
    pub(crate) sequence: u64,
    /// Grows when all items are removed.
    #[prost(uint64, tag = "2")]
    pub(crate) generation: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) items: u64,
    /// Those that are notified.
    #[prost(uint64, tag = "4")]
    pub(crate) subscriptions: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) pending: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) affiliations: u64,
    /// Where those are who are notified; no shard twice, none without.
    #[prost(message, repeated, tag = "7")]
    pub(crate) followers: Vec<FollowersRow>,
    /// The deadline row of the next thing that ends by itself; 0: there is none.
    #[prost(uint64, tag = "8")]
    pub(crate) next_deadline: u64,
}

/// How many subscriptions of a node are of accounts in one shard.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct FollowersRow {
    #[prost(uint32, tag = "1")]
    pub(crate) shard: u32,
    #[prost(uint64, tag = "2")]
    pub(crate) count: u64,
}

impl StateRow {
    /// One subscription more in that shard.
    pub(crate) fn follow(&mut self, shard: u16) {
        self.subscriptions += 1;
        let shard = u32::from(shard);
        match self.followers.iter_mut().find(|followers| followers.shard == shard) {
            Some(followers) => followers.count += 1,
            None => self.followers.push(FollowersRow { shard, count: 1 }),
        }
    }

    /// One less.
    pub(crate) fn unfollow(&mut self, shard: u16) {
        self.subscriptions = self.subscriptions.saturating_sub(1);
        let shard = u32::from(shard);
        if let Some(place) = self.followers.iter().position(|followers| followers.shard == shard)
            && let Some(followers) = self.followers.get_mut(place)
        {
            followers.count = followers.count.saturating_sub(1);
            if followers.count == 0 {
                self.followers.swap_remove(place);
            }
        }
    }
}

/// What somebody is to a node (§4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Affiliation {
    /// Nothing: there is no row.
    None = 0,
    /// May do everything.
    Owner = 1,
    /// May publish, subscribe and retrieve.
    Publisher = 2,
    /// May publish, and nothing else.
    PublishOnly = 3,
    /// May subscribe and retrieve.
    Member = 4,
    /// May do nothing.
    Outcast = 5,
}

/// An affiliation.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct AffiliationRow {
    #[prost(enumeration = "Affiliation", tag = "1")]
    pub(crate) affiliation: i32,
}

/// A subscription that is in force, or waits for approval.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct SubscriptionRow {
    #[prost(message, optional, tag = "1")]
    pub(crate) options: Option<Options>,
    /// It waits for an owner's approval.
    #[prost(bool, tag = "2")]
    pub(crate) pending: bool,
    /// The sequence when it came into force: it gets what comes later.
    #[prost(uint64, tag = "3")]
    pub(crate) since: u64,
}

/// An item.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ItemRow {
    /// XML, as a document; empty for an item without payload.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) payload: Bytes,
    /// A bare JID.
    #[prost(string, tag = "2")]
    pub(crate) publisher: String,
    /// When it was published, in the shard's microseconds.
    #[prost(uint64, tag = "3")]
    pub(crate) at: u64,
    /// Its place among the items: see [`place`].
    #[prost(uint64, tag = "4")]
    pub(crate) place: u64,
}

/// The place of an item: the number of the notification that told of it, then its position in the batch. Places grow.
pub(crate) fn place(sequence: u64, position: usize) -> u64 {
    // A batch has at most `batch_items_max` items, which the configuration keeps below 65 536.
    sequence << 16 | (position as u64 & 0xffff)
}

/// The key of [`NodeRow`].
pub(crate) fn node_key(address: &NodeAddress) -> Key {
    account_key(Table::PubsubNode, address.entity(), &[])
}

/// The key of [`StateRow`].
pub(crate) fn state_key(address: &NodeAddress) -> Key {
    account_key(Table::PubsubState, address.entity(), &[])
}

/// What the keys of a node's affiliations begin with.
pub(crate) fn affiliations_prefix(address: &NodeAddress, incarnation: u64) -> Key {
    account_key(Table::PubsubAffiliation, address.entity(), &incarnation.to_be_bytes())
}

/// The key of an affiliation.
pub(crate) fn affiliation_key(address: &NodeAddress, incarnation: u64, entity: &BareJid) -> Key {
    let rest = [&incarnation.to_be_bytes(), entity.as_str().as_bytes()].concat();
    account_key(Table::PubsubAffiliation, address.entity(), &rest)
}

/// What the keys of a node's subscriptions begin with.
pub(crate) fn subscriptions_prefix(address: &NodeAddress, incarnation: u64) -> Key {
    account_key(Table::PubsubSubscription, address.entity(), &incarnation.to_be_bytes())
}

/// The key of a subscription; without a SubID, what the keys of all of that address begin with.
pub(crate) fn subscription_key(address: &NodeAddress, incarnation: u64, jid: &str, subid: &str) -> Key {
    let rest = [&incarnation.to_be_bytes(), jid.as_bytes(), &[0], subid.as_bytes()].concat();
    account_key(Table::PubsubSubscription, address.entity(), &rest)
}

/// Reads what follows the prefix in a subscription's key: the address and the SubID.
pub(crate) fn subscriber_of(rest: &[u8]) -> Option<(Jid, String)> {
    let zero = rest.iter().position(|byte| *byte == 0)?;
    let (jid, subid) = (rest.get(..zero)?, rest.get(zero + 1..)?);
    let jid = Jid::parse(std::str::from_utf8(jid).ok()?).ok()?;
    Some((jid, std::str::from_utf8(subid).ok()?.to_owned()))
}

/// What the keys of subscriptions that end at a time begin with.
pub(crate) fn leases_prefix(address: &NodeAddress, incarnation: u64) -> Key {
    account_key(Table::PubsubLease, address.entity(), &incarnation.to_be_bytes())
}

/// The key that says when a subscription ends; what follows the time is as in its own key.
pub(crate) fn lease_key(address: &NodeAddress, incarnation: u64, end: u64, jid: &Jid, subid: &str) -> Key {
    let numbers = [incarnation.to_be_bytes(), end.to_be_bytes()].concat();
    let rest = [&numbers[..], jid.as_str().as_bytes(), &[0], subid.as_bytes()].concat();
    account_key(Table::PubsubLease, address.entity(), &rest)
}

/// What the keys of a node's items begin with.
pub(crate) fn items_prefix(address: &NodeAddress, incarnation: u64, generation: u64) -> Key {
    let rest = [incarnation.to_be_bytes(), generation.to_be_bytes()].concat();
    account_key(Table::PubsubItem, address.entity(), &rest)
}

/// The key of an item.
pub(crate) fn item_key(address: &NodeAddress, incarnation: u64, generation: u64, id: &str) -> Key {
    let numbers = [incarnation.to_be_bytes(), generation.to_be_bytes()].concat();
    let rest = [&numbers[..], id.as_bytes()].concat();
    account_key(Table::PubsubItem, address.entity(), &rest)
}

/// What the keys of the items by age begin with.
pub(crate) fn order_prefix(address: &NodeAddress, incarnation: u64, generation: u64) -> Key {
    let rest = [incarnation.to_be_bytes(), generation.to_be_bytes()].concat();
    account_key(Table::PubsubItemOrder, address.entity(), &rest)
}

/// The key of an item by its age; its row is the item's id.
pub(crate) fn order_key(address: &NodeAddress, incarnation: u64, generation: u64, place: u64) -> Key {
    let rest = [incarnation.to_be_bytes(), generation.to_be_bytes(), place.to_be_bytes()].concat();
    account_key(Table::PubsubItemOrder, address.entity(), &rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn followers_are_counted_by_shard() {
        let mut state = StateRow::default();
        for shard in [3, 5, 3] {
            state.follow(shard);
        }
        assert_eq!((state.subscriptions, state.followers.len()), (3, 2));
        state.unfollow(5);
        assert_eq!(state.followers, [FollowersRow { shard: 3, count: 2 }]);
        state.unfollow(3);
        state.unfollow(3);
        assert_eq!((state.subscriptions, state.followers.len()), (0, 0));
    }

    #[test]
    fn the_subscriptions_of_an_address_are_not_those_of_a_longer_one() {
        let address = NodeAddress::of_entity("pubsub.example.org/a").expect("an address");
        let short = subscription_key(&address, 1, "a@example.org", "");
        let long = subscription_key(&address, 1, "a@example.org/device", "x");
        assert!(!long.starts_with(&short));
        let prefix = subscriptions_prefix(&address, 1);
        let read = subscriber_of(&long[prefix.len()..]).expect("a subscriber");
        assert_eq!((read.0.as_str(), &*read.1), ("a@example.org/device", "x"));
    }
}
