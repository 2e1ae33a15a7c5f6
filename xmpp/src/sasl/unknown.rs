//! Users who do not exist get an exchange like everybody else's.

use std::sync::OnceLock;

use zeroize::Zeroizing;

use super::scram::SALT_BYTES;
use super::{ScramHash, ScramKeys};
use crate::jid::BareJid;

/// Makes credentials for accounts that do not exist: the same for the same address on every cluster node and after every restart,
/// different for each address, and no password fits. So neither asking twice nor asking two nodes tells who has an account.
///
/// It must be made from the same secret and counts on all nodes.
pub struct UnknownUsers {
    secret: Zeroizing<Vec<u8>>,
    /// The cluster's, once it is known.
    agreed: OnceLock<Zeroizing<Vec<u8>>>,
    iterations: Box<[u32]>,
    plain_hash: ScramHash,
}

impl UnknownUsers {
    /// `secret` is the cluster's (at least 16 random bytes). `iterations` are the counts that real accounts have, each as often as
    /// its share is; the address picks one. Nothing means [`ITERATIONS_DEFAULT`](super::ITERATIONS_DEFAULT).
    pub fn new(secret: &[u8], iterations: &[u32]) -> Self {
        let iterations = if iterations.is_empty() {
            &[super::ITERATIONS_DEFAULT]
        } else {
            iterations
        };
        Self {
            secret: Zeroizing::new(secret.to_vec()),
            agreed: OnceLock::new(),
            iterations: iterations.into(),
            plain_hash: ScramHash::Sha512,
        }
    }

    /// PLAIN is checked against keys for this hash function, as it is for accounts that exist: their strongest.
    #[must_use]
    pub fn with_plain_hash(mut self, hash: ScramHash) -> Self {
        self.plain_hash = hash;
        self
    }

    /// From now on the secret is this one, which all cluster nodes have: what each had before can be told apart. Only the first counts.
    pub fn agree(&self, secret: &[u8]) {
        let _ = self.agreed.set(Zeroizing::new(secret.to_vec()));
    }

    /// The hash function whose keys PLAIN is checked against.
    pub fn plain_hash(&self) -> ScramHash {
        self.plain_hash
    }

    /// The credentials of `account`, which does not exist.
    pub fn keys(&self, account: &BareJid, hash: ScramHash) -> ScramKeys {
        let secret = self.agreed.get().unwrap_or(&self.secret);
        let noise = |purpose: &[u8]| {
            // The separators keep (purpose, hash, address) apart from every other triple.
            let parts = [
                purpose,
                b"\0",
                hash.name().as_bytes(),
                b"\0",
                account.as_str().as_bytes(),
            ];
            ScramHash::Sha512.hmac(secret, &parts)
        };
        let salt = noise(b"salt");
        let pick = noise(b"iterations");
        let pick = u32::from_be_bytes([
            pick.as_slice()[0],
            pick.as_slice()[1],
            pick.as_slice()[2],
            pick.as_slice()[3],
        ]);
        let iterations = self.iterations[pick as usize % self.iterations.len()];
        let keys = [b"stored key".as_slice(), b"server key"].map(|purpose| hash.digest(noise(purpose).as_slice()));
        ScramKeys::of_nobody(hash, &salt.as_slice()[..SALT_BYTES], iterations, keys)
    }
}
