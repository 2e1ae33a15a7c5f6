//! `tls-server-end-point` (RFC 5929 §4): the hash of the certificate that the server has shown.

use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_parser::{oid_registry, prelude::FromDer, signature_algorithm::SignatureAlgorithm};

/// The certificate's hash, with the hash function of its signature, and SHA-256 for those that count as broken (§4.1).
/// `None` for certificates whose signature uses another hash function, or not exactly one: they bind nothing.
pub(crate) fn hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    let algorithm = &parsed.signature_algorithm;
    let name = if algorithm.algorithm == oid_registry::OID_PKCS1_RSASSAPSS {
        let SignatureAlgorithm::RSASSA_PSS(parameters) = SignatureAlgorithm::try_from(algorithm).ok()? else {
            return None;
        };
        parameters.hash_algorithm_oid().to_id_string()
    } else {
        algorithm.algorithm.to_id_string()
    };
    Some(match &*name {
        // sha256WithRSAEncryption, ecdsa-with-SHA256, id-sha256; and MD5 and SHA-1 with RSA, SHA-1 with ECDSA, id-sha1.
        "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.3.2"
        | "2.16.840.1.101.3.4.2.1"
        | "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.10045.4.1"
        | "1.3.14.3.2.26" => Sha256::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" | "2.16.840.1.101.3.4.2.2" => {
            Sha384::digest(certificate).to_vec()
        }
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" | "2.16.840.1.101.3.4.2.3" => {
            Sha512::digest(certificate).to_vec()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).expect("key");
        let parameters = CertificateParams::new(["capulet.example".to_owned()]).expect("parameters");
        parameters.self_signed(&key).expect("certificate").der().to_vec()
    }

    #[test]
    fn the_hash_function_is_that_of_the_signature() {
        let of = |algorithm| hash(&certificate(algorithm)).map(|hash| hash.len());
        assert_eq!(of(&PKCS_ECDSA_P256_SHA256), Some(32));
        assert_eq!(of(&PKCS_ECDSA_P384_SHA384), Some(48));
        let bytes = certificate(&PKCS_ECDSA_P256_SHA256);
        assert_eq!(hash(&bytes), Some(Sha256::digest(&bytes).to_vec()));
    }

    #[test]
    fn ed25519_names_no_hash_function_and_binds_nothing() {
        assert_eq!(hash(&certificate(&PKCS_ED25519)), None);
    }

    #[test]
    fn what_is_no_certificate_has_no_hash() {
        assert_eq!(hash(b"-----BEGIN"), None);
    }
}
