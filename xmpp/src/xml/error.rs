//! Why a stream cannot go on after what was read.

/// An unrecoverable fault of the XML a peer sent. Each maps to one stream error condition of RFC 6120 §4.9.3.
///
/// The text says what was wrong in fixed words and never quotes the peer, so it may be logged and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// Well-formed, but not something a stream may consist of, such as text between stanzas (§4.9.3.1).
    #[error("bad-format: {0}")]
    BadFormat(&'static str),
    /// The stream or content namespace has a prefix that RFC 6120 §4.8.5 does not allow (§4.9.3.2).
    #[error("bad-namespace-prefix: {0}")]
    BadNamespacePrefix(&'static str),
    /// The `from` of a stanza cannot be the sender's (§4.9.3.9).
    #[error("invalid-from: {0}")]
    InvalidFrom(&'static str),
    /// The stream is in another namespace, or a stanza in another stream's content namespace (§4.9.3.10).
    #[error("invalid-namespace: {0}")]
    InvalidNamespace(&'static str),
    /// Violates XML 1.0 or Namespaces in XML 1.0 (§4.9.3.13).
    #[error("not-well-formed: {0}")]
    NotWellFormed(&'static str),
    /// Larger than a limit allows (§4.9.3.14).
    #[error("policy-violation: more than {} allows", .0.limit())]
    PolicyViolation(Excess),
    /// A comment, processing instruction, DTD or entity (§4.9.3.18, §11.1).
    #[error("restricted-xml: {0}")]
    RestrictedXml(&'static str),
    /// Not UTF-8 (§4.9.3.22, §11.6).
    #[error("unsupported-encoding: {0}")]
    UnsupportedEncoding(&'static str),
    /// A top-level element that is no stanza although it is in the content namespace (§4.9.3.24).
    #[error("unsupported-stanza-type: {0}")]
    UnsupportedStanzaType(&'static str),
    /// The stream header asks for a version we do not speak (§4.9.3.25).
    #[error("unsupported-version: {0}")]
    UnsupportedVersion(&'static str),
}

/// Which of the [`Limits`](super::Limits) was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// `stanza_bytes_max`: the peer is told `stanza-too-big` as well (RFC 6120 §4.9.3.14).
    StanzaBytes,
    /// `depth_max`.
    Depth,
    /// `attributes_max`.
    Attributes,
    /// `name_bytes_max`.
    NameBytes,
    /// `namespace_bytes_max`.
    NamespaceBytes,
    /// `namespaces_max`.
    Namespaces,
    /// `children_max`.
    Children,
}

impl Excess {
    /// The limit's name, as it is in the configuration.
    pub const fn limit(self) -> &'static str {
        match self {
            Self::StanzaBytes => "stanza_bytes_max",
            Self::Depth => "depth_max",
            Self::Attributes => "attributes_max",
            Self::NameBytes => "name_bytes_max",
            Self::NamespaceBytes => "namespace_bytes_max",
            Self::Namespaces => "namespaces_max",
            Self::Children => "children_max",
        }
    }
}

impl XmlError {
    /// The element name of the stream error condition (RFC 6120 §4.9.3).
    pub const fn condition(&self) -> &'static str {
        match self {
            Self::BadFormat(_) => "bad-format",
            Self::BadNamespacePrefix(_) => "bad-namespace-prefix",
            Self::InvalidFrom(_) => "invalid-from",
            Self::InvalidNamespace(_) => "invalid-namespace",
            Self::NotWellFormed(_) => "not-well-formed",
            Self::PolicyViolation(_) => "policy-violation",
            Self::RestrictedXml(_) => "restricted-xml",
            Self::UnsupportedEncoding(_) => "unsupported-encoding",
            Self::UnsupportedStanzaType(_) => "unsupported-stanza-type",
            Self::UnsupportedVersion(_) => "unsupported-version",
        }
    }

    /// What was wrong, in words for the `<text/>` of the stream error and for logs.
    pub const fn text(&self) -> &'static str {
        match self {
            Self::BadFormat(text)
            | Self::BadNamespacePrefix(text)
            | Self::InvalidFrom(text)
            | Self::InvalidNamespace(text)
            | Self::NotWellFormed(text)
            | Self::RestrictedXml(text)
            | Self::UnsupportedEncoding(text)
            | Self::UnsupportedStanzaType(text)
            | Self::UnsupportedVersion(text) => text,
            Self::PolicyViolation(excess) => excess.limit(),
        }
    }
}
