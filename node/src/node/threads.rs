//! Threads for one purpose, apart from those for others, so that none starves another.

use tokio::runtime::{Builder, Handle, Runtime};

use crate::{StartError, links::flush_now, shard::tell_now};

/// A runtime that may be dropped anywhere; what still runs on it is dropped too.
pub(super) struct Threads(Option<Runtime>);

impl Threads {
    /// Starts `count` threads that serve sockets. What they have for shards and other nodes leaves before they rest.
    pub(super) fn of_edge(count: usize) -> Result<Self, StartError> {
        Self::start(
            Builder::new_multi_thread().enable_all().on_thread_park(|| {
                tell_now();
                flush_now();
            }),
            "edge",
            count,
        )
    }

    /// Starts `count` threads that evaluate; there are no sockets for them.
    pub(super) fn of_shards(count: usize) -> Result<Self, StartError> {
        Self::start(Builder::new_multi_thread().enable_time(), "shard", count)
    }

    fn start(builder: &mut Builder, name: &str, count: usize) -> Result<Self, StartError> {
        let runtime = builder
            .worker_threads(count.max(1))
            .max_blocking_threads(8)
            .thread_name(name)
            .build()
            .map_err(|error| StartError::Failed(format!("threads cannot be started: {error}")))?;
        Ok(Self(Some(runtime)))
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
        let runtime = self.0.as_ref().map(|runtime| runtime.handle().clone());
        runtime.ok_or_else(|| StartError::Failed("threads have ended".to_owned()))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
