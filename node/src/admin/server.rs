//! The listener of the admin port.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinHandle,
};

use super::{Broker, Token, http, service::AdminService};
use crate::{StartError, config::Config, telemetry::metrics::Recorded};

/// How long a client may take to send the head of a request, or to answer a ping of HTTP/2.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long requests that are being answered may take after [`Admin::stop`].
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// What the admin port needs besides the configuration.
pub struct AdminOptions {
    /// The secret of the Admin service.
    pub token: Token,
    /// What `/metrics` shows.
    pub metrics: Recorded,
}

/// The admin port, open until [`stop`](Self::stop).
pub struct Admin {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    listening: JoinHandle<()>,
}

impl Admin {
    /// Opens the port in front of `broker`.
    ///
    /// # Errors
    /// [`StartError::Listen`].
    pub async fn start<B: Broker>(config: &Config, broker: Arc<B>, options: AdminOptions) -> Result<Self, StartError> {
        let address = config.admin.listen;
        let failed = |error| StartError::Listen {
            key: "admin.listen",
            address,
            error,
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let service = AdminService::new(config, broker);
        let AdminOptions { token, metrics } = options;
        let hosts = config.admin.hosts.clone();
        let router = http::router(Arc::new(http::Shared {
            service,
            token,
            hosts,
            metrics,
        }));
        let (stop, stopped) = oneshot::channel();
        let connections = config.limits.admin_connections_max;
        let listening = tokio::spawn(listen(listener, router, usize::from(connections), stopped));
        Ok(Self {
            address,
            stop,
            listening,
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests, finishes those that are being answered, and closes the port.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.listening.await;
    }
}

/// Connections beyond `connections` wait in the system's queue until another ends.
async fn listen(listener: TcpListener, router: axum::Router, connections: usize, mut stopped: oneshot::Receiver<()>) {
    let permits = Arc::new(Semaphore::new(connections));
    let open = GracefulShutdown::new();
    loop {
        let permit = tokio::select! {
            _ = &mut stopped => break,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            _ = &mut stopped => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => serve(socket, router.clone(), permit, &open),
            Err(error) => {
                // Most likely the process has no file descriptor left; asking again at once would not help.
                tracing::warn!(%error, "the admin port cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(STOP_TIMEOUT, open.shutdown()).await;
}

fn serve(socket: TcpStream, router: axum::Router, permit: OwnedSemaphorePermit, open: &GracefulShutdown) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(CLIENT_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(CLIENT_TIMEOUT)
        .keep_alive_timeout(CLIENT_TIMEOUT)
        .max_concurrent_streams(32);
    let connection = builder.serve_connection(TokioIo::new(socket), TowerToHyperService::new(router));
    let connection = open.watch(connection.into_owned());
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection of the admin port failed");
        }
        drop(permit);
    });
}
