//! Which servers are believed to be who they say.

use std::{io, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};

/// RFC 7301's name of XMPP between client and server (XEP-0368 §3), for direct TLS.
const ALPN: &[u8] = b"xmpp-client";

/// Decides which certificates a server may show. Clones share their memory of TLS sessions, so that reconnecting is
/// cheaper; use one value for all connections to a server.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ClientConfig>);

/// Certificates that cannot be trusted because they are none.
#[derive(Debug, thiserror::Error)]
#[error("not a usable certificate: {0}")]
pub struct TrustError(String);

impl Trust {
    /// Servers with a certificate of one of the authorities that browsers trust, issued for the domain of our address.
    pub fn web_pki() -> Self {
        let roots = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .expect("the authorities browsers trust are a valid store");
        Self::with(
            provider.clone(),
            Arc::new(Pinned {
                authorities: Some(verifier),
                pins: Vec::new(),
                provider,
            }),
        )
    }

    /// Servers with a certificate issued for the domain of our address by one of the authorities in `pem`, or whose
    /// certificate is itself in `pem`, whatever its names and dates: a broker's self-signed certificate can be trusted this
    /// way.
    ///
    /// # Errors
    /// When `pem` holds no certificate, or a malformed one.
    pub fn certificates(pem: &[u8]) -> Result<Self, TrustError> {
        let pins: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|error| TrustError(error.to_string()))?;
        if pins.is_empty() {
            return Err(TrustError("there is none in it".to_owned()));
        }
        let mut roots = RootCertStore::empty();
        for certificate in &pins {
            roots
                .add(certificate.clone())
                .map_err(|error| TrustError(error.to_string()))?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| TrustError(error.to_string()))?;
        Ok(Self::with(
            provider.clone(),
            Arc::new(Pinned {
                authorities: Some(verifier),
                pins,
                provider,
            }),
        ))
    }

    /// Any server at all: whoever sits between can read, and with PLAIN learn the password. For tests.
    pub fn dangerous_accept_any() -> Self {
        let provider = Arc::new(ring::default_provider());
        Self::with(
            provider.clone(),
            Arc::new(Pinned {
                authorities: None,
                pins: Vec::new(),
                provider,
            }),
        )
    }

    /// The same trust without memory of TLS sessions: every connection pays for a full handshake.
    #[must_use]
    pub fn without_resumption(self) -> Self {
        let mut config = Arc::unwrap_or_clone(self.0);
        config.resumption = Resumption::disabled();
        Self(Arc::new(config))
    }

    fn with(provider: Arc<CryptoProvider>, verifier: Arc<Pinned>) -> Self {
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows the default protocol versions")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Self(Arc::new(config))
    }

    /// The TLS configuration; `direct` announces XMPP in the handshake (XEP-0368 §3).
    pub(crate) fn config(&self, direct: bool) -> Arc<ClientConfig> {
        if !direct {
            return self.0.clone();
        }
        let mut config = ClientConfig::clone(&self.0);
        config.alpn_protocols = vec![ALPN.to_vec()];
        Arc::new(config)
    }
}

/// Accepts pinned certificates as they are, others by their authorities, and anything without authorities.
#[derive(Debug)]
struct Pinned {
    authorities: Option<Arc<WebPkiServerVerifier>>,
    pins: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authorities) = &self.authorities else {
            return Ok(ServerCertVerified::assertion());
        };
        if self.pins.iter().any(|pin| pin == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    // The handshake is signed with the certificate's key in every case: a pin is worth nothing without that.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What was wrong with the certificate, if that is why a TLS handshake failed.
pub(crate) fn certificate_error(error: &io::Error) -> Option<CertificateError> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::InvalidCertificate(error) => Some(error.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert!(Trust::certificates(b"").is_err());
        assert!(Trust::certificates(b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").is_err());
        assert!(Trust::certificates(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
    }

    #[test]
    fn clones_share_their_sessions_until_told_otherwise() {
        let trust = Trust::web_pki();
        assert!(Arc::ptr_eq(&trust.config(false), &trust.clone().config(false)));
        assert_eq!(trust.config(true).alpn_protocols, [ALPN.to_vec()]);
        assert!(trust.config(false).alpn_protocols.is_empty());
    }
}
