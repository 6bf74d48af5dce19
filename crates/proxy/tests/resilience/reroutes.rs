//! A route that is chosen by what a filter writes into the request: whoever decides must have seen the request that goes there.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};

use maille_xds::types::cluster::Cluster;
use maille_xds::types::cluster::cluster::{ClusterDiscoveryType, DiscoveryType};
use maille_xds::types::core::{DataSource, HttpUri, data_source::Specifier, http_uri};
use maille_xds::types::matcher::string_matcher::MatchPattern;
use maille_xds::types::matcher::{ListStringMatcher, StringMatcher};
use maille_xds::types::pb::envoy::extensions::filters::http::ext_authz::v3::{
    AuthorizationResponse, ExtAuthz, HttpService, ext_authz::Services,
};
use maille_xds::types::pb::envoy::extensions::filters::http::jwt_authn::v3::{
    JwtAuthentication, JwtClaimToHeader, JwtProvider, JwtRequirement, RequirementRule,
    jwt_provider::JwksSourceSpecifier, jwt_requirement::RequiresType, requirement_rule::RequirementType,
};
use maille_xds::types::pb::envoy::extensions::filters::http::rbac::v3::Rbac as RbacFilter;
use maille_xds::types::rbac::{Permission, Policy, Principal, Rbac, permission::Rule, principal::Identifier};
use maille_xds::types::route::header_matcher::HeaderMatchSpecifier;
use maille_xds::types::route::{HeaderMatcher, Route, RouteAction, RouteMatch, route};
use maille_xds::types::route::{route_action::ClusterSpecifier, route_match::PathSpecifier};
use maille_xds::types::{self, Any, Duration};

use crate::support::{Backend, Config, Proxy, load_assignment};

fn exact(text: &str) -> StringMatcher {
    StringMatcher { match_pattern: Some(MatchPattern::Exact(text.into())), ..Default::default() }
}

fn header(name: &str, value: &str) -> HeaderMatcher {
    let is = HeaderMatchSpecifier::StringMatch(exact(value));
    HeaderMatcher { name: name.into(), header_match_specifier: Some(is), ..Default::default() }
}

fn cluster(name: &str, at: &Backend) -> Cluster {
    Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        load_assignment: Some(load_assignment(&[at])),
        ..Default::default()
    }
}

/// Where administrators go, by a header; everybody else goes to the other backend.
fn for_admins(config: &mut Config, admin: &Backend, name: &str) {
    config.clusters.push(cluster("admin", admin));
    config.routes = vec![Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".into())),
            headers: vec![header(name, "admin")],
            ..Default::default()
        }),
        action: Some(route::Action::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster("admin".into())),
            ..Default::default()
        })),
        ..Default::default()
    }];
}

/// Refuses whoever has a header.
fn deny(name: &str, value: &str) -> Any {
    let policy = Policy {
        permissions: vec![Permission { rule: Some(Rule::Header(header(name, value))) }],
        principals: vec![Principal { identifier: Some(Identifier::Any(true)) }],
        ..Default::default()
    };
    let rules = Rbac { action: 1, policies: HashMap::from([("no admins".into(), policy)]), ..Default::default() };
    types::any(&RbacFilter { rules: Some(rules), ..Default::default() })
}

/// Says who a client is: `/admin…` is an administrator, and nobody is what they say.
fn authorizer() -> Backend {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in socket.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let n = stream.read(&mut head).unwrap();
            let said = match head[..n].starts_with(b"GET /admin") {
                true => "x-role: admin",
                false => "x-envoy-auth-headers-to-remove: x-role",
            };
            let answer = format!("HTTP/1.1 200 OK\r\n{said}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    Backend::at(address)
}

fn ask(clear_route_cache: bool) -> Any {
    types::any(&ExtAuthz {
        clear_route_cache,
        services: Some(Services::HttpService(HttpService {
            server_uri: Some(HttpUri {
                uri: "http://authz".into(),
                timeout: Some(Duration { seconds: 10, nanos: 0 }),
                http_upstream_type: Some(http_uri::HttpUpstreamType::Cluster("authz".into())),
            }),
            authorization_response: Some(AuthorizationResponse {
                allowed_upstream_headers: Some(ListStringMatcher { patterns: vec![exact("x-role")] }),
                ..Default::default()
            }),
            ..Default::default()
        })),
        ..Default::default()
    })
}

/// Which of two backends a request has reached.
fn reached(proxy: &Proxy, [admin, other]: [&Backend; 2], path: &str, headers: &str) -> (u16, &'static str) {
    let seen = || [admin, other].map(|backend| backend.see(|state| state.requests));
    let before = seen();
    let status = proxy.send_with(path, headers).answer().status;
    let after = seen();
    let who = match (after[0] - before[0], after[1] - before[1]) {
        (1, 0) => "admin",
        (0, 1) => "other",
        (0, 0) => "nobody",
        _ => "both",
    };
    (status, who)
}

/// What an authorizer says of a client chooses a route only where it is chosen anew, and then the rules behind it have seen the same.
#[test]
fn row_29_rules_see_the_request_that_the_route_was_chosen_for() {
    let (admin, other, authz) = (Backend::start(), Backend::start(), authorizer());
    let both = [&admin, &other];
    let spoofed = "x-role: admin\r\n";
    // Whether the route is chosen anew, rules behind; what is asked for, and where it goes.
    for (anew, rules, path, headers, expected) in [
        (false, false, "/admin", "", (200, "other")),
        (true, false, "/admin", "", (200, "admin")),
        (true, true, "/admin", "", (403, "nobody")),
        (false, true, "/admin", "", (403, "nobody")),
        (true, false, "/user", spoofed, (200, "other")),
        (true, true, "/user", spoofed, (200, "other")),
        // Chosen before anybody decides: the rules in front have seen what it was chosen by.
        (false, false, "/user", spoofed, (200, "admin")),
    ] {
        let proxy = Proxy::start(&[&other], |config| {
            for_admins(config, &admin, "x-role");
            config.clusters.push(cluster("authz", &authz));
            config.filters = vec![ask(anew)];
            config.filters.extend(rules.then(|| deny("x-role", "admin")));
        });
        assert_eq!(reached(&proxy, both, path, headers), expected, "anew {anew} rules {rules} {path} {headers:?}");
    }
    let proxy = Proxy::start(&[&other], |config| {
        for_admins(config, &admin, "x-role");
        config.clusters.push(cluster("authz", &authz));
        config.filters = vec![deny("x-role", "admin"), ask(false)];
    });
    assert_eq!(reached(&proxy, both, "/user", spoofed), (403, "nobody"), "rules in front");
}

fn token(sub: &str) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    let payload = format!(r#"{{"iss":"me","sub":"{sub}"}}"#);
    let message = format!("{}.{}", BASE64.encode(r#"{"alg":"HS256"}"#), BASE64.encode(payload));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"a secret");
    format!("authorization: Bearer {message}.{}\r\n", BASE64.encode(aws_lc_rs::hmac::sign(&key, message.as_bytes())))
}

fn tokens(clear_route_cache: bool, required: bool) -> Any {
    let keys = r#"{"keys": [{"kty": "oct", "k": "YSBzZWNyZXQ"}]}"#;
    let provider = JwtProvider {
        issuer: "me".into(),
        claim_to_headers: vec![JwtClaimToHeader {
            header_name: "x-sub".into(),
            claim_name: "sub".into(),
            ..Default::default()
        }],
        clear_route_cache,
        jwks_source_specifier: Some(JwksSourceSpecifier::LocalJwks(DataSource {
            specifier: Some(Specifier::InlineString(keys.into())),
            ..Default::default()
        })),
        ..Default::default()
    };
    let requires = match required {
        true => RequiresType::ProviderName("p".into()),
        false => RequiresType::AllowMissing(types::Empty {}),
    };
    let rule = RequirementRule {
        r#match: Some(RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..Default::default() }),
        requirement_type: Some(RequirementType::Requires(JwtRequirement { requires_type: Some(requires) })),
    };
    types::any(&JwtAuthentication {
        providers: HashMap::from([("p".into(), provider)]),
        rules: vec![rule],
        ..Default::default()
    })
}

/// A header that stands for a claim chooses a route only when a token has proven it, whoever else has written it.
#[test]
fn row_29_a_claim_that_nobody_has_proven_chooses_no_route() {
    let (admin, other) = (Backend::start(), Backend::start());
    let both = [&admin, &other];
    let spoofed = "x-sub: admin\r\n";
    for (anew, required) in [(true, false), (true, true), (false, false), (false, true)] {
        let start = |rules: bool| {
            Proxy::start(&[&other], |config| {
                for_admins(config, &admin, "x-sub");
                config.filters = vec![tokens(anew, required)];
                config.filters.extend(rules.then(|| deny("x-sub", "admin")));
            })
        };
        let (proxy, guarded) = (start(false), start(true));
        let nobody = if required { (401, "nobody") } else { (200, "other") };
        let proven = if anew { (200, "admin") } else { (200, "other") };
        for (what, headers, expected, behind_rules) in [
            ("nothing", String::new(), nobody, nobody),
            ("a claim without a token", spoofed.into(), nobody, nobody),
            ("a token", token("admin"), proven, (403, "nobody")),
            ("another's token", token("user"), (200, "other"), (200, "other")),
            ("another's token and a claim", token("user") + spoofed, (200, "other"), (200, "other")),
        ] {
            let told = format!("anew {anew} required {required}: {what}");
            assert_eq!(reached(&proxy, both, "/", &headers), expected, "{told}");
            assert_eq!(reached(&guarded, both, "/", &headers), behind_rules, "{told}, rules behind");
        }
    }
}
