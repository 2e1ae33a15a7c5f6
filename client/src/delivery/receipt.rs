//! Receipts as they look (XEP-0184).

use heronry_xmpp::{
    stanza::{Kind, MessageType, Stanza},
    xml::Element,
};

pub(crate) const RECEIPTS: &str = "urn:xmpp:receipts";

/// The id of the message that this one says was received.
pub(crate) fn received(content: &Element) -> Option<&str> {
    content.child("received", RECEIPTS)?.attr("id")
}

/// Whether the sender wants a receipt.
pub(crate) fn is_requested(content: &Element) -> bool {
    content.child("request", RECEIPTS).is_some()
}

/// The receipt for a message, where there must be one: not for errors and in rooms (§5.3), and not for receipts (§5.4).
pub(crate) fn receipt_for(message: &Stanza, content: &Element) -> Option<Stanza> {
    let Kind::Message(type_ @ (MessageType::Normal | MessageType::Chat | MessageType::Headline)) = message.kind else {
        return None;
    };
    if !is_requested(content) || received(content).is_some() {
        return None;
    }
    let (id, from) = (message.id.as_deref()?, message.from.clone()?);
    let received = Element::new("received", RECEIPTS).with_attr("id", id);
    Some(Stanza::message(type_, [&received]).with_to(from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::message;

    fn receipt(xml: &str) -> Option<String> {
        let message = message(xml);
        let content = message.root_element().expect("XML");
        let mut written = Vec::new();
        receipt_for(&message, &content)?.write(&mut written);
        Some(String::from_utf8(written).expect("UTF-8").replace('"', "'"))
    }

    #[test]
    fn a_receipt_names_the_message_and_goes_to_the_device() {
        assert_eq!(
            receipt("<message from='a@b/c' id='1' type='chat'><body/><request xmlns='urn:xmpp:receipts'/></message>")
                .as_deref(),
            Some("<message to='a@b/c' type='chat'><received xmlns='urn:xmpp:receipts' id='1'/></message>")
        );
    }

    #[test]
    fn nothing_else_gets_one() {
        for xml in [
            "<message from='a@b/c' id='1'><body/></message>",
            "<message from='a@b/c'><request xmlns='urn:xmpp:receipts'/></message>",
            "<message from='a@b/c' id='1' type='error'><request xmlns='urn:xmpp:receipts'/></message>",
            "<message from='a@b/c' id='1' type='groupchat'><request xmlns='urn:xmpp:receipts'/></message>",
            "<message from='a@b/c' id='1'><request xmlns='urn:xmpp:receipts'/><received xmlns='urn:xmpp:receipts' id='2'/></message>",
        ] {
            assert_eq!(receipt(xml), None, "{xml}");
        }
    }
}
