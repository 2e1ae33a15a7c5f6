//! A million accounts: what a stream of requests names is checked, sorted by lane, and committed a batch at a time, many lanes at
//! once. At no time is more in memory than `[limits]` says: the stream is not read while enough is under way.

use std::{mem, sync::Arc, time::Duration};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use heronry_proto::admin::{
    ExistingUsers, ImportedUser, UserImportRefusal, UserImportReply, UserImportRequest, imported_user,
};
use heronry_xmpp::shard::{Account, Existing, Imported};
use tokio::{sync::mpsc, time::Instant};
use tonic::{Status, Streaming};

use super::{
    Broker, BrokerError, metrics,
    service::{AdminService, Credentials},
};

/// Accounts of one request.
const REQUEST_USERS_MAX: usize = 4096;

/// Requests whose accounts are checked, and keys derived, at a time.
const PREPARED_AT_ONCE: usize = 2;

/// How long a lane may be unavailable before its accounts are refused.
const UNAVAILABLE_MAX: Duration = Duration::from_secs(60);

/// How long a batch waits before it is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// Bytes an account counts besides its keys and its address.
const ACCOUNT_BYTES: usize = 64;

/// Bounds on an import.
#[derive(Clone, Copy, Debug)]
pub(super) struct ImportLimits {
    /// Bytes of accounts that are committed together.
    pub(super) batch_bytes: usize,
    /// Batches under way. Full: the stream is not read.
    pub(super) batches_max: usize,
}

/// One import.
pub(super) struct Import<B> {
    service: AdminService<B>,
    limits: ImportLimits,
    existing: Existing,
    lanes: Vec<Lane>,
    preparing: FuturesUnordered<BoxFuture<'static, Result<Vec<Prepared>, Status>>>,
    committing: FuturesUnordered<BoxFuture<'static, Committed>>,
    replies: mpsc::Sender<Result<UserImportReply, Status>>,
}

/// Accounts that wait until they are a batch.
#[derive(Default)]
struct Lane {
    users: Vec<User>,
    accounts: Vec<Account>,
    bytes: usize,
}

/// How an account is called in replies.
struct User {
    number: u64,
    jid: String,
}

/// An account that was checked: what is to be written, or why it is refused.
struct Prepared {
    user: User,
    account: Result<Account, String>,
}

struct Committed {
    users: Vec<User>,
    results: Result<Vec<Imported>, BrokerError>,
}

impl<B: Broker> Import<B> {
    pub(super) fn new(
        service: AdminService<B>,
        limits: ImportLimits,
        replies: mpsc::Sender<Result<UserImportReply, Status>>,
    ) -> Self {
        Self {
            service,
            limits,
            existing: Existing::default(),
            lanes: Vec::new(),
            preparing: FuturesUnordered::new(),
            committing: FuturesUnordered::new(),
            replies,
        }
    }

    /// Takes the stream to its end; every account is answered. Ends early when nobody listens any more.
    pub(super) async fn run(mut self, mut requests: Streaming<UserImportRequest>) {
        let service = self.service.clone();
        let _turn = service.import_turn().await;
        if let Err(Some(status)) = self.take_all(&mut requests).await {
            // Whoever asked may have gone.
            let _ = self.replies.send(Err(status)).await;
        }
    }

    async fn take_all(&mut self, requests: &mut Streaming<UserImportRequest>) -> Result<(), Option<Status>> {
        let (mut first, mut ended) = (true, false);
        loop {
            tokio::select! {
                Some(committed) = self.committing.next() => self.report(committed).await?,
                Some(prepared) = self.preparing.next() => {
                    for prepared in prepared? {
                        self.sort(prepared).await?;
                    }
                }
                request = requests.message(), if !ended && self.preparing.len() < PREPARED_AT_ONCE => match request? {
                    Some(request) => {
                        if mem::take(&mut first) {
                            self.existing = existing(&request);
                        }
                        self.prepare(request.users)?;
                    }
                    None => ended = true,
                },
                // Nothing is left but what is not a full batch.
                else => {
                    for lane in 0..self.lanes.len() {
                        self.commit(lane).await?;
                    }
                    while let Some(committed) = self.committing.next().await {
                        self.report(committed).await?;
                    }
                    return Ok(());
                }
            }
        }
    }

    fn prepare(&mut self, users: Vec<ImportedUser>) -> Result<(), Status> {
        if users.len() > REQUEST_USERS_MAX {
            return Err(Status::invalid_argument(format!(
                "a request may have {REQUEST_USERS_MAX} accounts, not {}",
                users.len()
            )));
        }
        let service = self.service.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            let prepare = |user: ImportedUser| {
                let account = account(&service, &user.jid, user.credentials);
                let account = account.map_err(|status| status.message().to_owned());
                let (number, jid) = (user.number, user.jid);
                Prepared {
                    user: User { number, jid },
                    account,
                }
            };
            users.into_iter().map(prepare).collect()
        });
        self.preparing.push(Box::pin(async {
            prepared
                .await
                .map_err(|error| Status::internal(format!("accounts could not be checked: {error}")))
        }));
        Ok(())
    }

    async fn sort(&mut self, prepared: Prepared) -> Result<(), Option<Status>> {
        let account = match prepared.account {
            Ok(account) => account,
            Err(reason) => {
                let mut reply = UserImportReply::default();
                refuse(&mut reply, prepared.user, reason);
                return self.reply(reply).await;
            }
        };
        let place = self.service.broker().import_lane(&account.jid);
        if self.lanes.len() <= place {
            self.lanes.resize_with(place + 1, Lane::default);
        }
        let lane = &mut self.lanes[place];
        lane.bytes += size(&account);
        lane.users.push(prepared.user);
        lane.accounts.push(account);
        if lane.bytes >= self.limits.batch_bytes {
            self.commit(place).await?;
        }
        Ok(())
    }

    async fn commit(&mut self, place: usize) -> Result<(), Option<Status>> {
        let Lane { users, accounts, .. } = mem::take(&mut self.lanes[place]);
        if accounts.is_empty() {
            return Ok(());
        }
        while self.committing.len() >= self.limits.batches_max {
            if let Some(committed) = self.committing.next().await {
                self.report(committed).await?;
            }
        }
        let (service, existing) = (self.service.clone(), self.existing);
        self.committing.push(Box::pin(async move {
            let results = write(service.broker(), place, accounts.into(), existing).await;
            Committed { users, results }
        }));
        Ok(())
    }

    async fn report(&mut self, committed: Committed) -> Result<(), Option<Status>> {
        let mut reply = UserImportReply::default();
        match committed.results {
            Ok(results) => {
                for (user, result) in committed.users.into_iter().zip(results) {
                    match result {
                        Imported::Created => reply.created += 1,
                        Imported::Replaced => reply.replaced += 1,
                        Imported::Kept => reply.kept += 1,
                        Imported::Exists => {
                            let reason = format!("there is an account {} already", user.jid);
                            refuse(&mut reply, user, reason);
                        }
                    }
                }
            }
            Err(error) => {
                for user in committed.users {
                    refuse(&mut reply, user, error.to_string());
                }
            }
        }
        self.reply(reply).await
    }

    async fn reply(&mut self, reply: UserImportReply) -> Result<(), Option<Status>> {
        metrics::imported(&reply);
        self.replies.send(Ok(reply)).await.map_err(|_| None)
    }
}

/// Writes a batch; again, while its lane is unavailable for a moment.
async fn write<B: Broker>(
    broker: &B,
    lane: usize,
    accounts: Arc<[Account]>,
    existing: Existing,
) -> Result<Vec<Imported>, BrokerError> {
    let deadline = Instant::now() + UNAVAILABLE_MAX;
    loop {
        match broker.user_import(lane, Arc::clone(&accounts), existing).await {
            Err(BrokerError::Unavailable(_)) if Instant::now() < deadline => tokio::time::sleep(TRY_AGAIN).await,
            result => return result,
        }
    }
}

fn account<B: Broker>(
    service: &AdminService<B>,
    jid: &str,
    credentials: Option<imported_user::Credentials>,
) -> Result<Account, Status> {
    let jid = service.account(jid)?;
    let keys = service.keys_now(credentials.map(|credentials| match credentials {
        imported_user::Credentials::Password(password) => Credentials::Password(password),
        imported_user::Credentials::Keys(keys) => Credentials::Keys(keys),
    }))?;
    Ok(Account { jid, keys })
}

fn existing(request: &UserImportRequest) -> Existing {
    match request.existing() {
        ExistingUsers::Replace | ExistingUsers::Unspecified => Existing::Replace,
        ExistingUsers::Keep => Existing::Keep,
        ExistingUsers::Refuse => Existing::Refuse,
    }
}

fn refuse(reply: &mut UserImportReply, user: User, reason: String) {
    let User { number, jid } = user;
    reply.refusals.push(UserImportRefusal { number, jid, reason });
}

fn size(account: &Account) -> usize {
    let keys = account.keys.iter();
    let keys = keys.map(|keys| ACCOUNT_BYTES + keys.salt().len() + keys.stored_key().len() + keys.server_key().len());
    ACCOUNT_BYTES + 2 * account.jid.as_str().len() + keys.sum::<usize>()
}
