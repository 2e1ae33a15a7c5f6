//! Strangers at the door: what they are offered, how long they may take, how much they may do, and what they become.

use std::{net::Ipv4Addr, net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use heronry_client::{
    Client, ConnectError, Mechanism, Options, Password, Request, Server, Tls, Trust, jid::Jid, xml::Element,
};
use heronry_node::config::{Config, Mechanism as Offered, TlsVersion};
use heronry_xmpp::sasl::{BindingType, ClientBinding, ClientExchange, Secret};
use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, ProtocolVersion, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    broker::{Broker, Device, PATIENCE},
    process::Place,
};

const OPEN: &str = "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                    xmlns:stream='http://etherx.jabber.org/streams'>";
const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const BIND: &str = "<iq id='bind' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
const FEATURES: &str = "</stream:features>";

/// A stranger and what it has heard.
struct Stranger<S> {
    stream: S,
    heard: String,
}

impl Stranger<TcpStream> {
    async fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).await.unwrap())
    }

    /// From this address of loopback.
    async fn from(last: u8, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into()).unwrap();
        Self::new(socket.connect(address).await.unwrap())
    }

    async fn starttls(mut self, config: &Arc<ClientConfig>) -> Stranger<TlsStream<TcpStream>> {
        self.say(OPEN).await;
        self.until(FEATURES).await;
        self.say(STARTTLS).await;
        self.until("<proceed").await;
        Stranger::new(handshake(self.stream, config).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stranger<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            heard: String::new(),
        }
    }

    async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Everything up to and including `needle`.
    async fn until(&mut self, needle: &str) -> String {
        loop {
            if let Some(at) = self.heard.find(needle) {
                let rest = self.heard.split_off(at + needle.len());
                return std::mem::replace(&mut self.heard, rest);
            }
            let mut buffer = [0; 4096];
            let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut buffer));
            let length = read.await.unwrap().unwrap();
            assert!(length > 0, "no {needle} in {}", self.heard);
            self.heard.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
    }

    /// Everything to the end; a reset is one.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut bytes))
            .await
            .unwrap();
        std::mem::take(&mut self.heard) + &String::from_utf8_lossy(&bytes)
    }

    /// Authenticates with PLAIN; what is heard then.
    async fn plain(&mut self, user: &str, password: &str) -> String {
        let initial = BASE64.encode(format!("\0{user}\0{password}"));
        self.say(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{initial}</auth>"
        ))
        .await;
        let heard = self.until(">").await;
        if heard.contains("<failure") {
            return heard + &self.until("</failure>").await;
        }
        heard
    }

    async fn register(&mut self, user: &str) -> String {
        self.say(&format!(
            "<iq type='set' id='{user}'><query xmlns='jabber:iq:register'><username>{user}</username>\
             <password>secret</password></query></iq>"
        ))
        .await;
        let id = format!("id='{user}'");
        let mut heard = self.until(&id).await;
        heard.push_str(&self.until(">").await);
        if heard.contains("error") {
            heard.push_str(&self.until("</iq>").await);
        }
        heard
    }
}

/// Believes any server, but checks its signatures.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A client that speaks this version and names these protocols.
fn tls(version: &'static rustls::SupportedProtocolVersion, protocols: &[&str]) -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

async fn handshake(stream: TcpStream, config: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

async fn direct(address: SocketAddr, config: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    handshake(TcpStream::connect(address).await?, config).await
}

fn certificate_of(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// The value of a channel binding, computed here from what RFC 9266 and RFC 5929 say.
fn binding(stream: &TlsStream<TcpStream>, kind: BindingType) -> Vec<u8> {
    match kind {
        BindingType::TlsExporter => stream
            .get_ref()
            .1
            .export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", Some(b""))
            .unwrap(),
        // The certificate is signed with SHA-256.
        BindingType::TlsServerEndPoint => Sha256::digest(certificate_of(stream)).to_vec(),
    }
}

/// Juliet authenticates with SCRAM-SHA-256-PLUS; the name of the element that says what came of it.
async fn authenticates(mut stranger: Stranger<TlsStream<TcpStream>>, kind: BindingType, value: &[u8]) -> String {
    stranger.say(OPEN).await;
    let features = stranger.until(FEATURES).await;
    let offered = format!("<channel-binding type='{}'/>", kind.name());
    assert!(features.contains(&offered), "{features}");
    let mechanism = Mechanism::from_name("SCRAM-SHA-256-PLUS").unwrap();
    let secret = Secret::new(Password::new("juliet").unwrap());
    let mut random = |bytes: &mut [u8]| bytes.fill(b'r');
    let bound = ClientBinding::Bound(kind, value);
    let (mut exchange, initial) = ClientExchange::start(mechanism, "juliet", secret, bound, &mut random).unwrap();
    stranger
        .say(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{}</auth>",
            BASE64.encode(&*initial)
        ))
        .await;
    let challenge = stranger.until("</challenge>").await;
    let challenge = challenge.split(['<', '>']).nth(2).unwrap();
    let response = exchange.challenge(&BASE64.decode(challenge).unwrap()).unwrap();
    stranger
        .say(&format!(
            "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{}</response>",
            BASE64.encode(response)
        ))
        .await;
    let answer = stranger.until(">").await;
    answer.split(['<', ' ']).nth(1).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_bound_to_its_channel_by_either_type_over_either_version_of_tls() {
    let broker = Broker::start().await;
    broker.user("juliet").await;
    for version in [&TLS12, &TLS13] {
        for kind in [BindingType::TlsExporter, BindingType::TlsServerEndPoint] {
            for begins_with_tls in [false, true] {
                let connect = async || {
                    if begins_with_tls {
                        let config = tls(version, &["xmpp-client"]);
                        Stranger::new(direct(broker.c2s_tls(), &config).await.unwrap())
                    } else {
                        let clear = Stranger::connect(broker.c2s()).await;
                        clear.starttls(&tls(version, &[])).await
                    }
                };
                let stranger = connect().await;
                let value = binding(&stranger.stream, kind);
                let what = (version, kind, begins_with_tls);
                assert_eq!(authenticates(stranger, kind, &value).await, "success", "{what:?}");
                // Somebody between would have another channel.
                let stranger = connect().await;
                assert_eq!(authenticates(stranger, kind, b"another").await, "failure", "{what:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_binds_the_channel_and_notices_when_it_is_not_offered_to() {
    let broker = Broker::start().await;
    broker.user("juliet").await;
    let plus = Mechanism::from_name("SCRAM-SHA-256-PLUS").unwrap();
    Device::connect(broker.options("juliet").mechanism(plus)).await;
    let direct = broker.options("juliet").server(Server::Address(broker.c2s_tls()));
    let direct = direct.tls(Tls::Direct(Trust::dangerous_accept_any()));
    Device::connect(direct.mechanism(plus)).await;
    // Lesson 12: a client that could bind and was cut off from it says so, and is refused.
    let cut = Mechanism::from_name("SCRAM-SHA-256").unwrap();
    let mut stranger = Stranger::connect(broker.c2s()).await.starttls(&tls(&TLS13, &[])).await;
    stranger.say(OPEN).await;
    stranger.until(FEATURES).await;
    stranger
        .say(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{cut}'>{}</auth>",
            BASE64.encode("y,,n=juliet,r=nonce")
        ))
        .await;
    assert!(stranger.until("</failure>").await.contains("<not-authorized/>"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_of_tls_than_the_configured_one_is_refused() {
    let broker = Broker::with(|config| config.tls.min_version = TlsVersion::Tls13).await;
    assert!(direct(broker.c2s_tls(), &tls(&TLS12, &[])).await.is_err());
    let stream = direct(broker.c2s_tls(), &tls(&TLS13, &[])).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
}

/// XEP-0368 §3, RFC 7301 §3.2.
#[tokio::test(flavor = "multi_thread")]
async fn direct_tls_is_for_xmpp_clients() {
    let broker = Broker::start().await;
    let named = |stream: &TlsStream<TcpStream>| stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    let xmpp = direct(broker.c2s_tls(), &tls(&TLS13, &["h2", "xmpp-client"]))
        .await
        .unwrap();
    assert_eq!(named(&xmpp), Some(b"xmpp-client".to_vec()));
    let unnamed = direct(broker.c2s_tls(), &tls(&TLS13, &[])).await.unwrap();
    assert_eq!(named(&unnamed), None);
    for other in ["h2", "http/1.1", "xmpp-server"] {
        assert!(
            direct(broker.c2s_tls(), &tls(&TLS13, &[other])).await.is_err(),
            "{other}"
        );
    }
}

/// RFC 8446 §C.4: two connections cannot be told to be one client's by their ticket.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_resumed_with_a_ticket_that_is_given_once_for_each_connection() {
    let broker = Broker::start().await;
    let config = tls(&TLS13, &["xmpp-client"]);
    let connect = async || {
        let mut stranger = Stranger::new(direct(broker.c2s_tls(), &config).await.unwrap());
        // The ticket comes after the handshake, with whatever is read.
        stranger.say(OPEN).await;
        stranger.until(FEATURES).await;
        stranger.stream.get_ref().1.handshake_kind().unwrap()
    };
    assert_eq!(connect().await, HandshakeKind::Full);
    assert_eq!(connect().await, HandshakeKind::Resumed);
    // The first ticket is used up; this is the one that came with the second connection.
    assert_eq!(connect().await, HandshakeKind::Resumed);
}

/// A certificate for localhost and its key, in files.
fn renew(config: &Config) {
    let pair = rcgen::KeyPair::generate().unwrap();
    let signed = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let signed = signed.self_signed(&pair).unwrap();
    std::fs::write(config.tls.key.as_ref().unwrap(), pair.serialize_pem()).unwrap();
    std::fs::write(config.tls.certificate.as_ref().unwrap(), signed.pem()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_shown_to_new_connections_and_drops_nobody() {
    let files = tempfile::tempdir().unwrap();
    let broker = Broker::with(|config| {
        config.tls.certificate = Some(files.path().join("certificate.pem"));
        config.tls.key = Some(files.path().join("key.pem"));
        // Only when told to.
        config.tls.check_interval = Duration::from_secs(3600);
        renew(config);
    })
    .await;
    let config = tls(&TLS13, &[]);
    let shown = async || certificate_of(&direct(broker.c2s_tls(), &config).await.unwrap());
    let juliet = broker.device("juliet").await;
    let first = shown().await;
    renew(&broker.config);
    assert_eq!(shown().await, first, "nobody has looked yet");
    broker.node.look_at_certificate();
    let renewed = async {
        while shown().await == first {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, renewed).await.unwrap();
    let second = shown().await;
    let ping = Request::get(Element::new("ping", "urn:xmpp:ping")).to(Jid::parse("localhost").unwrap());
    assert!(juliet.client.request(ping).await.unwrap().is_none());
    // Who logs in now is bound to the new one.
    let stranger = Stranger::new(direct(broker.c2s_tls(), &config).await.unwrap());
    let kind = BindingType::TlsServerEndPoint;
    let value = binding(&stranger.stream, kind);
    assert_eq!(authenticates(stranger, kind, &value).await, "success");
    assert_eq!(shown().await, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn anybody_may_be_nobody_and_counts_as_a_stranger_all_the_same() {
    let broker = Broker::with(|config| {
        config.auth.mechanisms.push(Offered::Anonymous);
        config.limits.before_auth.connections_per_address_max = 1;
    })
    .await;
    let nobody = async || {
        let mut stranger = Stranger::connect(broker.c2s()).await.starttls(&tls(&TLS13, &[])).await;
        stranger.say(OPEN).await;
        let features = stranger.until(FEATURES).await;
        assert!(features.contains("<mechanism>ANONYMOUS</mechanism>"), "{features}");
        stranger
            .say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>")
            .await;
        stranger
            .until("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
            .await;
        stranger.say(OPEN).await;
        stranger.until(FEATURES).await;
        stranger.say(BIND).await;
        let bound = stranger.until("</jid>").await;
        let (_, jid) = bound.split_once("<jid>").unwrap();
        (stranger, jid.trim_end_matches("</jid>").to_owned())
    };
    let (first, one) = nobody().await;
    assert!(one.starts_with("anonymous-") && one.contains("@localhost/"), "{one}");
    assert_eq!(Stranger::connect(broker.c2s()).await.rest().await, "");
    drop(first);
    let again = async {
        // Its place is free once the broker has noticed.
        loop {
            let mut stranger = Stranger::connect(broker.c2s()).await;
            let _ = stranger.stream.write_all(OPEN.as_bytes()).await;
            let mut byte = [0; 1];
            if matches!(stranger.stream.read(&mut byte).await, Ok(1)) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_part_of_a_negotiation_has_its_time() {
    let soon = Duration::from_millis(700);
    let broker = Broker::with(|config| {
        let before_auth = &mut config.limits.before_auth;
        before_auth.header_timeout = soon;
        before_auth.tls_timeout = soon;
        before_auth.auth_timeout = soon;
        before_auth.auth_step_timeout = soon;
        before_auth.bind_timeout = soon;
        before_auth.negotiation_timeout = Duration::from_secs(600);
    })
    .await;
    broker.user("juliet").await;
    let timeout = "<connection-timeout ";
    let mut silent = Stranger::connect(broker.c2s()).await;
    assert!(silent.rest().await.contains(timeout), "no header");

    // A byte now and then.
    let mut slow = Stranger::connect(broker.c2s()).await;
    for byte in OPEN.as_bytes() {
        if slow.stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!slow.rest().await.contains(FEATURES), "slow-loris");

    let mut no_handshake = Stranger::connect(broker.c2s()).await;
    no_handshake.say(&format!("{OPEN}{STARTTLS}")).await;
    no_handshake.until("<proceed").await;
    assert!(!no_handshake.rest().await.contains('<'), "no TLS handshake");
    assert_eq!(Stranger::connect(broker.c2s_tls()).await.rest().await, "");

    let secure = async || {
        let mut stranger = Stranger::connect(broker.c2s()).await.starttls(&tls(&TLS13, &[])).await;
        stranger.say(OPEN).await;
        stranger.until(FEATURES).await;
        stranger
    };
    assert!(secure().await.rest().await.contains(timeout), "no authentication");
    let mut halfway = secure().await;
    halfway
        .say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>")
        .await;
    assert!(halfway.rest().await.contains(timeout), "no answer in an authentication");
    let mut unbound = secure().await;
    assert!(unbound.plain("juliet", "juliet").await.contains("<success"));
    unbound.say(OPEN).await;
    unbound.until(FEATURES).await;
    assert!(unbound.rest().await.contains(timeout), "no resource");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_limited_in_all() {
    let broker = Broker::with(|config| config.limits.before_auth.connections_max = 2).await;
    let mut one = Stranger::from(2, broker.c2s()).await;
    let mut two = Stranger::from(3, broker.c2s()).await;
    for stranger in [&mut one, &mut two] {
        stranger.say(OPEN).await;
        stranger.until(FEATURES).await;
    }
    assert_eq!(Stranger::from(4, broker.c2s()).await.rest().await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_connects_too_often_is_not_heard_and_others_are() {
    let broker = Broker::with(|config| config.limits.rate.connections_per_address_per_minute = 3).await;
    for _ in 0..3 {
        let mut stranger = Stranger::from(2, broker.c2s()).await;
        stranger.say(OPEN).await;
        stranger.until(FEATURES).await;
    }
    assert_eq!(Stranger::from(2, broker.c2s()).await.rest().await, "");
    let mut other = Stranger::from(3, broker.c2s()).await;
    other.say(OPEN).await;
    other.until(FEATURES).await;

    let free = Broker::with(|config| {
        config.limits.rate.enabled = false;
        config.limits.rate.connections_per_address_per_minute = 3;
    })
    .await;
    for _ in 0..10 {
        let mut stranger = Stranger::from(2, free.c2s()).await;
        stranger.say(OPEN).await;
        stranger.until(FEATURES).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_may_say_so_much_and_no_more() {
    let broker = Broker::start().await;
    let mut stranger = Stranger::connect(broker.c2s()).await;
    stranger.say(OPEN).await;
    stranger.until(FEATURES).await;
    // White space between elements is nothing, and there is too much of it.
    let _ = stranger.stream.write_all(&vec![b' '; 70 << 10]).await;
    assert!(stranger.rest().await.contains("<policy-violation "));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_guesses_passwords_is_not_heard_for_a_while() {
    let broker = Broker::with(|config| config.limits.rate.failed_logins_per_address_per_minute = 2).await;
    broker.user("juliet").await;
    let config = tls(&TLS13, &[]);
    let mut guesser = Stranger::from(2, broker.c2s()).await.starttls(&config).await;
    guesser.say(OPEN).await;
    guesser.until(FEATURES).await;
    for password in ["one", "two", "three"] {
        assert!(
            guesser.plain("juliet", password).await.contains("<failure"),
            "{password}"
        );
    }
    assert!(guesser.rest().await.contains("<policy-violation "));
    assert_eq!(Stranger::from(2, broker.c2s()).await.rest().await, "");
    let mut other = Stranger::from(3, broker.c2s()).await.starttls(&config).await;
    other.say(OPEN).await;
    other.until(FEATURES).await;
    assert!(other.plain("juliet", "juliet").await.contains("<success"));
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_made_in_band_within_quotas() {
    let broker = Broker::with(|config| {
        config.auth.registration = true;
        config.limits.rate.registrations_per_address_per_hour = 1;
        config.limits.rate.registrations_per_hour = 2;
    })
    .await;
    broker.user("juliet").await;
    let config = tls(&TLS13, &[]);
    let stranger = async |last| {
        let mut stranger = Stranger::from(last, broker.c2s()).await;
        stranger.say(OPEN).await;
        // TLS is required: nothing of it is said before.
        assert!(!stranger.until(FEATURES).await.contains("iq-register"));
        drop(stranger);
        let mut stranger = Stranger::from(last, broker.c2s()).await.starttls(&config).await;
        stranger.say(OPEN).await;
        assert!(stranger.until(FEATURES).await.contains("iq-register"));
        stranger
    };
    // A name in use costs nothing.
    assert!(stranger(2).await.register("juliet").await.contains("<conflict "));
    assert!(stranger(2).await.register("bill").await.contains("type='result'"));
    let refused = stranger(2).await.register("bob").await;
    assert!(
        refused.contains("<resource-constraint ") && refused.contains("type='wait'"),
        "{refused}"
    );
    assert!(stranger(3).await.register("bob").await.contains("type='result'"));
    assert!(
        stranger(4)
            .await
            .register("ben")
            .await
            .contains("<resource-constraint ")
    );
    let options = |password: &str| {
        let jid = heronry_xmpp::jid::BareJid::parse("bill@localhost").unwrap();
        Options::new(jid, Password::new(password).unwrap())
            .server(Server::Address(broker.c2s()))
            .tls(Tls::StartTls(Trust::dangerous_accept_any()))
    };
    let bill = Device::connect(options("secret")).await;
    let query = |children: &[(&'static str, &str)]| {
        let ns = "jabber:iq:register";
        let child = |(name, text): &(&'static str, &str)| Element::new(*name, ns).with_text(*text);
        Request::set(Element::new("query", ns).with_children(children.iter().map(child)))
    };
    let change = query(&[("username", "bill"), ("password", "another")]);
    assert!(bill.client.request(change).await.unwrap().is_none());
    let error = Client::connect(options("secret")).await.unwrap_err();
    assert!(matches!(error, ConnectError::NotAuthenticated(_)), "{error}");
    let again = Device::connect(options("another")).await;
    assert!(again.client.request(query(&[("remove", "")])).await.unwrap().is_none());
    let error = Client::connect(options("another")).await.unwrap_err();
    assert!(matches!(error, ConnectError::NotAuthenticated(_)), "{error}");
}

/// What `/metrics` says.
fn metrics(place: &Place) -> String {
    use std::io::{Read as _, Write as _};
    let mut socket = std::net::TcpStream::connect((place.ip, 5280)).unwrap();
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: {}:5280\r\nConnection: close\r\n\r\n",
        place.ip
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn sighup_has_the_certificate_read_again_and_ends_nothing() {
    let place = Place::new();
    let mut config = Config::default();
    let directory = place.directory.path().to_owned();
    let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
    let flags = [
        format!("--set=tls.certificate={}", certificate.display()),
        format!("--set=tls.key={}", key.display()),
    ];
    (config.tls.certificate, config.tls.key) = (Some(certificate), Some(key));
    renew(&config);
    let place = place.with(&[&flags[0], &flags[1], "--set=tls.check_interval=1h"]);
    let broker = place.start();
    let counted = |line: &str| {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !metrics(&place).lines().any(|counted| counted == line) {
            assert!(std::time::Instant::now() < deadline, "no {line} in {}", metrics(&place));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let said = metrics(&place);
    let expires = said
        .lines()
        .find_map(|line| line.strip_prefix("tls_certificate_expires_in_seconds "));
    assert!(expires.unwrap().parse::<f64>().unwrap() > 3600.0, "{said}");
    std::fs::write(config.tls.certificate.as_ref().unwrap(), "half of it").unwrap();
    broker.signal("HUP");
    counted("tls_certificate_reloads_total{result=\"failed\"} 1");
    renew(&config);
    broker.signal("HUP");
    counted("tls_certificate_reloads_total{result=\"done\"} 1");
    let ended = broker.end_with("TERM", Duration::from_secs(20)).ok();
    let refused = ended
        .stderr
        .lines()
        .filter(|line| line.contains("the changed certificate is not used"));
    assert_eq!(refused.count(), 1, "{}", ended.stderr);
}
