//! The elements of XEP-0191: commands are read, lists and pushes written.

use std::collections::BTreeSet;

use crate::jid::Jid;
use crate::stanza::{ErrorType, IqType, StanzaError};
use crate::xml::Element;

/// The namespace of the commands.
pub const NS: &str = "urn:xmpp:blocking";
/// The namespace of the error's own condition.
pub const NS_ERRORS: &str = "urn:xmpp:blocking:errors";

/// The names of the commands' elements.
pub const BLOCKLIST: &str = "blocklist";
/// As [`BLOCKLIST`].
pub const BLOCK: &str = "block";
/// As [`BLOCKLIST`].
pub const UNBLOCK: &str = "unblock";

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The list (§3.2).
    List,
    /// Nothing is to come from these, or go to them (§3.3); at least one.
    Block(BTreeSet<Jid>),
    /// These may again (§3.4); at least one.
    Unblock(BTreeSet<Jid>),
    /// Everybody may again (§3.5).
    UnblockAll,
}

impl Command {
    /// Reads the child of an iq of type get or set. Who may ask is not looked at.
    ///
    /// # Errors
    /// - `bad-request`: something else; `<block/>` without an item (§3.3); an item without a `jid`; a list that is set, or a
    ///   command that is got;
    /// - `jid-malformed`: a `jid` that is no address.
    pub fn parse(type_: IqType, command: &Element) -> Result<Self, StanzaError> {
        let is = |name: &str| command.is(name, NS);
        match type_ {
            IqType::Get if is(BLOCKLIST) => Ok(Self::List),
            IqType::Set if is(BLOCK) => {
                let jids = items(command)?;
                if jids.is_empty() {
                    return Err(StanzaError::bad_request().with_text("nobody is named"));
                }
                Ok(Self::Block(jids))
            }
            IqType::Set if is(UNBLOCK) => {
                let jids = items(command)?;
                Ok(if jids.is_empty() {
                    Self::UnblockAll
                } else {
                    Self::Unblock(jids)
                })
            }
            _ => Err(StanzaError::bad_request()),
        }
    }

    /// The push to those who have asked for the list: the command itself (§3.3, §3.4, §3.5). None for [`Self::List`].
    pub fn push(&self) -> Option<Element> {
        match self {
            Self::List => None,
            Self::Block(jids) => Some(with_items(BLOCK, jids)),
            Self::Unblock(jids) => Some(with_items(UNBLOCK, jids)),
            Self::UnblockAll => Some(with_items(UNBLOCK, [])),
        }
    }
}

fn items(command: &Element) -> Result<BTreeSet<Jid>, StanzaError> {
    let items = command.children().filter(|child| child.is("item", NS));
    let jid = |item: &Element| {
        let no_jid = || StanzaError::bad_request().with_text("an item has no jid");
        let jid = item.attr("jid").ok_or_else(no_jid)?;
        Jid::parse(jid).map_err(|_| StanzaError::jid_malformed())
    };
    items.map(jid).collect()
}

fn with_items<'a>(name: &'static str, jids: impl IntoIterator<Item = &'a Jid>) -> Element {
    let item = |jid: &Jid| Element::new("item", NS).with_attr("jid", jid.as_str());
    Element::new(name, NS).with_children(jids.into_iter().map(item))
}

/// The answer to [`Command::List`] (§3.2).
pub fn list<'a>(jids: impl IntoIterator<Item = &'a Jid>) -> Element {
    with_items(BLOCKLIST, jids)
}

/// What a user is told who sends something to an address of her own list (§3.3, example 9).
pub fn blocked() -> StanzaError {
    StanzaError::not_acceptable()
        .with_type(ErrorType::Cancel)
        .with_application(Element::new("blocked", NS_ERRORS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stanza::Condition;
    use crate::xml::Limits;

    fn read(type_: IqType, xml: &str) -> Result<Command, Condition> {
        let command = Element::parse(xml, &Limits::after_auth()).expect("well-formed");
        Command::parse(type_, &command).map_err(|error| error.condition)
    }

    fn jids(jids: &[&str]) -> BTreeSet<Jid> {
        jids.iter().map(|jid| jid.parse().expect("an address")).collect()
    }

    #[test]
    fn commands() {
        let set = |xml| read(IqType::Set, xml);
        assert_eq!(
            read(IqType::Get, "<blocklist xmlns='urn:xmpp:blocking'/>"),
            Ok(Command::List)
        );
        assert_eq!(
            set(
                "<block xmlns='urn:xmpp:blocking'><item jid='romeo@montague.net'/><item jid='Shakespeare.lit'/><item jid='shakespeare.lit'/></block>"
            ),
            Ok(Command::Block(jids(&["romeo@montague.net", "shakespeare.lit"]))),
        );
        assert_eq!(
            set("<unblock xmlns='urn:xmpp:blocking'><item jid='romeo@montague.net/home'/></unblock>"),
            Ok(Command::Unblock(jids(&["romeo@montague.net/home"]))),
        );
        assert_eq!(set("<unblock xmlns='urn:xmpp:blocking'/>"), Ok(Command::UnblockAll));
    }

    #[test]
    fn commands_that_are_refused() {
        let bad = [
            (IqType::Set, "<block xmlns='urn:xmpp:blocking'/>"),
            (IqType::Set, "<block xmlns='urn:xmpp:blocking'><item/></block>"),
            (IqType::Set, "<unblock xmlns='urn:xmpp:blocking'><item/></unblock>"),
            (IqType::Set, "<blocklist xmlns='urn:xmpp:blocking'/>"),
            (
                IqType::Get,
                "<block xmlns='urn:xmpp:blocking'><item jid='a@b'/></block>",
            ),
            (IqType::Get, "<other xmlns='urn:xmpp:blocking'/>"),
        ];
        for (type_, xml) in bad {
            assert_eq!(read(type_, xml), Err(Condition::BadRequest), "{xml}");
        }
        let malformed = "<block xmlns='urn:xmpp:blocking'><item jid='a@b'/><item jid='@b'/></block>";
        assert_eq!(read(IqType::Set, malformed), Err(Condition::JidMalformed));
    }

    #[test]
    fn lists_and_pushes() {
        let written = |element: &Element| String::from_utf8(element.to_bytes().to_vec()).expect("text");
        let two = jids(&["romeo@montague.net", "iago@shakespeare.lit"]);
        let items = "<item jid='iago@shakespeare.lit'/><item jid='romeo@montague.net'/>";
        let pushed = |command: Command| command.push().as_ref().map(written);
        assert_eq!(
            written(&list(&two)),
            format!("<blocklist xmlns='urn:xmpp:blocking'>{items}</blocklist>")
        );
        assert_eq!(written(&list([])), "<blocklist xmlns='urn:xmpp:blocking'/>");
        assert_eq!(
            pushed(Command::Block(two.clone())),
            Some(format!("<block xmlns='urn:xmpp:blocking'>{items}</block>"))
        );
        assert_eq!(
            pushed(Command::Unblock(two)),
            Some(format!("<unblock xmlns='urn:xmpp:blocking'>{items}</unblock>"))
        );
        assert_eq!(
            pushed(Command::UnblockAll).as_deref(),
            Some("<unblock xmlns='urn:xmpp:blocking'/>")
        );
        assert_eq!(pushed(Command::List), None);
    }

    /// Example 9.
    #[test]
    fn the_error_of_who_is_blocked() {
        let mut text = String::new();
        blocked().to_element().write_str(&mut text, crate::xml::CLIENT);
        assert_eq!(
            text,
            "<error type='cancel'><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
             <blocked xmlns='urn:xmpp:blocking:errors'/></error>",
        );
    }
}
