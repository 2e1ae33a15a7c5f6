//! What is in a roster's iqs (RFC 6121 §2.1): gets and sets are read, results and pushes written.

use std::collections::HashSet;

use crate::im::subscription::{State, Subscription};
use crate::jid::Jid;
use crate::stanza::{IqType, StanzaError};
use crate::xml::Element;

/// The namespace of rosters.
pub const NS: &str = "jabber:iq:roster";
/// Stream feature `<ver/>`: roster versioning (§2.6.1).
pub const NS_VERSIONING: &str = "urn:xmpp:features:rosterver";
/// Stream feature `<sub/>`: subscriptions can be approved before they are asked for (§3.4).
pub const NS_PRE_APPROVAL: &str = "urn:xmpp:features:pre-approval";

/// Bounds on one item. Beyond: `not-acceptable` (§2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemLimits {
    /// Bytes of a contact's name.
    pub name_bytes_max: usize,
    /// Bytes of a group's name.
    pub group_bytes_max: usize,
    /// Groups of a contact.
    pub groups_max: usize,
}

/// What a client asks of its roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The roster (§2.1.3).
    Get {
        /// The version the client has, as it was told; empty when it has none but keeps them, `None` when it does not (§2.6.2).
        version: Option<Box<str>>,
    },
    /// Adds or replaces an item (§2.3, §2.4): it will be exactly this, and its subscription stays what it is.
    Put {
        /// Who.
        jid: Jid,
        /// The handle; an empty one is none (§2.4.1).
        name: Option<String>,
        /// The groups, in the client's order.
        groups: Vec<String>,
    },
    /// Removes an item (§2.5).
    Remove {
        /// Who.
        jid: Jid,
    },
}

impl Request {
    /// Reads the `<query/>` of an iq of type get or set. Who may ask is not looked at.
    ///
    /// # Errors
    /// - `bad-request`: a get with an item (§2.1.3), a set without exactly one (§2.1.5), an item without a `jid` (§2.1.2.3), a
    ///   group twice (§2.3.3);
    /// - `jid-malformed`: a `jid` that is no address (RFC 6120 §8.3.3.8);
    /// - `not-acceptable`: a group without a name, or something beyond `limits` (§2.3.3).
    pub fn parse(type_: IqType, query: &Element, limits: &ItemLimits) -> Result<Self, StanzaError> {
        let mut items = query.children().filter(|child| child.is("item", NS));
        match (type_, items.next(), items.next()) {
            (IqType::Get, None, _) => Ok(Self::Get {
                version: query.attr("ver").map(Into::into),
            }),
            (IqType::Get, Some(_), _) => Err(bad("a roster get has no item")),
            (_, Some(item), None) => Self::parse_item(item, limits),
            (_, None, _) | (_, Some(_), Some(_)) => Err(bad("a roster set has exactly one item")),
        }
    }

    fn parse_item(item: &Element, limits: &ItemLimits) -> Result<Self, StanzaError> {
        let jid = item.attr("jid").ok_or_else(|| bad("the item has no jid"))?;
        let jid = Jid::parse(jid).map_err(|_| StanzaError::jid_malformed())?;
        // §2.1.2.5: any other value is ignored.
        if item.attr("subscription") == Some("remove") {
            return Ok(Self::Remove { jid });
        }
        let name = item.attr("name").filter(|name| !name.is_empty()).map(str::to_owned);
        if name.as_ref().is_some_and(|name| name.len() > limits.name_bytes_max) {
            return Err(unacceptable("the name is too long"));
        }
        let groups = item.children().filter(|child| child.is("group", NS));
        let groups: Vec<String> = groups.map(Element::text).collect();
        let mut seen = HashSet::new();
        if !groups.iter().all(|group| seen.insert(group.as_str())) {
            return Err(bad("a group is named twice"));
        }
        if groups.iter().any(String::is_empty) {
            return Err(unacceptable("a group has no name"));
        }
        if groups.iter().any(|group| group.len() > limits.group_bytes_max) {
            return Err(unacceptable("the name of a group is too long"));
        }
        if groups.len() > limits.groups_max {
            return Err(unacceptable("too many groups"));
        }
        Ok(Self::Put { jid, name, groups })
    }
}

fn bad(text: &str) -> StanzaError {
    StanzaError::bad_request().with_text(text)
}

fn unacceptable(text: &str) -> StanzaError {
    StanzaError::not_acceptable().with_text(text)
}

/// A contact as its owner's clients see it: what a push is about is what changes here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// It is in the roster.
    Listed {
        /// Who.
        jid: Jid,
        /// The handle.
        name: Option<String>,
        /// The groups, in the order they were set.
        groups: Vec<String>,
        /// Who sees whom.
        subscription: Subscription,
        /// The user has asked for a subscription and has no answer yet (§2.1.2.2).
        ask: bool,
        /// The user has approved a request before there is one (§2.1.2.1).
        approved: bool,
    },
    /// It is in the roster no longer.
    Removed {
        /// Who.
        jid: Jid,
    },
}

impl Item {
    /// A contact in this state. The contact's own request, if one waits, does not show (Appendix A.1, state 3).
    pub fn listed(jid: Jid, name: Option<String>, groups: Vec<String>, state: State) -> Self {
        Self::Listed {
            jid,
            name,
            groups,
            subscription: state.subscription(),
            ask: state.asks(),
            approved: state.approved,
        }
    }

    /// The `<item/>`.
    pub fn to_element(&self) -> Element {
        match self {
            Self::Removed { jid } => empty(jid, "remove"),
            Self::Listed {
                jid,
                name,
                groups,
                subscription,
                ask,
                approved,
            } => {
                let mut item = empty(jid, subscription.as_str());
                if let Some(name) = name {
                    item.set_attr("name", name.as_str());
                }
                if *ask {
                    item.set_attr("ask", "subscribe");
                }
                if *approved {
                    item.set_attr("approved", "true");
                }
                let group = |group: &String| Element::new("group", NS).with_text(group.as_str());
                item.with_children(groups.iter().map(group))
            }
        }
    }
}

fn empty(jid: &Jid, subscription: &str) -> Element {
    Element::new("item", NS)
        .with_attr("jid", jid.as_str())
        .with_attr("subscription", subscription)
}

/// The `<query/>` of a result, or of a push when it has one item (§2.1.4, §2.1.6). Always with a version: clients that do not know
/// about versions ignore it (§2.6.3).
pub fn query<'a>(items: impl IntoIterator<Item = &'a Item>, version: u64) -> Element {
    Element::new("query", NS)
        .with_attr("ver", version.to_string())
        .with_children(items.into_iter().map(Item::to_element))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::im::subscription::Side;
    use crate::stanza::Condition;
    use crate::xml::Limits;

    const LIMITS: ItemLimits = ItemLimits {
        name_bytes_max: 8,
        group_bytes_max: 8,
        groups_max: 2,
    };

    fn read(type_: IqType, content: &str) -> Result<Request, Condition> {
        let query = format!("<query xmlns='jabber:iq:roster'{content}");
        let query = Element::parse(query, &Limits::after_auth()).expect("well-formed");
        Request::parse(type_, &query, &LIMITS).map_err(|error| error.condition)
    }

    fn set(item: &str) -> Result<Request, Condition> {
        read(IqType::Set, &format!(">{item}</query>"))
    }

    fn put(jid: &str, name: Option<&str>, groups: &[&str]) -> Result<Request, Condition> {
        Ok(Request::Put {
            jid: jid.parse().expect("an address"),
            name: name.map(str::to_owned),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        })
    }

    fn get(version: Option<&str>) -> Result<Request, Condition> {
        Ok(Request::Get {
            version: version.map(Into::into),
        })
    }

    /// §2.1.3, §2.6.2.
    #[test]
    fn gets() {
        assert_eq!(read(IqType::Get, "/>"), get(None));
        assert_eq!(read(IqType::Get, " ver=''/>"), get(Some("")));
        assert_eq!(read(IqType::Get, " ver='ver14'/>"), get(Some("ver14")));
        let with_item = read(IqType::Get, "><item jid='nurse@example.com'/></query>");
        assert_eq!(with_item, Err(Condition::BadRequest));
    }

    /// §2.1.5, §2.3.1, §2.4.1, §2.5.1.
    #[test]
    fn sets() {
        let nurse = "nurse@example.com";
        assert_eq!(set("<item jid='nurse@example.com'/>"), put(nurse, None, &[]));
        assert_eq!(set("<item jid='nurse@example.com' name=''/>"), put(nurse, None, &[]));
        assert_eq!(
            set("<item jid='Nurse@Example.com' name='Nurse'><group>Servants</group><group>A &amp; B</group></item>"),
            put(nurse, Some("Nurse"), &["Servants", "A & B"]),
        );
        let removed = set("<item jid='nurse@example.com' subscription='remove'/>");
        let jid = nurse.parse().expect("an address");
        assert_eq!(removed, Ok(Request::Remove { jid }));
    }

    /// §2.1.2.1, §2.1.2.2, §2.1.2.5: what only the server may say is ignored, and so is what is not of this namespace.
    #[test]
    fn what_a_client_has_no_say_in_is_ignored() {
        let item = "<item jid='a@b' subscription='both' ask='subscribe' approved='true'><group xmlns='urn:x'/></item>";
        assert_eq!(set(item), put("a@b", None, &[]));
        let foreign = "<note xmlns='urn:x'/><item jid='a@b'/><item xmlns='urn:x' jid='c@d'/>";
        assert_eq!(set(foreign), put("a@b", None, &[]));
    }

    /// §2.3.3.
    #[test]
    fn sets_that_are_refused() {
        let bad = [
            "",
            "<item jid='a@b'/><item jid='c@d'/>",
            "<item name='nobody'/>",
            "<item jid='a@b'><group>G</group><group>G</group></item>",
            "<item jid='a@b'><group/><group/></item>",
        ];
        for item in bad {
            assert_eq!(set(item), Err(Condition::BadRequest), "{item}");
        }
        let unacceptable = [
            "<item jid='a@b' name='ninebytes'/>",
            "<item jid='a@b'><group>ninebytes</group></item>",
            "<item jid='a@b'><group/></item>",
            "<item jid='a@b'><group>1</group><group>2</group><group>3</group></item>",
        ];
        for item in unacceptable {
            assert_eq!(set(item), Err(Condition::NotAcceptable), "{item}");
        }
        for item in [
            "<item jid=''/>",
            "<item jid='@b'/>",
            "<item jid='a@b/' subscription='remove'/>",
        ] {
            assert_eq!(set(item), Err(Condition::JidMalformed), "{item}");
        }
    }

    fn written(query: &Element) -> String {
        String::from_utf8(query.to_bytes().to_vec()).expect("text")
    }

    /// §2.1.4, §2.1.6, §3.1.2, §3.4.2.
    #[test]
    fn results_and_pushes() {
        let state = |to, from, approved| State { to, from, approved };
        let romeo: Jid = "romeo@example.net".parse().expect("an address");
        let friend = Item::listed(
            romeo.clone(),
            Some("Romeo & I".to_owned()),
            vec!["Lovers".to_owned(), "Friends".to_owned()],
            state(Side::Subscribed, Side::Subscribed, false),
        );
        let asked = Item::listed(
            romeo.clone(),
            None,
            Vec::new(),
            state(Side::Pending, Side::Pending, true),
        );
        let removed = Item::Removed { jid: romeo };
        assert_eq!(
            written(&query([&friend, &asked], 11)),
            "<query xmlns='jabber:iq:roster' ver='11'>\
             <item jid='romeo@example.net' subscription='both' name='Romeo &amp; I'>\
             <group>Lovers</group><group>Friends</group></item>\
             <item jid='romeo@example.net' subscription='none' ask='subscribe' approved='true'/></query>",
        );
        assert_eq!(
            written(&query([&removed], 12)),
            "<query xmlns='jabber:iq:roster' ver='12'><item jid='romeo@example.net' subscription='remove'/></query>",
        );
        assert_eq!(written(&query([], 0)), "<query xmlns='jabber:iq:roster' ver='0'/>");
    }
}
