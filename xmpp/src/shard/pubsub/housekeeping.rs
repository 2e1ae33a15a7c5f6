//! What time does to pubsub nodes: things end, and what is left of nodes is removed, in slices.

use std::collections::HashMap;

use prost::Message;

use super::super::{Io, Shard, Turn};
use crate::jid::Jid;
use crate::link::Durable;
use crate::rows::{Key, Rows, Table};
use crate::xep::pubsub::effect::PubsubEffect;
use crate::xep::pubsub::{
    LeftoverRow, NodeAddress, deadline_of, deadlines_prefix, entity_key, event_key, events_prefix, leftovers_prefix,
    subscriber_of,
};

/// Deadlines looked at in one tick.
const DEADLINES: usize = 64;

/// Slices of what is left of nodes that are removed in one tick.
const SLICES: usize = 4;

/// Messages that are removed in one tick when no outbox refers to them any more.
const EVENTS: usize = 256;

impl Shard {
    /// Time has passed.
    pub(in super::super) fn tick_pubsub(&mut self, io: &mut Io<'_>) {
        self.meet_deadlines(io);
        self.remove_leftovers(io);
        let mut turn = Turn::of_shard();
        self.forget_delivered(&mut turn, io);
        self.forget_events(&mut turn, io);
        if !turn.writes.is_empty() {
            self.finish(turn, io);
        }
    }

    fn meet_deadlines(&mut self, io: &mut Io<'_>) {
        let prefix = deadlines_prefix(self.id);
        let Ok(rows) = self.overlay.over(io.rows).scan(&prefix, &prefix, DEADLINES) else {
            return;
        };
        for (key, _) in rows {
            let Some((due, address)) = key.get(prefix.len()..).and_then(deadline_of) else {
                continue;
            };
            if due > io.now.0 {
                return;
            }
            let mut turn = Turn::of_node(&address);
            let origin = Jid::from(&address.service);
            let met = self.at_node(&mut turn, &address, &origin, &HashMap::new(), io, |evaluation| {
                evaluation.due(due)?;
                Ok(None)
            });
            if let Err(refusal) = met {
                tracing::error!(?refusal, "a pubsub node cannot end what is over");
            }
            self.finish(turn, io);
        }
    }

    fn remove_leftovers(&mut self, io: &mut Io<'_>) {
        let prefix = leftovers_prefix(self.id);
        let Ok(rows) = self.overlay.over(io.rows).scan(&prefix, &prefix, SLICES) else {
            return;
        };
        for (key, row) in rows {
            let Ok(leftover) = LeftoverRow::decode(row) else {
                tracing::error!(key = %key.escape_ascii(), "what is left of a pubsub node cannot be read");
                continue;
            };
            self.remove_slice(&key, leftover, io);
        }
    }

    fn remove_slice(&mut self, key: &Key, mut leftover: LeftoverRow, io: &mut Io<'_>) {
        let Some(address) = NodeAddress::of_entity(&leftover.entity) else {
            return;
        };
        let mut turn = Turn::of_node(&address);
        if let Some(from) = leftover.recheck.take() {
            let origin = Jid::from(&address.service);
            let mut next = None;
            let looked = self.at_node(&mut turn, &address, &origin, &HashMap::new(), io, |evaluation| {
                next = evaluation.recheck(leftover.incarnation, &from)?;
                Ok(None)
            });
            if let Err(refusal) = looked {
                return tracing::error!(?refusal, "the subscriptions of a pubsub node cannot be looked at");
            }
            leftover.recheck = next;
        }
        let slice = self.config.limits.pubsub.leftover_rows;
        while let Some(prefix) = leftover.prefixes.first().cloned() {
            let Ok(rows) = self.overlay.over(io.rows).scan(&prefix, &prefix, slice) else {
                return;
            };
            let all = rows.len() < slice;
            for (row, _) in rows {
                if let Some(entity) = entity_of(&row, prefix.len()) {
                    turn.delete(entity_key(self.id, &address, leftover.incarnation, &entity));
                }
                turn.delete(row);
            }
            if !all {
                break;
            }
            leftover.prefixes.remove(0);
            if !turn.writes.is_empty() {
                break;
            }
        }
        if leftover.prefixes.is_empty() && leftover.recheck.is_none() {
            turn.delete(key.clone());
        } else {
            turn.put(key.clone(), &leftover);
        }
        self.finish(turn, io);
    }

    /// Removes messages that no outbox refers to any more.
    fn forget_events(&self, turn: &mut Turn, io: &Io<'_>) {
        let prefix = events_prefix(self.id);
        let Ok(events) = self.overlay.over(io.rows).scan(&prefix, &prefix, EVENTS) else {
            return;
        };
        if events.is_empty() {
            return;
        }
        // References grow in each outbox, so the first one in each says which messages are still needed.
        let Some(pages) = self.outbox_pages(io) else { return };
        let mut needed = u64::MAX;
        for (page, full) in pages {
            let mut references = page.iter().filter_map(Durable::pubsub_in);
            match references.find_map(PubsubEffect::event_of) {
                Some(first) => needed = needed.min(first),
                None if full => return,
                None => {}
            }
        }
        let needed = event_key(self.id, needed);
        for (key, _) in events.into_iter().take_while(|(key, _)| *key < needed) {
            turn.delete(key);
        }
    }
}

/// Whose affiliation or subscription a row is.
fn entity_of(key: &Key, prefix: usize) -> Option<crate::jid::BareJid> {
    let rest = key.get(prefix..)?;
    let table = key.get(2).copied()?;
    if table == Table::PubsubAffiliation as u8 {
        return crate::jid::BareJid::parse(std::str::from_utf8(rest).ok()?).ok();
    }
    (table == Table::PubsubSubscription as u8)
        .then(|| subscriber_of(rest))
        .flatten()
        .map(|(jid, _)| jid.to_bare())
}
