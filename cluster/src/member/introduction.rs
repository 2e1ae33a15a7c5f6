//! A member says what has changed about itself: another program, address, zone or role than the map says.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{CommandError, Inner, command};
use crate::{
    joining::{About, Answer, Ask},
    map::{ClusterMap, Command, MemberState, Newcomer},
};

/// How long until it is said again, if it could not be said.
const AGAIN: Duration = Duration::from_secs(1);

/// How long a member at an address may take to answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long until it is said again, if it was refused.
const REFUSED_AGAIN: Duration = Duration::from_secs(30);

/// Has the map say what this node is, for ever.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut maps = inner.map.subscribe();
    loop {
        let known = maps.borrow_and_update().clone();
        let wait = match known.filter(|map| differs(map, &inner.options.me)) {
            None => None,
            Some(map) => match tell(&inner, &map).await {
                Ok(()) => None,
                Err(CommandError::Refused(refused)) => {
                    tracing::error!(%refused, "the cluster does not take this node as it is now");
                    Some(REFUSED_AGAIN)
                }
                Err(error) => {
                    tracing::debug!(%error, "the cluster cannot be told what this node is now");
                    Some(AGAIN)
                }
            },
        };
        let changed = match wait {
            None => maps.changed().await,
            // Over: it is said again.
            Some(wait) => timeout(wait, maps.changed()).await.unwrap_or(Ok(())),
        };
        if changed.is_err() {
            return;
        }
    }
}

async fn tell(inner: &Inner, map: &ClusterMap) -> Result<(), CommandError> {
    let me = &inner.options.me;
    let told = command::change(inner, &Command::Admit(me.clone())).await.map(drop);
    let moved = map
        .nodes
        .get(&me.node)
        // Who drains may have left, and would come back by this.
        .is_some_and(|known| known.address != me.address && known.state == MemberState::Active);
    match told {
        Err(CommandError::Unavailable(_) | CommandError::Elsewhere(_)) if moved => tell_addresses(inner, map).await,
        told => told,
    }
}

/// Asks as one that comes in does: the others look for this node where it was, and some of them wait to be found by nobody else.
async fn tell_addresses(inner: &Inner, map: &ClusterMap) -> Result<(), CommandError> {
    let nobody = || CommandError::Unavailable("no member can be reached at its address".to_owned());
    let transport = inner.transport.get().ok_or_else(nobody)?;
    let me = &inner.options.me;
    let ask = Ask {
        about: About {
            node: me.clone(),
            cluster_name: inner.options.cluster_name.clone(),
            is_empty: true,
            bootstrap: None,
            seeds: BTreeMap::new(),
            is_candidate: false,
            pledged_to: None,
            met: BTreeMap::new(),
        },
        please: None,
    };
    let ask = ask.encode();
    for (_, member) in map.members().filter(|(node, _)| *node != me.node) {
        let answer = transport.call_address(&member.address, ask.clone(), CALL_TIMEOUT).await;
        let answer = answer.ok().and_then(|(_, answer)| Answer::decode(&answer).ok());
        if let Some(Answer::Admitted(map)) = answer {
            super::map::heard(inner, *map);
            return Ok(());
        }
    }
    Err(nobody())
}

/// Whether the map says something else of this member. Who has left or was evicted has nothing to say.
fn differs(map: &ClusterMap, me: &Newcomer) -> bool {
    let known = map.nodes.get(&me.node);
    map.version > 0 && known.is_some_and(|known| known.state.is_present() && *known != me.member(known.state))
}
