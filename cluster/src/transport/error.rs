//! What can go wrong with links.

use std::{io, time::Duration};

/// The transport could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The address cannot be listened at.
    #[error("{address} cannot be listened at: {error}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// Certificates, keys or the cluster's name cannot be used.
    #[error("{0}")]
    Security(String),
    /// Limits that contradict each other.
    #[error("{0}")]
    Limits(String),
}

/// There is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no control connection with that node; nothing was asked.
    #[error("the node is not connected")]
    NotConnected,
    /// The connection broke before the answer came: the request may have been done.
    #[error("the connection broke before the answer came")]
    Broken,
    /// No answer within the time; the request may be done later.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// Too much is under way, here or there; nothing was done.
    #[error("too much is under way with the node")]
    Busy,
    /// The request is larger than one may be.
    #[error("{bytes} bytes are more than {max}")]
    TooLarge {
        /// Of the request.
        bytes: usize,
        /// `call_bytes_max`.
        max: usize,
    },
    /// The other side's handler says this.
    #[error("{0}")]
    Failed(String),
    /// Nobody can be reached at the address ([`call_address`](super::Transport::call_address)).
    #[error("{0}")]
    Unreachable(String),
    /// One side does not want to talk with the other ([`call_address`](super::Transport::call_address)).
    #[error("{0}")]
    Refused(Refusal),
    /// The transport has been shut down.
    #[error("the node shuts down")]
    Closed,
}

impl CallError {
    /// A name for metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::NotConnected => "not_connected",
            Self::Broken => "broken",
            Self::TimedOut(_) => "timed_out",
            Self::Busy => "busy",
            Self::TooLarge { .. } => "too_large",
            Self::Failed(_) => "failed",
            Self::Unreachable(_) => "unreachable",
            Self::Refused(_) => "refused",
            Self::Closed => "closed",
        }
    }
}

/// A message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no link with that node; the message is lost.
    #[error("the node is not connected")]
    NotConnected,
    /// The peer does not read: what waits for it exceeds `queue_bytes_max`. The link breaks.
    #[error("too much waits for the node")]
    Full,
    /// The message is larger than one may be.
    #[error("{bytes} bytes are more than {max}")]
    TooLarge {
        /// Of the message.
        bytes: usize,
        /// `frame_bytes_max`.
        max: usize,
    },
}

/// Why two processes do not talk with each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Refusal {
    /// The reason, for who acts upon it.
    pub reason: RefusalReason,
    /// The reason, for who operates the cluster.
    pub sentence: String,
}

/// Kinds of [`Refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// The sides speak different versions of the protocol.
    Protocol,
    /// The peer belongs to a cluster with another name.
    ClusterName,
    /// The peer belongs to another cluster of the same name.
    ClusterId,
    /// One of the two is no member of a cluster (yet).
    NoMember,
    /// The peer has our own node id: it is this process, or a copy of its disk.
    OwnId,
    /// Another node than the wanted one was found at the address.
    OtherNode,
    /// The peer's node id is not in the cluster's map.
    UnknownNode,
    /// A later process of the same node is connected.
    OlderProcess,
    /// The wall clocks are too far apart.
    ClockSkew,
    /// The cluster uses features that one of the two does not know.
    FeatureLevel,
    /// The peer's certificate is not accepted, or ours is not by the peer.
    Certificate,
    /// Too many connections of that kind are open.
    Busy,
    /// What came is not what a peer says: another protocol, or no Hello first.
    Garbled,
    /// Nothing was heard in time.
    Silent,
    /// The other side says something that this version does not know.
    Other,
}

impl RefusalReason {
    const ALL: [Self; 15] = [
        Self::Protocol,
        Self::ClusterName,
        Self::ClusterId,
        Self::NoMember,
        Self::OwnId,
        Self::OtherNode,
        Self::UnknownNode,
        Self::OlderProcess,
        Self::ClockSkew,
        Self::FeatureLevel,
        Self::Certificate,
        Self::Busy,
        Self::Garbled,
        Self::Silent,
        Self::Other,
    ];

    /// The name on the wire and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::ClusterName => "cluster_name",
            Self::ClusterId => "cluster_id",
            Self::NoMember => "no_member",
            Self::OwnId => "own_id",
            Self::OtherNode => "other_node",
            Self::UnknownNode => "unknown_node",
            Self::OlderProcess => "older_process",
            Self::ClockSkew => "clock_skew",
            Self::FeatureLevel => "feature_level",
            Self::Certificate => "certificate",
            Self::Busy => "busy",
            Self::Garbled => "garbled",
            Self::Silent => "silent",
            Self::Other => "other",
        }
    }

    pub(super) fn from_name(name: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|reason| reason.name() == name)
            .unwrap_or(Self::Other)
    }
}

impl Refusal {
    pub(super) fn new(reason: RefusalReason, sentence: impl Into<String>) -> Self {
        Self {
            reason,
            sentence: sentence.into(),
        }
    }
}
