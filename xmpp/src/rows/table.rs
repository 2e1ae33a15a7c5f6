//! Every table there is, and how their keys begin.

use bytes::{BufMut, Bytes, BytesMut};

use super::Key;
use crate::jid;

/// The first slot that holds a shard's own rows instead of an address's: `SHARD_SLOTS + shard`.
pub const SHARD_SLOTS: u16 = 4096;

/// The tables, by the byte that follows the slot in a key. The numbers are on disk: they are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Table {
    /// (account): credentials. Written by the account.
    Account = 1,
    /// (account, session): a bound resource. Written by the session.
    Session = 2,
    /// (account, session, order): what a session could not hand to its device yet. Written by the session.
    Queue = 3,
    /// (account, stamp): messages stored while no resource could take them. Written by the account.
    Stored = 4,
    /// (account): how many are stored. Written by the account.
    StoredCount = 5,
    /// (account, sender's session): frames whose evaluation wrote something, and what was answered. Written by the account.
    Executed = 6,
    /// (account, element): XEP-0049. Written by the account.
    PrivateXml = 7,
    /// (account, contact): an item of the roster, or a request that waits. Written by the account.
    Contact = 8,
    /// (account): the roster as a whole. Written by the account.
    Roster = 9,
    /// (account, address): whom it blocks. Written by the account.
    Blocked = 10,
    /// (account, session): a resource that is gone, and not everybody who saw it knows. Written by the account.
    Farewell = 11,
    /// (node): its configuration, or where it has moved. Written by the pubsub node.
    PubsubNode = 12,
    /// (node): what changes with every publish. Written by the pubsub node.
    PubsubState = 13,
    /// (node, incarnation, account): what somebody is to it. Written by the pubsub node.
    PubsubAffiliation = 14,
    /// (node, incarnation, address, SubID): a subscription. Written by the pubsub node.
    PubsubSubscription = 15,
    /// (node, incarnation, end, address, SubID): when a subscription ends. Written by the pubsub node.
    PubsubLease = 16,
    /// (node, incarnation, generation, item). Written by the pubsub node.
    PubsubItem = 17,
    /// (node, incarnation, generation, place): the item there. Written by the pubsub node.
    PubsubItemOrder = 18,
    /// (target shard, number): durable effects not yet done. Written by the shard.
    Outbox = 128,
    /// (target shard): the number of the last durable effect. Written by the shard.
    OutboxLast = 129,
    /// (source shard): the last durable effect of it that was done here. Written by the shard.
    InboxLast = 130,
    /// (time, key): a row to look at when the time has come. Written by the shard.
    Deadline = 131,
    /// Which backup the shard restores or has restored, and how far that is. Written by the shard.
    Restored = 132,
    /// (service, node): the shard's nodes, as a list shows them. Written by the pubsub node.
    PubsubNodeOfShard = 133,
    /// (service): how many they are. Written by the pubsub node.
    PubsubNodeCount = 134,
    /// (service, account, node, incarnation): the shard's nodes where somebody is affiliated or subscribed. Written by the pubsub node.
    PubsubNodeOfEntity = 135,
    /// (time, node): a node to look at when the time has come. Written by the pubsub node.
    PubsubDeadline = 136,
    /// (stamp): what remains to be done about a node, in slices. Written by the pubsub node.
    PubsubLeftover = 137,
    /// (node of any shard, incarnation, address, SubID): whom of this shard to notify. Written by the shard.
    PubsubFollower = 138,
    /// (stamp): a notification that is being delivered. Written by the shard.
    PubsubNotifying = 139,
    /// (stamp): a message that durable effects refer to. Written by the shard.
    PubsubEvent = 140,
    /// (account, node, incarnation, address, SubID): a follower for whom its presence matters. Written by the shard.
    PubsubFollowed = 141,
}

/// The key of a row that belongs to an account: slot, table, bare JID, a zero byte (no JID contains one), `rest`.
pub fn account_key(table: Table, account: &str, rest: &[u8]) -> Key {
    key(jid::slot(account), table, &[account.as_bytes(), &[0], rest])
}

/// The key of a row that belongs to the shard itself.
pub fn shard_key(table: Table, shard: u16, rest: &[u8]) -> Key {
    key(SHARD_SLOTS + shard, table, &[rest])
}

fn key(slot: u16, table: Table, parts: &[&[u8]]) -> Bytes {
    let mut key = BytesMut::with_capacity(3 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.put_u16(slot);
    key.put_u8(table as u8);
    for part in parts {
        key.put_slice(part);
    }
    key.freeze()
}
