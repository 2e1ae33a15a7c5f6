//! Changes of the map: evaluated, one after the other, by whoever leads the metadata group.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use heronry_storage::{Batch, NodeId, Timestamp};

use super::{CommandError, Inner, Member, map};
use crate::{
    Group, Leadership, Round, Term,
    joining::{Admission, Answer, Ask, Leads},
    map::{ClusterMap, Command, METADATA},
    message::{self, Request},
    metrics,
};

/// How long another member may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The rounds of this node's proposals to the metadata group: each is a chain of one, since each is waited for.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    term: Term,
    round: u32,
}

impl Rounds {
    fn next(&mut self, term: Term) -> Round {
        let round = if term == self.term { self.round + 1 } else { 1 };
        *self = Self { term, round };
        Round { term, round }
    }
}

impl Member {
    /// Changes the map, here or by whoever leads the metadata group. The map that has it.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn command(&self, command: &Command) -> Result<Arc<ClusterMap>, CommandError> {
        change(&self.0, command).await
    }
}

/// Changes the map, here or by whoever leads the metadata group. The map that has it.
pub(super) async fn change(inner: &Inner, command: &Command) -> Result<Arc<ClusterMap>, CommandError> {
    match leads(inner) {
        (Leads::Here, Some(group)) => here(inner, &group, command).await,
        (Leads::There(node), _) => {
            let request = message::encode(Request::Command(command.encode()));
            let answer = inner.call(node, request, CALL_TIMEOUT).await;
            let map = ClusterMap::decode(&answer.map_err(CommandError::Elsewhere)?);
            let map = map.map_err(|error| CommandError::Elsewhere(error.to_string()))?;
            map::heard(inner, map.clone());
            Ok(Arc::new(map))
        }
        _ => Err(CommandError::Unavailable(
            "nobody leads the cluster's metadata group at present".to_owned(),
        )),
    }
}

/// Who leads the metadata group, and the replica of it that is here.
pub(super) fn leads(inner: &Inner) -> (Leads, Option<Group>) {
    let Some(group) = inner.groups.group(METADATA) else {
        // A member without a replica asks one that has one.
        let map = inner.map.borrow().clone();
        let voters = map.as_ref().and_then(|map| map.shards.get(&METADATA));
        let alive = voters.and_then(|placement| {
            let mut voters = placement.voters().into_iter();
            voters.find(|node| inner.groups.is_alive(*node))
        });
        return (alive.map_or(Leads::Nowhere, Leads::There), None);
    };
    let leads = match *group.leadership().borrow() {
        Leadership::Leader { .. } => Leads::Here,
        Leadership::Follower { leader: Some(leader) } => Leads::There(leader),
        Leadership::Follower { leader: None } | Leadership::Closed => Leads::Nowhere,
    };
    (leads, Some(group))
}

/// Evaluates a command on the rows as they are, and proposes what it writes.
pub(super) async fn here(inner: &Inner, group: &Group, command: &Command) -> Result<Arc<ClusterMap>, CommandError> {
    let mut rounds = inner.commanding.lock().await;
    let unavailable = |error: &dyn std::fmt::Display| CommandError::Unavailable(error.to_string());
    let Leadership::Leader { term } = *group.leadership().borrow() else {
        return Err(CommandError::Unavailable(
            "the metadata group has got a new leader".to_owned(),
        ));
    };
    if !group.has_lease(term) {
        return Err(CommandError::Unavailable(
            "the metadata group has no majority at present".to_owned(),
        ));
    }
    let map = map::read(group).map_err(|error| unavailable(&error))?;
    let map = map.ok_or_else(|| CommandError::Unavailable("the cluster has no map yet".to_owned()))?;
    let writes = command.evaluate(&map)?;
    if writes.is_empty() {
        return Ok(Arc::new(map));
    }
    let at = Timestamp(group.last_at().0 + 1);
    let batch = Batch { at, writes };
    let round = rounds.next(term);
    group
        .propose(round, vec![batch])
        .await
        .map_err(|error| unavailable(&error))?;
    let map = map::read(group).map_err(|error| unavailable(&error))?;
    let map = map.ok_or_else(|| CommandError::Unavailable("the map is gone".to_owned()))?;
    map::heard(inner, map.clone());
    Ok(Arc::new(map))
}

/// Another member wants the map changed. Who has no replica of the metadata group cannot know who leads it, and asks any that has: what it
/// asks for is passed on. Those who have one are not: each could take the other for the leader.
pub(super) async fn asked(inner: &Inner, from: NodeId, command: &[u8]) -> Result<Bytes, String> {
    let decoded = Command::decode(command).map_err(|error| error.to_string())?;
    match leads(inner) {
        (Leads::Here, Some(group)) => {
            let map = here(inner, &group, &decoded).await.map_err(|error| error.to_string())?;
            Ok(map.encode())
        }
        (Leads::There(leader), Some(_)) if !has_metadata(inner, from) => {
            let request = message::encode(Request::Command(Bytes::copy_from_slice(command)));
            inner.call(leader, request, CALL_TIMEOUT).await
        }
        _ => Err("this node does not lead the metadata group".to_owned()),
    }
}

/// Whether a node has a replica of the metadata group, as far as this one knows.
fn has_metadata(inner: &Inner, node: NodeId) -> bool {
    let map = inner.map.borrow();
    let placement = map.as_ref().and_then(|map| map.shards.get(&METADATA));
    placement.is_none_or(|placement| placement.voters().contains(&node) || placement.learners().contains(&node))
}

/// A process that is no member asks to be let in.
pub(super) async fn admit(inner: &Inner, ask: &[u8]) -> Answer {
    let answer = answer_to(inner, ask).await;
    metrics::asked_to_join(&answer);
    answer
}

async fn answer_to(inner: &Inner, ask: &[u8]) -> Answer {
    let Some(map) = inner.map.borrow().clone() else {
        return Answer::NotNow("this node has no map yet".to_owned());
    };
    let decoded = match Ask::decode(ask) {
        Ok(ask) => ask,
        Err(error) => return Answer::Refused(error.to_string()),
    };
    let (leads, group) = leads(inner);
    match crate::joining::admit(&map, &inner.options.cluster_name, leads, &decoded) {
        Admission::Answer(answer) => answer,
        Admission::Propose(command) => match group {
            Some(group) => match here(inner, &group, &command).await {
                Ok(map) => Answer::Admitted(Box::new((*map).clone())),
                Err(CommandError::Refused(refused)) => Answer::Refused(refused.to_string()),
                Err(error) => Answer::NotNow(error.to_string()),
            },
            None => Answer::NotNow("the metadata group has got a new leader".to_owned()),
        },
        Admission::Forward(node) => forward(inner, node, ask).await,
    }
}

async fn forward(inner: &Inner, node: NodeId, ask: &[u8]) -> Answer {
    let request = message::encode(Request::Ask(Bytes::copy_from_slice(ask)));
    let answer = inner.call(node, request, CALL_TIMEOUT).await;
    let answer = answer.and_then(|answer| Answer::decode(&answer).map_err(|error| error.to_string()));
    answer.unwrap_or_else(Answer::NotNow)
}
