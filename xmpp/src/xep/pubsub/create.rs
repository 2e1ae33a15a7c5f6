//! XEP-0060 §8.1: a node is made, by who wants one or by what is published to it (§7.1.4).

use super::config::{Config, FORM_TYPE, Improper};
use super::errors;
use super::evaluation::{Answer, Evaluation, Node};
use super::index::{NodeCountRow, NodeOfShardRow, entity_key, node_count_key, node_of_shard_key};
use super::payload::NS;
use super::rows::{Affiliation, AffiliationRow, NodeRow, StateRow, affiliation_key, node_key};
use crate::stanza::StanzaError;
use crate::xep::data_forms::Form;
use crate::xml::Element;

impl Evaluation<'_> {
    /// §8.1.2, §8.1.3; `named` says whether the node's id is the creator's choice.
    pub(crate) fn create(&mut self, named: bool, configuration: Option<&Form>) -> Answer {
        if self
            .read::<NodeRow>(&node_key(self.address))?
            .is_some_and(|row| row.moved.is_none())
        {
            return Err(StanzaError::conflict().into());
        }
        let mut config = Config::of_service(self.limits());
        if let Some(form) = configuration {
            config = self.configured(&config, form)?;
        }
        let node = self.new_node(config)?;
        self.keep_node(&node);
        self.keep_state(&node);
        let created = Element::new("create", NS).with_attr("node", self.address.node.as_str());
        Ok((!named).then(|| Element::new("pubsub", NS).with_child(created)))
    }

    /// The node as a form asks for it (§8.1.3, §8.2.4).
    pub(crate) fn configured(&self, config: &Config, form: &Form) -> Result<Config, StanzaError> {
        if form.form_type().is_some_and(|type_| type_ != FORM_TYPE) {
            return Err(StanzaError::bad_request());
        }
        config.with_submitted(form, self.limits()).map_err(improper)
    }

    /// A node of who asks; nothing of it is kept yet but what finds it.
    pub(crate) fn new_node(&mut self, config: Config) -> Result<Node, StanzaError> {
        let (shard, service) = (self.shard(), &self.address.service);
        let count_key = node_count_key(shard, service);
        let nodes = self.read::<NodeCountRow>(&count_key)?.unwrap_or_default().nodes;
        if nodes >= self.limits().nodes_per_shard_max {
            return Err(StanzaError::resource_constraint().with_text("this service has too many nodes"));
        }
        self.put(count_key, &NodeCountRow { nodes: nodes + 1 });
        let creator = self.origin.to_bare();
        let incarnation = self.now.0;
        let owner = AffiliationRow {
            affiliation: Affiliation::Owner as i32,
        };
        self.put(affiliation_key(self.address, incarnation, &creator), &owner);
        self.put_bytes(
            entity_key(shard, self.address, incarnation, &creator),
            bytes::Bytes::new(),
        );
        let node = Node {
            row: NodeRow {
                config: None,
                creator: creator.to_string(),
                incarnation,
                owners: vec![creator.to_string()],
                moved: None,
            },
            config,
            state: StateRow {
                affiliations: 1,
                ..StateRow::default()
            },
        };
        self.list(&node);
        Ok(node)
    }

    /// Puts the node into the service's list as it is now.
    pub(crate) fn list(&mut self, node: &Node) {
        let key = node_of_shard_key(self.shard(), self.address);
        let row = NodeOfShardRow {
            title: node.config.title.clone(),
            listed: node.config.is_listed(),
        };
        self.put(key, &row);
    }
}

/// What is said about a configuration that cannot be.
pub(crate) fn improper(improper: Improper) -> StanzaError {
    match improper {
        Improper::AccessModel => errors::unsupported_access_model(),
        Improper::NodeType => errors::unsupported("collections"),
        Improper::Value(var) => StanzaError::not_acceptable().with_text(format!("{var} has no such value")),
        Improper::Unknown(var) => StanzaError::not_acceptable().with_text(format!("there is no field {var}")),
    }
}
