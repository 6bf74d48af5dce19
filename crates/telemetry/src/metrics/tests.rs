use super::*;
use crate::flags::ResponseFlags;

fn text(registry: &Registry) -> String {
    let mut out = String::new();
    registry.prometheus(&mut out);
    out
}

#[test]
fn cells_of_all_workers_are_added_up_and_go_with_their_handles() {
    let registry = Registry::default();
    let first = registry.counter("c", &[("l", "a\"b\\\n")]).unwrap();
    let second = registry.counter("c", &[("l", "a\"b\\\n")]).unwrap();
    let gauge = registry.gauge("g", &[]).unwrap();
    let other = registry.gauge("g", &[]).unwrap();
    first.inc();
    second.add(41);
    gauge.inc();
    gauge.inc();
    other.dec();
    assert_eq!(text(&registry), "# TYPE c counter\nc{l=\"a\\\"b\\\\\\n\"} 42\n# TYPE g gauge\ng{} 1\n");
    drop((first, second));
    assert_eq!(text(&registry), "# TYPE g gauge\ng{} 1\n");
    assert!(registry.counter("g", &[]).is_none(), "a name has one kind");
}

#[test]
fn histograms_count_cumulatively() {
    let registry = Registry::default();
    let histogram = registry.histogram("h", &[("a", "b")]).unwrap();
    for micros in [400, 500, 501, 7_000, 4_000_000_000_000] {
        histogram.record(Duration::from_micros(micros));
    }
    let text = text(&registry);
    for line in [
        "h_bucket{a=\"b\",le=\"0.5\"} 2",
        "h_bucket{a=\"b\",le=\"1\"} 3",
        "h_bucket{a=\"b\",le=\"5\"} 3",
        "h_bucket{a=\"b\",le=\"10\"} 4",
        "h_bucket{a=\"b\",le=\"3600000\"} 4",
        "h_bucket{a=\"b\",le=\"+Inf\"} 5",
        "h_count{a=\"b\"} 5",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
}

#[test]
fn bundles_make_only_what_is_used() {
    let registry = Registry::default();
    let cluster = ClusterMetrics::new(&registry, "outbound|80||a");
    assert_eq!(text(&registry), "");
    cluster.response(200);
    cluster.response(204);
    cluster.response(503);
    cluster.response(0);
    cluster.active_requests().unwrap().inc();
    assert_eq!(
        text(&registry),
        "# TYPE envoy_cluster_upstream_rq_active gauge\n\
         envoy_cluster_upstream_rq_active{envoy_cluster_name=\"outbound|80||a\"} 1\n\
         # TYPE envoy_cluster_upstream_rq_xx counter\n\
         envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"outbound|80||a\"} 2\n\
         envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"5\",envoy_cluster_name=\"outbound|80||a\"} 1\n"
    );
    let requests = RequestMetrics::new(&registry, &[("reporter", "destination")]);
    requests.observe(200, ResponseFlags::default(), Duration::from_millis(3));
    requests.observe(200, ResponseFlags::default(), Duration::from_millis(4));
    requests.observe(503, ResponseFlags::NO_HEALTHY_UPSTREAM, Duration::ZERO);
    let text = text(&registry);
    for line in [
        "istio_requests_total{reporter=\"destination\",response_code=\"200\",response_flags=\"-\"} 2",
        "istio_requests_total{reporter=\"destination\",response_code=\"503\",response_flags=\"UH\"} 1",
        "istio_request_duration_milliseconds_count{reporter=\"destination\"} 3",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
}
