//! The hash functions of SCRAM, and what they give: `H()`, `HMAC()` and `Hi()` of RFC 5802 §2.2.

use hmac::{EagerHash, Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroize as _;

/// The hash function of a SCRAM mechanism. The order is that of strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScramHash {
    /// SHA-1, the one every implementation has (RFC 5802).
    Sha1,
    /// SHA-256 (RFC 7677).
    Sha256,
    /// SHA-512.
    Sha512,
}

impl ScramHash {
    /// Every hash function, weakest first.
    pub const ALL: [Self; 3] = [Self::Sha1, Self::Sha256, Self::Sha512];

    /// The length of what it gives, in bytes.
    pub const fn output_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// The name in IANA's registry of hash functions: `SHA-1`, `SHA-256`, `SHA-512`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
            Self::Sha512 => "SHA-512",
        }
    }

    /// The hash function of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.name() == name)
    }

    /// `H(str)`.
    pub(crate) fn digest(self, bytes: &[u8]) -> Digest {
        match self {
            Self::Sha1 => Digest::new(&Sha1::digest(bytes)),
            Self::Sha256 => Digest::new(&Sha256::digest(bytes)),
            Self::Sha512 => Digest::new(&Sha512::digest(bytes)),
        }
    }

    /// `HMAC(key, str)`, where the string is what the parts make when put together.
    pub(crate) fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Digest {
        match self {
            Self::Sha1 => hmac::<Sha1>(key, parts),
            Self::Sha256 => hmac::<Sha256>(key, parts),
            Self::Sha512 => hmac::<Sha512>(key, parts),
        }
    }

    /// `Hi(str, salt, i)`: PBKDF2. Costs `iterations` times two hashes: microseconds become milliseconds here.
    pub(crate) fn stretch(self, password: &[u8], salt: &[u8], iterations: u32) -> Digest {
        let mut digest = Digest {
            bytes: [0; 64],
            len: self.output_bytes(),
        };
        let out = &mut digest.bytes[..self.output_bytes()];
        match self {
            Self::Sha1 => pbkdf2::pbkdf2_hmac::<Sha1>(password, salt, iterations, out),
            Self::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, out),
            Self::Sha512 => pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, out),
        }
        digest
    }
}

fn hmac<H: EagerHash>(key: &[u8], parts: &[&[u8]]) -> Digest {
    let mut mac = Hmac::<H>::new_from_slice(key).expect("HMAC takes keys of every length");
    for part in parts {
        mac.update(part);
    }
    Digest::new(&mac.finalize().into_bytes())
}

/// What a hash function gave: wiped when dropped, compared in constant time, never printed.
#[derive(Clone)]
pub(crate) struct Digest {
    bytes: [u8; 64],
    len: usize,
}

impl Digest {
    fn new(hashed: &[u8]) -> Self {
        let mut bytes = [0; 64];
        bytes[..hashed.len()].copy_from_slice(hashed);
        Self {
            bytes,
            len: hashed.len(),
        }
    }

    /// Stored bytes, when they are as long as `hash` gives.
    pub(crate) fn of(hash: ScramHash, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == hash.output_bytes()).then(|| Self::new(bytes))
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// `self XOR other`; both come from one hash function.
    pub(crate) fn xor(&self, other: &Self) -> Self {
        let mut bytes = self.bytes;
        bytes
            .iter_mut()
            .zip(other.bytes)
            .for_each(|(byte, other)| *byte ^= other);
        Self { bytes, len: self.len }
    }
}

impl ConstantTimeEq for Digest {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.as_slice().ct_eq(other.as_slice())
    }
}

impl Drop for Digest {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}
