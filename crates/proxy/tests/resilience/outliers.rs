//! Outlier detection: hosts that fail are left alone, and given another chance.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use maille_xds::types::cluster::OutlierDetection;
use maille_xds::types::cluster::cluster::CommonLbConfig;
use maille_xds::types::kind::Percent;
use maille_xds::types::{self, UInt32Value};

use crate::support::{Answer, Backend, Config, Proxy, wait};

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

fn milliseconds(n: i32) -> Option<types::Duration> {
    Some(types::Duration { seconds: 0, nanos: n * 1_000_000 })
}

/// Three failures in a row, and any share of the hosts.
fn detection() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: number(3),
        max_ejection_percent: number(100),
        enforcing_success_rate: number(0),
        ..OutlierDetection::default()
    }
}

/// What Istio sets beside it: all hosts may be ejected, and then none is used.
fn no_panic(config: &mut Config) {
    let healthy_panic_threshold = Some(Percent { value: 0.0 });
    config.cluster.common_lb_config = Some(CommonLbConfig { healthy_panic_threshold, ..CommonLbConfig::default() });
}

/// Waits until twenty requests in a row get such an answer.
fn wait_for_twenty(proxy: &Proxy, what: &str, so: impl Fn(&Answer) -> bool) {
    wait(what, || (0..20).all(|_| so(&proxy.get("/"))));
}

#[test]
fn a_host_that_fails_is_left_alone_and_comes_back() {
    let (good, bad) = (Backend::start(), Backend::start());
    bad.answer_with(500);
    let proxy = Proxy::start(&[&good, &bad], |config| {
        let fast =
            OutlierDetection { interval: milliseconds(50), base_ejection_time: milliseconds(500), ..detection() };
        config.cluster.outlier_detection = Some(fast);
    });
    let before = bad.see(|state| state.requests);
    wait_for_twenty(&proxy, "only the good one answers", |answer| answer.status == 200);
    let failed = bad.see(|state| state.requests) - before;
    assert!(failed >= 3, "ejected after {failed} failures");
    bad.answer_with(200);
    let then = bad.see(|state| state.requests);
    wait("it is used again", || {
        assert_eq!(proxy.get("/").status, 200);
        bad.see(|state| state.requests) > then
    });
}

#[test]
fn ejected_for_good_it_gets_no_more_requests() {
    let (good, bad) = (Backend::start(), Backend::start());
    bad.answer_with(503);
    let proxy = Proxy::start(&[&good, &bad], |config| config.cluster.outlier_detection = Some(detection()));
    wait_for_twenty(&proxy, "only the good one answers", |answer| answer.status == 200);
    let seen = bad.see(|state| state.requests);
    for _ in 0..100 {
        assert_eq!(proxy.get("/").status, 200);
    }
    assert_eq!(bad.see(|state| state.requests), seen);
}

#[test]
fn failures_below_the_number_and_other_errors_do_not_count() {
    let backend = Backend::start();
    let proxy = Proxy::start(&[&backend], |config| {
        no_panic(config);
        config.cluster.outlier_detection = Some(detection());
    });
    for round in 0..10 {
        for status in [500, 503, 404] {
            backend.answer_with(status);
            assert_eq!(proxy.get("/").status, status, "round {round}");
        }
    }
}

#[test]
fn hosts_that_cannot_be_reached_are_failing_too() {
    let (good, absent) = (Backend::start(), Backend::absent());
    let proxy = Proxy::start(&[&good, &absent], |config| config.cluster.outlier_detection = Some(detection()));
    wait_for_twenty(&proxy, "only the good one is tried", |answer| answer.status == 200);
}

#[test]
fn so_are_those_that_do_not_answer() {
    let (good, silent) = (Backend::start(), Backend::start());
    good.release();
    let proxy = Proxy::start(&[&good, &silent], |config| {
        config.cluster.outlier_detection = Some(detection());
        config.held.timeout = milliseconds(50);
    });
    wait("only the good one is asked", || (0..10).all(|_| proxy.get("/held").status == 200));
}

#[test]
fn when_all_are_ejected_the_threshold_of_panic_decides() {
    let backends = [Backend::start(), Backend::start()];
    backends.iter().for_each(|backend| backend.answer_with(500));
    let proxy = Proxy::start(&backends.each_ref(), |config| {
        no_panic(config);
        config.cluster.outlier_detection = Some(detection());
    });
    wait_for_twenty(&proxy, "nobody is left", |answer| answer.status == 503 && answer.body == "no healthy upstream");
    proxy.get("/it");
    assert_eq!(proxy.logged("/it"), "UH no_healthy_upstream -");

    // By default, with less than half of them left, health is disregarded.
    let backends = [Backend::start(), Backend::start()];
    backends.iter().for_each(|backend| backend.answer_with(500));
    let proxy = Proxy::start(&backends.each_ref(), |config| config.cluster.outlier_detection = Some(detection()));
    for _ in 0..50 {
        assert_eq!(proxy.get("/").status, 500);
    }
}

#[test]
fn with_few_hosts_none_is_ejected_by_default() {
    let (good, bad) = (Backend::start(), Backend::start());
    bad.answer_with(500);
    let proxy = Proxy::start(&[&good, &bad], |config| {
        config.cluster.outlier_detection = Some(OutlierDetection { max_ejection_percent: None, ..detection() });
    });
    for _ in 0..40 {
        proxy.get("/");
    }
    // Enough time for a mistake to show.
    std::thread::sleep(Duration::from_millis(50));
    let seen = bad.see(|state| state.requests);
    for _ in 0..10 {
        proxy.get("/");
    }
    assert_eq!(bad.see(|state| state.requests), seen + 5);
}

#[test]
fn some_statuses_are_failures_and_others_are_not() {
    use maille_xds::types::pb::envoy::config::common::matcher::v3::match_predicate::{MatchSet, Rule};
    use maille_xds::types::pb::envoy::config::common::matcher::v3::{HttpHeadersMatch, MatchPredicate};
    use maille_xds::types::route::{HeaderMatcher, header_matcher::HeaderMatchSpecifier};
    use maille_xds::types::upstream_http::http_protocol_options::{
        ExplicitHttpConfig, OutlierDetection as Errors, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
    };
    let exact = |text: &str| maille_xds::types::matcher::StringMatcher {
        match_pattern: Some(maille_xds::types::matcher::string_matcher::MatchPattern::Exact(text.into())),
        ..Default::default()
    };
    let is = |status: &str| {
        let header = HeaderMatcher {
            name: ":status".into(),
            header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(exact(status))),
            ..HeaderMatcher::default()
        };
        MatchPredicate { rule: Some(Rule::HttpResponseHeadersMatch(HttpHeadersMatch { headers: vec![header] })) }
    };
    for (status, ejected) in [(429, true), (503, true), (500, false), (404, false)] {
        let (good, bad) = (Backend::start(), Backend::start());
        bad.answer_with(status);
        let errors = MatchPredicate { rule: Some(Rule::OrMatch(MatchSet { rules: vec![is("429"), is("503")] })) };
        let protocol = ProtocolConfig::HttpProtocolOptions(Default::default());
        let options = maille_xds::types::upstream_http::HttpProtocolOptions {
            outlier_detection: Some(Errors { error_matcher: Some(errors) }),
            upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                protocol_config: Some(protocol),
            })),
            ..Default::default()
        };
        let proxy = Proxy::start(&[&good, &bad], |config| {
            config.cluster.outlier_detection = Some(maille_xds::types::cluster::OutlierDetection {
                consecutive_5xx: Some(UInt32Value { value: 2 }),
                max_ejection_percent: Some(UInt32Value { value: 100 }),
                ..Default::default()
            });
            config.cluster.typed_extension_protocol_options =
                [("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(), types::any(&options))].into();
        });
        for _ in 0..4 {
            proxy.get("/");
        }
        // Ejections take a moment to reach the worker.
        std::thread::sleep(std::time::Duration::from_millis(300));
        let before = bad.see(|state| state.requests);
        let statuses: Vec<u16> = (0..4).map(|_| proxy.get("/").status).collect();
        assert_eq!(bad.see(|state| state.requests) == before, ejected, "{status}: {statuses:?}");
    }
}

/// What can be read of a connection within a moment: `None` is that it is open and silent.
fn end(stream: &mut TcpStream) -> Option<usize> {
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    stream.read(&mut [0; 16]).ok()
}

#[test]
fn connections_to_a_host_that_fails_end_where_it_is_wanted() {
    for wanted in [false, true] {
        let backend = Backend::start();
        let proxy = Proxy::start(&[&backend], |config| {
            no_panic(config);
            config.cluster.outlier_detection = Some(detection());
            config.cluster.close_connections_on_host_health_failure = wanted;
        });
        let mut stream = proxy.connect();
        stream.write_all(b"GET /held HTTP/1.1\r\n\r\n").unwrap();
        backend.wait_for_requests(1);
        backend.answer_with(500);
        wait_for_twenty(&proxy, "it is left alone", |answer| answer.status == 503);
        assert_eq!(end(&mut stream), wanted.then_some(0), "wanted: {wanted}");
    }
}
