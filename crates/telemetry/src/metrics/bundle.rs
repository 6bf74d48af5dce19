//! The metrics of a cluster, a listener, an HTTP connection manager, a TCP proxy and the process, under Envoy's names.

use std::cell::{OnceCell, RefCell};

use crate::metrics::{Counter, Gauge, Histogram, Name, Registry, Scope, Tag};

/// Counters by status and by class of status, made when they are first used.
#[derive(Debug, Default)]
struct Statuses {
    classes: [OnceCell<Counter>; 5],
    codes: RefCell<Vec<(u16, Counter)>>,
}

impl Statuses {
    #[inline]
    fn class(&self, status: u16, make: impl FnOnce(Tag) -> Counter) {
        let class = status / 100;
        if let Some(counter) = self.classes.get(usize::from(class).wrapping_sub(1)) {
            counter.get_or_init(|| make(Tag::Class(class as u8))).inc();
        }
    }

    #[inline]
    fn code(&self, status: u16, make: impl FnOnce(Tag) -> Counter) {
        // What is no status is not counted: there are 500 of them, and no more.
        if !(100..600).contains(&status) {
            return;
        }
        let mut codes = self.codes.borrow_mut();
        match codes.iter().find(|(code, _)| *code == status) {
            Some((_, counter)) => counter.inc(),
            None => {
                let counter = make(Tag::Code(status));
                counter.inc();
                codes.push((status, counter));
            }
        }
    }
}

macro_rules! suffix {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $suffix:literal) => {
        $suffix
    };
}

macro_rules! cell {
    (counter) => {
        Counter
    };
    (gauge) => {
        Gauge
    };
    (histogram) => {
        Histogram
    };
}

macro_rules! bundle {
    ($(#[$doc:meta])* $name:ident, $scope:ident $(, $statuses:ident)? { $($kind:ident $field:ident $(= $suffix:literal)?;)* }) => {
        $(#[$doc])*
        ///
        /// Its metrics have Envoy's names; none is made before it is used.
        #[derive(Debug)]
        pub struct $name {
            registry: Registry,
            subject: Box<str>,
            $(statuses: $statuses,)?
            $($field: OnceCell<cell!($kind)>,)*
        }

        impl $name {
            /// Those of one subject, for one thread.
            pub fn new(registry: &Registry, subject: &str) -> $name {
                $name {
                    registry: registry.clone(),
                    subject: subject.into(),
                    $(statuses: $statuses::default(),)?
                    $($field: OnceCell::new(),)*
                }
            }

            $(
                #[doc = concat!("Envoy's `", suffix!($field $($suffix)?), "`.")]
                #[inline]
                pub fn $field(&self) -> &cell!($kind) {
                    let name = Name { scope: Scope::$scope, suffix: suffix!($field $($suffix)?) };
                    self.$field.get_or_init(|| self.registry.$kind(name, &self.subject, Tag::None))
                }
            )*
        }
    };
}

bundle! {
    /// What happens at a cluster, on one worker.
    ClusterMetrics, Cluster, Statuses {
        counter bind_errors;
        counter original_dst_host_invalid;
        counter retry_or_shadow_abandoned;
        counter upstream_cx_close_notify;
        counter upstream_cx_connect_attempts_exceeded;
        counter upstream_cx_connect_fail;
        counter upstream_cx_connect_timeout;
        counter upstream_cx_destroy;
        counter upstream_cx_destroy_local;
        counter upstream_cx_destroy_local_with_active_rq;
        counter upstream_cx_destroy_remote;
        counter upstream_cx_destroy_remote_with_active_rq;
        counter upstream_cx_destroy_with_active_rq;
        counter upstream_cx_http1_total;
        counter upstream_cx_http2_total;
        counter upstream_cx_idle_timeout;
        counter upstream_cx_max_duration_reached;
        counter upstream_cx_max_requests;
        counter upstream_cx_none_healthy;
        counter upstream_cx_overflow;
        counter upstream_cx_pool_overflow;
        counter upstream_cx_protocol_error;
        counter upstream_cx_rx_bytes_total;
        counter upstream_cx_total;
        counter upstream_cx_tx_bytes_total;
        counter upstream_rq_cancelled;
        counter upstream_rq_completed;
        counter upstream_rq_maintenance_mode;
        counter upstream_rq_max_duration_reached;
        counter upstream_rq_pending_failure_eject;
        counter upstream_rq_pending_overflow;
        counter upstream_rq_pending_total;
        counter upstream_rq_per_try_idle_timeout;
        counter upstream_rq_per_try_timeout;
        counter upstream_rq_retry;
        counter upstream_rq_retry_backoff_exponential;
        counter upstream_rq_retry_backoff_ratelimited;
        counter upstream_rq_retry_limit_exceeded;
        counter upstream_rq_retry_overflow;
        counter upstream_rq_retry_success;
        counter upstream_rq_rx_reset;
        counter upstream_rq_timeout;
        counter upstream_rq_total;
        counter upstream_rq_tx_reset;
        histogram upstream_cx_connect_ms;
        histogram upstream_cx_length_ms;
        histogram upstream_rq_time;
        counter lb_healthy_panic;
        counter lb_local_cluster_not_ok;
        counter lb_recalculate_zone_structures;
        counter lb_subsets_fallback;
        counter lb_subsets_selected;
        counter lb_zone_cluster_too_small;
        counter lb_zone_no_capacity_left;
        counter lb_zone_routing_all_directly;
        counter lb_zone_routing_cross_zone;
        counter lb_zone_routing_sampled;
        counter membership_change;
        counter update_attempt;
        counter update_failure;
        counter update_no_rebuild;
        counter update_success;
        counter ejections_detected_consecutive_5xx = "outlier_detection.ejections_detected_consecutive_5xx";
        counter ejections_detected_consecutive_gateway_failure = "outlier_detection.ejections_detected_consecutive_gateway_failure";
        counter ejections_detected_consecutive_local_origin_failure = "outlier_detection.ejections_detected_consecutive_local_origin_failure";
        counter ejections_detected_failure_percentage = "outlier_detection.ejections_detected_failure_percentage";
        counter ejections_detected_local_origin_failure_percentage = "outlier_detection.ejections_detected_local_origin_failure_percentage";
        counter ejections_detected_local_origin_success_rate = "outlier_detection.ejections_detected_local_origin_success_rate";
        counter ejections_detected_success_rate = "outlier_detection.ejections_detected_success_rate";
        counter ejections_enforced_consecutive_5xx = "outlier_detection.ejections_enforced_consecutive_5xx";
        counter ejections_enforced_consecutive_gateway_failure = "outlier_detection.ejections_enforced_consecutive_gateway_failure";
        counter ejections_enforced_consecutive_local_origin_failure = "outlier_detection.ejections_enforced_consecutive_local_origin_failure";
        counter ejections_enforced_failure_percentage = "outlier_detection.ejections_enforced_failure_percentage";
        counter ejections_enforced_local_origin_failure_percentage = "outlier_detection.ejections_enforced_local_origin_failure_percentage";
        counter ejections_enforced_local_origin_success_rate = "outlier_detection.ejections_enforced_local_origin_success_rate";
        counter ejections_enforced_success_rate = "outlier_detection.ejections_enforced_success_rate";
        counter ejections_enforced_total = "outlier_detection.ejections_enforced_total";
        counter ejections_overflow = "outlier_detection.ejections_overflow";
        counter ssl_connection_error = "ssl.connection_error";
        counter ssl_fail_verify_cert_hash = "ssl.fail_verify_cert_hash";
        counter ssl_fail_verify_error = "ssl.fail_verify_error";
        counter ssl_fail_verify_no_cert = "ssl.fail_verify_no_cert";
        counter ssl_fail_verify_san = "ssl.fail_verify_san";
        counter ssl_handshake = "ssl.handshake";
        counter ssl_no_certificate = "ssl.no_certificate";
        counter ssl_session_reused = "ssl.session_reused";
    }
}

impl ClusterMetrics {
    /// Counts a response: all, by class, by status.
    #[inline]
    pub fn response(&self, status: u16) {
        const CODES: Name = Name { scope: Scope::Cluster, suffix: "upstream_rq" };
        const CLASSES: Name = Name { scope: Scope::Cluster, suffix: "upstream_rq_xx" };
        self.upstream_rq_completed().inc();
        self.statuses.class(status, |tag| self.registry.counter(CLASSES, &self.subject, tag));
        self.statuses.code(status, |tag| self.registry.counter(CODES, &self.subject, tag));
    }
}

bundle! {
    /// What happens at the HTTP connection managers of a prefix, on one worker.
    HttpMetrics, Http, Statuses {
        gauge downstream_cx_active;
        counter downstream_cx_delayed_close_timeout;
        counter downstream_cx_destroy;
        counter downstream_cx_destroy_active_rq;
        counter downstream_cx_destroy_local;
        counter downstream_cx_destroy_local_active_rq;
        counter downstream_cx_destroy_remote;
        counter downstream_cx_destroy_remote_active_rq;
        counter downstream_cx_drain_close;
        gauge downstream_cx_http1_active;
        counter downstream_cx_http1_total;
        gauge downstream_cx_http2_active;
        counter downstream_cx_http2_total;
        counter downstream_cx_idle_timeout;
        histogram downstream_cx_length_ms;
        counter downstream_cx_max_duration_reached;
        counter downstream_cx_max_requests_reached;
        counter downstream_cx_overload_disable_keepalive;
        counter downstream_cx_protocol_error;
        counter downstream_cx_rx_bytes_total;
        gauge downstream_cx_ssl_active;
        counter downstream_cx_ssl_total;
        counter downstream_cx_total;
        counter downstream_cx_tx_bytes_total;
        gauge downstream_cx_upgrades_active;
        counter downstream_cx_upgrades_total;
        gauge downstream_rq_active;
        counter downstream_rq_completed;
        counter downstream_rq_failed_path_normalization;
        counter downstream_rq_header_timeout;
        counter downstream_rq_http1_total;
        counter downstream_rq_http2_total;
        counter downstream_rq_idle_timeout;
        counter downstream_rq_max_duration_reached;
        counter downstream_rq_non_relative_path;
        counter downstream_rq_overload_close;
        counter downstream_rq_redirected_with_normalized_path;
        counter downstream_rq_response_before_rq_complete;
        counter downstream_rq_rx_reset;
        histogram downstream_rq_time;
        counter downstream_rq_timeout;
        counter downstream_rq_too_large;
        counter downstream_rq_too_many_premature_resets;
        counter downstream_rq_total;
        counter downstream_rq_tx_reset;
        counter downstream_rq_ws_on_non_ws_route;
        counter ext_authz_denied = "ext_authz.denied";
        counter ext_authz_error = "ext_authz.error";
        counter ext_authz_failure_mode_allowed = "ext_authz.failure_mode_allowed";
        counter ext_authz_ok = "ext_authz.ok";
        counter jwt_authn_allowed = "jwt_authn.allowed";
        counter jwt_authn_denied = "jwt_authn.denied";
        counter no_cluster;
        counter no_route;
        counter rbac_allowed = "rbac.allowed";
        counter rbac_denied = "rbac.denied";
        counter rq_direct_response;
        counter rq_redirect;
        counter rq_total;
        counter rs_too_large;
    }
}

impl HttpMetrics {
    /// Counts a response: all, and by class.
    #[inline]
    pub fn response(&self, status: u16) {
        const CLASSES: Name = Name { scope: Scope::Http, suffix: "downstream_rq_xx" };
        self.downstream_rq_completed().inc();
        self.statuses.class(status, |tag| self.registry.counter(CLASSES, &self.subject, tag));
    }
}

bundle! {
    /// What happens at a listener, by its address, on one worker.
    ListenerMetrics, Listener {
        gauge downstream_cx_active;
        counter downstream_cx_destroy;
        histogram downstream_cx_length_ms;
        counter downstream_cx_overflow;
        counter downstream_cx_overload_reject;
        counter downstream_cx_total;
        counter downstream_cx_transport_socket_connect_timeout;
        counter downstream_global_cx_overflow;
        gauge downstream_pre_cx_active;
        counter downstream_pre_cx_timeout;
        counter no_filter_chain_match;
        counter ssl_connection_error = "ssl.connection_error";
        counter ssl_fail_verify_cert_hash = "ssl.fail_verify_cert_hash";
        counter ssl_fail_verify_error = "ssl.fail_verify_error";
        counter ssl_fail_verify_no_cert = "ssl.fail_verify_no_cert";
        counter ssl_fail_verify_san = "ssl.fail_verify_san";
        counter ssl_handshake = "ssl.handshake";
        counter ssl_no_certificate = "ssl.no_certificate";
        counter ssl_session_reused = "ssl.session_reused";
    }
}

bundle! {
    /// What happens at the TCP proxies of a prefix, on one worker.
    TcpMetrics, Tcp {
        counter downstream_cx_no_route;
        counter downstream_cx_rx_bytes_total;
        counter downstream_cx_total;
        counter downstream_cx_tx_bytes_total;
        counter idle_timeout;
        counter max_downstream_connection_duration;
    }
}
