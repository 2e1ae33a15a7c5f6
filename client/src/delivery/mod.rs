//! Messages whose outcome is known: receipts (XEP-0184) tracked, and sent again with the same id until then.

mod courier;
mod outcome;
pub(crate) mod receipt;
mod table;

use std::{sync::Arc, time::Duration};

use heronry_xmpp::{
    stanza::{Kind, MessageType, Stanza},
    xml::Element,
};

pub(crate) use self::courier::Courier;
pub use self::outcome::{Delivery, DeliveryError, Failure, Outcome};
use crate::Client;

/// XEP-0359
pub(crate) const STANZA_IDS: &str = "urn:xmpp:sid:0";

impl Client {
    /// Sends a message and asks for a receipt (XEP-0184). Returns when it is kept for sending; the outcome comes with the
    /// [`Delivery`], at the latest after `within`. Waits while
    /// [`deliveries_max`](crate::Limits::deliveries_max) messages are under way.
    ///
    /// Until its outcome is known the message survives lost connections, resumptions and new sessions: what has no receipt is
    /// sent again with the same id, in every new session and, within one, after
    /// [`Options::resend_after`](crate::Options::resend_after). Receivers that are SDKs drop what comes twice; for others it
    /// is marked with an `origin-id` (XEP-0359). A message without id gets a random one.
    ///
    /// # Errors
    /// When the message cannot be delivered like this; see [`DeliveryError`].
    pub async fn deliver(&self, message: Stanza, within: Duration) -> Result<Delivery, DeliveryError> {
        let deadline = tokio::time::Instant::now() + within;
        let message = prepared(message)?;
        if message.size() > self.options().limits.stanza_bytes_max {
            return Err(DeliveryError::TooLong);
        }
        let courier = self.courier();
        // The end of the session is seen by a courier that was there before it.
        if self.shared().closing.is_cancelled() {
            return Err(DeliveryError::Disconnected);
        }
        let room = courier.room(deadline).await?;
        let delivery = courier.accept(message, deadline, self.options().resend_after, room)?;
        self.look();
        Ok(delivery)
    }

    fn courier(&self) -> &Arc<Courier> {
        let shared = self.shared();
        shared.courier.get_or_init(|| {
            let courier = Arc::new(Courier::new(shared.options.limits.deliveries_max));
            tokio::spawn(courier.clone().run(self.commands(), shared.closing.clone()));
            courier
        })
    }
}

/// The message as it is sent: with an id, a request for a receipt, and the promise that the id is used once.
fn prepared(message: Stanza) -> Result<Stanza, DeliveryError> {
    if message.to.is_none() {
        return Err(DeliveryError::Unsuitable("nobody is to receive it"));
    }
    match message.kind {
        // XEP-0184 §5.3: in a room everybody would answer.
        Kind::Message(MessageType::Normal | MessageType::Chat | MessageType::Headline) => {}
        Kind::Message(_) => return Err(DeliveryError::Unsuitable("nobody answers messages of this type")),
        _ => return Err(DeliveryError::Unsuitable("it is no message")),
    }
    let mut message = message;
    let id = message.id.get_or_insert_with(random_id).clone();
    let content = message.root_element().ok();
    let has = |name, ns| {
        content
            .as_ref()
            .is_some_and(|content| content.child(name, ns).is_some())
    };
    if !has("request", receipt::RECEIPTS) {
        message = message.with_appended(&Element::new("request", receipt::RECEIPTS));
    }
    if !has("origin-id", STANZA_IDS) {
        message = message.with_appended(&Element::new("origin-id", STANZA_IDS).with_attr("id", id));
    }
    Ok(message)
}

/// 128 bits that nobody guesses, so that nobody else can say that the message was received.
fn random_id() -> Box<str> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("the operating system has randomness");
    format!("{:032x}", u128::from_le_bytes(random)).into()
}

#[cfg(test)]
mod tests {
    use heronry_xmpp::{jid::Jid, xml::CLIENT};

    use super::*;

    fn to_juliet() -> Stanza {
        crate::message(Jid::parse("juliet@capulet.example").expect("address"), "hi")
    }

    #[test]
    fn a_message_gets_what_it_lacks_and_keeps_what_it_has() {
        let message = prepared(to_juliet()).expect("suitable");
        let id = message.id.as_deref().expect("an id");
        assert_eq!(id.len(), 32);
        let content = message.root_element().expect("XML");
        let children: Vec<_> = content.children().map(|child| (child.name(), child.ns())).collect();
        assert_eq!(
            children,
            [
                ("body", CLIENT),
                ("request", receipt::RECEIPTS),
                ("origin-id", STANZA_IDS)
            ]
        );
        assert_eq!(
            content
                .child("origin-id", STANZA_IDS)
                .and_then(|origin| origin.attr("id")),
            Some(id)
        );
        assert_eq!(prepared(message.clone()), Ok(message));
    }

    #[test]
    fn what_nobody_confirms_is_refused() {
        let unaddressed = Stanza::message(MessageType::Chat, []);
        let mut to_a_room = to_juliet();
        to_a_room.kind = Kind::Message(MessageType::Groupchat);
        let mut presence = to_juliet();
        presence.kind = Kind::Presence(heronry_xmpp::stanza::PresenceType::Available);
        for stanza in [unaddressed, to_a_room, presence] {
            assert!(matches!(prepared(stanza), Err(DeliveryError::Unsuitable(_))));
        }
    }
}
