//! The controller, where the metadata group is led: reports are collected, decisions carried out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use heronry_storage::{NodeId, ShardId};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};

use super::{Change, CommandError, Inner, Member, Report, command};
use crate::{
    Leadership, Term,
    controller::{Action, Controller, NoDrain, NoEvict, NodeReport, Order, Progress, ShardReport, View, drain, evict},
    joining::Leads,
    map::{ClusterMap, METADATA},
    placement::Step,
};

/// How often it is looked what is to be done.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Who is at most so many entries behind has caught up.
const CAUGHT_UP: u64 = 64;

/// What is known of the cluster beside its map.
pub(super) struct Seen {
    map: Arc<ClusterMap>,
    shards: BTreeMap<ShardId, ShardReport>,
    nodes: BTreeMap<NodeId, NodeReport>,
}

impl Seen {
    /// A moment at which whoever answered just now counts as steady: since when it answers is known to the controller alone.
    fn settled(&self) -> Instant {
        Instant::now() + self.map.settings().settle_after
    }

    pub(super) fn view(&self) -> View<'_> {
        View {
            map: &self.map,
            shards: self.shards.clone(),
            nodes: self.nodes.clone(),
        }
    }
}

/// Since when nodes are reachable, or are not.
type Since = BTreeMap<NodeId, (bool, Instant)>;

/// Decides and has it done while this node leads the metadata group, for ever.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut controlling: Option<(Term, Controller, Since)> = None;
    let (failing, mut failed) = mpsc::channel::<ShardId>(64);
    loop {
        ticks.tick().await;
        let Some(term) = led(&inner) else {
            controlling = None;
            continue;
        };
        let now = Instant::now();
        let (_, controller, since) = match &mut controlling {
            Some(known) if known.0 == term => known,
            other => other.insert((term, Controller::new(now), Since::new())),
        };
        while let Ok(shard) = failed.try_recv() {
            controller.failed(shard, now);
        }
        let Some(seen) = see(&inner, since).await else { continue };
        let now = Instant::now();
        for action in controller.next(&seen.view(), now) {
            match action {
                Action::Propose(wanted) => {
                    if let (Leads::Here, Some(group)) = command::leads(&inner)
                        && let Err(error) = command::here(&inner, &group, &wanted).await
                    {
                        tracing::info!(?wanted, %error, "the map could not be changed");
                    }
                }
                Action::Order(order) => {
                    let (inner, failing) = (Arc::clone(&inner), failing.clone());
                    let leader = seen.shards.get(&order.step.shard()).map(|report| report.leader);
                    tokio::spawn(async move {
                        let shard = order.step.shard();
                        tracing::info!(step = ?order.step, to = %order.to, "a step of the cluster");
                        if let Err(error) = carry_out(&inner, order, leader).await {
                            tracing::info!(%shard, %error, "a step could not be taken");
                            // Full: it is asked for again after a while anyway.
                            let _ = failing.try_send(shard);
                        }
                    });
                }
            }
        }
    }
}

/// The term in which this node leads the metadata group, with its lease.
fn led(inner: &Inner) -> Option<Term> {
    let group = inner.groups.group(METADATA)?;
    match *group.leadership().borrow() {
        Leadership::Leader { term } if group.has_lease(term) => Some(term),
        _ => None,
    }
}

async fn carry_out(inner: &Inner, order: Order, leader: Option<NodeId>) -> Result<(), String> {
    let term = Some(Term(order.term));
    match order.step {
        Step::AddLearner { shard, node } => inner.change(order.to, shard, term, &Change::AddLearner(node)).await,
        Step::ChangeVoters { shard, voters } => inner.change(order.to, shard, term, &Change::Voters(voters)).await,
        Step::RemoveLearner { shard, node } => {
            let learners = BTreeSet::from([node]);
            inner
                .change(order.to, shard, term, &Change::RemoveLearners(learners))
                .await
        }
        Step::HandOver { shard, to } => inner.change(order.to, shard, term, &Change::HandOver(to)).await,
        Step::Drop { shard, node } => {
            let leader = leader.ok_or("the shard has no leader")?;
            inner.remove(node, shard, leader).await
        }
    }
}

/// Asks all members what they know of their groups.
async fn see(inner: &Arc<Inner>, since: &mut Since) -> Option<Seen> {
    let map = inner.map.borrow().clone()?;
    let asked = map.members().map(|(node, _)| {
        let inner = Arc::clone(inner);
        async move { (node, inner.report_of(node).await) }
    });
    let reports: Vec<(NodeId, Result<Report, String>)> = join_all(asked).await;
    let now = Instant::now();
    let (mut shards, mut nodes) = (BTreeMap::new(), BTreeMap::new());
    for (node, report) in reports {
        let alive = report.is_ok();
        let (was, at) = *since.entry(node).or_insert((alive, now));
        let at = if was == alive { at } else { now };
        since.insert(node, (alive, at));
        let report = report.unwrap_or_default();
        let holds = report.groups.iter().map(|group| group.shard).collect();
        let streams = report.streams;
        nodes.insert(
            node,
            NodeReport {
                alive,
                since: at,
                holds,
                streams,
            },
        );
        for group in report.groups {
            let Some(term) = group.leads else { continue };
            let caught_up = group.lags.iter().filter(|(_, lag)| *lag <= CAUGHT_UP);
            let caught_up = caught_up.map(|(node, _)| *node).chain([node]).collect();
            let changing = group.membership.settled().is_none();
            let report = ShardReport {
                leader: node,
                term: term.0,
                voters: group.membership.voters.iter().flatten().copied().collect(),
                learners: group.membership.learners,
                caught_up,
                changing,
            };
            let known: Option<&ShardReport> = shards.get(&group.shard);
            if known.is_none_or(|known| known.term < term.0) {
                shards.insert(group.shard, report);
            }
        }
    }
    Some(Seen { map, shards, nodes })
}

/// A node cannot be drained or evicted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OperatorError {
    /// It cannot be drained.
    #[error(transparent)]
    NoDrain(#[from] NoDrain),
    /// It should not be evicted.
    #[error(transparent)]
    NoEvict(#[from] NoEvict),
    /// The map was not changed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// This node is no member of a cluster: it says what it waits for.
    #[error("{0}")]
    NoMember(String),
}

impl Member {
    /// Has a node give away what it has, and leave. What that costs, in a sentence.
    ///
    /// # Errors
    /// See [`OperatorError`].
    pub async fn drain(&self, node: NodeId) -> Result<Option<String>, OperatorError> {
        let seen = self.see().await?;
        let drained = drain(&seen.view(), node, seen.settled())?;
        self.command(&drained.command).await?;
        Ok(drained.notice)
    }

    /// Says that a node is gone for good. `force`: even if shards stop for it.
    ///
    /// # Errors
    /// See [`OperatorError`].
    pub async fn evict(&self, node: NodeId, force: bool) -> Result<(), OperatorError> {
        let seen = self.see().await?;
        let command = evict(&seen.view(), node, force)?;
        self.command(&command).await?;
        Ok(())
    }

    /// How far the cluster is from what its map says it should be; who leads which shard; which nodes are reached.
    ///
    /// # Errors
    /// When this node is no member of a cluster.
    pub async fn overview(&self) -> Result<Overview, OperatorError> {
        let seen = self.see().await?;
        let progress = Progress::of(&seen.view(), seen.settled());
        Ok(Overview {
            map: seen.map,
            shards: seen.shards,
            nodes: seen.nodes,
            progress,
        })
    }

    async fn see(&self) -> Result<Seen, OperatorError> {
        // Since when is not known here: see `Seen::settled`.
        let mut since = Since::new();
        let seen = see(&self.0.inner, &mut since).await;
        seen.ok_or_else(|| OperatorError::NoMember(self.waits_for()))
    }
}

/// A cluster as one of its members sees it.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The newest map this node has heard of.
    pub map: Arc<ClusterMap>,
    /// What leaders say of their shards. A shard that nobody leads is not here.
    pub shards: BTreeMap<ShardId, ShardReport>,
    /// What members say.
    pub nodes: BTreeMap<NodeId, NodeReport>,
    /// What is still to be done.
    pub progress: Progress,
}
