//! What is done with a message before the application sees it: receipts found and asked for, copies unwrapped, duplicates
//! dropped.

mod carbon;
mod delay;
mod duplicates;
mod known;

use heronry_xmpp::{
    jid::{BareJid, FullJid},
    stanza::{Kind, MessageType, Stanza},
    xml::{CLIENT, Element},
};
use tracing::debug;

pub use self::{
    carbon::{Carbon, Direction},
    delay::Delay,
};
use self::{duplicates::Duplicates, known::Correspondents};
use crate::{
    delivery::{
        Courier,
        receipt::{receipt_for, received},
    },
    event::Event,
    options::Options,
};

/// Who is told that a message has arrived (XEP-0184). A receipt tells that we are there, so it is not for everybody (§8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipts {
    /// Nobody. Messages that come twice are not dropped either.
    Never,
    /// Those who may know whether we are there: devices of our account, contacts that see our presence, and those we have
    /// sent messages to. The roster is asked for when somebody else wants a receipt for the first time in a session.
    KnownSenders,
    /// Everybody who asks.
    Everybody,
}

/// What is kept about messages that came, across sessions.
#[derive(Debug)]
pub(crate) struct Receiving {
    receipts: Receipts,
    duplicates: Duplicates,
    correspondents: Correspondents,
}

/// What becomes of a message.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// The application gets it, and then this is due.
    Event(Event, Taken),
    /// The application has had it. Its sender may not know.
    Again(Option<Stanza>),
    /// There is nothing in it for the application.
    Done,
}

/// What is due when the application has a message: it is remembered, and confirmed.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// What [`Duplicates`] knows it by.
    key: Option<u64>,
    /// The receipt, whoever asks for it.
    receipt: Option<Box<Stanza>>,
}

impl Receiving {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            receipts: options.receipts,
            duplicates: Duplicates::new(options.limits.remembered_max, options.duplicates_window),
            correspondents: Correspondents::default(),
        }
    }

    /// Reads a message of the session of `own`.
    pub(crate) fn read(&mut self, message: Stanza, own: &FullJid, courier: Option<&Courier>) -> Incoming {
        let Ok(content) = message.root_element() else {
            return Incoming::Event(Event::Message(message), Taken::default());
        };
        if message.kind == Kind::Message(MessageType::Error) {
            return match is_told_to_sender(&message, own, courier) {
                true => Incoming::Done,
                false => Incoming::Event(Event::Message(message), Taken::default()),
            };
        }
        match carbon::read(&message, &content, own) {
            carbon::Found::None => {}
            carbon::Found::Forged => {
                debug!(from = ?message.from, "copy of a message from somebody else dropped");
                return Incoming::Done;
            }
            carbon::Found::Carbon(carbon) => {
                let copied = carbon.message.root_element().ok();
                // A receipt for what an earlier session of ours has sent goes to the account, and we may get a copy only.
                let is_ours = copied.is_some_and(|content| confirms(&carbon.message, &content, courier));
                return match is_ours && carbon.direction == Direction::Received {
                    true => Incoming::Done,
                    // XEP-0280 has no receipts: the device that the message is for sends one.
                    false => Incoming::Event(Event::Carbon(*carbon), Taken::default()),
                };
            }
        }
        if confirms(&message, &content, courier) && content.child("body", CLIENT).is_none() {
            return Incoming::Done;
        }
        if self.receipts == Receipts::Never {
            return Incoming::Event(Event::Message(message), Taken::default());
        }
        let receipt = receipt_for(&message, &content).map(Box::new);
        let key = self.duplicates.key(&message, &content);
        if key.is_some_and(|key| self.duplicates.contains(key)) {
            return Incoming::Again(receipt.map(|receipt| *receipt));
        }
        Incoming::Event(Event::Message(message), Taken { key, receipt })
    }

    /// The application has a message: what it will be known by is remembered, and its receipt given out.
    pub(crate) fn taken(&mut self, taken: Taken) -> Option<Stanza> {
        if let Some(key) = taken.key {
            self.duplicates.remember(key);
        }
        taken.receipt.map(|receipt| *receipt)
    }

    /// A stanza of the application goes out.
    pub(crate) fn sent(&mut self, stanza: &Stanza) {
        if self.receipts == Receipts::KnownSenders
            && stanza.kind.is_message()
            && let Some(to) = &stanza.to
        {
            self.correspondents.add(to.bare_str());
        }
    }

    /// Whether the sender may have a receipt; `None` when only the roster can tell.
    pub(crate) fn may_know(&self, sender: &BareJid, own: &FullJid) -> Option<bool> {
        match self.receipts {
            Receipts::Never => Some(false),
            Receipts::Everybody => Some(true),
            Receipts::KnownSenders => {
                let is_known = sender.as_str() == own.bare_str() || self.correspondents.contains(sender.as_str());
                is_known.then_some(true)
            }
        }
    }
}

/// An error for a message whose delivery somebody waits for is theirs alone.
fn is_told_to_sender(message: &Stanza, own: &FullJid, courier: Option<&Courier>) -> bool {
    let (Some(courier), Some(id), Some(error)) = (courier, message.id.as_deref(), message.stanza_error()) else {
        return false;
    };
    courier.refused(id, message.from.as_ref(), error, own)
}

/// Whether the message confirms one of ours, of which whoever waits is told.
fn confirms(message: &Stanza, content: &Element, courier: Option<&Courier>) -> bool {
    let (Some(courier), Some(id), Some(from)) = (courier, received(content), message.from.as_ref()) else {
        return false;
    };
    courier.received(id, from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Password, testing::message};

    fn own() -> FullJid {
        FullJid::parse("juliet@capulet.example/balcony").expect("address")
    }

    fn receiving(receipts: Receipts) -> Receiving {
        let password = Password::new("x").expect("password");
        Receiving::new(&Options::new(own().bare(), password).receipts(receipts))
    }

    fn wanted(id: &str) -> Stanza {
        message(&format!(
            "<message from='romeo@montague.example/o' id='{id}' type='chat'><body>hi</body><request xmlns='urn:xmpp:receipts'/></message>"
        ))
    }

    #[test]
    fn a_message_counts_as_seen_when_the_application_has_it() {
        let mut receiving = receiving(Receipts::Everybody);
        let Incoming::Event(_, taken) = receiving.read(wanted("1"), &own(), None) else {
            panic!("new")
        };
        // The connection was lost before the application took it: the server sends it again.
        let Incoming::Event(..) = receiving.read(wanted("1"), &own(), None) else {
            panic!("still new")
        };
        assert!(receiving.taken(taken).is_some(), "a receipt");
        let Incoming::Again(receipt) = receiving.read(wanted("1"), &own(), None) else {
            panic!("seen")
        };
        assert!(receipt.is_some(), "the first receipt may be lost");
        assert!(matches!(receiving.read(wanted("2"), &own(), None), Incoming::Event(..)));
    }

    #[test]
    fn only_those_who_may_know_that_we_are_there_get_receipts() {
        let known = |receipts, sender: &str| {
            let mut receiving = receiving(receipts);
            receiving.sent(&crate::message(
                BareJid::parse("nurse@capulet.example").expect("address"),
                "hi",
            ));
            receiving.may_know(&BareJid::parse(sender).expect("address"), &own())
        };
        assert_eq!(known(Receipts::KnownSenders, "juliet@capulet.example"), Some(true));
        assert_eq!(known(Receipts::KnownSenders, "nurse@capulet.example"), Some(true));
        assert_eq!(
            known(Receipts::KnownSenders, "romeo@montague.example"),
            None,
            "the roster knows"
        );
        assert_eq!(known(Receipts::Everybody, "romeo@montague.example"), Some(true));
        assert_eq!(known(Receipts::Never, "juliet@capulet.example"), Some(false));
    }

    #[test]
    fn a_carbon_is_believed_from_the_own_account_alone_and_asks_for_nothing() {
        let copy = |from: &str| {
            message(&format!(
                "<message from='{from}' to='juliet@capulet.example/balcony' type='chat'><received xmlns='urn:xmpp:carbons:2'>\
                 <forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='romeo@montague.example/o' id='1' \
                 to='juliet@capulet.example/chamber' type='chat'><body>hi</body><request xmlns='urn:xmpp:receipts'/></message>\
                 </forwarded></received></message>"
            ))
        };
        let mut receiving = receiving(Receipts::Everybody);
        match receiving.read(copy("juliet@capulet.example"), &own(), None) {
            Incoming::Event(Event::Carbon(carbon), taken) => {
                assert_eq!(carbon.direction, Direction::Received);
                assert_eq!(carbon.message.id.as_deref(), Some("1"));
                assert!(receiving.taken(taken).is_none());
            }
            other => panic!("{other:?}"),
        }
        for forger in [
            "tybalt@capulet.example/x",
            "juliet@capulet.example/chamber",
            "capulet.example",
        ] {
            assert!(
                matches!(receiving.read(copy(forger), &own(), None), Incoming::Done),
                "{forger}"
            );
        }
        assert!(
            matches!(receiving.read(wanted("1"), &own(), None), Incoming::Event(..)),
            "a copy is not the message"
        );
    }
}
