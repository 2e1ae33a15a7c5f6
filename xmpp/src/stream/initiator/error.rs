//! Why a client's negotiation came to nothing.

use super::super::StreamError;
use crate::sasl::{ClientError, Failure, Mechanism};
use crate::stanza::StanzaError;
use crate::xml::XmlError;

/// Why a client has no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InitiatorError {
    /// The server ended the stream with a reason. `see-other-host` names another server to try.
    #[error("the server ended the stream: {0}")]
    Stream(StreamError),
    /// The server ended the stream without one.
    #[error("the server closed the stream")]
    Closed,
    /// We ended it.
    #[error("given up: {0}")]
    Aborted(StreamError),
    /// What the server sends is not a stream.
    #[error("the server's stream cannot be read: {0}")]
    Xml(XmlError),
    /// The server speaks something from before XMPP 1.0.
    #[error("the server does not speak XMPP 1.0")]
    Version,
    /// TLS is demanded, and the server offers none. Perhaps somebody took the offer away.
    #[error("the server does not offer TLS")]
    TlsNotOffered,
    /// The server offered TLS and then refused it.
    #[error("the server refuses to begin TLS")]
    TlsRefused,
    /// The server requires TLS, and we were told not to use it.
    #[error("the server requires TLS")]
    TlsRequired,
    /// The server offers no mechanism that we accept on this stream.
    #[error("no acceptable mechanism among those offered: {}", offered.join(" "))]
    NoMechanism {
        /// What it offers.
        offered: Vec<String>,
    },
    /// The server does not let us in.
    #[error("{mechanism}: {failure}")]
    Authentication {
        /// The mechanism that was tried last.
        mechanism: Mechanism,
        /// What the server says.
        failure: Failure,
    },
    /// The server does not keep to the mechanism, or does not know the password: it may be an impostor.
    #[error("{0}")]
    Exchange(ClientError),
    /// The server offers no resource binding.
    #[error("the server does not offer resource binding")]
    BindNotOffered,
    /// The server does not let us have an address.
    #[error("the server binds no resource: {0}")]
    Bind(StanzaError),
    /// The server sends something that is not due.
    #[error("the server sent {0}")]
    Unexpected(&'static str),
}

impl InitiatorError {
    /// What the server is told before we close, if anything.
    pub(super) fn told(&self) -> Option<StreamError> {
        match self {
            Self::Xml(error) => Some((*error).into()),
            Self::Aborted(error) => Some(error.clone()),
            Self::Version => Some(StreamError::unsupported_version()),
            Self::TlsRequired => Some(StreamError::unsupported_feature()),
            Self::Unexpected(_) => Some(StreamError::unsupported_stanza_type()),
            Self::Stream(_)
            | Self::Closed
            | Self::TlsNotOffered
            | Self::TlsRefused
            | Self::NoMechanism { .. }
            | Self::Authentication { .. }
            | Self::Exchange(_)
            | Self::BindNotOffered
            | Self::Bind(_) => None,
        }
    }
}
