//! One contact, and how the server writes it (RFC 6121 §2.1.2).

use heronry_xmpp::{jid::BareJid, xml::Element};

use super::ROSTER;

/// A contact in the roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Its address.
    pub jid: BareJid,
    /// What the account calls it.
    pub name: Option<String>,
    /// Who sees whose presence.
    pub subscription: Subscription,
    /// We have asked to see its presence, and it has not answered (`ask`).
    pub asked: bool,
    /// It may see our presence as soon as it asks (`approved`).
    pub approved: bool,
    /// The groups it is in.
    pub groups: Vec<String>,
}

/// Who sees whose presence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subscription {
    /// Neither.
    #[default]
    None,
    /// We see the contact's.
    To,
    /// The contact sees ours.
    From,
    /// Both.
    Both,
}

impl Subscription {
    /// The attribute's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::To => "to",
            Self::From => "from",
            Self::Both => "both",
        }
    }

    /// The subscription of that name, as [`as_str`](Self::as_str) gives it.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::None, Self::To, Self::From, Self::Both]
            .into_iter()
            .find(|subscription| subscription.as_str() == name)
    }

    /// We see the contact's presence.
    pub const fn sees(self) -> bool {
        matches!(self, Self::To | Self::Both)
    }

    /// The contact sees our presence.
    pub const fn is_seen(self) -> bool {
        matches!(self, Self::From | Self::Both)
    }
}

/// What an item of a roster says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Contact(Contact),
    Removed(BareJid),
}

impl Item {
    /// `None` for what is no item of a roster.
    pub(super) fn read(item: &Element) -> Option<Self> {
        if !item.is("item", ROSTER) {
            return None;
        }
        let jid = BareJid::parse(item.attr("jid")?).ok()?;
        let subscription = match item.attr("subscription") {
            Some("remove") => return Some(Self::Removed(jid)),
            // §2.1.2.5: what is missing or unknown is none.
            subscription => subscription.and_then(Subscription::from_name).unwrap_or_default(),
        };
        let groups = item.children().filter(|child| child.is("group", ROSTER));
        Some(Self::Contact(Contact {
            jid,
            name: item.attr("name").filter(|name| !name.is_empty()).map(str::to_owned),
            subscription,
            asked: item.attr("ask") == Some("subscribe"),
            approved: matches!(item.attr("approved"), Some("true" | "1")),
            groups: groups.map(Element::text).collect(),
        }))
    }
}
