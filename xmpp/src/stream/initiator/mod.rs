//! The client's side of a negotiation (RFC 6120 §4 to §7): TLS, the strongest mechanism, and then a session, earlier or new.
//!
//! The order is fixed: STARTTLS when it is offered and wanted, SASL, resumption when there is something to resume, else resource
//! binding, the session of RFC 3921 where a server insists on it, and stream management when it is wanted (XEP-0170).

mod choice;
mod error;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use self::choice::Choice;
pub use self::error::InitiatorError;
use super::header::{CLOSE, Header, LANG};
use super::{BIND, Features, SASL, SESSION, StreamError, TLS, sasl};
use crate::jid::{BareJid, FullJid};
use crate::random::Random;
use crate::sasl::{ChannelBindings, ClientError, ClientExchange, ClientKeys, Condition, Mechanism, Secret};
use crate::stanza::StanzaError;
use crate::xep::sm::{self, Nonza};
use crate::xml::{CLIENT, Element, Frame, Limits, STREAM, StreamPrefixes, XmlError, open};

/// Whether a client wants its stream encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsDemand {
    /// No TLS, no stream.
    Required,
    /// Where the server offers it. Whoever sits between can take the offer away.
    IfOffered,
    /// Not at all: for loopback and tests.
    Never,
}

/// Who a client is and what it wants.
#[derive(Clone, Debug)]
pub struct InitiatorConfig {
    /// The account.
    pub account: BareJid,
    /// What it authenticates with.
    pub secret: Secret,
    /// The resource it asks for; none leaves the choice to the server.
    pub resource: Option<String>,
    /// Its demand on connections that do not begin with TLS.
    pub tls: TlsDemand,
    /// The mechanisms it accepts. PLAIN is used inside TLS only, whatever stands here.
    pub mechanisms: Vec<Mechanism>,
    /// The language of what it sends (RFC 6120 §4.7.4).
    pub lang: Option<String>,
    /// Stream management, when it is wanted and offered.
    pub management: Option<sm::Enable>,
    /// The session to go on with, when there is one. When the server does not, a new one is bound.
    pub resume: Option<sm::Resume>,
}

impl InitiatorConfig {
    /// The safe defaults: TLS required, every mechanism, stream management with resumption.
    pub fn new(account: BareJid, secret: Secret) -> Self {
        Self {
            account,
            secret,
            resource: None,
            tls: TlsDemand::Required,
            mechanisms: Mechanism::ALL.to_vec(),
            lang: None,
            management: Some(sm::Enable {
                resume: true,
                max_seconds: None,
            }),
            resume: None,
        }
    }
}

/// What a negotiation wants done, or has come to. A list of outputs is taken in its order.
#[derive(Debug)]
pub enum InitiatorOutput {
    /// Write these bytes.
    Send(Vec<u8>),
    /// Forget every byte read and not yet framed (they came in the clear), restart the framer, do the TLS handshake as the client,
    /// verify the certificate against the account's domain (RFC 6120 §13.7.2) and call [`Initiator::tls_established`].
    StartTls,
    /// Restart the framer: a new stream header comes next.
    Restart,
    /// The server let us in, and has proven that it knows the password where the mechanism does that.
    Authenticated {
        /// How.
        mechanism: Mechanism,
        /// What may be kept for the next time ([`Secret::with_keys`]).
        keys: Option<ClientKeys>,
    },
    /// What the server offers to the authenticated.
    Features(Features),
    /// The session could not be resumed; a new one follows. What was not acknowledged by its `h` may be lost.
    NotResumed(sm::Failed),
    /// The session goes on; the server handled this many of our stanzas.
    Resumed(sm::Resumed),
    /// A new session has this address.
    Bound(FullJid),
    /// Stream management is on: both sides count from here.
    Enabled(sm::Enabled),
    /// Stream management is not to be had.
    NotEnabled(sm::Failed),
    /// A stanza that came while the negotiation was going on; the session's first, and never counted.
    Stanza(Bytes),
    /// The negotiation is over: drop the initiator, frames are the session's.
    Established {
        /// What the server's header lets stanzas leave undeclared.
        prefixes: StreamPrefixes,
    },
    /// The negotiation is over and came to nothing: when everything is sent, close the connection.
    Failed(InitiatorError),
}

/// One client's negotiation.
///
/// Its caller runs one timer over all of it and calls [`abort`](Self::abort) when the time is up. A [`frame`](Self::frame) with a
/// SCRAM challenge takes milliseconds unless kept keys fit.
pub struct Initiator {
    config: InitiatorConfig,
    /// The TLS channel, once there is one.
    tls: Option<ChannelBindings>,
    authenticated: bool,
    prefixes: StreamPrefixes,
    features: Features,
    phase: Phase,
}

enum Phase {
    Opening,
    Features,
    Proceed,
    Handshake,
    Authenticating {
        choice: Choice,
        mechanism: Mechanism,
        exchange: Box<ClientExchange>,
    },
    Resuming,
    Binding,
    Session,
    Enabling,
    Over,
}

type Outputs = Vec<InitiatorOutput>;

impl Initiator {
    /// A negotiation on a new connection. `tls` has the bindings of the channel when TLS is there from the beginning (direct TLS,
    /// XEP-0368).
    pub fn new(config: InitiatorConfig, tls: Option<ChannelBindings>) -> Self {
        Self {
            config,
            tls,
            authenticated: false,
            prefixes: StreamPrefixes::client(),
            features: Features::default(),
            phase: Phase::Opening,
        }
    }

    /// The first bytes to write.
    pub fn start(&self) -> Vec<u8> {
        let mut text = String::new();
        let header = Header {
            // RFC 6120 §4.7.1: who we are is said under TLS only.
            from: self.tls.as_ref().map(|_| self.config.account.as_str()),
            to: Some(self.config.account.domain()),
            id: None,
            version: true,
            lang: self.config.lang.as_deref().unwrap_or(LANG),
        };
        header.write(&mut text);
        text.into_bytes()
    }

    /// TLS has been negotiated after [`InitiatorOutput::StartTls`].
    pub fn tls_established(&mut self, bindings: ChannelBindings) -> Outputs {
        if !matches!(self.phase, Phase::Handshake) {
            return Vec::new();
        }
        self.tls = Some(bindings);
        self.phase = Phase::Opening;
        vec![InitiatorOutput::Send(self.start())]
    }

    /// Takes what the server sent.
    pub fn frame(&mut self, frame: Frame, random: &mut dyn Random) -> Outputs {
        if matches!(self.phase, Phase::Over) {
            return Vec::new();
        }
        let taken = match frame {
            Frame::Open(header) => self.open(&header),
            Frame::Element(bytes) => self.element(bytes, random),
            Frame::Close => Err(InitiatorError::Closed),
        };
        taken.unwrap_or_else(|error| self.fail(error))
    }

    /// The framer cannot read the server's stream.
    pub fn broken(&mut self, error: XmlError) -> Outputs {
        self.fail(InitiatorError::Xml(error))
    }

    /// Gives up: the time is up, or nobody wants the session any more.
    pub fn abort(&mut self, error: StreamError) -> Outputs {
        self.fail(InitiatorError::Aborted(error))
    }

    fn fail(&mut self, error: InitiatorError) -> Outputs {
        let mut outputs = Vec::new();
        match self.phase {
            Phase::Over => return outputs,
            // In the middle of a handshake there is no stream to say anything on.
            Phase::Handshake => {}
            _ => {
                let mut text = String::new();
                if let Some(told) = error.told() {
                    told.write(&mut text);
                }
                text.push_str(CLOSE);
                outputs.push(InitiatorOutput::Send(text.into_bytes()));
            }
        }
        self.phase = Phase::Over;
        outputs.push(InitiatorOutput::Failed(error));
        outputs
    }

    fn open(&mut self, header: &[u8]) -> Result<Outputs, InitiatorError> {
        if !matches!(self.phase, Phase::Opening) {
            return Err(InitiatorError::Unexpected("a stream header"));
        }
        let header = open::parse(header, &Limits::after_auth()).map_err(InitiatorError::Xml)?;
        // RFC 6120 §4.7.5: without version there are neither features nor SASL.
        if header.version().map_err(InitiatorError::Xml)?.0 < 1 {
            return Err(InitiatorError::Version);
        }
        self.prefixes = StreamPrefixes::declared(&header, CLIENT);
        self.phase = Phase::Features;
        Ok(Vec::new())
    }

    fn element(&mut self, bytes: Bytes, random: &mut dyn Random) -> Result<Outputs, InitiatorError> {
        let element = Element::parse_in(&bytes, &Limits::after_auth(), &self.prefixes).map_err(InitiatorError::Xml)?;
        if let Some(error) = StreamError::parse(&element) {
            return Err(InitiatorError::Stream(error));
        }
        match (&mut self.phase, element.ns(), element.name()) {
            (Phase::Features, STREAM, "features") => {
                self.features = Features::parse(&element).unwrap_or_default();
                if self.authenticated {
                    Ok(self.resume_or_bind())
                } else {
                    self.secure_or_authenticate(random)
                }
            }
            (Phase::Proceed, TLS, "proceed") => {
                self.phase = Phase::Handshake;
                Ok(vec![InitiatorOutput::StartTls])
            }
            (Phase::Proceed, TLS, "failure") => Err(InitiatorError::TlsRefused),
            (Phase::Authenticating { exchange, .. }, SASL, "challenge") => {
                let challenge = sasl::message(&element)
                    .map_err(|_| InitiatorError::Exchange(ClientError::Malformed("not base64")))?;
                let response = exchange.challenge(challenge.as_deref().map_or(&[], Vec::as_slice));
                let response = response.map_err(InitiatorError::Exchange)?;
                let mut text = String::new();
                sasl::write(
                    "response",
                    Some(&response)
                        .filter(|response| !response.is_empty())
                        .map(Vec::as_slice),
                    &mut text,
                );
                Ok(send(text))
            }
            (Phase::Authenticating { .. }, SASL, "success") => self.succeed(&element),
            (Phase::Authenticating { .. }, SASL, "failure") => self.fall_back(&element, random),
            (Phase::Resuming | Phase::Enabling, sm::NS, _) => self.management(&element),
            (Phase::Binding, CLIENT, "iq") if element.attr("id") == Some("bind") => self.bound(&element),
            (Phase::Session, CLIENT, "iq") if element.attr("id") == Some("session") => Ok(self.enable()),
            (Phase::Binding | Phase::Session | Phase::Enabling, CLIENT, "iq" | "message" | "presence") => {
                Ok(vec![InitiatorOutput::Stanza(bytes)])
            }
            _ => Err(InitiatorError::Unexpected("an element that is not due")),
        }
    }

    /// RFC 6120 §5, §6
    fn secure_or_authenticate(&mut self, random: &mut dyn Random) -> Result<Outputs, InitiatorError> {
        if self.tls.is_none() {
            match (self.config.tls, self.features.starttls) {
                (TlsDemand::Required | TlsDemand::IfOffered, Some(_)) => {
                    self.phase = Phase::Proceed;
                    return Ok(send(format!("<starttls xmlns='{TLS}'/>")));
                }
                (TlsDemand::Required, None) => return Err(InitiatorError::TlsNotOffered),
                (TlsDemand::Never, Some(true)) => return Err(InitiatorError::TlsRequired),
                (TlsDemand::IfOffered, None) | (TlsDemand::Never, _) => {}
            }
        }
        let choice = Choice::new(&self.features, &self.config.mechanisms, self.tls.as_ref());
        match self.begin(choice, random)? {
            Some(outputs) => Ok(outputs),
            None => Err(InitiatorError::NoMechanism {
                offered: self.features.mechanisms.clone(),
            }),
        }
    }

    /// Begins an exchange with the best mechanism that is left, if there is one.
    fn begin(&mut self, mut choice: Choice, random: &mut dyn Random) -> Result<Option<Outputs>, InitiatorError> {
        let Some(mechanism) = choice.next() else {
            return Ok(None);
        };
        let username = self.config.account.local().unwrap_or_default();
        let binding = choice.binding(mechanism, self.tls.as_ref());
        let (exchange, initial) =
            ClientExchange::start(mechanism, username, self.config.secret.clone(), binding, random)
                .map_err(InitiatorError::Exchange)?;
        self.phase = Phase::Authenticating {
            choice,
            mechanism,
            exchange: Box::new(exchange),
        };
        let mut text = String::new();
        sasl::write_auth(mechanism.name(), &initial, &mut text);
        Ok(Some(send(text)))
    }

    fn succeed(&mut self, success: &Element) -> Result<Outputs, InitiatorError> {
        let Phase::Authenticating {
            mechanism, exchange, ..
        } = std::mem::replace(&mut self.phase, Phase::Opening)
        else {
            return Err(InitiatorError::Unexpected("success"));
        };
        let additional =
            sasl::message(success).map_err(|_| InitiatorError::Exchange(ClientError::Malformed("not base64")))?;
        let keys = exchange
            .success(additional.as_deref().map(Vec::as_slice))
            .map_err(InitiatorError::Exchange)?;
        self.authenticated = true;
        Ok(vec![
            InitiatorOutput::Authenticated { mechanism, keys },
            InitiatorOutput::Restart,
            InitiatorOutput::Send(self.start()),
        ])
    }

    /// The account may have keys for another hash function (RFC 6120 §6.4.5).
    fn fall_back(&mut self, element: &Element, random: &mut dyn Random) -> Result<Outputs, InitiatorError> {
        let failure = sasl::read_failure(element);
        let Phase::Authenticating {
            mut choice, mechanism, ..
        } = std::mem::replace(&mut self.phase, Phase::Features)
        else {
            return Err(InitiatorError::Unexpected("failure"));
        };
        let again = match failure.condition {
            Condition::NotAuthorized | Condition::InvalidMechanism | Condition::MechanismTooWeak => {
                choice.fall_back_from(mechanism);
                self.begin(choice, random)?
            }
            _ => None,
        };
        again.ok_or(InitiatorError::Authentication { mechanism, failure })
    }

    fn resume_or_bind(&mut self) -> Outputs {
        let mut outputs = vec![InitiatorOutput::Features(self.features.clone())];
        match self.config.resume.take() {
            Some(resume) if self.features.management => {
                self.phase = Phase::Resuming;
                outputs.push(InitiatorOutput::Send(Nonza::Resume(resume).to_bytes()));
            }
            _ => outputs.extend(self.bind()),
        }
        outputs
    }

    /// RFC 6120 §7
    fn bind(&mut self) -> Outputs {
        if !self.features.bind {
            return self.fail(InitiatorError::BindNotOffered);
        }
        self.phase = Phase::Binding;
        let resource = self
            .config
            .resource
            .as_deref()
            .map(|resource| Element::new("resource", BIND).with_text(resource));
        request("bind", Element::new("bind", BIND).with_children(resource))
    }

    fn bound(&mut self, iq: &Element) -> Result<Outputs, InitiatorError> {
        if iq.attr("type") != Some("result") {
            return Err(InitiatorError::Bind(stanza_error(iq)));
        }
        let jid = iq
            .child("bind", BIND)
            .and_then(|bind| bind.child("jid", BIND))
            .map(Element::text);
        let jid = jid.and_then(|jid| FullJid::parse(jid.trim()).ok());
        let jid = jid.ok_or(InitiatorError::Unexpected("a bind result without an address"))?;
        let mut outputs = vec![InitiatorOutput::Bound(jid)];
        if self.features.session == Some(true) {
            self.phase = Phase::Session;
            outputs.extend(request("session", Element::new("session", SESSION)));
        } else {
            outputs.extend(self.enable());
        }
        Ok(outputs)
    }

    fn enable(&mut self) -> Outputs {
        match self.config.management {
            Some(enable) if self.features.management => {
                self.phase = Phase::Enabling;
                vec![InitiatorOutput::Send(Nonza::Enable(enable).to_bytes())]
            }
            _ => self.established(None),
        }
    }

    /// XEP-0198 §3, §5
    fn management(&mut self, element: &Element) -> Result<Outputs, InitiatorError> {
        let nonza = Nonza::parse(element).and_then(Result::ok);
        match (&self.phase, nonza) {
            (Phase::Resuming, Some(Nonza::Resumed(resumed))) => {
                Ok(self.established(Some(InitiatorOutput::Resumed(resumed))))
            }
            (Phase::Resuming, Some(Nonza::Failed(failed))) => {
                let mut outputs = vec![InitiatorOutput::NotResumed(failed)];
                outputs.extend(self.bind());
                Ok(outputs)
            }
            (Phase::Enabling, Some(Nonza::Enabled(enabled))) => {
                Ok(self.established(Some(InitiatorOutput::Enabled(enabled))))
            }
            (Phase::Enabling, Some(Nonza::Failed(failed))) => {
                Ok(self.established(Some(InitiatorOutput::NotEnabled(failed))))
            }
            _ => Err(InitiatorError::Unexpected(
                "an element of stream management that is not due",
            )),
        }
    }

    fn established(&mut self, last: Option<InitiatorOutput>) -> Outputs {
        self.phase = Phase::Over;
        let prefixes = std::mem::take(&mut self.prefixes);
        last.into_iter()
            .chain([InitiatorOutput::Established { prefixes }])
            .collect()
    }
}

fn send(text: String) -> Outputs {
    vec![InitiatorOutput::Send(text.into_bytes())]
}

/// An iq of type set to the server.
fn request(id: &'static str, payload: Element) -> Outputs {
    let iq = Element::new("iq", CLIENT)
        .with_attr("type", "set")
        .with_attr("id", id)
        .with_child(payload);
    let mut bytes = Vec::new();
    iq.write(&mut bytes, CLIENT);
    vec![InitiatorOutput::Send(bytes)]
}

fn stanza_error(iq: &Element) -> StanzaError {
    let error = iq.child("error", CLIENT).map(StanzaError::from_element);
    error.unwrap_or_else(StanzaError::undefined_condition)
}
