//! DestinationRule: how a destination is spoken to. Reference: <https://istio.io/latest/docs/reference/config/networking/destination-rule/>.

use std::collections::BTreeMap;

use super::virtual_service::PortSelector;
use crate::duration::Duration;
use crate::message::{message, proto_enum};
use crate::selector::WorkloadSelector;

message! {
    /// What holds for traffic to a host once it is routed there.
    pub struct DestinationRule {
        pub host: String,
        pub traffic_policy: Option<TrafficPolicy>,
        pub subsets: Vec<Subset>,
        pub export_to: Vec<String>,
        pub workload_selector: Option<WorkloadSelector>,
    }
}

message! {
    /// How connections to a destination are made, shared and watched.
    pub struct TrafficPolicy {
        pub load_balancer: Option<LoadBalancerSettings>,
        pub connection_pool: Option<ConnectionPoolSettings>,
        pub outlier_detection: Option<OutlierDetection>,
        pub tls: Option<ClientTlsSettings>,
        pub port_level_settings: Vec<PortTrafficPolicy>,
        pub tunnel: Option<TunnelSettings>,
        pub proxy_protocol: Option<ProxyProtocol>,
        pub retry_budget: Option<RetryBudget>,
    }
}

message! {
    /// The policy of one port; it replaces the destination's as a whole.
    pub struct PortTrafficPolicy {
        pub port: Option<PortSelector>,
        pub load_balancer: Option<LoadBalancerSettings>,
        pub connection_pool: Option<ConnectionPoolSettings>,
        pub outlier_detection: Option<OutlierDetection>,
        pub tls: Option<ClientTlsSettings>,
    }
}

message! {
    /// A tunnel through a proxy that speaks CONNECT or POST.
    pub struct TunnelSettings {
        pub protocol: String,
        pub target_host: String,
        pub target_port: u32,
    }
}

message! {
    /// The PROXY protocol header sent to the destination.
    pub struct ProxyProtocol {
        pub version: ProxyProtocolVersion,
    }
}

proto_enum! {
    /// The version of a PROXY protocol header.
    pub enum ProxyProtocolVersion {
        V1 = 0 "V1",
        V2 = 1 "V2",
    }
}

message! {
    /// How many retries may be under way, as a share of the requests.
    pub struct RetryBudget {
        pub percent: Option<f64>,
        pub min_retry_concurrency: u32,
        pub budget_interval: Option<Duration>,
    }
}

message! {
    /// Those endpoints of a host that carry certain labels.
    pub struct Subset {
        pub name: String,
        pub labels: BTreeMap<String, String>,
        pub traffic_policy: Option<TrafficPolicy>,
    }
}

message! {
    /// How an endpoint is chosen.
    pub struct LoadBalancerSettings {
        pub locality_lb_setting: Option<LocalityLoadBalancerSetting>,
        pub zone_aware_lb_setting: Option<ZoneAwareLoadBalancerSetting>,
        pub warmup_duration_secs: Option<Duration>,
        pub warmup: Option<WarmupConfiguration>,
    }
    /// The load balancing algorithm.
    oneof lb_policy: LbPolicy {
        simple => Simple(SimpleLb),
        consistent_hash => ConsistentHash(ConsistentHashLb),
    }
}

proto_enum! {
    /// A load balancing algorithm without settings.
    pub enum SimpleLb {
        Unspecified = 0 "UNSPECIFIED",
        LeastConn = 1 "LEAST_CONN",
        Random = 2 "RANDOM",
        Passthrough = 3 "PASSTHROUGH",
        RoundRobin = 4 "ROUND_ROBIN",
        LeastRequest = 5 "LEAST_REQUEST",
    }
}

message! {
    /// Requests with the same key go to the same endpoint.
    pub struct ConsistentHashLb {
        pub minimum_ring_size: u64,
    }
    /// What a request is hashed by.
    oneof hash_key: HashKey {
        http_header_name => HttpHeaderName(String),
        http_cookie => HttpCookie(HttpCookie),
        use_source_ip => UseSourceIp(bool),
        http_query_parameter_name => HttpQueryParameterName(String),
    }
    /// How hashes map to endpoints.
    oneof hash_algorithm: HashAlgorithm {
        ring_hash => RingHash(RingHash),
        maglev => Maglev(MagLev),
    }
}

message! {
    /// Endpoints on a ring, requests to the next one.
    pub struct RingHash {
        pub minimum_ring_size: u64,
    }
}

message! {
    /// A Maglev table.
    pub struct MagLev {
        pub table_size: u64,
    }
}

message! {
    /// The cookie requests are hashed by, made by the proxy when it has a lifetime.
    pub struct HttpCookie {
        pub name: String,
        pub path: String,
        pub ttl: Option<Duration>,
        pub attributes: Vec<HttpCookieAttribute>,
    }
}

message! {
    /// An attribute of a cookie the proxy makes.
    pub struct HttpCookieAttribute {
        pub name: String,
        pub value: String,
    }
}

message! {
    /// How the share of a new endpoint grows.
    pub struct WarmupConfiguration {
        pub duration: Option<Duration>,
        pub minimum_percent: Option<f64>,
        pub aggression: Option<f64>,
    }
}

message! {
    /// Limits on connections and requests to a destination.
    pub struct ConnectionPoolSettings {
        pub tcp: Option<TcpSettings>,
        pub http: Option<HttpSettings>,
    }
}

message! {
    /// Limits that hold for HTTP and TCP alike.
    pub struct TcpSettings {
        pub max_connections: i32,
        pub connect_timeout: Option<Duration>,
        pub tcp_keepalive: Option<TcpKeepalive>,
        pub max_connection_duration: Option<Duration>,
        pub idle_timeout: Option<Duration>,
    }
}

message! {
    /// TCP keepalive probes.
    pub struct TcpKeepalive {
        pub probes: u32,
        pub time: Option<Duration>,
        pub interval: Option<Duration>,
    }
}

message! {
    /// Limits for HTTP.
    pub struct HttpSettings {
        pub http1_max_pending_requests: i32,
        pub http2_max_requests: i32,
        pub max_requests_per_connection: i32,
        pub max_retries: i32,
        pub idle_timeout: Option<Duration>,
        pub h2_upgrade_policy: H2UpgradePolicy,
        pub use_client_protocol: bool,
        pub max_concurrent_streams: i32,
        pub http2_keep_alive: Option<ConnectionKeepalive>,
    }
}

proto_enum! {
    /// Whether HTTP/1.1 is forwarded as HTTP/2.
    pub enum H2UpgradePolicy {
        Default = 0 "DEFAULT",
        DoNotUpgrade = 1 "DO_NOT_UPGRADE",
        Upgrade = 2 "UPGRADE",
    }
}

message! {
    /// HTTP/2 PING frames that keep a connection alive.
    pub struct ConnectionKeepalive {
        pub interval: Option<Duration>,
        pub timeout: Option<Duration>,
    }
}

message! {
    /// When an endpoint that fails is left out, and for how long.
    pub struct OutlierDetection {
        pub consecutive_errors: i32,
        pub split_external_local_origin_errors: bool,
        pub consecutive_local_origin_failures: Option<u32>,
        pub consecutive_gateway_errors: Option<u32>,
        pub consecutive_5xx_errors: Option<u32>,
        pub interval: Option<Duration>,
        pub base_ejection_time: Option<Duration>,
        pub max_ejection_percent: i32,
        pub min_health_percent: i32,
        pub outlier_detection_http_error_codes: Vec<u32>,
    }
}

message! {
    /// How TLS to a destination is made.
    pub struct ClientTlsSettings {
        pub mode: ClientTlsMode,
        pub client_certificate: String,
        pub private_key: String,
        pub ca_certificates: String,
        pub credential_name: String,
        pub subject_alt_names: Vec<String>,
        pub sni: String,
        pub insecure_skip_verify: Option<bool>,
        pub ca_crl: String,
    }
}

proto_enum! {
    /// Whether and how TLS to a destination is made.
    pub enum ClientTlsMode {
        Disable = 0 "DISABLE",
        Simple = 1 "SIMPLE",
        Mutual = 2 "MUTUAL",
        IstioMutual = 3 "ISTIO_MUTUAL",
    }
}

message! {
    /// How traffic spreads over localities.
    pub struct LocalityLoadBalancerSetting {
        pub distribute: Vec<Distribute>,
        pub failover: Vec<Failover>,
        pub failover_priority: Vec<String>,
        pub enabled: Option<bool>,
    }
}

message! {
    /// The shares of localities for traffic from one of them.
    pub struct Distribute {
        pub from: String,
        pub to: BTreeMap<String, u32>,
    }
}

message! {
    /// Where traffic goes when a region has no healthy endpoint.
    pub struct Failover {
        pub from: String,
        pub to: String,
    }
}

message! {
    /// Preference for endpoints in the zone of the caller.
    pub struct ZoneAwareLoadBalancerSetting {
        pub enabled: Option<bool>,
        pub failover: Vec<Failover>,
        pub failover_priority: Vec<String>,
        pub min_cluster_size: Option<u64>,
    }
}
