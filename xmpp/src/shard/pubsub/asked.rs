//! Whom a stanza for a pubsub service is for: the service, one of its nodes, all of them.

use sha2::{Digest, Sha256};

use super::super::Shard;
use super::FEATURE_LEVEL;
use crate::jid::BareJid;
use crate::link::{Forward, SessionId};
use crate::stanza::{IqType, Kind, Stanza, StanzaError};
use crate::xep::pubsub::payload::{NS, NS_OWNER};
use crate::xep::pubsub::{
    self, Evaluation, NodeAddress, NodeId, Question, Verdict, is_get_pending, node_of, node_of_notification,
    pending_node,
};
use crate::xep::{disco, ping};
use crate::xml::Element;

/// Whom a stanza is for.
pub(super) enum Asked {
    /// Nobody: it needs no answer.
    Nothing,
    /// The service itself: this is the content of its answer.
    Service(Option<Element>),
    /// A node.
    Node(NodeAddress),
    /// All nodes.
    All(Question),
}

impl Shard {
    /// Whom a stanza for a pubsub service is for. The same wherever it is asked.
    pub(super) fn asked(&self, forward: &Forward) -> Result<Asked, StanzaError> {
        let stanza = &forward.stanza;
        let to = stanza.to.as_ref().ok_or_else(StanzaError::bad_request)?;
        let service = to.to_bare();
        if self.feature_level < FEATURE_LEVEL {
            return match stanza.kind {
                Kind::Presence(_) => Ok(Asked::Nothing),
                // A node that has just started does not know yet.
                _ if self.feature_level == 0 => Err(StanzaError::resource_constraint()),
                _ => Err(StanzaError::service_unavailable()),
            };
        }
        match stanza.kind {
            Kind::Presence(_) | Kind::Iq(IqType::Result | IqType::Error) => Ok(Asked::Nothing),
            Kind::Message(_) => message(&service, stanza),
            Kind::Iq(type_) => self.request(&service, type_, forward),
        }
    }

    fn request(&self, service: &BareJid, type_: IqType, forward: &Forward) -> Result<Asked, StanzaError> {
        let query = forward
            .stanza
            .payload_element()
            .map_err(|_| StanzaError::bad_request())?;
        if is_get_pending(&query) {
            return match (type_, pending_node(&query)) {
                (IqType::Set, Some(node)) => Ok(Asked::Node(NodeAddress::new(service.clone(), node))),
                (IqType::Set, None) => Ok(Asked::All(Question::Pending)),
                _ => Err(StanzaError::bad_request()),
            };
        }
        let known = [NS, NS_OWNER, disco::NS_INFO, disco::NS_ITEMS];
        if !known.contains(&query.ns()) {
            return match query.is("ping", ping::NS) && type_ == IqType::Get {
                true => Ok(Asked::Service(None)),
                false => Err(StanzaError::service_unavailable()),
            };
        }
        if let Some(node) = node_of(&query) {
            let too_long = || StanzaError::not_acceptable().with_text("the id of the node is too long");
            let node = NodeId::new(node).ok_or_else(too_long)?;
            return Ok(Asked::Node(NodeAddress::new(service.clone(), node)));
        }
        if let Some(question) = Question::parse(type_, &query)? {
            return Ok(Asked::All(question));
        }
        let asked = query.children().next().map(Element::name);
        match (type_, query.ns(), asked) {
            (IqType::Get, disco::NS_INFO, _) => Ok(Asked::Service(Some(pubsub::service_info()))),
            (IqType::Set, NS, Some("create")) => {
                let node = instant_node(forward.session, forward.frame);
                Ok(Asked::Node(NodeAddress::new(service.clone(), node)))
            }
            (IqType::Get, NS, Some("default")) => Ok(Asked::Service(Some(Evaluation::service_options()))),
            (IqType::Get, NS_OWNER, Some("default")) => {
                let config = pubsub::Config::of_service(&self.config.limits.pubsub);
                let type_ = query.children().next().and_then(|default| default.attr("type"));
                Evaluation::default_configuration(&config, type_).map(|content| Asked::Service(Some(content)))
            }
            (_, NS | NS_OWNER, Some(_)) => Err(pubsub::nodeid_required()),
            _ => Err(StanzaError::bad_request()),
        }
    }
}

/// An owner's verdict on a subscription, or a notification that came back.
fn message(service: &BareJid, message: &Stanza) -> Result<Asked, StanzaError> {
    let node = if message.kind.is_error() {
        match message.id.as_deref().and_then(node_of_notification) {
            Some(node) => node,
            None => return Ok(Asked::Nothing),
        }
    } else {
        match Verdict::of(message) {
            Some(verdict) => verdict.node,
            None if Verdict::is_cancelled(message) => return Ok(Asked::Nothing),
            None => return Err(StanzaError::service_unavailable()),
        }
    };
    Ok(Asked::Node(NodeAddress::new(service.clone(), node)))
}

/// The id of a node whose creator has chosen none (XEP-0060 §8.1.1). The same when the frame is sent again, so there is one node.
fn instant_node(session: SessionId, frame: u64) -> NodeId {
    let hash = Sha256::new()
        .chain_update(session.to_bytes())
        .chain_update(frame.to_be_bytes())
        .finalize();
    let hex: String = hash.iter().take(20).map(|byte| format!("{byte:02x}")).collect();
    NodeId::new(&hex).expect("40 characters are an id")
}
