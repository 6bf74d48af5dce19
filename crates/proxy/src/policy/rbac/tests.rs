//! Conditions one by one, and what actions make of them.

use maille_http::Name;
use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::sample::select;
use proptest::test_runner::Config as ProptestConfig;
use proptest::{prop_assert_eq, prop_oneof, proptest};
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
    let facts = Facts { head: Some(&head), ..nobody() };
    let matching =
        || vec![policy("a b", Condition::Not(Box::new(Condition::Always))), policy("b c", Condition::Always)];
    for (action, policies, allowed, said) in [
        (RbacAction::Allow, matching(), true, Some("b c")),
        (RbacAction::Allow, vec![], false, None),
        (RbacAction::Deny, matching(), false, Some("b c")),
        (RbacAction::Deny, vec![], true, None),
        (RbacAction::Log, matching(), true, Some("b c")),
    ] {
        let verdict = Rules::new(action, policies).judge(&facts);
        assert_eq!((verdict.allowed, verdict.policy.as_deref()), (allowed, said), "{action:?}");
    }
    let refused = Verdict { allowed: false, policy: Some("ns[a b]-policy[c]".into()) };
    assert_eq!(refused.details(), "rbac_access_denied_matched_policy[ns[a_b]-policy[c]]");
}

/// A policy's condition: mostly what policies are filed by, from few texts, so that they often hold.
fn condition() -> impl Strategy<Value = Condition> {
    let text = |texts: &'static [&'static str]| select(texts).prop_map(|text| Box::from(text.as_bytes()));
    let matcher = move |texts| {
        text(texts).prop_flat_map(|text: Box<[u8]>| {
            let lower: Box<[u8]> = text.to_ascii_lowercase().into();
            select(vec![
                StringMatcher::Exact(text.clone()),
                StringMatcher::ExactIgnoreCase(lower.clone()),
                StringMatcher::Prefix(text.clone()),
                StringMatcher::Suffix(text),
                StringMatcher::PrefixIgnoreCase(lower),
            ])
        })
    };
    let of_header = move |name: &'static str, texts| {
        (matcher(texts), any::<bool>(), any::<bool>()).prop_map(move |(matcher, invert, missing_as_empty)| {
            let value = ValueMatcher::String(matcher);
            Condition::Header(HeaderMatcher { name: Name::new(name), value, invert, missing_as_empty })
        })
    };
    let leaf = prop_oneof![
        4 => matcher(NAMES).prop_map(|name| Condition::Authenticated(Some(name))),
        4 => matcher(PATHS).prop_map(Condition::Path),
        2 => of_header(":authority", HOSTS),
        1 => of_header(":method", &["GET", "PUT"]),
        1 => (79..81_u32).prop_map(|port| Condition::DestinationPort(port..port + 1)),
        1 => select(vec![Condition::Always, Condition::Authenticated(None)]),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            3 => vec(inner.clone(), 0..4).prop_map(Condition::All),
            3 => vec(inner.clone(), 0..4).prop_map(Condition::Any),
            1 => inner.prop_map(|inner| Condition::Not(Box::new(inner))),
        ]
    })
}

const NAMES: &[&str] = &["spiffe://td/ns/a/sa/b", "spiffe://td/ns/a/sa/c", "b.example", "CN=b", ""];
const PATHS: &[&str] = &["/", "/api", "/api/v1/orders", "/api/v1/orders/7", "/api/v2", "/Api/v2"];
const HOSTS: &[&str] = &["shop", "Shop", "shop:80", ""];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]
    #[test]
    fn the_index_finds_what_trying_all_policies_finds(
        conditions in vec((vec(condition(), 1..3), vec(condition(), 1..3)), 0..30),
        uri in select(NAMES),
        subject in select(NAMES),
        path in select(PATHS),
        host in select(HOSTS),
        kind in 0..8,
    ) {
        let named = |(n, (permissions, principals))| RbacPolicy { name: format!("{n}").into(), permissions, principals };
        let policies: Vec<_> = conditions.into_iter().enumerate().map(named).collect();
        let head = match kind {
            0 => RequestHead::build("CONNECT", host, "", &[]),
            1 => RequestHead::build("GET", host, &format!("{path}?{path}"), &[]),
            _ => RequestHead::build("GET", host, path, &[]),
        };
        let uris = [uri.into()];
        let peer = Peer { uris: &uris, dns: &[], subject };
        let facts = Facts { head: (kind != 2).then_some(&head), peer: (kind != 3).then_some(peer), ..nobody() };
        let expected = policies.iter().find(|policy| policy.applies(&facts)).map(|policy| policy.name.clone());
        let got = Rules::new(RbacAction::Allow, policies).judge(&facts);
        prop_assert_eq!(got, Verdict { allowed: expected.is_some(), policy: expected });
    }
}

fn nobody() -> Facts<'static> {
    Facts {
        head: None,
        direct: "10.0.0.1".parse().unwrap(),
        remote: "10.0.0.1".parse().unwrap(),
        destination: "10.9.9.9:80".parse().unwrap(),
        server_name: "",
        peer: None,
        metadata: None,
        route_metadata: None,
    }
}
