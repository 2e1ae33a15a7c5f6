//! A backup's rows go to the shards they belong to now, step by step; each step may be repeated.

use std::{collections::BTreeMap, time::Duration};

use futures::future::try_join_all;
use heronry_proto::admin::{RestoreBeginRequest, RestorePhase};
use heronry_xmpp::{
    link::ShardId,
    rows::{Key, SHARD_SLOTS, Timestamp, Value},
    shard::{Administer, Administered, Phase, Restore, place_of},
};
use tokio::time::Instant;

use super::{
    accounts::{Accounts, unavailable},
    membership::FEATURE_LEVEL,
};
use crate::admin::BrokerError;

/// How long a shard may be unavailable before a step fails.
const UNAVAILABLE_MAX: Duration = Duration::from_secs(60);

/// How long a step waits before it is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(250);

impl Accounts {
    /// Begins a restore in all shards, or in none; gives the phase that the last of them is in.
    pub(super) async fn restore_begin(&self, request: RestoreBeginRequest) -> Result<Phase, BrokerError> {
        let backup = name_of(&request.backup)?;
        self.can_read(&request)?;
        let look = |shard| self.restore_step(shard, Restore::Look { backup });
        try_join_all(self.shards().map(look)).await?;
        let at = Timestamp(request.at);
        let begin = |shard| self.restore_step(shard, Restore::Begin { backup, at });
        let phases = try_join_all(self.shards().map(begin)).await?;
        Ok(phases.into_iter().min().unwrap_or(Phase::Done))
    }

    /// Rows of a phase, each to its shard.
    pub(super) async fn restore_rows(
        &self,
        backup: u128,
        phase: Phase,
        rows: Vec<(Key, Value)>,
    ) -> Result<(), BrokerError> {
        let mut batches = BTreeMap::<ShardId, (usize, Vec<(Key, Value)>)>::new();
        for (key, value) in rows {
            let place = place_of(&key, &value, &self.map).map_err(|error| BrokerError::Refused(error.to_string()))?;
            let Some((_, shard)) = place.filter(|(of, _)| *of == phase) else {
                return Err(not_rows(phase));
            };
            let bytes = key.len() + value.len();
            let batch = batches.entry(shard).or_default();
            if batch.0 > 0 && batch.0 + bytes > self.batch_bytes {
                let (_, rows) = std::mem::take(batch);
                self.restore_batch(shard, backup, phase, rows).await?;
            }
            batch.0 += bytes;
            batch.1.push((key, value));
        }
        for (shard, (_, rows)) in batches {
            self.restore_batch(shard, backup, phase, rows).await?;
        }
        Ok(())
    }

    async fn restore_batch(
        &self,
        shard: ShardId,
        backup: u128,
        phase: Phase,
        rows: Vec<(Key, Value)>,
    ) -> Result<(), BrokerError> {
        let rows = rows.into();
        let step = Restore::Rows { backup, phase, rows };
        self.restore_step(shard, step).await.map(drop)
    }

    /// The next phase begins in all shards.
    pub(super) async fn restore_advance(&self, backup: u128, to: Phase) -> Result<(), BrokerError> {
        let advance = |shard| self.restore_step(shard, Restore::Advance { backup, to });
        try_join_all(self.shards().map(advance)).await.map(drop)
    }

    async fn restore_step(&self, shard: ShardId, step: Restore) -> Result<Phase, BrokerError> {
        let until = Instant::now() + UNAVAILABLE_MAX;
        loop {
            let done = self.administer(shard, Administer::Restore(step.clone())).await;
            return match done {
                Err(BrokerError::Unavailable(_)) if Instant::now() < until => {
                    tokio::time::sleep(TRY_AGAIN).await;
                    continue;
                }
                Err(error) => Err(error),
                Ok(Administered::Restoring(phase)) => Ok(phase),
                Ok(Administered::HasAccounts) => Err(BrokerError::Refused(
                    "this cluster has accounts already: a backup is restored into a new one".to_owned(),
                )),
                Ok(Administered::OtherRestore) => Err(BrokerError::Refused(
                    "another backup is being restored here: finish that, or begin with a new cluster".to_owned(),
                )),
                Ok(Administered::NotRows) => Err(BrokerError::Refused(format!(
                    "rows of the backup are none of shard {}",
                    shard.0
                ))),
                Ok(_) => Err(unavailable(shard, "has not answered what it was asked")),
            };
        }
    }

    /// Whether what is in a backup is served and understood here.
    fn can_read(&self, request: &RestoreBeginRequest) -> Result<(), BrokerError> {
        let member = self.member()?;
        let level = member.map().borrow().as_ref().map(|map| map.feature_level);
        let Some(level) = level else {
            return Err(BrokerError::Refused(format!(
                "this node belongs to no cluster yet: {}",
                member.waits_for()
            )));
        };
        if request.feature_level > level {
            return Err(BrokerError::Refused(format!(
                "the backup needs feature level {}, but this cluster is at {level}, and this program knows {FEATURE_LEVEL}: upgrade it first",
                request.feature_level
            )));
        }
        let missing: Vec<_> = request
            .domains
            .iter()
            .filter(|domain| !self.domains.contains(domain))
            .collect();
        if let Some(first) = missing.first() {
            return Err(BrokerError::Refused(format!(
                "the backup is of a broker that serves {first}, and this one does not: add it to `domains` at every node, or nobody there could log in"
            )));
        }
        Ok(())
    }

    /// All shards, by number.
    fn shards(&self) -> impl Iterator<Item = ShardId> {
        let mut shards: Vec<_> = (0..SHARD_SLOTS).map(|slot| self.map.shard_of(slot)).collect();
        shards.sort_unstable();
        shards.dedup();
        shards.into_iter()
    }
}

/// A backup's name in a request.
pub(super) fn name_of(bytes: &[u8]) -> Result<u128, BrokerError> {
    let name = bytes.try_into().map(u128::from_be_bytes);
    name.map_err(|_| BrokerError::Refused("a backup has a name of 16 bytes".to_owned()))
}

/// A phase as a caller names it.
pub(super) fn phase(phase: RestorePhase) -> Phase {
    match phase {
        RestorePhase::Belongings => Phase::Belongings,
        RestorePhase::Accounts => Phase::Accounts,
        RestorePhase::Effects => Phase::Effects,
        RestorePhase::Restored => Phase::Done,
    }
}

/// And back.
pub(super) fn wire_phase(phase: Phase) -> RestorePhase {
    match phase {
        Phase::Belongings => RestorePhase::Belongings,
        Phase::Accounts => RestorePhase::Accounts,
        Phase::Effects => RestorePhase::Effects,
        Phase::Done => RestorePhase::Restored,
    }
}

fn not_rows(phase: Phase) -> BrokerError {
    BrokerError::Refused(format!("rows were sent that do not come in the phase {phase:?}"))
}
