//! Connection pools: limits, timeouts, keepalive, and the protocol spoken to the upstream.

use maille_api::mesh::{H2UpgradePolicy as MeshUpgrade, MeshConfig};
use maille_api::networking::destination_rule::{
    ConnectionPoolSettings, H2UpgradePolicy, HttpSettings, RetryBudget, TcpKeepalive,
};
use maille_model::Protocol;
use maille_xds::types::UInt32Value;
use maille_xds::types::cluster::circuit_breakers::{Thresholds, thresholds};
use maille_xds::types::cluster::{CircuitBreakers, UpstreamConnectionOptions};
use maille_xds::types::core;
use maille_xds::types::kind::Percent;

use super::base::Draft;
use crate::convert::duration;

/// HTTP/2 for a cluster whose policy, or mesh, asks for it. Comes before the pool, which has settings for HTTP/2.
pub(super) fn upgrade(
    draft: &mut Draft,
    mesh: &MeshConfig,
    settings: Option<&ConnectionPoolSettings>,
    protocol: Protocol,
) {
    let http = settings.and_then(|settings| settings.http.as_ref());
    let wanted = match http {
        Some(http) if http.use_client_protocol => false,
        Some(HttpSettings { h2_upgrade_policy: H2UpgradePolicy::Upgrade, .. }) => true,
        Some(HttpSettings { h2_upgrade_policy: H2UpgradePolicy::DoNotUpgrade, .. }) => false,
        _ => protocol.is_http() && mesh.h2_upgrade_policy == MeshUpgrade::Upgrade,
    };
    if wanted {
        draft.set_http2();
    }
}

/// Applies the pool's settings; without any, nothing is limited and the mesh's connect timeout holds.
pub(super) fn apply(
    draft: &mut Draft,
    mesh: &MeshConfig,
    settings: Option<&ConnectionPoolSettings>,
    retry_budget: Option<&RetryBudget>,
) {
    let tcp = settings.and_then(|settings| settings.tcp.as_ref());
    let http = settings.and_then(|settings| settings.http.as_ref());

    // Zero stands for "not said" in every number here. Envoy's own limits (1024 connections, 3 retries) are for a
    // proxy at the edge; between services they would turn a rolling update into errors.
    let limit = |own: Option<i32>| {
        let value = own.and_then(|own| u32::try_from(own).ok()).filter(|own| *own > 0).unwrap_or(u32::MAX);
        Some(UInt32Value { value })
    };
    let thresholds = Thresholds {
        max_connections: limit(tcp.map(|tcp| tcp.max_connections)),
        max_pending_requests: limit(http.map(|http| http.http1_max_pending_requests)),
        max_requests: limit(http.map(|http| http.http2_max_requests)),
        max_retries: limit(http.map(|http| http.max_retries)),
        retry_budget: retry_budget.map(budget),
        track_remaining: true,
        ..Thresholds::default()
    };
    draft.cluster.circuit_breakers = Some(CircuitBreakers { thresholds: vec![thresholds], ..Default::default() });
    let own_timeout = tcp.and_then(|tcp| tcp.connect_timeout);
    draft.cluster.connect_timeout = own_timeout.or(mesh.connect_timeout).map(duration);
    keepalive(draft, mesh.tcp_keepalive.as_ref());
    keepalive(draft, tcp.and_then(|tcp| tcp.tcp_keepalive.as_ref()));

    let idle_timeout = http.and_then(|http| http.idle_timeout).or(tcp.and_then(|tcp| tcp.idle_timeout));
    let max_duration = tcp.and_then(|tcp| tcp.max_connection_duration);
    let max_requests = http.and_then(|http| positive(http.max_requests_per_connection));
    let max_streams = http.and_then(|http| positive(http.max_concurrent_streams));
    let http2_keepalive = http.and_then(|http| http.http2_keep_alive.as_ref());
    let any = max_requests.is_some() || max_streams.is_some() || http2_keepalive.is_some();
    if any || idle_timeout.is_some() || max_duration.is_some() {
        let common = draft.http().common_http_protocol_options.get_or_insert_default();
        common.idle_timeout = idle_timeout.map(duration).or(common.idle_timeout);
        common.max_requests_per_connection = max_requests.or(common.max_requests_per_connection);
        common.max_connection_duration = max_duration.map(duration).or(common.max_connection_duration);
        if let Some(http2) = draft.http2() {
            http2.max_concurrent_streams = max_streams.or(http2.max_concurrent_streams);
            if let Some(keepalive) = http2_keepalive {
                http2.connection_keepalive = Some(core::KeepaliveSettings {
                    interval: keepalive.interval.map(duration),
                    timeout: keepalive.timeout.map(duration),
                    ..core::KeepaliveSettings::default()
                });
            }
        }
    }
    if http.is_some_and(|http| http.use_client_protocol) {
        draft.set_client_protocol();
    }
}

fn positive(number: i32) -> Option<UInt32Value> {
    u32::try_from(number).ok().filter(|value| *value > 0).map(|value| UInt32Value { value })
}

fn budget(budget: &RetryBudget) -> thresholds::RetryBudget {
    let concurrency = if budget.min_retry_concurrency > 0 { budget.min_retry_concurrency } else { 3 };
    thresholds::RetryBudget {
        budget_percent: Some(Percent { value: budget.percent.unwrap_or(20.0) }),
        budget_interval: budget.budget_interval.map(duration),
        min_retry_concurrency: Some(UInt32Value { value: concurrency }),
    }
}

/// Each number said overrides the one said before; the option alone turns probes on with the system's numbers.
fn keepalive(draft: &mut Draft, settings: Option<&TcpKeepalive>) {
    let Some(settings) = settings else { return };
    let options = draft.cluster.upstream_connection_options.get_or_insert_with(|| UpstreamConnectionOptions {
        tcp_keepalive: Some(core::TcpKeepalive::default()),
        ..UpstreamConnectionOptions::default()
    });
    let keepalive = options.tcp_keepalive.get_or_insert_default();
    let seconds =
        |duration: maille_api::Duration| UInt32Value { value: u32::try_from(duration.seconds()).unwrap_or_default() };
    if settings.probes > 0 {
        keepalive.keepalive_probes = Some(UInt32Value { value: settings.probes });
    }
    keepalive.keepalive_time = settings.time.map(seconds).or(keepalive.keepalive_time);
    keepalive.keepalive_interval = settings.interval.map(seconds).or(keepalive.keepalive_interval);
}
