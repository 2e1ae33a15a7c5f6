//! The pool that works on passwords, verifies them and makes keys of them: milliseconds each, so on threads of its own and not many at a time.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use heronry_xmpp::sasl::PasswordJob;

use super::{
    metrics,
    port::{Port, ToConnection},
};

/// The pool; its threads end when it is dropped.
pub(super) struct Passwords(SyncSender<Job>);

struct Job {
    password: Box<PasswordJob>,
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
                    job.port.send(ToConnection::Password(job.password.run()));
                }
            })?;
        }
        Ok(Self(jobs))
    }

    /// Works on a password; what comes of it goes to `port`. Says whether there was room.
    pub(super) fn work_on(&self, password: Box<PasswordJob>, port: &Arc<Port>) -> bool {
        let job = Job {
            password,
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
