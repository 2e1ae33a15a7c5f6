//! `heronry run`: from start to signal to end.

use std::{future::Future, net::SocketAddr, time::Duration};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, say};
use crate::{
    StartError,
    admin::{Admin, AdminOptions, Token, token},
    config::{Config, Loaded},
    data,
    node::Node,
    telemetry::{self, LogFormat, metrics::Recorded},
};

/// How often what histograms have gathered is put into buckets, whether or not somebody reads `/metrics`.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Which log lines are written to standard error, for example info or warn,heronry_node=debug [default: log.filter]
    #[arg(long, value_name = "FILTER", env = "HERONRY_LOG")]
    log: Option<String>,
    /// How log lines are written [default: log.format]
    #[arg(long, value_name = "FORMAT", value_enum, env = "HERONRY_LOG_FORMAT")]
    log_format: Option<LogFormat>,
}

/// How long the store may take to close when everything else has ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// `flags` are those that other commands need to find this broker.
pub(super) fn run(args: &RunArgs, loaded: &Loaded, flags: &str) -> Result<(), Failure> {
    loaded.check_runnable()?;
    let config = &loaded.config;
    let filter = args.log.as_ref().unwrap_or(&config.log.filter);
    telemetry::logs(filter, args.log_format.unwrap_or(config.log.format))?;
    let metrics = telemetry::metrics()?;
    data::make(config.data()).map_err(|error| StartError::data(config.data(), error))?;
    small_pages();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(link_threads())
        .enable_all()
        .build()
        .map_err(|error| StartError::Failed(format!("threads cannot be started: {error}")))?;
    let ended = runtime.block_on(serve(config, metrics, flags));
    // Nothing is left that anybody waits for.
    runtime.shutdown_background();
    // A task that ends now may be the last to hold the store, and RocksDB must not be cut off in the middle of its end.
    if !heronry_storage::wait_until_closed(CLOSE_TIMEOUT) {
        tracing::warn!("the store is not closed in time; what was acknowledged is committed");
    }
    Ok(ended?)
}

/// How many threads serve links to other nodes and the admin port: half as many as the process may use processors, for edges and shards
/// have as much to do with each message, and a thread too many is woken for nothing.
fn link_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| (processors.get() / 2).max(1))
}

/// Memory is taken from the kernel in pages of 4 KiB. The allocator asks for large ones, and so for all of what the groups reserve for the worst case
/// (some 2 MB each, of which an idle one uses a tenth). Where the kernel refuses, the process needs more memory.
fn small_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "large pages of memory cannot be switched off");
    }
}

async fn serve(config: &Config, metrics: Recorded, flags: &str) -> Result<(), StartError> {
    // From the first moment: a signal while we start ends us as well.
    let mut signals = Signals::new()?;
    let mut hangup = listen(SignalKind::hangup())?;
    let (node, admin) = tokio::select! {
        started = start(config, metrics.clone()) => started?,
        name = signals.next() => {
            tracing::info!(signal = name, "stopped while starting");
            return Ok(());
        }
    };
    let opened = tokio::select! {
        opened = node.open() => opened.map(|()| true),
        failure = node.failed() => Err(failure),
        name = signals.next() => {
            tracing::info!(signal = name, "stopped while starting");
            Ok(false)
        }
    };
    if !matches!(opened, Ok(true)) {
        tokio::join!(node.shutdown(), admin.stop());
        return opened.map(drop);
    }
    let upkeep = tokio::spawn(async move {
        loop {
            tokio::time::sleep(METRICS_UPKEEP).await;
            metrics.keep_up();
        }
    });
    announce(config, &node, admin.address(), flags);

    let mut failed = std::pin::pin!(node.failed());
    let failure = loop {
        tokio::select! {
            name = signals.next() => {
                tracing::info!(signal = name, "stopping");
                break None;
            }
            _ = hangup.recv() => node.look_at_certificate(),
            failure = &mut failed => break Some(failure),
        }
    };
    upkeep.abort();
    let stop = async { tokio::join!(node.shutdown(), admin.stop()) };
    tokio::select! {
        stopped = within(config.limits.shutdown_timeout, stop) => match stopped {
            Some(_) => tracing::info!("stopped"),
            None => tracing::warn!("stopped before every connection was closed; what was acknowledged is committed"),
        },
        name = signals.next() => tracing::warn!(signal = name, "stopped at once"),
    }
    failure.map_or(Ok(()), Err)
}

async fn start(config: &Config, metrics: Recorded) -> Result<(Node, Admin), StartError> {
    let node = Node::begin(config.clone()).await?;
    match start_admin(config, &node, metrics).await {
        Ok(admin) => Ok((node, admin)),
        Err(error) => {
            node.shutdown().await;
            Err(error)
        }
    }
}

async fn start_admin(config: &Config, node: &Node, metrics: Recorded) -> Result<Admin, StartError> {
    // The store is ours now, so the token cannot be another process's.
    let token =
        Token::of_broker(config.data()).map_err(|error| StartError::data(config.data().join(token::FILE), error))?;
    Admin::start(config, node.broker(), AdminOptions { token, metrics }).await
}

/// The first line is stable, scripts wait for it; the others are for people.
fn announce(config: &Config, node: &Node, admin: SocketAddr, flags: &str) {
    let mut ready = "heronry: ready".to_owned();
    for (name, addresses) in [("c2s", node.c2s()), ("c2s_tls", node.c2s_tls())] {
        for address in addresses {
            ready.push_str(&format!(", {name} {address}"));
        }
    }
    say(format_args!("{ready}, admin {admin}"));

    let domain = config.domains.first().map_or("localhost", String::as_str);
    let program = std::env::args().next().unwrap_or_else(|| "heronry".to_owned());
    let data = config.data().display();
    let server = match (node.c2s().first(), node.c2s_tls().first()) {
        (Some(address), _) => format!("port {} of this machine", address.port()),
        (None, Some(address)) => format!("port {} of this machine, with TLS from the start", address.port()),
        (None, None) => "no port: edge.c2s and edge.c2s_tls are empty".to_owned(),
    };
    let certificate = match &config.tls.certificate {
        Some(_) => "",
        None => " (the certificate is one we signed ourselves: accept it)",
    };
    say(format_args!(
        "
  add an account   {program} user add juliet@{domain}{flags}
  log in           with any XMPP client as juliet@{domain}, {server}{certificate}
  look             {program} status{flags}
                   http://{admin}/metrics
  stop             Ctrl-C; accounts and messages stay in {data}
"
    ));
}

fn listen(kind: SignalKind) -> Result<Signal, StartError> {
    signal(kind).map_err(|error| StartError::Failed(format!("signals cannot be received: {error}")))
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, work).await.ok()
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, StartError> {
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for one. Cancel safe.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
