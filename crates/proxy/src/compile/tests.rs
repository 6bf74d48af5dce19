use std::sync::Arc;

use maille_xds::types::cluster::cluster::{ClusterDiscoveryType, DiscoveryType};
use maille_xds::types::core::config_source::ConfigSourceSpecifier;
use maille_xds::types::core::socket_address::PortSpecifier;
use maille_xds::types::core::{self, address};
use maille_xds::types::hcm::http_connection_manager::RouteSpecifier;
use maille_xds::types::hcm::{self, HttpConnectionManager, HttpFilter, http_filter};
use maille_xds::types::listener::{self as lds, filter};
use maille_xds::types::matcher::{RegexMatcher, StringMatcher, string_matcher::MatchPattern};
use maille_xds::types::route::route::Action as RouteActionKind;
use maille_xds::types::route::route_action::ClusterSpecifier;
use maille_xds::types::route::route_match::PathSpecifier;
use maille_xds::types::route::{self as rds, weighted_cluster};
use maille_xds::types::router::Router;
use maille_xds::types::{Any, BoolValue, Duration, Message, Name, UInt32Value, any, cluster as cds};

use super::*;
use crate::config::{Action, ClusterChoice, Network, RouteSource};

fn address(text: &str, port: u32) -> Option<core::Address> {
    let socket = core::SocketAddress {
        address: text.into(),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..Default::default()
    };
    Some(core::Address { address: Some(address::Address::SocketAddress(socket)) })
}

fn http_filter<M: Message + Name>(name: &str, config: &M) -> HttpFilter {
    HttpFilter {
        name: name.into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(config))),
        ..Default::default()
    }
}

fn ads() -> Option<core::ConfigSource> {
    let ads = ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {});
    Some(core::ConfigSource { config_source_specifier: Some(ads), ..Default::default() })
}

fn manager() -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: "in".into(),
        route_specifier: Some(RouteSpecifier::Rds(hcm::Rds { config_source: ads(), route_config_name: "r".into() })),
        http_filters: vec![http_filter("envoy.filters.http.router", &Router::default())],
        stream_idle_timeout: Some(Duration::default()),
        ..Default::default()
    }
}

fn listener_of<M: Message + Name>(config: &M) -> lds::Listener {
    let filter = lds::Filter { name: "f".into(), config_type: Some(filter::ConfigType::TypedConfig(any(config))) };
    let chain = lds::FilterChain { filters: vec![filter], ..Default::default() };
    lds::Listener {
        name: "l".into(),
        address: address("127.0.0.1", 80),
        filter_chains: vec![chain],
        ..Default::default()
    }
}

fn forward(path: &str, cluster: &str) -> rds::Route {
    rds::Route {
        r#match: Some(rds::RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix(path.into())),
            ..Default::default()
        }),
        action: Some(RouteActionKind::Route(rds::RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.into())),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn table() -> rds::RouteConfiguration {
    let host = rds::VirtualHost {
        name: "h".into(),
        domains: vec!["*".into()],
        routes: vec![forward("/", "c")],
        ..Default::default()
    };
    rds::RouteConfiguration { name: "t".into(), virtual_hosts: vec![host], ..Default::default() }
}

fn static_cluster() -> cds::Cluster {
    cds::Cluster {
        name: "c".into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        ..Default::default()
    }
}

#[test]
fn what_is_plain_compiles_with_envoys_defaults() {
    let compiled = listener(&listener_of(&manager())).unwrap();
    assert_eq!(unsupported::listener(&compiled), []);
    assert!(compiled.bind_to_port);
    let Network::Http(manager) = &compiled.chains.iter().next().unwrap().network else { panic!("no HTTP") };
    assert!(matches!(&manager.routes, RouteSource::Rds(name) if &**name == "r"));
    assert_eq!((manager.max_header_bytes, manager.max_header_count), (60 << 10, 100));
    assert_eq!(manager.timeouts.idle, Some(std::time::Duration::from_secs(3600)));
    assert_eq!(manager.timeouts.stream_idle, None, "zero is no timeout");
    assert!(manager.request_id.generate && manager.http1.allow_absolute_url);

    let compiled = routes(&table()).unwrap();
    let Action::Forward(forward) = &compiled.virtual_hosts[0].routes[0].action else { panic!("no forward") };
    assert_eq!(forward.timeout, Some(std::time::Duration::from_secs(15)));
    assert!(matches!(&forward.cluster, ClusterChoice::One(one) if &*one.cluster == "c"));

    let compiled = cluster(&static_cluster()).unwrap();
    assert_eq!(compiled.connect_timeout, std::time::Duration::from_secs(5));
    assert_eq!((compiled.panic_threshold, compiled.limits.max_connections), (50.0, 1024));
}

/// Each change, and the field that is refused for it.
#[test]
fn refusals_of_listeners_name_the_field() {
    type Change = fn(&mut HttpConnectionManager);
    let cases: [(Change, &str); 10] = [
        (|m| m.add_user_agent = Some(BoolValue { value: true }), "add_user_agent"),
        (|m| m.local_reply_config = Some(Default::default()), "local_reply_config"),
        (|m| m.http_filters.clear(), "http_filters"),
        (|m| m.http_filters.insert(0, m.http_filters[0].clone()), "http_filters[0]"),
        (|m| m.codec_type = 77, "codec_type"),
        (|m| m.codec_type = 3, "codec_type"),
        (|m| m.route_specifier = None, "route_specifier"),
        (
            |m| {
                m.route_specifier =
                    Some(RouteSpecifier::Rds(hcm::Rds { route_config_name: "r".into(), ..Default::default() }))
            },
            "rds.config_source",
        ),
        (
            |m| {
                m.http_filters.insert(
                    0,
                    HttpFilter {
                        name: "x".into(),
                        config_type: Some(http_filter::ConfigType::TypedConfig(Any {
                            type_url: "type.googleapis.com/x.Y".into(),
                            value: vec![],
                        })),
                        ..Default::default()
                    },
                )
            },
            "http_filters[0].typed_config",
        ),
        (|m| m.request_timeout = Some(Duration { seconds: -1, nanos: 0 }), "request_timeout"),
    ];
    for (change, field) in cases {
        let mut manager = manager();
        change(&mut manager);
        let refused = listener(&listener_of(&manager)).unwrap_err();
        assert_eq!(refused.resource, "l");
        assert_eq!(refused.field, format!("filter_chains[0].filters[0].typed_config.{field}"), "{refused}");
        assert!(!refused.reason.is_empty());
    }
    let mut broken = listener_of(&manager());
    broken.address = address("not an address", 80);
    assert_eq!(listener(&broken).unwrap_err().field, "address.socket_address.address");
    broken.address = address("::1", 65_536);
    assert_eq!(listener(&broken).unwrap_err().field, "address.socket_address.port_value");
    let mut twice = listener_of(&manager());
    twice.filter_chains.push(twice.filter_chains[0].clone());
    assert_eq!(listener(&twice).unwrap_err().field, "filter_chains");
    let mut garbage = listener_of(&manager());
    if let Some(filter::ConfigType::TypedConfig(any)) = &mut garbage.filter_chains[0].filters[0].config_type {
        any.value = vec![0xff; 20];
    }
    assert!(listener(&garbage).unwrap_err().reason.contains("HttpConnectionManager"));
}

#[test]
fn refusals_of_routes_name_the_field() {
    type Change = fn(&mut rds::Route);
    fn action(route: &mut rds::Route) -> &mut rds::RouteAction {
        match &mut route.action {
            Some(RouteActionKind::Route(action)) => action,
            _ => panic!("no forward"),
        }
    }
    fn request_header(value: &str) -> core::HeaderValueOption {
        let header = core::HeaderValue { key: "x".into(), value: value.into(), ..Default::default() };
        core::HeaderValueOption { header: Some(header), ..Default::default() }
    }
    let cases: [(Change, &str); 14] = [
        (|r| r.action = None, "action"),
        (|r| r.r#match = None, "match"),
        (|r| r.tracing = Some(Default::default()), "tracing"),
        (|r| action(r).cluster_specifier = Some(ClusterSpecifier::Cluster(String::new())), "route.cluster"),
        (
            |r| action(r).cluster_specifier = Some(ClusterSpecifier::WeightedClusters(Default::default())),
            "route.weighted_clusters.clusters",
        ),
        (
            |r| {
                let cluster = weighted_cluster::ClusterWeight {
                    name: "a".into(),
                    weight: Some(UInt32Value { value: 1 }),
                    metadata_match: Some(Default::default()),
                    ..Default::default()
                };
                let clusters = rds::WeightedCluster { clusters: vec![cluster], ..Default::default() };
                action(r).cluster_specifier = Some(ClusterSpecifier::WeightedClusters(clusters));
            },
            "route.weighted_clusters.clusters[0].metadata_match",
        ),
        (|r| action(r).internal_redirect_policy = Some(Default::default()), "route.internal_redirect_policy"),
        (|r| r.request_headers_to_add = vec![request_header("%NOPE%")], "request_headers_to_add[0].header.value"),
        (|r| r.request_headers_to_add = vec![request_header("100%")], "request_headers_to_add[0].header.value"),
        (|r| r.response_headers_to_remove = vec![":status".into()], "response_headers_to_remove[0]"),
        (|r| r.request_headers_to_remove = vec!["a".into(), "Host".into()], "request_headers_to_remove[1]"),
        (
            |r| {
                r.r#match.get_or_insert_default().path_specifier =
                    Some(PathSpecifier::SafeRegex(RegexMatcher { regex: "(".into(), ..Default::default() }))
            },
            "match.safe_regex.regex",
        ),
        (
            |r| {
                r.r#match.get_or_insert_default().path_specifier = Some(PathSpecifier::SafeRegex(RegexMatcher {
                    regex: "((a{1000}){1000}){1000}".into(),
                    ..Default::default()
                }))
            },
            "match.safe_regex.regex",
        ),
        (|r| r.typed_per_filter_config = [("f".to_owned(), Any::default())].into(), "typed_per_filter_config.f"),
    ];
    for (change, field) in cases {
        let mut table = table();
        change(&mut table.virtual_hosts[0].routes[0]);
        let refused = routes(&table).unwrap_err();
        assert_eq!(refused.field, format!("virtual_hosts[0].routes[0].{field}"), "{refused}");
    }
    let mut twice = table();
    twice.virtual_hosts.push(twice.virtual_hosts[0].clone());
    assert_eq!(routes(&twice).unwrap_err().field, "virtual_hosts");
}

#[test]
fn refusals_of_clusters_name_the_field() {
    type Change = fn(&mut cds::Cluster);
    let cases: [(Change, &str); 7] = [
        (|c| c.health_checks = vec![Default::default()], "health_checks"),
        (|c| c.lb_subset_config = Some(Default::default()), "lb_subset_config"),
        (|c| c.cluster_discovery_type = None, "cluster_discovery_type"),
        (
            |c| c.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
            "eds_cluster_config",
        ),
        (|c| c.filters = vec![Default::default()], "filters"),
        (
            |c| c.typed_extension_protocol_options = [("x".to_owned(), Any::default())].into(),
            "typed_extension_protocol_options",
        ),
        (|c| c.connect_timeout = Some(Duration { seconds: -3, nanos: 0 }), "connect_timeout"),
    ];
    for (change, field) in cases {
        let mut proto = static_cluster();
        change(&mut proto);
        let refused = cluster(&proto).unwrap_err();
        assert_eq!((refused.resource.as_str(), refused.field.as_str()), ("c", field), "{refused}");
    }
}

#[test]
fn string_matchers() {
    let compile = |pattern, ignore_case| {
        matcher::string(&at::At::resource("r"), &StringMatcher { ignore_case, match_pattern: Some(pattern) })
    };
    let regex = |text: &str| MatchPattern::SafeRegex(RegexMatcher { regex: text.into(), ..Default::default() });
    for (pattern, ignore_case, text, expected) in [
        (MatchPattern::Exact("aB".into()), false, "aB", true),
        (MatchPattern::Exact("aB".into()), false, "ab", false),
        (MatchPattern::Exact("aB".into()), true, "Ab", true),
        (MatchPattern::Prefix("aB".into()), true, "ABc", true),
        (MatchPattern::Prefix("aB".into()), false, "a", false),
        (MatchPattern::Suffix("Bc".into()), true, "abC", true),
        (MatchPattern::Suffix("Bc".into()), false, "abc", false),
        (MatchPattern::Contains("b".into()), false, "abc", true),
        (MatchPattern::Contains("B".into()), true, "abc", true),
        (MatchPattern::Contains("d".into()), false, "abc", false),
        (regex("a|ab"), false, "ab", true),
        (regex("a"), false, "ab", false),
        (regex("(?i)a.c"), false, "ABC", true),
        (regex(r"\d+"), false, "٣", false),
        (regex(".+"), false, "ü", true),
    ] {
        let shown = format!("{pattern:?} {ignore_case} {text}");
        assert_eq!(compile(pattern, ignore_case).unwrap().matches(text.as_bytes()), expected, "{shown}");
    }
    assert!(compile(regex("a"), true).is_err());
    assert!(compile(MatchPattern::Prefix(String::new()), false).is_err());
}

#[test]
fn routes_share_what_they_do_alike() {
    let mut proto = table();
    let mut with_header = forward("/c", "c");
    with_header.request_headers_to_remove = vec!["x".into()];
    proto.virtual_hosts[0].routes = vec![forward("/a", "c"), forward("/b", "c"), with_header, forward("/d", "d")];
    let compiled = routes(&proto).unwrap();
    let parts = compiled.virtual_hosts[0].routes.iter().map(|route| match &route.action {
        Action::Forward(forward) => forward,
        _ => panic!("no forward"),
    });
    let parts: Vec<_> = parts.collect();
    let shared = |other: usize| Arc::ptr_eq(parts[0], parts[other]);
    assert_eq!([shared(1), shared(2), shared(3)], [true, false, false]);
    assert!(!parts[2].destination(0).request.is_empty() && parts[0].destination(0).request.is_empty());
}

#[test]
fn absurd_numbers_do_no_harm() {
    let mut proto = manager();
    proto.max_request_headers_kb = Some(UInt32Value { value: u32::MAX });
    assert!(listener(&listener_of(&proto)).is_ok());
    let mut proto = table();
    let forever = Duration { seconds: i64::MAX, nanos: 999_999_999 };
    if let Some(RouteActionKind::Route(action)) = &mut proto.virtual_hosts[0].routes[0].action {
        action.timeout = Some(forever);
        action.retry_policy = Some(rds::RetryPolicy {
            retry_on: "5xx".into(),
            retry_back_off: Some(rds::retry_policy::RetryBackOff { base_interval: Some(forever), max_interval: None }),
            host_selection_retry_max_attempts: i64::MIN,
            ..Default::default()
        });
    }
    assert!(routes(&proto).is_ok());
}

#[test]
fn what_cannot_be_served_yet_is_named() {
    let tls = maille_xds::types::tls::DownstreamTlsContext {
        common_tls_context: Some(maille_xds::types::tls::CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![maille_xds::types::tls::SdsSecretConfig {
                name: "s".into(),
                sds_config: Some(Default::default()),
            }],
            tls_params: Some(maille_xds::types::tls::TlsParameters {
                cipher_suites: vec!["ECDHE-RSA-AES128-SHA".into()],
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut proto = listener_of(&manager());
    proto.filter_chains[0].transport_socket = Some(core::TransportSocket {
        name: "tls".into(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(any(&tls))),
    });
    let found = unsupported::listener(&listener(&proto).unwrap());
    assert_eq!(found.len(), 1, "{found:?}");
    let field = "filter_chains[0].transport_socket.common_tls_context.tls_params.cipher_suites";
    assert_eq!((found[0].resource.as_str(), found[0].field.as_str()), ("l", field));
    assert!(found[0].reason.starts_with("ECDHE-RSA-AES128-SHA is not supported"), "{}", found[0]);
}
