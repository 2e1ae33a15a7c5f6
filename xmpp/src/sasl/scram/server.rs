//! The server's side of SCRAM. Each step consumes the one before it, so no message can be taken twice or out of order.

use subtle::ConstantTimeEq as _;

use super::super::{BindingType, ChannelBindings, Condition, Failure};
use super::hash::{Digest, ScramHash};
use super::keys::ScramKeys;
use super::message::{BindingFlag, ClientFinal, ClientFirst, ServerFinal, ServerFirst};
use crate::random::{Random, token};

/// The client has said who it is; its keys are needed to go on.
pub(in super::super) struct Introduced {
    pub(in super::super) hash: ScramHash,
    pub(in super::super) username: String,
    pub(in super::super) authzid: Option<String>,
    /// `cbind-input`: what the client's final message must carry.
    binding: Vec<u8>,
    /// The client's nonce and ours.
    nonce: String,
    client_first_bare: String,
}

impl Introduced {
    /// Takes `client-first-message`. `bindings` are those of the channel when `-PLUS` was offered on this stream.
    pub(in super::super) fn new(
        hash: ScramHash,
        plus: bool,
        bindings: &ChannelBindings,
        message: &[u8],
        random: &mut dyn Random,
    ) -> Result<Self, Failure> {
        Self::with_nonce(hash, plus, bindings, message, &token(random))
    }

    pub(super) fn with_nonce(
        hash: ScramHash,
        plus: bool,
        bindings: &ChannelBindings,
        message: &[u8],
        server_nonce: &str,
    ) -> Result<Self, Failure> {
        let first = ClientFirst::parse(message).map_err(Failure::malformed)?;
        let mut binding = first.gs2_header.as_bytes().to_vec();
        binding.extend_from_slice(bound_to(first.flag, plus, bindings)?);
        let nonce = format!("{}{server_nonce}", first.nonce);
        let client_first_bare = first.bare.to_owned();
        Ok(Self {
            hash,
            username: first.username,
            authzid: first.authzid,
            binding,
            nonce,
            client_first_bare,
        })
    }

    /// Gives `server-first-message`. When the user is not `known` the exchange goes on to its end and fails there.
    pub(in super::super) fn challenge(self, keys: ScramKeys, known: bool) -> (Vec<u8>, Challenged) {
        let server_first = ServerFirst::write(&self.nonce, keys.salt(), keys.iterations());
        let signed = format!("{},{server_first},", self.client_first_bare);
        (
            server_first.into_bytes(),
            Challenged {
                keys,
                known,
                binding: self.binding,
                nonce: self.nonce,
                signed,
            },
        )
    }
}

/// The channel binding data that the client's flag stands for (RFC 5802 §6).
fn bound_to<'a>(flag: BindingFlag<'_>, plus: bool, bindings: &'a ChannelBindings) -> Result<&'a [u8], Failure> {
    match (flag, plus) {
        (BindingFlag::Used(name), true) => BindingType::from_name(name)
            .and_then(|kind| bindings.value(kind))
            .ok_or(Failure::because(
                Condition::NotAuthorized,
                "this channel binding type is not supported",
            )),
        (BindingFlag::Unsupported, false) => Ok(&[]),
        // The client would have bound the channel but saw no -PLUS: if we offered it, someone took it from our list.
        (BindingFlag::NotOffered, false) if bindings.is_empty() => Ok(&[]),
        (BindingFlag::NotOffered, false) => Err(Failure::because(
            Condition::NotAuthorized,
            "channel binding was offered; the list has been tampered with",
        )),
        _ => Err(Failure::malformed("the channel binding flag contradicts the mechanism")),
    }
}

/// The client has been challenged; its proof is awaited.
pub(in super::super) struct Challenged {
    keys: ScramKeys,
    known: bool,
    binding: Vec<u8>,
    nonce: String,
    /// `AuthMessage` as far as it is known.
    signed: String,
}

impl Challenged {
    /// Takes `client-final-message`, gives `server-final-message`.
    pub(in super::super) fn verify(mut self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let last = ClientFinal::parse(message).map_err(Failure::malformed)?;
        if !bool::from(last.binding.ct_eq(&self.binding)) {
            return Err(Failure::because(
                Condition::NotAuthorized,
                "channel bindings do not match",
            ));
        }
        if last.nonce != self.nonce {
            return Err(Failure::because(
                Condition::NotAuthorized,
                "this is not the nonce of this exchange",
            ));
        }
        let proof = Digest::of(self.keys.hash(), &last.proof).ok_or(Condition::NotAuthorized)?;
        self.signed.push_str(last.without_proof);
        // For nobody's keys the proof is computed all the same: it takes as long.
        if !(self.keys.accepts(self.signed.as_bytes(), &proof) & self.known) {
            return Err(Condition::NotAuthorized.into());
        }
        Ok(ServerFinal::write_verifier(self.keys.signature(self.signed.as_bytes()).as_slice()).into_bytes())
    }
}
