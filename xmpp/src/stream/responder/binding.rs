//! A stream that has authenticated: resource binding (RFC 6120 §7) or the resumption of an earlier session (XEP-0198 §5).

use super::super::BIND;
use super::Output;
use crate::jid::{BareJid, FullJid};
use crate::random::{Random, token};
use crate::stanza::{Condition, StanzaError};
use crate::xep::sm;
use crate::xml::{CLIENT, Element};

/// A client wants an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindRequest {
    /// The address it wants, or one that nobody guesses when it leaves the choice to us (RFC 6120 §7.6).
    pub jid: FullJid,
    /// Whether the resource was chosen by us: then it is in nobody's use.
    pub generated: bool,
    /// The version of the credentials it authenticated with: the account's must still be that.
    pub version: u64,
}

/// A client wants to go on with an earlier session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeRequest {
    /// Who it authenticated as: the session's account must be that.
    pub account: BareJid,
    /// The version of the credentials it authenticated with.
    pub version: u64,
    /// The SM-ID of the session: a secret, to be compared in constant time.
    pub previd: Box<str>,
    /// How many of our stanzas it has handled.
    pub h: sm::Counter,
}

/// What is going on.
#[derive(Default)]
pub(super) enum Binding {
    #[default]
    Idle,
    /// The caller is asked to bind, for the iq with this id.
    Asked { id: Option<Box<str>> },
    /// The caller is asked to resume.
    Resuming { previd: Box<str> },
}

impl Binding {
    /// Takes a stanza. `None`: it asks for something else. `Err`: it is answered with these bytes.
    pub(super) fn request(
        &mut self,
        iq: &Element,
        account: &BareJid,
        version: u64,
        random: &mut dyn Random,
    ) -> Option<Result<BindRequest, Vec<u8>>> {
        let bind = iq.child("bind", BIND).filter(|_| iq.name() == "iq")?;
        let id = iq.attr("id").map(Box::from);
        let refuse = |error: StanzaError| Some(Err(Self::Asked { id: id.clone() }.refused(&error)));
        match iq.attr("type") {
            Some("set") if iq.children().count() == 1 && id.is_some() => {}
            // A stanza of type error or result is never answered (RFC 6120 §8.2.3).
            Some("error" | "result") => return None,
            _ => return refuse(StanzaError::bad_request()),
        }
        let resource = bind
            .child("resource", BIND)
            .map(Element::text)
            .filter(|resource| !resource.is_empty());
        let generated = resource.is_none();
        let Ok(jid) = account.with_resource(&resource.unwrap_or_else(|| token(random))) else {
            // RFC 6120 §7.7.2.1
            return refuse(StanzaError::bad_request().with_text("not a resourcepart"));
        };
        *self = Self::Asked { id };
        Some(Ok(BindRequest {
            jid,
            generated,
            version,
        }))
    }

    /// The answer to the iq that asked.
    pub(super) fn bound(&self, jid: &FullJid) -> Vec<u8> {
        let jid = Element::new("jid", BIND).with_text(jid.as_str());
        self.answer("result", Element::new("bind", BIND).with_child(jid))
    }

    /// The other answer.
    pub(super) fn refused(self, error: &StanzaError) -> Vec<u8> {
        self.answer("error", error.to_element())
    }

    pub(super) fn resumed(&self, h: sm::Counter) -> Vec<u8> {
        match self {
            Self::Resuming { previd } => sm::Nonza::Resumed(sm::Resumed {
                previd: previd.clone(),
                h,
            })
            .to_bytes(),
            Self::Idle | Self::Asked { .. } => Vec::new(),
        }
    }

    fn answer(&self, type_: &'static str, payload: Element) -> Vec<u8> {
        let mut iq = Element::new("iq", CLIENT).with_attr("type", type_);
        if let Self::Asked { id: Some(id) } = self {
            iq.set_attr("id", &**id);
        }
        let mut send = Vec::new();
        iq.with_child(payload).write(&mut send, CLIENT);
        send
    }
}

/// `<failed/>` for a request of stream management that cannot be served.
pub(super) fn management_failed(condition: Condition) -> Output {
    Output::Send(sm::Nonza::Failed(condition.into()).to_bytes())
}
