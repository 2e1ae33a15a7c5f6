//! XEP-0085: messages that say how somebody is engaged in a chat and no more. Nobody misses one that comes too late.

use crate::stanza::{Kind, MessageType, Stanza};
use crate::xep::carbons::forward;
use crate::xml::{CLIENT, Element};

/// XEP-0085.
const NS: &str = "http://jabber.org/protocol/chatstates";

/// What goes along with something and says nothing by itself: XEP-0334, XEP-0203, XEP-0359.
const NS_COMPANIONS: [&str; 3] = ["urn:xmpp:hints", "urn:xmpp:delay", "urn:xmpp:sid:0"];

/// Whether that is all the message says; also the copy of such a message (XEP-0280).
pub(crate) fn is_all(stanza: &Stanza) -> bool {
    match stanza.kind {
        Kind::Message(MessageType::Error) => false,
        Kind::Message(_) => stanza.root_element().is_ok_and(|message| is_all_or_copied(&message)),
        Kind::Presence(_) | Kind::Iq(_) => false,
    }
}

fn is_all_or_copied(message: &Element) -> bool {
    let copied = message
        .children()
        .find(|child| child.ns() == forward::NS && matches!(child.name(), "sent" | "received"));
    let Some(copied) = copied else {
        return says_only_states(message);
    };
    let original = copied.child("forwarded", forward::NS_FORWARD);
    let original = original.and_then(|forwarded| forwarded.child("message", CLIENT));
    // Not the copy of a copy: nobody makes those.
    original.is_some_and(says_only_states)
}

fn says_only_states(message: &Element) -> bool {
    let state = |child: &Element| child.ns() == NS;
    let companion = |child: &Element| child.is("thread", CLIENT) || NS_COMPANIONS.contains(&child.ns());
    message.children().any(state) && message.children().all(|child| state(child) || companion(child))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stanza::Parsed;
    use crate::xml::{Limits, StreamPrefixes};

    fn stanza(xml: &str) -> Stanza {
        let bytes = bytes::Bytes::copy_from_slice(xml.as_bytes());
        match Stanza::parse(bytes, &Limits::after_auth(), &StreamPrefixes::client()) {
            Ok(Parsed::Stanza(stanza)) => stanza,
            other => panic!("{xml}: {other:?}"),
        }
    }

    #[test]
    fn messages_that_say_nothing_else() {
        const COMPOSING: &str = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
        let copy = |content: &str| {
            format!(
                "<message><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
                 <message xmlns='jabber:client' type='chat'>{content}</message></forwarded></sent></message>"
            )
        };
        let message = |attributes: &str, content: &str| format!("<message{attributes}>{COMPOSING}{content}</message>");
        let table = [
            (message(" type='chat'", ""), true),
            (
                message(" type='chat'", "<thread>1</thread><no-store xmlns='urn:xmpp:hints'/>"),
                true,
            ),
            (message(" type='groupchat'", ""), true),
            (message(" type='error'", ""), false),
            (message(" type='chat'", "<body>hi</body>"), false),
            (
                message(" type='chat'", "<received xmlns='urn:xmpp:receipts' id='1'/>"),
                false,
            ),
            ("<message type='chat'><thread>1</thread></message>".to_owned(), false),
            ("<message/>".to_owned(), false),
            (copy(COMPOSING), true),
            (copy("<body>hi</body>"), false),
            (format!("<presence>{COMPOSING}</presence>"), false),
        ];
        for (xml, expected) in table {
            assert_eq!(is_all(&stanza(&xml)), expected, "{xml}");
        }
    }
}
