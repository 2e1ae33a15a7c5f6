//! One exchange on the client's side, of whichever mechanism.

use zeroize::Zeroizing;

use super::plain::Plain;
use super::scram::client::{Introduced, Proven};
use super::{ClientBinding, ClientKeys, KeysError, Mechanism, Password};
use crate::random::Random;

/// What a client authenticates with: its password and, when it kept them, the keys that an earlier exchange made of it.
#[derive(Clone, Debug)]
pub struct Secret {
    password: Password,
    kept: Option<ClientKeys>,
}

impl Secret {
    /// The password alone.
    pub const fn new(password: Password) -> Self {
        Self { password, kept: None }
    }

    /// With keys of an earlier exchange: they save the derivation (milliseconds) as long as the server announces the same salt.
    #[must_use]
    pub fn with_keys(mut self, keys: ClientKeys) -> Self {
        self.kept = Some(keys);
        self
    }

    pub(super) const fn password(&self) -> &Password {
        &self.password
    }

    pub(super) const fn kept(&self) -> Option<&ClientKeys> {
        self.kept.as_ref()
    }
}

/// One authentication exchange of a client.
pub struct ClientExchange {
    secret: Secret,
    state: State,
}

enum State {
    /// PLAIN and ANONYMOUS have said everything with their first message.
    Plain,
    Introduced(Introduced),
    Proven(Proven),
    /// The server has proven itself, and may say that it succeeded.
    Verified(ClientKeys),
    Over,
}

impl ClientExchange {
    /// Begins an exchange; gives the initial response. `binding` is [`Bound`](ClientBinding::Bound) exactly for the `-PLUS`
    /// mechanisms.
    ///
    /// # Errors
    /// When `binding` contradicts the mechanism.
    pub fn start(
        mechanism: Mechanism,
        username: &str,
        secret: Secret,
        binding: ClientBinding<'_>,
        random: &mut dyn Random,
    ) -> Result<(Self, Zeroizing<Vec<u8>>), ClientError> {
        let (state, message) = match mechanism {
            // XEP-0175 §3: better no trace.
            Mechanism::Anonymous => (State::Plain, Zeroizing::new(Vec::new())),
            Mechanism::Plain => (State::Plain, Plain::write(username, &secret.password)),
            Mechanism::Scram { plus, hash } => {
                if plus != matches!(binding, ClientBinding::Bound(..)) {
                    return Err(ClientError::Binding);
                }
                let (message, introduced) = Introduced::new(hash, username, binding, random);
                (State::Introduced(introduced), Zeroizing::new(message))
            }
        };
        Ok((Self { secret, state }, message))
    }

    /// Takes a challenge, gives the response. Takes milliseconds when keys must be derived.
    ///
    /// # Errors
    /// When the server does not keep to the mechanism, or cannot prove that it knows the password. The exchange is over then.
    pub fn challenge(&mut self, message: &[u8]) -> Result<Vec<u8>, ClientError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Introduced(introduced) => {
                let (message, proven) = introduced.answer(message, &self.secret)?;
                self.state = State::Proven(proven);
                Ok(message)
            }
            // A server that does not send additional data with success sends it as a challenge (RFC 6120 §6.3.10).
            State::Proven(proven) => {
                self.state = State::Verified(proven.verify(message)?);
                Ok(Vec::new())
            }
            State::Plain | State::Verified(_) | State::Over => Err(ClientError::OutOfOrder),
        }
    }

    /// Takes the server's success. For SCRAM gives the keys, to be kept for the next time.
    ///
    /// # Errors
    /// When the server claims success without having proven that it knows the password (RFC 5802 §5): then it is not the
    /// server it seems to be, and nothing may be sent to it.
    pub fn success(self, additional: Option<&[u8]>) -> Result<Option<ClientKeys>, ClientError> {
        match (self.state, additional) {
            (State::Plain, None | Some([])) => Ok(None),
            (State::Proven(proven), Some(message)) => proven.verify(message).map(Some),
            (State::Verified(keys), None | Some([])) => Ok(Some(keys)),
            (State::Introduced(_) | State::Proven(_), _) => Err(ClientError::ServerSignature),
            _ => Err(ClientError::OutOfOrder),
        }
    }
}

/// Why a client does not go on with an exchange.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The server's message is not SCRAM.
    #[error("the server's SCRAM message is malformed: {0}")]
    Malformed(&'static str),
    /// The server's nonce does not continue ours.
    #[error("the server's nonce does not continue ours")]
    Nonce,
    /// The server asks for a salt or count that protects nothing, or that would keep us busy.
    #[error("the server asks for unusable keys: {0}")]
    Keys(#[from] KeysError),
    /// The server could not prove that it knows the password: it is an impostor.
    #[error("the server does not know the password")]
    ServerSignature,
    /// `e=`: the server says that it failed.
    #[error("the server reports a SCRAM error: {0}")]
    Server(String),
    /// A message that is not due.
    #[error("the server sent a message that is not due")]
    OutOfOrder,
    /// The channel binding contradicts the mechanism.
    #[error("the channel binding does not fit the mechanism")]
    Binding,
}
