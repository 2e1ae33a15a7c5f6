//! The node as the admin port sees it.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use heronry_cluster::{
    Group, GroupsHandle, Leadership, Store,
    map::METADATA,
    member::{Member, WeakMember},
};
use heronry_proto::admin::{
    BackupReply, ClusterDrainReply, ClusterEvictReply, ClusterInitReply, ClusterStatusReply, ClusterUpgradeReply,
    Resources, RestoreAdvanceRequest, RestoreBeginRequest, RestorePhase, RestoreRowsRequest, ShardRole, ShardStatus,
    Totals,
};
use heronry_xmpp::{
    jid::{self, BareJid},
    link::{NodeId, ShardId},
    sasl::ScramKeys,
    shard::{Account, Administer, Administered, Existing, Imported, ShardMap},
};

use super::{
    accounts::Accounts,
    cluster,
    metrics::{self, Space},
    restore,
};
use crate::{
    admin::{BackupRows, Broker, BrokerError, BrokerStatus, Cursor, UserFilter, UserPage},
    config::{Config, Role},
    edge::{Edge, Hub},
    links::Router,
    shard::{Statuses, replicas},
    telemetry::Usage,
};

/// The broker of this node.
pub struct LocalBroker {
    node: NodeId,
    hub: Arc<Hub>,
    router: Arc<Router>,
    has_edge: bool,
    accounts: Arc<Accounts>,
    statuses: Arc<Statuses>,
    groups: GroupsHandle,
    map: ShardMap,
    store: Arc<dyn Store>,
    edge: Arc<Edge>,
    data: PathBuf,
    stall_after: Duration,
    stopping: AtomicBool,
    has_listeners: bool,
    member: WeakMember,
}

/// What a broker is made of.
pub(super) struct Parts {
    pub(super) node: NodeId,
    pub(super) hub: Arc<Hub>,
    pub(super) router: Arc<Router>,
    pub(super) accounts: Arc<Accounts>,
    pub(super) statuses: Arc<Statuses>,
    pub(super) groups: GroupsHandle,
    pub(super) map: ShardMap,
    pub(super) store: Arc<dyn Store>,
    pub(super) edge: Arc<Edge>,
    pub(super) member: WeakMember,
}

impl LocalBroker {
    pub(super) fn new(parts: Parts, config: &Config) -> Self {
        let Parts {
            node,
            hub,
            router,
            accounts,
            statuses,
            groups,
            map,
            store,
            edge,
            member,
        } = parts;
        Self {
            node,
            hub,
            router,
            has_edge: config.roles.contains(&Role::Edge),
            accounts,
            statuses,
            groups,
            map,
            store,
            edge,
            data: config.data().to_owned(),
            stall_after: config.limits.group.stall_after,
            stopping: AtomicBool::new(false),
            member,
            has_listeners: !config.edge.c2s.is_empty() || !config.edge.c2s_tls.is_empty(),
        }
    }

    /// From now on nobody can log in.
    pub(super) fn stops(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    fn member(&self) -> Result<Member, BrokerError> {
        let member = self.member.upgrade();
        member.ok_or_else(|| BrokerError::Unavailable("the broker is stopping".to_owned()))
    }

    /// What the node waits for while it belongs to no cluster.
    fn waits_for(&self) -> Option<String> {
        let member = self.member.upgrade()?;
        let waits = member.map().borrow().is_none();
        waits.then(|| member.waits_for())
    }

    async fn administer(&self, account: &BareJid, request: Administer) -> Result<(), BrokerError> {
        let shard = self.map.shard_of(jid::slot(account.as_str()));
        match self.accounts.administer(shard, request).await? {
            Administered::Done | Administered::Imported(_) => Ok(()),
            Administered::Exists => Err(BrokerError::AlreadyExists(account.clone())),
            Administered::Unknown => Err(BrokerError::NotFound(account.clone())),
            Administered::Unavailable
            | Administered::Restoring(_)
            | Administered::HasAccounts
            | Administered::OtherRestore
            | Administered::NotRows => Err(cannot(shard)),
        }
    }

    /// Whether every shard is led by somebody. Edges are told so, and shards are.
    pub(super) fn all_led(&self) -> bool {
        if self.has_edge {
            self.hub.all_led()
        } else {
            self.router.all_led()
        }
    }

    /// A backup is on its way into shards of this node, or got stuck there.
    fn restores(&self) -> Option<String> {
        let mut groups = self.shards().into_iter();
        let restores = groups.any(|group| self.statuses.stats_of(ShardId(group.shard().0)).restoring);
        restores.then(|| {
            "a backup is being restored: nobody can log in until `heronry restore` has finished; if it broke off, say it again".to_owned()
        })
    }

    /// The shards that have a replica here.
    fn shards(&self) -> Vec<Group> {
        let mut groups = self.groups.list();
        groups.retain(|group| group.shard() != METADATA);
        groups
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

/// Below this part of the file system, and of [`DISK_FREE_BYTES_MIN`], the disk counts as almost full.
const DISK_FREE_PART_MIN: f64 = 0.05;

/// What is always enough for a while.
const DISK_FREE_BYTES_MIN: u64 = 1 << 30;

/// A certificate that is good for less than that, in seconds, is to be renewed now.
const CERTIFICATE_LEFT_MIN: f64 = 3.0 * 86_400.0;

/// From this part of what is possible on, connections count as almost all.
const STREAMS_PART_MAX: f64 = 0.95;

impl LocalBroker {
    /// The space on the disk; nothing where the operating system does not say.
    fn space(&self) -> Option<Space> {
        let found = rustix::fs::statvfs(&self.data).ok()?;
        Some(Space {
            free: found.f_bavail * found.f_frsize,
            size: found.f_blocks * found.f_frsize,
        })
    }

    /// What is wrong, a sentence each, beside shards.
    fn problems(&self, resources: &Resources) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.has_listeners {
            problems.push("there is no listener for clients: edge.c2s and edge.c2s_tls are empty".to_owned());
        }
        let health = self.store.health();
        let stalled = health.stalled;
        if stalled >= self.stall_after {
            problems.push(format!("the disk has not finished a write for {} s", stalled.as_secs()));
        }
        let (free, size) = (resources.disk_free_bytes, resources.disk_size_bytes);
        if health.full {
            problems.push(format!(
                "the disk of {} has less room than limits.storage.disk_reserve_bytes: this node accepts nothing that writes until it has more",
                self.data.display()
            ));
        } else if size > 0 && free < DISK_FREE_BYTES_MIN && (free as f64) < size as f64 * DISK_FREE_PART_MIN {
            let mebibytes = free >> 20;
            problems.push(format!(
                "the disk of {} is almost full: {mebibytes} MiB are left",
                self.data.display()
            ));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let certificates = [
            ("the certificate", "devices", Some(self.edge.certificate_not_after())),
            (
                "the certificate of links",
                "other nodes",
                self.member.upgrade().and_then(|member| member.certificate_not_after()),
            ),
        ];
        for (certificate, who, not_after) in certificates {
            let left = not_after.map_or(f64::MAX, |not_after| not_after as f64 - now.as_secs_f64());
            if left < 0.0 {
                problems.push(format!("{certificate} has expired: {who} refuse it"));
            } else if left < CERTIFICATE_LEFT_MIN {
                problems.push(format!("{certificate} expires in {:.0} hours", left / 3600.0));
            }
        }
        let (streams, max) = (self.hub.connections(), self.edge.connections_max());
        if streams as f64 >= max as f64 * STREAMS_PART_MAX {
            problems.push(format!("{streams} of {max} possible connections are taken"));
        }
        problems
    }

    fn resources(&self) -> Resources {
        let usage = Usage::now();
        let space = self.space().unwrap_or_default();
        Resources {
            cpu_seconds: usage.cpu_seconds,
            memory_bytes: usage.memory_bytes,
            files_open: usage.files_open,
            files_max: usage.files_max,
            streams_max: self.edge.connections_max() as u64,
            disk_free_bytes: space.free,
            disk_size_bytes: space.size,
        }
    }
}

impl Broker for LocalBroker {
    fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.stopping.load(Ordering::Acquire) {
            reasons.push("the broker is stopping".to_owned());
        }
        if self.edge.is_leaving() {
            reasons.push("the node is being drained".to_owned());
        }
        if let Some(sentence) = self.waits_for() {
            reasons.push(sentence);
            return reasons;
        }
        let here = self.shards();
        let waiting = here.iter().map(|group| self.shard_status(group));
        reasons.extend(waiting.filter_map(|shard| problem(&shard)));
        reasons.extend(self.restores());
        if reasons.is_empty() && !self.all_led() {
            reasons.push("a shard on other nodes has no leader".to_owned());
        }
        reasons
    }

    fn measure(&self) {
        self.store.measure();
        self.edge.measure();
        self.statuses.measure();
        if let Some(space) = self.space() {
            metrics::measured(space);
        }
        let statuses: Vec<_> = self
            .shards()
            .iter()
            .map(|group| self.shard_status(group).role())
            .collect();
        let count = |role| statuses.iter().filter(|status| **status == role).count();
        replicas([
            ("leader", count(ShardRole::Leader)),
            ("catching-up", count(ShardRole::CatchingUp)),
            ("follower", count(ShardRole::Follower)),
            ("failed", count(ShardRole::Failed)),
        ]);
    }

    async fn status(&self) -> BrokerStatus {
        let shards: Vec<_> = self.shards().iter().map(|group| self.shard_status(group)).collect();
        let sums = self.statuses.sums();
        let committed = self.statuses.committed();
        let resources = self.resources();
        let mut problems: Vec<_> = self.waits_for().into_iter().collect();
        problems.extend(shards.iter().filter_map(problem));
        problems.extend(self.restores());
        problems.extend(self.problems(&resources));
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
            resources,
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
        filter: UserFilter,
        after: Option<Cursor>,
        count: usize,
    ) -> Result<UserPage, BrokerError> {
        self.accounts.list(filter, after, count).await
    }

    fn import_lane(&self, account: &BareJid) -> usize {
        usize::from(self.map.shard_of(jid::slot(account.as_str())).0)
    }

    async fn user_import(
        &self,
        lane: usize,
        accounts: Arc<[Account]>,
        existing: Existing,
    ) -> Result<Vec<Imported>, BrokerError> {
        let shard = ShardId(u16::try_from(lane).unwrap_or(u16::MAX));
        let written = accounts.len();
        let request = Administer::Import { accounts, existing };
        match self.accounts.administer(shard, request).await? {
            Administered::Imported(results) if results.len() == written => Ok(results),
            _ => Err(cannot(shard)),
        }
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

    async fn backup(&self) -> Result<BackupReply, BrokerError> {
        let member = self.member()?;
        let map = member.map().borrow().clone();
        let waits = || BrokerError::Refused(format!("this node belongs to no cluster yet: {}", member.waits_for()));
        let map = map.ok_or_else(waits)?;
        if self.restores().is_some() {
            return Err(BrokerError::Refused(
                "a backup is being restored here, and half of it is no backup: finish that first".to_owned(),
            ));
        }
        Ok(BackupReply {
            cluster: map.cluster.to_string(),
            name: map.name.clone(),
            map_version: map.version,
            feature_level: map.feature_level,
            shards: u32::try_from(map.shards_count()).unwrap_or(u32::MAX),
            domains: self.accounts.domains.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    async fn backup_shard(&self, shard: u16) -> Result<BackupRows, BrokerError> {
        self.accounts.export(ShardId(shard)).await
    }

    async fn restore_begin(&self, request: RestoreBeginRequest) -> Result<RestorePhase, BrokerError> {
        self.accounts.restore_begin(request).await.map(restore::wire_phase)
    }

    async fn restore_rows(&self, request: RestoreRowsRequest) -> Result<(), BrokerError> {
        let (backup, phase) = (restore::name_of(&request.backup)?, restore::phase(request.phase()));
        let rows = request.rows.into_iter().map(|row| (row.key, row.value)).collect();
        self.accounts.restore_rows(backup, phase, rows).await
    }

    async fn restore_advance(&self, request: RestoreAdvanceRequest) -> Result<(), BrokerError> {
        let (backup, to) = (restore::name_of(&request.backup)?, restore::phase(request.to()));
        self.accounts.restore_advance(backup, to).await
    }

    async fn cluster_status(&self) -> Result<ClusterStatusReply, BrokerError> {
        cluster::status(&self.member()?).await
    }

    async fn cluster_init(&self, force: bool) -> Result<ClusterInitReply, BrokerError> {
        cluster::init(&self.member()?, force).await
    }

    async fn cluster_drain(&self, node: String) -> Result<ClusterDrainReply, BrokerError> {
        cluster::drain(&self.member()?, &node).await
    }

    async fn cluster_evict(&self, node: String, force: bool) -> Result<ClusterEvictReply, BrokerError> {
        cluster::evict(&self.member()?, &node, force).await
    }

    async fn cluster_upgrade(&self) -> Result<ClusterUpgradeReply, BrokerError> {
        cluster::upgrade(&self.member()?).await
    }

    async fn cluster_rebalance(&self) -> Result<(), BrokerError> {
        cluster::rebalance(&self.member()?).await
    }
}

/// What is wrong with a shard.
fn problem(shard: &ShardStatus) -> Option<String> {
    let number = shard.shard;
    match shard.role() {
        ShardRole::Leader => None,
        ShardRole::CatchingUp => Some(format!("shard {number} waits for its edges before it serves")),
        ShardRole::Failed => Some(format!("shard {number} has stopped: its storage has failed")),
        ShardRole::Follower if shard.leader.is_some() => None,
        ShardRole::Follower | ShardRole::Unspecified => Some(format!("shard {number} has no leader")),
    }
}

fn cannot(shard: ShardId) -> BrokerError {
    BrokerError::Unavailable(format!("shard {} cannot do it at present", shard.0))
}
