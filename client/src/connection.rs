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
    xml::{Framer, Limits, StreamPrefixes},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    time::timeout,
};

pub use crate::transport::Transport;
use crate::{
    error::ConnectError,
    options::{Options, Tls},
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
        let negotiated = negotiate_in_time(options, options.secret.clone(), None, false).await?;
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
}

/// What a new session is.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) jid: FullJid,
    /// Present when stanzas are counted.
    pub(crate) management: Option<Management>,
}

/// Stream management of a session (XEP-0198).
#[derive(Debug, Default)]
pub(crate) struct Management {
    /// The SM-ID, when the session can be resumed.
    pub(crate) id: Option<Box<str>>,
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

/// Connects and begins a session, or goes on with `earlier`. The secret is given back with keys, where there are such.
pub(crate) async fn begin(
    options: &Options,
    secret: &mut Secret,
    earlier: Option<Resume>,
) -> Result<(Connection, Begun), ConnectError> {
    let mut negotiated = negotiate_in_time(options, secret.clone(), earlier, options.stream_management).await?;
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
    };
    Ok((connection, negotiated.begun))
}

struct Negotiated {
    transport: Transport,
    framer: Framer,
    input: BytesMut,
    prefixes: StreamPrefixes,
    early: Vec<Bytes>,
    keys: Option<ClientKeys>,
    begun: Begun,
}

async fn negotiate_in_time(
    options: &Options,
    secret: Secret,
    earlier: Option<Resume>,
    management: bool,
) -> Result<Negotiated, ConnectError> {
    let negotiation = negotiate(options, secret, earlier, management);
    timeout(options.connect_timeout, negotiation)
        .await
        .map_err(|_| ConnectError::Timeout)?
}

async fn negotiate(
    options: &Options,
    secret: Secret,
    earlier: Option<Resume>,
    management: bool,
) -> Result<Negotiated, ConnectError> {
    let domain = options.account.domain();
    let mut transport = Transport::connect(&options.place(), domain, options.source).await?;
    if let Tls::Direct(trust) = &options.tls {
        transport = transport.encrypt(trust, domain, true).await?;
    }
    let bindings = transport.is_encrypted().then(|| channel_bindings(options, &transport));
    let mut negotiation = Negotiation::new(options, secret, earlier, management, bindings);
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
                    let Tls::StartTls(trust) = &options.tls else {
                        return Err(ConnectError::Protocol("TLS begins where none is wanted"));
                    };
                    transport = transport.encrypt(trust, domain, false).await?;
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
    keys: Option<ClientKeys>,
    jid: Option<FullJid>,
    management: Option<Management>,
    resumed: Option<Counter>,
    h_of_old: Option<Counter>,
    early: Vec<Bytes>,
}

impl Negotiation {
    fn new(
        options: &Options,
        secret: Secret,
        earlier: Option<Resume>,
        management: bool,
        tls: Option<ChannelBindings>,
    ) -> Self {
        let mut config = InitiatorConfig::new(options.account.clone(), secret);
        config.resource = options.resource.clone();
        config.tls = match options.tls {
            Tls::None => TlsDemand::Never,
            Tls::StartTls(_) | Tls::Direct(_) => TlsDemand::Required,
        };
        if let Some(mechanism) = options.mechanism {
            config.mechanisms = vec![mechanism];
        }
        config.management = management.then_some(Enable {
            resume: true,
            max_seconds: None,
        });
        config.resume = earlier;
        Self {
            initiator: Initiator::new(config, tls),
            keys: None,
            jid: None,
            management: None,
            resumed: None,
            h_of_old: None,
            early: Vec::new(),
        }
    }

    fn note(&mut self, output: InitiatorOutput) -> Result<(), ConnectError> {
        match output {
            InitiatorOutput::Authenticated { keys, .. } => self.keys = keys,
            InitiatorOutput::Bound(jid) => self.jid = Some(jid),
            InitiatorOutput::Enabled(enabled) => {
                self.management = Some(Management {
                    id: enabled.id.filter(|_| enabled.resume),
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
