//! What the admin port asks of the broker.

use std::{future::Future, sync::Arc};

use futures::stream::BoxStream;
use heronry_proto::admin::{
    BackupReply, ClusterDrainReply, ClusterEvictReply, ClusterInitReply, ClusterStatusReply, ClusterUpgradeReply,
    Resources, RestoreAdvanceRequest, RestoreBeginRequest, RestorePhase, RestoreRowsRequest, ShardStatus, Totals,
};
use heronry_xmpp::{
    jid::BareJid,
    sasl::ScramKeys,
    shard::{Account, Existing, Imported, Listed},
};

/// The broker as the admin port sees it. Answers that say "done" are durable.
pub trait Broker: Send + Sync + 'static {
    /// Why clients cannot log in now, a sentence each; empty: they can.
    fn not_ready(&self) -> Vec<String>;

    /// Measures what is not counted as it happens, for metrics. May read files.
    fn measure(&self);

    /// The node at a glance. Never waits for a quorum.
    fn status(&self) -> impl Future<Output = BrokerStatus> + Send;

    /// Creates an account that logs in with these keys, at most one for each hash.
    fn user_add(&self, account: BareJid, keys: Vec<ScramKeys>) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// Up to `count` accounts that the filter admits; `after` is the cursor of the page before. A page may be empty and have a
    /// next one: none takes long. Not a snapshot: accounts made or deleted meanwhile may be missed or listed.
    fn user_list(
        &self,
        filter: UserFilter,
        after: Option<Cursor>,
        count: usize,
    ) -> impl Future<Output = Result<UserPage, BrokerError>> + Send;

    /// In which of several lanes an import of this account goes: accounts of one lane are committed together. Lanes are numbered
    /// from 0, and there are not many.
    fn import_lane(&self, account: &BareJid) -> usize;

    /// Creates accounts of one lane, all or none of those that are to be written; says of each what became of it. May be repeated
    /// when it was [`BrokerError::Unavailable`].
    fn user_import(
        &self,
        lane: usize,
        accounts: Arc<[Account]>,
        existing: Existing,
    ) -> impl Future<Output = Result<Vec<Imported>, BrokerError>> + Send;

    /// Removes an account with everything that is its own, and ends its sessions.
    fn user_delete(&self, account: BareJid) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// Replaces the keys of an account, and ends its sessions.
    fn user_passwd(
        &self,
        account: BareJid,
        keys: Vec<ScramKeys>,
    ) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// What a backup of the cluster is of.
    fn backup(&self) -> impl Future<Output = Result<BackupReply, BrokerError>> + Send;

    /// All rows of a shard as of one moment: chunks of a snapshot.
    fn backup_shard(&self, shard: u16) -> impl Future<Output = Result<BackupRows, BrokerError>> + Send;

    /// Begins to restore a backup, or says where it goes on.
    fn restore_begin(
        &self,
        request: RestoreBeginRequest,
    ) -> impl Future<Output = Result<RestorePhase, BrokerError>> + Send;

    /// Takes rows of a backup. May be repeated.
    fn restore_rows(&self, request: RestoreRowsRequest) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// All rows of the phases before have been taken.
    fn restore_advance(&self, request: RestoreAdvanceRequest) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// The cluster as this node sees it, or what it waits for.
    fn cluster_status(&self) -> impl Future<Output = Result<ClusterStatusReply, BrokerError>> + Send;

    /// Founds a cluster here, if this node waits to be let into one.
    fn cluster_init(&self, force: bool) -> impl Future<Output = Result<ClusterInitReply, BrokerError>> + Send;

    /// Has the node of that id, beginning of an id, or address leave.
    fn cluster_drain(&self, node: String) -> impl Future<Output = Result<ClusterDrainReply, BrokerError>> + Send;

    /// Says that a node is gone for good; named as for [`cluster_drain`](Self::cluster_drain).
    fn cluster_evict(
        &self,
        node: String,
        force: bool,
    ) -> impl Future<Output = Result<ClusterEvictReply, BrokerError>> + Send;

    /// Has replicas moved until they are balanced.
    fn cluster_rebalance(&self) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// Raises the cluster's feature level to what this node's program knows.
    fn cluster_upgrade(&self) -> impl Future<Output = Result<ClusterUpgradeReply, BrokerError>> + Send;
}

/// The rows of a shard for a backup; a stream that ends early lacks its last chunk.
pub type BackupRows = BoxStream<'static, Result<bytes::Bytes, BrokerError>>;

/// Where a page of a list ended; only the broker knows what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub bytes::Bytes);

/// Which accounts are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserFilter {
    /// Only those of this domain; empty: of all.
    pub domain: String,
    /// Only those whose address begins so.
    pub prefix: String,
}

impl UserFilter {
    /// Whether an account is meant.
    pub fn admits(&self, account: &BareJid) -> bool {
        (self.domain.is_empty() || account.domain() == self.domain) && account.as_str().starts_with(&self.prefix)
    }
}

/// A part of the list of accounts.
#[derive(Clone, Debug, Default)]
pub struct UserPage {
    /// In the broker's order.
    pub accounts: Vec<Listed>,
    /// Where the next page starts; `None` when this was the last.
    pub next: Option<Cursor>,
}

/// A node at a glance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrokerStatus {
    /// The node's id.
    pub node_id: u64,
    /// The shards it has a replica of, by number.
    pub shards: Vec<ShardStatus>,
    /// Sums over the node.
    pub totals: Totals,
    /// What it uses.
    pub resources: Resources,
    /// What is wrong, a sentence each; empty when all is well.
    pub problems: Vec<String>,
}

/// Why the broker did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// There is such an account already.
    #[error("there is an account {0} already")]
    AlreadyExists(BareJid),
    /// There is no such account.
    #[error("there is no account {0}")]
    NotFound(BareJid),
    /// No single node of the cluster is named so: a sentence.
    #[error("{0}")]
    NoNode(String),
    /// The cluster refuses it, with a sentence that says what helps.
    #[error("{0}")]
    Refused(String),
    /// Not now: the shard has no leader, or is overloaded. Trying again helps.
    #[error("{0}; try again")]
    Unavailable(String),
    /// It failed for a reason that trying again does not mend.
    #[error("{0}")]
    Failed(String),
}
