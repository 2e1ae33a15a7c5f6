//! TLS: which versions and how (RFC 9325); certificates and keys: read from files, or signed by ourselves and kept in the data directory.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ServerConfig, SupportedProtocolVersion, crypto::CryptoProvider, server::ServerSessionMemoryCache, version,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    oid_registry::{
        OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512,
    },
    prelude::FromDer as _,
};

use crate::{
    StartError,
    config::{Config, TlsVersion},
    data,
};

mod watch;

pub(crate) use watch::METRICS;
pub use watch::{Looked, Tls};

/// A certificate that is good for less time than that is worth a warning.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// The one place that says which implementation of cryptography TLS uses.
pub fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What the listeners need to speak TLS.
#[derive(Clone, Debug)]
pub struct TlsMaterial {
    /// For streams that upgrade with STARTTLS (RFC 6120 §5).
    pub starttls: Arc<ServerConfig>,
    /// For connections with TLS from the first byte: as `starttls`, and `xmpp-client` is expected when the client names
    /// protocols (XEP-0368 §2).
    pub direct: Arc<ServerConfig>,
    /// The hash of the certificate for the channel binding `tls-server-end-point` (RFC 5929 §4.1).
    pub server_end_point: Vec<u8>,
    /// Until when the certificate is valid, in seconds since the Unix epoch.
    pub not_after: i64,
    /// The file with the certificate.
    pub certificate: PathBuf,
    /// The file with its key.
    pub key: PathBuf,
    /// What an operator should know, a sentence each.
    pub warnings: Vec<String>,
}

impl TlsMaterial {
    /// Reads the certificate that the configuration names, or makes one in `data`.
    ///
    /// # Errors
    /// When a file cannot be read, is not what it should be, or key and certificate do not belong together.
    pub fn load(config: &Config, data: &Path) -> Result<Self, StartError> {
        let mut warnings = Vec::new();
        let (certificate, key) = match (&config.tls.certificate, &config.tls.key) {
            (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
            _ => self_signed(&config.domains, data, &mut warnings)?,
        };
        let chain = read_chain(&certificate)?;
        let private_key = PrivateKeyDer::from_pem_file(&key).map_err(|error| {
            StartError::Tls(format!("{} has no usable private key: {}", key.display(), pem(&error)))
        })?;
        warnings.extend(readable_by_others(&key));
        let leaf = leaf(&chain, &certificate)?;
        warnings.extend(name_warnings(&leaf, &certificate, &config.domains));
        warnings.extend(date_warning(&leaf, &certificate));
        let server_end_point = end_point_hash(&leaf, &chain);
        let not_after = leaf.validity().not_after.timestamp();

        let mut starttls = ServerConfig::builder_with_provider(crypto_provider())
            .with_protocol_versions(&versions(config.tls.min_version))
            .map_err(|error| StartError::Tls(format!("TLS cannot be set up: {error}")))?
            .with_no_client_auth()
            .with_single_cert(chain, private_key)
            .map_err(|error| {
                StartError::Tls(format!(
                    "{} and {} cannot be used together: {error}",
                    certificate.display(),
                    key.display()
                ))
            })?;
        // Of TLS 1.2 only with extended master secret (RFC 9325 §3.5): without it a channel has no exporter to bind to
        // (RFC 9266 §4.2). There is no renegotiation, no compression and no early data.
        starttls.require_ems = true;
        // A session is remembered here and its ticket good for once (RFC 8446 §C.4). The memory goes with the certificate: who
        // resumes a session is bound to the one it saw then.
        starttls.session_storage = ServerSessionMemoryCache::new(config.limits.edge.tls_sessions());
        starttls.send_tls13_tickets = 1;
        let mut direct = starttls.clone();
        direct.alpn_protocols = vec![b"xmpp-client".to_vec()];
        Ok(Self {
            starttls: Arc::new(starttls),
            direct: Arc::new(direct),
            server_end_point,
            not_after,
            certificate,
            key,
            warnings,
        })
    }
}

/// The versions from the lowest that is wanted on. Older ones than 1.2 do not exist here (RFC 9325 §3.1.1).
fn versions(min: TlsVersion) -> Vec<&'static SupportedProtocolVersion> {
    match min {
        TlsVersion::Tls12 => vec![&version::TLS13, &version::TLS12],
        TlsVersion::Tls13 => vec![&version::TLS13],
    }
}

fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let failed = |error: &_| StartError::Tls(format!("{} has no usable certificate: {}", file.display(), pem(error)));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file)
        .map_err(|error| failed(&error))?
        .collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(failed(&rustls_pki_types::pem::Error::NoItemsFound)),
        Ok(chain) => Ok(chain),
        Err(error) => Err(failed(&error)),
    }
}

/// The PEM reader's errors in words.
fn pem(error: &rustls_pki_types::pem::Error) -> String {
    use rustls_pki_types::pem::Error;
    match error {
        Error::Io(error) => error.to_string(),
        Error::NoItemsFound => "it has no such PEM section".to_owned(),
        error => format!("{error:?}"),
    }
}

/// The certificate and key we sign for ourselves, made when absent or when the domains are others now.
fn self_signed(domains: &[String], data: &Path, warnings: &mut Vec<String>) -> Result<(PathBuf, PathBuf), StartError> {
    let directory = data.join("tls");
    let (certificate, key) = (directory.join("self-signed.pem"), directory.join("self-signed.key"));
    let current = key.exists()
        && fs::read(&certificate).is_ok_and(|pem| {
            CertificateDer::from_pem_slice(&pem)
                .is_ok_and(|der| X509Certificate::from_der(&der).is_ok_and(|(_, leaf)| covers_all(&leaf, domains)))
        });
    if !current {
        make_self_signed(domains, &directory, &certificate, &key)?;
    }
    warnings.push(format!(
        "no tls.certificate is set: clients are shown {}, which nobody vouches for",
        certificate.display()
    ));
    Ok((certificate, key))
}

fn make_self_signed(domains: &[String], directory: &Path, certificate: &Path, key: &Path) -> Result<(), StartError> {
    let failed =
        |error: rcgen::Error| StartError::Tls(format!("a certificate cannot be made for {domains:?}: {error}"));
    let names: Vec<_> = domains.iter().map(|domain| ascii(domain)).collect();
    let mut params = rcgen::CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    let name = domains.first().cloned().unwrap_or_default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, format!("{name} (made by heronry)"));
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let pair = rcgen::KeyPair::generate().map_err(failed)?;
    let signed = params.self_signed(&pair).map_err(failed)?;
    let write = || -> io::Result<()> {
        fs::create_dir_all(directory)?;
        data::write_secret(key, pair.serialize_pem().as_bytes())?;
        data::write_secret(certificate, signed.pem().as_bytes())
    };
    write().map_err(|error| StartError::data(directory, error))
}

fn leaf<'c>(chain: &'c [CertificateDer<'static>], file: &Path) -> Result<X509Certificate<'c>, StartError> {
    let failed = |error| StartError::Tls(format!("{} has no usable certificate: {error}", file.display()));
    let first = chain.first().ok_or_else(|| failed("it is empty".to_owned()))?;
    X509Certificate::from_der(first)
        .map(|(_, leaf)| leaf)
        .map_err(|error| failed(error.to_string()))
}

/// RFC 5929 §4.1: the hash of the signature, but SHA-256 instead of MD5, SHA-1 or one we cannot name.
fn end_point_hash(leaf: &X509Certificate<'_>, chain: &[CertificateDer<'static>]) -> Vec<u8> {
    let der = chain.first().map_or(&[][..], |der| der.as_ref());
    let algorithm = &leaf.signature_algorithm.algorithm;
    if *algorithm == OID_SIG_ECDSA_WITH_SHA384 || *algorithm == OID_PKCS1_SHA384WITHRSA {
        Sha384::digest(der).to_vec()
    } else if *algorithm == OID_SIG_ECDSA_WITH_SHA512 || *algorithm == OID_PKCS1_SHA512WITHRSA {
        Sha512::digest(der).to_vec()
    } else {
        Sha256::digest(der).to_vec()
    }
}

fn readable_by_others(key: &Path) -> Option<String> {
    let mode = fs::metadata(key).ok()?.permissions().mode();
    (mode & 0o007 != 0).then(|| {
        format!(
            "the key {} can be read by everybody on this machine (mode {:04o}): chmod 600 it",
            key.display(),
            mode & 0o777
        )
    })
}

fn name_warnings(leaf: &X509Certificate<'_>, file: &Path, domains: &[String]) -> Vec<String> {
    let uncovered = domains.iter().filter(|domain| !covers(leaf, domain));
    let warning = |domain| {
        format!(
            "the certificate {} is not for the domain {domain}: clients that check it will not connect",
            file.display()
        )
    };
    uncovered.map(warning).collect()
}

fn date_warning(leaf: &X509Certificate<'_>, file: &Path) -> Option<String> {
    let validity = leaf.validity();
    if let Some(left) = validity.time_to_expiration()
        && left < EXPIRES_SOON
    {
        let days = left.whole_days();
        return Some(format!("the certificate {} expires in {days} days", file.display()));
    }
    (!validity.is_valid()).then(|| {
        format!(
            "the certificate {} is valid from {} to {} only",
            file.display(),
            validity.not_before,
            validity.not_after
        )
    })
}

fn covers_all(leaf: &X509Certificate<'_>, domains: &[String]) -> bool {
    domains.iter().all(|domain| covers(leaf, domain))
}

/// Whether a client that connects for `domain` accepts the certificate's names (RFC 6120 §13.7.1.2, RFC 9525 §6.3).
fn covers(leaf: &X509Certificate<'_>, domain: &str) -> bool {
    let domain = ascii(domain);
    let Ok(Some(names)) = leaf.subject_alternative_name() else {
        return false;
    };
    names.value.general_names.iter().any(|name| match name {
        GeneralName::DNSName(name) => matches_name(name, &domain),
        GeneralName::IPAddress(bytes) => domain.parse::<IpAddr>().is_ok_and(|ip| match ip {
            IpAddr::V4(ip) => ip.octets() == *bytes,
            IpAddr::V6(ip) => ip.octets() == *bytes,
        }),
        _ => false,
    })
}

fn matches_name(pattern: &str, domain: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => domain
            .split_once('.')
            .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
        None => pattern.eq_ignore_ascii_case(domain),
    }
}

/// The domain as certificates have it: A-labels, no brackets around IPv6 addresses.
fn ascii(domain: &str) -> String {
    let bare = domain
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(domain);
    idna::domain_to_ascii(bare).unwrap_or_else(|_| bare.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        directory: tempfile::TempDir,
        config: Config,
    }

    impl Files {
        fn with_names(names: &[&str]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let pair = rcgen::KeyPair::generate().unwrap();
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let signed = rcgen::CertificateParams::new(names)
                .unwrap()
                .self_signed(&pair)
                .unwrap();
            let (certificate, key) = (directory.path().join("c.pem"), directory.path().join("k.pem"));
            fs::write(&certificate, signed.pem()).unwrap();
            data::write_secret(&key, pair.serialize_pem().as_bytes()).unwrap();
            let mut config = Config::default();
            config.tls.certificate = Some(certificate);
            config.tls.key = Some(key);
            Self { directory, config }
        }

        fn load(&self) -> Result<TlsMaterial, StartError> {
            TlsMaterial::load(&self.config, self.directory.path())
        }

        fn warnings(&self) -> Vec<String> {
            let place = format!("{}/", self.directory.path().display());
            self.load()
                .unwrap()
                .warnings
                .iter()
                .map(|warning| warning.replace(&place, ""))
                .collect()
        }

        fn refusal(&self) -> String {
            let place = format!("{}/", self.directory.path().display());
            self.load().unwrap_err().to_string().replace(&place, "")
        }
    }

    #[test]
    fn without_files_a_certificate_is_signed_and_kept() {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        let first = TlsMaterial::load(&config, data.path()).unwrap();
        assert_eq!(first.warnings.len(), 1, "{:?}", first.warnings);
        assert!(first.warnings[0].contains("nobody vouches for"));
        let again = TlsMaterial::load(&config, data.path()).unwrap();
        assert_eq!(first.server_end_point, again.server_end_point);
        config.domains = vec!["bücher.example".to_owned(), "[::1]".to_owned()];
        let other = TlsMaterial::load(&config, data.path()).unwrap();
        assert_ne!(first.server_end_point, other.server_end_point);
        assert_eq!(other.warnings.len(), 1, "{:?}", other.warnings);
        let mode = fs::metadata(data.path().join("tls/self-signed.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_certificate_for_the_domains_and_a_private_key_give_no_warning() {
        let mut files = Files::with_names(&["*.example.org", "example.org", "xn--bcher-kva.example"]);
        files.config.domains = ["im.example.org", "EXAMPLE.org", "bücher.example"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(files.warnings(), Vec::<String>::new());
    }

    #[test]
    fn names_that_do_not_match_and_keys_that_others_read_are_warnings() {
        let mut files = Files::with_names(&["*.example.org"]);
        files.config.domains = ["example.org", "a.b.example.org"].map(str::to_owned).to_vec();
        let key = files.config.tls.key.clone().unwrap();
        fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(
            files.warnings(),
            [
                "the key k.pem can be read by everybody on this machine (mode 0644): chmod 600 it",
                "the certificate c.pem is not for the domain example.org: clients that check it will not connect",
                "the certificate c.pem is not for the domain a.b.example.org: clients that check it will not connect",
            ]
        );
    }

    /// Names of versions that a configuration offers.
    #[test]
    fn a_certificate_that_expires_soon_is_a_warning() {
        let files = Files::with_names(&["localhost"]);
        let tls = &files.config.tls;
        let pair = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        // Ten days and an hour.
        let seconds = 10 * 24 * 3600 + 3600;
        params.not_after = (std::time::SystemTime::now() + Duration::from_secs(seconds)).into();
        fs::write(
            tls.certificate.as_ref().unwrap(),
            params.self_signed(&pair).unwrap().pem(),
        )
        .unwrap();
        fs::write(tls.key.as_ref().unwrap(), pair.serialize_pem()).unwrap();
        assert_eq!(files.warnings(), ["the certificate c.pem expires in 10 days"]);
    }

    #[test]
    fn only_versions_from_the_lowest_on_are_spoken() {
        let spoken = |min| {
            versions(min)
                .into_iter()
                .map(|version| version.version)
                .collect::<Vec<_>>()
        };
        let (tls12, tls13) = (rustls::ProtocolVersion::TLSv1_2, rustls::ProtocolVersion::TLSv1_3);
        assert_eq!(spoken(TlsVersion::Tls12), [tls13, tls12]);
        assert_eq!(spoken(TlsVersion::Tls13), [tls13]);
    }

    /// RFC 9325 §4.2: forward secrecy and authenticated encryption, nothing else; §3.5: extended master secret.
    #[test]
    fn suites_and_settings_are_those_that_rfc_9325_recommends() {
        use rustls::CipherSuite as Suite;
        let material = Files::with_names(&["localhost"]).load().unwrap();
        let known = [
            Suite::TLS13_AES_256_GCM_SHA384,
            Suite::TLS13_AES_128_GCM_SHA256,
            Suite::TLS13_CHACHA20_POLY1305_SHA256,
            Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ];
        for config in [&material.starttls, &material.direct] {
            for suite in &config.crypto_provider().cipher_suites {
                assert!(known.contains(&suite.suite()), "{suite:?}");
            }
            assert!(config.require_ems);
            assert!(!config.ticketer.enabled(), "a ticket that can be used twice");
            assert_eq!(config.max_early_data_size, 0);
            assert!(config.cert_compressors.is_empty());
        }
    }

    #[test]
    fn changed_files_are_used_and_broken_ones_are_not() {
        let (mut files, other) = (Files::with_names(&["localhost"]), Files::with_names(&["localhost"]));
        files.config.storage.data = files.directory.path().to_owned();
        let path = |files: &Files| {
            let tls = &files.config.tls;
            (tls.certificate.clone().unwrap(), tls.key.clone().unwrap())
        };
        let ((certificate, key), (new_certificate, new_key)) = (path(&files), path(&other));
        let tls = Tls::load(&files.config).unwrap();
        let first = tls.current();
        assert_eq!(tls.look(), Looked::Unchanged);
        // The certificate comes first, and for a moment the key is another's.
        fs::copy(&new_certificate, &certificate).unwrap();
        assert_eq!(tls.look(), Looked::Broken);
        assert_eq!(tls.look(), Looked::Unchanged, "it is said once");
        assert_eq!(tls.current().server_end_point, first.server_end_point);
        fs::copy(&new_key, &key).unwrap();
        assert_eq!(tls.look(), Looked::Renewed);
        let second = tls.current();
        assert_eq!(second.server_end_point, other.load().unwrap().server_end_point);
        assert_ne!(second.server_end_point, first.server_end_point);
        fs::write(&certificate, "no certificate").unwrap();
        assert_eq!(tls.look(), Looked::Broken);
        fs::remove_file(&key).unwrap();
        assert_eq!(tls.look(), Looked::Broken);
        assert!(Arc::ptr_eq(&tls.current(), &second));
        fs::copy(&new_certificate, &certificate).unwrap();
        fs::copy(&new_key, &key).unwrap();
        assert_eq!(tls.look(), Looked::Renewed);
    }

    #[test]
    fn what_cannot_be_used_is_refused_in_a_sentence() {
        let mut files = Files::with_names(&["localhost"]);
        let other = Files::with_names(&["localhost"]);
        files.config.tls.key = other.config.tls.key.clone();
        assert!(
            files.refusal().contains("cannot be used together"),
            "{}",
            files.refusal()
        );
        files.config.tls.key = files.config.tls.certificate.clone();
        assert_eq!(
            files.refusal(),
            "c.pem has no usable private key: it has no such PEM section"
        );
        files.config.tls.certificate = Some(files.directory.path().join("gone.pem"));
        assert_eq!(
            files.refusal(),
            "gone.pem has no usable certificate: No such file or directory (os error 2)"
        );
    }
}
