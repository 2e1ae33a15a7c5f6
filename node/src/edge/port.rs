//! Where others leave messages for one connection. An idle connection's port holds nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use heronry_xmpp::{
    link::{Conn, ShardId, Term, ToEdge},
    sasl::PasswordDone,
    stream::StreamError,
};

use super::{attaching::Attaching, leaving::Directions};

/// One connection, as the rest of the process knows it.
#[derive(Debug)]
pub(crate) struct Port {
    conn: Conn,
    mail: Mutex<Mail>,
}

#[derive(Debug, Default)]
struct Mail {
    waker: Option<Waker>,
    /// Somebody is about to wake the connection, or has.
    woken: bool,
    messages: Vec<ToConnection>,
    /// Frames up to here are accepted; 0: nothing new.
    accepted: u64,
    /// The connection waits to hear what is accepted; otherwise it hears of it when it wakes for something else.
    wants_accepted: bool,
    /// Time is to be told, and has passed.
    ticking: bool,
    tick: bool,
    /// The shard the connection has to do with.
    shard: Option<ShardId>,
}

/// A message for a connection.
#[derive(Debug)]
pub(crate) enum ToConnection {
    /// Its shard says something, in the newest term.
    Shard(ToEdge),
    /// Its shard begins a new term: attach.
    Lead(Arc<Attaching>),
    /// Its shard's new term has caught up.
    Leading(Term),
    /// Nobody has led its shard for too long.
    Orphaned,
    /// There is room in its shard's inbox again.
    HasRoom,
    /// The work on a password is done.
    Password(PasswordDone),
    /// The node goes away.
    End(StreamError),
    /// The edge is being drained.
    GoTo(Directions),
}

/// What was in a port.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) messages: Vec<ToConnection>,
    /// Frames up to here are accepted; 0: nothing new.
    pub(super) accepted: u64,
    pub(super) tick: bool,
}

impl Port {
    pub(super) fn new(conn: Conn) -> Self {
        Self {
            conn,
            mail: Mutex::default(),
        }
    }

    pub(super) fn conn(&self) -> Conn {
        self.conn
    }

    /// Leaves a message.
    pub(crate) fn send(&self, message: ToConnection) {
        if self.put(message) {
            self.wake();
        }
    }

    /// Leaves a message; says whether [`Self::wake`] is to be called.
    pub(super) fn put(&self, message: ToConnection) -> bool {
        let mut mail = self.mail();
        mail.messages.push(message);
        mail.is_to_wake()
    }

    /// Leaves a message if the connection has to do with that shard.
    pub(super) fn send_if_of(&self, shard: ShardId, message: impl FnOnce() -> ToConnection) {
        let mut mail = self.mail();
        if mail.shard != Some(shard) {
            return;
        }
        mail.messages.push(message());
        if mail.is_to_wake() {
            drop(mail);
            self.wake();
        }
    }

    /// Frames up to here are accepted; says whether [`Self::wake`] is to be called.
    pub(super) fn accepted(&self, up_to: u64) -> bool {
        let mut mail = self.mail();
        mail.accepted = mail.accepted.max(up_to);
        mail.wants_accepted && mail.is_to_wake()
    }

    /// Time has passed; it was asked for once.
    pub(super) fn tick(&self) {
        let mut mail = self.mail();
        mail.ticking = false;
        mail.tick = true;
        if mail.is_to_wake() {
            drop(mail);
            self.wake();
        }
    }

    /// Wakes the connection.
    pub(super) fn wake(&self) {
        let waker = self.mail().waker.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The connection wants to be told once that time has passed; says whether that is news.
    pub(super) fn wants_tick(&self) -> bool {
        !std::mem::replace(&mut self.mail().ticking, true)
    }

    /// Takes everything. The next message wakes `waker`.
    pub(super) fn take(&self, waker: &Waker) -> Taken {
        let mut mail = self.mail();
        match &mut mail.waker {
            Some(known) if known.will_wake(waker) => {}
            known => *known = Some(waker.clone()),
        }
        mail.woken = false;
        mail.wants_accepted = false;
        Taken {
            messages: std::mem::take(&mut mail.messages),
            accepted: std::mem::take(&mut mail.accepted),
            tick: std::mem::take(&mut mail.tick),
        }
    }

    /// What is accepted is to be told at once; says whether there is something already.
    pub(super) fn wants_accepted(&self) -> bool {
        let mut mail = self.mail();
        mail.wants_accepted = true;
        mail.accepted > 0
    }

    /// From now on the connection has to do with `shard`. `read` sees that shard's standing, and no change of it is missed.
    pub(super) fn has_to_do_with<R>(&self, shard: ShardId, read: impl FnOnce() -> R) -> R {
        let mut mail = self.mail();
        mail.shard = Some(shard);
        read()
    }

    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mail {
    fn is_to_wake(&mut self) -> bool {
        !std::mem::replace(&mut self.woken, true)
    }
}
