//! The secret from which accounts that do not exist get their salts is the cluster's: edges that said different things of the same address
//! would tell that there is no such account.

use std::{sync::Arc, time::Duration};

use heronry_cluster::{
    map::{ClusterMap, Command, SECRET, is_secret},
    member::WeakMember,
};
use heronry_xmpp::stream::ResponderConfig;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

/// How long it waits before it proposes a secret again.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// Has the edge take the cluster's secret, or the cluster this node's, if it has none. Says when that is done; until then the edge has its own.
pub(super) fn agree(member: WeakMember, config: Arc<ResponderConfig>, own: Vec<u8>) -> watch::Receiver<bool> {
    let (done, agreed) = watch::channel(false);
    tokio::spawn(async move {
        while let Some(secret) = wait(&member, &own).await {
            if let Some(secret) = secret {
                config.unknown_users.agree(&secret);
                // Whoever waited may have given up.
                let _ = done.send(true);
                return;
            }
        }
    });
    agreed
}

/// The cluster's secret; `None` within: there is none yet. `None`: the node has ended.
async fn wait(member: &WeakMember, own: &[u8]) -> Option<Option<Vec<u8>>> {
    let mut known = member.upgrade()?.map();
    let found = known
        .wait_for(Option::is_some)
        .await
        .ok()?
        .as_ref()
        .and_then(|map| secret_of(map));
    if found.is_some() {
        return Some(found);
    }
    let command = Command::SetSetting {
        name: SECRET.to_owned(),
        value: Some(hex(own)),
    };
    let map = match member.upgrade()?.command(&command).await {
        Ok(map) => return Some(secret_of(&map)),
        Err(error) => error,
    };
    // Nobody leads, or a program leads that does not know of it.
    tracing::debug!(error = %map, "the cluster has no secret yet");
    tokio::time::sleep(TRY_AGAIN).await;
    Some(None)
}

fn secret_of(map: &ClusterMap) -> Option<Vec<u8>> {
    let digits = map.settings.get(SECRET).filter(|digits| is_secret(digits))?;
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.as_bytes().chunks(2).map(byte).collect()
}

/// A secret as the map has it. One of another length than ours counts by its hash.
fn hex(own: &[u8]) -> String {
    use std::fmt::Write as _;
    let hashed = Sha256::digest(own);
    let own = if own.len() == 32 { own } else { &hashed[..] };
    own.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use heronry_cluster::{
        ClusterId, NodeId,
        map::{Newcomer, Roles, Services},
    };

    use super::*;

    #[test]
    fn a_secret_is_read_from_the_map_as_it_was_proposed() {
        let founder = Newcomer {
            node: NodeId(1),
            roles: Roles { edge: true, core: true },
            address: "nowhere".to_owned(),
            zone: String::new(),
            feature_level: 1,
            version: "1".to_owned(),
            services: Services::new(),
        };
        let map = ClusterMap::founded(ClusterId(1), "test", &founder, 1);
        assert_eq!(secret_of(&map), None);
        let with = |value: String| ClusterMap {
            settings: BTreeMap::from([(SECRET.to_owned(), value)]),
            ..map.clone()
        };
        let own: Vec<u8> = (0..32).collect();
        assert_eq!(secret_of(&with(hex(&own))), Some(own));
        assert_eq!(secret_of(&with(hex(b"short"))).map(|secret| secret.len()), Some(32));
        for nonsense in ["", "0", "zz", &"0".repeat(63), &"é".repeat(32)] {
            assert_eq!(secret_of(&with(nonsense.to_owned())), None, "{nonsense}");
        }
    }
}
