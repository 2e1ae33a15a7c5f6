//! The client's side of SCRAM. Each step consumes the one before it.

use subtle::ConstantTimeEq as _;

use super::super::channel::ClientBinding;
use super::super::client::{ClientError, Secret};
use super::hash::{Digest, ScramHash};
use super::keys::ClientKeys;
use super::message::{ClientFinal, ServerFinal, ServerFirst, quote};
use crate::random::{Random, token};

/// `client-first-message` has been sent.
pub(in super::super) struct Introduced {
    hash: ScramHash,
    /// `cbind-input`.
    binding: Vec<u8>,
    nonce: String,
    client_first_bare: String,
}

impl Introduced {
    /// Gives `client-first-message`. No authorization identity: a client that acts for itself must not send one
    /// (RFC 6120 §6.3.8).
    pub(in super::super) fn new(
        hash: ScramHash,
        username: &str,
        binding: ClientBinding<'_>,
        random: &mut dyn Random,
    ) -> (Vec<u8>, Self) {
        Self::with_nonce(hash, username, binding, token(random))
    }

    pub(super) fn with_nonce(
        hash: ScramHash,
        username: &str,
        binding: ClientBinding<'_>,
        nonce: String,
    ) -> (Vec<u8>, Self) {
        let (gs2_header, channel): (String, &[u8]) = match binding {
            ClientBinding::Unsupported => ("n,,".to_owned(), &[]),
            ClientBinding::NotOffered => ("y,,".to_owned(), &[]),
            ClientBinding::Bound(kind, value) => (format!("p={},,", kind.name()), value),
        };
        let client_first_bare = format!("n={},r={nonce}", quote(username));
        let message = format!("{gs2_header}{client_first_bare}").into_bytes();
        let binding = [gs2_header.as_bytes(), channel].concat();
        (
            message,
            Self {
                hash,
                binding,
                nonce,
                client_first_bare,
            },
        )
    }

    /// Takes `server-first-message`, gives `client-final-message`. Unless `secret` has fitting keys they are derived here, which
    /// takes milliseconds.
    pub(in super::super) fn answer(self, message: &[u8], secret: &Secret) -> Result<(Vec<u8>, Proven), ClientError> {
        let first = ServerFirst::parse(message).map_err(ClientError::Malformed)?;
        // The server must add something of its own, or it could replay another exchange.
        let ours = first
            .nonce
            .strip_prefix(&*self.nonce)
            .is_some_and(|rest| !rest.is_empty());
        if !ours {
            return Err(ClientError::Nonce);
        }
        let keys = match secret.kept() {
            Some(keys) if keys.fit(self.hash, &first.salt, first.iterations) => keys.clone(),
            _ => ClientKeys::derive(self.hash, secret.password(), &first.salt, first.iterations)?,
        };
        let without_proof = ClientFinal::write_without_proof(&self.binding, first.nonce);
        let server_first = String::from_utf8_lossy(message);
        let signed = format!("{},{server_first},{without_proof}", self.client_first_bare);
        let proof = keys.proof(signed.as_bytes());
        let signature = keys.server_signature(signed.as_bytes());
        let message = ClientFinal::write_proof(&without_proof, proof.as_slice()).into_bytes();
        Ok((message, Proven { keys, signature }))
    }
}

/// `client-final-message` has been sent; now the server must prove itself.
pub(in super::super) struct Proven {
    keys: ClientKeys,
    signature: Digest,
}

impl Proven {
    /// Takes `server-final-message`, gives the keys that may be kept.
    pub(in super::super) fn verify(self, message: &[u8]) -> Result<ClientKeys, ClientError> {
        match ServerFinal::parse(message).map_err(ClientError::Malformed)? {
            ServerFinal::Verifier(signature) if self.signature.as_slice().ct_eq(&signature).into() => Ok(self.keys),
            ServerFinal::Verifier(_) => Err(ClientError::ServerSignature),
            ServerFinal::Error(error) => Err(ClientError::Server(error.to_owned())),
        }
    }
}
