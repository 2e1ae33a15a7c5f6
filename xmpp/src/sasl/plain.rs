//! PLAIN (RFC 4616): `[authzid] NUL authcid NUL passwd`.

use zeroize::Zeroizing;

use super::{Condition, Failure, Password};

/// What a client says with PLAIN.
pub(super) struct Plain {
    pub(super) authzid: Option<String>,
    pub(super) username: String,
    pub(super) password: Password,
}

impl Plain {
    pub(super) fn parse(message: &[u8]) -> Result<Self, Failure> {
        let message = std::str::from_utf8(message).map_err(|_| Failure::malformed("not UTF-8"))?;
        let mut parts = message.split('\0');
        let (Some(authzid), Some(username), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Failure::malformed("not three parts"));
        };
        if username.is_empty() || password.is_empty() {
            return Err(Failure::malformed("an empty name or password"));
        }
        // A string that cannot be a password is nobody's (RFC 4616 §2: preparation failed).
        let password = Password::new(password).map_err(|_| Condition::NotAuthorized)?;
        let authzid = (!authzid.is_empty()).then(|| authzid.to_owned());
        Ok(Self {
            authzid,
            username: username.to_owned(),
            password,
        })
    }

    /// The message of a client that acts for itself.
    pub(super) fn write(username: &str, password: &Password) -> Zeroizing<Vec<u8>> {
        let mut message = Zeroizing::new(Vec::with_capacity(username.len() + password.expose().len() + 2));
        message.push(0);
        message.extend_from_slice(username.as_bytes());
        message.push(0);
        message.extend_from_slice(password.expose().as_bytes());
        message
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Condition, Password};
    use super::Plain;

    fn parsed(message: &str) -> Result<(Option<String>, String, String), Condition> {
        Plain::parse(message.as_bytes())
            .map(|plain| (plain.authzid, plain.username, plain.password.expose().to_owned()))
            .map_err(|failure| failure.condition)
    }

    /// RFC 4616 §4.
    #[test]
    fn examples_of_rfc_4616() {
        assert_eq!(
            parsed("\0tim\0tanstaaftanstaaf").unwrap(),
            (None, "tim".into(), "tanstaaftanstaaf".into())
        );
        assert_eq!(
            parsed("Ursel\0Kurt\0xipj3plmq").unwrap(),
            (Some("Ursel".into()), "Kurt".into(), "xipj3plmq".into())
        );
    }

    #[test]
    fn what_is_not_three_parts_is_malformed() {
        for message in ["", "tim", "\0tim", "\0tim\0pass\0word", "\0\0pass", "\0tim\0"] {
            assert_eq!(parsed(message).unwrap_err(), Condition::MalformedRequest, "{message:?}");
        }
        assert_eq!(
            Plain::parse(b"\0tim\0\xff").err().unwrap().condition,
            Condition::MalformedRequest
        );
    }

    #[test]
    fn what_cannot_be_a_password_is_nobodys() {
        assert_eq!(parsed("\0tim\0tab\there").unwrap_err(), Condition::NotAuthorized);
    }

    #[test]
    fn what_is_written_is_read() {
        let written = Plain::write("juliet", &Password::new("r0m30myr0m30").unwrap());
        assert_eq!(*written, b"\0juliet\0r0m30myr0m30");
        assert!(Plain::parse(&written).is_ok());
    }
}
