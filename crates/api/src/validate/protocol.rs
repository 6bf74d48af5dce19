//! The protocols a port can declare, read the way Istio reads them: whatever the case of the letters.

use super::findings::{Problem, Verdict};

/// What a port says it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Grpc,
    GrpcWeb,
    Http,
    HttpProxy,
    Http2,
    Https,
    Tls,
    Mongo,
    Redis,
    Mysql,
}

const KNOWN: &str = "HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TCP, TLS, MONGO, REDIS, MYSQL";

impl Protocol {
    /// The protocol called `name`; none if there is no such protocol.
    pub(crate) fn parse(name: &str) -> Option<Protocol> {
        Some(match name.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "grpc" => Protocol::Grpc,
            "grpc-web" => Protocol::GrpcWeb,
            "http" => Protocol::Http,
            "http_proxy" => Protocol::HttpProxy,
            "http2" => Protocol::Http2,
            "https" => Protocol::Https,
            "tls" => Protocol::Tls,
            "mongo" => Protocol::Mongo,
            "redis" => Protocol::Redis,
            "mysql" => Protocol::Mysql,
            _ => return None,
        })
    }

    /// Whether requests can be told apart on it.
    pub(crate) fn is_http(self) -> bool {
        matches!(self, Protocol::Http | Protocol::Http2 | Protocol::HttpProxy | Protocol::Grpc | Protocol::GrpcWeb)
    }

    /// Whether it is TLS on the wire.
    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Protocol::Https | Protocol::Tls)
    }

    /// Whether it is opaque bytes over TCP for whoever does not terminate TLS.
    pub(crate) fn is_tcp(self) -> bool {
        matches!(
            self,
            Protocol::Tcp | Protocol::Https | Protocol::Tls | Protocol::Mongo | Protocol::Redis | Protocol::Mysql
        )
    }
}

/// A protocol that has to be named.
pub(crate) fn required(name: &str) -> Verdict {
    match Protocol::parse(name) {
        Some(_) => Ok(()),
        None => Err(Problem::new(format!("unknown protocol `{name}`")).hint(format!("use one of {KNOWN}"))),
    }
}

/// A protocol that is detected from the traffic when it is not named.
pub(crate) fn optional(name: &str) -> Verdict {
    if name.is_empty() { Ok(()) } else { required(name) }
}
