//! What waits for the disk.

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::{JoinError, spawn_blocking},
};

/// Runs `work`, which may wait for the disk, where it holds up nobody: on a thread for such things. On a runtime of one thread, which
/// simulations have, it runs at once, so that the order of events does not depend on the operating system.
///
/// # Errors
/// When it panics, or the runtime ends before it began.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    if is_simulated() {
        return Ok(work());
    }
    spawn_blocking(work).await
}

/// Whether everything runs on one thread, so that none may wait.
pub(crate) fn is_simulated() -> bool {
    Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread
}
