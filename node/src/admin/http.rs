//! Routes of the admin port, in the order a request meets them: guard, then health and metrics for everybody, then the token,
//! then the Admin service. Whatever is added behind the token is refused without it.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use heronry_proto::admin::admin_server::AdminServer;
use tonic::{Status, service::Routes};

use super::{Broker, Token, guard, metrics, service::AdminService};
use crate::telemetry::metrics::Recorded;

/// What the routes share.
pub(super) struct Shared<B> {
    pub(super) service: AdminService<B>,
    pub(super) token: Token,
    pub(super) hosts: Vec<String>,
    pub(super) metrics: Recorded,
}

pub(super) fn router<B: Broker>(shared: Arc<Shared<B>>) -> Router {
    let with_token = Routes::new(AdminServer::new(shared.service.clone()))
        .into_axum_router()
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), require_token::<B>));
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz::<B>))
        .route("/metrics", get(render_metrics::<B>))
        .with_state(Arc::clone(&shared))
        .merge(with_token)
        .layer(middleware::from_fn_with_state(shared, refuse_strangers::<B>))
}

/// Whether clients can log in; if not, why not, a line each.
async fn readyz<B: Broker>(State(shared): State<Arc<Shared<B>>>) -> Response {
    let reasons = shared.service.broker().not_ready();
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    let text = format!("not ready\n{}\n", reasons.join("\n"));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn render_metrics<B: Broker>(State(shared): State<Arc<Shared<B>>>) -> Response {
    // It reads files of the operating system's.
    let rendered = tokio::task::spawn_blocking(move || {
        shared.service.broker().measure();
        shared.metrics.render()
    });
    match rendered.await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn refuse_strangers<B: Broker>(State(shared): State<Arc<Shared<B>>>, request: Request, next: Next) -> Response {
    let refusal = match guard::check(request.uri(), request.headers(), &shared.hosts) {
        Ok(()) => return next.run(request).await,
        Err(refusal) => refusal,
    };
    metrics::refused(refusal.name());
    let (status, sentence) = match refusal {
        guard::Refusal::NoHost => (StatusCode::BAD_REQUEST, "a Host header is needed\n"),
        guard::Refusal::ForeignHost => (
            StatusCode::MISDIRECTED_REQUEST,
            "this port is not that host: use its IP address, or add the name to admin.hosts\n",
        ),
        guard::Refusal::ForeignOrigin => (StatusCode::FORBIDDEN, "requests from other sites' pages are refused\n"),
    };
    (status, sentence).into_response()
}

async fn require_token<B: Broker>(State(shared): State<Arc<Shared<B>>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION);
    if shown.is_some_and(|shown| shared.token.is_shown_by(shown.as_bytes())) {
        return next.run(request).await;
    }
    metrics::refused("token");
    Status::unauthenticated("the Admin service wants the token of the data directory").into_http()
}
