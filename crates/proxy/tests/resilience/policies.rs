//! RBAC rules, tokens and external authorizers in front of a backend: who gets through, and what the others are told.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicI32, Ordering};

use bytes::Bytes;
use maille_xds::types::cluster::Cluster;
use maille_xds::types::cluster::cluster::{ClusterDiscoveryType, DiscoveryType};
use maille_xds::types::core::grpc_service::{EnvoyGrpc, TargetSpecifier};
use maille_xds::types::core::{DataSource, GrpcService, HttpUri, address, data_source::Specifier, http_uri};
use maille_xds::types::matcher::string_matcher::MatchPattern;
use maille_xds::types::matcher::{ListStringMatcher, PathMatcher, StringMatcher, path_matcher};
use maille_xds::types::pb::envoy::extensions::filters::http::ext_authz::v3::{
    AuthorizationResponse, ExtAuthz, HttpService, ext_authz::Services,
};
use maille_xds::types::pb::envoy::extensions::filters::http::jwt_authn::v3::{
    JwtAuthentication, JwtProvider, JwtRequirement, RequirementRule, jwt_provider::JwksSourceSpecifier,
    jwt_requirement::RequiresType, requirement_rule::RequirementType,
};
use maille_xds::types::pb::envoy::extensions::filters::{http, network};
use maille_xds::types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, attribute_context,
};
use maille_xds::types::pb::google::rpc::Status;
use maille_xds::types::rbac::{Permission, Policy, Principal, Rbac, permission::Rule, principal::Identifier};
use maille_xds::types::route::{RouteMatch, route_match::PathSpecifier};
use maille_xds::types::{self, Any, Duration, Message, upstream_http};

use upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
use upstream_http::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};

use crate::support::{Backend, Proxy, load_assignment};

/// Denies a path.
fn rules(path: &str) -> Rbac {
    let matcher = StringMatcher { match_pattern: Some(MatchPattern::Exact(path.into())), ..Default::default() };
    let policy = Policy {
        permissions: vec![Permission {
            rule: Some(Rule::UrlPath(PathMatcher { rule: Some(path_matcher::Rule::Path(matcher)) })),
        }],
        principals: vec![Principal { identifier: Some(Identifier::Any(true)) }],
        ..Default::default()
    };
    Rbac {
        action: 1,
        policies: HashMap::from([("ns[a]-policy[no admins]-rule[0]".into(), policy)]),
        ..Default::default()
    }
}

#[test]
fn rules_refuse_by_name() {
    let backend = Backend::start();
    let proxy = Proxy::start(&[&backend], |config| {
        let filter = http::rbac::v3::Rbac { rules: Some(rules("/admin")), ..Default::default() };
        config.filters = vec![types::any(&filter)];
    });
    assert_eq!(proxy.get("/").status, 200);
    let refused = proxy.get("/admin?x=1");
    assert_eq!((refused.status, refused.body.as_str()), (403, "RBAC: access denied"));
    let logged = proxy.logged("/admin?x=1");
    assert_eq!(logged, "- rbac_access_denied_matched_policy[ns[a]-policy[no_admins]-rule[0]] -");
    assert_eq!(backend.see(|state| state.requests), 1);
}

#[test]
fn rules_of_connections() {
    let backend = Backend::start();
    let never = Rbac { action: 0, ..Default::default() };
    let proxy = Proxy::start(&[&backend], |config| {
        let filter = network::rbac::v3::Rbac { rules: Some(never), stat_prefix: "tcp.".into(), ..Default::default() };
        config.network_filters = vec![types::any(&filter)];
    });
    let mut connection = proxy.connect();
    let _ = connection.write_all(b"GET / HTTP/1.1\r\n\r\n");
    // An end or a reset, as the moment has it.
    assert!(matches!(connection.read(&mut [0; 16]), Ok(0) | Err(_)));
    assert_eq!(backend.see(|state| state.connections), 0);
}

#[test]
fn tokens_are_required() {
    let backend = Backend::start();
    let keys = r#"{"keys": [{"kty": "oct", "k": "YSBzZWNyZXQ"}]}"#;
    let provider = JwtProvider {
        issuer: "me".into(),
        jwks_source_specifier: Some(JwksSourceSpecifier::LocalJwks(DataSource {
            specifier: Some(Specifier::InlineString(keys.into())),
            ..Default::default()
        })),
        ..Default::default()
    };
    let requires = JwtRequirement { requires_type: Some(RequiresType::ProviderName("p".into())) };
    let rule = RequirementRule {
        r#match: Some(RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..Default::default() }),
        requirement_type: Some(RequirementType::Requires(requires)),
    };
    let filter = JwtAuthentication {
        providers: HashMap::from([("p".into(), provider)]),
        rules: vec![rule],
        ..Default::default()
    };
    let proxy = Proxy::start(&[&backend], |config| config.filters = vec![types::any(&filter)]);
    let refused = proxy.get("/a");
    assert_eq!((refused.status, refused.body.as_str()), (401, "Jwt is missing"));
    assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"http://backends/a\""));
    assert_eq!(proxy.logged("/a"), "- jwt_authn_access_denied{Jwt_is_missing} -");
    let refused = proxy.send_with("/b", "authorization: Bearer YQ.b.c\r\n").answer();
    assert_eq!((refused.status, refused.body.as_str()), (401, "Jwt header is an invalid JSON"));
    assert!(refused.header("www-authenticate").unwrap().ends_with(", error=\"invalid_token\""));
    // {"alg":"HS256"}.{"iss":"me"}, signed with "a secret".
    let token =
        "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJtZSJ9.".to_owned() + &signature("eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJtZSJ9");
    assert_eq!(proxy.send_with("/c", &format!("authorization: Bearer {token}\r\n")).answer().status, 200);
    assert_eq!(backend.see(|state| state.requests), 1);
}

fn signature(message: &str) -> String {
    use base64::Engine as _;
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"a secret");
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, message.as_bytes()))
}

pub(crate) fn cluster(at: &Backend, http2: bool) -> Cluster {
    let mut cluster = Cluster {
        name: "authz".into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        load_assignment: Some(load_assignment(&[at])),
        ..Default::default()
    };
    if http2 {
        speaks(&mut cluster, ProtocolConfig::Http2ProtocolOptions(Default::default()));
    }
    cluster
}

/// How its hosts are spoken to.
pub(crate) fn speaks(cluster: &mut Cluster, protocol: ProtocolConfig) {
    let config = ExplicitHttpConfig { protocol_config: Some(protocol) };
    let options = upstream_http::HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)),
        ..Default::default()
    };
    let key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    cluster.typed_extension_protocol_options.insert(key.into(), types::any(&options));
}

fn over_http(failure_mode_allow: bool) -> Any {
    types::any(&ExtAuthz { failure_mode_allow, ..ask_over_http() })
}

pub(crate) fn ask_over_http() -> ExtAuthz {
    let prefix =
        |text: &str| StringMatcher { match_pattern: Some(MatchPattern::Prefix(text.into())), ..Default::default() };
    let list = |text| Some(ListStringMatcher { patterns: vec![prefix(text)] });
    ExtAuthz {
        services: Some(Services::HttpService(HttpService {
            server_uri: Some(HttpUri {
                uri: "http://authz".into(),
                timeout: Some(Duration { seconds: 10, nanos: 0 }),
                http_upstream_type: Some(http_uri::HttpUpstreamType::Cluster("authz".into())),
            }),
            path_prefix: "/check".into(),
            authorization_response: Some(AuthorizationResponse {
                allowed_client_headers_on_success: list("x-ok"),
                allowed_client_headers: list("x-why"),
                ..Default::default()
            }),
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// Answers each connection's one request as its path says.
fn authorizer() -> Backend {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in socket.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let n = stream.read(&mut head).unwrap();
            let head = String::from_utf8_lossy(&head[..n]).into_owned();
            let answer = match head.split(' ').nth(1).unwrap_or_default() {
                "/check/in" => "200 OK\r\nx-ok: yes\r\ncontent-length: 0",
                "/check/out" => "401 No\r\nx-why: because\r\nx-other: 1\r\ncontent-length: 0",
                _ => "500 Broken\r\ncontent-length: 0",
            };
            let _ = stream.write_all(format!("HTTP/1.1 {answer}\r\nconnection: close\r\n\r\n").as_bytes());
        }
    });
    Backend::at(address)
}

#[test]
fn an_authorizer_is_asked_over_http() {
    let (backend, authz) = (Backend::start(), authorizer());
    for lenient in [false, true] {
        let proxy = Proxy::start(&[&backend], |config| {
            config.clusters = vec![cluster(&authz, false)];
            config.filters = vec![over_http(lenient)];
        });
        let passed = proxy.get("/in");
        assert_eq!((passed.status, passed.header("x-ok")), (200, Some("yes")));
        let refused = proxy.get("/out");
        assert_eq!((refused.status, refused.header("x-why"), refused.header("x-other")), (401, Some("because"), None));
        assert_eq!(proxy.logged("/out"), "UAEX ext_authz_denied -");
        assert_eq!(proxy.get("/broken").status, if lenient { 200 } else { 403 });
    }
    let proxy = Proxy::start(&[&backend], |config| {
        config.clusters = vec![cluster(&Backend::absent(), false)];
        config.filters = vec![over_http(false)];
    });
    assert_eq!(proxy.get("/in").status, 403, "nobody answers");
    assert_eq!(proxy.logged("/in"), "UAEX ext_authz_error -");
}

#[test]
fn an_authorizer_is_asked_over_grpc() {
    // Consents to `/in`, refuses `/out`, and fails at everything else.
    let authz = grpc_authorizer(|asked| match asked.request?.http?.path.as_str() {
        "/in" => Some(0),
        "/out" => Some(7),
        _ => None,
    });
    let backend = Backend::start();
    let filter = ExtAuthz {
        transport_api_version: 2,
        services: Some(Services::GrpcService(GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
                cluster_name: "authz".into(),
                ..Default::default()
            })),
            timeout: Some(Duration { seconds: 10, nanos: 0 }),
            ..Default::default()
        })),
        ..Default::default()
    };
    let proxy = Proxy::start(&[&backend], |config| {
        config.clusters = vec![cluster(&authz, true)];
        config.filters = vec![types::any(&filter)];
    });
    for (path, status) in [("/in", 200), ("/out", 403), ("/in", 200), ("/broken", 403)] {
        assert_eq!(proxy.get(path).status, status, "{path}");
    }
    assert_eq!(proxy.logged("/out"), "UAEX ext_authz_denied -");
    assert_eq!(proxy.logged("/broken"), "UAEX ext_authz_error -");
}

/// What an authorizer is told of connections: who meets whom. It consents, refuses, or fails.
#[test]
fn an_authorizer_is_asked_about_connections() {
    static SAYS: AtomicI32 = AtomicI32::new(0);
    let authz = grpc_authorizer(|asked| {
        assert!(asked.request.is_none(), "there is no request");
        let port = |peer: Option<attribute_context::Peer>| match peer?.address?.address? {
            address::Address::SocketAddress(socket) => socket.port_specifier,
            _ => None,
        };
        assert!(port(asked.source).is_some() && port(asked.destination).is_some());
        Some(SAYS.load(Ordering::Relaxed)).filter(|code| *code >= 0)
    });
    let backend = Backend::start();
    for lenient in [false, true] {
        let filter = network::ext_authz::v3::ExtAuthz {
            stat_prefix: "tcp".into(),
            grpc_service: Some(GrpcService {
                target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
                    cluster_name: "authz".into(),
                    ..Default::default()
                })),
                timeout: Some(Duration { seconds: 10, nanos: 0 }),
                ..Default::default()
            }),
            failure_mode_allow: lenient,
            transport_api_version: 2,
            ..Default::default()
        };
        let proxy = Proxy::start(&[&backend], |config| {
            config.clusters = vec![cluster(&authz, true)];
            config.network_filters = vec![types::any(&filter)];
        });
        for (says, passes) in [(0, true), (7, false), (-1, lenient), (0, true)] {
            SAYS.store(says, Ordering::Relaxed);
            let mut connection = proxy.connect();
            let _ = connection.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n");
            let answered = matches!(connection.read(&mut [0; 512]), Ok(n) if n > 0);
            assert_eq!(answered, passes, "{says} {lenient}");
        }
    }
}

/// Answers with the code that comes of what it is asked; fails at nothing.
fn grpc_authorizer(decide: fn(AttributeContext) -> Option<i32>) -> Backend {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address: SocketAddr = socket.local_addr().unwrap();
    socket.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let socket = tokio::net::TcpListener::from_std(socket).unwrap();
            while let Ok((stream, _)) = socket.accept().await {
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(check(request, respond, decide));
                    }
                });
            }
        });
    });
    Backend::at(address)
}

async fn check(
    request: ::http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    decide: fn(AttributeContext) -> Option<i32>,
) {
    assert_eq!(request.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
    // What Envoy says when it is the one who asks.
    for (name, value) in [
        ("x-envoy-internal", "true"),
        ("x-envoy-expected-rq-timeout-ms", "10000"),
        ("grpc-timeout", "10000m"),
        ("x-forwarded-for", &maille_net::own_address().to_string()),
    ] {
        assert_eq!(request.headers().get(name).expect(name), value, "{name}");
    }
    let mut body = request.into_body();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        bytes.extend_from_slice(&data.unwrap());
    }
    let asked = CheckRequest::decode(&bytes[5..]).unwrap().attributes.unwrap();
    let Some(code) = decide(asked) else { return respond.send_reset(h2::Reason::INTERNAL_ERROR) };
    let answer = CheckResponse { status: Some(Status { code, ..Default::default() }), ..Default::default() };
    let message = answer.encode_to_vec();
    let mut framed = vec![0, 0, 0, 0, message.len() as u8];
    framed.extend(message);
    let head = ::http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = respond.send_response(head, false).unwrap();
    stream.send_data(framed.into(), false).unwrap();
    let mut trailers = ::http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
}
