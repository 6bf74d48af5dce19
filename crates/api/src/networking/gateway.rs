//! Gateway: the ports at the edge of the mesh. Reference: <https://istio.io/latest/docs/reference/config/networking/gateway/>.

use std::collections::BTreeMap;

use crate::message::{message, proto_enum};

message! {
    /// What a proxy at the edge of the mesh listens for.
    pub struct Gateway {
        pub servers: Vec<Server>,
        pub selector: BTreeMap<String, String>,
    }
}

message! {
    /// One port of a gateway and the hosts it serves.
    pub struct Server {
        pub port: Option<Port>,
        pub bind: String,
        pub hosts: Vec<String>,
        pub tls: Option<ServerTlsSettings>,
        pub default_endpoint: String,
        pub name: String,
    }
}

message! {
    /// A port and what is spoken on it.
    pub struct Port {
        pub number: u32,
        pub protocol: String,
        pub name: String,
        pub target_port: u32,
    }
}

message! {
    /// How a gateway (or a sidecar's ingress listener) terminates TLS.
    pub struct ServerTlsSettings {
        pub https_redirect: bool,
        pub mode: ServerTlsMode,
        pub server_certificate: String,
        pub private_key: String,
        pub ca_certificates: String,
        pub ca_crl: String,
        pub credential_name: String,
        pub credential_names: Vec<String>,
        pub ca_cert_credential_name: String,
        pub tls_certificates: Vec<TlsCertificate>,
        pub subject_alt_names: Vec<String>,
        pub verify_certificate_spki: Vec<String>,
        pub verify_certificate_hash: Vec<String>,
        pub min_protocol_version: TlsProtocol,
        pub max_protocol_version: TlsProtocol,
        pub cipher_suites: Vec<String>,
        pub ecdh_curves: Vec<String>,
        pub insecure_skip_verify: Option<bool>,
    }
}

proto_enum! {
    /// Who authenticates whom when a client connects.
    pub enum ServerTlsMode {
        Passthrough = 0 "PASSTHROUGH",
        Simple = 1 "SIMPLE",
        Mutual = 2 "MUTUAL",
        AutoPassthrough = 3 "AUTO_PASSTHROUGH",
        IstioMutual = 4 "ISTIO_MUTUAL",
        OptionalMutual = 5 "OPTIONAL_MUTUAL",
    }
}

message! {
    /// A certificate given by file.
    pub struct TlsCertificate {
        pub server_certificate: String,
        pub private_key: String,
        pub ca_certificates: String,
    }
}

proto_enum! {
    /// A version of TLS.
    pub enum TlsProtocol {
        TlsAuto = 0 "TLS_AUTO",
        TlsV1_0 = 1 "TLSV1_0",
        TlsV1_1 = 2 "TLSV1_1",
        TlsV1_2 = 3 "TLSV1_2",
        TlsV1_3 = 4 "TLSV1_3",
    }
}

/// What BoringSSL offers, without pre-shared keys.
const CIPHER_SUITES: [&str; 15] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

impl ServerTlsSettings {
    /// Whether a cipher suite of this name can be asked for. Whatever begins with punctuation is an expression of its own
    /// (`-ALL`, `!kRSA`), and left to OpenSSL.
    pub fn is_cipher_suite(name: &str) -> bool {
        name.is_empty()
            || name == "ALL"
            || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
            || CIPHER_SUITES.contains(&name)
    }

    /// The cipher suites that are asked for and exist, each once.
    pub fn usable_cipher_suites(&self) -> Vec<String> {
        let mut usable: Vec<String> = Vec::new();
        for name in self.cipher_suites.iter().filter(|name| Self::is_cipher_suite(name)) {
            if !usable.contains(name) {
                usable.push(name.clone());
            }
        }
        usable
    }
}
