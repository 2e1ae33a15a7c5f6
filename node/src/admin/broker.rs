//! What the admin port asks of the broker.

use std::future::Future;

use heronry_proto::admin::{ShardStatus, Totals};
use heronry_xmpp::{jid::BareJid, sasl::ScramKeys};

/// The broker as the admin port sees it. Answers that say "done" are durable.
pub trait Broker: Send + Sync + 'static {
    /// Whether clients can log in now: every shard that this node should lead is led.
    fn is_ready(&self) -> bool;

    /// The node at a glance. Never waits for a quorum.
    fn status(&self) -> impl Future<Output = BrokerStatus> + Send;

    /// Creates an account that logs in with these keys, at most one for each hash.
    fn user_add(&self, account: BareJid, keys: Vec<ScramKeys>) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// Up to `count` accounts, of one domain or of all; `after` is the cursor of the page before. Not a snapshot: accounts made
    /// or deleted meanwhile may be missed or listed.
    fn user_list(
        &self,
        domain: Option<String>,
        after: Option<Cursor>,
        count: usize,
    ) -> impl Future<Output = Result<UserPage, BrokerError>> + Send;

    /// Removes an account with everything that is its own, and ends its sessions.
    fn user_delete(&self, account: BareJid) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// Replaces the keys of an account. Its sessions go on.
    fn user_passwd(
        &self,
        account: BareJid,
        keys: Vec<ScramKeys>,
    ) -> impl Future<Output = Result<(), BrokerError>> + Send;
}

/// Where a page of a list ended; only the broker knows what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub bytes::Bytes);

/// A part of the list of accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserPage {
    /// In the broker's order.
    pub accounts: Vec<BareJid>,
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
    /// Not now: the shard has no leader, or is overloaded. Trying again helps.
    #[error("{0}; try again")]
    Unavailable(String),
    /// It failed for a reason that trying again does not mend.
    #[error("{0}")]
    Failed(String),
}
