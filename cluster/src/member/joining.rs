//! How a node comes into its cluster: the state machine of [`crate::joining`], with a disk, a network and a clock.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use heronry_storage::{Batch, Store, StoreError, Timestamp};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{Drawn, Inner, MemberError, map};
use crate::{
    ClusterId, Leadership, Round,
    joining::{Action, JoinOptions, Joining, NoInit, Standing},
    map::{ClusterMap, METADATA},
};

/// Under what the store keeps the node's standing.
const STANDING: &str = "standing";

/// How long a question may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long until what could not be done is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// What a node that waits is told.
pub(super) enum Event {
    /// Another process that waits, or looks, asks.
    Asked {
        /// What, encoded.
        ask: Bytes,
        /// Who is to hear the answer.
        answer: oneshot::Sender<Bytes>,
    },
    /// A question of ours was answered, or not.
    Answered(u64, Result<Bytes, String>),
    /// An operator says that the cluster begins here.
    Init(bool, oneshot::Sender<Result<(), NoInit>>),
}

/// What the store says of the node's cluster.
pub(super) fn standing(store: &dyn Store) -> Result<Standing, StoreError> {
    match store.note(STANDING)? {
        None => Ok(Standing::Alone),
        Some(note) => Standing::decode(&note)
            .map_err(|error| StoreError::Corrupt(format!("what is kept of the cluster: {error}"))),
    }
}

/// Keeps the node's standing.
pub(super) fn keep(store: &dyn Store, standing: &Standing) -> Result<(), StoreError> {
    store.set_note(STANDING, standing.encode())
}

pub(super) fn machine(options: JoinOptions, standing: Standing, drawn: Drawn) -> Result<Joining, MemberError> {
    let cluster = ClusterId(drawn.cluster);
    Ok(Joining::new(options, standing, cluster, drawn.start, Instant::now())?)
}

/// Brings the node into its cluster, then answers those who ask to be let in as a member.
pub(super) async fn run(inner: Arc<Inner>, mut machine: Joining, mut events: mpsc::Receiver<Event>) {
    let (answered, mut answers) = mpsc::channel(crate::joining::SEEDS_MAX + crate::joining::MET_MAX);
    let mut waiting: Vec<(u64, oneshot::Sender<Bytes>)> = Vec::new();
    let mut ticket = 0;
    loop {
        let actions = machine.poll(Instant::now());
        inner.waits_for.send_replace(machine.sentence());
        let mut more = false;
        for action in actions {
            match action {
                Action::Call { number, address, ask } => {
                    let (inner, answered) = (Arc::clone(&inner), answered.clone());
                    tokio::spawn(async move {
                        let answer = match inner.transport() {
                            Ok(transport) => transport.call_address(&address, ask, CALL_TIMEOUT).await,
                            Err(_) => return,
                        };
                        let answer = answer.map(|(_, answer)| answer).map_err(|error| error.to_string());
                        // The node may have come in meanwhile.
                        let _ = answered.send(Event::Answered(number, answer)).await;
                    });
                }
                Action::Reply { ticket, answer } => {
                    if let Some(at) = waiting.iter().position(|(of, _)| *of == ticket) {
                        // Whoever asked may have gone.
                        let _ = waiting.swap_remove(at).1.send(answer);
                    }
                }
                Action::Keep(standing) => match keep(&*inner.store, &standing) {
                    Ok(()) => {
                        machine.kept();
                        more = true;
                    }
                    Err(error) => {
                        // The store says the same to the groups, which ends the node.
                        tracing::error!(%error, "what is known of the cluster cannot be kept");
                        return;
                    }
                },
                Action::Say(sentence) => tracing::info!("{sentence}"),
                Action::Done(map) => {
                    come_in(&inner, *map).await;
                    return serve(&inner, events).await;
                }
            }
        }
        if more {
            continue;
        }
        let next = machine.next_poll().unwrap_or_else(|| Instant::now() + CALL_TIMEOUT);
        let event = tokio::select! {
            event = events.recv() => event,
            answer = answers.recv() => answer,
            () = sleep_until(next) => continue,
        };
        match event {
            None => return,
            Some(Event::Asked { ask, answer }) => {
                ticket += 1;
                waiting.retain(|(_, answer)| !answer.is_closed());
                waiting.push((ticket, answer));
                machine.asked(ticket, &ask, Instant::now());
            }
            Some(Event::Answered(number, answer)) => machine.answered(number, answer, Instant::now()),
            Some(Event::Init(force, answer)) => {
                let _ = answer.send(machine.init(force));
            }
        }
    }
}

/// The node is a member. A cluster that was founded here gets its groups, and its metadata group its first rows.
async fn come_in(inner: &Arc<Inner>, map: ClusterMap) {
    tracing::info!(cluster = %map.cluster, name = map.name, "this node is a member");
    inner.cluster.send_replace(Some(map.cluster));
    let founded = map.version == 0;
    map::heard(inner, map.clone());
    if !founded {
        return;
    }
    while let Err(error) = found(inner, &map).await {
        tracing::warn!(%error, "the cluster's groups are not founded yet");
        tokio::time::sleep(AGAIN).await;
    }
}

async fn found(inner: &Inner, founded: &ClusterMap) -> Result<(), String> {
    let group = inner
        .groups
        .create(METADATA, true)
        .await
        .map_err(|error| error.to_string())?;
    let mut leadership = group.leadership();
    let leads = leadership
        .wait_for(|now| !matches!(now, Leadership::Follower { .. }))
        .await;
    let Leadership::Leader { term } = *leads.map_err(|error| error.to_string())? else {
        return Err("the metadata group has stopped".to_owned());
    };
    if map::read(&group)?.is_none() {
        let batch = Batch {
            at: Timestamp(1),
            writes: founded.rows(),
        };
        let committed = group.propose(Round { term, round: 0 }, vec![batch]).await;
        committed.map_err(|error| error.to_string())?;
    }
    for shard in founded.shards.keys() {
        inner
            .groups
            .create(*shard, true)
            .await
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Answers those who ask to be let in.
async fn serve(inner: &Arc<Inner>, mut events: mpsc::Receiver<Event>) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Asked { ask, answer } => {
                let inner = Arc::clone(inner);
                tokio::spawn(async move {
                    let answered = super::command::admit(&inner, &ask).await;
                    let _ = answer.send(answered.encode());
                });
            }
            Event::Answered(..) => {}
            // It is a member: nothing is to be done.
            Event::Init(_, answer) => drop(answer.send(Ok(()))),
        }
    }
}

impl super::Member {
    /// An operator says that the cluster begins at this node, which waits. Said again, it changes nothing.
    ///
    /// # Errors
    /// When there is, or may be, another one; `force` goes on all the same.
    pub async fn init(&self, force: bool) -> Result<(), NoInit> {
        let (answer, answered) = oneshot::channel();
        if self.0.asks.send(Event::Init(force, answer)).await.is_err() {
            return Err(NoInit::Busy);
        }
        answered.await.unwrap_or(Err(NoInit::Busy))
    }
}
