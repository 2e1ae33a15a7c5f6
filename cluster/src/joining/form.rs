//! Questions, answers and what is kept, as bytes: `proto/heronry/v1/join.proto`.

use bytes::Bytes;
use heronry_proto::join as proto;
use heronry_storage::NodeId;
use prost::Message;

use super::{About, Answer, Ask, MET_MAX, Please, SEEDS_MAX, Standing};
use crate::map::{ClusterMap, MapError, Newcomer, Roles, TEXT_BYTES_MAX, read_services};

impl Ask {
    /// As it is sent.
    pub fn encode(&self) -> Bytes {
        let please = self.please.as_ref().map(|please| proto::Please {
            round: please.round,
            team: please.team.iter().map(|node| node.0).collect(),
        });
        let about = Some(about(&self.about));
        proto::Ask { about, please }.encode_to_vec().into()
    }

    /// What [`encode`](Self::encode) made.
    ///
    /// # Errors
    /// [`MapError::Malformed`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, MapError> {
        let ask = proto::Ask::decode(bytes).map_err(malformed)?;
        let please = ask.please.map(|please| Please {
            round: please.round,
            team: please.team.into_iter().take(MET_MAX + 1).map(NodeId).collect(),
        });
        let about = read_about(ask.about)?;
        Ok(Self { about, please })
    }
}

impl Answer {
    /// As it is sent.
    pub fn encode(&self) -> Bytes {
        use proto::answer::What;
        let what = match self {
            Self::Waiting { about: of, pledged } => What::Waiting(proto::Waiting {
                about: Some(about(of)),
                pledged: *pledged,
            }),
            Self::Admitted(map) => What::Admitted(map.encode()),
            Self::Refused(sentence) => What::Refused(sentence.clone()),
            Self::NotNow(sentence) => What::NotNow(sentence.clone()),
        };
        proto::Answer { what: Some(what) }.encode_to_vec().into()
    }

    /// What [`encode`](Self::encode) made.
    ///
    /// # Errors
    /// [`MapError::Malformed`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, MapError> {
        use proto::answer::What;
        let what = proto::Answer::decode(bytes).map_err(malformed)?.what;
        Ok(match what.ok_or_else(|| malformed("an answer of a newer program"))? {
            What::Waiting(waiting) => Self::Waiting {
                about: Box::new(read_about(waiting.about)?),
                pledged: waiting.pledged,
            },
            What::Admitted(map) => Self::Admitted(Box::new(ClusterMap::decode(&map)?)),
            What::Refused(sentence) => Self::Refused(shortened(sentence)),
            What::NotNow(sentence) => Self::NotNow(shortened(sentence)),
        })
    }
}

impl Standing {
    /// As it is kept.
    pub fn encode(&self) -> Bytes {
        use proto::standing::What;
        let what = match self {
            Self::Alone => None,
            Self::Pledged { to, address } => Some(What::Pledged(seed(address, Some(*to)))),
            Self::Member(map) => Some(What::Member(map.encode())),
        };
        proto::Standing { what }.encode_to_vec().into()
    }

    /// What [`encode`](Self::encode) made.
    ///
    /// # Errors
    /// [`MapError::Malformed`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, MapError> {
        use proto::standing::What;
        Ok(match proto::Standing::decode(bytes).map_err(malformed)?.what {
            None => Self::Alone,
            Some(What::Pledged(seed)) => Self::Pledged {
                to: NodeId(seed.node.ok_or_else(|| malformed("a pledge to nobody"))?),
                address: seed.address,
            },
            Some(What::Member(map)) => Self::Member(Box::new(ClusterMap::decode(&map)?)),
        })
    }
}

fn about(about: &About) -> proto::About {
    let Newcomer {
        node,
        roles,
        address,
        zone,
        feature_level,
        version,
        services,
    } = about.node.clone();
    proto::About {
        node: Some(proto::Node {
            node: node.0,
            edge: roles.edge,
            core: roles.core,
            address,
            zone,
            feature_level,
            version,
            services,
        }),
        cluster_name: about.cluster_name.clone(),
        is_empty: about.is_empty,
        bootstrap: about.bootstrap.unwrap_or(0).into(),
        seeds: about.seeds.iter().map(|(address, node)| seed(address, *node)).collect(),
        is_candidate: about.is_candidate,
        pledged_to: about.pledged_to.map(|node| node.0),
        met: about
            .met
            .iter()
            .map(|(node, address)| seed(address, Some(*node)))
            .collect(),
    }
}

fn read_about(about: Option<proto::About>) -> Result<About, MapError> {
    let about = about.ok_or_else(|| malformed("nobody asks"))?;
    let node = about.node.ok_or_else(|| malformed("nobody asks"))?;
    if about.seeds.len() > SEEDS_MAX || about.met.len() > MET_MAX {
        return Err(malformed("it knows too many nodes"));
    }
    let met = about
        .met
        .into_iter()
        .filter_map(|met| Some((NodeId(met.node?), met.address)));
    let seeds = about
        .seeds
        .into_iter()
        .map(|seed| (seed.address, seed.node.map(NodeId)));
    let about = About {
        node: Newcomer {
            node: NodeId(node.node),
            roles: Roles {
                edge: node.edge,
                core: node.core,
            },
            address: node.address,
            zone: node.zone,
            feature_level: node.feature_level,
            version: node.version,
            services: read_services(node.services)?,
        },
        cluster_name: about.cluster_name,
        is_empty: about.is_empty,
        bootstrap: u16::try_from(about.bootstrap).ok().filter(|count| *count > 0),
        seeds: seeds.collect(),
        is_candidate: about.is_candidate,
        pledged_to: about.pledged_to.map(NodeId),
        met: met.collect(),
    };
    let addresses = about.seeds.keys().chain(about.met.values());
    let mut texts = addresses.chain([
        &about.node.address,
        &about.node.zone,
        &about.node.version,
        &about.cluster_name,
    ]);
    if texts.any(|text| text.len() > TEXT_BYTES_MAX) {
        return Err(malformed("a text is too long"));
    }
    drop(texts);
    Ok(about)
}

fn seed(address: &str, node: Option<NodeId>) -> proto::Seed {
    proto::Seed {
        address: address.to_owned(),
        node: node.map(|node| node.0),
    }
}

/// Of another's sentence, what fits a line of a log.
fn shortened(mut sentence: String) -> String {
    sentence.truncate(sentence.floor_char_boundary(1024));
    sentence
}

fn malformed(error: impl std::fmt::Display) -> MapError {
    MapError::Malformed(error.to_string())
}
