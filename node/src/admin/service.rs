//! The Admin service: requests are checked here, then asked of the broker.

use std::{pin::Pin, sync::Arc, time::Instant};

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use heronry_proto::admin::{
    BackupReply, BackupRequest, BackupShardReply, BackupShardRequest, ClusterDrainReply, ClusterDrainRequest,
    ClusterEvictReply, ClusterEvictRequest, ClusterInitReply, ClusterInitRequest, ClusterRebalanceReply,
    ClusterRebalanceRequest, ClusterStatusReply, ClusterStatusRequest, ClusterUpgradeReply, ClusterUpgradeRequest,
    ExportedUser, Health, ListedUser, RestoreAdvanceReply, RestoreAdvanceRequest, RestoreBeginReply,
    RestoreBeginRequest, RestoreRowsReply, RestoreRowsRequest, ScramHash as WireHash, ScramKeySet,
    ScramKeys as WireKeys, StatusReply, StatusRequest, UserAddReply, UserAddRequest, UserCountReply, UserDeleteReply,
    UserDeleteRequest, UserExportReply, UserImportReply, UserImportRequest, UserListReply, UserListRequest,
    UserPasswdReply, UserPasswdRequest, admin_server, user_add_request, user_passwd_request,
};
use heronry_xmpp::{
    jid::BareJid,
    sasl::{Password, ScramHash, ScramKeys},
    shard::Listed,
};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    Broker, BrokerError, Cursor, UserFilter,
    import::{Import, ImportLimits},
    metrics,
};
use crate::config::{Config, Role};

/// Accounts asked of the broker at a time.
const PAGE: usize = 256;

/// Replies of an import that wait for its caller.
const REPLIES_WAITING: usize = 16;

/// The service; clones share everything.
pub(super) struct AdminService<B>(Arc<Inner<B>>);

struct Inner<B> {
    broker: Arc<B>,
    domains: Vec<String>,
    roles: Vec<Role>,
    hashes: Vec<ScramHash>,
    started: Instant,
    /// Deriving keys costs a core some 20 ms: two at a time, the rest wait.
    derivations: Semaphore,
    import_limits: ImportLimits,
    /// One import at a time; the next waits.
    imports: Semaphore,
}

/// What a request says an account logs in with.
pub(super) enum Credentials {
    Password(String),
    Keys(ScramKeySet),
}

impl<B> Clone for AdminService<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B: Broker> AdminService<B> {
    pub(super) fn new(config: &Config, broker: Arc<B>) -> Self {
        Self(Arc::new(Inner {
            broker,
            domains: config.domains.clone(),
            roles: config.roles.clone(),
            hashes: config.auth.scram_hashes(),
            started: Instant::now(),
            derivations: Semaphore::new(2),
            import_limits: ImportLimits {
                batch_bytes: config.limits.import_batch_bytes,
                batches_max: usize::from(config.limits.import_batches_max),
            },
            imports: Semaphore::new(1),
        }))
    }

    pub(super) fn broker(&self) -> &B {
        &self.0.broker
    }

    /// The bare JID of an account in one of our domains.
    pub(super) fn account(&self, text: &str) -> Result<BareJid, Status> {
        let account = BareJid::parse(text)
            .map_err(|error| Status::invalid_argument(format!("{text:?} is not the address of an account: {error}")))?;
        if account.local().is_none() {
            return Err(Status::invalid_argument(format!(
                "{text:?} is a domain: write NAME@{text}"
            )));
        }
        if !self.0.domains.iter().any(|domain| domain == account.domain()) {
            let domains = self.0.domains.join(", ");
            return Err(Status::invalid_argument(format!(
                "{} is not served here, only {domains}",
                account.domain()
            )));
        }
        Ok(account)
    }

    async fn keys(&self, credentials: Option<Credentials>) -> Result<Vec<ScramKeys>, Status> {
        match credentials {
            Some(Credentials::Password(password)) => self.derive(&password).await,
            Some(Credentials::Keys(set)) => given_keys(set),
            None => Err(Status::invalid_argument("a password or keys are needed")),
        }
    }

    /// As [`Self::keys`], on a thread that may be busy for as long as deriving takes.
    pub(super) fn keys_now(&self, credentials: Option<Credentials>) -> Result<Vec<ScramKeys>, Status> {
        match credentials {
            Some(Credentials::Password(password)) => derive(&self.0.hashes, &prepared(&password)?),
            Some(Credentials::Keys(set)) => given_keys(set),
            None => Err(Status::invalid_argument("a password or keys are needed")),
        }
    }

    /// Keys for every enabled SCRAM hash.
    async fn derive(&self, password: &str) -> Result<Vec<ScramKeys>, Status> {
        let password = prepared(password)?;
        let _permit = self
            .0
            .derivations
            .acquire()
            .await
            .map_err(|_| Status::unavailable("the broker is stopping"))?;
        let hashes = self.0.hashes.clone();
        let derived = tokio::task::spawn_blocking(move || derive(&hashes, &password)).await;
        derived.unwrap_or_else(|error| Err(Status::internal(format!("keys were not derived: {error}"))))
    }

    /// Waits until no other import is under way.
    pub(super) async fn import_turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.0.imports.acquire().await.ok()
    }

    /// Accounts, a page at a time; a page is asked for when the one before has been sent.
    fn pages<T: Send + 'static>(
        &self,
        request: UserListRequest,
        reply: impl Fn(Vec<Listed>) -> T + Copy + Send + 'static,
    ) -> Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>> {
        let broker = Arc::clone(&self.0.broker);
        let filter = filter(request);
        Box::pin(stream::try_unfold(Some(None::<Cursor>), move |position| {
            let (broker, filter) = (Arc::clone(&broker), filter.clone());
            async move {
                let Some(after) = position else {
                    return Ok::<_, Status>(None);
                };
                let page = broker.user_list(filter, after, PAGE).await.map_err(status)?;
                Ok(Some((reply(page.accounts), page.next.map(Some))))
            }
        }))
    }
}

fn filter(request: UserListRequest) -> UserFilter {
    let UserListRequest { domain, prefix } = request;
    UserFilter { domain, prefix }
}

fn listed(account: Listed) -> ListedUser {
    ListedUser {
        jid: account.jid.as_str().to_owned(),
        created: account.created.0,
        hashes: account.keys.iter().map(|keys| wire_hash(keys.hash()).into()).collect(),
    }
}

fn exported(account: &Listed) -> ExportedUser {
    let keys = account.keys.iter().map(|keys| WireKeys {
        hash: wire_hash(keys.hash()).into(),
        iterations: keys.iterations(),
        salt: keys.salt().to_vec().into(),
        stored_key: keys.stored_key().to_vec().into(),
        server_key: keys.server_key().to_vec().into(),
    });
    ExportedUser {
        jid: account.jid.as_str().to_owned(),
        keys: Some(ScramKeySet { keys: keys.collect() }),
    }
}

fn wire_hash(hash: ScramHash) -> WireHash {
    match hash {
        ScramHash::Sha1 => WireHash::Sha1,
        ScramHash::Sha256 => WireHash::Sha256,
        ScramHash::Sha512 => WireHash::Sha512,
    }
}

fn prepared(password: &str) -> Result<Password, Status> {
    Password::new(password).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Keys for each of these hashes.
fn derive(hashes: &[ScramHash], password: &Password) -> Result<Vec<ScramKeys>, Status> {
    let mut failure = None;
    let mut random = |bytes: &mut [u8]| failure = getrandom::fill(bytes).err().or_else(|| failure.take());
    let keys = hashes
        .iter()
        .map(|hash| ScramKeys::generate(*hash, password, &mut random))
        .collect();
    match failure {
        None => Ok(keys),
        Some(error) => Err(Status::internal(format!("the system gives no random bytes: {error}"))),
    }
}

fn status(error: BrokerError) -> Status {
    let sentence = error.to_string();
    match error {
        BrokerError::AlreadyExists(_) => Status::already_exists(sentence),
        BrokerError::NotFound(_) => Status::not_found(sentence),
        BrokerError::NoNode(_) => Status::invalid_argument(sentence),
        BrokerError::Refused(_) => Status::failed_precondition(sentence),
        BrokerError::Unavailable(_) => Status::unavailable(sentence),
        BrokerError::Failed(_) => Status::internal(sentence),
    }
}

fn given_keys(set: ScramKeySet) -> Result<Vec<ScramKeys>, Status> {
    let mut all: Vec<ScramKeys> = Vec::new();
    for keys in set.keys {
        let hash = match keys.hash() {
            WireHash::Sha1 => ScramHash::Sha1,
            WireHash::Sha256 => ScramHash::Sha256,
            WireHash::Sha512 => ScramHash::Sha512,
            WireHash::Unspecified => return Err(Status::invalid_argument("keys need the name of their hash")),
        };
        if all.iter().any(|keys| keys.hash() == hash) {
            return Err(Status::invalid_argument(format!(
                "there are two keys for {}",
                hash.name()
            )));
        }
        let keys =
            ScramKeys::new(hash, &keys.salt, keys.iterations, &keys.stored_key, &keys.server_key).map_err(|error| {
                Status::invalid_argument(format!("the keys for {} cannot be used: {error}", hash.name()))
            })?;
        all.push(keys);
    }
    if all.is_empty() {
        return Err(Status::invalid_argument("a password or keys are needed"));
    }
    Ok(all)
}

#[async_trait]
impl<B: Broker> admin_server::Admin for AdminService<B> {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let status = self.broker().status().await;
        let health = if status.problems.is_empty() {
            Health::Healthy
        } else {
            Health::Degraded
        };
        Ok(Response::new(StatusReply {
            node_id: status.node_id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            roles: self.0.roles.iter().map(|role| role.name().to_owned()).collect(),
            domains: self.0.domains.clone(),
            uptime_seconds: self.0.started.elapsed().as_secs(),
            health: health.into(),
            problems: status.problems,
            shards: status.shards,
            totals: Some(status.totals),
            resources: Some(status.resources),
        }))
    }

    async fn user_add(&self, request: Request<UserAddRequest>) -> Result<Response<UserAddReply>, Status> {
        let request = request.into_inner();
        let account = self.account(&request.jid)?;
        let credentials = request.credentials.map(|credentials| match credentials {
            user_add_request::Credentials::Password(password) => Credentials::Password(password),
            user_add_request::Credentials::Keys(keys) => Credentials::Keys(keys),
        });
        let keys = self.keys(credentials).await?;
        self.broker().user_add(account, keys).await.map_err(status)?;
        Ok(Response::new(UserAddReply {}))
    }

    type UserListStream = Pin<Box<dyn Stream<Item = Result<UserListReply, Status>> + Send>>;

    async fn user_list(&self, request: Request<UserListRequest>) -> Result<Response<Self::UserListStream>, Status> {
        let reply = |accounts: Vec<Listed>| UserListReply {
            users: accounts.into_iter().map(listed).collect(),
        };
        Ok(Response::new(self.pages(request.into_inner(), reply)))
    }

    async fn user_count(&self, request: Request<UserListRequest>) -> Result<Response<UserCountReply>, Status> {
        let pages = self.pages(request.into_inner(), |accounts| accounts.len() as u64);
        let users = pages.try_fold(0, async |sum, page| Ok(sum + page)).await?;
        Ok(Response::new(UserCountReply { users }))
    }

    type UserExportStream = Pin<Box<dyn Stream<Item = Result<UserExportReply, Status>> + Send>>;

    async fn user_export(&self, request: Request<UserListRequest>) -> Result<Response<Self::UserExportStream>, Status> {
        let reply = |accounts: Vec<Listed>| UserExportReply {
            users: accounts.iter().map(exported).collect(),
        };
        Ok(Response::new(self.pages(request.into_inner(), reply)))
    }

    async fn user_delete(&self, request: Request<UserDeleteRequest>) -> Result<Response<UserDeleteReply>, Status> {
        let account = self.account(&request.into_inner().jid)?;
        self.broker().user_delete(account).await.map_err(status)?;
        Ok(Response::new(UserDeleteReply {}))
    }

    async fn user_passwd(&self, request: Request<UserPasswdRequest>) -> Result<Response<UserPasswdReply>, Status> {
        let request = request.into_inner();
        let account = self.account(&request.jid)?;
        let credentials = request.credentials.map(|credentials| match credentials {
            user_passwd_request::Credentials::Password(password) => Credentials::Password(password),
            user_passwd_request::Credentials::Keys(keys) => Credentials::Keys(keys),
        });
        let keys = self.keys(credentials).await?;
        self.broker().user_passwd(account, keys).await.map_err(status)?;
        Ok(Response::new(UserPasswdReply {}))
    }

    type UserImportStream = ReceiverStream<Result<UserImportReply, Status>>;

    async fn user_import(
        &self,
        request: Request<Streaming<UserImportRequest>>,
    ) -> Result<Response<Self::UserImportStream>, Status> {
        let (replies, answers) = mpsc::channel(REPLIES_WAITING);
        let import = Import::new(self.clone(), self.0.import_limits, replies);
        tokio::spawn(import.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn backup(&self, _: Request<BackupRequest>) -> Result<Response<BackupReply>, Status> {
        let reply = self.broker().backup().await.map_err(status)?;
        Ok(Response::new(reply))
    }

    type BackupShardStream = Pin<Box<dyn Stream<Item = Result<BackupShardReply, Status>> + Send>>;

    async fn backup_shard(
        &self,
        request: Request<BackupShardRequest>,
    ) -> Result<Response<Self::BackupShardStream>, Status> {
        let shard = request.into_inner().shard;
        let shard = u16::try_from(shard).map_err(|_| Status::invalid_argument(format!("there is no shard {shard}")))?;
        let chunks = self.broker().backup_shard(shard).await.map_err(status)?;
        let replies = chunks.map(|chunk| match chunk {
            Ok(chunk) => {
                metrics::backed_up(chunk.len());
                Ok(BackupShardReply { chunks: vec![chunk] })
            }
            Err(error) => Err(status(error)),
        });
        Ok(Response::new(replies.boxed()))
    }

    async fn restore_begin(
        &self,
        request: Request<RestoreBeginRequest>,
    ) -> Result<Response<RestoreBeginReply>, Status> {
        let phase = self
            .broker()
            .restore_begin(request.into_inner())
            .await
            .map_err(status)?;
        Ok(Response::new(RestoreBeginReply { phase: phase.into() }))
    }

    async fn restore_rows(&self, request: Request<RestoreRowsRequest>) -> Result<Response<RestoreRowsReply>, Status> {
        let request = request.into_inner();
        let rows = request.rows.len();
        self.broker().restore_rows(request).await.map_err(status)?;
        metrics::restored(rows);
        Ok(Response::new(RestoreRowsReply {}))
    }

    async fn restore_advance(
        &self,
        request: Request<RestoreAdvanceRequest>,
    ) -> Result<Response<RestoreAdvanceReply>, Status> {
        self.broker()
            .restore_advance(request.into_inner())
            .await
            .map_err(status)?;
        Ok(Response::new(RestoreAdvanceReply {}))
    }

    async fn cluster_status(&self, _: Request<ClusterStatusRequest>) -> Result<Response<ClusterStatusReply>, Status> {
        let reply = self.broker().cluster_status().await.map_err(status)?;
        Ok(Response::new(reply))
    }

    async fn cluster_init(&self, request: Request<ClusterInitRequest>) -> Result<Response<ClusterInitReply>, Status> {
        let force = request.into_inner().force;
        let reply = self.broker().cluster_init(force).await.map_err(status)?;
        Ok(Response::new(reply))
    }

    async fn cluster_drain(
        &self,
        request: Request<ClusterDrainRequest>,
    ) -> Result<Response<ClusterDrainReply>, Status> {
        let node = request.into_inner().node;
        let reply = self.broker().cluster_drain(node).await.map_err(status)?;
        Ok(Response::new(reply))
    }

    async fn cluster_evict(
        &self,
        request: Request<ClusterEvictRequest>,
    ) -> Result<Response<ClusterEvictReply>, Status> {
        let ClusterEvictRequest { node, force } = request.into_inner();
        let reply = self.broker().cluster_evict(node, force).await.map_err(status)?;
        Ok(Response::new(reply))
    }

    async fn cluster_upgrade(
        &self,
        _: Request<ClusterUpgradeRequest>,
    ) -> Result<Response<ClusterUpgradeReply>, Status> {
        let reply = self.broker().cluster_upgrade().await.map_err(status)?;
        Ok(Response::new(reply))
    }

    async fn cluster_rebalance(
        &self,
        _: Request<ClusterRebalanceRequest>,
    ) -> Result<Response<ClusterRebalanceReply>, Status> {
        self.broker().cluster_rebalance().await.map_err(status)?;
        Ok(Response::new(ClusterRebalanceReply {}))
    }
}
