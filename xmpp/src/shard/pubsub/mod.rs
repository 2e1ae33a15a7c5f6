//! Pubsub in a shard: requests on their way to nodes, nodes that evaluate, subscribers that are notified
//! (`docs/decisions/0011-publish-subscribe.md`).
//!
//! [`asked`] finds whom a stanza for a service is for; [`evaluating`] has nodes evaluate and carries out what they cause;
//! [`gathering`] asks all shards; [`standing`] asks rosters; [`notifying`] notifies this shard's subscribers, [`followers`] knows them;
//! [`housekeeping`] is what time does.

mod asked;
mod evaluating;
mod followers;
mod gathering;
mod housekeeping;
mod notifying;
mod restoring;
mod standing;

use std::collections::HashMap;
use std::sync::Arc;

use super::{Effect, Event, Io, Output, Place, Shard, Turn};
use crate::link::{Forward, SessionId, ShardId};
use crate::stanza::{Stanza, StanzaError};
use asked::Asked;
use gathering::Gathering;
use notifying::Notifying;
pub(super) use restoring::{RestoredNodes, is_pubsub};
use standing::Parked;

/// The feature level from which on there are pubsub services.
const FEATURE_LEVEL: u32 = 2;

/// What pubsub has under way in a shard. All of it is said again to whoever leads next.
#[derive(Debug, Default)]
pub(super) struct Pubsub {
    notifying: Notifying,
    /// Requests to all shards, by the frame that asks.
    gatherings: HashMap<(SessionId, u64), Gathering>,
    /// Requests that wait for what an account thinks of who asks, by the number of the question.
    parked: HashMap<u64, Parked>,
}

impl Shard {
    /// A device has sent something to a pubsub service.
    pub(super) fn service_sent(
        &mut self,
        place: Place,
        frame: u64,
        repeat: bool,
        stanza: Arc<Stanza>,
        io: &mut Io<'_>,
    ) {
        let Some(session) = self.sessions.get(place) else {
            return;
        };
        let (session, settled) = (session.id, session.inbound.settled);
        let forward = Forward {
            session,
            frame,
            settled,
            repeat,
            stanza: Arc::clone(&stanza),
        };
        match self.asked(&forward) {
            Err(error) => self.bounce(place, frame, &stanza, error, io),
            Ok(Asked::Nothing) => self.settle(place, frame, None, io),
            Ok(Asked::Service(content)) => self.settle(place, frame, Some(stanza.result(content.as_ref())), io),
            Ok(Asked::Node(address)) => {
                let shard = self.config.map.shard_of(address.slot());
                if self.has_room_for(place, &forward, std::slice::from_ref(&shard), io) {
                    self.send_to_nodes(forward, &[shard], io);
                }
            }
            Ok(Asked::All(question)) => {
                if self.pubsub.gatherings.len() >= self.config.limits.pubsub.gatherings_max {
                    io.out.push(Output::Count(Event::Refused("gatherings-full")));
                    return self.bounce(place, frame, &stanza, StanzaError::resource_constraint(), io);
                }
                let shards: Vec<ShardId> = (0..self.config.map.shards()).map(ShardId).collect();
                if self.has_room_for(place, &forward, &shards, io) {
                    // First: this shard's own answer comes at once.
                    let gathering = Gathering::new(question, stanza, shards.len());
                    self.pubsub.gatherings.insert((session, frame), gathering);
                    self.send_to_nodes(forward, &shards, io);
                }
            }
        }
    }

    /// Whether so many requests may wait for other shards; otherwise the device is told that they may not.
    fn has_room_for(&mut self, place: Place, forward: &Forward, shards: &[ShardId], io: &mut Io<'_>) -> bool {
        let others = shards.iter().filter(|shard| **shard != self.id).count();
        let room = others == 0 || self.peers.forwards() + others <= self.config.limits.forwards_max;
        if !room {
            io.out.push(Output::Count(Event::Refused("forwards-full")));
            let error = StanzaError::resource_constraint();
            self.bounce(place, forward.frame, &forward.stanza, error, io);
        }
        room
    }

    /// Gives a request to these shards.
    fn send_to_nodes(&mut self, forward: Forward, shards: &[ShardId], io: &mut Io<'_>) {
        let Some(account) = forward.stanza.from.as_ref().map(crate::jid::Jid::to_bare) else {
            return;
        };
        let mut turn = Turn::of(&account);
        for shard in shards {
            turn.effects.push(Effect::Forward(*shard, forward.clone()));
        }
        self.finish(turn, io);
    }
}
