//! Where a pubsub node is: its service and its id.

use std::fmt;

use crate::jid::{self, BareJid};

/// The id of a pubsub node: unique within its service, never empty, without further meaning (XEP-0060 §12.9, §12.15).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Box<str>);

/// The longest id of a node or an item, in bytes: as long as a resource (RFC 7622 §3.4).
pub const ID_BYTES_MAX: usize = 1023;

impl NodeId {
    /// An id as somebody wrote it, unless it is empty or too long.
    pub fn new(id: &str) -> Option<Self> {
        // XML has no zero byte; keys of rows rely on that.
        let proper = !id.is_empty() && id.len() <= ID_BYTES_MAX && !id.contains('\0');
        proper.then(|| Self(id.into()))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A pubsub node of a service with a domain of its own. It is an entity: its name, `service/node id`, has a slot as an account's
/// address has, and no account has such a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeAddress {
    /// The service.
    pub service: BareJid,
    /// The node.
    pub node: NodeId,
    entity: Box<str>,
}

impl NodeAddress {
    /// The address of a node.
    pub fn new(service: BareJid, node: NodeId) -> Self {
        let entity = format!("{service}/{node}").into_boxed_str();
        Self { service, node, entity }
    }

    /// Reads what [`Self::entity`] says.
    pub fn of_entity(entity: &str) -> Option<Self> {
        let (service, node) = entity.split_once('/')?;
        let service = BareJid::parse(service).ok()?;
        Some(Self::new(service, NodeId::new(node)?))
    }

    /// The name of the entity.
    pub fn entity(&self) -> &str {
        &self.entity
    }

    /// The slot it belongs to.
    pub fn slot(&self) -> u16 {
        jid::slot(&self.entity)
    }
}

/// A sequence number and a node, as the id of a notification (XEP-0060 §12.4): an error that comes back finds the node.
pub(crate) fn notification_id(number: u64, node: &NodeId) -> Box<str> {
    format!("{number}:{node}").into_boxed_str()
}

/// The node that a notification with this id is of.
pub(crate) fn node_of_notification(id: &str) -> Option<NodeId> {
    let (number, node) = id.split_once(':')?;
    number.parse::<u64>().ok()?;
    NodeId::new(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_is_read_back() {
        let service = BareJid::parse("pubsub.example.org").expect("an address");
        for id in ["sensors", "a/b", "http://jabber.org/protocol/tune", "42:x"] {
            let address = NodeAddress::new(service.clone(), NodeId::new(id).expect("an id"));
            assert_eq!(NodeAddress::of_entity(address.entity()), Some(address.clone()), "{id}");
            let notification = notification_id(7, &address.node);
            assert_eq!(node_of_notification(&notification), Some(address.node), "{id}");
        }
    }

    #[test]
    fn an_id_is_neither_empty_nor_endless() {
        assert_eq!(NodeId::new(""), None);
        assert_eq!(NodeId::new("a\0b"), None);
        assert!(NodeId::new(&"x".repeat(ID_BYTES_MAX)).is_some());
        assert_eq!(NodeId::new(&"x".repeat(ID_BYTES_MAX + 1)), None);
    }
}
