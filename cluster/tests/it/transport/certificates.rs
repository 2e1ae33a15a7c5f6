//! TLS between nodes: who has no good certificate is not heard, and new certificates are used without breaking links.

use std::{fs, path::Path, time::Duration};

use bytes::Bytes;
use heronry_cluster::transport::{CallError, Pem, RefusalReason, Security, TransportError};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};
use rustls_pki_types::pem::PemObject as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Heard, Process, SOON, Start, counts::Counts, pair, proxy::Proxy, until};

/// An authority that signs certificates of nodes.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate and its key.
    fn signs(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn security(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Security {
        mtls(self.signs(name, change), &self.pem)
    }

    fn good(&self) -> Security {
        self.security("colony", |_| {})
    }
}

fn mtls((certificate, key): (String, String), ca: &str) -> Security {
    Security::Mtls {
        certificate: Pem::Bytes(certificate.into()),
        key: Pem::Bytes(key.into()),
        ca: Pem::Bytes(ca.into()),
    }
}

fn secured(node: u64, security: Security) -> Start {
    Start::of(node).with(|start| start.security = security)
}

#[tokio::test]
async fn nodes_with_certificates_of_one_authority_for_the_cluster_are_linked() {
    let ca = Authority::new("ours");
    let (one, two) = pair(secured(1, ca.good()), secured(2, ca.good())).await;
    one.send(&two, "x");
    assert_eq!(two.hears().await, Heard::Message(one.id, Bytes::from("x")));
    assert_eq!(two.asks(&one, "echo").await, Ok(Bytes::from("echo")));
}

/// Node 1 with a certificate of its own kind meets node 2, whose certificate is good; what node 1 is told.
async fn meets(ca: &Authority, security: Security, address: impl Fn(&Process, &Process) -> String) -> String {
    let one = secured(1, security).go().await;
    let two = secured(2, ca.good()).go().await;
    let answer = one.transport.call_address(&two.address(), Bytes::new(), SOON).await;
    let Err(CallError::Refused(refusal)) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(refusal.reason, RefusalReason::Certificate);
    refusal.sentence.replace(&address(&one, &two), "there")
}

#[tokio::test]
async fn certificates_that_are_not_good_are_refused_on_both_sides() {
    let counts = Counts::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let (ca, other) = (Authority::new("ours"), Authority::new("another"));
    let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    let future = |params: &mut CertificateParams| params.not_before = date_time_ymd(2400, 1, 1);
    let server_only = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let two = |_: &Process, two: &Process| two.address();

    // The peer refuses ours: of another authority that we trust beside theirs, for another name, expired, not yet valid, for servers only.
    let both = format!("{}{}", ca.pem, other.pem);
    let cases = [
        (mtls(other.signs("colony", |_| {}), &both), "UnknownCA"),
        (ca.security("colony", expired), "CertificateExpired"),
        (ca.security("heron", |_| {}), "BadCertificate"),
        (ca.security("colony", future), "CertificateExpired"),
        (ca.security("colony", server_only), "UnsupportedCertificate"),
    ];
    for (security, alert) in cases {
        let before = counts.refused("us", "certificate");
        let sentence = meets(&ca, security, two).await;
        assert_eq!(
            sentence,
            format!("there: the peer does not accept our certificate ({alert})")
        );
        until(async || counts.refused("us", "certificate") > before).await;
    }
    // We refuse the peer's.
    let cases = [(
        mtls(ca.signs("colony", |_| {}), &other.pem),
        "is not signed by our authority",
    )];
    for (security, why) in cases {
        assert_eq!(
            meets(&ca, security, two).await,
            format!("there: the peer's certificate {why}")
        );
    }
    let cases = [
        (ca.security("heron", |_| {}), "is not for our cluster's name"),
        (ca.security("colony", expired), "has expired"),
        (ca.security("colony", future), "is not valid yet"),
    ];
    for (security, why) in cases {
        let one = secured(1, ca.good()).go().await;
        let two = secured(2, security).go().await;
        let answer = one.transport.call_address(&two.address(), Bytes::new(), SOON).await;
        let Err(CallError::Refused(refusal)) = answer else {
            panic!("{answer:?}");
        };
        let sentence = refusal.sentence.replace(&two.address(), "there");
        assert_eq!(sentence, format!("there: the peer's certificate {why}"));
    }
}

#[tokio::test]
async fn who_shows_no_certificate_or_speaks_no_tls_is_not_heard() {
    let counts = Counts::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let ca = Authority::new("ours");
    let two = secured(2, ca.good()).go().await;

    let plain = Start::of(1).go().await;
    let answer = plain.transport.call_address(&two.address(), Bytes::new(), SOON).await;
    assert!(matches!(answer, Err(CallError::Unreachable(_))), "{answer:?}");
    until(async || counts.refused("us", "garbled") == 1).await;

    let mut stream = TcpStream::connect(two.address()).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: heronry\r\n\r\n")
        .await
        .unwrap();
    let mut end = Vec::new();
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut end)).await.unwrap();
    until(async || counts.refused("us", "garbled") == 2).await;

    let mut roots = rustls::RootCertStore::empty();
    let pem = rustls_pki_types::CertificateDer::from_pem_slice(ca.pem.as_bytes());
    roots.add(pem.unwrap()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(client));
    let stream = TcpStream::connect(two.address()).await.unwrap();
    let mut stream = connector.connect("colony".try_into().unwrap(), stream).await.unwrap();
    let refused = stream.read_to_end(&mut end).await.unwrap_err();
    assert!(refused.to_string().contains("CertificateRequired"), "{refused}");
    until(async || counts.refused("us", "certificate") == 1).await;

    // And a node with TLS does not speak to one without.
    let secure = secured(3, ca.good()).go().await;
    let answer = secure
        .transport
        .call_address(&plain.address(), Bytes::new(), SOON)
        .await;
    assert!(matches!(answer, Err(CallError::Unreachable(_))), "{answer:?}");
}

#[tokio::test]
async fn a_stranger_in_the_middle_of_tls_has_its_time() {
    let counts = Counts::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let ca = Authority::new("ours");
    let hasty = secured(2, ca.good()).with(|start| start.limits.handshake_timeout = Duration::from_millis(300));
    let two = hasty.go().await;
    let mut stream = TcpStream::connect(two.address()).await.unwrap();
    stream.write_all(&[22, 3, 1, 0, 200, 1]).await.unwrap();
    let mut end = Vec::new();
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut end)).await.unwrap();
    until(async || counts.refused("us", "silent") == 1).await;
}

/// A node whose certificates are files.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, (certificate, key): &(String, String), ca: &str) {
        for (name, text) in [
            ("certificate.pem", certificate.as_str()),
            ("key.pem", key),
            ("ca.pem", ca),
        ] {
            fs::write(self.0.path().join(name), text).unwrap();
        }
    }

    fn security(&self) -> Security {
        let file = |name: &str| Pem::File(Path::new(self.0.path()).join(name));
        Security::Mtls {
            certificate: file("certificate.pem"),
            key: file("key.pem"),
            ca: file("ca.pem"),
        }
    }
}

#[tokio::test]
async fn certificates_are_read_again_when_they_change_and_links_go_on() {
    let counts = Counts::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (first, second) = (Files::new(), Files::new());
    first.write(&old.signs("colony", |_| {}), &old.pem);
    second.write(&old.signs("colony", |_| {}), &old.pem);
    let one = secured(1, first.security()).go().await;
    let two = secured(2, second.security()).go().await;
    let proxy = Proxy::to(two.address()).await;
    one.transport.wanted(vec![(two.id.node, proxy.address.clone())]);
    two.wants(&[&one]);
    assert_eq!(one.hears().await, Heard::Up(two.id, false));
    assert_eq!(two.hears().await, Heard::Up(one.id, false));

    // What cannot be used is not.
    fs::write(first.0.path().join("key.pem"), "nothing").unwrap();
    one.transport.reread_certificates().await;
    for (files, node) in [(&first, &one), (&second, &two)] {
        files.write(&new.signs("colony", |_| {}), &new.pem);
        node.transport.reread_certificates().await;
    }
    one.send(&two, "x");
    assert_eq!(two.hears().await, Heard::Message(one.id, Bytes::from("x")));

    // The old authority is no longer trusted, the new one is.
    let former = secured(3, old.good()).go().await;
    let answer = former.transport.call_address(&two.address(), Bytes::new(), SOON).await;
    assert!(matches!(answer, Err(CallError::Refused(_))), "{answer:?}");
    proxy.cut();
    assert_eq!(one.hears().await, Heard::Down(two.id));
    assert_eq!(one.hears().await, Heard::Up(two.id, true));
}

#[tokio::test]
async fn changed_files_are_noticed() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let files = Files::new();
    files.write(&old.signs("colony", |_| {}), &old.pem);
    let often = |start: &mut Start| start.limits.certificate_check_interval = Duration::from_millis(20);
    let one = secured(1, files.security()).with(often).go().await;
    let two = secured(2, new.good()).go().await;
    let before = one.transport.certificate_not_after().unwrap();
    let answer = two.transport.call_address(&one.address(), Bytes::new(), SOON).await;
    assert!(matches!(answer, Err(CallError::Refused(_))), "{answer:?}");
    let long = |params: &mut CertificateParams| params.not_after = date_time_ymd(4000, 1, 1);
    files.write(&new.signs("colony", long), &new.pem);
    until(async || {
        two.transport
            .call_address(&one.address(), Bytes::new(), SOON)
            .await
            .is_ok()
    })
    .await;
    // 4000-01-01, in seconds since 1970.
    let after = one.transport.certificate_not_after().unwrap();
    assert!(after != before && after == 64_060_588_800, "{before} {after}");
}

#[tokio::test]
async fn what_cannot_be_used_is_an_error_at_the_start() {
    let ca = Authority::new("ours");
    let good = ca.signs("colony", |_| {});
    let cases = [
        (
            mtls((String::new(), good.1.clone()), &ca.pem),
            "the PEM has no certificate",
        ),
        (
            mtls((good.0.clone(), String::new()), &ca.pem),
            "the PEM has no usable private key: NoItemsFound",
        ),
        (mtls(good.clone(), ""), "the PEM has no certificate"),
        (
            mtls((good.0.clone(), ca.signs("colony", |_| {}).1), &ca.pem),
            "the PEM and the PEM cannot be used together: ",
        ),
    ];
    for (security, sentence) in cases {
        let refused = secured(1, security).try_go().await;
        let Err(TransportError::Security(said)) = refused else {
            panic!("{refused:?}");
        };
        assert!(said.starts_with(sentence), "{said}");
    }
    let nameless = secured(1, ca.good()).with(|start| start.identity.cluster_name = "a colony".to_owned());
    let said = nameless.try_go().await.unwrap_err().to_string();
    assert_eq!(
        said,
        r#"the cluster's name "a colony" cannot be in a certificate: it must be like a host name"#
    );
}
