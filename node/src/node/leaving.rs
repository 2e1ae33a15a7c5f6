//! What being drained means for the devices of this node: its edge learns of it, and of edges that can take them.

use std::{sync::Arc, time::Duration};

use heronry_cluster::{
    map::{ClusterMap, MemberState, Services},
    member::{Member, WeakMember},
};

use crate::{
    config,
    edge::{Doors, Edge},
};

/// How often it is looked which edges are reached.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The names of the doors of an edge among what members offer.
const C2S: &str = "c2s";
const C2S_TLS: &str = "c2s_tls";

/// What other members are told of the doors of this edge.
pub(super) fn services(edge: &config::Edge) -> Services {
    let doors = [(C2S, &edge.advertise), (C2S_TLS, &edge.advertise_tls)];
    let doors = doors.into_iter().filter_map(|(name, door)| Some((name, door.clone()?)));
    doors.map(|(name, door)| (name.to_owned(), door)).collect()
}

/// Tells the edge whether it stays; for ever.
pub(super) async fn follow(weak: WeakMember, edge: Arc<Edge>) {
    while let Some(member) = weak.upgrade() {
        let mut changes = member.map();
        let map = changes.borrow_and_update().clone();
        let others = map.and_then(|map| others(&member, &map));
        if others.is_some() && !edge.is_leaving() {
            tracing::info!("this node is being drained: its devices are sent to other edges");
        }
        edge.leave(others);
        drop(member);
        // Whichever comes first.
        let _ = tokio::time::timeout(LOOK_EVERY, changes.changed()).await;
    }
}

/// Where the edges are that this node can reach now; `None`: it stays itself.
fn others(member: &Member, map: &ClusterMap) -> Option<Vec<Doors>> {
    let me = member.id().node;
    map.nodes.get(&me).filter(|me| me.state != MemberState::Active)?;
    let others = map.nodes.iter().filter(|(node, other)| {
        let stays = other.roles.edge && other.state == MemberState::Active;
        stays && **node != me && member.connected(**node).is_some()
    });
    let door = |services: &Services, name| services.get(name).map(|door| door.as_str().into());
    let doors = others.map(|(_, other)| Doors {
        clear: door(&other.services, C2S),
        tls: door(&other.services, C2S_TLS),
    });
    Some(doors.collect())
}
