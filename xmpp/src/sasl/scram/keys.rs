//! What each side keeps instead of the password.

use subtle::ConstantTimeEq as _;

use super::super::{Password, ScramHash};
use super::hash::Digest;
use crate::random::Random;

/// The fewest iterations we store, announce or accept (RFC 5802 §5.1, RFC 7677 §4): fewer protect nothing.
pub const ITERATIONS_MIN: u32 = 4096;

/// The most iterations we store or do for a server that asks: about a second of one core.
pub const ITERATIONS_MAX: u32 = 2_000_000;

/// The iterations of keys we make ourselves.
pub const ITERATIONS_DEFAULT: u32 = 10_000;

/// The length of the salts we make ourselves.
pub const SALT_BYTES: usize = 16;

/// The longest salt we take from elsewhere.
const SALT_BYTES_MAX: usize = 256;

/// What a server stores of an account for one hash function (RFC 5802 §3): enough to check a proof and to give one, not enough to
/// log in with.
#[derive(Clone)]
pub struct ScramKeys {
    hash: ScramHash,
    salt: Box<[u8]>,
    iterations: u32,
    stored_key: Digest,
    server_key: Digest,
}

impl ScramKeys {
    /// Keys that come from elsewhere: a row, an import.
    ///
    /// # Errors
    /// When they cannot be keys of that hash function, or protect too little.
    pub fn new(
        hash: ScramHash,
        salt: &[u8],
        iterations: u32,
        stored_key: &[u8],
        server_key: &[u8],
    ) -> Result<Self, KeysError> {
        check(salt, iterations)?;
        let stored_key = Digest::of(hash, stored_key).ok_or(KeysError::KeyLength { hash })?;
        let server_key = Digest::of(hash, server_key).ok_or(KeysError::KeyLength { hash })?;
        Ok(Self {
            hash,
            salt: salt.into(),
            iterations,
            stored_key,
            server_key,
        })
    }

    /// The keys of a password. Costs `iterations` times two hashes: milliseconds, so not on a thread that others wait for.
    ///
    /// # Errors
    /// When salt or iterations protect too little or are beyond reason.
    pub fn derive(hash: ScramHash, password: &Password, salt: &[u8], iterations: u32) -> Result<Self, KeysError> {
        Ok(ClientKeys::derive(hash, password, salt, iterations)?.server_side())
    }

    /// Fresh keys of a password, with a salt of their own and [`ITERATIONS_DEFAULT`]; what it costs: see [`derive`](Self::derive).
    pub fn generate(hash: ScramHash, password: &Password, random: &mut dyn Random) -> Self {
        let mut salt = [0; SALT_BYTES];
        random.fill(&mut salt);
        Self::derive(hash, password, &salt, ITERATIONS_DEFAULT).expect("salt and iterations are our own")
    }

    /// Whether these are the keys of `password`; in constant time but for the derivation, whose cost is [`derive`](Self::derive)'s.
    pub fn verify(&self, password: &Password) -> bool {
        Self::derive(self.hash, password, &self.salt, self.iterations)
            .is_ok_and(|keys| keys.stored_key.ct_eq(&self.stored_key).into())
    }

    /// The hash function they are for.
    pub const fn hash(&self) -> ScramHash {
        self.hash
    }

    /// The salt.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// The iteration count.
    pub const fn iterations(&self) -> u32 {
        self.iterations
    }

    /// `StoredKey`: checks a client's proof.
    pub fn stored_key(&self) -> &[u8] {
        self.stored_key.as_slice()
    }

    /// `ServerKey`: makes the server's own proof.
    pub fn server_key(&self) -> &[u8] {
        self.server_key.as_slice()
    }

    /// Keys that belong to no password: `noise` is two hashes long.
    pub(crate) fn of_nobody(hash: ScramHash, salt: &[u8], iterations: u32, noise: [Digest; 2]) -> Self {
        let [stored_key, server_key] = noise;
        Self {
            hash,
            salt: salt.into(),
            iterations,
            stored_key,
            server_key,
        }
    }

    /// Whether `proof` is that of a client which knows the password, for this conversation (RFC 5802 §3).
    pub(super) fn accepts(&self, auth_message: &[u8], proof: &Digest) -> bool {
        let signature = self.hash.hmac(self.stored_key.as_slice(), &[auth_message]);
        let client_key = proof.xor(&signature);
        self.hash.digest(client_key.as_slice()).ct_eq(&self.stored_key).into()
    }

    /// `ServerSignature` of this conversation.
    pub(super) fn signature(&self, auth_message: &[u8]) -> Digest {
        self.hash.hmac(self.server_key.as_slice(), &[auth_message])
    }
}

/// What a client may keep instead of the password, so that it need not derive it again as long as the server announces the
/// same salt and count (RFC 5802 §5.1, attribute `i`). Whoever has them can log in.
#[derive(Clone)]
pub struct ClientKeys {
    hash: ScramHash,
    salt: Box<[u8]>,
    iterations: u32,
    client_key: Digest,
    server_key: Digest,
}

impl ClientKeys {
    /// The keys of a password; what it costs: see [`ScramKeys::derive`].
    ///
    /// # Errors
    /// When salt or iterations protect too little or are beyond reason.
    pub fn derive(hash: ScramHash, password: &Password, salt: &[u8], iterations: u32) -> Result<Self, KeysError> {
        check(salt, iterations)?;
        let salted = hash.stretch(password.expose().as_bytes(), salt, iterations);
        let client_key = hash.hmac(salted.as_slice(), &[b"Client Key"]);
        let server_key = hash.hmac(salted.as_slice(), &[b"Server Key"]);
        Ok(Self {
            hash,
            salt: salt.into(),
            iterations,
            client_key,
            server_key,
        })
    }

    /// What a server stores of the same password.
    pub fn server_side(&self) -> ScramKeys {
        ScramKeys {
            hash: self.hash,
            salt: self.salt.clone(),
            iterations: self.iterations,
            stored_key: self.hash.digest(self.client_key.as_slice()),
            server_key: self.server_key.clone(),
        }
    }

    /// Whether these keys answer a server that announced this.
    pub fn fit(&self, hash: ScramHash, salt: &[u8], iterations: u32) -> bool {
        self.hash == hash && *self.salt == *salt && self.iterations == iterations
    }

    /// `ClientProof` of this conversation.
    pub(super) fn proof(&self, auth_message: &[u8]) -> Digest {
        let stored_key = self.hash.digest(self.client_key.as_slice());
        self.client_key
            .xor(&self.hash.hmac(stored_key.as_slice(), &[auth_message]))
    }

    /// The signature that a server which knows the keys gives to this conversation.
    pub(super) fn server_signature(&self, auth_message: &[u8]) -> Digest {
        self.hash.hmac(self.server_key.as_slice(), &[auth_message])
    }
}

impl std::fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScramKeys")
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ClientKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientKeys").finish_non_exhaustive()
    }
}

fn check(salt: &[u8], iterations: u32) -> Result<(), KeysError> {
    if salt.is_empty() || salt.len() > SALT_BYTES_MAX {
        return Err(KeysError::Salt);
    }
    if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
        return Err(KeysError::Iterations { iterations });
    }
    Ok(())
}

/// Keys that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// No salt at all, or more than 256 bytes.
    #[error("a salt has 1 to {SALT_BYTES_MAX} bytes")]
    Salt,
    /// Too few to protect anything, or so many that checking them would be the attack.
    #[error("{iterations} iterations are not between {ITERATIONS_MIN} and {ITERATIONS_MAX}")]
    Iterations {
        /// What was asked for.
        iterations: u32,
    },
    /// Not as long as the hash function's output.
    #[error("a key for {} has {} bytes", hash.name(), hash.output_bytes())]
    KeyLength {
        /// The hash function.
        hash: ScramHash,
    },
}
