//! How many stores this process has open. RocksDB's threads use what the end of a process takes away: a process that ends while one
//! is being closed, on whichever thread, may be aborted.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

static COUNT: Mutex<usize> = Mutex::new(0);
static CLOSED: Condvar = Condvar::new();

/// A store that is open; dropped when it is closed.
pub(super) struct OpenStore(());

impl OpenStore {
    pub(super) fn new() -> Self {
        *COUNT.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(())
    }
}

impl Drop for OpenStore {
    fn drop(&mut self) {
        *COUNT.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        CLOSED.notify_all();
    }
}

/// Waits until this process has no store on disk open, but not longer than that; says whether it has none. To be called before it ends.
pub fn wait_until_closed(within: Duration) -> bool {
    let count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    let (count, _) = CLOSED
        .wait_timeout_while(count, within, |count| *count > 0)
        .unwrap_or_else(PoisonError::into_inner);
    *count == 0
}
