//! The first thing said, and whether what the other side says fits.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use heronry_proto::peer::{self, Hello};
use heronry_storage::NodeId;

use super::{Identity, PeerId, Refusal, RefusalReason, lane::Kind};
use crate::ClusterId;

/// The version of `peer.proto`: grows when nodes that speak the former one would be misunderstood.
pub(super) const PROTOCOL: u32 = 1;

/// Texts in a Hello are cut here before they are repeated to anybody, bytes.
const TEXT_MAX: usize = 128;

/// What this process is at this moment.
pub(super) struct Ourselves<'a> {
    pub(super) identity: &'a Identity,
    pub(super) cluster: Option<ClusterId>,
    pub(super) feature_level_in_use: u32,
    pub(super) now: SystemTime,
    pub(super) clock_skew_max: Duration,
}

impl Ourselves<'_> {
    /// What is said first.
    pub(super) fn hello(&self, kind: Kind, worked_with: u64, ticket: u64) -> Hello {
        Hello {
            protocol: PROTOCOL,
            lane: wire(kind).into(),
            cluster_name: self.identity.cluster_name.clone(),
            cluster_id: self
                .cluster
                .map(ClusterId::to_bytes)
                .map(|bytes| bytes.to_vec().into())
                .unwrap_or_default(),
            node_id: self.identity.id.node.0,
            start: self.identity.id.start,
            version: self.identity.version.clone(),
            feature_level: self.identity.feature_level,
            feature_level_in_use: self.feature_level_in_use,
            wall_clock_micros: micros(self.now),
            worked_with,
            ticket,
        }
    }

    /// Whether what the other side says fits, for a connection of that kind. `wanted` says who is a member; `expected` is who should
    /// be at the address.
    pub(super) fn check(
        &self,
        hello: &Hello,
        kind: Kind,
        expected: Option<NodeId>,
        wanted: impl Fn(NodeId) -> bool,
    ) -> Result<Identity, Refusal> {
        let peer = identity(hello);
        let id = peer.id;
        self.check_protocol(hello)?;
        if hello.cluster_name != self.identity.cluster_name {
            let (theirs, ours) = (&peer.cluster_name, &self.identity.cluster_name);
            return refuse(
                RefusalReason::ClusterName,
                format!(
                    "node {} belongs to the cluster {theirs:?}, node {} to {ours:?}",
                    id.node,
                    self.us()
                ),
            );
        }
        if id.node == self.us() {
            let whose = if id == self.identity.id {
                "this very process is at the other end"
            } else {
                "another process has it: a copy of the data directory is in use"
            };
            return refuse(
                RefusalReason::OwnId,
                format!("the node id {} is our own: {whose}", id.node),
            );
        }
        if let Some(expected) = expected
            && expected != id.node
        {
            return refuse(
                RefusalReason::OtherNode,
                format!("node {} is at the address of node {expected}", id.node),
            );
        }
        self.check_cluster(hello, &peer, kind)?;
        if kind != Kind::Ask && !wanted(id.node) {
            return refuse(
                RefusalReason::UnknownNode,
                format!(
                    "node {} is not a member of the cluster, as far as node {} knows",
                    id.node,
                    self.us()
                ),
            );
        }
        self.check_clock(hello, id)?;
        self.check_features(hello, id)?;
        Ok(peer)
    }

    fn check_protocol(&self, hello: &Hello) -> Result<(), Refusal> {
        if hello.protocol == PROTOCOL {
            return Ok(());
        }
        refuse(
            RefusalReason::Protocol,
            format!(
                "version {} of the protocol between nodes is spoken by node {} (heronry {}), version {PROTOCOL} by node {} (heronry {})",
                hello.protocol,
                NodeId(hello.node_id),
                cut(&hello.version),
                self.us(),
                self.identity.version,
            ),
        )
    }

    fn check_cluster(&self, hello: &Hello, peer: &Identity, kind: Kind) -> Result<(), Refusal> {
        let name = &peer.cluster_name;
        let theirs = match hello.cluster_id.len() {
            0 => None,
            _ => match ClusterId::from_bytes(&hello.cluster_id) {
                None => return refuse(RefusalReason::Garbled, "the cluster id does not have 16 bytes"),
                some => some,
            },
        };
        match (self.cluster, theirs) {
            (Some(ours), Some(theirs)) if ours != theirs => refuse(
                RefusalReason::ClusterId,
                format!(
                    "there are two clusters named {name:?}: node {} belongs to {theirs}, node {} to {ours}",
                    peer.id.node,
                    self.us()
                ),
            ),
            (Some(_), Some(_)) => Ok(()),
            _ if kind == Kind::Ask => Ok(()),
            (None, _) => refuse(
                RefusalReason::NoMember,
                format!("node {} is not a member of a cluster yet", self.us()),
            ),
            (_, None) => refuse(
                RefusalReason::NoMember,
                format!("node {} is not a member of a cluster yet", peer.id.node),
            ),
        }
    }

    fn check_clock(&self, hello: &Hello, id: PeerId) -> Result<(), Refusal> {
        let skew = Duration::from_micros(micros(self.now).abs_diff(hello.wall_clock_micros));
        if skew <= self.clock_skew_max {
            return Ok(());
        }
        refuse(
            RefusalReason::ClockSkew,
            format!(
                "the clocks of node {} and node {} are {:.1} s apart, more than {:.1} s",
                id.node,
                self.us(),
                skew.as_secs_f64(),
                self.clock_skew_max.as_secs_f64()
            ),
        )
    }

    fn check_features(&self, hello: &Hello, id: PeerId) -> Result<(), Refusal> {
        let (us, version) = (self.us(), &self.identity.version);
        if hello.feature_level < self.feature_level_in_use {
            return refuse(
                RefusalReason::FeatureLevel,
                format!(
                    "the cluster is at feature level {}, and node {} (heronry {}) knows levels up to {} only",
                    self.feature_level_in_use,
                    id.node,
                    cut(&hello.version),
                    hello.feature_level
                ),
            );
        }
        if self.identity.feature_level < hello.feature_level_in_use {
            return refuse(
                RefusalReason::FeatureLevel,
                format!(
                    "the cluster is at feature level {}, and node {us} (heronry {version}) knows levels up to {} only",
                    hello.feature_level_in_use, self.identity.feature_level
                ),
            );
        }
        Ok(())
    }

    fn us(&self) -> NodeId {
        self.identity.id.node
    }
}

fn refuse<T>(reason: RefusalReason, sentence: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(reason, sentence))
}

/// Who speaks, as it claims.
pub(super) fn identity(hello: &Hello) -> Identity {
    Identity {
        id: PeerId {
            node: NodeId(hello.node_id),
            start: hello.start,
        },
        cluster_name: cut(&hello.cluster_name),
        version: cut(&hello.version),
        feature_level: hello.feature_level,
    }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn wire(kind: Kind) -> peer::Lane {
    match kind {
        Kind::Control => peer::Lane::Control,
        Kind::Messages => peer::Lane::Messages,
        Kind::Bulk => peer::Lane::Bulk,
        Kind::Ask => peer::Lane::Ask,
    }
}

/// What the dialing side wants the connection for.
pub(super) fn kind(hello: &Hello) -> Option<Kind> {
    match peer::Lane::try_from(hello.lane).ok()? {
        peer::Lane::Unspecified => None,
        peer::Lane::Control => Some(Kind::Control),
        peer::Lane::Messages => Some(Kind::Messages),
        peer::Lane::Bulk => Some(Kind::Bulk),
        peer::Lane::Ask => Some(Kind::Ask),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ourselves(identity: &Identity) -> Ourselves<'_> {
        Ourselves {
            identity,
            cluster: Some(ClusterId(1)),
            feature_level_in_use: 1,
            now: UNIX_EPOCH + Duration::from_secs(1_000_000),
            clock_skew_max: Duration::from_secs(5),
        }
    }

    fn identity(node: u64) -> Identity {
        Identity {
            id: PeerId {
                node: NodeId(node),
                start: 1,
            },
            cluster_name: "colony".to_owned(),
            version: "0.1.0".to_owned(),
            feature_level: 1,
        }
    }

    #[test]
    fn what_one_says_the_other_accepts() {
        let (one, two) = (identity(1), identity(2));
        for kind in [Kind::Control, Kind::Messages, Kind::Bulk, Kind::Ask] {
            let hello = ourselves(&one).hello(kind, 0, 0);
            assert_eq!(super::kind(&hello), Some(kind));
            assert_eq!(ourselves(&two).check(&hello, kind, None, |_| true), Ok(one.clone()));
        }
    }

    #[test]
    fn clocks_may_differ_by_as_much_as_is_allowed() {
        let (one, two) = (identity(1), identity(2));
        let hello = ourselves(&one).hello(Kind::Control, 0, 0);
        for (micros, fits) in [(5_000_000, true), (5_000_001, false)] {
            for now in [hello.wall_clock_micros + micros, hello.wall_clock_micros - micros] {
                let late = Ourselves {
                    now: UNIX_EPOCH + Duration::from_micros(now),
                    ..ourselves(&two)
                };
                assert_eq!(
                    late.check(&hello, Kind::Control, None, |_| true).is_ok(),
                    fits,
                    "{micros}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn any_hello_is_accepted_or_refused_in_a_sentence_of_some_length(
            protocol in 0..3_u32,
            lane: i32,
            names in ("(colony|\\PC{0,400})", "\\PC{0,400}"),
            cluster_id in prop_oneof![Just(Vec::new()), Just(ClusterId(1).to_bytes().to_vec()), any::<Vec<u8>>()],
            numbers: (u64, u64, u32, u32, u64),
        ) {
            let hello = Hello {
                protocol,
                lane,
                cluster_name: names.0,
                cluster_id: cluster_id.into(),
                node_id: numbers.0 % 4,
                start: numbers.1,
                version: names.1,
                feature_level: numbers.2 % 3,
                feature_level_in_use: numbers.3 % 3,
                wall_clock_micros: numbers.4,
                worked_with: numbers.1,
                ticket: numbers.0,
            };
            let us = identity(2);
            for kind in [Kind::Control, Kind::Ask] {
                if let Err(refusal) = ourselves(&us).check(&hello, kind, None, |node| node.0 == 1) {
                    prop_assert!(!refusal.sentence.is_empty() && refusal.sentence.len() < 4096);
                }
            }
            super::kind(&hello);
        }
    }
}
