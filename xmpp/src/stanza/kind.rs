//! The kinds of stanzas and the values of their `type` attribute.

use std::fmt;

/// Which stanza it is, with the `type` it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Pushed to the recipient (RFC 6121 §5).
    Message(MessageType),
    /// Availability and subscriptions (RFC 6121 §3 and §4).
    Presence(PresenceType),
    /// Request and answer (RFC 6120 §8.2.3).
    Iq(IqType),
}

/// Message types (RFC 6121 §5.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// A single message outside of a conversation: also what a missing or unknown type means.
    #[default]
    Normal,
    /// Part of a one-to-one conversation.
    Chat,
    /// To or from a room.
    Groupchat,
    /// News to which no reply is expected.
    Headline,
    /// Something went wrong with an earlier message.
    Error,
}

/// Presence types (RFC 6121 §4.7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PresenceType {
    /// No type: the sender is available.
    #[default]
    Available,
    /// The sender is no longer available.
    Unavailable,
    /// Asks to see the recipient's presence.
    Subscribe,
    /// Lets the recipient see the sender's presence.
    Subscribed,
    /// The sender no longer wants the recipient's presence.
    Unsubscribe,
    /// The recipient may not, or no longer, see the sender's presence.
    Unsubscribed,
    /// A server asks for the current presence.
    Probe,
    /// Something went wrong with an earlier presence.
    Error,
}

/// Iq types (RFC 6120 §8.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IqType {
    /// Asks for information.
    Get,
    /// Changes something.
    Set,
    /// Answers a get or set that succeeded.
    Result,
    /// Answers a get or set that failed.
    Error,
}

impl Kind {
    /// The element's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Message(_) => "message",
            Self::Presence(_) => "presence",
            Self::Iq(_) => "iq",
        }
    }

    /// The `type` attribute's value; none where leaving it out says the same.
    pub const fn type_attribute(self) -> Option<&'static str> {
        match self {
            Self::Message(type_) => type_.attribute(),
            Self::Presence(type_) => type_.attribute(),
            Self::Iq(type_) => Some(type_.as_str()),
        }
    }

    /// Whether the type is `error`.
    pub const fn is_error(self) -> bool {
        matches!(
            self,
            Self::Message(MessageType::Error) | Self::Presence(PresenceType::Error) | Self::Iq(IqType::Error)
        )
    }

    /// Whether this is a message of any type.
    pub const fn is_message(self) -> bool {
        matches!(self, Self::Message(_))
    }

    /// Whether this is a presence of any type.
    pub const fn is_presence(self) -> bool {
        matches!(self, Self::Presence(_))
    }

    /// Whether this is an iq of any type.
    pub const fn is_iq(self) -> bool {
        matches!(self, Self::Iq(_))
    }

    /// Whether this is an iq of type get or set, which must be answered.
    pub const fn is_request(self) -> bool {
        matches!(self, Self::Iq(IqType::Get | IqType::Set))
    }
}

impl MessageType {
    const fn attribute(self) -> Option<&'static str> {
        match self {
            Self::Normal => None,
            Self::Chat => Some("chat"),
            Self::Groupchat => Some("groupchat"),
            Self::Headline => Some("headline"),
            Self::Error => Some("error"),
        }
    }

    /// What an attribute means; anything unknown is `Normal` (RFC 6121 §5.2.2).
    pub fn of(attribute: Option<&str>) -> Self {
        match attribute {
            Some("chat") => Self::Chat,
            Some("groupchat") => Self::Groupchat,
            Some("headline") => Self::Headline,
            Some("error") => Self::Error,
            _ => Self::Normal,
        }
    }
}

impl PresenceType {
    const fn attribute(self) -> Option<&'static str> {
        match self {
            Self::Available => None,
            Self::Unavailable => Some("unavailable"),
            Self::Subscribe => Some("subscribe"),
            Self::Subscribed => Some("subscribed"),
            Self::Unsubscribe => Some("unsubscribe"),
            Self::Unsubscribed => Some("unsubscribed"),
            Self::Probe => Some("probe"),
            Self::Error => Some("error"),
        }
    }

    /// What an attribute means; nothing when it is not one of these, which is a `bad-request` (RFC 6121 §4.7.1).
    pub fn of(attribute: Option<&str>) -> Option<Self> {
        Some(match attribute {
            None => Self::Available,
            Some("unavailable") => Self::Unavailable,
            Some("subscribe") => Self::Subscribe,
            Some("subscribed") => Self::Subscribed,
            Some("unsubscribe") => Self::Unsubscribe,
            Some("unsubscribed") => Self::Unsubscribed,
            Some("probe") => Self::Probe,
            Some("error") => Self::Error,
            Some(_) => return None,
        })
    }
}

impl IqType {
    /// The attribute's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Result => "result",
            Self::Error => "error",
        }
    }

    /// What an attribute means; nothing when it is missing or not one of these, which is a `bad-request` (RFC 6120 §8.2.3).
    pub fn of(attribute: Option<&str>) -> Option<Self> {
        Some(match attribute? {
            "get" => Self::Get,
            "set" => Self::Set,
            "result" => Self::Result,
            "error" => Self::Error,
            _ => return None,
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.type_attribute().map_or(Ok(()), |type_| write!(f, "/{type_}"))
    }
}
