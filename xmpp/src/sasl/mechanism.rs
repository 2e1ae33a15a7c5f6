//! The mechanisms we speak, by name.

use super::ScramHash;

/// A SASL mechanism. The order is that of strength: a greater one is to be preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mechanism {
    /// `ANONYMOUS` (RFC 4505): whoever wants to, as nobody in particular.
    Anonymous,
    /// `PLAIN` (RFC 4616): the password itself, so only where nobody else can read.
    Plain,
    /// `SCRAM-…` (RFC 5802): both sides prove that they know keys made from the password.
    Scram {
        /// The password exchange is bound to the TLS channel (the `-PLUS` variants, RFC 5802 §6).
        plus: bool,
        /// The hash function of the mechanism.
        hash: ScramHash,
    },
}

impl Mechanism {
    /// Every mechanism that says who somebody is, weakest first.
    pub const ALL: [Self; 7] = [
        Self::Plain,
        Self::scram(ScramHash::Sha1),
        Self::scram(ScramHash::Sha256),
        Self::scram(ScramHash::Sha512),
        Self::scram_plus(ScramHash::Sha1),
        Self::scram_plus(ScramHash::Sha256),
        Self::scram_plus(ScramHash::Sha512),
    ];

    /// SCRAM without channel binding.
    pub const fn scram(hash: ScramHash) -> Self {
        Self::Scram { plus: false, hash }
    }

    /// SCRAM bound to the TLS channel.
    pub const fn scram_plus(hash: ScramHash) -> Self {
        Self::Scram { plus: true, hash }
    }

    /// The registered name, such as `SCRAM-SHA-256-PLUS`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anonymous => "ANONYMOUS",
            Self::Plain => "PLAIN",
            Self::Scram {
                plus: false,
                hash: ScramHash::Sha1,
            } => "SCRAM-SHA-1",
            Self::Scram {
                plus: false,
                hash: ScramHash::Sha256,
            } => "SCRAM-SHA-256",
            Self::Scram {
                plus: false,
                hash: ScramHash::Sha512,
            } => "SCRAM-SHA-512",
            Self::Scram {
                plus: true,
                hash: ScramHash::Sha1,
            } => "SCRAM-SHA-1-PLUS",
            Self::Scram {
                plus: true,
                hash: ScramHash::Sha256,
            } => "SCRAM-SHA-256-PLUS",
            Self::Scram {
                plus: true,
                hash: ScramHash::Sha512,
            } => "SCRAM-SHA-512-PLUS",
        }
    }

    /// The mechanism of that name; names are case-sensitive (RFC 4422 §3.1 has upper case only).
    pub fn from_name(name: &str) -> Option<Self> {
        let mut all = std::iter::once(Self::Anonymous).chain(Self::ALL);
        all.find(|mechanism| mechanism.name() == name)
    }
}

impl std::fmt::Display for Mechanism {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Mechanism;

    #[test]
    fn names_lead_back_to_their_mechanism() {
        for mechanism in Mechanism::ALL.into_iter().chain([Mechanism::Anonymous]) {
            assert_eq!(Mechanism::from_name(mechanism.name()), Some(mechanism));
        }
        assert_eq!(Mechanism::from_name("scram-sha-1"), None);
        assert_eq!(Mechanism::from_name("EXTERNAL"), None);
    }

    #[test]
    fn all_are_listed_weakest_first() {
        assert!(Mechanism::ALL.is_sorted());
        assert!(Mechanism::Anonymous < Mechanism::ALL[0]);
    }
}
