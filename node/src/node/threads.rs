//! Threads for one purpose, apart from those for others, so that none starves another.

use tokio::runtime::{Builder, Handle, Runtime};

use super::machine::Run;
use crate::{StartError, links::flush_now, shard::tell_now};

/// A runtime that may be dropped anywhere; what still runs on it is dropped too.
pub(super) enum Threads {
    Own(Option<Runtime>),
    /// Nothing ends with this.
    #[cfg(test)]
    Others(Handle),
}

impl Threads {
    /// Starts `count` threads that serve sockets. What they have for shards and other nodes leaves before they rest.
    pub(super) fn of_edge(run: Run, count: usize) -> Result<Self, StartError> {
        Self::start(
            run,
            Builder::new_multi_thread().enable_all().on_thread_park(|| {
                tell_now();
                flush_now();
            }),
            "edge",
            count,
        )
    }

    /// Starts `count` threads that evaluate; there are no sockets for them.
    pub(super) fn of_shards(run: Run, count: usize) -> Result<Self, StartError> {
        Self::start(run, Builder::new_multi_thread().enable_time(), "shard", count)
    }

    fn start(run: Run, builder: &mut Builder, name: &str, count: usize) -> Result<Self, StartError> {
        match run {
            Run::Apart => {}
            #[cfg(test)]
            Run::Together => return Ok(Self::Others(Handle::current())),
        }
        let runtime = builder
            .worker_threads(count.max(1))
            .max_blocking_threads(8)
            .thread_name(name)
            .build()
            .map_err(|error| StartError::Failed(format!("threads cannot be started: {error}")))?;
        Ok(Self::Own(Some(runtime)))
    }

    /// Runs `work` on these threads.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, StartError> {
        let done = self.handle()?.spawn(work).await;
        done.map_err(|error| StartError::Failed(format!("a part of the node did not start: {error}")))
    }

    pub(super) fn handle(&self) -> Result<Handle, StartError> {
        let handle = match self {
            Self::Own(runtime) => runtime.as_ref().map(|runtime| runtime.handle().clone()),
            #[cfg(test)]
            Self::Others(handle) => Some(handle.clone()),
        };
        handle.ok_or_else(|| StartError::Failed("threads have ended".to_owned()))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        match self {
            Self::Own(runtime) => runtime.take().into_iter().for_each(Runtime::shutdown_background),
            #[cfg(test)]
            Self::Others(_) => {}
        }
    }
}
