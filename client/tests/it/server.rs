//! A server that does what a test tells it, on a loopback socket. Negotiation is the real one: `xmpp`'s responder.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use heronry_client::{
    Options, Password, Server, Tls, Trust,
    jid::{BareJid, FullJid},
    stanza::Condition,
    xml::{Element, Frame, Framer, Limits},
};
use heronry_xmpp::{
    sasl::{ChannelBindings, Credentials, ScramKeys, UnknownUsers},
    stream::{Established, Output, Responder, ResponderConfig, ResumeRequest, TlsPolicy},
    xep::sm::{Counter, Failed},
};
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
    /// The certificate, for clients to trust.
    pub(crate) pem: String,
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
            pem: certified.cert.pem(),
        }
    }
}

impl TestServer {
    pub(crate) async fn start(tls: Option<ServerTls>) -> Self {
        let domain = BareJid::parse("capulet.example").expect("domain");
        let mut config = ResponderConfig::new(vec![domain], UnknownUsers::new(b"0123456789abcdef", &[]));
        config.tls = if tls.is_some() {
            TlsPolicy::Required
        } else {
            TlsPolicy::Off
        };
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.expect("loopback"),
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
        let (mut stream, _) = self.listener.accept().await.expect("loopback");
        let words = format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' id='1'>\
             <stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
        );
        stream.write_all(words.as_bytes()).await.expect("open");
        // Reading to the end, so that closing does not overtake what was written.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("open");
    }

    async fn negotiate(&self, on_resume: OnResume) -> Option<Peer> {
        let (stream, _) = self.listener.accept().await.expect("loopback");
        stream.set_nodelay(true).expect("socket");
        let mut tls = self.tls.clone();
        let mut io: Box<dyn Io> = match &tls {
            Some(ServerTls {
                acceptor, direct: true, ..
            }) => Box::new(acceptor.accept(stream).await.ok()?),
            _ => return self.negotiate_on(Box::new(stream), tls.take(), on_resume).await,
        };
        io.flush().await.ok()?;
        self.negotiate_on(io, None, on_resume).await
    }

    async fn negotiate_on(
        &self,
        mut io: Box<dyn Io>,
        starttls: Option<ServerTls>,
        on_resume: OnResume,
    ) -> Option<Peer> {
        let direct = self.tls.as_ref().is_some_and(|tls| tls.direct);
        let mut responder = Responder::new(self.config.clone(), direct.then(ChannelBindings::none));
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
                        io = Box::new(starttls.as_ref()?.acceptor.accept(io).await.ok()?);
                        responder.tls_established(ChannelBindings::none());
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
                        return Some(Peer::begin(io, framer, input, established, None).await);
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
        }
    }

    /// Expects `<enable/>` and enables stream management.
    pub(crate) async fn enable_management(&mut self) {
        assert_eq!(self.element().await.name(), "enable");
        self.say(&format!("<enabled xmlns='urn:xmpp:sm:3' id='{SM_ID}' resume='true'/>"))
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
