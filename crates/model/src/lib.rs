//! The mesh as one immutable, indexed Snapshot: services, workloads, gateways, policies, visibility.
//!
//! Start at [`Snapshot`]. Everything in it is ordered, oldest object first, so that whoever reads it in order gets
//! the same answer from the same objects.

pub mod destination_rule;
pub mod endpoint;
pub mod gateway;
pub mod host;
mod key_sets;
mod namespaces;
pub mod policy;
pub mod protocol;
pub mod proxy;
mod references;
pub mod service;
pub mod sidecar;
pub mod snapshot;
pub mod virtual_service;
pub mod visibility;
pub mod warning;
mod workload;

pub use destination_rule::MergedRule;
pub use endpoint::{Address, Endpoint, Health, Locality};
pub use gateway::{MergedGateway, MergedPort, MergedServer};
pub use key_sets::{KeySets, KeySource};
pub use policy::{Authorization, MutualTls, PeerMode, Policy};
pub use protocol::Protocol;
pub use proxy::{InterceptionMode, Proxy, ProxyKind, ProxyMetadata};
pub use service::{NamespacedHost, Port, Registry, Resolution, Service, TargetPort, TrafficDistribution};
pub use sidecar::{EgressListener, SidecarScope};
pub use snapshot::{Options, ServiceTarget, Snapshot};
pub use virtual_service::{MESH_GATEWAY, VirtualService};
pub use visibility::ExportTo;
pub use warning::Warning;
