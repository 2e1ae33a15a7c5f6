//! The secret that commands show to the Admin service.

use std::{fs, io, path::Path};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq as _;

use crate::data;

/// The environment variable that is used instead of the file.
pub const VARIABLE: &str = "HERONRY_ADMIN_TOKEN";

/// The name of the file in the data directory.
pub const FILE: &str = "admin.token";

/// A token. It is never printed, and compared in constant time.
#[derive(Clone)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// The token of a broker: from the environment, else from the file, which is made (mode 0600) when absent.
    ///
    /// # Errors
    /// When the file cannot be read or written, or is empty.
    pub fn of_broker(data: &Path) -> io::Result<Self> {
        match Self::of_client(data) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(data),
            other => other,
        }
    }

    /// The token a command shows: from the environment, else from the file of the broker.
    ///
    /// # Errors
    /// When the file cannot be read or is empty.
    pub fn of_client(data: &Path) -> io::Result<Self> {
        match std::env::var(VARIABLE) {
            Ok(token) if !token.trim().is_empty() => Ok(Self(token.trim().to_owned())),
            _ => Self::read(data),
        }
    }

    fn read(data: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(data.join(FILE))?;
        match text.trim() {
            "" => Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty")),
            token => Ok(Self(token.to_owned())),
        }
    }

    fn make(data: &Path) -> io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        let token = URL_SAFE_NO_PAD.encode(bytes);
        data::write_secret(&data.join(FILE), format!("{token}\n").as_bytes())?;
        Ok(Self(token))
    }

    /// The value of the header `authorization`.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Whether the value of the header `authorization` shows this token. Takes as long for a wrong token as for a right one.
    pub fn is_shown_by(&self, authorization: &[u8]) -> bool {
        self.authorization().as_bytes().ct_eq(authorization).into()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_broker_makes_its_token_once_and_commands_find_it() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(Token::read(data.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
        let token = Token::make(data.path()).unwrap();
        assert_eq!(token.0.len(), 43);
        assert_eq!(Token::read(data.path()).unwrap().0, token.0);
        let mode = fs::metadata(data.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(Token::make(data.path()).unwrap().0, token.0);
    }

    #[test]
    fn an_empty_file_is_not_a_token() {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join(FILE), "\n").unwrap();
        assert_eq!(Token::read(data.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn only_the_whole_token_is_accepted() {
        let token = Token("secret".to_owned());
        assert!(token.is_shown_by(b"Bearer secret"));
        for wrong in [
            &b""[..],
            b"Bearer",
            b"Bearer ",
            b"Bearer secre",
            b"Bearer secrets",
            b"bearer secret",
            b"secret",
        ] {
            assert!(!token.is_shown_by(wrong));
        }
        assert_eq!(format!("{token:?}"), "Token(..)");
    }
}
