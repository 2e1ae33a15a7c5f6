//! What is asked of all nodes of a service: each shard answers for its own, and the answers are merged in the order of node ids.
//! It is no snapshot.

use std::collections::HashMap;

use super::access::Found;
use super::address::{NodeAddress, NodeId};
use super::evaluation::{Evaluation, unreadable};
use super::event::AUTHORIZATION_FORM_TYPE;
use super::index::{NodeCountRow, NodeOfShardRow, entity_prefix, node_count_key, node_of_entity, nodes_prefix};
use super::payload::NS;
use super::rows::Affiliation;
use super::subscribe::subscription_element;
use crate::jid::{BareJid, Jid};
use crate::link::ShardId;
use crate::rows::{Key, Rows, Timestamp, Value, View};
use crate::shard::Config;
use crate::stanza::{IqType, StanzaError};
use crate::xep::data_forms::{Field, FieldType, Form, Kind};
use crate::xep::disco;
use crate::xep::rsm::{Given, Page, Position};
use crate::xml::Element;

/// The namespace of XEP-0050.
pub(crate) const NS_COMMANDS: &str = "http://jabber.org/protocol/commands";

/// The command that shows what waits for approval (§8.7).
pub(crate) const GET_PENDING: &str = "http://jabber.org/protocol/pubsub#get-pending";

/// Rows that are looked at for one answer: nodes that not everybody may know of are passed over.
const ROWS_MAX: usize = 16_384;

/// What is asked of all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Which there are (§5.2).
    Nodes(Option<Page>),
    /// Which subscriptions who asks has (§5.6).
    Subscriptions(Option<Page>),
    /// What who asks is to them (§5.7).
    Affiliations(Option<Page>),
    /// At which of them somebody waits for the approval of who asks (§8.7).
    Pending,
}

/// One answer of one node.
struct Entry {
    node: String,
    element: Element,
}

impl Question {
    /// Reads a request that names no node; `None` when it is not asked of all nodes.
    pub(crate) fn parse(type_: IqType, query: &Element) -> Result<Option<Self>, StanzaError> {
        let asked = query.children().find(|child| child.ns() == NS).map(Element::name);
        Ok(match (type_, query.name(), query.ns(), asked) {
            (IqType::Get, "query", disco::NS_ITEMS, _) => Some(Self::Nodes(Page::of(query)?)),
            (IqType::Get, "pubsub", NS, Some("subscriptions")) => Some(Self::Subscriptions(Page::of(query)?)),
            (IqType::Get, "pubsub", NS, Some("affiliations")) => Some(Self::Affiliations(Page::of(query)?)),
            (IqType::Set, "command", NS_COMMANDS, _) if is_get_pending(query) && pending_node(query).is_none() => {
                Some(Self::Pending)
            }
            _ => None,
        })
    }

    fn page(&self) -> Option<&Page> {
        match self {
            Self::Nodes(page) | Self::Subscriptions(page) | Self::Affiliations(page) => page.as_ref(),
            Self::Pending => None,
        }
    }

    /// What this shard's nodes answer.
    ///
    /// # Errors
    /// `internal-server-error` when rows cannot be read.
    pub(crate) fn part(
        &self,
        origin: &Jid,
        service: &BareJid,
        shard: ShardId,
        now: Timestamp,
        config: &Config,
        rows: View<'_>,
    ) -> Result<Element, StanzaError> {
        let page = self.page().cloned().unwrap_or_default();
        let most = config.limits.pubsub.page_entries_max;
        let max = page.max.unwrap_or(most).min(most);
        let reading = Reading {
            origin,
            service,
            shard,
            now,
            config,
            rows,
        };
        let prefix = match self {
            Self::Nodes(_) => nodes_prefix(shard, service),
            _ => entity_prefix(shard, service, &origin.to_bare()),
        };
        let mut entries: Vec<Entry> = Vec::new();
        // One more says that there is more.
        let (mut nodes, mut looked_at, mut last) = (0, 0, None);
        'pages: while looked_at < ROWS_MAX {
            let rows = reading.walk(&prefix, &page.position, last.as_ref(), max + 1)?;
            let is_last_page = rows.len() <= max;
            for row in rows {
                looked_at += 1;
                last = Some(row.0.clone());
                let of_node = match self {
                    Self::Nodes(_) => reading.node(&prefix, row)?,
                    Self::Subscriptions(_) => reading.subscriptions(&prefix, row)?,
                    Self::Affiliations(_) => reading.affiliation(&prefix, row)?,
                    Self::Pending => reading.pending(&prefix, row)?,
                };
                nodes += usize::from(!of_node.is_empty());
                entries.extend(of_node);
                if nodes > max {
                    break 'pages;
                }
            }
            if is_last_page {
                break;
            }
        }
        let count = match self {
            Self::Nodes(_) => reading.count()?,
            _ => entries.len(),
        };
        Ok(self.answer(entries, Some(count), true))
    }

    /// The answer to all of it, of the answers of all shards.
    pub(crate) fn merge(&self, parts: Vec<Element>, config: &Config) -> Element {
        let page = self.page().cloned().unwrap_or_default();
        let most = config.limits.pubsub.page_entries_max;
        let max = page.max.unwrap_or(most).min(most);
        let mut count = 0;
        let mut entries: Vec<Entry> = Vec::new();
        for part in parts {
            let of_part = part.child("set", crate::xep::rsm::NS);
            let of_part = of_part.and_then(|set| set.child("count", crate::xep::rsm::NS));
            count += of_part
                .and_then(|count| count.text().parse::<usize>().ok())
                .unwrap_or(0);
            entries.extend(self.entries_of(part));
        }
        entries.sort_by(|one, other| one.node.cmp(&other.node));
        let mut nodes: Vec<&str> = entries.iter().map(|entry| &*entry.node).collect();
        nodes.dedup();
        let backwards = matches!(page.position, Position::Before(_) | Position::Last);
        let cut = nodes.len() > max;
        let kept: Vec<String> = if backwards {
            nodes.iter().rev().take(max).map(|node| (*node).to_owned()).collect()
        } else {
            nodes.iter().take(max).map(|node| (*node).to_owned()).collect()
        };
        entries.retain(|entry| kept.contains(&entry.node));
        let is_list = matches!(self, Self::Nodes(_));
        self.answer(entries, is_list.then_some(count), cut || self.page().is_some())
    }

    fn answer(&self, entries: Vec<Entry>, count: Option<usize>, paged: bool) -> Element {
        let page = self.page().cloned().unwrap_or_default();
        let given = Given {
            first: entries
                .first()
                .map(|entry| (entry.node.clone(), (page.position == Position::First).then_some(0))),
            last: entries.last().map(|entry| entry.node.clone()),
            count,
        };
        let elements = entries.into_iter().map(|entry| entry.element);
        let answer = match self {
            Self::Nodes(_) => Element::new("query", disco::NS_ITEMS).with_children(elements),
            Self::Subscriptions(_) => {
                Element::new("pubsub", NS).with_child(Element::new("subscriptions", NS).with_children(elements))
            }
            Self::Affiliations(_) => {
                Element::new("pubsub", NS).with_child(Element::new("affiliations", NS).with_children(elements))
            }
            Self::Pending => {
                return pending_command(elements.filter_map(|option| option.attr("node").map(str::to_owned)));
            }
        };
        if paged {
            answer.with_child(given.to_element())
        } else {
            answer
        }
    }

    fn entries_of(&self, part: Element) -> Vec<Entry> {
        let elements: Vec<Element> = match self {
            Self::Nodes(_) => part
                .into_children()
                .filter(|child| child.ns() == disco::NS_ITEMS)
                .collect(),
            Self::Subscriptions(_) | Self::Affiliations(_) => {
                let list = part.into_children().find(|child| child.ns() == NS);
                list.into_iter().flat_map(Element::into_children).collect()
            }
            Self::Pending => pending_nodes(&part)
                .into_iter()
                .map(|node| Element::new("node", NS).with_attr("node", node))
                .collect(),
        };
        let entry = |element: Element| Entry {
            node: element.attr("node").unwrap_or_default().to_owned(),
            element,
        };
        elements.into_iter().map(entry).collect()
    }
}

/// A shard's rows, as one who asks may see them.
struct Reading<'a> {
    origin: &'a Jid,
    service: &'a BareJid,
    shard: ShardId,
    now: Timestamp,
    config: &'a Config,
    rows: View<'a>,
}

impl Reading<'_> {
    /// The next rows of an index, from a position on and in its direction; `last` is the one before.
    fn walk(
        &self,
        prefix: &Key,
        position: &Position,
        last: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Value)>, StanzaError> {
        let at = |node: &str, behind: &[u8]| [&prefix[..], node.as_bytes(), behind].concat();
        let rows = match (position, last) {
            (Position::First | Position::After(_), Some(last)) => {
                self.rows.scan(prefix, &[&last[..], &[0]].concat(), limit)
            }
            (Position::Before(_) | Position::Last, Some(last)) => self.rows.scan_back(prefix, last, limit),
            (Position::First, None) => self.rows.scan(prefix, prefix, limit),
            // Behind the node's rows in either index: no id has a byte 0 or 1 in it.
            (Position::After(node), None) => self.rows.scan(prefix, &at(node, &[1]), limit),
            (Position::Before(node), None) => self.rows.scan_back(prefix, &at(node, &[]), limit),
            (Position::Last, None) => self.rows.scan_back(prefix, &at("", &[0xff]), limit),
        };
        rows.map_err(unreadable)
    }

    fn count(&self) -> Result<usize, StanzaError> {
        let row = self
            .rows
            .row(&node_count_key(self.shard, self.service))
            .map_err(unreadable)?;
        let row: NodeCountRow = row.map(super::evaluation::decode).transpose()?.unwrap_or_default();
        Ok(usize::try_from(row.nodes).unwrap_or(usize::MAX))
    }

    fn node(&self, prefix: &Key, (key, value): (Key, Value)) -> Result<Vec<Entry>, StanzaError> {
        let node = key.get(prefix.len()..).and_then(|node| std::str::from_utf8(node).ok());
        let node = node.ok_or_else(StanzaError::internal_server_error)?;
        let row: NodeOfShardRow = super::evaluation::decode(value)?;
        if !row.listed && !self.is_connected(node)? {
            return Ok(Vec::new());
        }
        let mut item = Element::new("item", disco::NS_ITEMS)
            .with_attr("jid", self.service.as_str())
            .with_attr("node", node);
        if !row.title.is_empty() {
            item.set_attr("name", row.title);
        }
        Ok(vec![Entry {
            node: node.to_owned(),
            element: item,
        }])
    }

    /// Whether who asks is affiliated with a node, or subscribed to it.
    fn is_connected(&self, node: &str) -> Result<bool, StanzaError> {
        let prefix = entity_prefix(self.shard, self.service, &self.origin.to_bare());
        let prefix = [&prefix[..], node.as_bytes(), &[0]].concat();
        Ok(!self.rows.scan(&prefix, &prefix, 1).map_err(unreadable)?.is_empty())
    }

    /// Looks at the node that a row of who asks names, if it is still there.
    fn at<T: Default>(
        &self,
        prefix: &Key,
        key: &Key,
        look: impl FnOnce(&Evaluation<'_>, &super::evaluation::Node) -> Result<T, StanzaError>,
    ) -> Result<(NodeId, T), StanzaError> {
        let named = key.get(prefix.len()..).and_then(node_of_entity);
        let (node, incarnation) = named.ok_or_else(StanzaError::internal_server_error)?;
        let address = NodeAddress::new(self.service.clone(), node.clone());
        let standings = HashMap::new();
        let evaluation = Evaluation::new(self.origin, &address, self.now, self.config, &standings, self.rows);
        let seen = match evaluation.node() {
            Ok(found) if found.incarnation() == incarnation => look(&evaluation, &found)?,
            _ => T::default(),
        };
        Ok((node, seen))
    }

    fn subscriptions(&self, prefix: &Key, (key, _): (Key, Value)) -> Result<Vec<Entry>, StanzaError> {
        let entity = self.origin.to_bare();
        let (node, found) = self.at(prefix, &key, |evaluation, node| {
            evaluation.subscriptions_of(node, &entity)
        })?;
        let entry = |found: Found| Entry {
            node: node.to_string(),
            element: subscription_element(Some(node.as_str()), &found, found.state()),
        };
        Ok(found.into_iter().map(entry).collect())
    }

    fn affiliation(&self, prefix: &Key, (key, _): (Key, Value)) -> Result<Vec<Entry>, StanzaError> {
        let entity = self.origin.to_bare();
        let (node, affiliation) = self.at(prefix, &key, |evaluation, node| evaluation.affiliation(node, &entity))?;
        if affiliation == Affiliation::None {
            return Ok(Vec::new());
        }
        let element = Element::new("affiliation", NS)
            .with_attr("node", node.as_str())
            .with_attr("affiliation", affiliation.word());
        Ok(vec![Entry {
            node: node.to_string(),
            element,
        }])
    }

    fn pending(&self, prefix: &Key, (key, _): (Key, Value)) -> Result<Vec<Entry>, StanzaError> {
        let entity = self.origin.to_bare();
        let (node, waits) = self.at(prefix, &key, |evaluation, node| {
            let owner = evaluation.affiliation(node, &entity)? == Affiliation::Owner;
            Ok(owner && node.state.pending > 0)
        })?;
        let element = Element::new("node", NS).with_attr("node", node.as_str());
        Ok(waits
            .then(|| Entry {
                node: node.to_string(),
                element,
            })
            .into_iter()
            .collect())
    }
}

/// Whether a command is the one of §8.7.
pub(crate) fn is_get_pending(command: &Element) -> bool {
    command.is("command", NS_COMMANDS) && command.attr("node") == Some(GET_PENDING)
}

/// The node that a submitted command is about (§8.7.4).
pub(crate) fn pending_node(command: &Element) -> Option<NodeId> {
    let form = Form::parse(command.child("x", crate::xep::data_forms::NS)?).ok()?;
    NodeId::new(form.value("pubsub#node")?)
}

/// The answer to the first step of the command (§8.7.2).
fn pending_command(nodes: impl Iterator<Item = String>) -> Element {
    let field = Field::of(FieldType::ListSingle, "pubsub#node", Vec::new());
    let form = Form::new(Kind::Form, AUTHORIZATION_FORM_TYPE).with(Field {
        options: nodes.collect(),
        ..field
    });
    command("executing").with_child(form.to_element())
}

/// The answer to the second step (§8.7.4).
pub(crate) fn pending_asked() -> Element {
    command("completed")
}

fn command(status: &'static str) -> Element {
    Element::new("command", NS_COMMANDS)
        .with_attr("node", GET_PENDING)
        .with_attr("sessionid", "get-pending")
        .with_attr("status", status)
}

/// The nodes in the answer of a shard.
fn pending_nodes(command: &Element) -> Vec<String> {
    let ns = crate::xep::data_forms::NS;
    let fields = command.child("x", ns).into_iter().flat_map(Element::children);
    let options = fields
        .flat_map(Element::children)
        .filter(|child| child.is("option", ns));
    options
        .filter_map(|option| Some(option.child("value", ns)?.text()))
        .collect()
}
