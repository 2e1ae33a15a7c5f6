//! Passwords: prepared once, wiped when dropped, never printed.

use precis_profiles::OpaqueString;
use precis_profiles::precis_core::profile::Profile as _;
use zeroize::Zeroizing;

/// The longest password we take, in bytes (RFC 4616 §2 asks for 255 at least).
const BYTES_MAX: usize = 1024;

/// A password, prepared by the OpaqueString profile (RFC 8265 §4.2, the successor of SASLprep). So it is the same bytes whatever
/// keyboard it was typed on, and may be the input of a hash.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Prepares what someone typed, or what PLAIN carried.
    ///
    /// # Errors
    /// When it is empty, longer than 1024 bytes, or has characters that a password must not have (controls, unassigned
    /// code points).
    pub fn new(typed: &str) -> Result<Self, PasswordError> {
        if typed.is_empty() {
            return Err(PasswordError::Empty);
        }
        if typed.len() > BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        // Printable ASCII is what OpaqueString leaves alone, and most passwords are nothing else.
        if typed.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Ok(Self(Zeroizing::new(typed.to_owned())));
        }
        let prepared = OpaqueString::new()
            .enforce(typed)
            .map_err(|_| PasswordError::Forbidden)?;
        Ok(Self(Zeroizing::new(prepared.into_owned())))
    }

    /// The prepared password. Whoever asks for it answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Password").finish_non_exhaustive()
    }
}

/// A password that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// There is nothing there.
    #[error("the password is empty")]
    Empty,
    /// More than 1024 bytes.
    #[error("the password is longer than {BYTES_MAX} bytes")]
    TooLong,
    /// Against RFC 8265 §4.2: a control character or a code point that is not assigned.
    #[error("the password has a character that passwords must not have (RFC 8265 section 4.2)")]
    Forbidden,
}

#[cfg(test)]
mod tests {
    use super::{Password, PasswordError};

    fn prepared(typed: &str) -> Result<String, PasswordError> {
        Password::new(typed).map(|password| password.expose().to_owned())
    }

    /// RFC 8265 §4.3, table 4.
    #[test]
    fn examples_of_rfc_8265() {
        assert_eq!(
            prepared("correct horse battery staple").unwrap(),
            "correct horse battery staple"
        );
        assert_eq!(
            prepared("Correct Horse Battery Staple").unwrap(),
            "Correct Horse Battery Staple"
        );
        assert_eq!(prepared("πßå").unwrap(), "πßå");
        assert_eq!(prepared("Jack of ♦s").unwrap(), "Jack of ♦s");
        assert_eq!(prepared("foo\u{1680}bar").unwrap(), "foo bar");
        assert_eq!(prepared(""), Err(PasswordError::Empty));
        assert_eq!(prepared("my cat is a \u{9}by"), Err(PasswordError::Forbidden));
    }

    #[test]
    fn composed_and_decomposed_are_the_same_password() {
        assert_eq!(prepared("e\u{301}te\u{301}").unwrap(), prepared("été").unwrap());
    }

    #[test]
    fn a_password_has_a_longest_length() {
        assert!(prepared(&"x".repeat(1024)).is_ok());
        assert_eq!(prepared(&"x".repeat(1025)), Err(PasswordError::TooLong));
    }
}
