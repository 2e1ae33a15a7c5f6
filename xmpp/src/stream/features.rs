//! Stream features (RFC 6120 §4.3.2): written by the receiving entity, read by the initiating one.

use super::{BIND, SASL, SASL_CB, SESSION, TLS};
use crate::im::roster::payload::{NS_PRE_APPROVAL, NS_VERSIONING};
use crate::sasl::{BindingType, Mechanism};
use crate::xep::{csi, registration, sm};
use crate::xml::{Element, STREAM};

/// What a server offers at one stage of a negotiation.
#[derive(Default)]
pub(super) struct Offer<'a> {
    /// STARTTLS, and whether nothing goes without.
    pub(super) starttls: Option<bool>,
    /// In our order of preference.
    pub(super) mechanisms: &'a [Mechanism],
    /// Of the `-PLUS` mechanisms among them (XEP-0440).
    pub(super) bindings: &'a [BindingType],
    /// In-band registration (XEP-0077).
    pub(super) registration: bool,
    /// Resource binding, the session that nobody needs any more, and what is only said and not negotiated: roster versioning,
    /// subscription pre-approval (RFC 6121 §2.6.1, §3.4) and client state (XEP-0352).
    pub(super) bind: bool,
    /// Stream management (XEP-0198).
    pub(super) management: bool,
}

impl Offer<'_> {
    pub(super) fn write(&self, out: &mut String) {
        out.push_str("<stream:features>");
        if let Some(required) = self.starttls {
            let required = required.then(|| Element::new("required", TLS));
            Element::new("starttls", TLS).with_children(required).write_str(out, "");
        }
        if !self.mechanisms.is_empty() {
            let mechanism = |mechanism: &Mechanism| Element::new("mechanism", SASL).with_text(mechanism.name());
            Element::new("mechanisms", SASL)
                .with_children(self.mechanisms.iter().map(mechanism))
                .write_str(out, "");
        }
        if !self.bindings.is_empty() {
            let binding = |kind: &BindingType| Element::new("channel-binding", SASL_CB).with_attr("type", kind.name());
            Element::new("sasl-channel-binding", SASL_CB)
                .with_children(self.bindings.iter().map(binding))
                .write_str(out, "");
        }
        if self.registration {
            Element::new("register", registration::NS_FEATURE).write_str(out, "");
        }
        if self.bind {
            Element::new("bind", BIND).write_str(out, "");
            // RFC 6121 dropped it, but clients written before look for it, and skip it when it says that they may.
            Element::new("session", SESSION)
                .with_child(Element::new("optional", SESSION))
                .write_str(out, "");
            Element::new("ver", NS_VERSIONING).write_str(out, "");
            Element::new("sub", NS_PRE_APPROVAL).write_str(out, "");
            Element::new("csi", csi::NS).write_str(out, "");
        }
        if self.management {
            Element::new("sm", sm::NS).write_str(out, "");
        }
        out.push_str("</stream:features>");
    }
}

/// What a server offered, as far as a client of ours understands it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// STARTTLS, and whether it is required.
    pub starttls: Option<bool>,
    /// The names of the mechanisms, in the server's order.
    pub mechanisms: Vec<String>,
    /// The channel binding types, when the server says which (XEP-0440).
    pub bindings: Option<Vec<String>>,
    /// Resource binding.
    pub bind: bool,
    /// The session of RFC 3921, and whether it is required.
    pub session: Option<bool>,
    /// Stream management (XEP-0198).
    pub management: bool,
    /// The whole element, for what else may be in it.
    pub element: Option<Box<Element>>,
}

impl Features {
    /// Reads `<stream:features/>`; `None` when it is something else.
    pub fn parse(element: &Element) -> Option<Self> {
        if !element.is("features", STREAM) {
            return None;
        }
        let texts = |parent: &Element, name: &str| {
            parent
                .children()
                .filter(|child| child.is(name, SASL))
                .map(Element::text)
                .collect::<Vec<_>>()
        };
        let types = |parent: &Element| {
            let children = parent.children().filter(|child| child.is("channel-binding", SASL_CB));
            children
                .filter_map(|child| child.attr("type").map(str::to_owned))
                .collect::<Vec<_>>()
        };
        Some(Self {
            starttls: element
                .child("starttls", TLS)
                .map(|starttls| starttls.child("required", TLS).is_some()),
            mechanisms: element
                .child("mechanisms", SASL)
                .map(|parent| texts(parent, "mechanism"))
                .unwrap_or_default(),
            bindings: element.child("sasl-channel-binding", SASL_CB).map(types),
            bind: element.child("bind", BIND).is_some(),
            session: element
                .child("session", SESSION)
                .map(|session| session.child("optional", SESSION).is_none()),
            management: element.child("sm", sm::NS).is_some(),
            element: Some(Box::new(element.clone())),
        })
    }
}
