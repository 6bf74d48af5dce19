//! What runs beside a workload: its lease, its sidecar, its process.
//!
//! [`workload::run`] does all of `maille run`. [`envoy`] and [`node`] also serve the gateways of `maille up`.

pub mod address;
pub mod app;
pub mod certificates;
pub mod door;
pub mod envoy;
pub mod lease;
pub mod membership;
pub mod node;
pub mod notice;
pub mod sds;
pub mod settle;
pub mod sidecar;
pub mod way;
pub mod workload;

/// The release of Istio whose API and behaviour are followed; proxies report it in their node metadata.
pub const ISTIO_VERSION: &str = "1.28.0";

/// Where a sidecar's forward-proxy listener is.
pub const HTTP_PROXY_PORT: u16 = 15080;
