//! A connection and the negotiation on it: the sans-io [`Initiator`] is given frames and a socket here.
//!
//! [`OpenSession`] is a negotiated session without the [`Client`](crate::Client) around it, for programs that hold very many
//! and read them in their own way.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use heronry_xmpp::{
    jid::FullJid,
    sasl::{ChannelBindings, ClientKeys, Secret},
    stream::{Initiator, InitiatorConfig, InitiatorOutput, TlsDemand},
    xep::sm::{Counter, Enable, Resume},
    xml::{Element, Framer, Limits, StreamPrefixes},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    time::timeout,
};
use tracing::debug;

pub use crate::transport::Transport;
use crate::{
    connecting::{Candidate, Encryption, HostPort, Plan},
    error::ConnectError,
    options::Options,
};

const READ_BYTES: usize = 4 * 1024;
/// Stanzas kept that came between bind and the end of the negotiation. More: the server is broken.
const EARLY_MAX: usize = 64;

/// A session just begun, without stream management, to be read and written by the caller.
#[derive(Debug)]
pub struct OpenSession {
    /// The socket.
    pub transport: Transport,
    /// Cuts what comes into frames; it is inside the stream.
    pub framer: Framer,
    /// What was read and not yet given to the framer.
    pub unread: Bytes,
    /// The session's address.
    pub jid: FullJid,
    /// Keys made of the password, when the mechanism has such: [`Secret::with_keys`] saves the next session their derivation.
    pub keys: Option<ClientKeys>,
}

impl OpenSession {
    /// Connects, authenticates and binds a resource.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn open(options: &Options) -> Result<Self, ConnectError> {
        let wanted = Wanted {
            secret: options.secret.clone(),
            earlier: None,
            management: false,
        };
        let negotiated = negotiate(options, wanted, None).await?;
        let Begun::Bound { session, .. } = negotiated.begun else {
            return Err(ConnectError::Protocol("a session was resumed that was never there"));
        };
        Ok(Self {
            transport: negotiated.transport,
            framer: negotiated.framer,
            unread: negotiated.input.freeze(),
            jid: session.jid,
            keys: negotiated.keys,
        })
    }
}

/// A connection on which a session goes on.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) reader: ReadHalf<Transport>,
    pub(crate) writer: WriteHalf<Transport>,
    pub(crate) framer: Framer,
    pub(crate) limits: Limits,
    pub(crate) prefixes: StreamPrefixes,
    /// What was read and not yet given to the framer.
    pub(crate) input: BytesMut,
    /// Stanzas that came before counting began, oldest first.
    pub(crate) early: Vec<Bytes>,
    pub(crate) encryption: Encryption,
}

/// What a new session is.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) jid: FullJid,
    /// Present when stanzas are counted.
    pub(crate) management: Option<Management>,
    /// The server knows versions of the roster (RFC 6121 §2.6.1).
    pub(crate) roster_versions: bool,
}

/// Stream management of a session (XEP-0198).
#[derive(Debug, Default)]
pub(crate) struct Management {
    /// The SM-ID, when the session can be resumed.
    pub(crate) id: Option<Box<str>>,
    /// Where the server wants it to be resumed (§5), and how it is spoken to.
    pub(crate) location: Option<Box<(HostPort, Encryption)>>,
}

/// What a negotiation came to.
#[derive(Debug)]
pub(crate) enum Begun {
    /// The earlier session goes on; the server has this many of our stanzas.
    Resumed { h: Counter },
    /// A new session. `h_of_old` when the server still knew how many stanzas of the earlier one it had.
    Bound {
        session: Session,
        h_of_old: Option<Counter>,
    },
}

/// Connects and begins a session, or goes on with `earlier`, at `preferred` or where the options say. The secret is given back
/// with keys, where there are such.
pub(crate) async fn begin(
    options: &Options,
    secret: &mut Secret,
    earlier: Option<Resume>,
    preferred: Option<&(HostPort, Encryption)>,
) -> Result<(Connection, Begun), ConnectError> {
    let wanted = Wanted {
        secret: secret.clone(),
        earlier,
        management: options.stream_management,
    };
    let mut negotiated = negotiate(options, wanted, preferred).await?;
    if let Some(keys) = negotiated.keys.take() {
        *secret = secret.clone().with_keys(keys);
    }
    let (reader, writer) = tokio::io::split(negotiated.transport);
    let connection = Connection {
        reader,
        writer,
        framer: negotiated.framer,
        limits: limits(options),
        prefixes: negotiated.prefixes,
        input: negotiated.input,
        early: negotiated.early,
        encryption: negotiated.encryption,
    };
    Ok((connection, negotiated.begun))
}

/// What a negotiation is to come to.
#[derive(Clone)]
struct Wanted {
    secret: Secret,
    /// The session to go on with.
    earlier: Option<Resume>,
    /// Stream management for a new one.
    management: bool,
}

struct Negotiated {
    transport: Transport,
    framer: Framer,
    input: BytesMut,
    prefixes: StreamPrefixes,
    early: Vec<Bytes>,
    keys: Option<ClientKeys>,
    encryption: Encryption,
    begun: Begun,
}

/// Negotiates with the first server that takes us. When none does, the error is one that may pass, if there was one.
async fn negotiate(
    options: &Options,
    wanted: Wanted,
    preferred: Option<&(HostPort, Encryption)>,
) -> Result<Negotiated, ConnectError> {
    let mut plan = Plan::new(options, preferred);
    let mut failure: Option<ConnectError> = None;
    while let Some(candidate) = timeout(options.connect_timeout, plan.next())
        .await
        .unwrap_or(Some(Err(ConnectError::Timeout)))
    {
        let error = match candidate {
            Err(error) => error,
            Ok(candidate) => {
                let attempt = negotiate_at(options, wanted.clone(), candidate);
                let attempt = timeout(options.connect_timeout, attempt).await;
                match attempt.unwrap_or(Err(ConnectError::Timeout)) {
                    Ok(negotiated) => return Ok(negotiated),
                    Err(error) => {
                        debug!(address = %candidate.address, %error, "not connected");
                        if let Some(place) = error.other_host()
                            && plan.redirect(place, candidate.encryption)
                        {
                            continue;
                        }
                        error
                    }
                }
            }
        };
        if !error.is_of_this_server() {
            return Err(error);
        }
        if failure
            .as_ref()
            .is_none_or(|earlier| !earlier.is_transient() || error.is_transient())
        {
            failure = Some(error);
        }
    }
    Err(failure.unwrap_or_else(|| ConnectError::Unreachable(io::ErrorKind::NotFound.into())))
}

async fn negotiate_at(options: &Options, wanted: Wanted, place: Candidate) -> Result<Negotiated, ConnectError> {
    let domain = options.account.domain();
    let encryption = place.encryption;
    let trust = || {
        let trust = options.tls.trust();
        trust.ok_or(ConnectError::Protocol("TLS begins where none is wanted"))
    };
    let mut transport = Transport::connect(place.address, options.source, options.connect_timeout / 3).await?;
    if encryption == Encryption::Direct {
        transport = transport.encrypt(trust()?, domain, true).await?;
    }
    let bindings = transport.is_encrypted().then(|| channel_bindings(options, &transport));
    let mut negotiation = Negotiation::new(options, wanted, encryption, bindings);
    let mut framer = Framer::new();
    let mut input = BytesMut::with_capacity(READ_BYTES);
    let mut outputs = vec![InitiatorOutput::Send(negotiation.initiator.start())];
    loop {
        for output in outputs {
            match output {
                InitiatorOutput::Send(bytes) => {
                    transport.write_all(&bytes).await.map_err(ConnectError::Lost)?;
                    transport.flush().await.map_err(ConnectError::Lost)?;
                }
                InitiatorOutput::Restart => framer.restart(),
                InitiatorOutput::StartTls => {
                    // RFC 6120 §5.4.3.3: what came in the clear is forgotten.
                    input.clear();
                    framer.restart();
                    transport = transport.encrypt(trust()?, domain, false).await?;
                    let bindings = channel_bindings(options, &transport);
                    for output in negotiation.initiator.tls_established(bindings) {
                        if let InitiatorOutput::Send(bytes) = output {
                            transport.write_all(&bytes).await.map_err(ConnectError::Lost)?;
                            transport.flush().await.map_err(ConnectError::Lost)?;
                        }
                    }
                }
                InitiatorOutput::Established { prefixes } => {
                    let begun = negotiation.begun()?;
                    let Negotiation { early, keys, .. } = negotiation;
                    return Ok(Negotiated {
                        transport,
                        framer,
                        input,
                        prefixes,
                        early,
                        keys,
                        encryption,
                        begun,
                    });
                }
                InitiatorOutput::Failed(error) => return Err(error.into()),
                other => negotiation.note(other)?,
            }
        }
        outputs = loop {
            let mut rest = &input[..];
            let frame = framer.next(&mut rest, &limits(options));
            let left = rest.len();
            input.advance(input.len() - left);
            match frame {
                Ok(Some(frame)) => break negotiation.initiator.frame(frame, &mut random),
                Err(error) => break negotiation.initiator.broken(error),
                Ok(None) => {}
            }
            if transport.read_buf(&mut input).await.map_err(ConnectError::Lost)? == 0 {
                return Err(ConnectError::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
        };
    }
}

fn channel_bindings(options: &Options, transport: &Transport) -> ChannelBindings {
    match options.channel_binding {
        true => transport.channel_bindings(),
        false => ChannelBindings::none(),
    }
}

/// The initiator, and what it has told so far.
struct Negotiation {
    initiator: Initiator,
    encryption: Encryption,
    keys: Option<ClientKeys>,
    jid: Option<FullJid>,
    roster_versions: bool,
    management: Option<Management>,
    resumed: Option<Counter>,
    h_of_old: Option<Counter>,
    early: Vec<Bytes>,
}

impl Negotiation {
    fn new(options: &Options, wanted: Wanted, encryption: Encryption, tls: Option<ChannelBindings>) -> Self {
        let mut config = InitiatorConfig::new(options.account.clone(), wanted.secret);
        config.resource = options.resource.clone();
        config.tls = match encryption {
            Encryption::None => TlsDemand::Never,
            Encryption::StartTls | Encryption::Direct => TlsDemand::Required,
        };
        if let Some(mechanism) = options.mechanism {
            config.mechanisms = vec![mechanism];
        }
        config.management = wanted.management.then_some(Enable {
            resume: true,
            max_seconds: None,
        });
        config.resume = wanted.earlier;
        Self {
            initiator: Initiator::new(config, tls),
            encryption,
            keys: None,
            jid: None,
            roster_versions: false,
            management: None,
            resumed: None,
            h_of_old: None,
            early: Vec::new(),
        }
    }

    fn note(&mut self, output: InitiatorOutput) -> Result<(), ConnectError> {
        match output {
            InitiatorOutput::Authenticated { keys, .. } => self.keys = keys,
            InitiatorOutput::Features(features) => {
                let versions = |element: &Element| element.child("ver", "urn:xmpp:features:rosterver").is_some();
                self.roster_versions = features.element.as_deref().is_some_and(versions);
            }
            InitiatorOutput::Bound(jid) => self.jid = Some(jid),
            InitiatorOutput::Enabled(enabled) => {
                self.management = Some(Management {
                    id: enabled.id.filter(|_| enabled.resume),
                    location: enabled
                        .location
                        .and_then(|location| HostPort::parse(&location))
                        .map(|location| Box::new((location, self.encryption))),
                });
            }
            InitiatorOutput::Resumed(resumed) => self.resumed = Some(resumed.h),
            InitiatorOutput::NotResumed(failed) => self.h_of_old = failed.h,
            InitiatorOutput::Stanza(_) if self.early.len() == EARLY_MAX => {
                return Err(ConnectError::Protocol("a flood of stanzas while the session begins"));
            }
            InitiatorOutput::Stanza(bytes) => self.early.push(bytes),
            _ => {}
        }
        Ok(())
    }

    fn begun(&mut self) -> Result<Begun, ConnectError> {
        if let Some(h) = self.resumed {
            return Ok(Begun::Resumed { h });
        }
        let jid = self
            .jid
            .take()
            .ok_or(ConnectError::Protocol("a session without address"))?;
        let session = Session {
            jid,
            management: self.management.take(),
            roster_versions: self.roster_versions,
        };
        Ok(Begun::Bound {
            session,
            h_of_old: self.h_of_old,
        })
    }
}

fn limits(options: &Options) -> Limits {
    Limits {
        stanza_bytes_max: options.limits.stanza_bytes_max.max(10_000),
        ..Limits::after_auth()
    }
}

/// The operating system's randomness. Where that fails nothing can be kept secret, and nothing is begun.
fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system has randomness");
}
