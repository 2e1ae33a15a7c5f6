//! The node as the admin port sees it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use heronry_cluster::{Group, Leadership};
use heronry_proto::admin::{ShardRole, ShardStatus, Totals};
use heronry_xmpp::{
    jid::{self, BareJid},
    link::{NodeId, ShardId},
    rows::SHARD_SLOTS,
    sasl::ScramKeys,
    shard::{Account, Administer, Administered, ShardMap, accounts_of},
};
use tokio::sync::oneshot;

use crate::{
    admin::{Broker, BrokerError, BrokerStatus, Cursor, UserPage},
    config::Config,
    edge::Hub,
    shard::{Control, Inboxes, Statuses},
};

/// How long a shard may take to carry out what an operator wants.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The broker of this node.
pub struct LocalBroker {
    node: NodeId,
    hub: Arc<Hub>,
    inboxes: Arc<Inboxes>,
    statuses: Arc<Statuses>,
    groups: Vec<Group>,
    map: ShardMap,
    stopping: AtomicBool,
    has_listeners: bool,
}

impl LocalBroker {
    pub(super) fn new(
        node: NodeId,
        hub: Arc<Hub>,
        inboxes: Arc<Inboxes>,
        statuses: Arc<Statuses>,
        groups: Vec<Group>,
        config: &Config,
    ) -> Self {
        // At most the number of shards, which is a u16.
        let map = ShardMap::even(groups.len() as u16);
        Self {
            node,
            hub,
            inboxes,
            statuses,
            groups,
            map,
            stopping: AtomicBool::new(false),
            has_listeners: !config.edge.c2s.is_empty() || !config.edge.c2s_tls.is_empty(),
        }
    }

    /// From now on nobody can log in.
    pub(super) fn stops(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    async fn administer(&self, account: &BareJid, request: Administer) -> Result<(), BrokerError> {
        let shard = self.map.shard_of(jid::slot(account.as_str()));
        let unavailable = |why: &str| Err(BrokerError::Unavailable(format!("shard {} {why}", shard.0)));
        let Some(inbox) = self.inboxes.of(shard) else {
            return unavailable("is not here");
        };
        let (answer, answered) = oneshot::channel();
        inbox.control(Control::Administer {
            request: Box::new(request),
            answer,
        });
        match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
            Ok(Ok(Administered::Done)) => Ok(()),
            Ok(Ok(Administered::Exists)) => Err(BrokerError::AlreadyExists(account.clone())),
            Ok(Ok(Administered::Unknown)) => Err(BrokerError::NotFound(account.clone())),
            Ok(Ok(Administered::Unavailable)) => unavailable("has no leader"),
            // It may have been done.
            Ok(Err(_)) => unavailable("has got a new leader before it could answer"),
            Err(_) => unavailable("does not answer"),
        }
    }

    fn shard_status(&self, group: &Group) -> ShardStatus {
        let shard = ShardId(group.shard().0);
        let stats = self.statuses.stats_of(shard);
        let (role, term, leader) = match *group.leadership().borrow() {
            Leadership::Leader { term } => {
                let role = match self.statuses.term(shard) {
                    Some(_) => ShardRole::Leader,
                    None => ShardRole::CatchingUp,
                };
                (role, term.0, Some(self.node.0))
            }
            Leadership::Follower { leader } => (ShardRole::Follower, 0, leader.map(|leader| leader.0)),
            Leadership::Closed => (ShardRole::Failed, 0, None),
        };
        ShardStatus {
            shard: shard.0.into(),
            role: role.into(),
            term,
            leader,
            sessions: (stats.attached + stats.detached) as u64,
            sessions_detached: stats.detached as u64,
            queued: stats.forwards as u64,
            applied: group.applied(),
        }
    }
}

impl Broker for LocalBroker {
    fn is_ready(&self) -> bool {
        self.statuses.all_lead() && !self.stopping.load(Ordering::Acquire)
    }

    async fn status(&self) -> BrokerStatus {
        let shards: Vec<_> = self.groups.iter().map(|group| self.shard_status(group)).collect();
        let sums = self.statuses.sums();
        let committed = self.statuses.committed();
        let mut problems: Vec<_> = shards
            .iter()
            .filter(|shard| shard.role != i32::from(ShardRole::Leader))
            .map(|shard| format!("shard {} is not led", shard.shard))
            .collect();
        if !self.has_listeners {
            problems.push("there is no listener for clients: edge.c2s and edge.c2s_tls are empty".to_owned());
        }
        BrokerStatus {
            node_id: self.node.0,
            shards,
            totals: Totals {
                streams: self.hub.connections() as u64,
                sessions: (sums.attached + sums.detached) as u64,
                sessions_detached: sums.detached as u64,
                stanzas_accepted: self.hub.accepted(),
                entries_committed: committed.entries,
                batches_committed: committed.batches,
            },
            problems,
        }
    }

    async fn user_add(&self, account: BareJid, keys: Vec<ScramKeys>) -> Result<(), BrokerError> {
        let request = Administer::Add(Account {
            jid: account.clone(),
            keys,
        });
        self.administer(&account, request).await
    }

    async fn user_list(
        &self,
        domain: Option<String>,
        after: Option<Cursor>,
        count: usize,
    ) -> Result<UserPage, BrokerError> {
        let (groups, map) = (self.groups.clone(), self.map.clone());
        // It reads from the disk.
        let listed = tokio::task::spawn_blocking(move || list(&groups, &map, domain.as_deref(), after, count)).await;
        listed.map_err(|error| BrokerError::Failed(format!("accounts cannot be listed: {error}")))?
    }

    async fn user_delete(&self, account: BareJid) -> Result<(), BrokerError> {
        self.administer(&account, Administer::Delete(account.clone())).await
    }

    async fn user_passwd(&self, account: BareJid, keys: Vec<ScramKeys>) -> Result<(), BrokerError> {
        let request = Administer::SetKeys(Account {
            jid: account.clone(),
            keys,
        });
        self.administer(&account, request).await
    }
}

/// One page of accounts, slot by slot.
fn list(
    groups: &[Group],
    map: &ShardMap,
    domain: Option<&str>,
    after: Option<Cursor>,
    count: usize,
) -> Result<UserPage, BrokerError> {
    let mut after = after.as_ref().and_then(last_of);
    let first = after.as_ref().map_or(0, |last| jid::slot(last.as_str()));
    let mut accounts = Vec::new();
    for slot in first..SHARD_SLOTS {
        let Some(group) = groups.get(usize::from(map.shard_of(slot).0)) else {
            continue;
        };
        let rows = group.rows();
        loop {
            let page = accounts_of(&rows, slot, after.as_ref(), count);
            let page = page.map_err(|error| BrokerError::Failed(error.to_string()))?;
            let is_last = page.len() < count;
            after = page.last().cloned();
            accounts.extend(
                page.into_iter()
                    .filter(|jid| domain.is_none_or(|domain| jid.domain() == domain)),
            );
            if accounts.len() >= count {
                accounts.truncate(count);
                let next = accounts.last().map(|jid| Cursor(jid.as_str().to_owned().into()));
                return Ok(UserPage { accounts, next });
            }
            if is_last {
                break;
            }
        }
        after = None;
    }
    Ok(UserPage { accounts, next: None })
}

/// The account a page ended with.
fn last_of(cursor: &Cursor) -> Option<BareJid> {
    BareJid::parse(std::str::from_utf8(&cursor.0).ok()?).ok()
}
