//! TLS between nodes: both sides show a certificate of the same authority for the cluster's name. Whoever has one may be any node of
//! the cluster; nobody else is heard.

use std::{
    error::Error,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{SystemTime, UNIX_EPOCH},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{Resumption, danger::HandshakeSignatureValid, verify_server_name},
    crypto::CryptoProvider,
    server::{
        NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{TransportError, metrics, net::AnyStream};

/// How nodes trust each other.
#[derive(Clone, Debug)]
pub enum Security {
    /// Not at all: whoever reaches the port can be any node. For loopback and tests.
    Plain,
    /// TLS 1.3, both sides with a certificate that `ca` has signed for the cluster's name (a dNSName among the subject's alternative
    /// names), good for servers and for clients. What is read from files is read again when they change; links that work go on.
    Mtls {
        /// The certificate, and those between it and `ca`.
        certificate: Pem,
        /// Its key.
        key: Pem,
        /// The authorities that sign certificates of nodes.
        ca: Pem,
    },
}

/// Where PEM comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file.
    File(PathBuf),
    /// Here it is.
    Bytes(Vec<u8>),
}

impl std::fmt::Debug for Pem {
    /// Says nothing of what may be a key.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(file) => write!(formatter, "File({file:?})"),
            Self::Bytes(bytes) => write!(formatter, "Bytes({} bytes)", bytes.len()),
        }
    }
}

impl Pem {
    fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::File(file) => {
                std::fs::read(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))
            }
            Self::Bytes(bytes) => Ok(bytes.clone()),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::File(file) => file.display().to_string(),
            Self::Bytes(_) => "the PEM".to_owned(),
        }
    }
}

/// Security as connections begin with it now.
pub(super) enum Secured {
    Plain,
    Mtls(Certificates),
}

/// Certificates that may change.
pub(super) struct Certificates {
    files: [Pem; 3],
    name: ServerName<'static>,
    current: RwLock<Configs>,
    /// What the files held when they were looked at last.
    seen: Mutex<Vec<Option<Vec<u8>>>>,
}

#[derive(Clone)]
struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    /// Until when the certificate is good, in seconds since the Unix epoch.
    not_after: i64,
}

impl Secured {
    /// Reads what is needed.
    pub(super) fn new(security: Security, cluster_name: &str) -> Result<Self, TransportError> {
        let Security::Mtls { certificate, key, ca } = security else {
            return Ok(Self::Plain);
        };
        let name = ServerName::try_from(cluster_name.to_owned()).ok();
        let name = name
            .filter(|name| matches!(name, ServerName::DnsName(_)))
            .ok_or_else(|| {
                TransportError::Security(format!(
                    "the cluster's name {cluster_name:?} cannot be in a certificate: it must be like a host name"
                ))
            })?;
        let files = [certificate, key, ca];
        let seen = look(&files);
        let current = configs(&files, &name).map_err(TransportError::Security)?;
        let certificates = Certificates {
            files,
            name,
            current: RwLock::new(current),
            seen: Mutex::new(seen),
        };
        certificates.report();
        Ok(Self::Mtls(certificates))
    }

    /// Until when the certificate that others are shown is good, in seconds since the Unix epoch.
    pub(super) fn not_after(&self) -> Option<i64> {
        match self {
            Self::Plain => None,
            Self::Mtls(certificates) => Some(certificates.current().not_after),
        }
    }

    /// TLS of a connection that we have dialed.
    pub(super) async fn begin(&self, stream: AnyStream) -> io::Result<AnyStream> {
        match self {
            Self::Plain => Ok(stream),
            Self::Mtls(certificates) => {
                let connector = TlsConnector::from(certificates.current().client);
                Ok(Box::new(connector.connect(certificates.name.clone(), stream).await?))
            }
        }
    }

    /// TLS of a connection that was taken.
    pub(super) async fn take(&self, stream: AnyStream) -> io::Result<AnyStream> {
        match self {
            Self::Plain => Ok(stream),
            Self::Mtls(certificates) => {
                let acceptor = TlsAcceptor::from(certificates.current().server);
                Ok(Box::new(acceptor.accept(stream).await?))
            }
        }
    }

    /// Looks at the files. What cannot be used is said once, until they change again.
    pub(super) fn look(&self) {
        if let Self::Mtls(certificates) = self {
            certificates.look();
        }
    }
}

impl Certificates {
    fn current(&self) -> Configs {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long it is still good: less than nothing once it is not.
    fn report(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        metrics::certificate_expires_in(self.current().not_after as f64 - now.as_secs_f64());
    }

    fn look(&self) {
        self.look_at_files();
        self.report();
    }

    fn look_at_files(&self) {
        let now = look(&self.files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return;
        }
        *seen = now;
        let read = configs(&self.files, &self.name);
        metrics::certificates_reloaded(read.is_ok());
        match read {
            Ok(configs) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = configs;
                tracing::info!("the certificates of links have been read again");
            }
            Err(sentence) => {
                tracing::error!("the changed certificates of links are not used, the former ones are: {sentence}");
            }
        }
    }
}

fn look(files: &[Pem]) -> Vec<Option<Vec<u8>>> {
    files.iter().map(|pem| pem.read().ok()).collect()
}

fn configs([certificate, key, ca]: &[Pem; 3], name: &ServerName<'static>) -> Result<Configs, String> {
    let chain = chain(certificate)?;
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0])
        .map_err(|error| format!("{} has no usable certificate: {error}", certificate.name()))?;
    let not_after = leaf.validity().not_after.timestamp();
    let private = PrivateKeyDer::from_pem_slice(&key.read()?)
        .map_err(|error| format!("{} has no usable private key: {error:?}", key.name()))?;
    let mut roots = RootCertStore::empty();
    for authority in self::chain(ca)? {
        roots
            .add(authority)
            .map_err(|error| format!("{} has an authority that cannot be used: {error}", ca.name()))?;
    }
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(NamedClient::new(&roots, &provider, name.clone())?);
    let apart = |error: rustls::Error| {
        format!(
            "{} and {} cannot be used together: {error}",
            certificate.name(),
            key.name()
        )
    };
    let tls13 = &[&rustls::version::TLS13];

    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(tls13)
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), private.clone_key())
        .map_err(apart)?;
    // Nothing is resumed: every connection shows a certificate that is good now.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.alpn_protocols = vec![b"h2".to_vec()];

    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(tls13)
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, private)
        .map_err(apart)?;
    client.resumption = Resumption::disabled();
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Configs {
        server: Arc::new(server),
        client: Arc::new(client),
        not_after,
    })
}

fn chain(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = pem.read()?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(format!("{} has no certificate", pem.name())),
        Err(error) => Err(format!("{} has no usable certificate: {error:?}", pem.name())),
    }
}

/// Checks the certificate of who has dialed as that of a server is checked: also for its name.
#[derive(Debug)]
struct NamedClient {
    signed: Arc<dyn ClientCertVerifier>,
    name: ServerName<'static>,
}

impl NamedClient {
    fn new(
        roots: &Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
        name: ServerName<'static>,
    ) -> Result<Self, String> {
        let signed = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
            .build()
            .map_err(|error| format!("certificates of peers cannot be checked: {error}"))?;
        Ok(Self { signed, name })
    }
}

impl ClientCertVerifier for NamedClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.signed.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.signed.verify_client_cert(end_entity, intermediates, now)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, &self.name)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// Whether an error is about a certificate: whether ours refuses theirs, and a sentence.
pub(super) fn of_certificate(error: &(dyn Error + 'static)) -> Option<(bool, String)> {
    let tls = causes(error).find_map(rustls_error)?;
    match tls {
        rustls::Error::InvalidCertificate(why) => Some((true, format!("the peer's certificate {}", wrong(why)))),
        rustls::Error::NoCertificatesPresented => Some((true, "the peer shows no certificate".to_owned())),
        rustls::Error::AlertReceived(alert) => {
            Some((false, format!("the peer does not accept our certificate ({alert:?})")))
        }
        _ => None,
    }
}

fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// An error of I/O wraps another, but names that one's cause as its own.
fn rustls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    if let Some(wrapped) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        return rustls_error(wrapped);
    }
    error.downcast_ref()
}

fn wrong(why: &CertificateError) -> String {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "is not valid yet".to_owned(),
        CertificateError::UnknownIssuer => "is not signed by our authority".to_owned(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is not for our cluster's name".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not good for both servers and clients".to_owned()
        }
        other => format!("cannot be used: {other:?}"),
    }
}
