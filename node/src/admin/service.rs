//! The Admin service: requests are checked here, then asked of the broker.

use std::{pin::Pin, sync::Arc, time::Instant};

use futures::{Stream, TryStreamExt as _, stream};
use heronry_proto::admin::{
    Health, ScramHash as WireHash, ScramKeySet, StatusReply, StatusRequest, UserAddReply, UserAddRequest,
    UserDeleteReply, UserDeleteRequest, UserImportRefusal, UserImportReply, UserImportRequest, UserListReply,
    UserListRequest, UserPasswdReply, UserPasswdRequest, admin_server, user_add_request, user_import_request,
    user_passwd_request,
};
use heronry_xmpp::{
    jid::BareJid,
    sasl::{Password, ScramHash, ScramKeys},
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{Broker, BrokerError};
use crate::config::{Config, Role};

/// Accounts asked of the broker at a time.
const PAGE: usize = 256;

/// Accounts of an import that wait for the broker at a time.
const IMPORTS_IN_FLIGHT: usize = 32;

/// Refused accounts that an import names.
const REFUSALS_MAX: usize = 100;

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
}

/// What a request says an account logs in with.
enum Credentials {
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
        }))
    }

    pub(super) fn broker(&self) -> &B {
        &self.0.broker
    }

    /// The bare JID of an account in one of our domains.
    fn account(&self, text: &str) -> Result<BareJid, Status> {
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

    /// Keys for every enabled SCRAM hash.
    async fn derive(&self, password: &str) -> Result<Vec<ScramKeys>, Status> {
        let password = Password::new(password).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let _permit = self
            .0
            .derivations
            .acquire()
            .await
            .map_err(|_| Status::unavailable("the broker is stopping"))?;
        let hashes = self.0.hashes.clone();
        let derived = tokio::task::spawn_blocking(move || {
            let mut failure = None;
            let mut random = |bytes: &mut [u8]| failure = getrandom::fill(bytes).err().or_else(|| failure.take());
            let keys = hashes
                .into_iter()
                .map(|hash| ScramKeys::generate(hash, &password, &mut random))
                .collect();
            failure.map_or(Ok(keys), Err)
        });
        match derived.await {
            Ok(Ok(keys)) => Ok(keys),
            Ok(Err(error)) => Err(Status::internal(format!("the system gives no random bytes: {error}"))),
            Err(error) => Err(Status::internal(format!("keys were not derived: {error}"))),
        }
    }

    /// Creates the account or replaces its keys; says whether it was created.
    async fn import(&self, request: UserImportRequest) -> Result<bool, Status> {
        let account = self.account(&request.jid)?;
        let credentials = request.credentials.map(|credentials| match credentials {
            user_import_request::Credentials::Password(password) => Credentials::Password(password),
            user_import_request::Credentials::Keys(keys) => Credentials::Keys(keys),
        });
        let keys = self.keys(credentials).await?;
        let broker = self.broker();
        match broker.user_add(account.clone(), keys.clone()).await {
            Ok(()) => Ok(true),
            Err(BrokerError::AlreadyExists(_)) => {
                broker.user_passwd(account, keys).await.map(|()| false).map_err(status)
            }
            Err(error) => Err(status(error)),
        }
    }
}

fn status(error: BrokerError) -> Status {
    let sentence = error.to_string();
    match error {
        BrokerError::AlreadyExists(_) => Status::already_exists(sentence),
        BrokerError::NotFound(_) => Status::not_found(sentence),
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
        let domain = Some(request.into_inner().domain).filter(|domain| !domain.is_empty());
        let broker = Arc::clone(&self.0.broker);
        // A page is asked for when the one before has been sent.
        let pages = stream::try_unfold(Some(None), move |position| {
            let (broker, domain) = (Arc::clone(&broker), domain.clone());
            async move {
                let Some(after) = position else {
                    return Ok::<_, Status>(None);
                };
                let page = broker.user_list(domain, after, PAGE).await.map_err(status)?;
                let accounts = page.accounts.into_iter().map(|jid| {
                    Ok(UserListReply {
                        jid: jid.as_str().to_owned(),
                    })
                });
                Ok(Some((stream::iter(accounts), page.next.map(Some))))
            }
        });
        Ok(Response::new(Box::pin(pages.try_flatten())))
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

    async fn user_import(
        &self,
        request: Request<Streaming<UserImportRequest>>,
    ) -> Result<Response<UserImportReply>, Status> {
        let mut reply = UserImportReply::default();
        let results = request.into_inner().map_ok(|request| async {
            let jid = request.jid.clone();
            Ok((jid, self.import(request).await))
        });
        let mut results = results.try_buffered(IMPORTS_IN_FLIGHT);
        while let Some((jid, result)) = results.try_next().await? {
            match result {
                Ok(true) => reply.created += 1,
                Ok(false) => reply.replaced += 1,
                Err(refusal) => {
                    reply.refused += 1;
                    if reply.refusals.len() < REFUSALS_MAX {
                        reply.refusals.push(UserImportRefusal {
                            jid,
                            reason: refusal.message().to_owned(),
                        });
                    }
                }
            }
        }
        Ok(Response::new(reply))
    }
}
