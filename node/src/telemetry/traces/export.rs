//! From the queue of spans to the endpoint, some at a time.

use std::{mem, time::Duration};

use heronry_xmpp::link::NodeId;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter as _},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::Traces;
use crate::{StartError, config::Telemetry};

/// Spans sent at a time.
const BATCH: usize = 512;

/// How long the first of them waits for others.
const LINGER: Duration = Duration::from_millis(500);

/// How long the endpoint may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take when the node ends.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends spans, until [`Self::stop`].
#[derive(Debug, Default)]
pub(crate) struct Export(Option<Running>);

#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    sending: JoinHandle<()>,
}

impl Export {
    /// Begins to send what the returned handle traces; without an endpoint it traces nothing. At most `waiting_max` spans wait.
    ///
    /// # Errors
    /// When the endpoint cannot be one.
    pub(crate) fn start(config: &Telemetry, node: NodeId, waiting_max: usize) -> Result<(Self, Traces), StartError> {
        let Some(endpoint) = &config.otlp_endpoint else {
            return Ok((Self(None), Traces::off()));
        };
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint.clone())
            .with_timeout(TIMEOUT)
            .build();
        let mut exporter = exporter.map_err(|error| {
            StartError::Failed(format!(
                "traces cannot be sent to telemetry.otlp_endpoint {endpoint}: {error}"
            ))
        })?;
        let resource = Resource::builder_empty().with_service_name("heronry").with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", format!("{:016x}", node.0)),
        ]);
        exporter.set_resource(&resource.build());
        let (spans, waiting) = mpsc::channel(waiting_max.max(1));
        let (stop, stopped) = oneshot::channel();
        let sending = tokio::spawn(send(waiting, exporter, stopped));
        let traces = Traces::to(spans, config.sampling_ratio);
        Ok((Self(Some(Running { stop, sending })), traces))
    }

    /// Sends what waits, if the endpoint takes it in time.
    pub(crate) async fn stop(self) {
        if let Some(Running { stop, sending }) = self.0 {
            let _ = stop.send(());
            let _ = tokio::time::timeout(STOP_TIMEOUT, sending).await;
        }
    }
}

async fn send(mut waiting: mpsc::Receiver<SpanData>, exporter: SpanExporter, mut stopped: oneshot::Receiver<()>) {
    let mut batch = Vec::new();
    let mut works = true;
    loop {
        let ends = tokio::select! {
            _ = &mut stopped => true,
            received = waiting.recv_many(&mut batch, BATCH) => {
                // Others are on their way.
                received == 0 || tokio::time::timeout(LINGER, &mut stopped).await.is_ok()
            }
        };
        loop {
            while batch.len() < BATCH
                && let Ok(span) = waiting.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                break;
            }
            let spans = batch.len();
            let sent = exporter.export(mem::take(&mut batch)).await;
            counted(if sent.is_ok() { "sent" } else { "failed" }, spans);
            if let Err(error) = &sent
                && mem::take(&mut works)
            {
                tracing::warn!(%error, "traces cannot be sent; they are dropped until the endpoint takes them");
            } else if sent.is_ok() && !mem::replace(&mut works, true) {
                tracing::info!("traces can be sent again");
            }
        }
        if ends {
            return;
        }
    }
}

/// A span was dropped, because too many wait.
pub(super) fn dropped() {
    counted("dropped", 1);
}

fn counted(outcome: &'static str, spans: usize) {
    metrics::counter!("telemetry_spans_total", "outcome" => outcome).increment(spans as u64);
}
