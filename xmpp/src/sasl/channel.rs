//! Channel bindings: facts of one TLS channel that both of its ends know and nobody between them can make equal.

/// A channel binding type we know. `tls-unique` (RFC 5929 §3) is not among them: TLS 1.3 does not define it, and before TLS 1.3 it
/// is weak (RFC 9266 §1). The order is that of preference: a greater one is to be preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BindingType {
    /// `tls-server-end-point` (RFC 5929 §4): the hash of the server's certificate.
    TlsServerEndPoint,
    /// `tls-exporter` (RFC 9266 §2): 32 bytes exported under the label `EXPORTER-Channel-Binding` with an empty context.
    TlsExporter,
}

impl BindingType {
    const ALL: [Self; 2] = [Self::TlsServerEndPoint, Self::TlsExporter];

    /// The registered name, as it stands in a GS2 header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TlsServerEndPoint => "tls-server-end-point",
            Self::TlsExporter => "tls-exporter",
        }
    }

    /// The type of that name, if we know it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// The bindings of one TLS channel. Where there are none, the `-PLUS` mechanisms are neither offered nor chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelBindings {
    exporter: Option<[u8; 32]>,
    server_end_point: Option<Box<[u8]>>,
}

impl ChannelBindings {
    /// A channel that offers no bindings.
    pub const fn none() -> Self {
        Self {
            exporter: None,
            server_end_point: None,
        }
    }

    /// Adds `tls-exporter`: the exported keying material of RFC 9266 §2.
    #[must_use]
    pub fn with_exporter(mut self, keying_material: [u8; 32]) -> Self {
        self.exporter = Some(keying_material);
        self
    }

    /// Adds `tls-server-end-point`: the hash of the server's certificate, chosen as RFC 5929 §4.1 says.
    #[must_use]
    pub fn with_server_end_point(mut self, certificate_hash: &[u8]) -> Self {
        self.server_end_point = (!certificate_hash.is_empty()).then(|| certificate_hash.into());
        self
    }

    /// Whether no binding is there.
    pub const fn is_empty(&self) -> bool {
        self.exporter.is_none() && self.server_end_point.is_none()
    }

    /// The types there are, most preferred first.
    pub fn kinds(&self) -> impl Iterator<Item = BindingType> + '_ {
        BindingType::ALL
            .into_iter()
            .rev()
            .filter(|kind| self.value(*kind).is_some())
    }

    /// The binding's value.
    pub fn value(&self, kind: BindingType) -> Option<&[u8]> {
        match kind {
            BindingType::TlsExporter => self.exporter.as_ref().map(<[u8; 32]>::as_slice),
            BindingType::TlsServerEndPoint => self.server_end_point.as_deref(),
        }
    }
}

/// What a client says about channel binding when it chooses a SCRAM mechanism (`gs2-cbind-flag`, RFC 5802 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientBinding<'a> {
    /// `n`: we have none that this server knows.
    Unsupported,
    /// `y`: we have one, and the server offered no `-PLUS`. A server that did offer it refuses, since someone cut its list.
    NotOffered,
    /// `p`: bound to this, with a `-PLUS` mechanism.
    Bound(BindingType, &'a [u8]),
}

#[cfg(test)]
mod tests {
    use super::{BindingType, ChannelBindings};

    #[test]
    fn the_exporter_is_preferred() {
        let both = ChannelBindings::none()
            .with_server_end_point(b"hash")
            .with_exporter([7; 32]);
        assert_eq!(
            both.kinds().collect::<Vec<_>>(),
            [BindingType::TlsExporter, BindingType::TlsServerEndPoint]
        );
        assert_eq!(both.value(BindingType::TlsServerEndPoint), Some(&b"hash"[..]));
    }

    #[test]
    fn tls_unique_is_unknown_to_us() {
        assert_eq!(BindingType::from_name("tls-unique"), None);
        assert!(ChannelBindings::none().is_empty());
    }
}
