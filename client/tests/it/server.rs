//! A server that does what a test tells it, on a loopback socket. Negotiation is the real one: `xmpp`'s responder.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use heronry_client::{
    Mechanism, Options, Password, Server, Tls, Trust,
    jid::{BareJid, FullJid},
    stanza::Condition,
    xml::{Element, Frame, Framer, Limits},
};
use heronry_xmpp::{
    sasl::{ChannelBindings, Credentials, ScramKeys, UnknownUsers},
    stream::{Established, Output, Responder, ResponderConfig, ResumeRequest, TlsPolicy},
    xep::sm::{Counter, Failed},
};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls};

/// The account every test logs in to.
pub(crate) const ACCOUNT: &str = "juliet@capulet.example";
pub(crate) const PASSWORD: &str = "it is the east";
/// The SM-ID that [`Peer::enable_management`] gives out.
pub(crate) const SM_ID: &str = "sm-1";
/// Nothing that a test waits for takes that long.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct TestServer {
    listener: TcpListener,
    config: Arc<ResponderConfig>,
    tls: Option<ServerTls>,
}

#[derive(Clone)]
pub(crate) struct ServerTls {
    acceptor: TlsAcceptor,
    direct: bool,
    /// What ties an authentication to the connection on the server's side.
    pub(crate) binding: Binding,
    certificate: Vec<u8>,
    /// The certificate, for clients to trust.
    pub(crate) pem: String,
}

/// What a server knows of the connection below the stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binding {
    None,
    Exporter,
    EndPoint,
    /// The exporter of another connection, as there is behind somebody in between.
    Elsewhere,
}

/// How a server answers a client that wants to go on with an earlier session.
#[derive(Clone, Copy)]
pub(crate) enum OnResume {
    Resume { h: u32 },
    Refuse { h: Option<u32> },
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One connection, after its negotiation.
pub(crate) struct Peer {
    io: Box<dyn Io>,
    framer: Framer,
    input: BytesMut,
    /// What the client wanted to go on with.
    pub(crate) resume: Option<ResumeRequest>,
    /// How it authenticated.
    pub(crate) mechanism: Option<Mechanism>,
}

impl ServerTls {
    pub(crate) fn new(direct: bool) -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["capulet.example".to_owned()]).expect("certificate");
        let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .expect("certificate and key");
        Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            direct,
            binding: Binding::None,
            certificate: certified.cert.der().to_vec(),
            pem: certified.cert.pem(),
        }
    }
}

impl ServerTls {
    /// The same certificate where TLS begins in another way.
    pub(crate) fn with_direct(&self, direct: bool) -> Self {
        Self { direct, ..self.clone() }
    }

    async fn accept(&self, io: impl Io + 'static) -> Option<(Box<dyn Io>, ChannelBindings)> {
        let mut stream = self.acceptor.accept(io).await.ok()?;
        stream.flush().await.ok()?;
        let exporter = || {
            let connection = stream.get_ref().1;
            let material = connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""));
            material.expect("TLS 1.3")
        };
        let bindings = match self.binding {
            Binding::None => ChannelBindings::none(),
            Binding::Exporter => ChannelBindings::none().with_exporter(exporter()),
            Binding::Elsewhere => ChannelBindings::none().with_exporter([7; 32]),
            // The certificate's signature is ECDSA with SHA-256.
            Binding::EndPoint => ChannelBindings::none().with_server_end_point(&Sha256::digest(&self.certificate)),
        };
        Some((Box::new(stream), bindings))
    }
}

impl TestServer {
    pub(crate) async fn start(tls: Option<ServerTls>) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("address"), tls).await
    }

    pub(crate) async fn start_at(address: SocketAddr, tls: Option<ServerTls>) -> Self {
        let domain = BareJid::parse("capulet.example").expect("domain");
        let mut config = ResponderConfig::new(vec![domain], UnknownUsers::new(b"0123456789abcdef", &[]));
        config.tls = if tls.is_some() {
            TlsPolicy::Required
        } else {
            TlsPolicy::Off
        };
        Self {
            listener: TcpListener::bind(address).await.expect("loopback"),
            config: Arc::new(config),
            tls,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("bound")
    }

    /// Options of a client that gets in.
    pub(crate) fn options(&self) -> Options {
        let account = BareJid::parse(ACCOUNT).expect("account");
        let tls = match &self.tls {
            None => Tls::None,
            Some(tls) => {
                let trust = Trust::certificates(tls.pem.as_bytes()).expect("certificate");
                if tls.direct {
                    Tls::Direct(trust)
                } else {
                    Tls::StartTls(trust)
                }
            }
        };
        Options::new(account, Password::new(PASSWORD).expect("password"))
            .server(Server::Address(self.address()))
            .tls(tls)
            .resource("balcony")
    }

    /// The next client, negotiated up to its session. A resource that was asked for is given.
    pub(crate) async fn accept(&self) -> Peer {
        self.accept_and(OnResume::Refuse { h: None }).await
    }

    pub(crate) async fn accept_and(&self, on_resume: OnResume) -> Peer {
        timeout(PATIENCE, self.negotiate(on_resume))
            .await
            .expect("a client in time")
            .expect("a session")
    }

    /// The next client, which gives up during negotiation.
    pub(crate) async fn accept_failure(&self) {
        let peer = timeout(PATIENCE, self.negotiate(OnResume::Refuse { h: None }))
            .await
            .expect("a client in time");
        assert!(peer.is_none(), "the client was let in");
    }

    /// Takes a connection and closes it.
    pub(crate) async fn abandon(&self) {
        self.listener.accept().await.expect("loopback");
    }

    /// Ends the next stream with an error before anything else.
    pub(crate) async fn refuse(&self, condition: &str) {
        self.refuse_with(&format!("<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>"))
            .await;
    }

    /// Sends the next client to another host.
    pub(crate) async fn redirect(&self, host: &str) {
        self.refuse_with(&format!(
            "<see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>{host}</see-other-host>"
        ))
        .await;
    }

    /// Asserts that no client has come that nobody has accepted.
    pub(crate) async fn nobody_came(&self) {
        let came = timeout(Duration::from_millis(50), self.listener.accept()).await;
        assert!(came.is_err(), "somebody came");
    }

    async fn refuse_with(&self, error: &str) {
        let (mut stream, _) = self.listener.accept().await.expect("loopback");
        let words = format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' id='1'>\
             <stream:error>{error}</stream:error></stream:stream>"
        );
        stream.write_all(words.as_bytes()).await.expect("open");
        // Reading to the end, so that closing does not overtake what was written.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("open");
    }

    async fn negotiate(&self, on_resume: OnResume) -> Option<Peer> {
        let (stream, _) = self.listener.accept().await.expect("loopback");
        stream.set_nodelay(true).expect("socket");
        match &self.tls {
            Some(tls) if tls.direct => {
                let (io, bindings) = tls.accept(stream).await?;
                self.negotiate_on(io, Some(bindings), on_resume).await
            }
            _ => self.negotiate_on(Box::new(stream), None, on_resume).await,
        }
    }

    async fn negotiate_on(
        &self,
        mut io: Box<dyn Io>,
        direct: Option<ChannelBindings>,
        on_resume: OnResume,
    ) -> Option<Peer> {
        let mut mechanism = None;
        let mut responder = Responder::new(self.config.clone(), direct);
        let (mut framer, mut input) = (Framer::new(), BytesMut::new());
        let mut seed = 7_u8;
        let mut random = move |bytes: &mut [u8]| {
            seed = seed.wrapping_add(1);
            bytes.fill(seed);
        };
        loop {
            let frame = read_frame(&mut io, &mut framer, &mut input).await?;
            let mut outputs = responder.frame(frame, &mut random);
            while !outputs.is_empty() {
                match outputs.remove(0) {
                    Output::Send(bytes) => io.write_all(&bytes).await.ok()?,
                    Output::Restart => framer.restart(),
                    Output::StartTls => {
                        io.flush().await.ok()?;
                        framer.restart();
                        input.clear();
                        let (encrypted, bindings) = self.tls.as_ref()?.accept(io).await?;
                        io = encrypted;
                        responder.tls_established(bindings);
                    }
                    Output::AskCredentials(request) => {
                        let password = Password::new(PASSWORD).expect("password");
                        let hash = request.hash.expect("SCRAM");
                        let keys = ScramKeys::derive(hash, &password, b"pepper", 4096).expect("keys");
                        let credentials = Credentials::Keys { keys, version: 1 };
                        outputs.extend(responder.credentials(credentials, &mut random));
                    }
                    Output::Bind(request) => {
                        let established = responder.bound(&request.jid);
                        let mut peer = Peer::begin(io, framer, input, established, None).await;
                        peer.mechanism = mechanism;
                        return Some(peer);
                    }
                    Output::Resume(request) => match on_resume {
                        OnResume::Resume { h } => {
                            let established = responder.resumed(Counter(h));
                            return Some(Peer::begin(io, framer, input, established, Some(request)).await);
                        }
                        OnResume::Refuse { h } => {
                            let failed = Failed {
                                condition: Some(Condition::ItemNotFound),
                                h: h.map(Counter),
                            };
                            outputs.extend(responder.resume_refused(failed));
                        }
                    },
                    Output::Authenticated { mechanism: by, .. } => mechanism = Some(by),
                    Output::Close(_) => return None,
                    _ => {}
                }
                io.flush().await.ok()?;
            }
        }
    }
}

impl Peer {
    async fn begin(
        mut io: Box<dyn Io>,
        framer: Framer,
        input: BytesMut,
        established: Established,
        resume: Option<ResumeRequest>,
    ) -> Self {
        io.write_all(&established.send).await.expect("open");
        io.flush().await.expect("open");
        Self {
            io,
            framer,
            input,
            resume,
            mechanism: None,
        }
    }

    /// Expects `<enable/>` and enables stream management.
    pub(crate) async fn enable_management(&mut self) {
        self.enable_management_with("").await;
    }

    /// As [`enable_management`](Self::enable_management), with further attributes.
    pub(crate) async fn enable_management_with(&mut self, attributes: &str) {
        assert_eq!(self.element().await.name(), "enable");
        self.say(&format!(
            "<enabled xmlns='urn:xmpp:sm:3' id='{SM_ID}' resume='true' {attributes}/>"
        ))
        .await;
    }

    /// The next element from the client.
    pub(crate) async fn element(&mut self) -> Element {
        self.next().await.expect("an element and not the end")
    }

    /// The next element that is no request for acknowledgement.
    pub(crate) async fn stanza(&mut self) -> Element {
        loop {
            let element = self.element().await;
            if element.name() != "r" {
                return element;
            }
        }
    }

    /// The next element from the client; `None` when it closes stream or socket.
    pub(crate) async fn next(&mut self) -> Option<Element> {
        let frame = read_frame(&mut self.io, &mut self.framer, &mut self.input);
        match timeout(PATIENCE, frame).await.expect("something in time")? {
            Frame::Element(bytes) => {
                let prefixes = heronry_client::xml::StreamPrefixes::client();
                Some(Element::parse_in(&bytes, &Limits::after_auth(), &prefixes).expect("XML"))
            }
            _ => None,
        }
    }

    pub(crate) async fn say(&mut self, xml: &str) {
        self.io.write_all(xml.as_bytes()).await.expect("open");
        self.io.flush().await.expect("open");
    }

    pub(crate) async fn acknowledge(&mut self, h: u32) {
        self.say(&format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>")).await;
    }

    /// Asks the client how far it is, and gives its answer.
    pub(crate) async fn received(&mut self) -> String {
        self.say("<r xmlns='urn:xmpp:sm:3'/>").await;
        loop {
            let element = self.element().await;
            if element.name() == "a" {
                return element.attr("h").expect("h").to_owned();
            }
        }
    }
}

async fn read_frame(io: &mut Box<dyn Io>, framer: &mut Framer, input: &mut BytesMut) -> Option<Frame> {
    loop {
        let mut rest = &input[..];
        let frame = framer.next(&mut rest, &Limits::after_auth()).expect("XML");
        let left = rest.len();
        input.advance(input.len() - left);
        if frame.is_some() {
            return frame;
        }
        if io.read_buf(input).await.ok()? == 0 {
            return None;
        }
    }
}

/// An address of the tests' account.
pub(crate) fn full(resource: &str) -> FullJid {
    FullJid::parse(&format!("{ACCOUNT}/{resource}")).expect("address")
}
