//! Adding to a stanza what the broker has to say about it, without touching what its sender wrote.

use super::{PayloadAt, Stanza};
use crate::xml::{CLIENT, Element};

impl Stanza {
    /// The stanza with one more child, after all others.
    #[must_use]
    pub fn with_appended(&self, child: &Element) -> Self {
        let mut added = String::new();
        child.write_str(&mut added, CLIENT);
        let mut body = Vec::with_capacity(self.body.len() + added.len() + "</presence>".len());
        // The end tag is the last tag there is, and `<` stands nowhere but at the begin of one.
        let end = self.body.iter().rposition(|byte| *byte == b'<').unwrap_or(0);
        let (content, end_tag) = self.body.split_at(end);
        body.extend_from_slice(content);
        body.extend_from_slice(added.as_bytes());
        if end_tag.is_empty() {
            body.extend_from_slice(b"</");
            body.extend_from_slice(self.kind.name().as_bytes());
            body.push(b'>');
        } else {
            body.extend_from_slice(end_tag);
        }
        let payload = self.payload.clone();
        let payload = payload.unwrap_or_else(|| PayloadAt::written(child, end));
        Self {
            body: body.into(),
            payload: Some(payload),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stanza::{Kind, MessageType};

    fn written(stanza: &Stanza) -> String {
        let mut xml = Vec::new();
        stanza.write(&mut xml);
        String::from_utf8(xml).expect("stanzas are text")
    }

    #[test]
    fn a_child_is_added_after_all_others() {
        let delay = Element::new("delay", "urn:xmpp:delay").with_attr("stamp", "2026-01-01T00:00:00Z");
        let body = Element::new("body", CLIENT).with_text("<hi>");
        let message = Stanza::new(Kind::Message(MessageType::Chat), [&body]);
        assert_eq!(
            written(&message.with_appended(&delay)),
            "<message type='chat'><body>&lt;hi&gt;</body><delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/></message>",
        );
    }

    #[test]
    fn a_child_added_after_text_is_the_payload() {
        use crate::xml::{Limits, StreamPrefixes};
        let hint = Element::new("no-store", "urn:xmpp:hints");
        for xml in ["<message>text</message>", "<message></message>", "<message/>"] {
            let parsed = Stanza::parse(xml.into(), &Limits::after_auth(), &StreamPrefixes::client());
            let Ok(crate::stanza::Parsed::Stanza(message)) = parsed else {
                panic!("{xml}")
            };
            assert!(
                message.with_appended(&hint).is_payload("no-store", "urn:xmpp:hints"),
                "{xml}"
            );
        }
    }

    #[test]
    fn a_stanza_without_children_gets_an_end_tag() {
        let message = Stanza::new(Kind::Message(MessageType::Chat), []);
        let hint = Element::new("no-store", "urn:xmpp:hints");
        assert_eq!(
            written(&message.with_appended(&hint)),
            "<message type='chat'><no-store xmlns='urn:xmpp:hints'/></message>",
        );
    }
}
