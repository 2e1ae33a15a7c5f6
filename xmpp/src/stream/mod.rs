//! Streams (RFC 6120 §4): how they are negotiated, on both sides, and why they end.
//!
//! [`Responder`] is the server's side of a negotiation, [`Initiator`] the client's. Both are fed [`Frame`](crate::xml::Frame)s and
//! say what to do next; neither sends, waits or looks anything up. When a negotiation is over its machine is dropped: stanzas
//! are the session's.

mod error;
mod features;
mod header;
mod initiator;
mod responder;
mod sasl;

pub use error::{StreamCondition, StreamError};
pub use features::Features;
pub use initiator::{Initiator, InitiatorConfig, InitiatorError, InitiatorOutput, TlsDemand};
pub use responder::{
    BindRequest, Established, NegotiationPhase, Output, RegisterRequest, Responder, ResponderConfig, ResumeRequest,
    TlsPolicy,
};

use crate::feature::Spec;

/// What streams speak besides RFC 6120.
pub(crate) static SPECS: &[Spec] = &[
    Spec {
        document: "XEP-0368",
        title: "SRV records for XMPP over TLS",
        version: "1.1.0",
        host_features: &[],
        account_features: &[],
    },
    Spec {
        document: "XEP-0440",
        title: "SASL Channel-Binding Type Capability",
        version: "1.0.0",
        host_features: &[],
        account_features: &[],
    },
    Spec {
        document: "XEP-0175",
        title: "Best Practices for Use of SASL ANONYMOUS",
        version: "1.2",
        host_features: &[],
        account_features: &[],
    },
];

/// The namespace of STARTTLS (RFC 6120 §5).
const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
/// The namespace of SASL (RFC 6120 §6).
const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
/// The namespace of the channel binding types that a server offers (XEP-0440).
const SASL_CB: &str = "urn:xmpp:sasl-cb:0";
/// The namespace of resource binding (RFC 6120 §7).
const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
/// The namespace of the session that RFC 6121 dropped (RFC 3921 §3).
const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";
