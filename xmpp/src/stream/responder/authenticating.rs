//! A stream that has not authenticated: `<auth/>`, `<response/>`, `<abort/>` (RFC 6120 §6.4).

use super::super::sasl;
use super::config::ResponderConfig;
use crate::jid::BareJid;
use crate::random::Random;
use crate::sasl::{
    ChannelBindings, Condition, Credentials, CredentialsRequest, Failure, Mechanism, PasswordVerdict, ServerExchange,
    ServerStep, UnknownUsers, VerifyPassword,
};
use crate::xml::Element;

/// The handshake that is going on, if one is.
#[derive(Default)]
pub(super) struct Authenticating {
    exchange: Option<Box<ServerExchange>>,
    /// The exchange waits for the caller.
    pub(super) asked: bool,
}

/// What comes next.
pub(super) enum Step {
    Send(String),
    AskCredentials(CredentialsRequest),
    VerifyPassword(VerifyPassword),
    Failed {
        send: String,
        condition: Condition,
    },
    Success {
        send: String,
        account: BareJid,
        version: u64,
        mechanism: Mechanism,
    },
}

impl Authenticating {
    pub(super) fn is_idle(&self) -> bool {
        self.exchange.is_none()
    }

    /// `<auth/>`: another one discards the handshake that is going on (RFC 6120 §6.4.2).
    pub(super) fn auth(
        &mut self,
        element: &Element,
        config: &ResponderConfig,
        tls: Option<&ChannelBindings>,
        host: &str,
        random: &mut dyn Random,
    ) -> Step {
        let begun = chosen(element, config, tls, host).and_then(|mechanism| {
            let exchange = ServerExchange::new(mechanism, host, config.bindings(tls));
            let exchange = self.exchange.insert(Box::new(exchange));
            Ok(match sasl::message(element)? {
                Some(initial) => exchange.receive(&initial, random),
                // Its message may be empty, and XEP-0175 §4 has the client send none.
                None if mechanism == Mechanism::Anonymous => exchange.receive(&[], random),
                // The client keeps its initial response until it is asked (RFC 6120 §6.3.10).
                None => ServerStep::Challenge(Vec::new()),
            })
        });
        self.next(begun.unwrap_or_else(ServerStep::Failure))
    }

    /// `<response/>`
    pub(super) fn response(&mut self, element: &Element, random: &mut dyn Random) -> Step {
        let step = match (&mut self.exchange, sasl::message(element)) {
            (Some(exchange), Ok(message)) => exchange.receive(message.as_deref().map_or(&[], Vec::as_slice), random),
            (None, _) => ServerStep::Failure(Failure::because(
                Condition::MalformedRequest,
                "no handshake is going on",
            )),
            (Some(_), Err(failure)) => ServerStep::Failure(failure),
        };
        self.next(step)
    }

    /// `<abort/>` (RFC 6120 §6.4.4)
    pub(super) fn abort(&mut self) -> Step {
        self.next(ServerStep::Failure(Condition::Aborted.into()))
    }

    pub(super) fn credentials(&mut self, credentials: Credentials, unknown_users: &UnknownUsers) -> Step {
        let step = self
            .exchange
            .as_mut()
            .map(|exchange| exchange.credentials(credentials, unknown_users));
        self.next(step.unwrap_or(ServerStep::Failure(Condition::TemporaryAuthFailure.into())))
    }

    pub(super) fn password_verified(&mut self, verdict: PasswordVerdict) -> Step {
        let step = self
            .exchange
            .as_mut()
            .map(|exchange| exchange.password_verified(verdict));
        self.next(step.unwrap_or(ServerStep::Failure(Condition::TemporaryAuthFailure.into())))
    }

    fn next(&mut self, step: ServerStep) -> Step {
        self.asked = matches!(step, ServerStep::AskCredentials(_) | ServerStep::VerifyPassword(_));
        let mut send = String::new();
        match step {
            ServerStep::AskCredentials(request) => Step::AskCredentials(request),
            ServerStep::VerifyPassword(job) => Step::VerifyPassword(job),
            ServerStep::Challenge(challenge) => {
                sasl::write(
                    "challenge",
                    Some(&challenge)
                        .filter(|challenge| !challenge.is_empty())
                        .map(Vec::as_slice),
                    &mut send,
                );
                Step::Send(send)
            }
            ServerStep::Failure(failure) => {
                self.exchange = None;
                sasl::write_failure(&failure, &mut send);
                Step::Failed {
                    send,
                    condition: failure.condition,
                }
            }
            ServerStep::Success {
                account,
                version,
                additional,
            } => {
                let mechanism = self
                    .exchange
                    .take()
                    .map_or(Mechanism::Plain, |exchange| exchange.mechanism());
                sasl::write("success", additional.as_deref(), &mut send);
                Step::Success {
                    send,
                    account,
                    version,
                    mechanism,
                }
            }
        }
    }
}

/// The mechanism a client asks for, checked against what it was offered on this very stream.
fn chosen(
    element: &Element,
    config: &ResponderConfig,
    tls: Option<&ChannelBindings>,
    host: &str,
) -> Result<Mechanism, Failure> {
    let mechanism = element
        .attr("mechanism")
        .and_then(Mechanism::from_name)
        .ok_or(Condition::InvalidMechanism)?;
    if config.permits(mechanism, tls, host) {
        return Ok(mechanism);
    }
    // Would it be permitted inside TLS?
    if tls.is_none() && config.permits(mechanism, Some(&ChannelBindings::none()), host) {
        return Err(Condition::EncryptionRequired.into());
    }
    Err(Condition::InvalidMechanism.into())
}
