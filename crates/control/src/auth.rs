//! Nobody is let in without the token, over gRPC and over HTTP alike.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, WWW_AUTHENTICATE};
use tokio::sync::Notify;

use crate::Shared;

const MISSING: &str =
    "no bearer token: send the header authorization: Bearer TOKEN, with the token of this control plane";
const WRONG: &str = "wrong token: this control plane was started by somebody else, or anew";

/// Tells a connection that a request of its own was let in.
#[derive(Clone, Default)]
pub(crate) struct Admitted(Arc<Notify>);

impl Admitted {
    /// Returns once a request was let in.
    pub(crate) async fn wait(&self) {
        self.0.notified().await;
    }
}

/// The layer around every route.
pub(crate) async fn require_token(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    match check(&shared, request.headers()) {
        Ok(()) => {
            if let Some(Admitted(notify)) = request.extensions().get() {
                notify.notify_one();
            }
            next.run(request).await
        }
        Err(reason) => {
            tracing::debug!(path = request.uri().path(), reason, "refused");
            refusal(request.headers(), reason)
        }
    }
}

fn check(shared: &Shared, headers: &HeaderMap) -> Result<(), &'static str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(MISSING) };
    // The scheme is case-insensitive (RFC 9110).
    let (scheme, shown) = value.as_bytes().split_at_checked(7).ok_or(MISSING)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return Err(MISSING);
    }
    shared.token.matches(shown.trim_ascii()).then_some(()).ok_or(WRONG)
}

fn refusal(headers: &HeaderMap, reason: &'static str) -> Response {
    let grpc = headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    match grpc {
        true => tonic::Status::unauthenticated(reason).into_http::<axum::body::Body>().into_response(),
        false => (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], format!("{reason}\n")).into_response(),
    }
}
