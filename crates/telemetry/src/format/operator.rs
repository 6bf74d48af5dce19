//! The operators that can be written.

use std::sync::Arc;

use crate::time::TimeFormat;

/// One operator.
#[derive(Clone, Debug, PartialEq)]
pub enum Operator<N> {
    /// `%REQ(NAME?OTHER)%`: a request header, pseudo-headers included.
    Request(HeaderPair<N>),
    /// `%RESP(NAME?OTHER)%`.
    Response(HeaderPair<N>),
    /// `%TRAILER(NAME?OTHER)%`.
    Trailer(HeaderPair<N>),
    /// `%START_TIME(FORMAT)%`.
    StartTime(TimeFormat),
    /// `%EMIT_TIME(FORMAT)%`.
    EmitTime(TimeFormat),
    /// `%PATH(WQ|NQ:ORIG|PATH|ORIG_OR_PATH)%`.
    Path {
        /// Whether the query is part of it.
        query: bool,
        /// Which path.
        which: PathOption,
    },
    /// `%QUERY_PARAM(NAME)%`.
    QueryParam(Box<str>),
    /// `%UPSTREAM_METADATA(NAMESPACE:KEY…)%`.
    UpstreamMetadata(Arc<[Box<str>]>),
    /// `%CLUSTER_METADATA(NAMESPACE:KEY…)%`.
    ClusterMetadata(Arc<[Box<str>]>),
    /// `%ENVIRONMENT(NAME)%`, read when it was parsed.
    Environment(Option<Box<str>>),
    /// An operator without arguments.
    Field(Field),
}

impl<N> Operator<N> {
    /// Whether JSON shows it as a number.
    pub fn is_number(&self) -> bool {
        match self {
            Operator::Field(field) => field.is_number(),
            _ => false,
        }
    }
}

/// A header, and another that stands in when it is missing.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderPair<N> {
    /// The header.
    pub main: N,
    /// What stands in for it.
    pub other: Option<N>,
}

/// Which path `%PATH%` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathOption {
    /// The one before it was rewritten, if it was.
    Original,
    /// The one it is now.
    Current,
    /// The first of these two that there is.
    OriginalOrCurrent,
}

macro_rules! fields {
    ($($(#[$number:ident])? $variant:ident = $name:literal),* $(,)?) => {
        /// An operator without arguments; the variants are Envoy's names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the variants are Envoy's operator names")]
        pub enum Field { $($variant),* }

        impl Field {
            /// The field of an operator's name.
            pub fn parse(name: &str) -> Option<Field> {
                match name {
                    $($name => Some(Field::$variant),)*
                    _ => None,
                }
            }

            /// The operator's name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Field::$variant => $name,)*
                }
            }

            /// Whether JSON shows it as a number.
            pub fn is_number(self) -> bool {
                match self {
                    $($(Field::$variant => fields!(@$number),)?)*
                    _ => false,
                }
            }
        }
    };
    (@number) => { true };
}

fields! {
    #[number] RequestDuration = "REQUEST_DURATION",
    #[number] RequestTxDuration = "REQUEST_TX_DURATION",
    #[number] ResponseDuration = "RESPONSE_DURATION",
    #[number] ResponseTxDuration = "RESPONSE_TX_DURATION",
    #[number] Duration = "DURATION",
    #[number] BytesReceived = "BYTES_RECEIVED",
    #[number] BytesSent = "BYTES_SENT",
    Protocol = "PROTOCOL",
    UpstreamProtocol = "UPSTREAM_PROTOCOL",
    #[number] ResponseCode = "RESPONSE_CODE",
    ResponseCodeDetails = "RESPONSE_CODE_DETAILS",
    ConnectionTerminationDetails = "CONNECTION_TERMINATION_DETAILS",
    ResponseFlags = "RESPONSE_FLAGS",
    ResponseFlagsLong = "RESPONSE_FLAGS_LONG",
    UpstreamHost = "UPSTREAM_HOST",
    UpstreamHostName = "UPSTREAM_HOST_NAME",
    UpstreamCluster = "UPSTREAM_CLUSTER",
    UpstreamClusterRaw = "UPSTREAM_CLUSTER_RAW",
    UpstreamLocalAddress = "UPSTREAM_LOCAL_ADDRESS",
    UpstreamLocalAddressWithoutPort = "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    #[number] UpstreamLocalPort = "UPSTREAM_LOCAL_PORT",
    UpstreamRemoteAddress = "UPSTREAM_REMOTE_ADDRESS",
    UpstreamRemoteAddressWithoutPort = "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    #[number] UpstreamRemotePort = "UPSTREAM_REMOTE_PORT",
    #[number] UpstreamRequestAttemptCount = "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    UpstreamTransportFailureReason = "UPSTREAM_TRANSPORT_FAILURE_REASON",
    DownstreamLocalAddress = "DOWNSTREAM_LOCAL_ADDRESS",
    DownstreamLocalAddressWithoutPort = "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    #[number] DownstreamLocalPort = "DOWNSTREAM_LOCAL_PORT",
    DownstreamRemoteAddress = "DOWNSTREAM_REMOTE_ADDRESS",
    DownstreamRemoteAddressWithoutPort = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    #[number] DownstreamRemotePort = "DOWNSTREAM_REMOTE_PORT",
    DownstreamDirectRemoteAddress = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    DownstreamDirectRemoteAddressWithoutPort = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    #[number] DownstreamDirectRemotePort = "DOWNSTREAM_DIRECT_REMOTE_PORT",
    DownstreamTransportFailureReason = "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    DownstreamPeerUriSan = "DOWNSTREAM_PEER_URI_SAN",
    DownstreamPeerDnsSan = "DOWNSTREAM_PEER_DNS_SAN",
    DownstreamPeerSubject = "DOWNSTREAM_PEER_SUBJECT",
    DownstreamPeerIssuer = "DOWNSTREAM_PEER_ISSUER",
    DownstreamPeerSerial = "DOWNSTREAM_PEER_SERIAL",
    DownstreamPeerFingerprint256 = "DOWNSTREAM_PEER_FINGERPRINT_256",
    DownstreamLocalUriSan = "DOWNSTREAM_LOCAL_URI_SAN",
    DownstreamLocalDnsSan = "DOWNSTREAM_LOCAL_DNS_SAN",
    DownstreamLocalSubject = "DOWNSTREAM_LOCAL_SUBJECT",
    DownstreamTlsVersion = "DOWNSTREAM_TLS_VERSION",
    DownstreamTlsCipher = "DOWNSTREAM_TLS_CIPHER",
    #[number] ConnectionId = "CONNECTION_ID",
    RequestedServerName = "REQUESTED_SERVER_NAME",
    RouteName = "ROUTE_NAME",
    FilterChainName = "FILTER_CHAIN_NAME",
    Hostname = "HOSTNAME",
    GrpcStatus = "GRPC_STATUS",
    #[number] GrpcStatusNumber = "GRPC_STATUS_NUMBER",
}
