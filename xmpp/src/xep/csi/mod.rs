//! XEP-0352: Client State Indication. The elements are here; what an inactive device is spared is decided by [`crate::edge`].

use crate::feature::Spec;
use crate::xml::Element;

/// The namespace of XEP-0352.
pub const NS: &str = "urn:xmpp:csi:0";

/// Stream-level: offered as a stream feature, not in disco.
pub static SPEC: Spec = Spec {
    document: "XEP-0352",
    title: "Client State Indication",
    version: "1.0.0",
    host_features: &[],
    account_features: &[],
};

/// What a device says about itself (§4.2). A stream begins active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// Somebody looks at it.
    Active,
    /// Nobody does.
    Inactive,
}

impl ClientState {
    /// Reads `<active/>` or `<inactive/>`; `None` when it is something else.
    pub fn parse(element: &Element) -> Option<Self> {
        match element.name() {
            _ if element.ns() != NS => None,
            "active" => Some(Self::Active),
            "inactive" => Some(Self::Inactive),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indications() {
        let parse = |name: &'static str, ns: &'static str| ClientState::parse(&Element::new(name, ns));
        assert_eq!(parse("active", NS), Some(ClientState::Active));
        assert_eq!(parse("inactive", NS), Some(ClientState::Inactive));
        assert_eq!(parse("csi", NS), None);
        assert_eq!(parse("active", "urn:xmpp:csi:1"), None);
    }
}
