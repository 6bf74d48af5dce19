use super::*;
use crate::flags::ResponseFlags;

const COUNT: Name = Name { scope: Scope::Cluster, suffix: "c" };
const GAUGE: Name = Name { scope: Scope::Server, suffix: "g" };

fn text(registry: &Registry) -> String {
    registry.collect().prometheus(Filter::default())
}

#[test]
fn cells_of_all_workers_are_added_up_and_go_with_their_handles() {
    let registry = Registry::default();
    let first = registry.counter(COUNT, "a\"b\\\n;", Tag::None);
    let second = registry.counter(COUNT, "a\"b\\\n;", Tag::None);
    let gauge = registry.gauge(GAUGE, "", Tag::None);
    let other = registry.gauge(GAUGE, "", Tag::None);
    first.inc();
    second.add(41);
    gauge.inc();
    gauge.inc();
    other.dec();
    let both = "# TYPE envoy_cluster_c counter\nenvoy_cluster_c{envoy_cluster_name=\"a\\\"b\\\\\\n\"} 42\n# TYPE envoy_server_g gauge\nenvoy_server_g{} 1\n";
    assert_eq!(text(&registry), both);
    drop(second);
    assert_eq!(text(&registry), both, "a worker that is gone takes no counts along");
    drop(first);
    assert_eq!(text(&registry), "# TYPE envoy_server_g gauge\nenvoy_server_g{} 1\n");
    registry.counter(GAUGE, "", Tag::None).inc();
    assert_eq!(text(&registry), "# TYPE envoy_server_g gauge\nenvoy_server_g{} 1\n", "a name has one kind");
}

#[test]
fn counters_begin_anew() {
    let registry = Registry::default();
    let (counter, gauge) = (registry.counter(COUNT, "a", Tag::None), registry.gauge(GAUGE, "", Tag::None));
    counter.add(5);
    gauge.inc();
    registry.reset_counters();
    assert_eq!(registry.collect().lines(Filter::default()), "cluster.a.c: 0\nserver.g: 1\n");
    counter.add(2);
    assert_eq!(registry.collect().lines(Filter::default()), "cluster.a.c: 2\nserver.g: 1\n");
    let used = Filter { used_only: true, name: Some(&|name| name.starts_with("cluster.")) };
    assert_eq!(registry.collect().lines(used), "cluster.a.c: 2\n");
}

#[test]
fn histograms_count_cumulatively() {
    let registry = Registry::default();
    let histogram = registry.histogram(Name { scope: Scope::Http, suffix: "h" }, "b;", Tag::None);
    for micros in [400, 500, 501, 7_000, 4_000_000_000_000] {
        histogram.record(Duration::from_micros(micros));
    }
    histogram.size(7);
    let text = text(&registry);
    for line in [
        "envoy_http_h_bucket{envoy_http_conn_manager_prefix=\"b\",le=\"0.5\"} 2",
        "envoy_http_h_bucket{envoy_http_conn_manager_prefix=\"b\",le=\"1\"} 3",
        "envoy_http_h_bucket{envoy_http_conn_manager_prefix=\"b\",le=\"5\"} 3",
        "envoy_http_h_bucket{envoy_http_conn_manager_prefix=\"b\",le=\"10\"} 5",
        "envoy_http_h_bucket{envoy_http_conn_manager_prefix=\"b\",le=\"3600000\"} 5",
        "envoy_http_h_bucket{envoy_http_conn_manager_prefix=\"b\",le=\"+Inf\"} 6",
        "envoy_http_h_sum{envoy_http_conn_manager_prefix=\"b\"} 4000000015.401",
        "envoy_http_h_count{envoy_http_conn_manager_prefix=\"b\"} 6",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
    let lines = registry.collect().lines(Filter::default());
    assert!(lines.starts_with("http.b;.h: P0(nan,0.0) P25(nan,0.4) P50(nan,1.0)"), "{lines}");
}

#[test]
fn bundles_make_only_what_is_used() {
    let registry = Registry::default();
    let cluster = ClusterMetrics::new(&registry, "outbound|80||a;");
    assert_eq!(text(&registry), "");
    cluster.response(200);
    cluster.response(204);
    cluster.response(0);
    cluster.upstream_rq_retry().inc();
    cluster.ssl_handshake().inc();
    assert_eq!(
        text(&registry),
        "# TYPE envoy_cluster_ssl_handshake counter\n\
         envoy_cluster_ssl_handshake{envoy_cluster_name=\"outbound|80||a\"} 1\n\
         # TYPE envoy_cluster_upstream_rq counter\n\
         envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"outbound|80||a\"} 1\n\
         envoy_cluster_upstream_rq{envoy_response_code=\"204\",envoy_cluster_name=\"outbound|80||a\"} 1\n\
         # TYPE envoy_cluster_upstream_rq_completed counter\n\
         envoy_cluster_upstream_rq_completed{envoy_cluster_name=\"outbound|80||a\"} 3\n\
         # TYPE envoy_cluster_upstream_rq_retry counter\n\
         envoy_cluster_upstream_rq_retry{envoy_cluster_name=\"outbound|80||a\"} 1\n\
         # TYPE envoy_cluster_upstream_rq_xx counter\n\
         envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"outbound|80||a\"} 2\n"
    );
    assert_eq!(
        registry.collect().lines(Filter::default()),
        "cluster.outbound|80||a;.ssl.handshake: 1\n\
         cluster.outbound|80||a;.upstream_rq_200: 1\n\
         cluster.outbound|80||a;.upstream_rq_204: 1\n\
         cluster.outbound|80||a;.upstream_rq_2xx: 2\n\
         cluster.outbound|80||a;.upstream_rq_completed: 3\n\
         cluster.outbound|80||a;.upstream_rq_retry: 1\n"
    );
}

#[test]
fn istio_metrics_tell_ends_apart() {
    let registry = Registry::default();
    let metrics = RequestMetrics::new(&registry, &[("reporter", "destination")]);
    let ended =
        |status, flags, millis| Ended { status, flags, took: Duration::from_millis(millis), ..Ended::default() };
    metrics.request(&ended(200, ResponseFlags::default(), 3));
    metrics.request(&ended(200, ResponseFlags::default(), 4));
    metrics.request(&Ended { grpc: Some(14), ..ended(503, ResponseFlags::NO_HEALTHY_UPSTREAM, 0) });
    metrics.opened();
    metrics.moved(7, 9, true);
    let text = text(&registry);
    for line in [
        "istio_requests_total{reporter=\"destination\",response_code=\"200\",grpc_response_status=\"\",response_flags=\"-\"} 2",
        "istio_requests_total{reporter=\"destination\",response_code=\"503\",grpc_response_status=\"14\",response_flags=\"UH\"} 1",
        "istio_request_duration_milliseconds_count{reporter=\"destination\",response_code=\"200\",grpc_response_status=\"\",response_flags=\"-\"} 2",
        "istio_tcp_sent_bytes_total{reporter=\"destination\"} 9",
        "istio_tcp_connections_closed_total{reporter=\"destination\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
}
