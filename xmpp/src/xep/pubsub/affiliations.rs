//! XEP-0060 §8.9 and §5.7: who is what to a node, seen and changed.

use super::evaluation::{Answer, Evaluation, Node, Refusal, decode};
use super::index::entity_key;
use super::payload::{NS, NS_OWNER};
use super::rows::{Affiliation, AffiliationRow, affiliation_key, affiliations_prefix};
use crate::jid::{BareJid, Jid};
use crate::stanza::StanzaError;
use crate::xep::rsm::{Given, Page, Position};
use crate::xml::Element;

impl Evaluation<'_> {
    /// §5.7, of this node.
    pub(crate) fn own_affiliation(&self) -> Answer {
        let node = self.node()?;
        let affiliation = self.affiliation(&node, &self.origin.to_bare())?;
        let name = self.address.node.as_str();
        let mut list = Element::new("affiliations", NS).with_attr("node", name);
        if affiliation != Affiliation::None {
            list.push_child(
                Element::new("affiliation", NS)
                    .with_attr("node", name)
                    .with_attr("affiliation", affiliation.word()),
            );
        }
        Ok(Some(Element::new("pubsub", NS).with_child(list)))
    }

    /// §8.9.1, in the order of addresses.
    pub(crate) fn affiliations(&self, page: Option<Page>) -> Answer {
        let node = self.owned_node()?;
        let prefix = affiliations_prefix(self.address, node.incarnation());
        let page = page.unwrap_or_default();
        let most = self.limits().page_entries_max;
        let max = page.max.unwrap_or(most).min(most);
        let key = |name: &str| [&prefix[..], name.as_bytes()].concat();
        let (rows, backwards) = match &page.position {
            Position::First => (self.scan(&prefix, &prefix, max)?, false),
            Position::After(name) => (self.scan(&prefix, &[&key(name)[..], &[0]].concat(), max)?, false),
            Position::Before(name) => (self.scan_back(&prefix, &key(name), max)?, true),
            Position::Last => (self.scan_back(&prefix, &[&prefix[..], &[0xff]].concat(), max)?, true),
        };
        let mut entries = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            let jid = key.get(prefix.len()..).and_then(|jid| std::str::from_utf8(jid).ok());
            let jid = jid.ok_or_else(StanzaError::internal_server_error)?.to_owned();
            let row: AffiliationRow = decode(value)?;
            entries.push((jid, row.affiliation()));
        }
        if backwards {
            entries.reverse();
        }
        let given = Given {
            first: entries
                .first()
                .map(|(jid, _)| (jid.clone(), (page.position == Position::First).then_some(0))),
            last: entries.last().map(|(jid, _)| jid.clone()),
            count: usize::try_from(node.state.affiliations).ok(),
        };
        let all = page == Page::default() && entries.len() as u64 == node.state.affiliations;
        let list = Element::new("affiliations", NS_OWNER)
            .with_attr("node", self.address.node.as_str())
            .with_children(entries.iter().map(|(jid, affiliation)| element(jid, *affiliation)));
        let pubsub = Element::new("pubsub", NS_OWNER).with_child(list);
        Ok(Some(if all {
            pubsub
        } else {
            pubsub.with_child(given.to_element())
        }))
    }

    /// §8.9.2: what can be done is done, what cannot is said (§8.9.2.4).
    pub(crate) fn modify_affiliations(&mut self, changes: Vec<(BareJid, Option<Affiliation>)>) -> Answer {
        let mut node = self.owned_node()?;
        let owners = node.row.owners.clone();
        let mut undone = Vec::new();
        for (jid, to) in changes {
            let Some(to) = to else { continue };
            let from = self.affiliation(&node, &jid)?;
            if from == to {
                continue;
            }
            if self.may_become(&node, &jid, from, to) {
                self.affiliate(&mut node, &jid, from, to)?;
            } else {
                undone.push(element(jid.as_str(), from));
            }
        }
        if node.row.owners != owners {
            self.keep_node(&node);
        }
        self.keep_state(&node);
        if undone.is_empty() {
            return Ok(None);
        }
        let list = Element::new("affiliations", NS_OWNER)
            .with_attr("node", self.address.node.as_str())
            .with_children(undone);
        let content = Element::new("pubsub", NS_OWNER).with_child(list);
        Err(Refusal::Partly(StanzaError::not_acceptable(), Box::new(content)))
    }

    /// The state chart of §4.1, and that somebody owns the node.
    fn may_become(&self, node: &Node, jid: &BareJid, from: Affiliation, to: Affiliation) -> bool {
        use Affiliation::{Member, None, Outcast, Owner, PublishOnly, Publisher};
        let limits = self.limits();
        let room = from != None || node.state.affiliations < limits.affiliations_per_node_max;
        match (from, to) {
            // An owner is one until it resigns.
            (Owner, None) => *jid == self.origin.to_bare() && node.row.owners.len() > 1,
            (Owner, _) => false,
            (_, Owner) => room && node.row.owners.len() < limits.owners_per_node_max,
            (Publisher | PublishOnly, Member) => false,
            (Outcast | None | Member | Publisher | PublishOnly, _) => room,
        }
    }

    fn affiliate(
        &mut self,
        node: &mut Node,
        jid: &BareJid,
        from: Affiliation,
        to: Affiliation,
    ) -> Result<(), StanzaError> {
        let key = affiliation_key(self.address, node.incarnation(), jid);
        node.row.owners.retain(|owner| owner != jid.as_str());
        match to {
            Affiliation::None => {
                self.delete(key);
                node.state.affiliations = node.state.affiliations.saturating_sub(1);
            }
            to => {
                self.put(key, &AffiliationRow { affiliation: to as i32 });
                if from == Affiliation::None {
                    node.state.affiliations += 1;
                }
                let entity = entity_key(self.shard(), self.address, node.incarnation(), jid);
                self.put_bytes(entity, bytes::Bytes::new());
            }
        }
        if to == Affiliation::Owner {
            node.row.owners.push(jid.to_string());
            node.row.owners.sort();
        }
        for found in self.subscriptions_of(node, jid)? {
            match to {
                // §8.7.4, and §4.1: these are not notified.
                Affiliation::Outcast | Affiliation::PublishOnly => self.deny(node, &found)?,
                Affiliation::Owner | Affiliation::Publisher | Affiliation::Member if found.row.pending => {
                    self.approve(node, found)?;
                }
                Affiliation::None if !node.config.lets_anybody_in() => self.deny(node, &found)?,
                _ => {}
            }
        }
        self.forget_entity(node, &Jid::from(jid))
    }
}

/// `<affiliation/>` as owners see it.
fn element(jid: &str, affiliation: Affiliation) -> Element {
    Element::new("affiliation", NS_OWNER)
        .with_attr("jid", jid)
        .with_attr("affiliation", affiliation.word())
}
