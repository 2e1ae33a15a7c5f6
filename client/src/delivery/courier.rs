//! The messages under way, shared by handles, driver and the task that watches their deadlines. There is none until the first
//! message is to be delivered.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use heronry_xmpp::{
    jid::{FullJid, Jid},
    stanza::{Stanza, StanzaError},
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{Delivery, DeliveryError, table::Table};
use crate::driver::Command;

#[derive(Debug)]
pub(crate) struct Courier {
    table: Mutex<Table>,
    /// Bounds the table.
    room: Arc<Semaphore>,
    /// What is due next may have changed.
    changed: Notify,
}

impl Courier {
    pub(super) fn new(deliveries_max: usize) -> Self {
        Self {
            table: Mutex::default(),
            room: Arc::new(Semaphore::new(deliveries_max.max(1))),
            changed: Notify::new(),
        }
    }

    /// Waits for room in the table.
    pub(super) async fn room(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, DeliveryError> {
        match timeout_at(deadline, self.room.clone().acquire_owned()).await {
            Ok(permit) => permit.map_err(|_| DeliveryError::Disconnected),
            Err(_) => Err(DeliveryError::Full),
        }
    }

    /// Takes a message with an id.
    pub(super) fn accept(
        &self,
        message: Stanza,
        deadline: Instant,
        resend_after: Option<Duration>,
        room: OwnedSemaphorePermit,
    ) -> Result<Delivery, DeliveryError> {
        let id = message.id.clone().unwrap_or_default();
        let outcome = {
            let mut table = self.table();
            // Under the lock: whoever ends the table closes the room first.
            if self.room.is_closed() {
                return Err(DeliveryError::Disconnected);
            }
            table.add(message, deadline, resend_after, room)
        };
        self.changed.notify_one();
        let outcome = outcome.ok_or(DeliveryError::DuplicateId)?;
        Ok(Delivery { id, outcome })
    }

    /// Watches deadlines until the client is closed.
    pub(super) async fn run(self: Arc<Self>, commands: mpsc::Sender<Command>, closing: CancellationToken) {
        loop {
            let due = self.table().next_due();
            let over = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = closing.cancelled() => return,
                () = self.changed.notified() => {}
                () = over => {
                    let has_unsent = self.table().expire(Instant::now());
                    if has_unsent {
                        // When there is no room the driver is awake and will look anyway.
                        let _ = commands.try_send(Command::Look);
                    }
                }
            }
        }
    }

    /// The next message to be sent.
    pub(crate) fn take_unsent(&self) -> Option<Stanza> {
        let stanza = self.table().take_unsent(Instant::now())?;
        self.changed.notify_one();
        Some(stanza)
    }

    /// The server has acknowledged a message (XEP-0198).
    pub(crate) fn acknowledged(&self, id: &str) {
        self.table().acknowledged(id);
    }

    /// A new session has begun.
    pub(crate) fn begin_session(&self) {
        self.table().begin_session();
    }

    /// A receipt came; says whether it was for one of our messages.
    pub(crate) fn received(&self, id: &str, by: &Jid) -> bool {
        self.table().received(id, by)
    }

    /// An error came; says whether it was for one of our messages.
    pub(crate) fn refused(&self, id: &str, by: Option<&Jid>, error: StanzaError, own: &FullJid) -> bool {
        let known = self.table().refused(id, by, error, own, Instant::now());
        if known {
            self.changed.notify_one();
        }
        known
    }

    /// Nothing will be sent any more: everything under way has its outcome now.
    pub(crate) fn give_up(&self) {
        self.table().end();
    }

    /// The client is closed.
    pub(crate) fn close(&self) {
        self.room.close();
        self.table().end();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
