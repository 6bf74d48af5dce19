//! Conditions one by one, and what actions make of them.

use maille_http::Name;
use serde_json::json;

use super::*;
use crate::config::{Cidr, HeaderMatcher, MetadataMatcher, MetadataValue, RbacPolicy, ValueMatcher};

fn exact(text: &str) -> StringMatcher {
    StringMatcher::Exact(text.as_bytes().into())
}

fn header(name: &str, value: ValueMatcher) -> Condition {
    Condition::Header(HeaderMatcher { name: Name::new(name), value, invert: false, missing_as_empty: false })
}

fn metadata(path: &[&str], value: MetadataValue) -> Condition {
    let path = path.iter().map(|key| Box::from(*key)).collect();
    Condition::Metadata(MetadataMatcher { filter: "jwt".into(), path, value, invert: false })
}

fn cidr(address: &str, length: u8) -> Cidr {
    Cidr::new(address.parse().unwrap(), length).unwrap()
}

#[test]
fn conditions_on_a_request() {
    let head = RequestHead::build("GET", "shop", "/a/b?c=/x", &[("x-who", "ann"), ("x-who", "bob")]);
    let uris = ["spiffe://td/ns/a/sa/b".into()];
    let dns = ["b.example".into()];
    let written = Metadata([("jwt".into(), json!({"p": {"iss": "i", "n": 3, "aud": ["x", "y"], "t": true}}))].into());
    let facts = Facts {
        head: Some(&head),
        direct: "10.0.0.1".parse().unwrap(),
        remote: "192.0.2.7".parse().unwrap(),
        destination: "10.9.9.9:8080".parse().unwrap(),
        server_name: "sni.example",
        peer: Some(Peer { uris: &uris, dns: &dns, subject: "CN=b" }),
        metadata: Some(&written),
        route_metadata: None,
    };
    let authenticated = |text: &str| Condition::Authenticated(Some(exact(text)));
    for (what, condition, holds) in [
        ("always", Condition::Always, true),
        ("all of none", Condition::All(vec![]), true),
        ("any of none", Condition::Any(vec![]), false),
        ("not", Condition::Not(Box::new(Condition::Always)), false),
        ("lines of a header are one value", header("x-who", ValueMatcher::String(exact("ann,bob"))), true),
        ("not one of them", header("x-who", ValueMatcher::String(exact("bob"))), false),
        ("no such header", header("x-nobody", ValueMatcher::Present(true)), false),
        ("pseudo-header", header(":method", ValueMatcher::String(exact("GET"))), true),
        ("path without query", Condition::Path(exact("/a/b")), true),
        ("query is no path", Condition::Path(StringMatcher::Suffix(b"/x"[..].into())), false),
        ("destination", Condition::DestinationIp(cidr("10.9.0.0", 16)), true),
        ("port", Condition::DestinationPort(8080..8081), true),
        ("another port", Condition::DestinationPort(8081..9000), false),
        ("server name", Condition::ServerName(exact("sni.example")), true),
        ("direct", Condition::Source(SourceAddress::Direct, cidr("10.0.0.0", 8)), true),
        ("remote", Condition::Source(SourceAddress::Remote, cidr("10.0.0.0", 8)), false),
        ("any TLS client", Condition::Authenticated(None), true),
        ("by URI", authenticated("spiffe://td/ns/a/sa/b"), true),
        ("by DNS name", authenticated("b.example"), true),
        ("by subject", authenticated("CN=b"), true),
        ("by no part of a name", authenticated("spiffe://td/ns/a/sa/"), false),
        ("claim", metadata(&["p", "iss"], MetadataValue::String(exact("i"))), true),
        (
            "claim of a list",
            metadata(&["p", "aud"], MetadataValue::OneOf(Box::new(MetadataValue::String(exact("y"))))),
            true,
        ),
        ("a list is no string", metadata(&["p", "aud"], MetadataValue::String(exact("x"))), false),
        ("number", metadata(&["p", "n"], MetadataValue::Number(3.0)), true),
        ("bool", metadata(&["p", "t"], MetadataValue::Bool(true)), true),
        ("missing", metadata(&["p", "x"], MetadataValue::Present(false)), true),
        (
            "route's",
            Condition::RouteMetadata(MetadataMatcher {
                filter: "jwt".into(),
                path: vec!["p".into()],
                value: MetadataValue::Present(true),
                invert: false,
            }),
            false,
        ),
    ] {
        assert_eq!(condition.holds(&facts), holds, "{what}");
    }
    let plain = Facts { head: None, peer: None, ..facts };
    for (what, condition) in [
        ("no headers", header("x-who", ValueMatcher::String(StringMatcher::Prefix(b"a"[..].into())))),
        ("no path", Condition::Path(StringMatcher::Prefix(b"/"[..].into()))),
        ("no TLS", Condition::Authenticated(None)),
    ] {
        assert!(!condition.holds(&plain), "a connection has {what}");
    }
}

#[test]
fn actions() {
    let policy = |name: &str, condition| RbacPolicy {
        name: name.into(),
        permissions: vec![condition],
        principals: vec![Condition::Always],
    };
    let head = RequestHead::build("GET", "shop", "/", &[]);
    let facts = Facts {
        head: Some(&head),
        direct: "10.0.0.1".parse().unwrap(),
        remote: "10.0.0.1".parse().unwrap(),
        destination: "10.9.9.9:80".parse().unwrap(),
        server_name: "",
        peer: None,
        metadata: None,
        route_metadata: None,
    };
    let matching =
        || vec![policy("a b", Condition::Not(Box::new(Condition::Always))), policy("b c", Condition::Always)];
    for (action, policies, allowed, said) in [
        (RbacAction::Allow, matching(), true, Some("b c")),
        (RbacAction::Allow, vec![], false, None),
        (RbacAction::Deny, matching(), false, Some("b c")),
        (RbacAction::Deny, vec![], true, None),
        (RbacAction::Log, matching(), true, Some("b c")),
    ] {
        let verdict = Rules { action, policies }.judge(&facts);
        assert_eq!((verdict.allowed, verdict.policy.as_deref()), (allowed, said), "{action:?}");
    }
    let refused = Verdict { allowed: false, policy: Some("ns[a b]-policy[c]".into()) };
    assert_eq!(refused.details(), "rbac_access_denied_matched_policy[ns[a_b]-policy[c]]");
}
