//! What changes the map: pure functions from a map to writes.

use std::collections::BTreeSet;

use heronry_storage::{NodeId, ShardId, Write};

use super::{
    ClusterMap, MEMBERS_MAX, METADATA, Member, MemberState, Placement, REPLICAS_MAX, Roles, SERVICES_MAX, Services,
    TEXT_BYTES_MAX, rows,
    settings::{self, SETTINGS_MAX},
};

/// A change of the map. Making it twice is as good as making it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A node becomes a member, or a member says what it is now.
    Admit(Newcomer),
    /// A member stays, goes, or is gone.
    SetState {
        /// The member.
        node: NodeId,
        /// What it is from now on.
        state: MemberState,
    },
    /// A member is reached at another address.
    SetAddress {
        /// The member.
        node: NodeId,
        /// `host:port`.
        address: String,
    },
    /// A shard's voters should be these.
    SetShard {
        /// The shard.
        shard: ShardId,
        /// Who should vote; the first should lead.
        target: Vec<NodeId>,
    },
    /// A shard's leader has said who is in its group.
    SetReplicas {
        /// The shard.
        shard: ShardId,
        /// Who votes.
        voters: BTreeSet<NodeId>,
        /// Who gets the log and does not vote.
        learners: BTreeSet<NodeId>,
    },
    /// Something is set, or no longer.
    SetSetting {
        /// A name of [`SETTINGS`](super::SETTINGS).
        name: String,
        /// `None`: the default holds again.
        value: Option<String>,
    },
    /// All members may write what programs of this level know.
    RaiseFeatureLevel(u32),
}

/// A node as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// Its identity.
    pub node: NodeId,
    /// What it does.
    pub roles: Roles,
    /// `host:port`, as others reach it.
    pub address: String,
    /// Where it stands; empty when it does not know.
    pub zone: String,
    /// The highest feature level its program knows.
    pub feature_level: u32,
    /// The version of its program.
    pub version: String,
    /// What it offers to those outside of the cluster, see [`Member::services`].
    pub services: Services,
}

/// A command was refused; the map is as it was. Each is a sentence for an operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody of that id.
    #[error("node {0} is no member of the cluster")]
    NoMember(NodeId),
    /// No shard of that number.
    #[error("there is no shard {0}")]
    NoShard(ShardId),
    /// A node without a role.
    #[error("node {0} has neither the role edge nor the role core")]
    NoRole(NodeId),
    /// It was evicted.
    #[error(
        "node {0} was evicted from the cluster and what it holds is out of date; give it an empty data directory, and it joins as a new node"
    )]
    Evicted(NodeId),
    /// Its program is too old for what the cluster writes.
    #[error("the cluster writes feature level {cluster}, but node {node} knows levels up to {known} only; upgrade it")]
    OldProgram {
        /// The node.
        node: NodeId,
        /// The highest level it knows.
        known: u32,
        /// What the cluster is at.
        cluster: u32,
    },
    /// A member that has replicas can neither leave nor do without the role core.
    #[error("node {node} holds replicas of {}; drain it, and wait until it has none", shards_in_words(.shards))]
    HoldsReplicas {
        /// The node.
        node: NodeId,
        /// What it holds or should hold.
        shards: BTreeSet<ShardId>,
    },
    /// From this state to that one no way leads.
    #[error("node {node} is {from} and cannot become {to}")]
    NoWay {
        /// The node.
        node: NodeId,
        /// What it is.
        from: MemberState,
        /// What it was to become.
        to: MemberState,
    },
    /// A bound.
    #[error("the cluster has {MEMBERS_MAX} members and evicted ones, and takes no more")]
    Full,
    /// A text without an end.
    #[error("{0} is empty or longer than {TEXT_BYTES_MAX} bytes")]
    Text(&'static str),
    /// A target that cannot be one.
    #[error("shard {shard} cannot be placed on {}: {reason}", nodes_in_words(.target))]
    Target {
        /// The shard.
        shard: ShardId,
        /// What was to be its target.
        target: Vec<NodeId>,
        /// Why not.
        reason: &'static str,
    },
    /// A setting that is none.
    #[error("{0}")]
    Setting(String),
    /// The level only grows.
    #[error("the cluster is at feature level {now} and cannot go back to {asked}")]
    LevelFalls {
        /// What it is at.
        now: u32,
        /// What was asked for.
        asked: u32,
    },
    /// Not all members know it.
    #[error("feature level {level} is not known to {}; upgrade them first, or evict those that are gone", nodes_in_words(.members))]
    LevelUnknown {
        /// What was asked for.
        level: u32,
        /// Members with older programs.
        members: Vec<NodeId>,
    },
}

impl Command {
    /// The writes that make this change; none when it is made already.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn evaluate(&self, map: &ClusterMap) -> Result<Vec<Write>, Refused> {
        match self {
            Self::Admit(newcomer) => admit(map, newcomer),
            Self::SetState { node, state } => set_state(map, *node, *state),
            Self::SetAddress { node, address } => set_address(map, *node, address),
            Self::SetShard { shard, target } => set_target(map, *shard, target),
            Self::SetReplicas {
                shard,
                voters,
                learners,
            } => set_replicas(map, *shard, voters, learners),
            Self::SetSetting { name, value } => set_setting(map, name, value.as_deref()),
            Self::RaiseFeatureLevel(level) => raise_feature_level(map, *level),
        }
    }
}

fn admit(map: &ClusterMap, newcomer: &Newcomer) -> Result<Vec<Write>, Refused> {
    let node = newcomer.node;
    let known = map.nodes.get(&node);
    if known.is_some_and(|member| member.state == MemberState::Evicted) {
        return Err(Refused::Evicted(node));
    }
    if !newcomer.roles.edge && !newcomer.roles.core {
        return Err(Refused::NoRole(node));
    }
    if newcomer.feature_level < map.feature_level {
        return Err(Refused::OldProgram {
            node,
            known: newcomer.feature_level,
            cluster: map.feature_level,
        });
    }
    let shards = map.shards_of(node);
    if !newcomer.roles.core && !shards.is_empty() {
        return Err(Refused::HoldsReplicas { node, shards });
    }
    is_address(&newcomer.address)?;
    for (name, text) in [("its zone", &newcomer.zone), ("its version", &newcomer.version)] {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Refused::Text(name));
        }
    }
    let services = newcomer.services.iter().flat_map(|(name, place)| [name, place]);
    if newcomer.services.len() > SERVICES_MAX || services.into_iter().any(|text| text.len() > TEXT_BYTES_MAX) {
        return Err(Refused::Text("what it offers"));
    }
    // Who was on its way out stays so, whatever it says when it starts again.
    let state = known.map_or(MemberState::Active, |member| match member.state {
        MemberState::Left => MemberState::Active,
        state => state,
    });
    let member = newcomer.member(state);
    if known == Some(&member) {
        return Ok(Vec::new());
    }
    let mut writes = Vec::new();
    if known.is_none() && map.nodes.len() >= MEMBERS_MAX {
        // Who has left may be forgotten; who was evicted may not.
        let mut nodes = map.nodes.iter();
        let left = nodes.find(|(_, member)| member.state == MemberState::Left);
        let (left, _) = left.ok_or(Refused::Full)?;
        writes.push(rows::delete_member(*left));
    }
    writes.push(rows::put_member(node, &member));
    Ok(writes)
}

fn set_state(map: &ClusterMap, node: NodeId, to: MemberState) -> Result<Vec<Write>, Refused> {
    let member = map.nodes.get(&node).ok_or(Refused::NoMember(node))?;
    let from = member.state;
    match (from, to) {
        _ if from == to => return Ok(Vec::new()),
        (MemberState::Active | MemberState::Draining, MemberState::Active | MemberState::Draining)
        | (_, MemberState::Evicted) => {}
        (MemberState::Active | MemberState::Draining, MemberState::Left) => {
            let shards = map.shards_of(node);
            if !shards.is_empty() {
                return Err(Refused::HoldsReplicas { node, shards });
            }
        }
        _ => return Err(Refused::NoWay { node, from, to }),
    }
    Ok(vec![changed(node, member, |member| member.state = to)])
}

fn set_address(map: &ClusterMap, node: NodeId, address: &str) -> Result<Vec<Write>, Refused> {
    let member = map.nodes.get(&node).ok_or(Refused::NoMember(node))?;
    is_address(address)?;
    if member.address == address {
        return Ok(Vec::new());
    }
    Ok(vec![changed(node, member, |member| {
        member.address = address.to_owned();
    })])
}

fn set_target(map: &ClusterMap, shard: ShardId, target: &[NodeId]) -> Result<Vec<Write>, Refused> {
    let placement = map.shards.get(&shard).ok_or(Refused::NoShard(shard))?;
    let refused = |reason| Refused::Target {
        shard,
        target: target.to_vec(),
        reason,
    };
    let distinct: BTreeSet<_> = target.iter().collect();
    if target.is_empty() || target.len() > REPLICAS_MAX || distinct.len() != target.len() {
        return Err(refused("it needs one to sixteen different nodes"));
    }
    let stays = |node: &NodeId| placement.replicas.iter().any(|replica| replica.node == *node);
    let may_come = |node: &NodeId| {
        let member = map.nodes.get(node);
        member.is_some_and(|member| member.roles.core && member.state == MemberState::Active)
    };
    if !target.iter().all(|node| stays(node) || may_come(node)) {
        return Err(refused("replicas are given to active members with the role core"));
    }
    if placement.target == target {
        return Ok(Vec::new());
    }
    let placement = Placement {
        target: target.to_vec(),
        ..placement.clone()
    };
    Ok(vec![rows::put_shard(shard, &placement)])
}

fn set_replicas(
    map: &ClusterMap,
    shard: ShardId,
    voters: &BTreeSet<NodeId>,
    learners: &BTreeSet<NodeId>,
) -> Result<Vec<Write>, Refused> {
    let placement = map.shards.get(&shard).ok_or(Refused::NoShard(shard))?;
    let learners = learners.difference(voters).copied();
    let replicas = Placement::replicas_of(voters.iter().copied(), learners);
    if voters.is_empty() || replicas.len() > REPLICAS_MAX {
        return Err(Refused::Target {
            shard,
            target: voters.iter().copied().collect(),
            reason: "it needs one to sixteen different nodes",
        });
    }
    if placement.replicas == replicas {
        return Ok(Vec::new());
    }
    let target = placement.target.clone();
    Ok(vec![rows::put_shard(shard, &Placement { replicas, target })])
}

fn set_setting(map: &ClusterMap, name: &str, value: Option<&str>) -> Result<Vec<Write>, Refused> {
    let set = map.settings.get(name).map(String::as_str);
    if set == value || (name == settings::SECRET && set.is_some_and(settings::is_secret)) {
        return Ok(Vec::new());
    }
    let Some(value) = value else {
        return Ok(vec![rows::delete_setting(name)]);
    };
    if let Some(refusal) = settings::refusal(name, value) {
        return Err(Refused::Setting(refusal));
    }
    if value.len() > TEXT_BYTES_MAX || (set.is_none() && map.settings.len() >= SETTINGS_MAX) {
        return Err(Refused::Setting(format!(
            "{name} cannot be set: too much is set already"
        )));
    }
    Ok(vec![rows::put_setting(name, value)])
}

fn raise_feature_level(map: &ClusterMap, level: u32) -> Result<Vec<Write>, Refused> {
    let now = map.feature_level;
    if level < now {
        return Err(Refused::LevelFalls { now, asked: level });
    }
    let old = map.members().filter(|(_, member)| member.feature_level < level);
    let members: Vec<_> = old.map(|(node, _)| node).collect();
    if !members.is_empty() {
        return Err(Refused::LevelUnknown { level, members });
    }
    if level == now {
        return Ok(Vec::new());
    }
    let raised = ClusterMap {
        feature_level: level,
        ..map.clone()
    };
    Ok(vec![rows::put_cluster(&raised)])
}

fn is_address(address: &str) -> Result<(), Refused> {
    match address.is_empty() || address.len() > TEXT_BYTES_MAX {
        true => Err(Refused::Text("its address")),
        false => Ok(()),
    }
}

fn changed(node: NodeId, member: &Member, change: impl FnOnce(&mut Member)) -> Write {
    let mut member = member.clone();
    change(&mut member);
    rows::put_member(node, &member)
}

impl Newcomer {
    pub(crate) fn member(&self, state: MemberState) -> Member {
        Member {
            roles: self.roles,
            address: self.address.clone(),
            zone: self.zone.clone(),
            state,
            feature_level: self.feature_level,
            version: self.version.clone(),
            services: self.services.clone(),
        }
    }

    pub(super) fn of(node: NodeId, member: Member) -> Self {
        Self {
            node,
            roles: member.roles,
            address: member.address,
            zone: member.zone,
            feature_level: member.feature_level,
            version: member.version,
            services: member.services,
        }
    }
}

/// Shards in a sentence.
pub(crate) fn shards_in_words(shards: &BTreeSet<ShardId>) -> String {
    let numbers: Vec<_> = shards
        .iter()
        .filter(|shard| **shard != METADATA)
        .map(ToString::to_string)
        .collect();
    let named = match numbers.len() {
        0 => None,
        1 => Some(format!("shard {}", numbers[0])),
        _ => Some(format!("shards {}", numbers.join(", "))),
    };
    let metadata = shards.contains(&METADATA).then(|| "the metadata group".to_owned());
    named.into_iter().chain(metadata).collect::<Vec<_>>().join(" and ")
}

/// Nodes in a sentence.
fn nodes_in_words(nodes: &[NodeId]) -> String {
    let names: Vec<_> = nodes.iter().map(ToString::to_string).collect();
    match names.len() {
        1 => format!("node {}", names[0]),
        _ => format!("nodes {}", names.join(", ")),
    }
}
