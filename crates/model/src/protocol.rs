//! What travels on a port, from its declared protocol or its name.

/// The protocol of a service's or a gateway's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Protocol {
    Grpc,
    GrpcWeb,
    Http,
    HttpProxy,
    Http2,
    Https,
    Tcp,
    Tls,
    Udp,
    Mongo,
    Redis,
    MySql,
    /// Nothing known was declared: the listener finds out by looking at the first bytes.
    Unsupported,
}

use Protocol::*;

impl Protocol {
    /// The protocol of this name, in any case.
    pub fn parse(name: &str) -> Protocol {
        match name.to_ascii_lowercase().as_str() {
            "tcp" => Tcp,
            "udp" => Udp,
            "grpc" => Grpc,
            "grpc-web" => GrpcWeb,
            "http" => Http,
            "http_proxy" => HttpProxy,
            "http2" => Http2,
            "https" => Https,
            "tls" => Tls,
            "mongo" => Mongo,
            "redis" => Redis,
            "mysql" => MySql,
            _ => Unsupported,
        }
    }

    /// The protocol of a Kubernetes service port: appProtocol, else the prefix of the port's name.
    pub fn of_service_port(port: u32, name: &str, transport: &str, app_protocol: Option<&str>) -> Protocol {
        if transport.eq_ignore_ascii_case("udp") {
            return Udp;
        }
        match app_protocol {
            Some("kubernetes.io/h2c") => return Http2,
            Some("kubernetes.io/ws") => return Http,
            Some("kubernetes.io/wss") => return Https,
            _ => {}
        }
        let name = app_protocol.unwrap_or(name);
        if name.get(..8).is_some_and(|prefix| prefix.eq_ignore_ascii_case("grpc-web")) {
            return GrpcWeb;
        }
        match Protocol::parse(name.split('-').next().unwrap_or_default()) {
            // On these ports the server speaks first, so waiting for the client's bytes would hang: SMTP, DNS, MySQL, MongoDB.
            Unsupported if matches!(port, 25 | 53 | 3306 | 27017) => Tcp,
            protocol => protocol,
        }
    }

    /// HTTP in any version, without TLS.
    pub fn is_http(self) -> bool {
        matches!(self, Http | Http2 | HttpProxy | Grpc | GrpcWeb)
    }

    /// HTTP, or something that may turn out to be HTTP.
    pub fn is_http_or_sniffed(self) -> bool {
        self.is_http() || self.is_unsupported()
    }

    /// HTTP/2 on the wire.
    pub fn is_http2(self) -> bool {
        matches!(self, Http2 | Grpc | GrpcWeb)
    }

    /// An opaque stream for the proxy, TLS included.
    pub fn is_tcp(self) -> bool {
        matches!(self, Tcp | Https | Tls | Mongo | Redis | MySql)
    }

    /// Something inside TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Https | Tls)
    }

    /// HTTPS.
    pub fn is_https(self) -> bool {
        self == Https
    }

    /// gRPC or gRPC-Web.
    pub fn is_grpc(self) -> bool {
        matches!(self, Grpc | GrpcWeb)
    }

    /// Not declared; to be detected.
    pub fn is_unsupported(self) -> bool {
        self == Unsupported
    }

    /// What is left after TLS is taken off.
    pub fn after_tls_termination(self) -> Protocol {
        match self {
            Https => Http,
            Tls => Tcp,
            other => other,
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Grpc => "GRPC",
            GrpcWeb => "GRPC-Web",
            Http => "HTTP",
            HttpProxy => "HTTP_PROXY",
            Http2 => "HTTP2",
            Https => "HTTPS",
            Tcp => "TCP",
            Tls => "TLS",
            Udp => "UDP",
            Mongo => "Mongo",
            Redis => "Redis",
            MySql => "MySQL",
            Unsupported => "UnsupportedProtocol",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_port_says_its_protocol() {
        for (port, name, transport, app, expected) in [
            (80, "http", "TCP", None, Http),
            (80, "http-web", "TCP", None, Http),
            (80, "HTTP2-x", "TCP", None, Http2),
            (80, "grpc-web-x", "TCP", None, GrpcWeb),
            (80, "grpc-x", "TCP", None, Grpc),
            (80, "tcp", "TCP", Some("http"), Http),
            (80, "x", "TCP", Some("kubernetes.io/h2c"), Http2),
            (443, "x", "TCP", Some("kubernetes.io/wss"), Https),
            (53, "dns", "UDP", None, Udp),
            (3306, "db", "TCP", None, Tcp),
            (3306, "http", "TCP", None, Http),
            (9080, "", "TCP", None, Unsupported),
            (80, "httpx", "TCP", None, Unsupported),
        ] {
            assert_eq!(Protocol::of_service_port(port, name, transport, app), expected, "{name} {port}");
        }
    }
}
