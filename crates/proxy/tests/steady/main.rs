//! What a request costs once everything is warm: no allocation at all (a route with a timeout has one, its timer).

use std::io::{Read, Write};
use std::net::TcpStream;

use maille_net::CountedAllocator;
use maille_xds::types::matcher::string_matcher::MatchPattern;
use maille_xds::types::matcher::{PathMatcher, StringMatcher, path_matcher};
use maille_xds::types::pb::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use maille_xds::types::rbac::{Permission, Policy, Principal, Rbac, permission::Rule, principal::Identifier};
use maille_xds::types::route::header_matcher::HeaderMatchSpecifier;
use maille_xds::types::{self, hcm};
use script::{Proxy, Server};

#[path = "../http/support.rs"]
#[allow(dead_code, reason = "HTTP/1's tests need more of it")]
mod script;

#[global_allocator]
static ALLOCATIONS: CountedAllocator = CountedAllocator::new();

const REQUESTS: u64 = 200;

#[test]
fn requests_allocate_nothing() {
    let get = "GET /a/b?c HTTP/1.1\r\nhost: a.example\r\naccept: */*\r\n\r\n";
    let post = "POST /a HTTP/1.1\r\nhost: a.example\r\ncontent-length: 5\r\n\r\nhello";
    let chunks = "POST /a HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let whole = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello";
    let pieces = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let server = Server::start();
    let proxy = Proxy::with(&server, |manager, _| {
        // As a gateway has it.
        manager.generate_request_id = Some(types::BoolValue { value: true });
        manager.use_remote_address = Some(types::BoolValue { value: true });
        manager.normalize_path = Some(types::BoolValue { value: true });
        manager.stream_idle_timeout = Some(types::Duration { seconds: 300, nanos: 0 });
        manager.server_header_transformation =
            hcm::http_connection_manager::ServerHeaderTransformation::Overwrite as i32;
        manager.http_filters.insert(0, policies());
    });
    let mut client = proxy.connect().0;
    let mut upstream: Option<TcpStream> = None;
    for (request, response) in [(get, whole), (get, pieces), (post, whole), (chunks, pieces)] {
        // The last bytes that come of each; what the proxy appends to a head stands before them.
        let ends = [request, response].map(|message| {
            let known = [&b"hello"[..], b"0\r\n\r\n", b"\r\n\r\n"];
            known.into_iter().find(|end| message.as_bytes().ends_with(end)).unwrap_or_default()
        });
        // Something else in this process may allocate now and then, but not each time.
        let least = (0..20)
            .map(|_| {
                let before = ALLOCATIONS.count();
                for _ in 0..REQUESTS {
                    client.write_all(request.as_bytes()).unwrap();
                    let upstream = upstream.get_or_insert_with(|| server.accept().0);
                    read_until(upstream, ends[0]);
                    upstream.write_all(response.as_bytes()).unwrap();
                    read_until(&mut client, ends[1]);
                }
                ALLOCATIONS.count() - before
            })
            .min();
        assert_eq!(least, Some(0), "allocations in {REQUESTS} requests: {request:?} answered with {response:?}");
    }
}

/// Policies by path and by host, of which the last lets everything here pass.
fn policies() -> hcm::HttpFilter {
    let text =
        |text: &str| StringMatcher { match_pattern: Some(MatchPattern::Prefix(text.into())), ..Default::default() };
    let path = |prefix: &str| Rule::UrlPath(PathMatcher { rule: Some(path_matcher::Rule::Path(text(prefix))) });
    let host = |prefix: &str| {
        Rule::Header(types::route::HeaderMatcher {
            name: ":authority".into(),
            header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(text(prefix))),
            ..Default::default()
        })
    };
    let policy = |(n, rule)| {
        let policy = Policy {
            permissions: vec![Permission { rule: Some(rule) }],
            principals: vec![Principal { identifier: Some(Identifier::Any(true)) }],
            ..Default::default()
        };
        (format!("policy {n}"), policy)
    };
    let rules = [path("/b/c/d"), path("/c/d/e"), host("b."), path("/a/c/d"), host("c."), host("a.")];
    let rules = Rbac { action: 0, policies: rules.into_iter().enumerate().map(policy).collect(), ..Default::default() };
    let filter = HttpRbac { rules: Some(rules), ..Default::default() };
    hcm::HttpFilter {
        name: "envoy.filters.http.rbac".into(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(types::any(&filter))),
        ..Default::default()
    }
}

/// Reads what ends like this, and nothing behind it.
fn read_until(stream: &mut TcpStream, end: &[u8]) {
    let (mut buffer, mut len) = ([0; 4096], 0);
    while !buffer[..len].ends_with(end) {
        match stream.read(&mut buffer[len..]).unwrap() {
            0 => panic!("the connection ended after {:?}", String::from_utf8_lossy(&buffer[..len])),
            n => len += n,
        }
    }
}
