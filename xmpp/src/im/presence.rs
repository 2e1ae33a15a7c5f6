//! RFC 6121 §4: what a presence says about a resource.

use crate::stanza::Stanza;
use crate::xml::CLIENT;

/// RFC 6121 §4.7.2.3: the priority, 0 when it is not given or is no byte.
pub(crate) fn priority(presence: &Stanza) -> i8 {
    // Most presences have no children, or none of this name: they are not parsed.
    if presence.payload().is_none() {
        return 0;
    }
    let root = presence.root_element().ok();
    let priority = root.as_ref().and_then(|root| root.child("priority", CLIENT));
    priority
        .and_then(|priority| priority.text().trim().parse().ok())
        .unwrap_or(0)
}
