//! The newest map: kept, read from the metadata group's rows where there is a replica, told to others and asked of them.

use std::{sync::Arc, time::Duration};

use heronry_storage::NodeId;
use tokio::time::MissedTickBehavior;

use super::{Inner, joining};
use crate::{
    Group, blocking,
    joining::Standing,
    map::{ClusterMap, METADATA},
    message::{self, Request},
};

/// How often the metadata group's rows are looked at, where they are.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// After so many looks another member is asked whether it knows a newer map.
const ASK_EVERY: u32 = 10;

/// How long an answer may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// A map has come. Whoever waits for a newer one hears of it, and it is kept for the next start.
pub(super) fn heard(inner: &Inner, map: ClusterMap) -> bool {
    let ours = inner.cluster.borrow().is_none_or(|cluster| cluster == map.cluster);
    if !ours {
        return false;
    }
    let map = Arc::new(map);
    inner.map.send_if_modified(|known| {
        let newer = known.as_ref().is_none_or(|known| known.version < map.version);
        if newer {
            *known = Some(Arc::clone(&map));
        }
        newer
    })
}

/// Does what newer maps say, in their order, for ever: links and groups hear who is a member, and the next start finds the map.
pub(super) async fn follow(inner: Arc<Inner>) {
    let mut maps = inner.map.subscribe();
    // One may have been there before this began.
    maps.mark_changed();
    while maps.changed().await.is_ok() {
        let Some(map) = maps.borrow_and_update().clone() else {
            continue;
        };
        if let Some(transport) = inner.transport.get() {
            transport.wanted(
                map.members()
                    .map(|(node, member)| (node, member.address.clone()))
                    .collect(),
            );
            transport.set_feature_level_in_use(map.feature_level);
        }
        inner.groups.know(map.members().map(|(node, _)| node).collect());
        if map.version == 0 {
            // It is kept already: this node has founded the cluster.
            continue;
        }
        let store = Arc::clone(&inner.store);
        // On a disk that hangs nothing but this waits for it.
        let kept = blocking(move || joining::keep(&*store, &Standing::Member(Box::new((*map).clone()))));
        if let Ok(Err(error)) = kept.await {
            tracing::warn!(%error, "the cluster's map cannot be kept");
        }
    }
}

/// The map in the rows of the metadata group's replica here; `None`: there is none yet.
///
/// # Errors
/// A sentence, when the rows cannot be read or are not a map.
pub(super) fn read(group: &Group) -> Result<Option<ClusterMap>, String> {
    loop {
        let applied = group.applied();
        let map = ClusterMap::read(&group.rows(), applied).map_err(|error| error.to_string());
        // What was applied meanwhile may be in a part of it.
        if group.applied() == applied {
            return map;
        }
    }
}

/// Looks for newer maps, for ever.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut seen, mut looks) = (0, 0u32);
    loop {
        ticks.tick().await;
        looks = looks.wrapping_add(1);
        let Some(known) = inner.map.borrow().clone() else {
            continue;
        };
        if let Some(group) = inner.groups.group(METADATA)
            && group.applied() > seen
        {
            match read(&group) {
                Ok(Some(map)) => {
                    seen = map.version;
                    if heard(&inner, map) {
                        tell(&inner);
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "the cluster's map cannot be read"),
            }
        }
        if looks.is_multiple_of(ASK_EVERY) {
            ask(&inner, &known, looks / ASK_EVERY);
        }
    }
}

/// Tells all others the newest map.
fn tell(inner: &Arc<Inner>) {
    let Some(map) = inner.map.borrow().clone() else { return };
    let request = message::encode(Request::NewMap(map.encode()));
    for (node, _) in map.members().filter(|(node, _)| *node != inner.id.node) {
        let (inner, request) = (Arc::clone(inner), request.clone());
        // Who does not hear it asks.
        tokio::spawn(async move { inner.call(node, request, CALL_TIMEOUT).await });
    }
}

/// Asks one other member after the other.
fn ask(inner: &Arc<Inner>, known: &ClusterMap, turn: u32) {
    let others: Vec<NodeId> = known
        .members()
        .map(|(node, _)| node)
        .filter(|node| *node != inner.id.node)
        .collect();
    let Some(node) = others.get(turn as usize % others.len().max(1)).copied() else {
        return;
    };
    let (inner, version) = (Arc::clone(inner), known.version);
    tokio::spawn(async move {
        let request = message::encode(Request::MapSince(version));
        let answer = inner.call(node, request, CALL_TIMEOUT).await.unwrap_or_default();
        if !answer.is_empty()
            && let Ok(map) = ClusterMap::decode(&answer)
        {
            heard(&inner, map);
        }
    });
}
