//! XEP-0060 §6.5: items are retrieved: all, the most recent, some by their ids, a page, or those that were missed.

use super::config::Config;
use super::errors;
use super::evaluation::{Answer, Evaluation, Node, Refusal};
use super::event::item_element;
use super::payload::{ItemsQuery, NS, NS_SEQUENCE};
use super::rows::{ItemRow, item_key, order_key, order_prefix};
use crate::rows::{Key, Value};
use crate::stanza::StanzaError;
use crate::xep::disco;
use crate::xep::rsm::{Given, Page, Position};
use crate::xml::Element;

/// Items in their order, and what is said about where they are among all.
pub(crate) struct Slice {
    pub(crate) items: Vec<(String, ItemRow)>,
    given: Option<Given>,
}

impl Evaluation<'_> {
    /// §6.5.
    pub(crate) fn items(&self, query: &ItemsQuery) -> Answer {
        let node = self.node()?;
        self.may_retrieve(&node, query.subid.as_deref())?;
        if !node.config.persist_items {
            return Err(errors::unsupported("persistent-items").into());
        }
        let slice = self.slice(&node, query)?;
        let mut items = Element::new("items", NS).with_attr("node", self.address.node.as_str());
        for (id, row) in &slice.items {
            items.push_child(item_element(NS, &node.config, id, row, true)?);
        }
        let mut pubsub = Element::new("pubsub", NS).with_child(items);
        if query.since.is_some() {
            let sequence = Element::new("sequence", NS_SEQUENCE)
                .with_attr("number", node.state.sequence.to_string())
                .with_attr("epoch", format!("{:x}", node.incarnation()));
            pubsub.push_child(sequence);
        }
        Ok(Some(pubsub.with_children(slice.given.map(|given| given.to_element()))))
    }

    fn slice(&self, node: &Node, query: &ItemsQuery) -> Result<Slice, StanzaError> {
        let most = self.limits().page_entries_max;
        if !query.ids.is_empty() {
            let mut items = Vec::new();
            for id in query.ids.iter().take(most) {
                // §6.5.9.12: what is not there is left out.
                items.extend(self.item(node, id)?.map(|item| (id.clone(), item)));
            }
            return Ok(Slice { items, given: None });
        }
        if let Some(since) = query.since {
            let after = order_key(
                self.address,
                node.incarnation(),
                node.state.generation,
                since.saturating_add(1) << 16,
            );
            let rows = self.scan(&order_prefix_of(self, node), &after, most)?;
            let (items, cut) = self.read_items(node, rows)?;
            let more = cut || items.len() == most;
            return Ok(self.with_page(node, items, None, more));
        }
        if let Some(max) = query.max {
            let prefix = order_prefix_of(self, node);
            let rows = self.scan_back(&prefix, &end_of(&prefix), max.min(most))?;
            let (mut items, _) = self.read_items(node, rows)?;
            items.reverse();
            return Ok(Slice { items, given: None });
        }
        self.page(node, query.page.as_ref())
    }

    /// §6.5.4: a page, or the beginning of all when no page is asked for and not all fit.
    pub(crate) fn page(&self, node: &Node, page: Option<&Page>) -> Result<Slice, StanzaError> {
        let most = self.limits().page_entries_max;
        let asked = page.cloned().unwrap_or_default();
        let max = asked.max.unwrap_or(most).min(most);
        let prefix = order_prefix_of(self, node);
        if max == 0 {
            let count = usize::try_from(node.state.items).ok();
            return Ok(Slice {
                items: Vec::new(),
                given: Some(Given {
                    count,
                    ..Given::default()
                }),
            });
        }
        let place_of = |id: &str| -> Result<u64, StanzaError> {
            let item = self.item(node, id)?;
            // XEP-0059 §2.4: what is gone has no place any more.
            item.map(|item| item.place).ok_or_else(StanzaError::item_not_found)
        };
        let order = |place: u64| order_key(self.address, node.incarnation(), node.state.generation, place);
        let (rows, backwards) = match &asked.position {
            Position::First => (self.scan(&prefix, &prefix, max)?, false),
            Position::After(id) => (self.scan(&prefix, &order(place_of(id)?.saturating_add(1)), max)?, false),
            Position::Before(id) => (self.scan_back(&prefix, &order(place_of(id)?), max)?, true),
            Position::Last => (self.scan_back(&prefix, &end_of(&prefix), max)?, true),
        };
        let (mut items, cut) = self.read_items(node, rows)?;
        if backwards {
            items.reverse();
        }
        let at_first = asked.position == Position::First;
        let all = at_first && !cut && items.len() as u64 == node.state.items;
        let index = at_first.then_some(0);
        Ok(if page.is_none() && all {
            Slice { items, given: None }
        } else {
            self.with_page(node, items, index, true)
        })
    }

    fn with_page(&self, node: &Node, items: Vec<(String, ItemRow)>, index: Option<usize>, say: bool) -> Slice {
        let given = Given {
            first: items.first().map(|(id, _)| (id.clone(), index)),
            last: items.last().map(|(id, _)| id.clone()),
            count: usize::try_from(node.state.items).ok(),
        };
        Slice {
            items,
            given: say.then_some(given),
        }
    }

    /// The items that these rows of the order name, as far as they fit into a page; says whether some did not.
    fn read_items(&self, node: &Node, rows: Vec<(Key, Value)>) -> Result<(Vec<(String, ItemRow)>, bool), StanzaError> {
        let mut bytes = 0;
        let mut items = Vec::with_capacity(rows.len());
        for (_, id) in rows {
            let id = String::from_utf8(id.to_vec()).map_err(|_| StanzaError::internal_server_error())?;
            let item = self.item(node, &id)?.ok_or_else(StanzaError::internal_server_error)?;
            bytes += item.payload.len();
            if bytes > self.limits().page_bytes_max && !items.is_empty() {
                return Ok((items, true));
            }
            items.push((id, item));
        }
        Ok((items, false))
    }

    pub(crate) fn item(&self, node: &Node, id: &str) -> Result<Option<ItemRow>, StanzaError> {
        self.read(&item_key(self.address, node.incarnation(), node.state.generation, id))
    }

    /// The item that was published last.
    pub(crate) fn newest_item(&self, node: &Node) -> Result<Option<(String, ItemRow)>, StanzaError> {
        let prefix = order_prefix_of(self, node);
        let rows = self.scan_back(&prefix, &end_of(&prefix), 1)?;
        Ok(self.read_items(node, rows)?.0.pop())
    }

    /// The item that was published first.
    pub(crate) fn oldest_item(&self, node: &Node) -> Result<Option<(String, ItemRow)>, StanzaError> {
        let prefix = order_prefix_of(self, node);
        let rows = self.scan(&prefix, &prefix, 1)?;
        Ok(self.read_items(node, rows)?.0.pop())
    }

    /// §5.5.
    pub(crate) fn disco_items(&self, page: Option<Page>) -> Answer {
        let node = self.node()?;
        self.may_retrieve_at_all(&node)?;
        let slice = self.page(&node, page.as_ref())?;
        let items = slice.items.iter().map(|(id, _)| {
            Element::new("item", disco::NS_ITEMS)
                .with_attr("jid", self.address.service.as_str())
                .with_attr("name", &**id)
        });
        let query = Element::new("query", disco::NS_ITEMS)
            .with_attr("node", self.address.node.as_str())
            .with_children(items);
        Ok(Some(query.with_children(slice.given.map(|given| given.to_element()))))
    }

    /// Whether who asks may know of items, whichever subscription it has.
    fn may_retrieve_at_all(&self, node: &Node) -> Result<(), Refusal> {
        let found = self.subscriptions_of(node, &self.origin.to_bare())?;
        let subid = found.iter().find(|found| !found.row.pending).map(|found| &*found.subid);
        self.may_retrieve(node, subid)
    }
}

/// When an item that was published at that time ends.
pub(crate) fn end_of_item(config: &Config, at: u64) -> Option<u64> {
    (config.item_expire > 0).then(|| at.saturating_add(config.item_expire.saturating_mul(1_000_000)))
}

fn order_prefix_of(evaluation: &Evaluation<'_>, node: &Node) -> Key {
    order_prefix(evaluation.address, node.incarnation(), node.state.generation)
}

/// A key behind all with this prefix: places are far below it.
fn end_of(prefix: &Key) -> Key {
    [&prefix[..], &[0xff; 8]].concat().into()
}
