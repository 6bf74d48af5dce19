use std::net::SocketAddr;
use std::sync::Arc;

use maille_http::{Name, RequestHead};

use super::*;
use crate::config::{
    Action, Case, Cidr, Conditions, DirectResponse, DownstreamTransport, FilterChain, FullRegex, HeaderMatcher,
    Network, PathMatcher, PathRewrite, QueryMatcher, QueryValue, Redirect, RegexRewrite, Route, RouteMatcher,
    StringMatcher, ValueMatcher,
};
use crate::headers::HeaderMutations;

fn matcher(path: PathMatcher) -> RouteMatcher {
    RouteMatcher::new(path, Conditions::default())
}

fn route(name: &str, matcher: RouteMatcher) -> Route {
    Route {
        name: name.into(),
        matcher,
        action: Action::Respond(Box::new(DirectResponse { status: 200, body: Arc::default() })),
        response: HeaderMutations::default(),
        cors: None,
        fault: None,
        metadata: None,
        operation: None,
        stat_prefix: None,
        retry_buffer_limit: None,
    }
}

fn regex(text: &str) -> PathMatcher {
    PathMatcher::Regex(FullRegex(regex::bytes::Regex::new(&format!(r"\A(?:{text})\z")).unwrap()))
}

/// A small generator of the same numbers each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }

    /// Paths from few letters, so that they often are prefixes of each other.
    fn path(&mut self) -> String {
        let parts = ["/", "a", "b", "A", "aa", "/a", "/ab", "/b/", "ab"];
        let length = self.roll(5);
        (0..length).fold("/".to_owned(), |path, _| path + parts[self.roll(parts.len())])
    }

    fn route(&mut self, n: usize, longest: usize) -> Route {
        // More lengths than the table takes prefixes of, where that is wanted.
        let path = self.path() + &"a".repeat(self.roll(longest));
        let case = if self.roll(4) == 0 { Case::Ignore } else { Case::Sensitive };
        let text = |path: &str| -> Box<[u8]> {
            if case == Case::Ignore { path.to_ascii_lowercase().into_bytes().into() } else { path.as_bytes().into() }
        };
        let path = match self.roll(8) {
            0..3 => PathMatcher::Exact(text(&path), case),
            3..5 => PathMatcher::Prefix(text(&path), case),
            5 => match path.trim_end_matches('/') {
                "" => PathMatcher::Prefix(text("/"), case),
                path => PathMatcher::SeparatedPrefix(text(path), case),
            },
            6 => regex(&format!("{path}.?")),
            _ => PathMatcher::Connect,
        };
        let mut conditions = Conditions::default();
        if self.roll(3) == 0 {
            let value = ValueMatcher::String(StringMatcher::Exact(vec![b'0' + self.roll(2) as u8].into()));
            conditions.headers =
                vec![HeaderMatcher { name: Name::new("x"), value, invert: self.roll(3) == 0, missing_as_empty: false }];
        }
        if self.roll(5) == 0 {
            conditions.query = vec![QueryMatcher { name: b"q"[..].into(), value: QueryValue::Present(true) }];
        }
        route(&n.to_string(), RouteMatcher::new(path, conditions))
    }

    fn request(&mut self) -> RequestHead {
        let query = if self.roll(3) == 0 { "?q=1" } else { "" };
        let value = self.roll(2).to_string();
        let headers: &[(&str, &str)] = if self.roll(2) == 0 { &[("x", &value)] } else { &[] };
        match self.roll(20) {
            0 => RequestHead::build("CONNECT", "a.example:443", "", headers),
            _ => RequestHead::build("GET", "a.example", &format!("{}{query}", self.path()), headers),
        }
    }
}

#[test]
fn the_index_finds_what_trying_all_routes_finds() {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let mut found = 0;
    for round in 0..300 {
        let count = dice.roll(120);
        let routes: Vec<_> = (0..count).map(|n| dice.route(n, [1, 40][round % 2])).collect();
        let index = RouteIndex::new(&routes);
        for _ in 0..100 {
            let head = dice.request();
            let request = Request { head: &head, random: 0, tls: ClientTls::default(), metadata: None };
            let expected = routes.iter().find(|route| route.matcher.matches(head.path(), &request));
            let got = index.find(&routes, &request);
            let name = |route: Option<&Route>| route.map(|route| route.name.clone());
            assert_eq!(name(got), name(expected), "round {round}, {count} routes, {:?}", head.path_and_query());
            found += usize::from(got.is_some());
        }
    }
    assert!(found > 10_000, "the requests hardly ever match: {found}");
}

#[test]
fn hosts() {
    let domains: [&[&str]; 7] = [
        &["a.example", "a.example:8080"],
        &["*.example"],
        &["*-b.example", "*.b.example"],
        &["pre.*", "pre.long.*"],
        &["*"],
        &["UPPER.example"],
        &["[::1]", "[::1]:80"],
    ];
    let index = HostIndex::new(domains).unwrap();
    for (host, expected) in [
        ("a.example", 0),
        ("A.Example", 0),
        ("a.example:8080", 0),
        ("a.example:81", 4),
        ("x.example", 1),
        (".example", 4),
        ("x-b.example", 2),
        ("-b.example", 1),
        ("y.b.example", 2),
        ("pre.x", 3),
        ("pre.", 4),
        ("upper.example", 5),
        ("[::1]:80", 6),
        ("", 4),
    ] {
        assert_eq!(index.find(host.as_bytes()), Some(expected), "{host}");
    }
    let twice: [&[&str]; 2] = [&["a"], &["A"]];
    assert!(HostIndex::new(twice).is_err());
    assert_eq!(HostIndex::new([&["a"][..]]).unwrap().find(b"b"), None);
}

#[test]
fn ports_of_authorities() {
    for (authority, host) in
        [("a:80", "a"), ("a", "a"), ("[::1]", "[::1]"), ("[::1]:80", "[::1]"), ("a:", "a"), ("a:b", "a"), ("", "")]
    {
        assert_eq!(hosts::without_port(authority.as_bytes()), host.as_bytes(), "{authority}");
    }
}

#[test]
fn chains_are_sieved_without_going_back() {
    let chain = |name: &str, wanted: ChainMatch| {
        let chain = FilterChain {
            name: name.into(),
            made_from: Default::default(),
            transport: DownstreamTransport::Plaintext,
            rbac: Vec::new(),
            authorizers: Vec::new(),
            network: Network::Close,
            transport_timeout: None,
            fingerprint: 0,
        };
        (wanted, Arc::new(chain))
    };
    let any = ChainMatch::default;
    let range = |text: &str, length| vec![Cidr::new(text.parse().unwrap(), length).unwrap()];
    let names = |names: &[&str]| names.iter().map(|n| (*n).into()).collect::<Vec<Box<str>>>();
    let chains = FilterChains::new(vec![
        chain("port", ChainMatch { destination_port: Some(80), transport_protocol: "tls".into(), ..any() }),
        chain("wide", ChainMatch { destinations: range("10.0.0.0", 8), ..any() }),
        chain("narrow", ChainMatch { destinations: range("10.1.0.0", 16), server_names: names(&["a.b"]), ..any() }),
        chain("exact", ChainMatch { server_names: names(&["x.example.com"]), ..any() }),
        chain("wild", ChainMatch { server_names: names(&["*.example.com"]), ..any() }),
        chain("h2", ChainMatch { application_protocols: names(&["h2", "h2c"]), ..any() }),
        chain("h1", ChainMatch { application_protocols: names(&["http/1.1"]), ..any() }),
        chain("local", ChainMatch { source_kind: SourceKind::SameIpOrLoopback, ..any() }),
        chain("rest", any()),
    ])
    .unwrap();
    let find = |destination: &str, name: &str, transport: &str, alpn: &[&str], source: &str| {
        let source: SocketAddr = source.parse().unwrap();
        let connection = Connection {
            destination: destination.parse().unwrap(),
            source,
            direct_source: source,
            server_name: name,
            transport_protocol: transport,
            application_protocols: alpn,
        };
        chains.find(&connection).map(|chain| chain.name.to_string())
    };
    let far = "9.9.9.9:1";
    for (destination, name, transport, alpn, source, expected) in [
        ("1.1.1.1:80", "", "tls", &[][..], far, Some("port")),
        // Its port has a chain, so no other is looked at, though that one wants TLS.
        ("1.1.1.1:80", "", "raw_buffer", &[], far, None),
        ("10.2.0.1:1", "", "raw_buffer", &[], far, Some("wide")),
        ("10.1.0.1:1", "a.b", "tls", &[], far, Some("narrow")),
        ("10.1.0.1:1", "", "raw_buffer", &[], far, None),
        ("1.1.1.1:1", "X.example.com", "tls", &[], far, Some("exact")),
        ("1.1.1.1:1", "y.example.com", "tls", &[], far, Some("wild")),
        ("1.1.1.1:1", "example.com", "tls", &["foo", "http/1.1", "h2"], far, Some("h1")),
        ("1.1.1.1:1", "", "raw_buffer", &["h2c"], far, Some("h2")),
        ("1.1.1.1:1", "", "raw_buffer", &[], "127.0.0.1:1", Some("local")),
        ("1.1.1.1:1", "", "raw_buffer", &[], "1.1.1.1:1", Some("local")),
        ("1.1.1.1:1", "", "raw_buffer", &[], far, Some("rest")),
    ] {
        let got = find(destination, name, transport, alpn, source);
        assert_eq!(got.as_deref(), expected, "{destination} {name} {transport} {alpn:?} {source}");
    }
    let twice = vec![chain("one", any()), chain("two", any())];
    assert_eq!(FilterChains::new(twice).unwrap_err(), Ambiguous("one".into(), "two".into()));
}

#[test]
fn paths_are_rewritten_and_the_query_stays() {
    let exact = |text: &str| PathMatcher::Exact(text.as_bytes().into(), Case::Sensitive);
    let prefix = |text: &str| PathMatcher::Prefix(text.as_bytes().into(), Case::Ignore);
    let to = |text: &str| PathRewrite::Matched(text.as_bytes().into());
    let expression = |pattern: &str, substitution: &str| {
        PathRewrite::Regex(RegexRewrite::new(regex::bytes::Regex::new(pattern).unwrap(), substitution).unwrap())
    };
    for (matched, rewrite, path, expected) in [
        (exact("/a"), to("/b"), "/a?x=/a", "/b?x=/a"),
        (prefix("/a"), to("/b/"), "/A/c", "/b//c"),
        (prefix("/"), to("/z"), "/", "/z"),
        (regex(".*"), to("/z"), "/a/b?q", "/z?q"),
        (prefix("/"), expression("/(\\w+)/(\\w+)", r"/\2/\1$\\"), "/a/b?/c/d", r"/b/a$\?/c/d"),
        (prefix("/"), PathRewrite::Full(b"/f"[..].into()), "/a/b?q", "/f?q"),
        (prefix("/"), PathRewrite::None, "/a", "/a"),
    ] {
        let mut head = RequestHead::build("GET", "a", path, &[]);
        rewrite::rewrite_path(&rewrite, &matched, &mut head, true);
        assert_eq!(String::from_utf8_lossy(head.path_and_query()), expected);
        let original = head.header(&Name::new("x-envoy-original-path"));
        assert_eq!(original.is_some(), path != expected, "{path}");
    }
    let pattern = regex::bytes::Regex::new("(a)").unwrap();
    assert_eq!(RegexRewrite::new(pattern.clone(), r"b\2").unwrap().apply(b"aa"), b"aa", "there is no second group");
    assert!(RegexRewrite::new(pattern, r"\x").is_err());
}

#[test]
fn redirects_go_where_envoy_sends_them() {
    let plain =
        || Redirect { status: 301, scheme: None, host: None, port: None, path: PathRewrite::None, strip_query: false };
    let full = |text: &str| PathRewrite::Full(text.as_bytes().into());
    let prefix = route("", matcher(PathMatcher::Prefix(b"/p"[..].into(), Case::Sensitive)));
    for (redirect, host, path, expected) in [
        (plain(), "a:81", "/p?q", "http://a:81/p?q"),
        (Redirect { scheme: Some("https".into()), ..plain() }, "a:80", "/p", "https://a/p"),
        (Redirect { scheme: Some("https".into()), ..plain() }, "a:81", "/p", "https://a:81/p"),
        (Redirect { port: Some(90), ..plain() }, "a:81", "/p", "http://a:90/p"),
        (Redirect { port: Some(90), ..plain() }, "[::1]:81", "/p", "http://[::1]:90/p"),
        (Redirect { port: Some(90), ..plain() }, "[::1]", "/p", "http://[::1]:90/p"),
        (Redirect { host: Some("b".into()), ..plain() }, "a:81", "/p", "http://b/p"),
        (Redirect { path: full("/n"), ..plain() }, "a", "/p?q=1", "http://a/n?q=1"),
        (Redirect { path: full("n"), ..plain() }, "a", "/p", "http://a/n"),
        (Redirect { path: full("/n?x"), strip_query: true, ..plain() }, "a", "/p?q=1", "http://a/n?x"),
        (Redirect { path: full("/n"), strip_query: true, ..plain() }, "a", "/p?q=1", "http://a/n"),
        (Redirect { path: PathRewrite::Matched(b"/z"[..].into()), ..plain() }, "a", "/p/r?q", "http://a/z/r?q"),
    ] {
        let head = RequestHead::build("GET", host, path, &[("x-forwarded-proto", "http")]);
        assert_eq!(String::from_utf8_lossy(&redirect.location(&prefix, &head)), expected);
    }
}

#[test]
fn query_parameters() {
    for (query, expected) in [
        ("a=1&b=2", Some("2")),
        ("b=%32%2f&b=3", Some("2/")),
        ("b", Some("")),
        ("%62=x", Some("x")),
        ("c=b", None),
        ("b=%zz%4", Some("%zz%4")),
        ("", None),
    ] {
        let got = query_parameter(query.as_bytes(), b"b");
        assert_eq!(got.as_deref(), expected.map(str::as_bytes), "{query}");
    }
}
