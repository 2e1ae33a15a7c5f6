//! Stream errors (RFC 6120 §4.9): why a stream ends.

use std::borrow::Cow;

use crate::xml::{Element, Excess, STREAM, STREAMS, XmlError};

/// Makes the conditions, their names and a constructor of [`StreamError`] for each.
macro_rules! conditions {
    ($($variant:ident $constructor:ident $name:literal $doc:literal;)*) => {
        /// Why a stream ends (RFC 6120 §4.9.3).
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum StreamCondition {
            $(#[doc = $doc] $variant,)*
            /// Connect to this `domainpart[:port]` instead (§4.9.3.19).
            SeeOtherHost(Box<str>),
        }

        impl StreamCondition {
            /// The name of the condition's element.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::SeeOtherHost(_) => "see-other-host",
                }
            }

            /// One we do not know counts as `undefined-condition` (RFC 6120 §4.9.2).
            fn read(element: &Element) -> Self {
                match element.name() {
                    $($name => Self::$variant,)*
                    "see-other-host" => Self::SeeOtherHost(element.text().trim().into()),
                    // RFC 3920's name for it (RFC 6120 §4.9.3.13).
                    "xml-not-well-formed" => Self::NotWellFormed,
                    _ => Self::UndefinedCondition,
                }
            }
        }

        impl StreamError {
            $(#[doc = $doc] pub const fn $constructor() -> Self {
                Self::new(StreamCondition::$variant)
            })*
        }
    };
}

conditions! {
    BadFormat bad_format "bad-format" "XML that cannot be processed (§4.9.3.1).";
    BadNamespacePrefix bad_namespace_prefix "bad-namespace-prefix" "A namespace prefix that is not supported (§4.9.3.2).";
    Conflict conflict "conflict" "Another stream took this one's place (§4.9.3.3).";
    ConnectionTimeout connection_timeout "connection-timeout" "The peer does not answer any more (§4.9.3.4).";
    HostGone host_gone "host-gone" "The host was served here once (§4.9.3.5).";
    HostUnknown host_unknown "host-unknown" "The host is not served here (§4.9.3.6).";
    ImproperAddressing improper_addressing "improper-addressing" "An address is missing or is none (§4.9.3.7).";
    InternalServerError internal_server_error "internal-server-error" "Our own fault (§4.9.3.8).";
    InvalidFrom invalid_from "invalid-from" "A `from` that is not the peer's (§4.9.3.9).";
    InvalidNamespace invalid_namespace "invalid-namespace" "Another stream or content namespace (§4.9.3.10).";
    InvalidXml invalid_xml "invalid-xml" "Against the schema (§4.9.3.11).";
    NotAuthorized not_authorized "not-authorized" "Not before authentication, or not at all (§4.9.3.12).";
    NotWellFormed not_well_formed "not-well-formed" "Not XML (§4.9.3.13).";
    PolicyViolation policy_violation "policy-violation" "Against local policy, such as a size (§4.9.3.14).";
    RemoteConnectionFailed remote_connection_failed "remote-connection-failed" "Somebody who is needed for authentication cannot be reached (§4.9.3.15).";
    Reset reset "reset" "Everything is to be negotiated again (§4.9.3.16).";
    ResourceConstraint resource_constraint "resource-constraint" "No resources for this stream (§4.9.3.17).";
    RestrictedXml restricted_xml "restricted-xml" "Comments, processing instructions, DTDs, entities (§4.9.3.18).";
    SystemShutdown system_shutdown "system-shutdown" "The server is going down (§4.9.3.20).";
    UndefinedCondition undefined_condition "undefined-condition" "What the application-specific element says (§4.9.3.21).";
    UnsupportedEncoding unsupported_encoding "unsupported-encoding" "Not UTF-8 (§4.9.3.22).";
    UnsupportedFeature unsupported_feature "unsupported-feature" "A mandatory feature that the peer does not have (§4.9.3.23).";
    UnsupportedStanzaType unsupported_stanza_type "unsupported-stanza-type" "A top-level element that means nothing here (§4.9.3.24).";
    UnsupportedVersion unsupported_version "unsupported-version" "Another version of XMPP (§4.9.3.25).";
}

/// The end of a stream, as its peer is told. Unrecoverable: whoever sends or receives one closes (RFC 6120 §4.9.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamError {
    /// The defined condition.
    pub condition: StreamCondition,
    /// A sentence for a person reading a log.
    pub text: Option<Cow<'static, str>>,
    /// The application-specific condition (RFC 6120 §4.9.4).
    pub application: Option<Box<Element>>,
}

impl StreamError {
    const fn new(condition: StreamCondition) -> Self {
        Self {
            condition,
            text: None,
            application: None,
        }
    }

    /// Another host is to be connected to: a `domainpart`, with a port or without (§4.9.3.19).
    pub fn see_other_host(host: impl Into<Box<str>>) -> Self {
        Self::new(StreamCondition::SeeOtherHost(host.into()))
    }

    /// With a sentence.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// With an application-specific condition.
    #[must_use]
    pub fn with_application(mut self, element: Element) -> Self {
        self.application = Some(Box::new(element));
        self
    }

    /// Reads a received `<stream:error/>`; `None` when it is something else.
    pub fn parse(element: &Element) -> Option<Self> {
        if !element.is("error", STREAM) {
            return None;
        }
        let mut error = Self::new(StreamCondition::UndefinedCondition);
        for child in element.children() {
            match (child.ns(), child.name()) {
                (STREAMS, "text") => error.text = Some(Cow::Owned(child.text())),
                (STREAMS, _) => error.condition = StreamCondition::read(child),
                _ => error.application = Some(Box::new(child.clone())),
            }
        }
        Some(error)
    }

    /// Appends `<stream:error/>` as it stands inside a stream of ours.
    pub fn write(&self, out: &mut String) {
        out.push_str("<stream:error>");
        let mut condition = Element::new(self.condition.name(), STREAMS);
        if let StreamCondition::SeeOtherHost(host) = &self.condition {
            condition.push_text(&**host);
        }
        // In a stream of ours the default namespace is never that of an error's children: each declares its own.
        condition.write_str(out, "");
        if let Some(text) = &self.text {
            let text = Element::new("text", STREAMS)
                .with_attr("xml:lang", "en")
                .with_text(text.as_ref());
            text.write_str(out, "");
        }
        if let Some(element) = &self.application {
            element.write_str(out, "");
        }
        out.push_str("</stream:error>");
    }
}

impl From<StreamCondition> for StreamError {
    fn from(condition: StreamCondition) -> Self {
        Self::new(condition)
    }
}

impl From<XmlError> for StreamError {
    fn from(error: XmlError) -> Self {
        let condition = match error {
            XmlError::BadFormat(_) => StreamCondition::BadFormat,
            XmlError::BadNamespacePrefix(_) => StreamCondition::BadNamespacePrefix,
            XmlError::InvalidFrom(_) => StreamCondition::InvalidFrom,
            XmlError::InvalidNamespace(_) => StreamCondition::InvalidNamespace,
            XmlError::NotWellFormed(_) => StreamCondition::NotWellFormed,
            XmlError::PolicyViolation(_) => StreamCondition::PolicyViolation,
            XmlError::RestrictedXml(_) => StreamCondition::RestrictedXml,
            XmlError::UnsupportedEncoding(_) => StreamCondition::UnsupportedEncoding,
            XmlError::UnsupportedStanzaType(_) => StreamCondition::UnsupportedStanzaType,
            XmlError::UnsupportedVersion(_) => StreamCondition::UnsupportedVersion,
        };
        let told = Self::new(condition).with_text(error.text());
        match error {
            // RFC 6120 §4.9.3.14
            XmlError::PolicyViolation(Excess::StanzaBytes) => {
                told.with_application(Element::new("stanza-too-big", "urn:xmpp:errors"))
            }
            _ => told,
        }
    }
}

impl std::fmt::Display for StreamError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.condition.name())?;
        if let StreamCondition::SeeOtherHost(host) = &self.condition {
            write!(f, " {host}")?;
        }
        match &self.text {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StreamError {}

#[cfg(test)]
mod tests {
    use super::{StreamCondition, StreamError};
    use crate::xml::{Element, Excess, Limits, XmlError};

    fn written(error: &StreamError) -> String {
        let mut out = String::new();
        error.write(&mut out);
        out
    }

    fn read(xml: &str) -> StreamError {
        let xml = xml.replacen(
            "<stream:error",
            "<stream:error xmlns:stream='http://etherx.jabber.org/streams'",
            1,
        );
        StreamError::parse(&Element::parse(xml, &Limits::after_auth()).unwrap()).unwrap()
    }

    /// RFC 6120 §4.9.3.14, §4.9.3.19
    #[test]
    fn errors_are_written_as_the_rfc_shows_them() {
        assert_eq!(
            written(&XmlError::PolicyViolation(Excess::StanzaBytes).into()),
            "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
             <text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>stanza_bytes_max</text>\
             <stanza-too-big xmlns='urn:xmpp:errors'/></stream:error>"
        );
        assert_eq!(
            written(&StreamError::see_other_host("[2001:41D0:1:A49b::1]:9222")),
            "<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>[2001:41D0:1:A49b::1]:9222\
             </see-other-host></stream:error>"
        );
    }

    #[test]
    fn what_is_written_is_read() {
        let errors = [
            StreamError::conflict(),
            StreamError::see_other_host("example.net:5222"),
            StreamError::undefined_condition()
                .with_text("too < much")
                .with_application(Element::new("x", "urn:y")),
            StreamError::not_authorized(),
        ];
        for error in errors {
            assert_eq!(read(&written(&error)), error);
        }
    }

    #[test]
    fn an_unknown_condition_is_undefined() {
        let error = read("<stream:error><brand-new xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>");
        assert_eq!(error.condition, StreamCondition::UndefinedCondition);
        assert_eq!(read("<stream:error/>").condition, StreamCondition::UndefinedCondition);
    }

    #[test]
    fn every_fault_of_xml_keeps_its_condition() {
        let faults = [
            XmlError::BadFormat("x"),
            XmlError::BadNamespacePrefix("x"),
            XmlError::InvalidFrom("x"),
            XmlError::InvalidNamespace("x"),
            XmlError::NotWellFormed("x"),
            XmlError::PolicyViolation(Excess::Depth),
            XmlError::RestrictedXml("x"),
            XmlError::UnsupportedEncoding("x"),
            XmlError::UnsupportedStanzaType("x"),
            XmlError::UnsupportedVersion("x"),
        ];
        for fault in faults {
            assert_eq!(StreamError::from(fault).condition.name(), fault.condition());
        }
    }
}
