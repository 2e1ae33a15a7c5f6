//! Pubsub nodes evaluate, and what they cause is carried out.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::{Effect, Io, Shard, Turn};
use super::asked::Asked;
use crate::jid::{BareJid, Jid};
use crate::link::{Durable, Forward};
use crate::rows::{Rows, Value, Write};
use crate::session::Receipt;
use crate::stanza::{ErrorType, IqType, Kind, Stanza, StanzaError};
use crate::xep::pubsub::effect::{Finding, PubsubEffect};
use crate::xep::pubsub::{
    Action, Evaluation, NodeAddress, NodeEffect, Refusal, Standing, Verdict, event_key, is_get_pending, pending_asked,
};
use crate::xml::Element;

impl Shard {
    /// A stanza for a pubsub service, for nodes of this shard.
    pub(in super::super) fn service_forwarded(&mut self, receipt: Receipt, forward: Forward, io: &mut Io<'_>) {
        let reply = match self.asked(&forward) {
            Ok(Asked::Node(address)) => return self.node_asked(receipt, forward, address, HashMap::new(), io),
            Ok(Asked::All(question)) => {
                let Some((origin, service)) = addresses(&forward.stanza) else {
                    return;
                };
                let now = self.stamp(io);
                let rows = self.overlay.over(io.rows);
                match question.part(&origin, &service, self.id, now, &self.config, rows) {
                    Ok(content) => Some(forward.stanza.result(Some(&content))),
                    Err(error) => forward.stanza.error(&error),
                }
            }
            Ok(Asked::Nothing) => None,
            Ok(Asked::Service(content)) => Some(forward.stanza.result(content.as_ref())),
            Err(error) => forward.stanza.error(&error),
        };
        // What is told of may be in a batch of any node.
        let mut turn = Turn::of_shard();
        turn.answer(receipt, reply.map(Arc::new).into_iter().collect());
        self.finish(turn, io);
    }

    /// A stanza for a node of this shard.
    pub(super) fn node_asked(
        &mut self,
        receipt: Receipt,
        forward: Forward,
        address: NodeAddress,
        standings: HashMap<BareJid, Standing>,
        io: &mut Io<'_>,
    ) {
        let Some((origin, _)) = addresses(&forward.stanza) else {
            return;
        };
        let mut turn = Turn::of_node(&address);
        if forward.repeat
            && let Some(replies) = self.executed(address.entity(), forward.session, forward.frame, io)
        {
            turn.answer(receipt, replies);
            return self.finish(turn, io);
        }
        let stanza = Arc::clone(&forward.stanza);
        let answer = self.at_node(&mut turn, &address, &origin, &standings, io, |evaluation| {
            evaluate(evaluation, &stanza)
        });
        let reply = match answer {
            Err(Refusal::Ask(account)) => {
                return self.ask_about(receipt, forward, address, standings, account, io);
            }
            Ok(content) if stanza.kind.is_request() => Some(stanza.result(content.as_ref())),
            Ok(_) => None,
            Err(Refusal::Error(error)) => stanza.error(&error),
            Err(Refusal::Partly(error, content)) => stanza.error_about(&content, &error),
        };
        let replies: Vec<Arc<Stanza>> = reply.map(Arc::new).into_iter().collect();
        if !turn.writes.is_empty() {
            let (session, frame, settled) = (forward.session, forward.frame, forward.settled);
            self.note_executed(&mut turn, address.entity(), session, frame, settled, &replies, io);
        }
        turn.answer(receipt, replies);
        self.finish(turn, io);
    }

    /// Has a node evaluate something as part of a turn: what it writes and causes is added.
    pub(super) fn at_node(
        &mut self,
        turn: &mut Turn,
        address: &NodeAddress,
        origin: &Jid,
        standings: &HashMap<BareJid, Standing>,
        io: &mut Io<'_>,
        evaluate: impl FnOnce(&mut Evaluation<'_>) -> Result<Option<Element>, Refusal>,
    ) -> Result<Option<Element>, Refusal> {
        let now = self.stamp(io);
        let config = Arc::clone(&self.config);
        let rows = self.overlay.over(io.rows);
        let mut evaluation = Evaluation::new(origin, address, now, &config, standings, rows);
        let answer = evaluate(&mut evaluation);
        if matches!(answer, Err(Refusal::Error(_) | Refusal::Ask(_))) {
            return answer;
        }
        let Evaluation { writes, effects, .. } = evaluation;
        turn.writes.extend(writes);
        for effect in effects {
            self.carry_out_for_node(turn, effect, io);
        }
        answer
    }

    fn carry_out_for_node(&mut self, turn: &mut Turn, effect: NodeEffect, io: &mut Io<'_>) {
        match effect {
            NodeEffect::Send(message) => self.durably(turn, Arc::new(message), io),
            NodeEffect::Owe(shard, effect) => self.owe_pubsub(turn, shard, effect, io),
            NodeEffect::Notify(notify, shards) => {
                let effect = PubsubEffect::Notify(notify);
                if let [shard] = shards[..] {
                    return self.owe_pubsub(turn, shard, effect, io);
                }
                // One row holds the message, for all outboxes.
                let stamp = self.stamp(io).0;
                if let PubsubEffect::Notify(notify) = &effect {
                    let row = Write::Put(event_key(self.id, stamp), notify.stanza.encode());
                    turn.writes.push(row);
                }
                let row = Durable::pubsub_bytes(&effect.encode_with_event(stamp));
                let effect = Arc::new(effect);
                for shard in shards {
                    self.owe(turn, shard, Durable::Pubsub(Arc::clone(&effect)), row.clone(), io);
                }
            }
        }
    }

    /// Has another shard, or this one, do its part.
    pub(super) fn owe_pubsub(
        &mut self,
        turn: &mut Turn,
        shard: crate::link::ShardId,
        effect: PubsubEffect,
        io: &mut Io<'_>,
    ) {
        let effect = Durable::Pubsub(Arc::new(effect));
        let row = effect.encode();
        self.owe(turn, shard, effect, row, io);
    }

    /// The effect that a row of an outbox holds, or names.
    pub(in super::super) fn effect_in_row(&self, row: &Value, io: &Io<'_>) -> Option<Durable> {
        let Some(effect) = Durable::pubsub_in(row) else {
            return Durable::decode(row.clone());
        };
        let event = |stamp| {
            let row = self.overlay.over(io.rows).row(&event_key(self.id, stamp));
            row.ok().flatten()
        };
        let effect = PubsubEffect::decode_with_event(effect, event)?;
        Some(Durable::Pubsub(Arc::new(effect)))
    }

    /// A durable effect of pubsub, as part of the turn that notes it.
    pub(in super::super) fn pubsub_arrives(&mut self, turn: &mut Turn, effect: &PubsubEffect, io: &mut Io<'_>) {
        match effect {
            PubsubEffect::Notify(notify) => {
                let stamp = self.keep_notification(turn, notify, io);
                turn.effects.push(Effect::Notify(notify.address.clone(), stamp));
            }
            PubsubEffect::Follow {
                address,
                incarnation,
                jid,
                subid,
                row,
            } => self.keep_follower(turn, address, *incarnation, jid, subid, row),
            PubsubEffect::Unfollow {
                address,
                incarnation,
                jid,
                subid,
            } => self.drop_follower(turn, address, *incarnation, jid, subid),
            PubsubEffect::Report {
                address,
                incarnation,
                jid,
                subid,
                finding,
            } => {
                let heard = self.at_node(turn, address, jid, &HashMap::new(), io, |evaluation| {
                    evaluation.hear(*incarnation, jid, subid, *finding)?;
                    Ok(None)
                });
                if let Err(refusal) = heard {
                    tracing::error!(?refusal, "a pubsub node cannot take what is reported to it");
                }
            }
        }
    }
}

/// Who says something to which service.
fn addresses(stanza: &Stanza) -> Option<(Jid, BareJid)> {
    Some((stanza.from.clone()?, stanza.to.as_ref()?.to_bare()))
}

/// What a node makes of a stanza.
fn evaluate(evaluation: &mut Evaluation<'_>, stanza: &Stanza) -> Result<Option<Element>, Refusal> {
    match stanza.kind {
        Kind::Iq(type_ @ (IqType::Get | IqType::Set)) => {
            let query = stanza.payload_element().map_err(|_| StanzaError::bad_request())?;
            if is_get_pending(&query) {
                return evaluation.ask_again().map(|_| Some(pending_asked()));
            }
            let action = Action::parse(type_, &query, evaluation.limits())?;
            evaluation.request(action)
        }
        Kind::Message(_) if stanza.kind.is_error() => {
            let error = stanza.stanza_error().unwrap_or_else(StanzaError::undefined_condition);
            // XEP-0060 §12.4: there is nobody, or not any more. What may pass is left to pass.
            let is_over = error.type_ == ErrorType::Cancel || error.condition == crate::stanza::Condition::Gone;
            if is_over {
                let from = evaluation.origin.clone();
                evaluation.hear(0, &from, "", Finding::Undeliverable)?;
                let bare = Jid::from(from.to_bare());
                evaluation.hear(0, &bare, "", Finding::Undeliverable)?;
            }
            Ok(None)
        }
        Kind::Message(_) => match Verdict::of(stanza) {
            Some(verdict) => evaluation.judge(&verdict),
            None => Ok(None),
        },
        Kind::Presence(_) | Kind::Iq(IqType::Result | IqType::Error) => Ok(None),
    }
}
