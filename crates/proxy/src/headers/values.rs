//! Where operators find their values: the heads, and what is known about the stream.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use maille_http::{HeaderId, Name, RequestHead, ResponseHead};
use maille_identity::x509::PeerCertificate;
use maille_telemetry::flags::ResponseFlags;
use maille_telemetry::format::{Field, HeaderPair, Operator, PathOption, Values};

use crate::config::Metadata;
use crate::tls::TlsInfo;

/// The HTTP version of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the versions")]
pub enum Protocol {
    Http10,
    Http11,
    Http2,
}

impl Protocol {
    /// As in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http10 => "HTTP/1.0",
            Protocol::Http11 => "HTTP/1.1",
            Protocol::Http2 => "HTTP/2",
        }
    }
}

/// What is known about a request or connection beside its heads; what is not known is empty or `None`.
#[derive(Clone, Debug)]
pub struct StreamInfo<'a> {
    /// The client's HTTP version; `None` for connections.
    pub protocol: Option<Protocol>,
    /// The upstream's.
    pub upstream_protocol: Option<Protocol>,
    /// When it began.
    pub start: SystemTime,
    /// How long it has lasted.
    pub duration: Duration,
    /// From the beginning to the end of the request.
    pub request_duration: Option<Duration>,
    /// From the beginning to the last byte sent upstream.
    pub request_tx_duration: Option<Duration>,
    /// From the beginning to the first byte from upstream.
    pub response_duration: Option<Duration>,
    /// From the first byte from upstream to the last byte to the client.
    pub response_tx_duration: Option<Duration>,
    /// Body bytes from the client.
    pub bytes_received: u64,
    /// Body bytes to the client.
    pub bytes_sent: u64,
    /// The status; 0 is none yet.
    pub response_code: u16,
    /// Why that status, in Envoy's words.
    pub response_code_details: &'a str,
    /// Why the connection was closed.
    pub connection_termination_details: &'a str,
    /// What happened.
    pub response_flags: ResponseFlags,
    /// The client's address, as far as forwarding headers are believed.
    pub downstream_remote: Option<SocketAddr>,
    /// The address at the connection's other end.
    pub downstream_direct_remote: Option<SocketAddr>,
    /// Our address on the client's side: where the client wanted to go.
    pub downstream_local: Option<SocketAddr>,
    /// The host that was chosen.
    pub upstream_host: Option<SocketAddr>,
    /// Its name.
    pub upstream_host_name: &'a str,
    /// Its metadata.
    pub upstream_metadata: Option<&'a Metadata>,
    /// Our address on the upstream's side.
    pub upstream_local: Option<SocketAddr>,
    /// The cluster, by its name in metrics.
    pub upstream_cluster: &'a str,
    /// The cluster, by its name.
    pub upstream_cluster_raw: &'a str,
    /// The cluster's metadata.
    pub cluster_metadata: Option<&'a Metadata>,
    /// How often the request was sent upstream.
    pub attempts: u32,
    /// Why the upstream's transport failed.
    pub upstream_failure: &'a str,
    /// Why the client's transport failed.
    pub downstream_failure: &'a str,
    /// The connection's number.
    pub connection_id: u64,
    /// The SNI.
    pub server_name: &'a str,
    /// What TLS with the client has agreed on.
    pub(crate) tls: Option<&'a TlsInfo>,
    /// The route's name.
    pub route_name: &'a str,
    /// The filter chain's name.
    pub filter_chain_name: &'a str,
    /// This machine's name.
    pub hostname: &'a str,
}

impl Default for StreamInfo<'_> {
    fn default() -> Self {
        StreamInfo {
            protocol: None,
            upstream_protocol: None,
            start: SystemTime::UNIX_EPOCH,
            duration: Duration::ZERO,
            request_duration: None,
            request_tx_duration: None,
            response_duration: None,
            response_tx_duration: None,
            bytes_received: 0,
            bytes_sent: 0,
            response_code: 0,
            response_code_details: "",
            connection_termination_details: "",
            response_flags: ResponseFlags::default(),
            downstream_remote: None,
            downstream_direct_remote: None,
            downstream_local: None,
            upstream_host: None,
            upstream_host_name: "",
            upstream_metadata: None,
            upstream_local: None,
            upstream_cluster: "",
            upstream_cluster_raw: "",
            cluster_metadata: None,
            attempts: 0,
            upstream_failure: "",
            downstream_failure: "",
            connection_id: 0,
            server_name: "",
            tls: None,
            route_name: "",
            filter_chain_name: "",
            hostname: "",
        }
    }
}

/// The values of one request or connection.
#[derive(Clone, Copy)]
pub struct LogValues<'a> {
    /// The request's head.
    pub request: Option<&'a RequestHead>,
    /// The response's head.
    pub response: Option<&'a ResponseHead>,
    /// Everything else.
    pub stream: &'a StreamInfo<'a>,
}

impl Values<Name> for LogValues<'_> {
    fn write(&self, operator: &Operator<Name>, out: &mut Vec<u8>) -> bool {
        match operator {
            Operator::Request(pair) => header(pair, |name| self.request?.first(name), out),
            Operator::Response(pair) => header(pair, |name| self.response?.first(name), out),
            Operator::Trailer(_) => false,
            Operator::StartTime(format) => {
                format.write(self.stream.start, out);
                true
            }
            Operator::EmitTime(format) => {
                format.write(self.stream.start + self.stream.duration, out);
                true
            }
            Operator::Path { query, which } => self.path(*query, *which, out),
            Operator::QueryParam(name) => self
                .request
                .and_then(RequestHead::query)
                .and_then(|query| crate::route::query_parameter(query, name.as_bytes()))
                .is_some_and(|value| bytes(&value, out)),
            Operator::UpstreamMetadata(path) => metadata(self.stream.upstream_metadata, path, out),
            Operator::ClusterMetadata(path) => metadata(self.stream.cluster_metadata, path, out),
            Operator::Environment(value) => value.as_deref().is_some_and(|v| bytes(v.as_bytes(), out)),
            Operator::Field(field) => self.field(*field, out),
        }
    }
}

impl LogValues<'_> {
    fn field(&self, field: Field, out: &mut Vec<u8>) -> bool {
        let stream = self.stream;
        match field {
            Field::RequestDuration => millis(stream.request_duration, out),
            Field::RequestTxDuration => millis(stream.request_tx_duration, out),
            Field::ResponseDuration => millis(stream.response_duration, out),
            Field::ResponseTxDuration => millis(stream.response_tx_duration, out),
            Field::Duration => millis(Some(stream.duration), out),
            Field::BytesReceived => number(stream.bytes_received, out),
            Field::BytesSent => number(stream.bytes_sent, out),
            Field::Protocol => stream.protocol.is_some_and(|p| text(p.as_str(), out)),
            Field::UpstreamProtocol => stream.upstream_protocol.is_some_and(|p| text(p.as_str(), out)),
            Field::ResponseCode => number(u64::from(stream.response_code), out),
            // Blanks would make columns of one field.
            Field::ResponseCodeDetails => {
                let start = out.len();
                let some = text(stream.response_code_details, out);
                out[start..].iter_mut().filter(|b| b.is_ascii_whitespace()).for_each(|b| *b = b'_');
                some
            }
            Field::ConnectionTerminationDetails => text(stream.connection_termination_details, out),
            Field::ResponseFlags => {
                stream.response_flags.write_short(out);
                true
            }
            Field::ResponseFlagsLong => {
                stream.response_flags.write_long(out);
                true
            }
            Field::UpstreamHost | Field::UpstreamRemoteAddress => address(stream.upstream_host, out),
            Field::UpstreamHostName => text(stream.upstream_host_name, out) || address(stream.upstream_host, out),
            Field::UpstreamCluster => text(stream.upstream_cluster, out),
            Field::UpstreamClusterRaw => text(stream.upstream_cluster_raw, out),
            Field::UpstreamLocalAddress => address(stream.upstream_local, out),
            Field::UpstreamLocalAddressWithoutPort => ip(stream.upstream_local, out),
            Field::UpstreamLocalPort => port(stream.upstream_local, out),
            Field::UpstreamRemoteAddressWithoutPort => ip(stream.upstream_host, out),
            Field::UpstreamRemotePort => port(stream.upstream_host, out),
            Field::UpstreamRequestAttemptCount => number(u64::from(stream.attempts), out),
            Field::UpstreamTransportFailureReason => text(stream.upstream_failure, out),
            Field::DownstreamLocalAddress => address(stream.downstream_local, out),
            Field::DownstreamLocalAddressWithoutPort => ip(stream.downstream_local, out),
            Field::DownstreamLocalPort => port(stream.downstream_local, out),
            Field::DownstreamRemoteAddress => address(stream.downstream_remote, out),
            Field::DownstreamRemoteAddressWithoutPort => ip(stream.downstream_remote, out),
            Field::DownstreamRemotePort => port(stream.downstream_remote, out),
            Field::DownstreamDirectRemoteAddress => address(stream.downstream_direct_remote, out),
            Field::DownstreamDirectRemoteAddressWithoutPort => ip(stream.downstream_direct_remote, out),
            Field::DownstreamDirectRemotePort => port(stream.downstream_direct_remote, out),
            Field::DownstreamTransportFailureReason => text(stream.downstream_failure, out),
            Field::DownstreamPeerUriSan => self.peer().is_some_and(|peer| names(&peer.uri_sans, out)),
            Field::DownstreamPeerDnsSan => self.peer().is_some_and(|peer| names(&peer.dns_sans, out)),
            Field::DownstreamPeerSubject => self.peer().is_some_and(|peer| text(&peer.subject, out)),
            Field::DownstreamPeerIssuer => self.peer().is_some_and(|peer| text(&peer.issuer, out)),
            Field::DownstreamPeerSerial => self.peer().is_some_and(|peer| text(&peer.serial, out)),
            Field::DownstreamPeerFingerprint256 => self.peer().is_some_and(|peer| text(&peer.sha256, out)),
            Field::DownstreamLocalUriSan => self.own().is_some_and(|own| names(&own.uri_sans, out)),
            Field::DownstreamLocalDnsSan => self.own().is_some_and(|own| names(&own.dns_sans, out)),
            Field::DownstreamLocalSubject => self.own().is_some_and(|own| text(&own.subject, out)),
            Field::DownstreamTlsVersion => stream.tls.is_some_and(|tls| text(tls.version, out)),
            Field::DownstreamTlsCipher => stream.tls.is_some_and(|tls| text(tls.cipher, out)),
            Field::ConnectionId => number(stream.connection_id, out),
            Field::RequestedServerName => text(stream.server_name, out),
            Field::RouteName => text(stream.route_name, out),
            Field::FilterChainName => text(stream.filter_chain_name, out),
            Field::Hostname => text(stream.hostname, out),
            Field::GrpcStatus => self.grpc_status(out, true),
            Field::GrpcStatusNumber => self.grpc_status(out, false),
        }
    }

    /// The client's certificate.
    fn peer(&self) -> Option<&PeerCertificate> {
        self.stream.tls?.peer.as_deref()
    }

    /// The one it was shown.
    fn own(&self) -> Option<&PeerCertificate> {
        self.stream.tls?.local.as_deref()
    }

    fn grpc_status(&self, out: &mut Vec<u8>, by_name: bool) -> bool {
        const NAMES: [&str; 17] = [
            "OK",
            "Canceled",
            "Unknown",
            "InvalidArgument",
            "DeadlineExceeded",
            "NotFound",
            "AlreadyExists",
            "PermissionDenied",
            "ResourceExhausted",
            "FailedPrecondition",
            "Aborted",
            "OutOfRange",
            "Unimplemented",
            "Internal",
            "Unavailable",
            "DataLoss",
            "Unauthenticated",
        ];
        let Some(status) = self.response.and_then(|r| r.headers.get(HeaderId::GrpcStatus)) else { return false };
        let named = std::str::from_utf8(status).ok().and_then(|s| s.parse::<usize>().ok()).and_then(|n| NAMES.get(n));
        match named {
            Some(name) if by_name => text(name, out),
            _ => bytes(status, out),
        }
    }

    fn path(&self, query: bool, which: PathOption, out: &mut Vec<u8>) -> bool {
        let Some(request) = self.request else { return false };
        let original = request.headers.get(HeaderId::XEnvoyOriginalPath);
        let path = match which {
            PathOption::Original => original.unwrap_or_default(),
            PathOption::Current => request.path_and_query(),
            PathOption::OriginalOrCurrent => original.unwrap_or_else(|| request.path_and_query()),
        };
        let end = if query { None } else { path.iter().position(|&b| b == b'?') };
        bytes(&path[..end.unwrap_or(path.len())], out)
    }
}

fn header<'a>(pair: &HeaderPair<Name>, find: impl Fn(&Name) -> Option<Cow<'a, [u8]>>, out: &mut Vec<u8>) -> bool {
    let found = find(&pair.main).or_else(|| find(pair.other.as_ref()?));
    match found {
        Some(value) => {
            out.extend_from_slice(&value);
            true
        }
        None => false,
    }
}

fn bytes(value: &[u8], out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(value);
    !value.is_empty()
}

/// Several names, as Envoy writes them.
fn names(all: &[Box<str>], out: &mut Vec<u8>) -> bool {
    text(&all.join(","), out)
}

fn text(value: &str, out: &mut Vec<u8>) -> bool {
    bytes(value.as_bytes(), out)
}

fn number(value: u64, out: &mut Vec<u8>) -> bool {
    write!(out, "{value}").is_ok()
}

fn millis(value: Option<Duration>, out: &mut Vec<u8>) -> bool {
    value.is_some_and(|d| write!(out, "{}", d.as_millis()).is_ok())
}

fn address(value: Option<SocketAddr>, out: &mut Vec<u8>) -> bool {
    value.is_some_and(|a| write!(out, "{a}").is_ok())
}

fn ip(value: Option<SocketAddr>, out: &mut Vec<u8>) -> bool {
    value.is_some_and(|a| write!(out, "{}", a.ip()).is_ok())
}

fn port(value: Option<SocketAddr>, out: &mut Vec<u8>) -> bool {
    value.is_some_and(|a| number(u64::from(a.port()), out))
}

fn metadata(metadata: Option<&Metadata>, path: &[Box<str>], out: &mut Vec<u8>) -> bool {
    let Some((namespace, keys)) = path.split_first() else { return false };
    let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
    match metadata.and_then(|m| m.get(namespace, &keys)) {
        None | Some(serde_json::Value::Null) => false,
        Some(serde_json::Value::String(value)) => text(value, out),
        Some(other) => write!(out, "{other}").is_ok(),
    }
}
