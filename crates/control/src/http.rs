//! The HTTP side of the port: leases, health, status, metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use axum::{Extension, Router, middleware};
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;

use maille_identity::SpiffeId;
use serde::{Deserialize, Serialize};

use crate::auth::{self, Caller};
use crate::ca::status::CaStatus;
use crate::leases::{Leases, Refused};
use crate::{Shared, metrics, status};

/// No WorkloadEntry is larger.
const MAX_BODY: usize = 64 << 10;

pub(crate) fn routes(shared: Arc<Shared>) -> Router {
    let for_the_owner = Router::new()
        .route("/metrics", get(prometheus))
        .route("/v1/status", get(report))
        .route("/v1/ca", get(ca))
        .route("/v1/ca/rotate", post(rotate))
        .route("/v1/ca/forget-absent", post(forget_absent))
        .route("/v1/tokens", post(mint))
        .layer(middleware::from_fn(auth::owner_only));
    Router::new()
        .route("/healthz", get(healthz))
        .route("/v1/workloads", post(lease))
        .merge(for_the_owner)
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

async fn ca(State(shared): State<Arc<Shared>>) -> Json<CaStatus> {
    Json(shared.ca.status())
}

async fn rotate(State(shared): State<Arc<Shared>>) -> Response {
    let ca = shared.ca.clone();
    let organization = shared.trust_domains().map_or_else(|_| String::new(), |domains| domains[0].to_string());
    let begun = tokio::task::spawn_blocking(move || ca.rotate(&organization)).await;
    match begun {
        Ok(Ok(())) => Json(shared.ca.status()).into_response(),
        Ok(Err(error)) => (StatusCode::CONFLICT, format!("{error}\n")).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn forget_absent(State(shared): State<Arc<Shared>>) -> Json<CaStatus> {
    shared.ca.forget_absent();
    Json(shared.ca.status())
}

/// Whom a token is for, and for how long.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mint {
    namespace: String,
    service_account: String,
    #[serde(default)]
    ttl_seconds: Option<u64>,
}

/// A token, and the roots by which whoever has it knows us.
#[derive(Serialize)]
struct Minted {
    token: String,
    roots: String,
}

async fn mint(State(shared): State<Arc<Shared>>, Json(mint): Json<Mint>) -> Response {
    let ttl = mint.ttl_seconds.map_or(maille_identity::token::DEFAULT_TTL, Duration::from_secs);
    let unprocessable = |reason: String| (StatusCode::UNPROCESSABLE_ENTITY, format!("{reason}\n")).into_response();
    let trust_domain = match shared.trust_domains() {
        Ok(mut domains) => domains.remove(0),
        Err(status) => return unprocessable(status.message().to_owned()),
    };
    let id = match SpiffeId::new(trust_domain, &mint.namespace, &mint.service_account) {
        Ok(id) => id,
        Err(error) => return unprocessable(error.to_string()),
    };
    match shared.ca.mint(&id, ttl) {
        Ok(token) => {
            tracing::info!(%id, "a token was minted");
            Json(Minted { token, roots: shared.ca.trust().pem.clone() }).into_response()
        }
        Err(error) => unprocessable(error.to_string()),
    }
}

/// The response is the lease: it stays open until the workload or the control plane goes.
async fn lease(State(shared): State<Arc<Shared>>, Extension(caller): Extension<Caller>, body: Bytes) -> Response {
    match Leases::take_when_free(&shared.leases, &caller, &body).await {
        Ok(lease) => {
            let headers = [(CONTENT_TYPE, "application/x-ndjson")];
            (headers, Body::from_stream(lease.stream(shared.stopping.subscribe()))).into_response()
        }
        Err(refused) => {
            let status = match refused {
                Refused::Forbidden { .. } => StatusCode::FORBIDDEN,
                Refused::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
                Refused::Taken { .. } => StatusCode::CONFLICT,
                Refused::Full | Refused::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, format!("{refused}\n")).into_response()
        }
    }
}
