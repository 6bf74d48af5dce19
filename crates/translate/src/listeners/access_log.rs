//! Access logs as MeshConfig asks for them: one line a request or a connection, in Istio's format unless it names another.

use std::collections::BTreeMap;

use maille_api::mesh::{AccessLogEncoding, MeshConfig};
use maille_xds::types::accesslog::access_log_filter::FilterSpecifier;
use maille_xds::types::accesslog::{AccessLog, AccessLogFilter, ResponseFlagFilter, access_log};
use maille_xds::types::core::TypedExtensionConfig;
use maille_xds::types::pb::envoy::extensions::formatter::{cel, metadata, req_without_query};
use maille_xds::types::{Any, Name, any, file_access_log::FileAccessLog};
use prost::Message;
use serde_json::Value as Json;

const TEXT_FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
);

const JSON_FORMAT: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

/// What a connection manager or a TCP proxy logs; nothing unless MeshConfig names a file.
pub(crate) fn of_traffic(mesh: &MeshConfig) -> Vec<AccessLog> {
    file(mesh, None)
}

/// What a listener logs itself: connections that no filter chain took, which nobody else would mention.
pub(crate) fn of_listener(mesh: &MeshConfig) -> Vec<AccessLog> {
    if mesh.disable_envoy_listener_log {
        return Vec::new();
    }
    let no_route = ResponseFlagFilter { flags: vec!["NR".to_owned()] };
    file(mesh, Some(AccessLogFilter { filter_specifier: Some(FilterSpecifier::ResponseFlagFilter(no_route)) }))
}

fn file(mesh: &MeshConfig, filter: Option<AccessLogFilter>) -> Vec<AccessLog> {
    if mesh.access_log_file.is_empty() {
        return Vec::new();
    }
    let formatters = formatters(&mesh.access_log_format);
    let log_format = match mesh.access_log_encoding {
        AccessLogEncoding::Text => {
            Format { text: Some(InlineString { text: text_format(mesh) }), json: None, formatters }
        }
        AccessLogEncoding::Json => Format { json: Some(json_format(mesh)), text: None, formatters },
    };
    let log = File { path: mesh.access_log_file.clone(), log_format: Some(log_format) };
    let config = Any { type_url: FileAccessLog::type_url(), value: log.encode_to_vec() };
    vec![AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        filter,
        config_type: Some(access_log::ConfigType::TypedConfig(config)),
    }]
}

fn text_format(mesh: &MeshConfig) -> String {
    match mesh.access_log_format.as_str() {
        "" => TEXT_FORMAT.to_owned(),
        // A line has to end.
        format if format.ends_with('\n') => format.to_owned(),
        format => format!("{format}\n"),
    }
}

/// Commands that Envoy knows only when told of their extension.
fn formatters(format: &str) -> Vec<TypedExtensionConfig> {
    let extension = |name: &str, config| TypedExtensionConfig { name: name.to_owned(), typed_config: Some(config) };
    let mut formatters = Vec::new();
    if format.contains("%CEL(") {
        formatters.push(extension("envoy.formatter.cel", any(&cel::v3::Cel::default())));
    }
    if format.contains("%METADATA(") {
        formatters.push(extension("envoy.formatter.metadata", any(&metadata::v3::Metadata::default())));
    }
    if format.contains("%REQ_WITHOUT_QUERY(") {
        let config = any(&req_without_query::v3::ReqWithoutQuery::default());
        formatters.push(extension("envoy.formatter.req_without_query", config));
    }
    formatters
}

/// A format that is not a JSON object is passed over for the default; validation of MeshConfig has said so.
fn json_format(mesh: &MeshConfig) -> Struct {
    if let Ok(Json::Object(format)) = serde_json::from_str(&mesh.access_log_format) {
        return Struct { fields: format.iter().map(|(key, value)| (key.clone(), value_of(value))).collect() };
    }
    let text = |text: &str| Value { kind: Some(Kind::Text(text.to_owned())) };
    Struct { fields: JSON_FORMAT.into_iter().map(|(key, value)| (key.to_owned(), text(value))).collect() }
}

fn value_of(json: &Json) -> Value {
    let kind = match json {
        Json::Null => Kind::Null(0),
        Json::Bool(value) => Kind::Bool(*value),
        Json::Number(value) => Kind::Number(value.as_f64().unwrap_or_default()),
        Json::String(value) => Kind::Text(value.clone()),
        Json::Array(values) => Kind::List(List { values: values.iter().map(value_of).collect() }),
        Json::Object(fields) => {
            Kind::Struct(Struct { fields: fields.iter().map(|(key, value)| (key.clone(), value_of(value))).collect() })
        }
    };
    Value { kind: Some(kind) }
}

// Envoy's FileAccessLog and what it holds, with the map of a Struct in key order: the generated type keeps it in a hash
// map, and the same format would have other bytes each time.

#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(message, optional, tag = "5")]
    log_format: Option<Format>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Format {
    #[prost(message, optional, tag = "2")]
    json: Option<Struct>,
    #[prost(message, optional, tag = "5")]
    text: Option<InlineString>,
    #[prost(message, repeated, tag = "6")]
    formatters: Vec<TypedExtensionConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct InlineString {
    #[prost(string, tag = "3")]
    text: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Struct {
    #[prost(btree_map = "string, message", tag = "1")]
    fields: BTreeMap<String, Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Value {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct List {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(int32, tag = "1")]
    Null(i32),
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(bool, tag = "4")]
    Bool(bool),
    #[prost(message, tag = "5")]
    Struct(Struct),
    #[prost(message, tag = "6")]
    List(List),
}

#[cfg(test)]
mod tests {
    use maille_xds::types::core::substitution_format_string::Format as Decoded;
    use maille_xds::types::file_access_log::file_access_log::AccessLogFormat;

    use super::*;

    fn decoded(mesh: &MeshConfig) -> Decoded {
        let [log] = of_traffic(mesh).try_into().expect("one log");
        let Some(access_log::ConfigType::TypedConfig(config)) = log.config_type else { panic!("no config") };
        let file = FileAccessLog::decode(config.value.as_slice()).expect("Envoy's own type reads it");
        assert_eq!(file.path, "/dev/stdout");
        let Some(AccessLogFormat::LogFormat(format)) = file.access_log_format else { panic!("no format") };
        format.format.expect("text or JSON")
    }

    #[test]
    fn envoy_reads_what_is_written() {
        let mut mesh = MeshConfig { access_log_file: "/dev/stdout".into(), ..Default::default() };
        let Decoded::TextFormatSource(text) = decoded(&mesh) else { panic!("not text") };
        assert!(format!("{text:?}").contains("%UPSTREAM_CLUSTER_RAW%"));
        mesh.access_log_encoding = AccessLogEncoding::Json;
        let Decoded::JsonFormat(json) = decoded(&mesh) else { panic!("not JSON") };
        assert_eq!(json.fields.len(), 24);
        mesh.access_log_format = r#"{"a": "%PROTOCOL%", "b": {"c": ["%REQ(X)%", 1, true, null]}}"#.into();
        let Decoded::JsonFormat(json) = decoded(&mesh) else { panic!("not JSON") };
        assert_eq!(json.fields.len(), 2);
    }

    #[test]
    fn no_file_is_no_log() {
        assert!(of_traffic(&MeshConfig::default()).is_empty());
        assert!(of_listener(&MeshConfig::default()).is_empty());
    }
}
