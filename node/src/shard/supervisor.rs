//! The actors: one supervisor for the node, one actor for each shard that is on it. Shards come and go.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use heronry_cluster::{Group, Leadership, Round};
use heronry_xmpp::link::{ShardId, Term};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::{sync::oneshot, task::AbortHandle};

use super::{
    Inboxes, ShardLimits, Statuses, Wake,
    evaluator::{Evaluator, Surroundings},
    metrics,
};
use crate::{clock::Clock, links::Router};

/// How often shards are told that time has passed.
const TICK: Duration = Duration::from_millis(250);

/// How long actors may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The shards of this node, until [`Self::stop`].
pub(crate) struct Shards {
    supervisor: ActorRef<Change>,
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
        router: Arc<Router>,
        statuses: Arc<Statuses>,
        clock: Clock,
        limits: ShardLimits,
    ) -> Result<Self, SpawnErr> {
        let inboxes = Arc::clone(router.inboxes());
        let around = Surroundings {
            config,
            router,
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

    /// A replica of the group's shard is on this node from now on. Must not be called twice without [`Self::remove`] in between.
    ///
    /// # Errors
    /// When its actor cannot be started.
    pub(crate) async fn add(&self, group: Group) -> Result<(), SpawnErr> {
        let (done, is_done) = oneshot::channel();
        // Without a supervisor there is no answer.
        let _ = self.supervisor.cast(Change::Add(Box::new(group), done));
        is_done
            .await
            .unwrap_or_else(|_| Err(SpawnErr::StartupFailed("the node ends".into())))
    }

    /// No replica of the shard is on this node any more: when this returns, nothing evaluates it or holds its group.
    pub(crate) async fn remove(&self, shard: ShardId) {
        let (done, is_done) = oneshot::channel();
        let _ = self.supervisor.cast(Change::Remove(shard, done));
        let _ = is_done.await;
    }

    /// Ends the actors.
    pub(crate) async fn stop(&self) {
        self.ticker.abort();
        // What has not ended by then ends with its runtime.
        let _ = self.supervisor.stop_and_wait(None, Some(STOP_TIMEOUT)).await;
    }
}

/// What the supervisor is told, besides what becomes of its children.
enum Change {
    /// A shard comes.
    Add(Box<Group>, oneshot::Sender<Result<(), SpawnErr>>),
    /// A shard goes.
    Remove(ShardId, oneshot::Sender<()>),
}

struct Supervisor(Surroundings);

/// The shards that have an actor, and the terms that those were in which have gone.
#[derive(Default)]
struct Children(HashMap<ActorId, Child>, HashMap<ShardId, Term>);

struct Child {
    actor: ActorRef<Wake>,
    group: Group,
    /// The term the shard is or was in.
    term: Arc<Mutex<Term>>,
    /// Tells it what this node is in its group.
    watching: AbortHandle,
}

impl Actor for Supervisor {
    type Msg = Change;
    type State = Children;
    type Arguments = Vec<Group>;

    async fn pre_start(&self, myself: ActorRef<Change>, groups: Vec<Group>) -> Result<Children, ActorProcessingErr> {
        let mut children = Children::default();
        for group in groups {
            self.add(myself.get_cell(), group, &mut children).await?;
        }
        Ok(children)
    }

    async fn handle(
        &self,
        myself: ActorRef<Change>,
        change: Change,
        children: &mut Children,
    ) -> Result<(), ActorProcessingErr> {
        match change {
            Change::Add(group, done) => {
                let added = self.add(myself.get_cell(), *group, children).await;
                // Whoever asked may have gone.
                let _ = done.send(added);
            }
            Change::Remove(shard, done) => {
                self.remove(shard, children).await;
                let _ = done.send(());
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Change>,
        event: SupervisionEvent,
        children: &mut Children,
    ) -> Result<(), ActorProcessingErr> {
        let SupervisionEvent::ActorFailed(actor, error) = event else {
            return Ok(());
        };
        let Some(Child {
            group, term, watching, ..
        }) = children.0.remove(&actor.get_id())
        else {
            return Ok(());
        };
        metrics::shard_failed();
        tracing::error!(shard = %group.shard(), %error, "a shard's actor failed; it starts anew");
        let former = *term.lock().unwrap_or_else(PoisonError::into_inner);
        // What it had proposed is waited for: the new one must find it in the rows.
        let round = Round {
            term: heronry_cluster::Term(former.term),
            round: former.round,
        };
        let _ = group.propose(round, Vec::new()).await;
        let leadership = *group.leadership().borrow();
        let id = ShardId(group.shard().0);
        self.start(myself.get_cell(), group, former, watching, children).await?;
        self.0.router.introduce(id);
        if let Some(inbox) = self.0.router.inboxes().of(id) {
            inbox.leadership(leadership);
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
        watching: AbortHandle,
        children: &mut Children,
    ) -> Result<(), SpawnErr> {
        let term = Arc::new(Mutex::new(former));
        let evaluator = Box::new(Evaluator::new(group.clone(), former, self.0.clone()));
        let (actor, _) = Actor::spawn_linked(None, ShardActor(Arc::clone(&term)), evaluator, myself).await?;
        if let Some(inbox) = self.0.router.inboxes().of(ShardId(group.shard().0)) {
            inbox.belongs_to(actor.clone());
        }
        let child = Child {
            actor: actor.clone(),
            group,
            term,
            watching,
        };
        children.0.insert(actor.get_id(), child);
        Ok(())
    }

    async fn add(&self, myself: ActorCell, group: Group, children: &mut Children) -> Result<(), SpawnErr> {
        let id = ShardId(group.shard().0);
        let inboxes = self.0.router.inboxes();
        if let Some(inbox) = inboxes.of(id) {
            inbox.open();
        }
        self.0.statuses.is_here(id, true);
        self.0.router.introduce(id);
        let watching = tokio::spawn(watch_leadership(group.clone(), Arc::clone(inboxes))).abort_handle();
        // Should it be led here in the term it was in before, it must not say the same twice.
        let former = children.1.get(&id).copied().unwrap_or_default();
        self.start(myself, group, former, watching, children).await
    }

    async fn remove(&self, shard: ShardId, children: &mut Children) {
        let gone = children
            .0
            .extract_if(|_, child| ShardId(child.group.shard().0) == shard)
            .collect::<Vec<_>>();
        for (_, child) in gone {
            child.watching.abort();
            // It is in nobody's way when it takes longer: its inbox is closed.
            let _ = child.actor.stop_and_wait(None, Some(STOP_TIMEOUT)).await;
            let term = *child.term.lock().unwrap_or_else(PoisonError::into_inner);
            children.1.insert(shard, term);
        }
        if let Some(inbox) = self.0.router.inboxes().of(shard) {
            self.0.router.hub().has_room(&mut inbox.close());
        }
        self.0.router.resigns(shard);
        self.0.statuses.is_here(shard, false);
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
        inbox.leadership(leadership);
        if leadership == Leadership::Closed || watch.changed().await.is_err() {
            return;
        }
    }
}
