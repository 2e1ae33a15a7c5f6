//! What operators ask of a cluster, through the member that this node is.

use std::{collections::BTreeMap, time::Duration};

use heronry_cluster::{
    NodeId, ShardId,
    joining::NoInit,
    map::{ClusterMap, Command, METADATA, MemberState, Placement},
    member::{CommandError, Member, OperatorError, Overview},
};
use heronry_proto::admin::{
    ClusterDrainReply, ClusterEvictReply, ClusterInitReply, ClusterNode, ClusterNodeState, ClusterProgress,
    ClusterShard, ClusterStatusReply, ClusterUpgradeReply,
};

use super::membership::feature_level;
use crate::{admin::BrokerError, config::Role};

/// How long a cluster that is founded may take to be on the disk.
const FOUND_TIMEOUT: Duration = Duration::from_secs(20);

/// Nodes that a refusal lists.
const NODES_LISTED_MAX: usize = 8;

/// The cluster as this node sees it, or what it waits for.
pub(super) async fn status(member: &Member) -> Result<ClusterStatusReply, BrokerError> {
    let me = member.id().node;
    match member.overview().await {
        Ok(overview) => Ok(reply(me, &overview)),
        Err(OperatorError::NoMember(waits_for)) => Ok(ClusterStatusReply {
            node_id: me.0,
            waits_for,
            ..ClusterStatusReply::default()
        }),
        Err(error) => Err(refused(error)),
    }
}

/// Founds a cluster here, unless this node is a member.
pub(super) async fn init(member: &Member, force: bool) -> Result<ClusterInitReply, BrokerError> {
    let mut map = member.map();
    let was_member = map.borrow().is_some();
    member.init(force).await.map_err(|error| match error {
        NoInit::Busy => BrokerError::Unavailable("the node is writing to its disk".to_owned()),
        error => BrokerError::Refused(error.to_string()),
    })?;
    let founded = tokio::time::timeout(FOUND_TIMEOUT, map.wait_for(Option::is_some)).await;
    let slow = || BrokerError::Unavailable("the cluster is not on the disk yet".to_owned());
    let map = founded.ok().and_then(Result::ok).ok_or_else(slow)?;
    let map = map.as_ref().ok_or_else(slow)?;
    Ok(ClusterInitReply {
        founded: !was_member,
        cluster: map.cluster.to_string(),
        name: map.name.clone(),
    })
}

/// Has a node give away what it has, and leave.
pub(super) async fn drain(member: &Member, node: &str) -> Result<ClusterDrainReply, BrokerError> {
    let node = named(member, node)?;
    let notice = member.drain(node).await.map_err(refused)?;
    Ok(ClusterDrainReply {
        node_id: node.0,
        notice: notice.unwrap_or_default(),
    })
}

/// Says that a node is gone for good.
pub(super) async fn evict(member: &Member, node: &str, force: bool) -> Result<ClusterEvictReply, BrokerError> {
    let node = named(member, node)?;
    member.evict(node, force).await.map_err(refused)?;
    Ok(ClusterEvictReply { node_id: node.0 })
}

/// Has replicas moved until they are balanced.
pub(super) async fn rebalance(member: &Member) -> Result<(), BrokerError> {
    if member.map().borrow().is_none() {
        return Err(no_member(&member.waits_for()));
    }
    let command = Command::SetSetting {
        name: "rebalance".to_owned(),
        value: Some("once".to_owned()),
    };
    let commanded = member.command(&command).await;
    commanded.map(drop).map_err(|error| refused(error.into()))
}

/// Raises the feature level to what this node's program knows.
pub(super) async fn upgrade(member: &Member) -> Result<ClusterUpgradeReply, BrokerError> {
    let Some(map) = member.map().borrow().clone() else {
        return Err(no_member(&member.waits_for()));
    };
    let before = map.feature_level;
    let command = Command::RaiseFeatureLevel(feature_level().max(before));
    // What the map forbids is known here, with the sentence.
    if let Err(error) = command.evaluate(&map) {
        return Err(BrokerError::Refused(error.to_string()));
    }
    let map = member.command(&command).await.map_err(|error| refused(error.into()))?;
    Ok(ClusterUpgradeReply {
        before,
        after: map.feature_level,
    })
}

fn refused(error: OperatorError) -> BrokerError {
    match error {
        // What the map forbids is refused here already, so another member only says that it cannot do it now.
        OperatorError::Command(CommandError::Unavailable(sentence) | CommandError::Elsewhere(sentence)) => {
            BrokerError::Unavailable(sentence)
        }
        OperatorError::NoMember(waits_for) => no_member(&waits_for),
        error => BrokerError::Refused(error.to_string()),
    }
}

fn no_member(waits_for: &str) -> BrokerError {
    BrokerError::Refused(format!("this node belongs to no cluster yet: {waits_for}"))
}

fn named(member: &Member, text: &str) -> Result<NodeId, BrokerError> {
    match member.map().borrow().as_ref() {
        Some(map) => find(map, text),
        None => Err(no_member(&member.waits_for())),
    }
}

/// The one node with this id, beginning of an id, or address. Of an address, that of a node which is gone counts only when no member
/// has it.
fn find(map: &ClusterMap, text: &str) -> Result<NodeId, BrokerError> {
    let at = |present: bool| {
        let at = map.nodes.iter().filter(|(_, member)| member.address == text);
        let at = at.filter(|(_, member)| member.state.is_present() == present);
        at.map(|(node, _)| *node).collect::<Vec<_>>()
    };
    let digits = text.to_ascii_lowercase();
    let begins = |node: &&NodeId| !digits.is_empty() && node.to_string().starts_with(&digits);
    let found: Vec<_> = map.nodes.keys().filter(begins).copied().collect();
    let found = [found, at(true), at(false)].into_iter().find(|found| !found.is_empty());
    match found.unwrap_or_default()[..] {
        [] => {
            let listed = list(map.members().map(|(node, _)| node));
            Err(BrokerError::NoNode(format!(
                "no node of the cluster has the id or the address {text:?}; members are {listed}"
            )))
        }
        [node] => Ok(node),
        ref several => {
            let listed = list(several.iter().copied());
            Err(BrokerError::NoNode(format!(
                "{text:?} can be each of {listed}: write more of the id"
            )))
        }
    }
}

fn list(nodes: impl Iterator<Item = NodeId>) -> String {
    let nodes: Vec<_> = nodes.map(|node| node.to_string()).collect();
    match nodes.len().checked_sub(NODES_LISTED_MAX) {
        None | Some(0) => nodes.join(", "),
        Some(more) => format!("{} and {more} more", nodes[..NODES_LISTED_MAX].join(", ")),
    }
}

fn reply(me: NodeId, overview: &Overview) -> ClusterStatusReply {
    let map = &*overview.map;
    let shards = map.shards.iter();
    let shards: Vec<_> = shards
        .map(|(number, placement)| shard(overview, *number, placement))
        .collect();
    let (mut replicas, mut leaderships) = (BTreeMap::new(), BTreeMap::new());
    for shard in &shards {
        for node in shard.voters.iter().chain(&shard.learners) {
            *replicas.entry(*node).or_default() += 1;
        }
        if let Some(leader) = shard.leader {
            *leaderships.entry(leader).or_default() += 1;
        }
    }
    let nodes = map.nodes.iter().map(|(id, member)| {
        let report = overview.nodes.get(id);
        let roles = [(Role::Edge, member.roles.edge), (Role::Core, member.roles.core)];
        let roles = roles.into_iter().filter(|(_, has)| *has);
        ClusterNode {
            node_id: id.0,
            roles: roles.map(|(role, _)| role.name().to_owned()).collect(),
            zone: member.zone.clone(),
            address: member.address.clone(),
            version: member.version.clone(),
            feature_level: member.feature_level,
            state: state(member.state).into(),
            alive: report.is_some_and(|report| report.alive),
            replicas: replicas.get(&id.0).copied().unwrap_or_default(),
            leaderships: leaderships.get(&id.0).copied().unwrap_or_default(),
            streams: report.map_or(0, |report| report.streams),
        }
    });
    let progress = &overview.progress;
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    ClusterStatusReply {
        node_id: me.0,
        waits_for: String::new(),
        cluster: map.cluster.to_string(),
        name: map.name.clone(),
        map_version: map.version,
        feature_level: map.feature_level,
        nodes: nodes.collect(),
        shards,
        progress: Some(ClusterProgress {
            replicas_to_come: count(progress.replicas_to_come),
            replicas_to_go: count(progress.replicas_to_go),
            leaders_to_change: count(progress.leaders_to_change),
        }),
    }
}

fn shard(overview: &Overview, number: ShardId, placement: &Placement) -> ClusterShard {
    let report = overview.shards.get(&number);
    let (voters, learners) = match report {
        Some(report) => (report.voters.clone(), report.learners.clone()),
        None => (placement.voters(), placement.learners()),
    };
    ClusterShard {
        shard: number.0.into(),
        metadata: number == METADATA,
        leader: report.map(|report| report.leader.0),
        term: report.map_or(0, |report| report.term),
        voters: voters.into_iter().map(|node| node.0).collect(),
        learners: learners.into_iter().map(|node| node.0).collect(),
        target: placement.target.iter().map(|node| node.0).collect(),
    }
}

fn state(state: MemberState) -> ClusterNodeState {
    match state {
        MemberState::Active => ClusterNodeState::ClusterNodeActive,
        MemberState::Draining => ClusterNodeState::ClusterNodeDraining,
        MemberState::Left => ClusterNodeState::ClusterNodeLeft,
        MemberState::Evicted => ClusterNodeState::ClusterNodeEvicted,
    }
}

#[cfg(test)]
mod tests {
    use heronry_cluster::{
        ClusterId,
        map::{Newcomer, Roles, Services},
    };

    use super::*;

    fn newcomer(node: u64, address: &str) -> Newcomer {
        Newcomer {
            node: NodeId(node),
            roles: Roles { edge: true, core: true },
            address: address.to_owned(),
            zone: String::new(),
            feature_level: 1,
            version: "1".to_owned(),
            services: Services::new(),
        }
    }

    /// Two nodes whose ids begin alike, and one that was evicted and had the address of the second.
    fn map() -> ClusterMap {
        let founder = newcomer(0xab10_0000_0000_0000, "10.0.0.1:5269");
        let mut map = ClusterMap::founded(ClusterId(1), "test", &founder, 1);
        for (node, state) in [
            (0xab20_0000_0000_0000, MemberState::Active),
            (0xcd00_0000_0000_0000, MemberState::Evicted),
        ] {
            let mut member = map.nodes[&founder.node].clone();
            member.address = "10.0.0.2:5269".to_owned();
            member.state = state;
            map.nodes.insert(NodeId(node), member);
        }
        map
    }

    #[test]
    fn a_node_is_named_by_its_id_or_as_much_of_it_as_is_needed_or_its_address() {
        for (text, node) in [
            ("ab10000000000000", 0xab10_0000_0000_0000),
            ("AB2", 0xab20_0000_0000_0000),
            ("c", 0xcd00_0000_0000_0000),
            ("10.0.0.1:5269", 0xab10_0000_0000_0000),
            ("10.0.0.2:5269", 0xab20_0000_0000_0000),
        ] {
            assert_eq!(find(&map(), text), Ok(NodeId(node)), "{text}");
        }
    }

    #[test]
    fn a_name_that_means_none_or_several_is_refused_with_those_there_are() {
        assert_eq!(
            find(&map(), "ab").unwrap_err().to_string(),
            "\"ab\" can be each of ab10000000000000, ab20000000000000: write more of the id"
        );
        for text in ["", "ff", "10.0.0.1", "ab100000000000000"] {
            assert_eq!(
                find(&map(), text).unwrap_err().to_string(),
                format!(
                    "no node of the cluster has the id or the address {text:?}; members are ab10000000000000, ab20000000000000"
                )
            );
        }
    }

    #[test]
    fn two_members_at_one_address_are_not_taken_for_each_other() {
        let mut map = map();
        for member in map.nodes.values_mut() {
            member.address = "nowhere".to_owned();
        }
        assert!(matches!(find(&map, "nowhere"), Err(BrokerError::NoNode(_))));
    }
}
