//! What is asked of a pubsub node: the elements of XEP-0060's requests, read.

use std::collections::BTreeSet;

use super::address::ID_BYTES_MAX;
use super::errors;
use super::limits::Limits;
use super::rows::Affiliation;
use crate::jid::{BareJid, Jid};
use crate::stanza::{IqType, StanzaError};
use crate::xep::data_forms::{self, Form};
use crate::xep::{disco, rsm};
use crate::xml::Element;

/// The namespace of what subscribers and publishers ask.
pub const NS: &str = "http://jabber.org/protocol/pubsub";
/// The namespace of what owners ask.
pub const NS_OWNER: &str = "http://jabber.org/protocol/pubsub#owner";
/// The namespace of notifications.
pub const NS_EVENT: &str = "http://jabber.org/protocol/pubsub#event";
/// The namespace of the errors' own conditions.
pub const NS_ERRORS: &str = "http://jabber.org/protocol/pubsub#errors";
/// The namespace of what Heronry adds: `<sequence/>` in notifications, `<since/>` in requests for items.
pub const NS_SEQUENCE: &str = "urn:heronry:pubsub:0";

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// §8.1.
    Create { named: bool, configuration: Option<Form> },
    /// §6.1.
    Subscribe { jid: Jid, options: Option<Form> },
    /// §6.2.
    Unsubscribe { jid: Jid, subid: Option<String> },
    /// §6.3.2.
    Options { jid: Jid, subid: Option<String> },
    /// §6.3.5.
    SetOptions {
        jid: Jid,
        subid: Option<String>,
        form: Form,
    },
    /// §6.4.
    DefaultOptions,
    /// §6.5.
    Items(ItemsQuery),
    /// §7.1.
    Publish {
        items: Vec<NewItem>,
        preconditions: Option<Form>,
    },
    /// §7.2.
    Retract { ids: Vec<String>, notify: bool },
    /// §5.6, of one node.
    OwnSubscriptions,
    /// §5.7, of one node.
    OwnAffiliation,
    /// §8.2.1.
    Configuration,
    /// §8.2.4; without a form it is cancelled.
    Configure { form: Option<Form> },
    /// §8.4.
    Delete { redirect: Option<String> },
    /// §8.5.
    Purge,
    /// §8.8.1.
    Subscriptions { page: Option<rsm::Page> },
    /// §8.8.2.
    ModifySubscriptions(Vec<SubscriptionChange>),
    /// §8.9.1.
    Affiliations { page: Option<rsm::Page> },
    /// §8.9.2.
    ModifyAffiliations(Vec<(BareJid, Option<Affiliation>)>),
    /// §5.3, §5.4.
    Info,
    /// §5.5.
    DiscoItems { page: Option<rsm::Page> },
}

/// Which items are wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ItemsQuery {
    pub(crate) subid: Option<String>,
    /// These (§6.5.8); all when empty.
    pub(crate) ids: Vec<String>,
    /// The most recent ones (§6.5.7).
    pub(crate) max: Option<usize>,
    pub(crate) page: Option<rsm::Page>,
    /// Those that notifications after this number told of.
    pub(crate) since: Option<u64>,
}

/// An item that is to be published.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NewItem {
    pub(crate) id: Option<String>,
    pub(crate) payload: Option<Element>,
}

/// What an owner makes of a subscription.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SubscriptionChange {
    pub(crate) jid: Jid,
    pub(crate) subid: Option<String>,
    /// Absent: it stays.
    pub(crate) to: Option<SubscriptionState>,
}

/// A subscription's state (§4.2). No node of ours asks for configuration first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubscriptionState {
    None,
    Pending,
    Subscribed,
}

impl SubscriptionState {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pending => "pending",
            Self::Subscribed => "subscribed",
        }
    }

    fn of(word: &str) -> Option<Self> {
        match word {
            "none" => Some(Self::None),
            "pending" => Some(Self::Pending),
            "subscribed" => Some(Self::Subscribed),
            _ => None,
        }
    }
}

impl Affiliation {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Owner => "owner",
            Self::Publisher => "publisher",
            Self::PublishOnly => "publish-only",
            Self::Member => "member",
            Self::Outcast => "outcast",
        }
    }

    fn of(word: &str) -> Option<Self> {
        match word {
            "none" => Some(Self::None),
            "owner" => Some(Self::Owner),
            "publisher" => Some(Self::Publisher),
            "publish-only" => Some(Self::PublishOnly),
            "member" => Some(Self::Member),
            "outcast" => Some(Self::Outcast),
            _ => None,
        }
    }
}

/// The node a request names, without reading the rest of it: an attribute of the request's own element.
pub(crate) fn node_of(query: &Element) -> Option<&str> {
    let named = if query.ns() == NS || query.ns() == NS_OWNER {
        query.children().find(|child| child.ns() == query.ns())?
    } else {
        query
    };
    named.attr("node").filter(|node| !node.is_empty())
}

impl Action {
    /// Reads the child of an iq that names a node, or asks for one that the service names.
    ///
    /// # Errors
    /// What XEP-0060 says about requests of that shape; `bad-request` for what it does not know.
    pub(crate) fn parse(type_: IqType, query: &Element, limits: &Limits) -> Result<Self, StanzaError> {
        match (query.name(), query.ns()) {
            ("pubsub", NS) => pubsub(type_, query, limits),
            ("pubsub", NS_OWNER) => owner(type_, query),
            ("query", disco::NS_INFO) if type_ == IqType::Get => Ok(Self::Info),
            ("query", disco::NS_ITEMS) if type_ == IqType::Get => Ok(Self::DiscoItems {
                page: rsm::Page::of(query)?,
            }),
            _ => Err(StanzaError::bad_request()),
        }
    }
}

fn pubsub(type_: IqType, query: &Element, limits: &Limits) -> Result<Action, StanzaError> {
    let mut children = query.children().filter(|child| child.ns() == NS);
    let asked = children.next().ok_or_else(StanzaError::bad_request)?;
    let beside = children.next();
    if children.next().is_some() {
        return Err(StanzaError::bad_request());
    }
    let subid = || asked.attr("subid").map(str::to_owned);
    let action = match (type_, asked.name()) {
        (IqType::Set, "create") => {
            return Ok(Action::Create {
                named: asked.attr("node").is_some_and(|node| !node.is_empty()),
                configuration: beside_with_form(beside, "configure")?,
            });
        }
        (IqType::Set, "subscribe") => {
            // §6.3.7: options beside it name no node and nobody.
            if beside.is_some_and(|beside| beside.attr("node").is_some() || beside.attr("jid").is_some()) {
                return Err(StanzaError::bad_request());
            }
            return Ok(Action::Subscribe {
                jid: jid(asked).map_err(|_| errors::invalid_jid())?,
                options: beside_with_form(beside, "options")?,
            });
        }
        (IqType::Set, "publish") => {
            return Ok(Action::Publish {
                items: new_items(asked, limits)?,
                preconditions: beside_with_form(beside, "publish-options")?,
            });
        }
        (IqType::Set, "unsubscribe") => Action::Unsubscribe {
            jid: jid(asked)?,
            subid: subid(),
        },
        (IqType::Get, "options") => Action::Options {
            jid: jid(asked)?,
            subid: subid(),
        },
        (IqType::Set, "options") => Action::SetOptions {
            jid: jid(asked)?,
            subid: subid(),
            form: form_in(asked)?.ok_or_else(errors::invalid_options)?,
        },
        (IqType::Get, "default") => Action::DefaultOptions,
        (IqType::Get, "items") => Action::Items(items_query(query, asked)?),
        (IqType::Set, "retract") => Action::Retract {
            ids: retracted(asked, limits)?,
            notify: asked.attr("notify").and_then(data_forms::boolean).unwrap_or(false),
        },
        (IqType::Get, "subscriptions") => Action::OwnSubscriptions,
        (IqType::Get, "affiliations") => Action::OwnAffiliation,
        _ => return Err(StanzaError::bad_request()),
    };
    match beside {
        Some(_) => Err(StanzaError::bad_request()),
        None => Ok(action),
    }
}

fn owner(type_: IqType, query: &Element) -> Result<Action, StanzaError> {
    let mut children = query.children().filter(|child| child.ns() == NS_OWNER);
    let (Some(asked), None) = (children.next(), children.next()) else {
        return Err(StanzaError::bad_request());
    };
    Ok(match (type_, asked.name()) {
        (IqType::Get, "configure") => Action::Configuration,
        (IqType::Set, "configure") => {
            let form = form_in(asked)?.ok_or_else(StanzaError::bad_request)?;
            Action::Configure {
                form: match form.kind {
                    data_forms::Kind::Cancel => None,
                    _ => Some(form),
                },
            }
        }
        (IqType::Set, "delete") => {
            let redirect = asked.child("redirect", NS_OWNER);
            let redirect = redirect.and_then(|redirect| redirect.attr("uri")).map(str::to_owned);
            if redirect.as_ref().is_some_and(|uri| uri.len() > ID_BYTES_MAX) {
                return Err(StanzaError::not_acceptable().with_text("the address to go to is too long"));
            }
            Action::Delete { redirect }
        }
        (IqType::Set, "purge") => Action::Purge,
        (IqType::Get, "subscriptions") => Action::Subscriptions {
            page: rsm::Page::of(query)?,
        },
        (IqType::Set, "subscriptions") => Action::ModifySubscriptions(subscription_changes(asked)?),
        (IqType::Get, "affiliations") => Action::Affiliations {
            page: rsm::Page::of(query)?,
        },
        (IqType::Set, "affiliations") => Action::ModifyAffiliations(affiliation_changes(asked)?),
        _ => return Err(StanzaError::bad_request()),
    })
}

/// The address in an element that must have one (§6.3.4.3).
fn jid(element: &Element) -> Result<Jid, StanzaError> {
    let jid = element.attr("jid").ok_or_else(errors::jid_required)?;
    Jid::parse(jid).map_err(|_| StanzaError::jid_malformed())
}

/// The form in an element, if there is one.
fn form_in(element: &Element) -> Result<Option<Form>, StanzaError> {
    match element.child("x", data_forms::NS) {
        Some(x) => Form::parse(x).map(Some).map_err(|_| StanzaError::bad_request()),
        None => Ok(None),
    }
}

/// The form in the second child of a request, which must have this name.
fn beside_with_form(beside: Option<&Element>, name: &str) -> Result<Option<Form>, StanzaError> {
    match beside {
        None => Ok(None),
        Some(beside) if beside.name() == name && beside.attr("node").is_none() => form_in(beside),
        Some(_) => Err(StanzaError::bad_request()),
    }
}

fn new_items(publish: &Element, limits: &Limits) -> Result<Vec<NewItem>, StanzaError> {
    let mut ids = BTreeSet::new();
    let mut items = Vec::new();
    for item in publish.children().filter(|child| child.is("item", NS)) {
        if items.len() >= limits.batch_items_max {
            return Err(errors::max_items_exceeded());
        }
        let id = item.attr("id").filter(|id| !id.is_empty());
        if let Some(id) = id {
            proper_item_id(id)?;
            if !ids.insert(id) {
                return Err(StanzaError::bad_request().with_text("an item is in the batch twice"));
            }
        }
        let mut payloads = item.children();
        let payload = payloads.next().cloned();
        if payloads.next().is_some() {
            return Err(errors::invalid_payload());
        }
        items.push(NewItem {
            id: id.map(str::to_owned),
            payload,
        });
    }
    Ok(items)
}

fn retracted(retract: &Element, limits: &Limits) -> Result<Vec<String>, StanzaError> {
    let mut ids = Vec::new();
    for item in retract.children().filter(|child| child.is("item", NS)) {
        let id = item.attr("id").filter(|id| !id.is_empty());
        let id = id.ok_or_else(errors::item_required)?;
        if ids.len() >= limits.batch_items_max {
            return Err(errors::max_items_exceeded());
        }
        if !ids.iter().any(|known| known == id) {
            ids.push(id.to_owned());
        }
    }
    if ids.is_empty() {
        return Err(errors::item_required());
    }
    Ok(ids)
}

fn proper_item_id(id: &str) -> Result<(), StanzaError> {
    if id.len() > ID_BYTES_MAX {
        return Err(StanzaError::not_acceptable().with_text("the id of an item is too long"));
    }
    Ok(())
}

fn items_query(query: &Element, asked: &Element) -> Result<ItemsQuery, StanzaError> {
    let mut ids = Vec::new();
    for item in asked.children().filter(|child| child.is("item", NS)) {
        let id = item.attr("id").ok_or_else(StanzaError::bad_request)?;
        ids.push(id.to_owned());
    }
    let max = match asked.attr("max_items") {
        Some(max) => Some(max.parse().map_err(|_| StanzaError::bad_request())?),
        None => None,
    };
    let since = match query.child("since", NS_SEQUENCE) {
        Some(since) => {
            let number = since.attr("number").and_then(|number| number.parse().ok());
            Some(number.ok_or_else(StanzaError::bad_request)?)
        }
        None => None,
    };
    Ok(ItemsQuery {
        subid: asked.attr("subid").map(str::to_owned),
        ids,
        max,
        page: rsm::Page::of(query)?,
        since,
    })
}

fn subscription_changes(asked: &Element) -> Result<Vec<SubscriptionChange>, StanzaError> {
    let mut changes: Vec<SubscriptionChange> = Vec::new();
    for child in asked.children().filter(|child| child.is("subscription", NS_OWNER)) {
        let to = match child.attr("subscription") {
            // Nothing here is ever `unconfigured`.
            Some(word) => Some(SubscriptionState::of(word).ok_or_else(StanzaError::bad_request)?),
            None => None,
        };
        let change = SubscriptionChange {
            jid: jid(child)?,
            subid: child.attr("subid").map(str::to_owned),
            to,
        };
        let same = |other: &SubscriptionChange| other.jid == change.jid && other.subid == change.subid;
        if changes.iter().any(same) {
            return Err(StanzaError::bad_request());
        }
        changes.push(change);
    }
    if changes.is_empty() {
        return Err(StanzaError::bad_request());
    }
    Ok(changes)
}

fn affiliation_changes(asked: &Element) -> Result<Vec<(BareJid, Option<Affiliation>)>, StanzaError> {
    let mut changes: Vec<(BareJid, Option<Affiliation>)> = Vec::new();
    for child in asked.children().filter(|child| child.is("affiliation", NS_OWNER)) {
        let to = match child.attr("affiliation") {
            Some(word) => Some(Affiliation::of(word).ok_or_else(StanzaError::bad_request)?),
            None => None,
        };
        let jid = jid(child)?.to_bare();
        // §8.9.2.4.
        if changes.iter().any(|(known, _)| *known == jid) {
            return Err(StanzaError::bad_request());
        }
        changes.push((jid, to));
    }
    if changes.is_empty() {
        return Err(StanzaError::bad_request());
    }
    Ok(changes)
}
