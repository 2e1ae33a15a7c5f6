//! The server's side of a client's negotiation (RFC 6120 §4 to §7): header, STARTTLS, SASL, resource binding or resumption.
//!
//! ```text
//!            ┌──────────────── StartTls, tls_established ───────────────┐
//!            ▼                                                         │
//!  Opening ──header──► Authenticating ──success, Restart──► Opening ──header──► Binding ──bound, resumed──► Established
//! ```
//!
//! What was learned before TLS or before authentication is forgotten with the stream it was learned on; only the host stays
//! fixed once somebody has authenticated for it.

mod authenticating;
mod binding;
mod config;
mod opening;
mod registering;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::authenticating::Authenticating;
use self::binding::Binding;
pub use self::binding::{BindRequest, ResumeRequest};
pub use self::config::{ResponderConfig, TlsPolicy};
use self::opening::Opened;
pub use self::registering::RegisterRequest;
use self::registering::Registering;
use super::header::{CLOSE, Header, LANG};
use super::{SASL, StreamError, TLS};
use crate::jid::{BareJid, FullJid};
use crate::random::{Random, token};
use crate::sasl::{self, ChannelBindings, Credentials, CredentialsRequest, Mechanism, PasswordVerdict, VerifyPassword};
use crate::stanza::{Condition, StanzaError};
use crate::xep::sm;
use crate::xml::{CLIENT, Element, Frame, Limits, SERVER, STREAM, StreamPrefixes, open};

/// What a negotiation wants done. A list of outputs is done in its order.
#[derive(Debug)]
pub enum Output {
    /// Write these bytes.
    Send(Vec<u8>),
    /// When everything before is written: forget every byte read and not yet framed (they came in the clear), restart the
    /// framer, do the TLS handshake as the server and call [`Responder::tls_established`]. When the handshake fails, close the
    /// connection without a word (RFC 6120 §5.4.3.2).
    StartTls,
    /// Answer with [`Responder::credentials`].
    AskCredentials(CredentialsRequest),
    /// Run it on a thread that may be busy for milliseconds, and answer with [`Responder::password_verified`].
    VerifyPassword(VerifyPassword),
    /// Make keys of the password on such a thread, make the account, and answer with [`Responder::registered`].
    Register(RegisterRequest),
    /// The client is `account`. Nothing is to be answered.
    Authenticated {
        /// Whose stream it is.
        account: BareJid,
        /// How it authenticated.
        mechanism: Mechanism,
    },
    /// An authentication has failed. Nothing is to be answered.
    NotAuthenticated(sasl::Condition),
    /// Restart the framer: a new stream header comes next. Bytes that were read already belong to the new stream.
    Restart,
    /// Answer with [`Responder::bound`] or [`Responder::bind_refused`].
    Bind(BindRequest),
    /// Answer with [`Responder::resumed`] or [`Responder::resume_refused`].
    Resume(ResumeRequest),
    /// The stream is over, its end tag is written: when everything is sent, wait a little for the client's end tag and close the
    /// connection (RFC 6120 §4.4). The error is what the client was told, if anything.
    Close(Option<StreamError>),
}

/// What a negotiation waits for: each has a time of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NegotiationPhase {
    /// A stream header of the client's.
    Header,
    /// A TLS handshake.
    Handshake,
    /// What the client does about the features: TLS, authentication, an account.
    Features,
    /// Its next word in an authentication.
    Step,
    /// A resource, or a session to go on with.
    Binding,
    /// Ourselves.
    Ours,
}

/// A stream that has been negotiated.
#[derive(Debug)]
pub struct Established {
    /// Write these bytes before anything else.
    pub send: Vec<u8>,
    /// What the stream header lets stanzas leave undeclared.
    pub prefixes: StreamPrefixes,
    /// The client's language: that of stanzas which name none (RFC 6120 §4.7.4).
    pub lang: Option<Box<str>>,
}

/// One client's negotiation. Between two frames it holds no bytes of the stream.
///
/// Its caller runs one timer over all of it, calls [`error`](Self::error) when the time is up, the framer reports a fault or the
/// server goes down, and feeds no frame while an answer [is awaited](Self::is_waiting).
pub struct Responder {
    config: Arc<ResponderConfig>,
    /// The TLS channel, once there is one.
    tls: Option<ChannelBindings>,
    stream: Opened,
    phase: Phase,
    /// Who authenticated, and with which version of its credentials.
    account: Option<(BareJid, u64)>,
    elements: u16,
    failures: u8,
    refused_binds: u8,
    /// It has made an account.
    registered: bool,
}

enum Phase {
    Opening,
    Authenticating(Authenticating),
    Registering(Registering),
    Handshake,
    Binding(Binding),
    Over,
}

impl Responder {
    /// A negotiation on a new connection. `tls` has the bindings of the channel when TLS is there from the beginning (direct TLS,
    /// XEP-0368).
    pub fn new(config: Arc<ResponderConfig>, tls: Option<ChannelBindings>) -> Box<Self> {
        Box::new(Self {
            config,
            tls,
            stream: Opened::default(),
            phase: Phase::Opening,
            account: None,
            elements: 0,
            failures: 0,
            refused_binds: 0,
            registered: false,
        })
    }

    /// The limits for the next frame.
    pub fn limits(&self) -> &Limits {
        match self.account {
            None => &self.config.limits_before_auth,
            Some(_) => &self.config.limits_after_auth,
        }
    }

    /// Whether an answer is awaited. Until it comes, frames wait where they are.
    pub fn is_waiting(&self) -> bool {
        match &self.phase {
            Phase::Authenticating(authenticating) => authenticating.asked,
            Phase::Binding(binding) => !matches!(binding, Binding::Idle),
            Phase::Handshake | Phase::Registering(_) => true,
            Phase::Opening | Phase::Over => false,
        }
    }

    /// What it waits for.
    pub fn phase(&self) -> NegotiationPhase {
        match &self.phase {
            Phase::Opening => NegotiationPhase::Header,
            Phase::Handshake => NegotiationPhase::Handshake,
            Phase::Authenticating(authenticating) if authenticating.asked => NegotiationPhase::Ours,
            Phase::Authenticating(authenticating) if authenticating.is_idle() => NegotiationPhase::Features,
            Phase::Authenticating(_) => NegotiationPhase::Step,
            Phase::Binding(Binding::Idle) => NegotiationPhase::Binding,
            Phase::Registering(_) | Phase::Binding(_) | Phase::Over => NegotiationPhase::Ours,
        }
    }

    /// Who has authenticated.
    pub fn account(&self) -> Option<&BareJid> {
        self.account.as_ref().map(|(account, _)| account)
    }

    /// Takes what the client sent.
    pub fn frame(&mut self, frame: Frame, random: &mut dyn Random) -> Vec<Output> {
        if matches!(self.phase, Phase::Over) {
            return Vec::new();
        }
        match frame {
            Frame::Close => self.close(),
            // The caller was to wait; what comes now cannot be told apart from what it should have dropped.
            _ if self.is_waiting() => self.error(StreamError::internal_server_error(), random),
            Frame::Open(header) => self.open(&header, random),
            Frame::Element(element) => self.element(&element, random),
        }
    }

    /// TLS has been negotiated after [`Output::StartTls`]. Everything learned before is forgotten (RFC 6120 §5.4.3.3).
    pub fn tls_established(&mut self, bindings: ChannelBindings) {
        if matches!(self.phase, Phase::Handshake) {
            self.tls = Some(bindings);
            self.stream = Opened::default();
            self.phase = Phase::Opening;
        }
    }

    /// The answer to [`Output::AskCredentials`]. One that comes too late is ignored.
    pub fn credentials(&mut self, credentials: Credentials, random: &mut dyn Random) -> Vec<Output> {
        let config = Arc::clone(&self.config);
        self.authenticating(random, |authenticating| {
            authenticating.credentials(credentials, &config.unknown_users)
        })
    }

    /// The answer to [`Output::VerifyPassword`]. One that comes too late is ignored.
    pub fn password_verified(&mut self, verdict: PasswordVerdict, random: &mut dyn Random) -> Vec<Output> {
        self.authenticating(random, |authenticating| authenticating.password_verified(verdict))
    }

    /// The answer to [`Output::Register`]. One that comes too late is ignored.
    pub fn registered(&mut self, result: Result<(), StanzaError>, random: &mut dyn Random) -> Vec<Output> {
        let Phase::Registering(registering) = &mut self.phase else {
            return Vec::new();
        };
        let registering = std::mem::take(registering);
        self.phase = Phase::Authenticating(Authenticating::default());
        match result {
            Ok(()) => {
                self.registered = true;
                vec![Output::Send(registering.done())]
            }
            Err(error) => self.attempt_failed(registering.refused(&error), random),
        }
    }

    /// The answer to [`Output::Bind`]: the client's address. The negotiation is over.
    pub fn bound(self: Box<Self>, jid: &FullJid) -> Established {
        let send = match &self.phase {
            Phase::Binding(binding) => binding.bound(jid),
            _ => Vec::new(),
        };
        self.established(send)
    }

    /// The other answer to [`Output::Bind`]: the client may try again, but not for ever (RFC 6120 §7.7.3).
    pub fn bind_refused(&mut self, error: &StanzaError, random: &mut dyn Random) -> Vec<Output> {
        let Phase::Binding(binding) = &mut self.phase else {
            return Vec::new();
        };
        let send = std::mem::take(binding).refused(error);
        self.bind_failed(send, random)
    }

    /// The answer to [`Output::Resume`]: the session goes on, `h` of the client's stanzas have been handled. The negotiation is
    /// over; what the client has not acknowledged is to be sent next.
    pub fn resumed(self: Box<Self>, h: sm::Counter) -> Established {
        let send = match &self.phase {
            Phase::Binding(binding) => binding.resumed(h),
            _ => Vec::new(),
        };
        self.established(send)
    }

    /// The other answer to [`Output::Resume`]: the client may still bind (XEP-0198 §5).
    pub fn resume_refused(&mut self, failed: sm::Failed) -> Vec<Output> {
        match &mut self.phase {
            Phase::Binding(binding @ Binding::Resuming { .. }) => {
                *binding = Binding::Idle;
                vec![Output::Send(sm::Nonza::Failed(failed).to_bytes())]
            }
            _ => Vec::new(),
        }
    }

    /// Ends the stream: a header if none has been sent, the error, the end tag (RFC 6120 §4.9.1.2).
    pub fn error(&mut self, error: StreamError, random: &mut dyn Random) -> Vec<Output> {
        let mut outputs = Vec::new();
        match self.phase {
            Phase::Over => return outputs,
            // Inside a handshake there is no stream to say anything on.
            Phase::Handshake => {}
            _ => {
                let mut text = String::new();
                if !self.stream.answered {
                    self.write_header(random, &mut text);
                }
                error.write(&mut text);
                text.push_str(CLOSE);
                outputs.push(Output::Send(text.into_bytes()));
            }
        }
        self.phase = Phase::Over;
        outputs.push(Output::Close(Some(error)));
        outputs
    }

    /// The client ends its stream; ours ends too.
    fn close(&mut self) -> Vec<Output> {
        self.phase = Phase::Over;
        vec![Output::Send(CLOSE.as_bytes().to_vec()), Output::Close(None)]
    }

    fn open(&mut self, header: &[u8], random: &mut dyn Random) -> Vec<Output> {
        if !matches!(self.phase, Phase::Opening) {
            return self.error(StreamError::bad_format(), random);
        }
        let host = self.account.as_ref().map(|(account, _)| account.domain());
        let judged = match open::parse(header, self.limits()) {
            Ok(header) => self.stream.judge(&header, &self.config.domains, host),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = judged {
            return self.error(error, random);
        }
        let mut text = String::new();
        self.write_header(random, &mut text);
        match &self.account {
            None => {
                let host = self.stream.host.as_ref().map_or("", BareJid::domain);
                self.config.offer(self.tls.as_ref(), host, &mut text);
                self.phase = Phase::Authenticating(Authenticating::default());
            }
            Some(_) => {
                self.config.offer_to_authenticated(&mut text);
                self.phase = Phase::Binding(Binding::Idle);
            }
        }
        vec![Output::Send(text.into_bytes())]
    }

    fn write_header(&mut self, random: &mut dyn Random, out: &mut String) {
        self.stream.answered = true;
        let own = || self.config.domains.first().map(BareJid::as_str);
        let header = Header {
            from: Some(
                self.stream
                    .host
                    .as_ref()
                    .map(BareJid::as_str)
                    .or_else(own)
                    .unwrap_or_default(),
            ),
            to: self.stream.from.as_ref().map(BareJid::as_str),
            id: Some(&token(random)),
            version: self.stream.versioned,
            lang: LANG,
        };
        header.write(out);
    }

    fn element(&mut self, element: &[u8], random: &mut dyn Random) -> Vec<Output> {
        self.elements += 1;
        if self.elements > self.config.elements_max {
            return self.error(
                StreamError::policy_violation().with_text("negotiation takes too long"),
                random,
            );
        }
        let element = match Element::parse_in(element, self.limits(), &self.stream.prefixes) {
            Ok(element) => element,
            Err(error) => return self.error(error.into(), random),
        };
        match (element.ns(), element.name()) {
            (TLS, "starttls") => self.starttls(),
            (SASL, "auth" | "response" | "abort") => self.sasl(&element, random),
            (sm::NS, _) => self.management(&element, random),
            (CLIENT, "iq" | "message" | "presence") => self.stanza(&element, random),
            (STREAM, "error") => self.close(),
            (SERVER, _) => self.error(StreamError::invalid_namespace(), random),
            _ => self.error(StreamError::unsupported_stanza_type(), random),
        }
    }

    /// RFC 6120 §5.4.2
    fn starttls(&mut self) -> Vec<Output> {
        let idle = matches!(&self.phase, Phase::Authenticating(authenticating) if authenticating.is_idle());
        if idle && self.tls.is_none() && self.config.tls != TlsPolicy::Off {
            self.phase = Phase::Handshake;
            return vec![
                Output::Send(format!("<proceed xmlns='{TLS}'/>").into_bytes()),
                Output::StartTls,
            ];
        }
        self.phase = Phase::Over;
        vec![
            Output::Send(format!("<failure xmlns='{TLS}'/>{CLOSE}").into_bytes()),
            Output::Close(None),
        ]
    }

    fn sasl(&mut self, element: &Element, random: &mut dyn Random) -> Vec<Output> {
        let (Phase::Authenticating(authenticating), Some(host)) = (&mut self.phase, &self.stream.host) else {
            let error = StreamError::not_authorized().with_text("this stream has authenticated");
            return self.error(error, random);
        };
        if element.name() == "auth" && !authenticating.is_idle() {
            // The handshake that this one discards counts as failed, or a client could begin for ever.
            self.failures = self.failures.saturating_add(1);
        }
        if self.failures > self.config.sasl_retries_max {
            return self.too_many_failures(random);
        }
        let step = match element.name() {
            "auth" => authenticating.auth(element, &self.config, self.tls.as_ref(), host.domain(), random),
            "response" => authenticating.response(element, random),
            _ => authenticating.abort(),
        };
        self.authentication_step(step, random)
    }

    /// RFC 6120 §6.4.5
    fn too_many_failures(&mut self, random: &mut dyn Random) -> Vec<Output> {
        self.error(
            StreamError::policy_violation().with_text("too many failed authentications"),
            random,
        )
    }

    fn attempt_failed(&mut self, send: Vec<u8>, random: &mut dyn Random) -> Vec<Output> {
        let mut outputs = vec![Output::Send(send)];
        self.failures = self.failures.saturating_add(1);
        if self.failures > self.config.sasl_retries_max {
            outputs.extend(self.too_many_failures(random));
        }
        outputs
    }

    /// Goes on with an exchange that was waiting for its caller.
    fn authenticating(
        &mut self,
        random: &mut dyn Random,
        answer: impl FnOnce(&mut Authenticating) -> authenticating::Step,
    ) -> Vec<Output> {
        match &mut self.phase {
            Phase::Authenticating(authenticating) if authenticating.asked => {
                let step = answer(authenticating);
                self.authentication_step(step, random)
            }
            _ => Vec::new(),
        }
    }

    fn authentication_step(&mut self, step: authenticating::Step, random: &mut dyn Random) -> Vec<Output> {
        use authenticating::Step;
        match step {
            Step::Send(text) => vec![Output::Send(text.into_bytes())],
            Step::AskCredentials(request) => vec![Output::AskCredentials(request)],
            Step::VerifyPassword(job) => vec![Output::VerifyPassword(job)],
            Step::Failed { send, condition } => {
                let mut outputs = self.attempt_failed(send.into_bytes(), random);
                outputs.insert(0, Output::NotAuthenticated(condition));
                outputs
            }
            Step::Success {
                send,
                account,
                version,
                mechanism,
            } => {
                // RFC 6120 §6.4.6: inside TLS nobody but the client can have written the header's 'from'.
                let claimed = self.stream.from.as_ref().filter(|_| self.tls.is_some());
                if claimed.is_some_and(|claimed| *claimed != account) {
                    let error = StreamError::invalid_from().with_text("the stream header names somebody else");
                    return self.error(error, random);
                }
                self.account = Some((account.clone(), version));
                self.stream = Opened::default();
                self.phase = Phase::Opening;
                let send = Output::Send(send.into_bytes());
                vec![send, Output::Authenticated { account, mechanism }, Output::Restart]
            }
        }
    }

    fn management(&mut self, element: &Element, random: &mut dyn Random) -> Vec<Output> {
        let Some(Ok(nonza)) = sm::Nonza::parse(element) else {
            return vec![binding::management_failed(Condition::BadRequest)];
        };
        match nonza {
            sm::Nonza::Resume(resume) => match (&mut self.phase, &self.account) {
                (Phase::Binding(_), Some(_)) if !self.config.management => {
                    vec![binding::management_failed(Condition::FeatureNotImplemented)]
                }
                (Phase::Binding(binding), Some((account, version))) => {
                    *binding = Binding::Resuming {
                        previd: resume.previd.clone(),
                    };
                    let (account, version) = (account.clone(), *version);
                    vec![Output::Resume(ResumeRequest {
                        account,
                        version,
                        previd: resume.previd,
                        h: resume.h,
                    })]
                }
                _ => vec![binding::management_failed(Condition::UnexpectedRequest)],
            },
            // XEP-0198 §3: not before resource binding.
            sm::Nonza::Enable(_) | sm::Nonza::Request | sm::Nonza::Ack(_) => {
                vec![binding::management_failed(Condition::UnexpectedRequest)]
            }
            sm::Nonza::Enabled(_) | sm::Nonza::Resumed(_) | sm::Nonza::Failed(_) => {
                self.error(StreamError::unsupported_stanza_type(), random)
            }
        }
    }

    /// RFC 6120 §7: the only stanza that has its place here, but for those that make an account (XEP-0077).
    fn stanza(&mut self, element: &Element, random: &mut dyn Random) -> Vec<Output> {
        if let Phase::Authenticating(authenticating) = &self.phase
            && authenticating.is_idle()
            && self.config.registers(self.tls.as_ref())
        {
            return self.register(element, random);
        }
        let (Phase::Binding(binding), Some((account, version))) = (&mut self.phase, &self.account) else {
            return self.error(StreamError::not_authorized(), random);
        };
        match binding.request(element, account, *version, random) {
            Some(Ok(request)) => vec![Output::Bind(request)],
            Some(Err(send)) => self.bind_failed(send, random),
            None => self.error(StreamError::not_authorized().with_text("bind a resource first"), random),
        }
    }

    fn register(&mut self, iq: &Element, random: &mut dyn Random) -> Vec<Output> {
        let host = self.stream.host.as_ref().map_or("", BareJid::domain);
        match registering::request(iq, host, self.registered) {
            None => self.error(StreamError::not_authorized(), random),
            Some(registering::Step::Send(send)) => vec![Output::Send(send)],
            Some(registering::Step::Refused(send)) => self.attempt_failed(send, random),
            Some(registering::Step::Ask(registering, request)) => {
                self.phase = Phase::Registering(registering);
                vec![Output::Register(request)]
            }
        }
    }

    fn bind_failed(&mut self, send: Vec<u8>, random: &mut dyn Random) -> Vec<Output> {
        self.refused_binds = self.refused_binds.saturating_add(1);
        let mut outputs = vec![Output::Send(send)];
        if self.refused_binds > self.config.bind_retries_max {
            let error = StreamError::policy_violation().with_text("too many attempts to bind");
            outputs.extend(self.error(error, random));
        }
        outputs
    }

    fn established(self: Box<Self>, send: Vec<u8>) -> Established {
        Established {
            send,
            prefixes: self.stream.prefixes,
            lang: self.stream.lang,
        }
    }
}
