//! A request to all shards: their answers are gathered and merged.

use std::sync::Arc;

use super::super::Shard;
use crate::link::SessionId;
use crate::stanza::{IqType, Kind, Stanza, StanzaError};
use crate::xep::pubsub::Question;

/// Answers that have come.
#[derive(Debug)]
pub(super) struct Gathering {
    question: Question,
    request: Arc<Stanza>,
    /// How many shards have not answered.
    left: usize,
    answers: Vec<Arc<Stanza>>,
}

impl Gathering {
    /// Nothing has come yet.
    pub(super) fn new(question: Question, request: Arc<Stanza>, shards: usize) -> Self {
        Self {
            question,
            request,
            left: shards,
            answers: Vec::new(),
        }
    }
}

impl Shard {
    /// The replies to a frame: of one that asks all shards there are none before the last one has answered.
    pub(in super::super) fn gathered(
        &mut self,
        session: SessionId,
        frame: u64,
        replies: Vec<Arc<Stanza>>,
    ) -> Option<Vec<Arc<Stanza>>> {
        if self.pubsub.gatherings.is_empty() {
            return Some(replies);
        }
        let Some(gathering) = self.pubsub.gatherings.get_mut(&(session, frame)) else {
            return Some(replies);
        };
        gathering.left = gathering.left.saturating_sub(1);
        gathering.answers.extend(replies);
        if gathering.left > 0 {
            return None;
        }
        let Gathering {
            question,
            request,
            answers,
            ..
        } = self.pubsub.gatherings.remove(&(session, frame))?;
        let failed = answers.iter().find(|answer| answer.kind == Kind::Iq(IqType::Error));
        if let Some(failed) = failed {
            return Some(vec![Arc::clone(failed)]);
        }
        let parts: Result<Vec<_>, _> = answers.iter().map(|answer| answer.payload_element()).collect();
        let reply = match parts {
            Ok(parts) => Some(request.result(Some(&question.merge(parts, &self.config)))),
            Err(_) => request.error(&StanzaError::internal_server_error()),
        };
        Some(reply.map(Arc::new).into_iter().collect())
    }
}
