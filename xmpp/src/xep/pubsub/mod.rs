//! XEP-0060: Publish-Subscribe.
//!
//! A pubsub node is an entity of its own (`docs/decisions/0011-publish-subscribe.md`): [`Evaluation`] is one evaluation by it, a
//! file for each group of use cases. What it causes is carried out by [`crate::shard`]: subscribers are notified in their
//! own shards.
//!
//! - [`address`], [`payload`], [`config`], [`options`]: what is asked, read;
//! - `create`, `configure`, `publish`, `remove`, `items`, `subscribe`, `subscribers`, `affiliations`, `approval`, `info`: §5 to §8;
//! - `due`: what happens to a node by itself; `gather`: what is asked of all nodes of a service;
//! - [`rows`], `index`: rows of nodes and of shards; [`effect`]: what shards owe each other.

mod access;
pub mod address;
mod affiliations;
mod approval;
mod config;
mod configure;
mod create;
mod due;
pub mod effect;
mod errors;
mod evaluation;
mod event;
mod gather;
mod index;
mod info;
mod items;
mod limits;
mod options;
pub mod payload;
mod publish;
mod remove;
mod rows;
mod subscribe;
mod subscribers;

pub use evaluation::Standing;
pub use limits::Limits;

pub(crate) use address::{NodeAddress, NodeId, node_of_notification};
pub(crate) use approval::Verdict;
pub(crate) use config::Config;
pub(crate) use errors::nodeid_required;
pub(crate) use evaluation::{Evaluation, NodeEffect, Refusal};
pub(crate) use gather::{Question, is_get_pending, pending_asked, pending_node};
pub(crate) use index::{
    LeftoverRow, NodeCountRow, NodeOfShardRow, deadline_key, deadline_of, deadlines_prefix, entity_key, event_key,
    events_prefix, follower_key, followers_prefix, leftovers_prefix, node_count_key, node_of_shard_key, notifying_key,
    notifyings_prefix,
};
pub(crate) use info::service_info;
pub(crate) use options::Options;
pub(crate) use payload::{Action, node_of};
pub(crate) use rows::{NodeRow, StateRow, SubscriptionRow, node_key, state_key, subscriber_of};

use crate::feature::Spec;

/// The document.
pub static SPEC: Spec = Spec {
    document: "XEP-0060",
    title: "Publish-Subscribe",
    version: "1.30.0",
    host_features: &[],
    account_features: &[],
};
