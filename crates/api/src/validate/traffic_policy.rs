//! The policy of a destination: connections, load balancing, ejection, TLS, tunnels.

use super::findings::{At, Problem, Verdict};
use super::{rules, tls};
use crate::duration::Duration;
use crate::networking::destination_rule::{
    ConnectionPoolSettings, ConsistentHashLb, H2UpgradePolicy, HashAlgorithm, HashKey, HttpCookie, HttpSettings,
    LbPolicy, LoadBalancerSettings, OutlierDetection, PortTrafficPolicy, RetryBudget, TcpSettings, TrafficPolicy,
    TunnelSettings, WarmupConfiguration,
};

mod locality;

pub(super) use locality::{validate as locality, validate_zone_aware as zone_aware};

const MAGLEV_LIMIT: u64 = 5_000_011;

pub(super) fn validate(namespace: &str, policy: &TrafficPolicy, at: &mut At<'_>) {
    if *policy == TrafficPolicy::default() {
        return at.error(Problem::new("the traffic policy says nothing").hint("set one of its fields, or remove it"));
    }
    if policy.tunnel.is_some() && policy.proxy_protocol.is_some() {
        return at.error(Problem::new("tunnel and proxyProtocol exclude each other").hint("remove one of them"));
    }
    if let Some(outlier) = &policy.outlier_detection {
        outlier_detection(outlier, &mut at.field("outlierDetection"));
    }
    if let Some(pool) = &policy.connection_pool {
        connection_pool(pool, &mut at.field("connectionPool"));
    }
    if let Some(settings) = &policy.load_balancer {
        load_balancer(settings, policy.outlier_detection.is_some(), &mut at.field("loadBalancer"));
    }
    if let Some(settings) = &policy.tls {
        tls::client(namespace, settings, &mut at.field("tls"));
    }
    for (i, port) in policy.port_level_settings.iter().enumerate() {
        port_policy(namespace, port, &mut at.field("portLevelSettings").index(i).errors_only());
    }
    if let Some(settings) = &policy.tunnel {
        tunnel(settings, &mut at.field("tunnel"));
    }
    if let Some(budget) = &policy.retry_budget {
        retry_budget(budget, &mut at.field("retryBudget"));
    }
}

fn port_policy(namespace: &str, policy: &PortTrafficPolicy, at: &mut At<'_>) {
    if policy.port.is_none() {
        at.field("port")
            .error(Problem::new("the port this policy is for is missing").hint("write `port: {number: 80}`"));
    }
    let is_empty = policy.outlier_detection.is_none()
        && policy.connection_pool.is_none()
        && policy.load_balancer.is_none()
        && policy.tls.is_none();
    if is_empty {
        return at
            .error(Problem::new("the policy of the port says nothing").hint("set one of its fields, or remove it"));
    }
    if let Some(outlier) = &policy.outlier_detection {
        outlier_detection(outlier, &mut at.field("outlierDetection"));
    }
    if let Some(pool) = &policy.connection_pool {
        connection_pool(pool, &mut at.field("connectionPool"));
    }
    if let Some(settings) = &policy.load_balancer {
        load_balancer(settings, policy.outlier_detection.is_some(), &mut at.field("loadBalancer"));
    }
    if let Some(settings) = &policy.tls {
        tls::client(namespace, settings, &mut at.field("tls"));
    }
}

fn tunnel(tunnel: &TunnelSettings, at: &mut At<'_>) {
    if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
        at.field("protocol")
            .error(Problem::new(format!("`{}` cannot carry a tunnel", tunnel.protocol)).hint("write CONNECT or POST"));
    }
    if rules::ip_address(&tunnel.target_host).is_err() {
        at.field("targetHost").check(rules::fqdn(&tunnel.target_host));
    }
    at.field("targetPort").check(rules::port(tunnel.target_port));
}

fn retry_budget(budget: &RetryBudget, at: &mut At<'_>) {
    if budget.percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
        at.field("percent").error("the share of retries is not a percentage between 0 and 100");
    }
}

pub(super) fn outlier_detection(outlier: &OutlierDetection, at: &mut At<'_>) {
    duration(outlier.base_ejection_time, &mut at.field("baseEjectionTime"));
    if outlier.consecutive_errors != 0 {
        at.field("consecutiveErrors").warn(
            Problem::new("consecutiveErrors is deprecated")
                .hint("use consecutiveGatewayErrors or consecutive5xxErrors"),
        );
    }
    if !outlier.split_external_local_origin_errors && outlier.consecutive_local_origin_failures.unwrap_or(0) > 0 {
        at.field("consecutiveLocalOriginFailures").error(
            Problem::new("failures of local origin are only counted apart when they are split from the others")
                .hint("set splitExternalLocalOriginErrors: true"),
        );
    }
    duration(outlier.interval, &mut at.field("interval"));
    at.field("maxEjectionPercent").check(rules::percent(outlier.max_ejection_percent));
    at.field("minHealthPercent").check(rules::percent(outlier.min_health_percent));
    for (i, code) in outlier.outlier_detection_http_error_codes.iter().enumerate() {
        if !(100..=599).contains(code) {
            let mut at = at.field("outlierDetectionHttpErrorCodes");
            at.index(i).error(format!("{code} is not an HTTP status between 100 and 599"));
        }
    }
}

pub(super) fn connection_pool(pool: &ConnectionPoolSettings, at: &mut At<'_>) {
    if pool.http.is_none() && pool.tcp.is_none() {
        return at.error(Problem::new("the connection pool says nothing").hint("set `http` or `tcp`, or remove it"));
    }
    if let Some(http) = &pool.http {
        http_pool(http, &mut at.field("http"));
    }
    if let Some(tcp) = &pool.tcp {
        tcp_pool(tcp, &mut at.field("tcp"));
    }
}

fn http_pool(http: &HttpSettings, at: &mut At<'_>) {
    at.field("http1MaxPendingRequests").check(rules::not_negative(http.http1_max_pending_requests));
    at.field("http2MaxRequests").check(rules::not_negative(http.http2_max_requests));
    at.field("maxRequestsPerConnection").check(rules::not_negative(http.max_requests_per_connection));
    at.field("maxRetries").check(rules::not_negative(http.max_retries));
    at.field("maxConcurrentStreams").check(rules::not_negative(http.max_concurrent_streams));
    duration(http.idle_timeout, &mut at.field("idleTimeout"));
    if http.h2_upgrade_policy == H2UpgradePolicy::Upgrade && http.use_client_protocol {
        at.field("useClientProtocol").error(
            Problem::new("the client's protocol cannot be kept while h2UpgradePolicy is UPGRADE")
                .hint("remove one of the two"),
        );
    }
    if let Some(keepalive) = &http.http2_keep_alive {
        let mut at = at.field("http2KeepAlive");
        required_duration(keepalive.interval, &mut at.field("interval"));
        required_duration(keepalive.timeout, &mut at.field("timeout"));
    }
}

fn tcp_pool(tcp: &TcpSettings, at: &mut At<'_>) {
    at.field("maxConnections").check(rules::not_negative(tcp.max_connections));
    duration(tcp.connect_timeout, &mut at.field("connectTimeout"));
    duration(tcp.max_connection_duration, &mut at.field("maxConnectionDuration"));
    // Less than a millisecond means that there is no timeout.
    duration(tcp.idle_timeout.filter(|timeout| timeout.as_millis() != 0), &mut at.field("idleTimeout"));
    if let Some(keepalive) = &tcp.tcp_keepalive {
        let mut at = at.field("tcpKeepalive");
        duration(keepalive.time, &mut at.field("time"));
        duration(keepalive.interval, &mut at.field("interval"));
    }
}

fn load_balancer(settings: &LoadBalancerSettings, has_outlier_detection: bool, at: &mut At<'_>) {
    if let Some(LbPolicy::ConsistentHash(hash)) = &settings.lb_policy {
        consistent_hash(hash, &mut at.field("consistentHash"));
    }
    if settings.locality_lb_setting.is_some() && settings.zone_aware_lb_setting.is_some() {
        at.error(
            Problem::new("localityLbSetting and zoneAwareLbSetting exclude each other").hint("remove one of them"),
        );
    }
    if let Some(setting) = &settings.locality_lb_setting {
        locality(setting, has_outlier_detection, &mut at.field("localityLbSetting"));
    }
    if let Some(setting) = &settings.zone_aware_lb_setting {
        zone_aware(setting, has_outlier_detection, &mut at.field("zoneAwareLbSetting"));
    }
    if settings.warmup.is_some() && settings.warmup_duration_secs.is_some() {
        at.error(Problem::new("warmup and warmupDurationSecs exclude each other").hint("keep warmup"));
    }
    if let Some(settings) = &settings.warmup {
        warmup(settings, &mut at.field("warmup"));
    }
}

fn consistent_hash(hash: &ConsistentHashLb, at: &mut At<'_>) {
    if let Some(HashKey::HttpCookie(settings)) = &hash.hash_key {
        cookie(settings, &mut at.field("httpCookie"));
    }
    if hash.minimum_ring_size != 0 {
        at.field("minimumRingSize")
            .warn(Problem::new("minimumRingSize is deprecated here").hint("write `ringHash: {minimumRingSize: …}`"));
        if hash.hash_algorithm.is_some() {
            at.field("minimumRingSize").error(
                Problem::new("minimumRingSize cannot stand beside ringHash or maglev").hint("put it into ringHash"),
            );
        }
    }
    if let Some(HashAlgorithm::Maglev(maglev)) = &hash.hash_algorithm {
        at.field("maglev").field("tableSize").check(maglev_table(maglev.table_size));
    }
}

fn maglev_table(size: u64) -> Verdict {
    if size < MAGLEV_LIMIT && is_prime(size) {
        return Ok(());
    }
    Err(Problem::new(format!("a Maglev table cannot have {size} entries"))
        .hint(format!("choose a prime number below {MAGLEV_LIMIT}, such as 65537")))
}

/// Only asked about numbers below the limit of table sizes. One counts as prime, as it does in Envoy.
fn is_prime(number: u64) -> bool {
    let mut odd = (3..).step_by(2).take_while(|factor| factor * factor <= number);
    matches!(number, 1..=3) || (number % 2 == 1 && !odd.any(|factor| number.is_multiple_of(factor)))
}

fn cookie(cookie: &HttpCookie, at: &mut At<'_>) {
    if cookie.name.is_empty() {
        at.field("name").error("the name of the cookie is missing");
    }
    let mut names = Vec::new();
    for (i, attribute) in cookie.attributes.iter().enumerate() {
        let mut at = at.field("attributes");
        if attribute.name.is_empty() {
            at.index(i).field("name").error("the name of the attribute is missing");
        } else if names.contains(&&attribute.name) {
            at.index(i).field("name").error(format!("the attribute `{}` is there twice", attribute.name));
        } else {
            names.push(&attribute.name);
        }
    }
}

fn warmup(warmup: &WarmupConfiguration, at: &mut At<'_>) {
    required_duration(warmup.duration, &mut at.field("duration"));
    if warmup.minimum_percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
        at.field("minimumPercent").error("the smallest share is not a percentage between 0 and 100");
    }
    if warmup.aggression.is_some_and(|aggression| aggression.is_nan() || aggression <= 0.0) {
        at.field("aggression").error(Problem::new("aggression is not above 0").hint("1.0 grows the share evenly"));
    }
}

fn duration(duration: Option<Duration>, at: &mut At<'_>) {
    if let Some(duration) = duration {
        at.check(rules::duration(duration));
    }
}

fn required_duration(duration: Option<Duration>, at: &mut At<'_>) {
    match duration {
        Some(duration) => at.check(rules::duration(duration)),
        None => at.error("this duration is required"),
    }
}
