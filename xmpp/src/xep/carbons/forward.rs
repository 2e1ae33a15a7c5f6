//! Which messages are copied to an account's other resources (XEP-0280 §6.1), and what a copy looks like (§7, §8).
//!
//! `<private/>` stays in the message: the version that had servers take it out let a sender hide what it did (§9).

use bytes::Bytes;

use crate::jid::{BareJid, FullJid};
use crate::stanza::{Kind, MessageType, Parsed, Stanza};
use crate::xml::{CLIENT, Element, Limits, StreamPrefixes};

/// The namespace of Carbons.
pub const NS: &str = "urn:xmpp:carbons:2";
/// Advertised by who follows all the rules of §6.1 (§6.2).
pub const NS_RULES: &str = "urn:xmpp:carbons:rules:0";

/// The namespace of XEP-0297.
pub const NS_FORWARD: &str = "urn:xmpp:forward:0";
/// XEP-0334.
const NS_HINTS: &str = "urn:xmpp:hints";
/// XEP-0249.
const NS_CONFERENCE: &str = "jabber:x:conference";
/// XEP-0045 §7.8.2, §17: marks what comes from or goes to a room.
const NS_MUC_USER: &str = "http://jabber.org/protocol/muc#user";
/// XEP-0184, XEP-0085 and XEP-0333: any element of these is used in instant messaging.
const NS_IM: [&str; 3] = [
    "urn:xmpp:receipts",
    "http://jabber.org/protocol/chatstates",
    "urn:xmpp:chat-markers:0",
];

/// Which way a message goes, from the point of view of the account whose resources get the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A resource of the account has sent it.
    Sent,
    /// It is for the account.
    Received,
}

impl Direction {
    const fn element(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
        }
    }
}

/// Whether copies of a stanza are made (§6.1).
///
/// A server does not remember what an error answers. The answers to eligible messages are nearly always to those sent to a bare
/// JID: an error that comes from one is copied, an error from elsewhere is not (§10.3: the error that answers a copy comes from a
/// resource).
pub fn is_eligible(stanza: &Stanza, direction: Direction) -> bool {
    let Kind::Message(type_) = stanza.kind else {
        return false;
    };
    if type_ == MessageType::Groupchat {
        return false;
    }
    let Ok(message) = stanza.root_element() else {
        return false;
    };
    let has = |name: &str, ns: &str| message.child(name, ns).is_some();
    // §9 names both; either says it. A copy is not copied again.
    if has("private", NS) || has("no-copy", NS_HINTS) || has("sent", NS) || has("received", NS) {
        return false;
    }
    if has("x", NS_CONFERENCE) {
        return true;
    }
    if let Some(room) = message.child("x", NS_MUC_USER) {
        let from_occupant = stanza.from.as_ref().is_some_and(|from| !from.is_bare());
        return match direction {
            _ if room.child("invite", NS_MUC_USER).is_some() => true,
            Direction::Received if from_occupant => false,
            _ => is_im(type_, &message) || is_bounce(stanza, direction),
        };
    }
    is_im(type_, &message) || is_bounce(stanza, direction)
}

fn is_im(type_: MessageType, message: &Element) -> bool {
    match type_ {
        MessageType::Chat => true,
        MessageType::Normal if message.child("body", CLIENT).is_some() => true,
        // What an error sends back is not its own.
        MessageType::Error => false,
        _ => message.children().any(|child| NS_IM.contains(&child.ns())),
    }
}

fn is_bounce(stanza: &Stanza, direction: Direction) -> bool {
    stanza.kind.is_error()
        && direction == Direction::Received
        && stanza.from.as_ref().is_some_and(|from| from.is_bare())
}

/// The copy of `message` for the resource `to` of `account`: of the same type, from the account itself (§7, §8), with what was
/// said byte for byte (XEP-0297 §3.2).
pub fn wrap(message: &Stanza, direction: Direction, account: &BareJid, to: &FullJid) -> Stanza {
    let wrapper = direction.element();
    let mut original = Vec::with_capacity(message.size());
    message.write(&mut original);
    // The namespace of the forwarded stanza is its own (XEP-0297 §3.2, rule 3), not that of <forwarded/>.
    let (name, rest) = original.split_at(1 + message.kind.name().len());
    let mut xml = Vec::with_capacity(original.len() + 160);
    xml.extend_from_slice(format!("<message><{wrapper} xmlns='{NS}'><forwarded xmlns='{NS_FORWARD}'>").as_bytes());
    xml.extend_from_slice(name);
    xml.extend_from_slice(format!(" xmlns='{CLIENT}'").as_bytes());
    xml.extend_from_slice(rest);
    xml.extend_from_slice(format!("</forwarded></{wrapper}></message>").as_bytes());
    let mut copy = match Stanza::parse(Bytes::from(xml), &Limits::trusted(), &StreamPrefixes::client()) {
        Ok(Parsed::Stanza(copy)) => copy,
        // Only around what was never a stanza: then there is nothing to say.
        _ => Stanza::message(MessageType::Normal, []),
    };
    copy.kind = message.kind;
    copy.with_from(account).with_to(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Received, Sent};

    fn message(xml: &str) -> Stanza {
        let parsed = Stanza::parse(
            Bytes::copy_from_slice(xml.as_bytes()),
            &Limits::after_auth(),
            &StreamPrefixes::client(),
        );
        match parsed {
            Ok(Parsed::Stanza(stanza)) => stanza,
            other => panic!("{xml}: {other:?}"),
        }
    }

    /// §6.1, rule by rule: sent and received.
    #[test]
    fn which_messages_are_copied() {
        let table = [
            ("<message type='chat'><body>hi</body></message>", true, true),
            ("<message type='chat'/>", true, true),
            ("<message><body>hi</body></message>", true, true),
            ("<message type='normal'><subject>hi</subject></message>", false, false),
            ("<message type='headline'><body>news</body></message>", false, false),
            (
                "<message><received xmlns='urn:xmpp:receipts' id='1'/></message>",
                true,
                true,
            ),
            ("<message><request xmlns='urn:xmpp:receipts'/></message>", true, true),
            (
                "<message><composing xmlns='http://jabber.org/protocol/chatstates'/></message>",
                true,
                true,
            ),
            (
                "<message type='headline'><displayed xmlns='urn:xmpp:chat-markers:0' id='1'/></message>",
                true,
                true,
            ),
            (
                "<message><event xmlns='http://jabber.org/protocol/pubsub#event'/></message>",
                false,
                false,
            ),
            (
                "<message type='chat'><body>hi</body><private xmlns='urn:xmpp:carbons:2'/></message>",
                false,
                false,
            ),
            (
                "<message type='chat'><body>hi</body><no-copy xmlns='urn:xmpp:hints'/></message>",
                false,
                false,
            ),
            ("<message type='groupchat'><body>hi</body></message>", false, false),
            (
                "<message type='groupchat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>",
                false,
                false,
            ),
            (
                "<message><x xmlns='jabber:x:conference' jid='room@muc.example'/></message>",
                true,
                true,
            ),
            (
                "<message from='room@muc.example'><x xmlns='http://jabber.org/protocol/muc#user'><invite from='a@b/c'/></x></message>",
                true,
                true,
            ),
            (
                "<message type='chat' from='room@muc.example/nick'><body>hi</body><x xmlns='http://jabber.org/protocol/muc#user'/></message>",
                true,
                false,
            ),
            (
                "<message type='chat'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'/></received></message>",
                false,
                false,
            ),
            ("<message type='error' from='juliet@capulet.example'/>", false, true),
            (
                "<message type='error' from='juliet@capulet.example/balcony'/>",
                false,
                false,
            ),
            (
                "<message type='error' from='juliet@capulet.example/balcony'><received xmlns='urn:xmpp:receipts' id='1'/></message>",
                false,
                false,
            ),
        ];
        for (xml, sent, received) in table {
            assert_eq!(is_eligible(&message(xml), Sent), sent, "sent: {xml}");
            assert_eq!(is_eligible(&message(xml), Received), received, "received: {xml}");
        }
    }

    #[test]
    fn only_messages_are_copied() {
        let presence = message("<presence><body>hi</body></presence>");
        assert!(!is_eligible(&presence, Sent) && !is_eligible(&presence, Received));
    }

    fn wrapped(xml: &str, direction: Direction, account: &str, to: &str) -> String {
        let (account, to) = (account.parse().expect("bare"), to.parse().expect("full"));
        let mut out = Vec::new();
        wrap(&message(xml), direction, &account, &to).write(&mut out);
        String::from_utf8(out).expect("text")
    }

    /// Examples 9 and 10.
    #[test]
    fn a_copy_of_what_came() {
        let copy = wrapped(
            "<message from='juliet@capulet.example/balcony' to='romeo@montague.example/garden' type='chat'>\
             <body>What man art thou?</body><thread>0e31</thread></message>",
            Received,
            "romeo@montague.example",
            "romeo@montague.example/home",
        );
        assert_eq!(
            copy,
            "<message from='romeo@montague.example' to='romeo@montague.example/home' type='chat'>\
             <received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
             <message xmlns='jabber:client' from='juliet@capulet.example/balcony' to='romeo@montague.example/garden' type='chat'>\
             <body>What man art thou?</body><thread>0e31</thread></message></forwarded></received></message>",
        );
    }

    /// Examples 12 and 13. The type, the language and what is inside stay as they are, also prefixes of the stanza's own.
    #[test]
    fn a_copy_of_what_went() {
        let copy = wrapped(
            "<message from='romeo@montague.example/home' to='juliet@capulet.example' id='m' xml:lang='it' xmlns:x='urn:x' x:y='1'>\
             <body>&lt;3</body><x:z/></message>",
            Sent,
            "romeo@montague.example",
            "romeo@montague.example/garden",
        );
        assert_eq!(
            copy,
            "<message from='romeo@montague.example' to='romeo@montague.example/garden'>\
             <sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
             <message xmlns='jabber:client' from='romeo@montague.example/home' to='juliet@capulet.example' id='m' xml:lang='it' \
             xmlns:x='urn:x' x:y='1'><body>&lt;3</body><x:z/></message></forwarded></sent></message>",
        );
    }

    #[test]
    fn a_copy_of_an_empty_message() {
        let copy = wrapped("<message type='chat'/>", Sent, "a@b", "a@b/c");
        assert!(copy.contains(
            "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' type='chat'/></forwarded>"
        ));
        assert!(message(&copy).is_payload("sent", NS));
    }
}
