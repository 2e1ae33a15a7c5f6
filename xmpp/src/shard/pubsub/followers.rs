//! Whom of this shard to notify of which nodes, and what their presence has to do with it.

use prost::Message;

use super::super::{Io, Place, Shard, Turn};
use crate::jid::{BareJid, Jid};
use crate::rows::{Key, Rows, Table, shard_key};
use crate::xep::pubsub::effect::{Finding, FollowerRow, PubsubEffect};
use crate::xep::pubsub::{NodeAddress, follower_key, subscriber_of};

/// Subscriptions of one account that its presence matters for, and that are looked at when it changes.
const FOLLOWED_MAX: usize = 1024;

impl Shard {
    /// Notifies a subscription from now on.
    pub(super) fn keep_follower(
        &self,
        turn: &mut Turn,
        address: &NodeAddress,
        incarnation: u64,
        jid: &Jid,
        subid: &str,
        row: &FollowerRow,
    ) {
        turn.put(follower_key(self.id, address, incarnation, jid, subid), row);
        let followed = self.followed_key(address, incarnation, jid, subid);
        if row.last_on_presence || row.options.unwrap_or_default().temporary {
            turn.put(followed, row);
        } else {
            turn.delete(followed);
        }
    }

    /// Notifies it no more.
    pub(super) fn drop_follower(
        &self,
        turn: &mut Turn,
        address: &NodeAddress,
        incarnation: u64,
        jid: &Jid,
        subid: &str,
    ) {
        turn.delete(follower_key(self.id, address, incarnation, jid, subid));
        turn.delete(self.followed_key(address, incarnation, jid, subid));
    }

    fn followed_prefix(&self, account: &str) -> Key {
        shard_key(Table::PubsubFollowed, self.id.0, &[account.as_bytes(), &[0]].concat())
    }

    fn followed_key(&self, address: &NodeAddress, incarnation: u64, jid: &Jid, subid: &str) -> Key {
        let (prefix, incarnation) = (self.followed_prefix(jid.bare_str()), incarnation.to_be_bytes());
        let (entity, jid) = (address.entity().as_bytes(), jid.as_str().as_bytes());
        let parts: [&[u8]; 7] = [&prefix, entity, &[0], &incarnation, jid, &[0], subid.as_bytes()];
        parts.concat().into()
    }

    /// The subscriptions of an account that its presence matters for.
    fn followed(&self, account: &BareJid, io: &Io<'_>) -> Vec<(NodeAddress, u64, Jid, String, FollowerRow)> {
        let prefix = self.followed_prefix(account.as_str());
        let rows = self.overlay.over(io.rows).scan(&prefix, &prefix, FOLLOWED_MAX);
        let rows = rows.unwrap_or_else(|error| {
            tracing::error!(%error, "what an account is subscribed to cannot be read");
            Vec::new()
        });
        let read = |(key, row): (Key, crate::rows::Value)| {
            let rest = key.get(prefix.len()..)?;
            let zero = rest.iter().position(|byte| *byte == 0)?;
            let address = NodeAddress::of_entity(std::str::from_utf8(rest.get(..zero)?).ok()?)?;
            let (incarnation, rest) = rest.get(zero + 1..)?.split_first_chunk::<8>()?;
            let (jid, subid) = subscriber_of(rest)?;
            let row = FollowerRow::decode(row).ok()?;
            Some((address, u64::from_be_bytes(*incarnation), jid, subid, row))
        };
        rows.into_iter().filter_map(read).collect()
    }

    /// A resource has become available: nodes that send it their last item hear of it (XEP-0060 §12.2).
    pub(in super::super) fn subscriber_available(&mut self, turn: &mut Turn, place: Place, io: &mut Io<'_>) {
        let Some(full) = self.sessions.get(place).map(|session| session.full.clone()) else {
            return;
        };
        let resource = Jid::from(&full);
        let mut told: Vec<NodeAddress> = Vec::new();
        for (address, incarnation, jid, _, row) in self.followed(&full.bare(), io) {
            let is_its = jid.is_bare() || jid == resource;
            if row.last_on_presence && is_its && !told.contains(&address) {
                told.push(address.clone());
                self.report(turn, address, incarnation, resource.clone(), "", Finding::Available, io);
            }
        }
    }

    /// A resource has become unavailable, or is about to end: temporary subscriptions of it are over, and of its account if that
    /// was the last one (§12.5).
    pub(in super::super) fn subscriber_unavailable(&mut self, turn: &mut Turn, place: Place, io: &mut Io<'_>) {
        let Some(full) = self.sessions.get(place).map(|session| session.full.clone()) else {
            return;
        };
        let resource = Jid::from(&full);
        let account = full.bare();
        let others = self.sessions.of_account(account.as_str()).iter();
        let is_last = !others.filter(|other| **other != place).any(|other| {
            self.sessions
                .get(*other)
                .is_some_and(|session| session.priority.is_some())
        });
        for (address, incarnation, jid, subid, row) in self.followed(&account, io) {
            let is_its = jid == resource || (is_last && jid.is_bare());
            if row.options.unwrap_or_default().temporary && is_its {
                self.report(turn, address, incarnation, jid, &subid, Finding::Unavailable, io);
            }
        }
    }

    /// Lets a node know of its subscriber.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn report(
        &mut self,
        turn: &mut Turn,
        address: NodeAddress,
        incarnation: u64,
        jid: Jid,
        subid: &str,
        finding: Finding,
        io: &mut Io<'_>,
    ) {
        let shard = self.config.map.shard_of(address.slot());
        let effect = PubsubEffect::Report {
            address,
            incarnation,
            jid,
            subid: subid.to_owned(),
            finding,
        };
        self.owe_pubsub(turn, shard, effect, io);
    }
}
