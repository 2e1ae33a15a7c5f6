//! One exchange on the server's side, of whichever mechanism.

use super::anonymous;
use super::password::Password;
use super::plain::Plain;
use super::scram::server::{Challenged, Introduced};
use super::{ChannelBindings, Condition, Failure, Mechanism, ScramHash, ScramKeys, UnknownUsers};
use crate::jid::{BareJid, Jid};
use crate::random::Random;

/// One authentication exchange. Every method gives the next step; the exchange is over with
/// [`Success`](ServerStep::Success) or [`Failure`](ServerStep::Failure).
pub struct ServerExchange {
    mechanism: Mechanism,
    domain: Box<str>,
    bindings: ChannelBindings,
    state: State,
}

enum State {
    /// Every mechanism begins with a message of the client.
    Initial,
    ScramAsked {
        account: BareJid,
        introduced: Introduced,
    },
    ScramChallenged {
        account: BareJid,
        version: u64,
        challenged: Challenged,
    },
    PlainAsked {
        account: BareJid,
        password: Password,
    },
    PlainVerifying {
        account: BareJid,
        version: u64,
    },
    Over,
}

/// What an exchange wants next.
#[derive(Debug)]
pub enum ServerStep {
    /// Send this to the client and give its answer to [`ServerExchange::receive`].
    Challenge(Vec<u8>),
    /// Answer with [`ServerExchange::credentials`].
    AskCredentials(CredentialsRequest),
    /// Run this where it may take milliseconds and answer with [`ServerExchange::password_verified`].
    VerifyPassword(VerifyPassword),
    /// The client is who it says it is.
    Success {
        /// Whose stream this is from now on.
        account: BareJid,
        /// The version of the credentials that were checked. Whoever binds checks that it is still the account's.
        version: u64,
        /// `additional data with success`.
        additional: Option<Vec<u8>>,
    },
    /// Tell the client; it may begin another exchange.
    Failure(Failure),
}

/// Which credentials an exchange needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialsRequest {
    /// Who the client says it is.
    pub account: BareJid,
    /// The hash function the keys must be for; `None`: any will do (PLAIN).
    pub hash: Option<ScramHash>,
}

/// The answer to a [`CredentialsRequest`].
#[derive(Clone, Debug)]
pub enum Credentials {
    /// The account has such keys.
    Keys {
        /// The keys.
        keys: ScramKeys,
        /// Grows with every change of the account's credentials.
        version: u64,
    },
    /// There is no such account, or it has no keys for that hash function. The client is not told: it goes through the exchange and
    /// fails at its end. (A log may say which it was.)
    UnknownUser,
    /// Nobody can say now.
    Unavailable,
}

/// A password to be checked against keys: `iterations` times two hashes, so milliseconds of a thread.
pub struct VerifyPassword {
    password: Password,
    keys: ScramKeys,
    known: bool,
}

impl VerifyPassword {
    /// What it costs: a hash function, and how often.
    #[cfg(test)]
    pub(super) fn cost(&self) -> (ScramHash, u32) {
        (self.keys.hash(), self.keys.iterations())
    }

    /// Does the work. For an unknown user it does the same work.
    pub fn run(self) -> PasswordVerdict {
        PasswordVerdict(self.keys.verify(&self.password) & self.known)
    }
}

impl std::fmt::Debug for VerifyPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyPassword").finish_non_exhaustive()
    }
}

/// What came out of [`VerifyPassword::run`]; made by nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordVerdict(bool);

impl ServerExchange {
    /// An exchange on a stream to `domain`. `bindings` are those of the TLS channel if `-PLUS` mechanisms were offered on this
    /// stream, and none otherwise.
    pub fn new(mechanism: Mechanism, domain: &str, bindings: ChannelBindings) -> Self {
        Self {
            mechanism,
            domain: domain.into(),
            bindings,
            state: State::Initial,
        }
    }

    /// The mechanism.
    pub const fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Takes a message of the client: the initial response, or the answer to a challenge.
    pub fn receive(&mut self, message: &[u8], random: &mut dyn Random) -> ServerStep {
        let step = match std::mem::replace(&mut self.state, State::Over) {
            State::Initial => self.begin(message, random),
            State::ScramChallenged {
                account,
                version,
                challenged,
            } => challenged.verify(message).map(|last| ServerStep::Success {
                account,
                version,
                additional: Some(last),
            }),
            _ => Err(Failure::malformed("no message is due")),
        };
        step.unwrap_or_else(ServerStep::Failure)
    }

    /// Takes the credentials that were asked for.
    pub fn credentials(&mut self, credentials: Credentials, unknown_users: &UnknownUsers) -> ServerStep {
        let state = std::mem::replace(&mut self.state, State::Over);
        let (account, hash) = match &state {
            State::ScramAsked { account, introduced } => (account, Some(introduced.hash)),
            State::PlainAsked { account, .. } => (account, None),
            _ => return ServerStep::Failure(Condition::TemporaryAuthFailure.into()),
        };
        let fits = |keys: &ScramKeys| hash.is_none_or(|hash| keys.hash() == hash);
        let (keys, version, known) = match credentials {
            Credentials::Unavailable => return ServerStep::Failure(Condition::TemporaryAuthFailure.into()),
            Credentials::Keys { keys, version } if fits(&keys) => (keys, version, true),
            Credentials::Keys { .. } | Credentials::UnknownUser => {
                let hash = hash.unwrap_or_else(|| unknown_users.plain_hash());
                (unknown_users.keys(account, hash), 0, false)
            }
        };
        match state {
            State::ScramAsked { account, introduced } => {
                let (message, challenged) = introduced.challenge(keys, known);
                self.state = State::ScramChallenged {
                    account,
                    version,
                    challenged,
                };
                ServerStep::Challenge(message)
            }
            State::PlainAsked { account, password } => {
                self.state = State::PlainVerifying { account, version };
                ServerStep::VerifyPassword(VerifyPassword { password, keys, known })
            }
            _ => ServerStep::Failure(Condition::TemporaryAuthFailure.into()),
        }
    }

    /// Takes what came out of the password job.
    pub fn password_verified(&mut self, verdict: PasswordVerdict) -> ServerStep {
        match (std::mem::replace(&mut self.state, State::Over), verdict) {
            (State::PlainVerifying { account, version }, PasswordVerdict(true)) => ServerStep::Success {
                account,
                version,
                additional: None,
            },
            (State::PlainVerifying { .. }, PasswordVerdict(false)) => {
                ServerStep::Failure(Condition::NotAuthorized.into())
            }
            _ => ServerStep::Failure(Condition::TemporaryAuthFailure.into()),
        }
    }

    fn begin(&mut self, message: &[u8], random: &mut dyn Random) -> Result<ServerStep, Failure> {
        let (account, hash) = match self.mechanism {
            Mechanism::Scram { plus, hash } => {
                let introduced = Introduced::new(hash, plus, &self.bindings, message, random)?;
                let account = account_of(&introduced.username, introduced.authzid.as_deref(), &self.domain)?;
                self.state = State::ScramAsked {
                    account: account.clone(),
                    introduced,
                };
                (account, Some(hash))
            }
            Mechanism::Plain => {
                let Plain {
                    authzid,
                    username,
                    password,
                } = Plain::parse(message)?;
                let account = account_of(&username, authzid.as_deref(), &self.domain)?;
                self.state = State::PlainAsked {
                    account: account.clone(),
                    password,
                };
                (account, None)
            }
            Mechanism::Anonymous => {
                anonymous::check_trace(message)?;
                return Ok(ServerStep::Success {
                    account: anonymous::account(&self.domain, random)?,
                    version: anonymous::NO_CREDENTIALS,
                    additional: None,
                });
            }
        };
        Ok(ServerStep::AskCredentials(CredentialsRequest { account, hash }))
    }
}

/// The one place where it is decided for whom a client asks: the authentication identity is a localpart at the stream's
/// domain (RFC 6120 §6.3.7), and an authorization identity must be that very bare JID (§6.3.8).
fn account_of(username: &str, authzid: Option<&str>, domain: &str) -> Result<BareJid, Failure> {
    // What cannot be a localpart is nobody's.
    let account = BareJid::new(Some(username), domain).map_err(|_| Condition::NotAuthorized)?;
    let Some(authzid) = authzid else { return Ok(account) };
    match Jid::parse(authzid) {
        Ok(jid) if jid.resource().is_none() && jid.to_bare() == account => Ok(account),
        _ => Err(Condition::InvalidAuthzid.into()),
    }
}
