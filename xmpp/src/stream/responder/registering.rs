//! A stream that has not authenticated, because there is no account yet: XEP-0077 §3.1.

use crate::jid::BareJid;
use crate::sasl::Password;
use crate::stanza::StanzaError;
use crate::xep::registration;
use crate::xml::{CLIENT, Element};

/// A client wants an account.
#[derive(Debug)]
pub struct RegisterRequest {
    /// Its address.
    pub account: BareJid,
    /// Its password.
    pub password: Password,
}

/// The iq that is to be answered.
#[derive(Default)]
pub(super) struct Registering {
    id: Option<Box<str>>,
    to: Option<Box<str>>,
}

/// What comes of an iq.
pub(super) enum Step {
    /// It is answered with these bytes.
    Send(Vec<u8>),
    /// It is answered with an error.
    Refused(Vec<u8>),
    /// It is to be carried out.
    Ask(Registering, RegisterRequest),
}

/// Takes an iq on a stream to `host`. `None`: it asks for something else. `again` says that this stream has registered already.
pub(super) fn request(iq: &Element, host: &str, again: bool) -> Option<Step> {
    let query = iq.child("query", registration::NS).filter(|_| iq.name() == "iq")?;
    let registering = Registering {
        id: iq.attr("id").map(Box::from),
        to: iq.attr("to").map(Box::from),
    };
    let set = match iq.attr("type") {
        Some("get") => false,
        Some("set") => true,
        _ => return None,
    };
    let refuse = |error: StanzaError| Some(Step::Refused(registering.refused(&error)));
    if registering.to.as_ref().is_some_and(|to| **to != *host) {
        return refuse(StanzaError::service_unavailable());
    }
    if iq.children().count() != 1 || registering.id.is_none() {
        return refuse(StanzaError::bad_request());
    }
    if !set {
        return Some(Step::Send(registering.answer("result", Some(registration::fields()))));
    }
    if registration::is_removal(query) {
        // §3.2: nobody in particular asks.
        return refuse(StanzaError::unexpected_request());
    }
    if again {
        // §3.1.1
        return refuse(StanzaError::not_acceptable().with_text("this stream has registered an account"));
    }
    match registration::registration(query, host) {
        Ok((account, password)) => Some(Step::Ask(registering, RegisterRequest { account, password })),
        Err(error) => refuse(error),
    }
}

impl Registering {
    pub(super) fn done(&self) -> Vec<u8> {
        self.answer("result", None)
    }

    pub(super) fn refused(&self, error: &StanzaError) -> Vec<u8> {
        self.answer("error", Some(error.to_element()))
    }

    fn answer(&self, type_: &'static str, payload: Option<Element>) -> Vec<u8> {
        let mut iq = Element::new("iq", CLIENT).with_attr("type", type_);
        if let Some(id) = &self.id {
            iq.set_attr("id", &**id);
        }
        if let Some(to) = &self.to {
            iq.set_attr("from", &**to);
        }
        let mut send = Vec::new();
        iq.with_children(payload).write(&mut send, CLIENT);
        send
    }
}
