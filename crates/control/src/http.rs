//! The HTTP side of the port: leases, health, status, metrics.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;

use crate::leases::{Leases, Refused};
use crate::{Shared, metrics, status};

/// No WorkloadEntry is larger.
const MAX_BODY: usize = 64 << 10;

pub(crate) fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(prometheus))
        .route("/v1/status", get(report))
        .route("/v1/workloads", post(lease))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(shared)
}

async fn healthz(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    match shared.snapshots.borrow().is_some() {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the first snapshot is being built\n"),
    }
}

async fn report(State(shared): State<Arc<Shared>>) -> Json<status::Status> {
    Json(status::collect(&shared))
}

async fn prometheus(State(shared): State<Arc<Shared>>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::render(&shared)).into_response()
}

/// The response is the lease: it stays open until the workload or the control plane goes.
async fn lease(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    match Leases::take_when_free(&shared.leases, &body).await {
        Ok(lease) => {
            let headers = [(CONTENT_TYPE, "application/x-ndjson")];
            (headers, Body::from_stream(lease.stream(shared.stopping.subscribe()))).into_response()
        }
        Err(refused) => {
            let status = match refused {
                Refused::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
                Refused::Taken { .. } => StatusCode::CONFLICT,
                Refused::Full | Refused::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, format!("{refused}\n")).into_response()
        }
    }
}
