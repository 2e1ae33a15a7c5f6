//! The pool that verifies passwords: milliseconds each, so on threads of its own and not many at a time.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use heronry_xmpp::sasl::VerifyPassword;

use super::{
    metrics,
    port::{Port, ToConnection},
};

/// The pool; its threads end when it is dropped.
pub(super) struct Passwords(SyncSender<Job>);

struct Job {
    verify: Box<VerifyPassword>,
    port: Arc<Port>,
}

impl Passwords {
    /// Starts `threads` threads, for which at most `waiting_max` passwords wait.
    ///
    /// # Errors
    /// When the operating system gives no threads.
    pub(super) fn start(threads: usize, waiting_max: usize) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel(waiting_max);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..threads.max(1) {
            let waiting = Arc::clone(&waiting);
            std::thread::Builder::new().name("password".to_owned()).spawn(move || {
                while let Some(job) = next(&waiting) {
                    metrics::passwords_waiting(-1.0);
                    job.port.send(ToConnection::Password(job.verify.run()));
                }
            })?;
        }
        Ok(Self(jobs))
    }

    /// Verifies a password; the verdict goes to `port`. Says whether there was room.
    pub(super) fn verify(&self, verify: Box<VerifyPassword>, port: &Arc<Port>) -> bool {
        let job = Job {
            verify,
            port: Arc::clone(port),
        };
        let taken = self.0.try_send(job).is_ok();
        if taken {
            metrics::passwords_waiting(1.0);
        } else {
            metrics::passwords_refused();
        }
        taken
    }
}

fn next(waiting: &Mutex<Receiver<Job>>) -> Option<Job> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}
