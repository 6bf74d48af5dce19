//! One request, or connection, and what came of it.

use std::net::{Ipv4Addr, SocketAddrV4};

use serde_json::Value;

/// One request, or connection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ask {
    /// The URI of the client's certificate, which can have but one; without any it speaks plain text.
    pub(crate) uri: Option<String>,
    /// A second name, which only its subject can be.
    pub(crate) subject: String,
    /// The name that its TLS asks for; empty is none.
    pub(crate) sni: String,
    pub(crate) source: Ipv4Addr,
    pub(crate) forwarded_for: Option<Ipv4Addr>,
    pub(crate) to: SocketAddrV4,
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    /// What its token says.
    pub(crate) claims: Option<Value>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// An answer with this status and body; an echo is 200.
    Answer(u16, String),
    /// Closed without any.
    Closed,
}

impl Verdict {
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Verdict::Answer(200, _))
    }

    /// As an explanation puts it.
    pub(crate) fn short(&self) -> String {
        match self {
            Verdict::Answer(status, _) => status.to_string(),
            Verdict::Closed => "closed".into(),
        }
    }
}

impl Ask {
    /// The headers beside the host, the forwarding header and the token among them.
    pub(crate) fn all_headers(&self, token: impl Fn(&Value) -> String) -> Vec<(String, String)> {
        let mut headers = self.headers.clone();
        headers.extend(self.forwarded_for.map(|ip| ("x-forwarded-for".into(), ip.to_string())));
        headers.extend(self.claims.iter().map(|claims| ("authorization".into(), format!("Bearer {}", token(claims)))));
        headers
    }
}
