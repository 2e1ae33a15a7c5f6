//! What a node runs on: a disk, a network, a clock and threads. A process has real ones, a simulation has its own.

use std::sync::Arc;

use heronry_cluster::{
    Store,
    transport::{Net, Tcp},
};

use super::membership::feature_level;
use crate::clock::Clock;

/// What a node runs on.
pub(super) struct Machine<N> {
    /// What survives the process.
    pub(super) store: Arc<dyn Store>,
    /// The network between nodes.
    pub(super) net: N,
    pub(super) clock: Clock,
    pub(super) threads: Run,
    /// The highest feature level of the program.
    pub(super) feature_level: u32,
}

/// On whose threads parts of a node run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// Each on its own.
    Apart,
    /// All on the runtime of whoever starts them, as a simulation wants it.
    #[cfg(test)]
    Together,
}

impl Machine<Tcp> {
    /// The machine this process is on.
    pub(super) fn real(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            net: Tcp,
            clock: Clock::start(),
            threads: Run::Apart,
            feature_level: feature_level(),
        }
    }
}

impl<N: Net> Machine<N> {
    /// Options of groups here.
    pub(super) fn groups(&self, options: heronry_cluster::Options) -> heronry_cluster::Options {
        match self.threads {
            Run::Apart => options,
            #[cfg(test)]
            Run::Together => heronry_cluster::Options { threads: 0, ..options },
        }
    }
}
