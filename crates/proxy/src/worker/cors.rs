//! The CORS filter: answers preflights, and says on other responses which origin may read them.

use maille_http::{HeaderId, Name, RequestHead, ResponseHead};

use super::reply::Reply;
use crate::config::CorsPolicy;

/// What the filter found out about a request.
pub(crate) enum Cors {
    /// Nothing to do.
    Pass,
    /// The response is for an allowed origin.
    Allowed(Vec<u8>),
    /// A preflight, answered.
    Preflight(Reply),
}

/// Looks at a request to a route with a policy.
pub(crate) fn check(policy: &CorsPolicy, request: &RequestHead, random: u64) -> Cors {
    if !policy.enabled.holds(random) {
        return Cors::Pass;
    }
    let headers = &request.headers;
    let Some(origin) = headers.get(HeaderId::Origin).filter(|origin| !origin.is_empty()) else { return Cors::Pass };
    // A policy that allows the origin `*` allows all.
    let allowed = policy.origins.iter().any(|matcher| matcher.matches(b"*") || matcher.matches(origin));
    let wanted = headers.get(HeaderId::AccessControlRequestMethod).unwrap_or_default();
    if request.method() != b"OPTIONS" || wanted.is_empty() {
        return if allowed { Cors::Allowed(origin.to_vec()) } else { Cors::Pass };
    }
    if !allowed && policy.forward_not_matching_preflights {
        return Cors::Pass;
    }
    let mut reply = Reply::new(200, "cors_response");
    if allowed {
        reply = reply.header(HeaderId::AccessControlAllowOrigin, origin);
    }
    if policy.credentials {
        reply = reply.header(HeaderId::AccessControlAllowCredentials, *b"true");
    }
    match &*policy.methods {
        "" => {}
        "*" => reply = reply.header(HeaderId::AccessControlAllowMethods, wanted),
        methods => reply = reply.header(HeaderId::AccessControlAllowMethods, methods),
    }
    match &*policy.headers {
        "" => {}
        "*" => {
            let asked = request.headers.joined(&Name::new("access-control-request-headers")).unwrap_or_default();
            reply = reply.header(HeaderId::AccessControlAllowHeaders, asked);
        }
        allow => reply = reply.header(HeaderId::AccessControlAllowHeaders, allow),
    }
    if allowed && !policy.expose.is_empty() {
        reply = reply.header(HeaderId::AccessControlExposeHeaders, &*policy.expose);
    }
    if !policy.max_age.is_empty() {
        reply = reply.header(HeaderId::AccessControlMaxAge, &*policy.max_age);
    }
    let private = Name::new("access-control-request-private-network");
    if policy.private_network && headers.joined(&private).as_deref() == Some(b"true") {
        reply.headers.push((Name::new("access-control-allow-private-network"), b"true".to_vec()));
    }
    Cors::Preflight(reply)
}

/// Says on a response which origin may read it.
pub(crate) fn mark(policy: &CorsPolicy, origin: &[u8], response: &mut ResponseHead) {
    response.headers.set_id(HeaderId::AccessControlAllowOrigin, origin);
    if policy.credentials {
        response.headers.set_id(HeaderId::AccessControlAllowCredentials, b"true");
    }
    if !policy.expose.is_empty() {
        response.headers.set_id(HeaderId::AccessControlExposeHeaders, policy.expose.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{Fraction, StringMatcher};

    /// What may be read is decided by the whole origin, scheme and port included, for each request anew; and nothing is
    /// said to an origin that is not allowed.
    #[test]
    fn row_35_an_origin_is_all_of_it() {
        let text: Arc<str> = "".into();
        let policy = CorsPolicy {
            origins: vec![StringMatcher::Exact((*b"https://a.example").into())],
            methods: text.clone(),
            headers: text.clone(),
            expose: text.clone(),
            max_age: text,
            credentials: true,
            forward_not_matching_preflights: false,
            private_network: false,
            enabled: Fraction { numerator: 1, denominator: 1 },
        };
        for (origin, allowed) in [
            ("https://a.example", true),
            ("http://a.example", false),
            ("https://a.example:8443", false),
            ("https://a.example.evil", false),
            ("https://evil/https://a.example", false),
            ("https://A.example", false),
            ("null", false),
        ] {
            let request = RequestHead::build("GET", "x", "/", &[("origin", origin)]);
            assert_eq!(matches!(check(&policy, &request, 0), Cors::Allowed(_)), allowed, "{origin}");
            let fields = [("origin", origin), ("access-control-request-method", "PUT")];
            let preflight = RequestHead::build("OPTIONS", "x", "/", &fields);
            let Cors::Preflight(reply) = check(&policy, &preflight, 0) else { panic!("{origin}: not answered") };
            let named = reply.headers.iter().any(|(name, _)| name.id() == HeaderId::AccessControlAllowOrigin);
            assert_eq!(named, allowed, "{origin}");
        }
    }
}
