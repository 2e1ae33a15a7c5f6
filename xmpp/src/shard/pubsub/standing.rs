//! What an account's roster says about somebody, for pubsub nodes of other shards (XEP-0060 §4.5).

use std::collections::HashMap;

use prost::Message;

use super::super::{Effect, Event, Io, Output, Shard, Turn};
use crate::im::roster::row::{ContactRow, contact_key};
use crate::jid::BareJid;
use crate::link::{Ask, Forward, ShardId};
use crate::rows::Rows;
use crate::session::Receipt;
use crate::stanza::StanzaError;
use crate::xep::pubsub::{NodeAddress, Standing};

/// A request that waits until an account has said what it thinks of who asks.
#[derive(Debug)]
pub(super) struct Parked {
    receipt: Receipt,
    forward: Forward,
    address: NodeAddress,
    standings: HashMap<BareJid, Standing>,
    account: BareJid,
}

impl super::Pubsub {
    /// The account does not answer in time.
    pub(in super::super) fn forget_parked(&mut self, number: u64) {
        self.parked.remove(&number);
    }
}

impl Shard {
    /// Asks an account, and has the request evaluated again when it has answered.
    pub(super) fn ask_about(
        &mut self,
        receipt: Receipt,
        forward: Forward,
        address: NodeAddress,
        standings: HashMap<BareJid, Standing>,
        account: BareJid,
        io: &mut Io<'_>,
    ) {
        let mut turn = Turn::of_node(&address);
        let about = forward.stanza.from.as_ref().map(crate::jid::Jid::to_bare);
        let full = self.pubsub.parked.len() >= self.config.limits.forwards_max;
        let Some(about) = about.filter(|_| !full) else {
            io.out.push(Output::Count(Event::Refused("forwards-full")));
            let error = forward.stanza.error(&StanzaError::resource_constraint());
            turn.answer(receipt, error.map(std::sync::Arc::new).into_iter().collect());
            return self.finish(turn, io);
        };
        let number = self.stamp(io).0;
        let shard = self.config.shard_of(account.as_str());
        turn.effects.push(Effect::Ask(
            shard,
            Ask {
                number,
                account: account.clone(),
                about,
            },
        ));
        let parked = Parked {
            receipt,
            forward,
            address,
            standings,
            account,
        };
        self.pubsub.parked.insert(number, parked);
        self.finish(turn, io);
    }

    /// An account of this shard is asked.
    pub(in super::super) fn ask_arrives(&mut self, from: ShardId, ask: &Ask, io: &mut Io<'_>) {
        let row = self
            .overlay
            .over(io.rows)
            .row(&contact_key(&ask.account, ask.about.as_str()));
        let row = row.unwrap_or_else(|error| {
            tracing::error!(%error, "a roster cannot be read");
            None
        });
        let contact = row.and_then(|row| ContactRow::decode(row).ok());
        let standing = contact.map_or_else(Standing::default, |contact| Standing {
            subscribed: contact.state().discloses(),
            groups: contact.groups,
        });
        let mut turn = Turn::of(&ask.account);
        turn.effects.push(Effect::Stands(from, ask.number, standing));
        self.finish(turn, io);
    }

    /// An account has answered.
    pub(in super::super) fn stands(&mut self, number: u64, standing: Standing, io: &mut Io<'_>) {
        self.peers.answered(number);
        let Some(parked) = self.pubsub.parked.remove(&number) else {
            return;
        };
        let Parked {
            receipt,
            forward,
            address,
            mut standings,
            account,
        } = parked;
        standings.insert(account, standing);
        self.node_asked(receipt, forward, address, standings, io);
    }
}
