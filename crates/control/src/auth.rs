//! Nobody is let in without saying who they are, over gRPC and over HTTP alike.
//!
//! A caller is the owner of this machine (its token, on loopback alone), or a workload: by its certificate, else by a token
//! that this control plane minted for its service account.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, WWW_AUTHENTICATE};
use maille_identity::SpiffeId;
use tokio::sync::Notify;

use crate::Shared;

const MISSING: &str = "no bearer token: send the header authorization: Bearer TOKEN, with the token of this control plane, \
                       or show a certificate of this mesh";
const WRONG: &str = "wrong token: this control plane was started by somebody else, or anew";
const NOT_HERE: &str =
    "the token of the machine's owner is for that machine alone: mint one for here with `maille token create`";
const NOT_OURS: &str = "the certificate is of another mesh: its trust domain is neither ours nor an alias";
const OWNER_ONLY: &str = "this is for the owner of the control plane's machine";

/// Who is calling.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Caller {
    /// Whoever runs this control plane.
    Owner,
    /// A workload.
    Workload(SpiffeId),
}

/// What is known of the other end of a connection before it says anything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// Whose certificate it has shown. It leads to one of our roots.
    pub(crate) certificate: Option<SpiffeId>,
    /// Whether it is on this machine.
    pub(crate) is_local: bool,
}

/// Tells a connection that a request of its own was let in.
#[derive(Clone, Default)]
pub(crate) struct Admitted(Arc<Notify>);

impl Admitted {
    /// Returns once a request was let in.
    pub(crate) async fn wait(&self) {
        self.0.notified().await;
    }
}

impl Caller {
    /// The workload, if it is one.
    pub(crate) fn id(&self) -> Option<&SpiffeId> {
        match self {
            Self::Owner => None,
            Self::Workload(id) => Some(id),
        }
    }

    /// Whether it may speak for this service account.
    pub(crate) fn is(&self, namespace: &str, service_account: &str) -> bool {
        self.id().is_none_or(|id| id.namespace() == namespace && id.service_account() == service_account)
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner => f.write_str("the machine's owner"),
            Self::Workload(id) => id.fmt(f),
        }
    }
}

/// The layer around every route.
pub(crate) async fn authenticate(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    match check(&shared, &peer, request.headers()) {
        Ok(caller) => {
            if let Some(Admitted(notify)) = request.extensions().get() {
                notify.notify_one();
            }
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(reason) => {
            tracing::debug!(path = request.uri().path(), reason, "refused");
            refusal(request.headers(), &reason)
        }
    }
}

/// The layer around what only the owner may do.
pub(crate) async fn owner_only(request: Request, next: Next) -> Response {
    match request.extensions().get::<Caller>() {
        Some(Caller::Owner) => next.run(request).await,
        _ => (StatusCode::FORBIDDEN, format!("{OWNER_ONLY}\n")).into_response(),
    }
}

fn check(shared: &Shared, peer: &Peer, headers: &HeaderMap) -> Result<Caller, String> {
    if let Some(id) = &peer.certificate {
        let trusted = shared.trust_domains().map_err(|status| status.message().to_owned())?;
        return match trusted.contains(id.trust_domain()) {
            // Whatever it was called before, it is of this mesh now.
            true => SpiffeId::new(trusted[0].clone(), id.namespace(), id.service_account())
                .map(Caller::Workload)
                .map_err(|error| error.to_string()),
            false => Err(NOT_OURS.into()),
        };
    }
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(MISSING.into()) };
    // The scheme is case-insensitive (RFC 9110).
    let (scheme, shown) = value.as_bytes().split_at_checked(7).ok_or(MISSING)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return Err(MISSING.into());
    }
    let shown = shown.trim_ascii();
    if let Ok(token) = std::str::from_utf8(shown)
        && token.contains('.')
    {
        let trusted = shared.trust_domains().map_err(|status| status.message().to_owned())?;
        return shared.ca.bearer(token, &trusted[0]).map(Caller::Workload).map_err(|error| error.to_string());
    }
    match (shared.token.matches(shown), peer.is_local) {
        (true, true) => Ok(Caller::Owner),
        (true, false) => Err(NOT_HERE.into()),
        (false, _) => Err(WRONG.into()),
    }
}

fn refusal(headers: &HeaderMap, reason: &str) -> Response {
    let grpc = headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    match grpc {
        true => tonic::Status::unauthenticated(reason).into_http::<axum::body::Body>().into_response(),
        false => (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], format!("{reason}\n")).into_response(),
    }
}
