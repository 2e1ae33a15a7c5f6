//! Why an authentication did not succeed, as the peer is told (RFC 6120 §6.5).

use std::borrow::Cow;

/// The conditions of RFC 6120 §6.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// §6.5.1: the initiating entity gave up with `<abort/>`.
    Aborted,
    /// §6.5.2: the account has been disabled for a time.
    AccountDisabled,
    /// §6.5.3: the credentials were right once.
    CredentialsExpired,
    /// §6.5.4: this mechanism only inside TLS.
    EncryptionRequired,
    /// §6.5.5: not base64.
    IncorrectEncoding,
    /// §6.5.6: the authorization identity is malformed or not for this user.
    InvalidAuthzid,
    /// §6.5.7: no mechanism named, or one that was not offered.
    InvalidMechanism,
    /// §6.5.8: against the syntax of the mechanism, or out of order.
    MalformedRequest,
    /// §6.5.9: weaker than policy permits for this user.
    MechanismTooWeak,
    /// §6.5.10: wrong password or no such user, which are told apart by nothing.
    NotAuthorized,
    /// §6.5.11: try again later.
    TemporaryAuthFailure,
}

impl Condition {
    const ALL: [Self; 11] = [
        Self::Aborted,
        Self::AccountDisabled,
        Self::CredentialsExpired,
        Self::EncryptionRequired,
        Self::IncorrectEncoding,
        Self::InvalidAuthzid,
        Self::InvalidMechanism,
        Self::MalformedRequest,
        Self::MechanismTooWeak,
        Self::NotAuthorized,
        Self::TemporaryAuthFailure,
    ];

    /// The name of the condition's element.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::AccountDisabled => "account-disabled",
            Self::CredentialsExpired => "credentials-expired",
            Self::EncryptionRequired => "encryption-required",
            Self::IncorrectEncoding => "incorrect-encoding",
            Self::InvalidAuthzid => "invalid-authzid",
            Self::InvalidMechanism => "invalid-mechanism",
            Self::MalformedRequest => "malformed-request",
            Self::MechanismTooWeak => "mechanism-too-weak",
            Self::NotAuthorized => "not-authorized",
            Self::TemporaryAuthFailure => "temporary-auth-failure",
        }
    }

    /// The condition of that name. One we do not know counts as [`NotAuthorized`](Self::NotAuthorized) (RFC 6120 §6.5).
    pub fn from_name(name: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|condition| condition.name() == name)
            .unwrap_or(Self::NotAuthorized)
    }
}

/// A failed exchange: what `<failure/>` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The defined condition.
    pub condition: Condition,
    /// A sentence for a person reading a log; never tells an unknown user from a wrong password.
    pub text: Option<Cow<'static, str>>,
}

impl Failure {
    /// A failure that says no more than its condition.
    pub const fn new(condition: Condition) -> Self {
        Self { condition, text: None }
    }

    /// A failure with a sentence.
    pub const fn because(condition: Condition, text: &'static str) -> Self {
        Self {
            condition,
            text: Some(Cow::Borrowed(text)),
        }
    }

    pub(crate) const fn malformed(text: &'static str) -> Self {
        Self::because(Condition::MalformedRequest, text)
    }
}

impl From<Condition> for Failure {
    fn from(condition: Condition) -> Self {
        Self::new(condition)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.condition.name())?;
        match &self.text {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::Condition;

    #[test]
    fn names_lead_back_to_their_condition() {
        for condition in Condition::ALL {
            assert_eq!(Condition::from_name(condition.name()), condition);
        }
    }

    #[test]
    fn an_unknown_condition_is_a_generic_failure() {
        assert_eq!(Condition::from_name("bad-hair-day"), Condition::NotAuthorized);
    }
}
