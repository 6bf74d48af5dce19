//! What RBAC and JWT filters do with one request: it passes, its route is chosen anew, or it is refused with a reason.
//!
//! The workers and [`crate::simulate`] both ask here, so that an explanation cannot differ from what happens.

use std::sync::Arc;
use std::time::Duration;

use maille_http::RequestHead;
use serde_json::Value;

use super::jwt::Status;
use super::rbac::Facts;
use crate::config::{JwtFilter, Metadata, Rbac};

/// Where Envoy's filters write their metadata.
const RBAC: &str = "envoy.filters.http.rbac";
const NETWORK_RBAC: &str = "envoy.filters.network.rbac";
const JWT: &str = "envoy.filters.http.jwt_authn";

/// A challenge repeats no more than this of the path.
const CHALLENGE_PATH: usize = 256;

/// What a filter has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The request goes on.
    Pass,
    /// It goes on, and its route is chosen anew: what it showed may lead elsewhere.
    Reroute,
    /// It is answered.
    Refuse(Box<Refusal>),
}

/// The answer to a refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: &'static str,
    /// Why, for the log.
    pub details: String,
    /// What stands in `www-authenticate`.
    pub challenge: Option<String>,
    /// The policy that refused it; `None` when none allowed it.
    pub policy: Option<Arc<str>>,
}

/// Asks RBAC rules. What they say is written into the metadata, as the filters behind read it.
pub fn rbac(rules: &Rbac, facts: &Facts<'_>, metadata: &mut Metadata) -> Step {
    let filter = if facts.head.is_some() { RBAC } else { NETWORK_RBAC };
    let facts = Facts { metadata: Some(metadata), ..*facts };
    let (shadow, enforced) = (rules.shadowed(&facts), rules.enforced(&facts));
    // What was enforced and passed is not worth writing down: it would cost every request.
    let refused = enforced.as_ref().filter(|verdict| !verdict.allowed);
    for (verdict, prefix, kind) in
        [(shadow.as_ref(), &rules.shadow_prefix, "shadow"), (refused, &rules.prefix, "enforced")]
    {
        let Some(verdict) = verdict else { continue };
        let result = if verdict.allowed { "allowed" } else { "denied" };
        let mut write = |key: &str, value: &str| set(metadata, filter, &format!("{prefix}{kind}_{key}"), value.into());
        write("engine_result", result);
        if let Some(policy) = &verdict.policy {
            write("effective_policy_id", policy);
        }
    }
    match enforced {
        Some(verdict) if !verdict.allowed => Step::Refuse(Box::new(Refusal {
            status: 403,
            body: "RBAC: access denied",
            details: verdict.details(),
            challenge: None,
            policy: verdict.policy,
        })),
        _ => Step::Pass,
    }
}

/// Asks for tokens. What they say is written into the metadata and, as configured, into the request.
pub fn jwt(filter: &JwtFilter, head: &mut RequestHead, random: u64, now: Duration, metadata: &mut Metadata) -> Step {
    // The token may be in the path, and then it is taken out: the challenge repeats what was asked for.
    let challenge_for = |head: &RequestHead| {
        let path = head.path_and_query();
        let path = String::from_utf8_lossy(&path[..path.len().min(CHALLENGE_PATH)]);
        let host = String::from_utf8_lossy(head.authority());
        format!("Bearer realm=\"{}://{host}{path}\"", head.scheme().as_str())
    };
    let before = filter.needs_challenge(head).then(|| challenge_for(head));
    let (granted, result) = filter.judge(head, random, now);
    for (key, value) in granted.metadata {
        set(metadata, JWT, &key, value);
    }
    let Err(status) = result else {
        return if granted.clear_route { Step::Reroute } else { Step::Pass };
    };
    let error = if status == Status::Missing { "" } else { ", error=\"invalid_token\"" };
    let challenge = before.unwrap_or_else(|| challenge_for(head)) + error;
    let strip = filter.strip_failure_response;
    Step::Refuse(Box::new(Refusal {
        status: status.code(),
        body: if strip { "" } else { status.as_str() },
        details: status.details(),
        challenge: (!strip).then_some(challenge),
        policy: None,
    }))
}

/// Writes what a filter has to say.
pub(crate) fn set(metadata: &mut Metadata, filter: &str, key: &str, value: Value) {
    let fields = metadata.0.entry(filter.into()).or_insert_with(|| Value::Object(serde_json::Map::new()));
    if let Value::Object(fields) = fields {
        fields.insert(key.into(), value);
    }
}
