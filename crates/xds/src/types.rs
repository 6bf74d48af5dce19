//! Envoy's v3 protobuf messages under short module names, and helpers to pack and unpack `Any`.
//!
//! `types::cluster::Cluster` is `envoy.config.cluster.v3.Cluster`; a type without a short name is under [`pb`].

pub use envoy_types::pb;

pub use pb::google::protobuf::{
    Any, BoolValue, BytesValue, DoubleValue, Duration, Empty, FloatValue, Int32Value, Int64Value, ListValue,
    StringValue, Struct, Timestamp, UInt32Value, UInt64Value, Value, value::Kind as ValueKind,
};
pub use pb::google::rpc::Status;
pub use prost::{Message, Name};

pub use pb::envoy::config::accesslog::v3 as accesslog;
pub use pb::envoy::config::bootstrap::v3 as bootstrap;
pub use pb::envoy::config::cluster::v3 as cluster;
pub use pb::envoy::config::core::v3 as core;
pub use pb::envoy::config::endpoint::v3 as endpoint;
pub use pb::envoy::config::listener::v3 as listener;
pub use pb::envoy::config::rbac::v3 as rbac;
pub use pb::envoy::config::route::v3 as route;
pub use pb::envoy::r#type::matcher::v3 as matcher;
pub use pb::envoy::r#type::metadata::v3 as metadata;
pub use pb::envoy::r#type::tracing::v3 as tracing;
pub use pb::envoy::r#type::v3 as kind;
pub use pb::xds::r#type::matcher::v3 as xds_matcher;

pub use pb::envoy::service::discovery::v3 as discovery;
pub use pb::envoy::service::secret::v3 as secret_discovery;

pub use pb::envoy::extensions::access_loggers::file::v3 as file_access_log;
pub use pb::envoy::extensions::access_loggers::stream::v3 as stream_access_log;
pub use pb::envoy::extensions::filters::http::compressor::v3 as compressor;
pub use pb::envoy::extensions::filters::http::cors::v3 as cors;
pub use pb::envoy::extensions::filters::http::fault::v3 as fault;
pub use pb::envoy::extensions::filters::http::grpc_stats::v3 as grpc_stats;
pub use pb::envoy::extensions::filters::http::router::v3 as router;
pub use pb::envoy::extensions::filters::http::stateful_session::v3 as stateful_session;
pub use pb::envoy::extensions::filters::listener::http_inspector::v3 as http_inspector;
pub use pb::envoy::extensions::filters::listener::original_dst::v3 as original_dst;
pub use pb::envoy::extensions::filters::listener::proxy_protocol::v3 as proxy_protocol;
pub use pb::envoy::extensions::filters::listener::tls_inspector::v3 as tls_inspector;
pub use pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
pub use pb::envoy::extensions::filters::network::sni_cluster::v3 as sni_cluster;
pub use pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_proxy;
pub use pb::envoy::extensions::load_balancing_policies as load_balancing;
pub use pb::envoy::extensions::request_id::uuid::v3 as uuid_request_id;
pub use pb::envoy::extensions::retry::host::previous_hosts::v3 as previous_hosts;
pub use pb::envoy::extensions::transport_sockets::proxy_protocol::v3 as proxy_protocol_upstream;
pub use pb::envoy::extensions::transport_sockets::raw_buffer::v3 as raw_buffer;
pub use pb::envoy::extensions::transport_sockets::tls::v3 as tls;
pub use pb::envoy::extensions::upstreams::http::v3 as upstream_http;

/// Istio's own filters, as far as they are not Envoy's.
pub mod istio {
    /// The name under which Istio's proxies know the filter.
    pub const STATS: &str = "istio.stats";

    /// `stats.PluginConfig`: the filter that counts requests and connections by Istio's labels.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct StatsConfig {
        /// Whether the request's host does not stand in for a destination that is not known.
        #[prost(bool, tag = "6")]
        pub disable_host_header_fallback: bool,
        /// How often the bytes of a connection that goes on are counted.
        #[prost(message, optional, tag = "7")]
        pub tcp_reporting_duration: Option<super::Duration>,
        /// Changes of single metrics; each is a `stats.MetricConfig`.
        #[prost(bytes = "vec", repeated, tag = "8")]
        pub metrics: Vec<Vec<u8>>,
        /// Metrics of one's own; each is a `stats.MetricDefinition`.
        #[prost(bytes = "vec", repeated, tag = "9")]
        pub definitions: Vec<Vec<u8>>,
        /// 1 is a waypoint: it reports for the server.
        #[prost(int32, tag = "10")]
        pub reporter: i32,
    }

    impl prost::Name for StatsConfig {
        const NAME: &'static str = "PluginConfig";
        const PACKAGE: &'static str = "stats";

        fn type_url() -> String {
            "type.googleapis.com/stats.PluginConfig".into()
        }
    }
}

/// Packs a message into an `Any` under its canonical `type.googleapis.com/` URL.
pub fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// Unpacks an `Any` when it holds an `M`; `None` when it names another type, `Err` when its bytes are not an `M`.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Option<Result<M, prost::DecodeError>> {
    (any.type_url == M::type_url()).then(|| M::decode(any.value.as_slice()))
}
