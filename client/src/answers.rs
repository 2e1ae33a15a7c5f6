//! What a device says about itself when it is asked: ping (XEP-0199), disco#info (XEP-0030), version (XEP-0092). Every other
//! request is answered with `service-unavailable` (RFC 6120 §8.4).

use heronry_xmpp::{
    stanza::{IqType, Stanza, StanzaError},
    xml::Element,
};

use crate::delivery::receipt::RECEIPTS;

const PING: &str = "urn:xmpp:ping";
const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
const VERSION: &str = "jabber:iq:version";

/// The answer to an iq of type get or set; none to what must not be answered. `receipts` says whether we give any (XEP-0184 §4).
pub(crate) fn answer(request: &Stanza, asked: IqType, receipts: bool) -> Option<Stanza> {
    let payload = request.payload().map(|payload| (payload.name, payload.ns));
    match (asked, payload) {
        (IqType::Get, Some(("ping", PING))) => Some(request.result(None)),
        (IqType::Get, Some(("query", VERSION))) => Some(request.result(Some(&version()))),
        (IqType::Get, Some(("query", DISCO_INFO))) => match node(request) {
            None => Some(request.result(Some(&disco_info(receipts)))),
            // XEP-0030 §3.2: we have no nodes.
            Some(_) => request.error(&StanzaError::item_not_found()),
        },
        _ => request.error(&StanzaError::service_unavailable()),
    }
}

fn node(request: &Stanza) -> Option<String> {
    request.payload_element().ok()?.attr("node").map(str::to_owned)
}

fn version() -> Element {
    Element::new("query", VERSION)
        .with_child(Element::new("name", VERSION).with_text(env!("CARGO_PKG_NAME")))
        .with_child(Element::new("version", VERSION).with_text(env!("CARGO_PKG_VERSION")))
}

fn disco_info(receipts: bool) -> Element {
    let identity = Element::new("identity", DISCO_INFO)
        .with_attr("category", "client")
        .with_attr("type", "bot")
        .with_attr("name", env!("CARGO_PKG_NAME"));
    let feature = |var: &str| Element::new("feature", DISCO_INFO).with_attr("var", var);
    Element::new("query", DISCO_INFO)
        .with_child(identity)
        .with_children([DISCO_INFO, VERSION, PING].map(feature))
        .with_children(receipts.then(|| feature(RECEIPTS)))
}

#[cfg(test)]
mod tests {
    use heronry_xmpp::{
        stanza::Parsed,
        xml::{Limits, StreamPrefixes},
    };

    use super::*;

    fn check(payload: &str, expected: &str) {
        let request =
            format!("<iq type='get' id='1' from='capulet.example' to='juliet@capulet.example/b'>{payload}</iq>");
        let parsed = Stanza::parse(request.into(), &Limits::after_auth(), &StreamPrefixes::client());
        let Ok(Parsed::Stanza(request)) = parsed else {
            panic!("{parsed:?}")
        };
        let mut written = Vec::new();
        answer(&request, IqType::Get, true)
            .expect("an answer")
            .write(&mut written);
        let written = String::from_utf8(written).expect("UTF-8").replace('"', "'");
        assert!(
            written.contains("to='capulet.example'") && written.contains("id='1'"),
            "{written}"
        );
        assert!(written.contains(expected), "{written} should contain {expected}");
    }

    #[test]
    fn a_ping_is_answered() {
        check("<ping xmlns='urn:xmpp:ping'/>", "type='result'");
    }

    #[test]
    fn disco_tells_what_is_answered_and_has_no_nodes() {
        check(
            "<query xmlns='http://jabber.org/protocol/disco#info'/>",
            "<feature var='urn:xmpp:ping'/>",
        );
        check(
            "<query xmlns='http://jabber.org/protocol/disco#info'/>",
            "<feature var='urn:xmpp:receipts'/>",
        );
        check(
            "<query xmlns='http://jabber.org/protocol/disco#info' node='x'/>",
            "<item-not-found",
        );
    }

    #[test]
    fn the_version_is_that_of_the_crate() {
        check(
            "<query xmlns='jabber:iq:version'/>",
            concat!("<version>", env!("CARGO_PKG_VERSION"), "</version>"),
        );
    }

    #[test]
    fn everything_else_is_unavailable() {
        check("<query xmlns='jabber:iq:roster'/>", "<service-unavailable");
    }

    #[test]
    fn an_iq_that_is_no_request_is_not_answered() {
        let result = Stanza::iq(IqType::Result, "1", None);
        assert_eq!(answer(&result, IqType::Result, true), None);
    }
}
