//! What can go wrong, by who can do something about it.

use std::io;

use heronry_xmpp::{
    sasl,
    stanza::{ErrorType, StanzaError},
    stream::{InitiatorError, StreamCondition, StreamError},
};
use rustls::CertificateError;

use crate::trust::certificate_error;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address, or nothing there accepts connections.
    #[error("the server cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    /// The domain says that it has no such service (RFC 2782: the target of its records is the root).
    #[error("the domain offers no such service")]
    NoService,
    /// The connection ended before the session began.
    #[error("the connection was lost: {0}")]
    Lost(#[source] io::Error),
    /// Not done within [`Options::connect_timeout`](crate::Options::connect_timeout).
    #[error("no session within the time allowed")]
    Timeout,
    /// The server's certificate is not one we trust.
    #[error("the server's certificate is not trusted: {0}")]
    Untrusted(CertificateError),
    /// TLS failed otherwise.
    #[error("no TLS with this server: {0}")]
    Tls(#[source] io::Error),
    /// The server does not let us in: usually a wrong password, or no such account.
    #[error("not authenticated: {0}")]
    NotAuthenticated(sasl::Failure),
    /// The negotiation came to nothing otherwise.
    #[error(transparent)]
    Negotiation(InitiatorError),
    /// The server does not keep to the protocol.
    #[error("not XMPP as we know it: {0}")]
    Protocol(&'static str),
    /// The client was closed meanwhile.
    #[error("closed")]
    Closed,
}

impl ConnectError {
    /// Whether another attempt may succeed without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Lost(_) | Self::Timeout | Self::Tls(_) => true,
            Self::NotAuthenticated(failure) => failure.condition == sasl::Condition::TemporaryAuthFailure,
            Self::Negotiation(error) => match error {
                InitiatorError::Closed | InitiatorError::TlsRefused => true,
                InitiatorError::Bind(error) => error.type_ == ErrorType::Wait,
                InitiatorError::Stream(error) => speaks_of_the_server(&error.condition),
                _ => false,
            },
            Self::Untrusted(_) | Self::NoService | Self::Protocol(_) | Self::Closed => false,
        }
    }

    /// Whether another server of the domain may do what this one did not. Not when it is about us: a password that is
    /// refused is not shown around.
    pub(crate) fn is_of_this_server(&self) -> bool {
        match self {
            Self::NotAuthenticated(_) | Self::Negotiation(InitiatorError::Bind(_)) => self.is_transient(),
            Self::Closed => false,
            _ => true,
        }
    }

    /// The place that a server sends us to (RFC 6120 §4.9.3.19).
    pub(crate) fn other_host(&self) -> Option<&str> {
        match self {
            Self::Negotiation(InitiatorError::Stream(StreamError {
                condition: StreamCondition::SeeOtherHost(host),
                ..
            })) => Some(host),
            _ => None,
        }
    }

    pub(crate) fn tls(error: io::Error) -> Self {
        match certificate_error(&error) {
            Some(reason) => Self::Untrusted(reason),
            None => Self::Tls(error),
        }
    }
}

/// Whether a stream error tells of the server's state and not of what we did (RFC 6120 §4.9.3).
fn speaks_of_the_server(condition: &StreamCondition) -> bool {
    matches!(
        condition,
        StreamCondition::ConnectionTimeout
            | StreamCondition::InternalServerError
            | StreamCondition::RemoteConnectionFailed
            | StreamCondition::Reset
            | StreamCondition::ResourceConstraint
            | StreamCondition::SeeOtherHost(_)
            | StreamCondition::SystemShutdown
    )
}

impl From<InitiatorError> for ConnectError {
    fn from(error: InitiatorError) -> Self {
        match error {
            InitiatorError::Authentication { failure, .. } => Self::NotAuthenticated(failure),
            other => Self::Negotiation(other),
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disconnect {
    /// The socket failed or was closed without a word.
    #[error("the connection was lost: {0}")]
    Lost(io::ErrorKind),
    /// The server gave no sign of life in time.
    #[error("the server does not answer")]
    Silent,
    /// The server closed the stream in order.
    #[error("the server closed the stream")]
    Closed,
    /// The server closed the stream with an error. After [`StreamCondition::Conflict`] another connection has our place.
    #[error("the server ended the stream: {0}")]
    Refused(StreamError),
    /// We closed the stream with an error, since the server does not keep to the protocol.
    #[error("ended the stream: {0}")]
    Broken(StreamError),
}

/// Why a stanza was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no connection, and none is being made.
    #[error("disconnected")]
    Disconnected,
    /// The stanza is longer than [`Limits::stanza_bytes_max`](crate::Limits::stanza_bytes_max).
    #[error("the stanza is too long")]
    TooLong,
}

/// Why a request has no answer that counts as success.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The one asked answered with an error.
    #[error("refused: {0}")]
    Refused(Box<StanzaError>),
    /// No answer in time. Whether the request was carried out is unknown.
    #[error("no answer in time")]
    Timeout,
    /// There is no connection, or the session was lost before an answer came. Whether the request was carried out is unknown.
    #[error("disconnected")]
    Disconnected,
    /// The request is longer than [`Limits::stanza_bytes_max`](crate::Limits::stanza_bytes_max).
    #[error("the request is too long")]
    TooLong,
    /// The answer cannot be read.
    #[error("the answer is malformed")]
    Malformed,
}
