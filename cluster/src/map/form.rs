//! The map as bytes: `proto/heronry/v1/map.proto`.

use bytes::Bytes;
use heronry_proto::map as proto;
use heronry_storage::{NodeId, ShardId};
use prost::Message;

use super::{
    ClusterMap, Command, MEMBERS_MAX, MapError, Member, MemberState, Newcomer, Placement, REPLICAS_MAX, Roles,
    SERVICES_MAX, Services, TEXT_BYTES_MAX, settings::SETTINGS_MAX,
};
use crate::identity::ClusterId;

impl ClusterMap {
    /// As it is sent.
    pub fn encode(&self) -> Bytes {
        let map = proto::Map {
            cluster: Some(cluster(self)),
            version: self.version,
            members: self.nodes.iter().map(|(node, of)| member(*node, of)).collect(),
            shards: self.shards.iter().map(|(number, of)| shard(*number, of)).collect(),
            settings: self.settings.iter().map(|(name, of)| setting(name, of)).collect(),
        };
        map.encode_to_vec().into()
    }

    /// What [`encode`](Self::encode) made.
    ///
    /// # Errors
    /// [`MapError::Malformed`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, MapError> {
        let map = proto::Map::decode(bytes).map_err(malformed)?;
        if map.members.len() > MEMBERS_MAX || map.settings.len() > SETTINGS_MAX {
            return Err(MapError::Malformed("it has too many rows".to_owned()));
        }
        let cluster = map
            .cluster
            .ok_or_else(|| MapError::Malformed("it has no cluster".to_owned()))?;
        let (cluster, name, feature_level) = read_cluster(cluster)?;
        Ok(Self {
            cluster,
            name,
            version: map.version,
            feature_level,
            nodes: map.members.into_iter().map(read_member).collect::<Result<_, _>>()?,
            shards: map.shards.into_iter().map(read_shard).collect::<Result<_, _>>()?,
            settings: map.settings.into_iter().map(read_setting).collect::<Result<_, _>>()?,
        })
    }
}

impl Command {
    /// As it is sent.
    pub fn encode(&self) -> Bytes {
        use proto::command::What;
        let what = match self.clone() {
            Self::Admit(newcomer) => What::Admit(member(newcomer.node, &newcomer.member(MemberState::Active))),
            Self::SetState { node, state } => What::SetState(proto::SetState {
                node: node.0,
                state: state_number(state),
            }),
            Self::SetAddress { node, address } => What::SetAddress(proto::SetAddress { node: node.0, address }),
            Self::SetShard { shard, target } => What::SetTarget(proto::Shard {
                shard: shard.0.into(),
                target: numbers(target),
                ..proto::Shard::default()
            }),
            Self::SetReplicas {
                shard,
                voters,
                learners,
            } => What::SetReplicas(proto::Shard {
                shard: shard.0.into(),
                voters: numbers(voters),
                learners: numbers(learners),
                target: Vec::new(),
            }),
            Self::SetSetting { name, value } => What::SetSetting(proto::SetSetting { name, value }),
            Self::RaiseFeatureLevel(level) => What::RaiseFeatureLevel(level),
        };
        proto::Command { what: Some(what) }.encode_to_vec().into()
    }

    /// What [`encode`](Self::encode) made.
    ///
    /// # Errors
    /// [`MapError::Malformed`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, MapError> {
        use proto::command::What;
        let what = proto::Command::decode(bytes).map_err(malformed)?.what;
        Ok(
            match what.ok_or_else(|| MapError::Malformed("a command of a newer program".to_owned()))? {
                What::Admit(member) => {
                    let state = state_number(MemberState::Active);
                    let (node, member) = read_member(proto::Member { state, ..member })?;
                    Self::Admit(Newcomer::of(node, member))
                }
                What::SetState(set) => Self::SetState {
                    node: NodeId(set.node),
                    state: read_state(set.state)?,
                },
                What::SetAddress(set) => Self::SetAddress {
                    node: NodeId(set.node),
                    address: text(set.address)?,
                },
                What::SetTarget(shard) => {
                    let (shard, placement) = read_shard(shard)?;
                    Self::SetShard {
                        shard,
                        target: placement.target,
                    }
                }
                What::SetReplicas(shard) => {
                    let (shard, placement) = read_shard(shard)?;
                    Self::SetReplicas {
                        shard,
                        voters: placement.voters(),
                        learners: placement.learners(),
                    }
                }
                What::SetSetting(set) => Self::SetSetting {
                    name: text(set.name)?,
                    value: set.value.map(text).transpose()?,
                },
                What::RaiseFeatureLevel(level) => Self::RaiseFeatureLevel(level),
            },
        )
    }
}

pub(super) fn cluster(map: &ClusterMap) -> proto::Cluster {
    proto::Cluster {
        id: map.cluster.to_bytes().to_vec().into(),
        name: map.name.clone(),
        feature_level: map.feature_level,
    }
}

pub(super) fn read_cluster(cluster: proto::Cluster) -> Result<(ClusterId, String, u32), MapError> {
    let id = ClusterId::from_bytes(&cluster.id)
        .ok_or_else(|| MapError::Malformed("a cluster's id has 16 bytes".to_owned()))?;
    Ok((id, text(cluster.name)?, cluster.feature_level))
}

pub(super) fn member(node: NodeId, member: &Member) -> proto::Member {
    proto::Member {
        node: node.0,
        edge: member.roles.edge,
        core: member.roles.core,
        address: member.address.clone(),
        zone: member.zone.clone(),
        state: state_number(member.state),
        feature_level: member.feature_level,
        version: member.version.clone(),
        services: member.services.clone(),
    }
}

pub(super) fn read_member(member: proto::Member) -> Result<(NodeId, Member), MapError> {
    let read = Member {
        roles: Roles {
            edge: member.edge,
            core: member.core,
        },
        address: text(member.address)?,
        zone: text(member.zone)?,
        state: read_state(member.state)?,
        feature_level: member.feature_level,
        version: text(member.version)?,
        services: read_services(member.services)?,
    };
    Ok((NodeId(member.node), read))
}

pub(crate) fn read_services(services: Services) -> Result<Services, MapError> {
    if services.len() > SERVICES_MAX {
        return Err(MapError::Malformed(format!("{} services", services.len())));
    }
    let read = |(name, place)| Ok((text(name)?, text(place)?));
    services.into_iter().map(read).collect()
}

pub(super) fn shard(shard: ShardId, placement: &Placement) -> proto::Shard {
    proto::Shard {
        shard: shard.0.into(),
        voters: numbers(placement.voters()),
        learners: numbers(placement.learners()),
        target: numbers(placement.target.iter().copied()),
    }
}

pub(super) fn read_shard(shard: proto::Shard) -> Result<(ShardId, Placement), MapError> {
    let number = u16::try_from(shard.shard).map_err(malformed)?;
    if shard.voters.len() + shard.learners.len() > REPLICAS_MAX || shard.target.len() > REPLICAS_MAX {
        return Err(MapError::Malformed(format!("shard {number} has too many replicas")));
    }
    let nodes = |nodes: Vec<u64>| nodes.into_iter().map(NodeId);
    let placement = Placement {
        replicas: Placement::replicas_of(nodes(shard.voters), nodes(shard.learners)),
        target: nodes(shard.target).collect(),
    };
    Ok((ShardId(number), placement))
}

pub(super) fn setting(name: &str, value: &str) -> proto::Setting {
    proto::Setting {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

pub(super) fn read_setting(setting: proto::Setting) -> Result<(String, String), MapError> {
    Ok((text(setting.name)?, text(setting.value)?))
}

fn numbers(nodes: impl IntoIterator<Item = NodeId>) -> Vec<u64> {
    nodes.into_iter().map(|node| node.0).collect()
}

fn state_number(state: MemberState) -> i32 {
    match state {
        MemberState::Active => proto::MemberState::Active,
        MemberState::Draining => proto::MemberState::Draining,
        MemberState::Left => proto::MemberState::Left,
        MemberState::Evicted => proto::MemberState::Evicted,
    }
    .into()
}

fn read_state(state: i32) -> Result<MemberState, MapError> {
    match proto::MemberState::try_from(state) {
        Ok(proto::MemberState::Active) => Ok(MemberState::Active),
        Ok(proto::MemberState::Draining) => Ok(MemberState::Draining),
        Ok(proto::MemberState::Left) => Ok(MemberState::Left),
        Ok(proto::MemberState::Evicted) => Ok(MemberState::Evicted),
        Ok(proto::MemberState::Unspecified) | Err(_) => {
            Err(MapError::Malformed(format!("{state} is no state of a member")))
        }
    }
}

fn text(text: String) -> Result<String, MapError> {
    match text.len() <= TEXT_BYTES_MAX {
        true => Ok(text),
        false => Err(MapError::Malformed(format!("a text of {} bytes", text.len()))),
    }
}

pub(super) fn malformed(error: impl std::fmt::Display) -> MapError {
    MapError::Malformed(error.to_string())
}
