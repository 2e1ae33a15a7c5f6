//! What the tests beside the code share.

use heronry_xmpp::{
    stanza::{Parsed, Stanza},
    xml::{Limits, StreamPrefixes},
};

/// A stanza as it comes from a server.
pub(crate) fn message(xml: &str) -> Stanza {
    let parsed = Stanza::parse(xml.to_owned().into(), &Limits::after_auth(), &StreamPrefixes::client());
    match parsed {
        Ok(Parsed::Stanza(stanza)) => stanza,
        other => panic!("{xml}: {other:?}"),
    }
}
