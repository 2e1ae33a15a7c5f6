//! The rows of shards for a backup: of those led here from the store, of others by a transfer from the node that leads them.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _, future::BoxFuture, stream::BoxStream};
use heronry_cluster::{ExportError, PeerId};
use heronry_xmpp::link::{NodeId, ShardId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::accounts::{Accounts, refused, unavailable};
use crate::{
    admin::BrokerError,
    config::Config,
    wire::administer::{Answer, Ask, coming, ticket_of},
};

/// How long another node may take to find out whether it leads a shard and to read the first of its rows.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the next chunk may take.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(60);

/// Chunks of a transfer that have come and are not yet taken.
const CHUNKS_WAITING: usize = 2;

/// The rows of a shard on their way to whoever makes a backup.
pub(super) type Rows = BoxStream<'static, Result<Bytes, BrokerError>>;

/// Shards whose rows are being read here, or come here.
pub(super) struct Exports {
    places: Arc<Semaphore>,
    waiting: Arc<Waiting>,
}

type Waiting = Mutex<HashMap<u64, Expected>>;

/// A transfer that was asked for.
struct Expected {
    from: NodeId,
    chunks: mpsc::Sender<Result<Bytes, String>>,
}

impl Exports {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            places: Arc::new(Semaphore::new(usize::from(config.limits.backup_shards_max))),
            waiting: Arc::default(),
        }
    }

    fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Takes a transfer that was asked for; its end is not a promise that all has come: the rows say so themselves.
    pub(super) fn take(
        &self,
        from: PeerId,
        header: Bytes,
        mut chunks: BoxStream<'static, Result<Bytes, String>>,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let expected = ticket_of(header).ok().and_then(|ticket| {
            let mut waiting = locked(&self.waiting);
            let is_it = waiting
                .get(&ticket)
                .is_some_and(|expected| expected.from.0 == from.node.0);
            is_it.then(|| waiting.remove(&ticket)).flatten()
        });
        async move {
            let expected = expected.ok_or("nobody waits for these rows")?;
            while let Some(chunk) = chunks.next().await {
                if expected.chunks.send(chunk).await.is_err() {
                    return Err("nobody waits for these rows any more".to_owned());
                }
            }
            Ok(Bytes::new())
        }
        .boxed()
    }
}

fn locked(waiting: &Waiting) -> MutexGuard<'_, HashMap<u64, Expected>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Accounts {
    /// All rows of a shard as of one moment, from whoever leads it.
    pub(super) async fn export(&self, shard: ShardId) -> Result<Rows, BrokerError> {
        let busy = || BrokerError::Unavailable("too many shards are being backed up at present".to_owned());
        let place = self.exports.place().ok_or_else(busy)?;
        let Some(node) = self.led_elsewhere(shard) else {
            let rows = self.export_here(shard).await.map_err(|answer| refused(shard, answer))?;
            return Ok(Held { rows, _place: place }.boxed());
        };
        let mut ticket = [0; 8];
        getrandom::fill(&mut ticket).map_err(|error| BrokerError::Failed(error.to_string()))?;
        let ticket = u64::from_ne_bytes(ticket);
        let (chunks, receiver) = mpsc::channel(CHUNKS_WAITING);
        locked(&self.exports.waiting).insert(ticket, Expected { from: node, chunks });
        // However this ends, nothing is expected any more.
        let expecting = Expecting {
            waiting: Arc::clone(&self.exports.waiting),
            ticket,
        };
        let answer = self.ask(node, shard, &Ask::Backup(shard, ticket), ASK_TIMEOUT).await?;
        if !matches!(answer, Answer::Coming) {
            return Err(refused(shard, answer));
        }
        let rows = futures::stream::unfold((receiver, expecting), move |(mut receiver, expecting)| async move {
            let chunk = match tokio::time::timeout(CHUNK_TIMEOUT, receiver.recv()).await {
                Ok(Some(Ok(chunk))) => Ok(chunk),
                Ok(Some(Err(sentence))) => Err(unavailable(shard, &format!("came in part only: {sentence}"))),
                Ok(None) => return None,
                Err(_) => Err(unavailable(shard, "does not come")),
            };
            Some((chunk, (receiver, expecting)))
        });
        let rows = rows.boxed();
        Ok(Held { rows, _place: place }.boxed())
    }

    async fn export_here(&self, shard: ShardId) -> Result<Rows, Answer> {
        let Some(group) = self.led_here(shard) else {
            return Err(self.not_led(shard));
        };
        let exported = group.export().await.map_err(|error| match error {
            ExportError::NotLed => self.not_led(shard),
            ExportError::Store(error) => Answer::Failed(error.to_string()),
        })?;
        Ok(exported
            .map(|chunk| chunk.map_err(|error| BrokerError::Failed(error.to_string())))
            .boxed())
    }

    /// Another node makes a backup and wants a shard of this one.
    pub(super) async fn send_backup(&self, to: PeerId, shard: ShardId, ticket: u64) -> Answer {
        let Some(place) = self.exports.place() else {
            return Answer::Silent;
        };
        let (member, rows) = match (self.member(), self.export_here(shard).await) {
            (Ok(member), Ok(rows)) => (member, rows),
            (Err(error), _) => return Answer::Failed(error.to_string()),
            (_, Err(answer)) => return answer,
        };
        // What ends early lacks its end: whoever reads it sees that.
        let rows = rows.scan((), |(), chunk| {
            let chunk = chunk.inspect_err(|error| tracing::warn!(%error, "a shard cannot be backed up"));
            std::future::ready(chunk.ok())
        });
        tokio::spawn(async move {
            if let Err(error) = member.transfer(to.node, coming(ticket), rows.boxed()).await {
                tracing::warn!(node = %to.node, shard = shard.0, error, "a shard did not get to where it is backed up");
            }
            drop(place);
        });
        Answer::Coming
    }
}

/// Rows, and the place they take.
struct Held {
    rows: Rows,
    _place: OwnedSemaphorePermit,
}

impl Stream for Held {
    type Item = Result<Bytes, BrokerError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.rows.poll_next_unpin(context)
    }
}

/// Says when a transfer is not expected any more.
struct Expecting {
    waiting: Arc<Waiting>,
    ticket: u64,
}

impl Drop for Expecting {
    fn drop(&mut self) {
        locked(&self.waiting).remove(&self.ticket);
    }
}
