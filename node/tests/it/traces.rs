//! Traces, as a collector gets them over OTLP.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use heronry_client::message;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::Span,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::{
    broker::{Broker, Device, PATIENCE},
    load::{self, BODY, Load},
    process::Place,
};

/// A collector that keeps what it gets.
struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let _ = self.0.send(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Where it listens, and what it gets.
async fn collector() -> (SocketAddr, mpsc::UnboundedReceiver<ExportTraceServiceRequest>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (send, received) = mpsc::unbounded_channel();
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(send)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, received)
}

fn spans(request: &ExportTraceServiceRequest) -> impl Iterator<Item = &Span> {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans)
}

/// The spans of one trace by name, once all that are wanted have come.
async fn trace_with(
    received: &mut mpsc::UnboundedReceiver<ExportTraceServiceRequest>,
    seen: &mut Vec<ExportTraceServiceRequest>,
    wanted: &[&str],
) -> BTreeMap<String, Span> {
    let complete = async {
        loop {
            let request = received.recv().await.unwrap();
            seen.push(request);
            let mut traces: BTreeMap<Vec<u8>, BTreeMap<String, Span>> = BTreeMap::new();
            for span in seen.iter().flat_map(spans) {
                let trace = traces.entry(span.trace_id.clone()).or_default();
                trace.insert(span.name.clone(), span.clone());
            }
            let all = |trace: &BTreeMap<String, Span>| wanted.iter().all(|name| trace.contains_key(*name));
            if let Some(trace) = traces.into_values().find(all) {
                return trace;
            }
        }
    };
    tokio::time::timeout(PATIENCE, complete).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_a_messages_way_and_nothing_of_what_it_says() {
    let (endpoint, mut received) = collector().await;
    let broker = Broker::with(|config| {
        config.telemetry.otlp_endpoint = Some(format!("http://{endpoint}"));
        config.telemetry.sampling_ratio = 1.0;
    })
    .await;
    let juliet = broker.device("juliet").await;
    let mut romeo = broker.device("romeo").await;
    juliet.client.send(message(romeo.client.jid(), BODY)).await.unwrap();
    assert_eq!(romeo.text().await, BODY);
    let mut seen = Vec::new();
    let live = trace_with(&mut received, &mut seen, &["edge read", "shard evaluate", "deliver"]).await;
    let (read, evaluate, deliver) = (&live["edge read"], &live["shard evaluate"], &live["deliver"]);
    assert_eq!(read.parent_span_id, Vec::<u8>::new());
    assert_eq!(deliver.parent_span_id, evaluate.span_id);
    for span in live.values() {
        assert!(
            span.start_time_unix_nano > 0 && span.end_time_unix_nano >= span.start_time_unix_nano,
            "{span:?}"
        );
        assert!(span.start_time_unix_nano >= read.start_time_unix_nano, "{span:?}");
    }

    // Somebody who is away: the message is a row, and a span says how long it took until that was committed.
    let away = broker.user("nurse").await;
    juliet.client.send(message(away, BODY)).await.unwrap();
    juliet.client.flush().await.unwrap();
    let stored = trace_with(&mut received, &mut seen, &["edge read", "shard evaluate", "commit"]).await;
    assert!(!stored.contains_key("deliver"), "{stored:?}");
    let parents: Vec<_> = seen
        .iter()
        .flat_map(spans)
        .filter(|span| span.trace_id == stored["commit"].trace_id && span.name == "shard evaluate")
        .map(|span| span.span_id.clone())
        .collect();
    assert!(parents.contains(&stored["commit"].parent_span_id), "{stored:?}");

    // Whatever was sent until the end, too.
    broker.node.shutdown().await;
    while let Ok(Some(request)) = tokio::time::timeout(Duration::from_millis(50), received.recv()).await {
        seen.push(request);
    }
    let said = format!("{seen:?}");
    for secret in [BODY, "juliet", "romeo", "nurse"] {
        assert!(!said.contains(secret), "traces name {secret}");
    }
    let resource = seen[0].resource_spans[0].resource.as_ref().unwrap();
    let service = resource
        .attributes
        .iter()
        .find(|attribute| attribute.key == "service.name");
    let service = service.and_then(|attribute| attribute.value.clone()?.value);
    assert_eq!(service, Some(Value::StringValue("heronry".to_owned())));
}

/// The node that a span is of.
fn nodes(seen: &[ExportTraceServiceRequest], trace: &[u8]) -> BTreeMap<String, BTreeSet<String>> {
    let mut nodes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for resource in seen.iter().flat_map(|request| &request.resource_spans) {
        let attributes = &resource.resource.as_ref().unwrap().attributes;
        let instance = attributes
            .iter()
            .find(|attribute| attribute.key == "service.instance.id");
        let Some(Value::StringValue(node)) = instance.and_then(|attribute| attribute.value.clone()?.value) else {
            panic!("{attributes:?}");
        };
        let spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
        for span in spans.filter(|span| span.trace_id == trace) {
            nodes.entry(node.clone()).or_default().insert(span.name.clone());
        }
    }
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_nodes_have_to_do_with_a_message_is_one_trace() {
    let (endpoint, mut received) = collector().await;
    let traced = [
        format!("--set=telemetry.otlp_endpoint=http://{endpoint}"),
        "--set=telemetry.sampling_ratio=1.0".to_owned(),
    ];
    let traced: Vec<_> = traced.iter().map(String::as_str).collect();
    let core = Place::new();
    let seed = format!("{}:5269", core.ip);
    let core = core
        .with(&traced)
        .with(&["--set=roles=core", &format!("--set=peer.listen={seed}")]);
    let edge = Place::new();
    let listen = format!("--set=peer.listen={}:5269", edge.ip);
    let edge = edge
        .with(&traced)
        .with(&["--set=roles=edge", &listen, &format!("--set=peer.seeds={seed}")]);
    let _running = [core.start(), edge.start()];
    load::accounts(&core);
    let mut load = Load::begin(&edge).await;
    load.some().await;
    let mut seen = Vec::new();
    let trace = trace_with(&mut received, &mut seen, &["edge read", "shard evaluate", "deliver"]).await;
    let trace_id = &trace["edge read"].trace_id;
    let nodes = nodes(&seen, trace_id);
    let of = |name: &str| nodes.values().filter(|spans| spans.contains(name)).count();
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    assert_eq!(
        (of("edge read"), of("shard evaluate"), of("deliver")),
        (1, 1, 1),
        "{nodes:?}"
    );
    assert_eq!(trace["deliver"].parent_span_id, trace["shard evaluate"].span_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_works_when_nobody_takes_its_traces() {
    let broker = Broker::with(|config| {
        // Nobody listens there.
        config.telemetry.otlp_endpoint = Some("http://127.0.0.1:1".to_owned());
        config.telemetry.sampling_ratio = 1.0;
        config.limits.spans_waiting_max = 1;
    })
    .await;
    let juliet = broker.device("juliet").await;
    broker.user("romeo").await;
    let mut romeo = Device::connect(broker.options("romeo")).await;
    for n in 0..100 {
        juliet
            .client
            .send(message(romeo.client.jid(), &n.to_string()))
            .await
            .unwrap();
        assert_eq!(romeo.text().await, n.to_string());
    }
    tokio::time::timeout(PATIENCE, broker.node.shutdown()).await.unwrap();
}
