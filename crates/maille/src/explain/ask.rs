//! What is asked: a request, and who sends it.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

/// A request, and who sends it.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// The client in the mesh; `None` is outside.
    pub(crate) from: Option<Who>,
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    pub(crate) method: String,
    pub(crate) path: String,
    /// Without the host.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) source: IpAddr,
    /// The workload whose sidecar it comes to, when nobody is asked on the way there.
    pub(crate) at: Option<String>,
    /// What the client's certificate proves there.
    pub(crate) ids: Vec<String>,
    /// The name that the client's TLS asks for.
    pub(crate) server_name: Option<String>,
    pub(crate) protocol: Protocol,
}

/// What the client speaks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// HTTP
    #[default]
    Http,
    /// Bytes of any kind
    Tcp,
    /// TLS of its own, towards the host
    Tls,
}

/// A client in the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    /// Its trust domain, when it was named.
    pub(crate) trust_domain: Option<String>,
    pub(crate) namespace: String,
    pub(crate) account: String,
}

impl Ask {
    pub(crate) fn new(to: &str, from: Option<&str>) -> Result<Ask, String> {
        let (host, port) = match to.rsplit_once(':') {
            Some((host, port)) => {
                let port = port.parse().map_err(|_| format!("--to {to}: {port:?} is no port"))?;
                (host, Some(port))
            }
            None => (to, None),
        };
        if host.is_empty() {
            return Err(format!("--to {to}: expected HOST or HOST:PORT"));
        }
        Ok(Ask {
            from: from.map(Who::parse).transpose()?,
            host: host.to_owned(),
            port,
            method: "GET".into(),
            path: "/".into(),
            headers: Vec::new(),
            source: Ipv4Addr::LOCALHOST.into(),
            at: None,
            ids: Vec::new(),
            server_name: None,
            protocol: Protocol::default(),
        })
    }

    /// One line of a file of requests.
    pub(crate) fn parse(line: &str) -> Result<Ask, String> {
        let json: Value = serde_json::from_str(line).map_err(|error| format!("no JSON: {error}"))?;
        let text = |key: &str| json[key].as_str();
        let to = text("to").ok_or("there is no \"to\"")?;
        let at = text("at").map(str::to_owned);
        let mut ask = Ask::new(to, text("from").filter(|_| at.is_none()))?;
        if at.is_some() {
            let ids = json["from"].as_array().map_or(std::slice::from_ref(&json["from"]), Vec::as_slice);
            ids.iter().filter_map(Value::as_str).for_each(|id| ask.id(id));
        }
        ask.at = at;
        ask.server_name = text("sni").map(str::to_owned);
        if let Some(name) = text("protocol") {
            ask.protocol = clap::ValueEnum::from_str(name, false)?;
        }
        ask.method = text("method").unwrap_or("GET").to_owned();
        ask.path = text("path").unwrap_or("/").to_owned();
        for (name, value) in json["headers"].as_object().into_iter().flatten() {
            // White space around a value is no part of it (RFC 9110 §5.5).
            ask.headers.push((name.to_ascii_lowercase(), value.as_str().unwrap_or_default().trim().to_owned()));
        }
        if let Some(token) = text("jwt") {
            ask.token(token);
        }
        if let Some(ip) = text("source_ip") {
            ask.source = ip.parse().map_err(|_| format!("{ip:?} is no address"))?;
        }
        Ok(ask)
    }

    pub(crate) fn header(&mut self, line: &str) -> Result<(), String> {
        let (name, value) = line.split_once(':').ok_or_else(|| format!("--header {line:?}: expected `name: value`"))?;
        self.headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        Ok(())
    }

    /// A name that the client's certificate proves: any URI, or the short form of a workload.
    pub(crate) fn id(&mut self, text: &str) {
        match Who::parse(text) {
            Ok(who) if !text.contains("://") => self.from = Some(who),
            _ => self.ids.push(text.to_owned()),
        }
    }

    pub(crate) fn token(&mut self, token: &str) {
        self.headers.push(("authorization".into(), format!("Bearer {token}")));
    }
}

impl Who {
    fn parse(text: &str) -> Result<Who, String> {
        let expected =
            || format!("--from {text}: expected NAMESPACE/SERVICE-ACCOUNT or spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT");
        let id = text.strip_prefix("spiffe://");
        let parts: Vec<&str> = id.unwrap_or(text).split('/').collect();
        match parts[..] {
            [namespace, account] if id.is_none() => {
                Ok(Who { trust_domain: None, namespace: namespace.into(), account: account.into() })
            }
            [domain, "ns", namespace, "sa", account] => {
                Ok(Who { trust_domain: Some(domain.into()), namespace: namespace.into(), account: account.into() })
            }
            _ => Err(expected()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_asked() {
        let who = |domain: Option<&str>, namespace: &str, account: &str| Who {
            trust_domain: domain.map(str::to_owned),
            namespace: namespace.into(),
            account: account.into(),
        };
        for (text, expected) in [
            ("foo/sleep", Some(who(None, "foo", "sleep"))),
            ("spiffe://td/ns/foo/sa/sleep", Some(who(Some("td"), "foo", "sleep"))),
            ("cluster.local/ns/foo/sa/sleep", Some(who(Some("cluster.local"), "foo", "sleep"))),
            ("sleep", None),
            ("spiffe://foo/sleep", None),
        ] {
            assert_eq!(Who::parse(text).ok(), expected, "{text}");
        }
        assert_eq!(Ask::new("a.example:80", None).unwrap().port, Some(80));
        assert!(Ask::new("a.example:http", None).is_err());
        assert!(Ask::new(":80", None).is_err());
    }
}
