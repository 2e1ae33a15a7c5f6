//! The actors: one supervisor for the node, one actor for each shard.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use heronry_cluster::{Group, Leadership, Round};
use heronry_xmpp::link::{ShardId, Term};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};

use super::{
    Control, Inboxes, ShardLimits, Statuses, Wake,
    evaluator::{Evaluator, Surroundings},
    metrics,
};
use crate::{clock::Clock, edge::Hub};

/// How often shards are told that time has passed.
const TICK: Duration = Duration::from_millis(250);

/// How long actors may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The shards of this node, until [`Self::stop`].
pub(crate) struct Shards {
    supervisor: ActorRef<Never>,
    ticker: tokio::task::JoinHandle<()>,
}

impl Shards {
    /// Starts an actor for each group's shard; on the runtime that is to run them.
    ///
    /// # Errors
    /// When an actor cannot be started.
    pub(crate) async fn start(
        groups: Vec<Group>,
        config: Arc<heronry_xmpp::shard::Config>,
        inboxes: Arc<Inboxes>,
        hub: Arc<Hub>,
        statuses: Arc<Statuses>,
        clock: Clock,
        limits: ShardLimits,
    ) -> Result<Self, SpawnErr> {
        let around = Surroundings {
            config,
            inboxes: Arc::clone(&inboxes),
            hub,
            statuses,
            clock,
            limits,
        };
        let (supervisor, _) = Actor::spawn(None, Supervisor(around), groups).await?;
        let ticker = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                inboxes.iter().for_each(|(_, inbox)| inbox.tick());
            }
        });
        Ok(Self { supervisor, ticker })
    }

    /// Ends the actors.
    pub(crate) async fn stop(&self) {
        self.ticker.abort();
        // What has not ended by then ends with its runtime.
        let _ = self.supervisor.stop_and_wait(None, Some(STOP_TIMEOUT)).await;
    }
}

/// The supervisor is told nothing but what becomes of its children.
enum Never {}

struct Supervisor(Surroundings);

/// The shards that have an actor.
struct Children(HashMap<ActorId, (Group, Arc<Mutex<Term>>)>);

impl Actor for Supervisor {
    type Msg = Never;
    type State = Children;
    type Arguments = Vec<Group>;

    async fn pre_start(&self, myself: ActorRef<Never>, groups: Vec<Group>) -> Result<Children, ActorProcessingErr> {
        let mut children = Children(HashMap::new());
        for group in groups {
            tokio::spawn(watch_leadership(group.clone(), Arc::clone(&self.0.inboxes)));
            self.start(myself.get_cell(), group, Term::default(), &mut children)
                .await?;
        }
        Ok(children)
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Never>,
        event: SupervisionEvent,
        children: &mut Children,
    ) -> Result<(), ActorProcessingErr> {
        let SupervisionEvent::ActorFailed(actor, error) = event else {
            return Ok(());
        };
        let Some((group, former)) = children.0.remove(&actor.get_id()) else {
            return Ok(());
        };
        metrics::shard_failed();
        tracing::error!(shard = %group.shard(), %error, "a shard's actor failed; it starts anew");
        let former = *former.lock().unwrap_or_else(PoisonError::into_inner);
        // What it had proposed is waited for: the new one must find it in the rows.
        let round = Round {
            term: heronry_cluster::Term(former.term),
            round: former.round,
        };
        let _ = group.propose(round, Vec::new()).await;
        let leadership = *group.leadership().borrow();
        let id = ShardId(group.shard().0);
        self.start(myself.get_cell(), group, former, children).await?;
        if let Some(inbox) = self.0.inboxes.of(id) {
            inbox.control(Control::Leadership(leadership));
        }
        Ok(())
    }
}

impl Supervisor {
    async fn start(
        &self,
        myself: ActorCell,
        group: Group,
        former: Term,
        children: &mut Children,
    ) -> Result<(), SpawnErr> {
        let term = Arc::new(Mutex::new(former));
        let evaluator = Box::new(Evaluator::new(group.clone(), former, self.0.clone()));
        let (actor, _) = Actor::spawn_linked(None, ShardActor(Arc::clone(&term)), evaluator, myself).await?;
        if let Some(inbox) = self.0.inboxes.of(ShardId(group.shard().0)) {
            inbox.belongs_to(actor.clone());
        }
        children.0.insert(actor.get_id(), (group, term));
        Ok(())
    }
}

/// The actor of a shard; it keeps the shard's term where its supervisor finds it.
struct ShardActor(Arc<Mutex<Term>>);

impl Actor for ShardActor {
    type Msg = Wake;
    type State = Box<Evaluator>;
    type Arguments = Box<Evaluator>;

    async fn pre_start(
        &self,
        _: ActorRef<Wake>,
        evaluator: Box<Evaluator>,
    ) -> Result<Box<Evaluator>, ActorProcessingErr> {
        Ok(evaluator)
    }

    async fn handle(
        &self,
        _: ActorRef<Wake>,
        Wake: Wake,
        evaluator: &mut Box<Evaluator>,
    ) -> Result<(), ActorProcessingErr> {
        evaluator.run();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = evaluator.term();
        Ok(())
    }
}

/// Tells a shard what this node is in its group, until the group has stopped.
async fn watch_leadership(group: Group, inboxes: Arc<Inboxes>) {
    let mut watch = group.leadership();
    let Some(inbox) = inboxes.of(ShardId(group.shard().0)) else {
        return;
    };
    loop {
        let leadership = *watch.borrow_and_update();
        inbox.control(Control::Leadership(leadership));
        if leadership == Leadership::Closed || watch.changed().await.is_err() {
            return;
        }
    }
}
