//! Presence (RFC 6121 §3, §4): ours, that of contacts, and who may see whose.

mod table;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use heronry_xmpp::{
    jid::{BareJid, Jid},
    stanza::{PresenceType, Stanza, StanzaError},
    xml::{CLIENT, Element},
};
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::table::SharedPresence;
use crate::{Client, SendError, driver::Command};

/// How somebody is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// How much they want to hear.
    pub show: Show,
    /// In words.
    pub status: Option<String>,
    /// Messages for the account go to the device with the highest; to none with a negative one (§8.5.2.1.1).
    pub priority: i8,
}

/// How much somebody wants to hear (RFC 6121 §4.7.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Show {
    /// There, and nothing more is said.
    #[default]
    Available,
    /// Eager to hear.
    Chat,
    /// Away for a while.
    Away,
    /// Away for long.
    ExtendedAway,
    /// Not to be disturbed.
    DoNotDisturb,
}

impl Presence {
    /// There, with priority 0.
    pub fn available() -> Self {
        Self::default()
    }

    /// With another readiness.
    #[must_use]
    pub fn show(mut self, show: Show) -> Self {
        self.show = show;
        self
    }

    /// With words.
    #[must_use]
    pub fn status(mut self, status: impl Into<String>) -> Self {
        self.status = Some(status.into());
        self
    }

    /// With another priority.
    #[must_use]
    pub fn priority(mut self, priority: i8) -> Self {
        self.priority = priority;
        self
    }

    fn to_stanza(&self) -> Stanza {
        let show = match self.show {
            Show::Available => None,
            Show::Chat => Some("chat"),
            Show::Away => Some("away"),
            Show::ExtendedAway => Some("xa"),
            Show::DoNotDisturb => Some("dnd"),
        };
        let priority = (self.priority != 0).then(|| self.priority.to_string());
        let children = [
            ("show", show),
            ("status", self.status.as_deref()),
            ("priority", priority.as_deref()),
        ];
        let children = children.into_iter();
        let children: Vec<_> = children
            .filter_map(|(name, text)| Some(Element::new(name, CLIENT).with_text(text?)))
            .collect();
        Stanza::presence(PresenceType::Available, &children)
    }

    fn read(content: &Element) -> Self {
        let text = |name| content.child(name, CLIENT).map(Element::text);
        let show = text("show");
        Self {
            // §4.7.2.1: what is unknown counts as nothing said.
            show: match show.as_deref().map(str::trim) {
                Some("chat") => Show::Chat,
                Some("away") => Show::Away,
                Some("xa") => Show::ExtendedAway,
                Some("dnd") => Show::DoNotDisturb,
                _ => Show::Available,
            },
            status: text("status"),
            priority: text("priority").and_then(|text| text.trim().parse().ok()).unwrap_or(0),
        }
    }
}

/// A change of what we know about others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresenceChange {
    /// A device is there, or is there in another way.
    Available {
        /// The device.
        jid: Jid,
        /// How.
        presence: Presence,
    },
    /// A device is not there any more; an address without resource stands for all of its devices.
    Unavailable {
        /// The device.
        jid: Jid,
        /// Its last words.
        status: Option<String>,
    },
    /// Somebody wants to see our presence: [`Client::approve`] or [`Client::deny`].
    Asked {
        /// Who.
        by: BareJid,
        /// What they say.
        status: Option<String>,
    },
    /// We may see somebody's presence (`subscribed`).
    Approved {
        /// Whose.
        by: BareJid,
    },
    /// We may not, or not any more (`unsubscribed`).
    Denied {
        /// Whose.
        by: BareJid,
    },
    /// Somebody does not want to see ours any more (`unsubscribe`).
    Left {
        /// Who.
        by: BareJid,
    },
    /// A presence of ours did not arrive, so nothing is known of the one it was for.
    Error {
        /// Who.
        from: Jid,
        /// Why.
        error: Box<StanzaError>,
    },
    /// Look at [`Presences`]: a new session has begun, in which nothing is known yet, or more changes came than were taken.
    Reset,
}

/// Who of others is there, and a stream of its changes. Presences also come as [`Event::Presence`](crate::Event::Presence), as
/// they are; an application that needs only these can drop its [`Events`](crate::Events).
#[derive(Debug)]
pub struct Presences {
    shared: Arc<SharedPresence>,
    changes: mpsc::Receiver<PresenceChange>,
}

impl Presences {
    /// The devices of an account that are there, the highest priority first.
    pub fn of(&self, account: &BareJid) -> Vec<(Jid, Presence)> {
        self.shared.of(account)
    }

    /// Whether any is.
    pub fn is_available(&self, account: &BareJid) -> bool {
        !self.shared.of(account).is_empty()
    }

    /// The next change, which [`of`](Self::of) knows already; `None` once the client is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<PresenceChange> {
        self.changes.recv().await
    }
}

impl Stream for Presences {
    type Item = PresenceChange;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PresenceChange>> {
        self.changes.poll_recv(cx)
    }
}

impl Client {
    /// The presence of others, from now on: to be called before [`set_presence`](Self::set_presence), after which the server
    /// tells who is there.
    pub fn presence(&self) -> Presences {
        let limits = self.options().limits;
        let shared = self
            .shared()
            .presence
            .get_or_init(|| Arc::new(SharedPresence::new(limits.presences_max, limits.changes_max)));
        // The end of the session is seen by what was there before it.
        if self.shared().closing.is_cancelled() {
            shared.close();
        }
        Presences {
            shared: shared.clone(),
            changes: shared.subscribe(),
        }
    }

    /// Says that we are there, and how: from now on contacts see us, and messages for the account reach us (§4.2, §4.4). In
    /// new sessions it is said again without being asked.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub async fn set_presence(&self, presence: &Presence) -> Result<(), SendError> {
        self.announce(presence.to_stanza(), true).await
    }

    /// Says that we are not there, without ending the session (§4.5); nor in new sessions.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub async fn set_unavailable(&self, status: Option<&str>) -> Result<(), SendError> {
        let status = status.map(|status| Element::new("status", CLIENT).with_text(status));
        self.announce(Stanza::presence(PresenceType::Unavailable, &status), false)
            .await
    }

    /// Asks to see somebody's presence (§3.1). The answer comes as [`PresenceChange::Approved`] or
    /// [`PresenceChange::Denied`], perhaps much later.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub async fn subscribe(&self, contact: &BareJid) -> Result<(), SendError> {
        self.send_to(contact, PresenceType::Subscribe).await
    }

    /// Does not want to see somebody's presence any more (§3.3).
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub async fn unsubscribe(&self, contact: &BareJid) -> Result<(), SendError> {
        self.send_to(contact, PresenceType::Unsubscribe).await
    }

    /// Lets somebody see our presence who has asked (§3.1.5), or is going to ask (§3.4).
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub async fn approve(&self, contact: &BareJid) -> Result<(), SendError> {
        self.send_to(contact, PresenceType::Subscribed).await
    }

    /// Does not let somebody see our presence who has asked (§3.1.5).
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub async fn deny(&self, contact: &BareJid) -> Result<(), SendError> {
        self.send_to(contact, PresenceType::Unsubscribed).await
    }

    /// Does not let somebody see our presence any more (§3.2).
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub async fn cancel(&self, contact: &BareJid) -> Result<(), SendError> {
        self.send_to(contact, PresenceType::Unsubscribed).await
    }

    async fn send_to(&self, contact: &BareJid, type_: PresenceType) -> Result<(), SendError> {
        self.send(Stanza::presence(type_, []).with_to(contact.clone())).await
    }

    async fn announce(&self, stanza: Stanza, again: bool) -> Result<(), SendError> {
        if stanza.size() > self.options().limits.stanza_bytes_max {
            return Err(SendError::TooLong);
        }
        let (accepted, acceptance) = oneshot::channel();
        self.command(Command::Announce {
            stanza,
            again,
            accepted,
        })
        .await
        .map_err(|()| SendError::Disconnected)?;
        acceptance.await.map_err(|_| SendError::Disconnected)
    }
}
