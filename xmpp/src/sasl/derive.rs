//! Work on passwords that takes milliseconds: not for a thread that others wait for.

use super::{ITERATIONS_DEFAULT, scram::SALT_BYTES};
use super::{Password, PasswordVerdict, ScramHash, ScramKeys, VerifyPassword};
use crate::random::Random;

/// Keys to be made of a new password: [`ITERATIONS_DEFAULT`] times two hashes for each of its hash functions.
pub struct DeriveKeys {
    password: Password,
    salts: Vec<(ScramHash, [u8; SALT_BYTES])>,
}

impl DeriveKeys {
    /// Keys for each of these hash functions, each with a salt of its own.
    pub fn new(password: Password, hashes: &[ScramHash], random: &mut dyn Random) -> Self {
        let salted = |hash: &ScramHash| {
            let mut salt = [0; SALT_BYTES];
            random.fill(&mut salt);
            (*hash, salt)
        };
        Self {
            password,
            salts: hashes.iter().map(salted).collect(),
        }
    }

    /// Does the work.
    pub fn run(self) -> Box<[ScramKeys]> {
        let keys = self
            .salts
            .iter()
            .filter_map(|(hash, salt)| ScramKeys::derive(*hash, &self.password, salt, ITERATIONS_DEFAULT).ok());
        keys.collect()
    }
}

impl std::fmt::Debug for DeriveKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeriveKeys").finish_non_exhaustive()
    }
}

/// A piece of such work.
#[derive(Debug)]
pub enum PasswordJob {
    /// Is it the right one?
    Verify(VerifyPassword),
    /// Keys of a new one.
    Derive(DeriveKeys),
}

/// What came of it.
#[derive(Debug)]
pub enum PasswordDone {
    /// The verdict.
    Verified(PasswordVerdict),
    /// The keys.
    Derived(Box<[ScramKeys]>),
}

impl PasswordJob {
    /// Does the work.
    pub fn run(self) -> PasswordDone {
        match self {
            Self::Verify(verify) => PasswordDone::Verified(verify.run()),
            Self::Derive(derive) => PasswordDone::Derived(derive.run()),
        }
    }
}
