//! Small conversions from the API's and the model's terms to Envoy's.

use std::collections::HashMap;

use maille_api::{Duration, ObjectMeta};
use maille_xds::types::core::{Address, CidrRange, Metadata, SocketAddress, address, socket_address};
use maille_xds::types::{self, Struct, UInt32Value, Value, ValueKind};

/// A duration on the wire.
pub(crate) fn duration(duration: Duration) -> types::Duration {
    types::Duration { seconds: duration.seconds(), nanos: duration.subsec_nanos() }
}

/// No time at all, which for Envoy's timeouts means no limit.
pub(crate) fn no_time() -> types::Duration {
    types::Duration { seconds: 0, nanos: 0 }
}

/// Whole seconds.
pub(crate) fn seconds(seconds: i64) -> types::Duration {
    types::Duration { seconds, nanos: 0 }
}

/// A map that is written in key order.
///
/// prost writes a map in iteration order, which the standard hasher makes different for every map; the bytes of a
/// resource must not be. Moving and cloning keep the order, and the few keys of an Envoy map soon fall into place.
pub(crate) fn ordered_map<V: Clone>(mut entries: Vec<(String, V)>) -> HashMap<String, V> {
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    loop {
        let map: HashMap<String, V> = entries.iter().cloned().collect();
        if map.keys().is_sorted() {
            return map;
        }
    }
}

/// A field of a message that is bytes, text or a message, as it is on the wire. Fields of a message may come one after the
/// other from several encoders: that is how a map is written in an order of its own.
pub(crate) fn encoded_field(number: u32, bytes: &[u8]) -> Vec<u8> {
    const LENGTH_DELIMITED: u64 = 2;
    let mut out = Vec::with_capacity(bytes.len() + 6);
    for mut value in [u64::from(number) << 3 | LENGTH_DELIMITED, bytes.len() as u64] {
        while value > 0x7f {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }
    out.extend_from_slice(bytes);
    out
}

/// The metadata by which a route or a chain names the resource it comes from.
pub(crate) fn config_metadata(kind: &str, meta: &ObjectMeta) -> Metadata {
    said_metadata(vec![("config", config_path(kind, &meta.namespace, &meta.name))])
}

/// How a resource is named in metadata.
pub(crate) fn config_path(kind: &str, namespace: &str, name: &str) -> String {
    format!("/apis/networking.istio.io/v1/namespaces/{namespace}/{kind}/{name}")
}

/// Metadata that says what something was made from.
pub(crate) fn said_metadata(said: Vec<(&str, String)>) -> Metadata {
    let value = |text| Value { kind: Some(ValueKind::StringValue(text)) };
    let fields = ordered_map(said.into_iter().map(|(key, text)| (key.to_owned(), value(text))).collect());
    Metadata {
        filter_metadata: ordered_map(vec![("istio".to_owned(), Struct { fields })]),
        typed_filter_metadata: HashMap::new(),
    }
}

/// A TCP address to listen on; `unix://PATH` is a socket of the file system.
pub(crate) fn address(host: &str, port: u32) -> Address {
    let address = match host.strip_prefix("unix://") {
        Some(path) => address::Address::Pipe(types::core::Pipe { path: path.to_owned(), ..Default::default() }),
        None => address::Address::SocketAddress(SocketAddress {
            address: host.to_owned(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(port)),
            ..Default::default()
        }),
    };
    Address { address: Some(address) }
}

/// An address or a network; an address alone is a network of one.
pub(crate) fn cidr_range(text: &str) -> Option<CidrRange> {
    let (host, length) = match text.split_once('/') {
        Some((host, length)) => (host, Some(length)),
        None => (text, None),
    };
    let ip: std::net::IpAddr = host.parse().ok()?;
    let whole = if ip.is_ipv4() { 32 } else { 128 };
    let length = match length {
        Some(length) => length.parse().ok().filter(|length| *length <= whole)?,
        None => whole,
    };
    Some(CidrRange { address_prefix: host.to_owned(), prefix_len: Some(UInt32Value { value: length }) })
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn host_port(host: &str, port: u32) -> String {
    format!("{}:{port}", bracketed(host))
}

/// A host as it stands in a URL: IPv6 addresses have brackets.
pub(crate) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// The cluster of a service's port, or of a subset of it.
pub(crate) fn outbound_cluster(port: u32, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// The same cluster by the name that stands in a server name, where `|` cannot.
pub(crate) fn dns_subset_cluster(port: u32, subset: &str, host: &str) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

/// The cluster of the workload's own port.
pub(crate) fn inbound_cluster(port: u32) -> String {
    format!("inbound|{port}||")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_written_in_order() {
        for _ in 0..50 {
            let map = ordered_map(vec![("b".into(), 1), ("c".into(), 3), ("a".into(), 2)]);
            assert_eq!(map.clone().into_keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        }
    }

    #[test]
    fn networks() {
        for (text, expected) in [
            ("10.0.0.1", Some(("10.0.0.1", 32))),
            ("10.0.0.0/8", Some(("10.0.0.0", 8))),
            ("::1", Some(("::1", 128))),
            ("10.0.0.0/33", None),
            ("host", None),
        ] {
            let range = cidr_range(text);
            let found = range.as_ref().map(|range| {
                (range.address_prefix.as_str(), range.prefix_len.as_ref().map_or(0, |length| length.value))
            });
            assert_eq!(found, expected, "{text}");
        }
    }
}
