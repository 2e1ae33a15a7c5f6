//! Blocking (XEP-0191): those we do not want to hear from, nor to be seen by.

use heronry_xmpp::{jid::Jid, stanza::Stanza, xml::Element};

use crate::{Client, Request, RequestError};

pub(crate) const BLOCKING: &str = "urn:xmpp:blocking";

/// Another device of the account has blocked or unblocked somebody. Told to those only who have asked with
/// [`Client::blocked`] in this session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockListChange {
    /// These are blocked.
    Blocked(Vec<Jid>),
    /// These are not blocked any more.
    Unblocked(Vec<Jid>),
    /// Nobody is blocked any more.
    UnblockedAll,
}

impl BlockListChange {
    /// Reads a push; `None` when it is none. Whether it may be believed is not looked at.
    pub(crate) fn read(request: &Stanza) -> Option<Self> {
        let payload = request.payload()?;
        if payload.ns != BLOCKING {
            return None;
        }
        let element = request.payload_element().ok()?;
        let addresses = addresses(&element);
        match element.name() {
            "block" if !addresses.is_empty() => Some(Self::Blocked(addresses)),
            "unblock" if element.children().next().is_none() => Some(Self::UnblockedAll),
            "unblock" if !addresses.is_empty() => Some(Self::Unblocked(addresses)),
            _ => None,
        }
    }
}

impl Client {
    /// Everybody who is blocked (§3.2). From then on changes by other devices come as
    /// [`Event::BlockList`](crate::Event::BlockList).
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn blocked(&self) -> Result<Vec<Jid>, RequestError> {
        let list = self.request(Request::get(Element::new("blocklist", BLOCKING))).await?;
        let list = list
            .filter(|list| list.is("blocklist", BLOCKING))
            .ok_or(RequestError::Malformed)?;
        Ok(addresses(&list))
    }

    /// Blocks accounts, devices or domains (§3.3).
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn block(&self, who: impl IntoIterator<Item = Jid>) -> Result<(), RequestError> {
        self.change_blocking("block", who).await
    }

    /// Unblocks some (§3.4). Nobody is unblocked by an empty list.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn unblock(&self, who: impl IntoIterator<Item = Jid>) -> Result<(), RequestError> {
        self.change_blocking("unblock", who).await
    }

    /// Unblocks everybody (§3.5).
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn unblock_all(&self) -> Result<(), RequestError> {
        self.request(Request::set(Element::new("unblock", BLOCKING)))
            .await
            .map(drop)
    }

    async fn change_blocking(
        &self,
        name: &'static str,
        who: impl IntoIterator<Item = Jid>,
    ) -> Result<(), RequestError> {
        let item = |jid: Jid| Element::new("item", BLOCKING).with_attr("jid", jid.as_str());
        let element = Element::new(name, BLOCKING).with_children(who.into_iter().map(item));
        // §3.5: without items it would mean everybody, and §3.3 forbids it.
        if element.children().next().is_none() {
            return Ok(());
        }
        self.request(Request::set(element)).await.map(drop)
    }
}

fn addresses(list: &Element) -> Vec<Jid> {
    let items = list.children().filter(|item| item.is("item", BLOCKING));
    items.filter_map(|item| Jid::parse(item.attr("jid")?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::message as stanza;

    fn read(payload: &str) -> Option<BlockListChange> {
        BlockListChange::read(&stanza(&format!("<iq type='set' id='1'>{payload}</iq>")))
    }

    #[test]
    fn a_push_says_who() {
        let romeo = || vec![Jid::parse("romeo@montague.example").expect("address")];
        let with = |name: &str, items: &str| read(&format!("<{name} xmlns='urn:xmpp:blocking'>{items}</{name}>"));
        let item = "<item jid='romeo@montague.example'/>";
        assert_eq!(with("block", item), Some(BlockListChange::Blocked(romeo())));
        assert_eq!(with("unblock", item), Some(BlockListChange::Unblocked(romeo())));
        assert_eq!(with("unblock", ""), Some(BlockListChange::UnblockedAll));
        assert_eq!(with("block", ""), None);
        assert_eq!(with("unblock", "<item jid='@'/>"), None, "not everybody");
        assert_eq!(read("<block xmlns='other'/>"), None);
    }
}
