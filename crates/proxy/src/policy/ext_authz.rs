//! What is asked of an external authorizer, and what its answer means (Envoy: ext_authz, check_request_utils.cc).

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use maille_http::{HeaderId, Name, RequestHead, ResponseHead};
use maille_xds::types::core::{Address, SocketAddress, address, socket_address};
use maille_xds::types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request, TlsSession};
use maille_xds::types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use maille_xds::types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use maille_xds::types::{Message, Timestamp, core};

use super::rbac::Facts;
use crate::config::{AuthzHttp, ExtAuthz, Metadata, StringMatcher};

/// Says whether the body that was shown is only a beginning.
const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";
/// In which an HTTP authorizer names headers to take away.
const TO_REMOVE: &str = "x-envoy-auth-headers-to-remove";

/// What an authorizer said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Whether the request passes.
    pub verdict: Verdict,
    /// Set in the request.
    pub set: Vec<(Name, Vec<u8>)>,
    /// Appended to what the request has of the name, if it has any.
    pub append: Vec<(Name, Vec<u8>)>,
    /// Added to the request.
    pub add: Vec<(Name, Vec<u8>)>,
    /// Taken out of the request.
    pub remove: Vec<Name>,
    /// Added to the response.
    pub response: Vec<(Name, Vec<u8>)>,
    /// Written into the metadata.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// Whether a request passes.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Verdict {
    /// It passes.
    Allowed,
    /// It is answered so; the headers are [`Answer::response`].
    Denied(u16, Vec<u8>),
    /// That is no answer.
    #[default]
    Failed,
}

/// What is told of a request besides [`Facts`].
#[derive(Clone, Copy)]
pub struct Described<'a> {
    /// Its head; `None` is a connection.
    pub head: Option<&'a RequestHead>,
    /// Who sent it.
    pub source: SocketAddr,
    /// The version of HTTP, as logs write it.
    pub protocol: &'a str,
    /// Its number.
    pub id: u64,
    /// When it began.
    pub now: SystemTime,
    /// Our own name, by our certificate.
    pub local_principal: &'a str,
    /// The client's certificate; empty is none.
    pub certificate: &'a [u8],
}

/// The part of a body that is shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Whether there is more.
    pub partial: bool,
}

impl<S> ExtAuthz<S> {
    /// Whether a request is asked about.
    pub fn concerns(&self, metadata: &Metadata) -> bool {
        self.enabled.as_ref().is_none_or(|matcher| matcher.matches(Some(metadata)))
    }

    /// The headers that are shown, several lines of a name as one.
    fn shown<'h>(&self, head: &'h RequestHead, body: Option<Shown<'_>>) -> Vec<(String, Cow<'h, str>)> {
        let mut out: Vec<(String, Cow<'h, str>)> = Vec::new();
        let pseudo = [
            (&b":authority"[..], head.authority()),
            (b":path", head.path_and_query()),
            (b":method", head.method()),
            (b":scheme", head.scheme().as_str().as_bytes()),
        ];
        for (name, value) in pseudo.into_iter().chain(head.headers.iter()) {
            let lower = name.to_ascii_lowercase();
            let is_allowed = self.allowed.as_ref().is_none_or(|list| list.iter().any(|m| m.matches(&lower)));
            if !is_allowed || self.disallowed.iter().any(|m| m.matches(&lower)) || lower == PARTIAL_BODY.as_bytes() {
                continue;
            }
            let (name, value) = (String::from_utf8_lossy(&lower).into_owned(), String::from_utf8_lossy(value));
            match out.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = format!("{known},{value}").into(),
                None => out.push((name, value)),
            }
        }
        if let Some(body) = body {
            out.push((PARTIAL_BODY.into(), if body.partial { "true" } else { "false" }.into()));
        }
        out
    }

    /// The message for a gRPC authorizer.
    pub fn check_request(
        &self,
        facts: &Facts<'_>,
        request: &Described<'_>,
        body: Option<Shown<'_>>,
        metadata: &Metadata,
    ) -> Vec<u8> {
        let Described { head, source, protocol, id, now, local_principal, certificate } = *request;
        let peer = |address: SocketAddr, principal: &str, certificate: &str| Peer {
            address: Some(Address {
                address: Some(address::Address::SocketAddress(SocketAddress {
                    address: address.ip().to_string(),
                    port_specifier: Some(socket_address::PortSpecifier::PortValue(address.port().into())),
                    ..Default::default()
                })),
            }),
            principal: principal.into(),
            certificate: certificate.into(),
            ..Default::default()
        };
        let client = facts.peer.map(|peer| {
            let name = peer.uris.first().or(peer.dns.first()).map(|name| &**name);
            name.unwrap_or(peer.subject).to_owned()
        });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let as_bytes = self.body.is_some_and(|body| body.as_bytes);
        let shown = body.map(|body| body.bytes).unwrap_or_default();
        let length =
            |head: &RequestHead| std::str::from_utf8(head.headers.get(HeaderId::ContentLength)?).ok()?.parse().ok();
        let http = |head: &RequestHead| HttpRequest {
            id: id.to_string(),
            method: text(head.method()),
            headers: self.shown(head, body).into_iter().map(|(name, value)| (name, value.into_owned())).collect(),
            path: text(head.path_and_query()),
            host: text(head.authority()),
            scheme: head.scheme().as_str().into(),
            size: length(head).unwrap_or(-1),
            protocol: protocol.into(),
            body: if as_bytes { String::new() } else { text(shown) },
            raw_body: if as_bytes { shown.to_vec() } else { Vec::new() },
            ..Default::default()
        };
        let wanted = self.metadata_namespaces.iter().filter_map(|name| Some((name.to_string(), metadata.0.get(name)?)));
        let wanted = wanted.filter_map(|(name, value)| Some((name, to_struct(value)?)));
        let certificate = if self.include_certificate { pem(certificate) } else { String::new() };
        let sni = (self.include_server_name && !facts.server_name.is_empty()).then(|| facts.server_name.to_owned());
        let context = AttributeContext {
            source: Some(peer(source, client.as_deref().unwrap_or_default(), &certificate)),
            destination: Some(peer(facts.destination, local_principal, "")),
            request: head.map(|head| Request {
                time: Some(Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 }),
                http: Some(http(head)),
            }),
            metadata_context: Some(core::Metadata { filter_metadata: wanted.collect(), ..Default::default() }),
            tls_session: sni.map(|sni| TlsSession { sni }),
            ..Default::default()
        };
        CheckRequest { attributes: Some(context) }.encode_to_vec()
    }

    /// What a gRPC authorizer's message means.
    pub fn check_response(&self, message: &[u8]) -> Answer {
        let Ok(response) = CheckResponse::decode(message) else { return Answer::default() };
        let mut answer = Answer::default();
        if let Some(written) = &response.dynamic_metadata
            && let serde_json::Value::Object(fields) = crate::compile::json(written)
        {
            answer.metadata = fields;
        }
        let options = |answer: &mut Vec<(Name, Vec<u8>)>, option: &core::HeaderValueOption| {
            answer.extend(option.header.as_ref().and_then(|h| field(&h.key, value_of(h))));
        };
        if response.status.as_ref().is_none_or(|status| status.code == 0) {
            answer.verdict = Verdict::Allowed;
            if let Some(HttpResponse::OkResponse(ok)) = &response.http_response {
                for option in &ok.headers {
                    #[allow(deprecated, reason = "authorizers still say it so, and Envoy listens")]
                    let append = option.append.is_some_and(|append| append.value);
                    options(if append { &mut answer.append } else { &mut answer.set }, option);
                }
                answer.remove = ok.headers_to_remove.iter().filter_map(|name| removable(name)).collect();
                ok.response_headers_to_add.iter().for_each(|option| options(&mut answer.response, option));
            }
            return answer;
        }
        answer.verdict = Verdict::Denied(403, Vec::new());
        if let Some(HttpResponse::DeniedResponse(denied)) = &response.http_response {
            let status = denied.status.as_ref().and_then(|status| u16::try_from(status.code).ok());
            let status = status.filter(|status| (200..600).contains(status)).unwrap_or(403);
            answer.verdict = Verdict::Denied(status, denied.body.clone().into_bytes());
            denied.headers.iter().for_each(|option| options(&mut answer.response, option));
        }
        answer
    }
}

impl AuthzHttp {
    /// The head of the request to an HTTP authorizer.
    pub fn request(&self, filter: &ExtAuthz, head: &RequestHead, body: Option<Shown<'_>>) -> RequestHead {
        let path = [self.path_prefix.as_bytes(), head.path_and_query()].concat();
        let mut out = RequestHead::new();
        out.set_method(head.method());
        out.set_path(&path);
        out.set_authority(head.authority());
        for (name, value) in filter.shown(head, body) {
            if !name.starts_with(':') && name != "content-length" {
                out.append(&Name::new(&name), value.as_bytes());
            }
        }
        for (name, value) in &self.headers {
            out.set(name, value);
        }
        let length = body.map_or(0, |body| body.bytes.len());
        out.headers.set_id(HeaderId::ContentLength, length.to_string().as_bytes());
        out
    }

    /// What an HTTP authorizer's answer means.
    pub fn answer(&self, response: &ResponseHead, body: Vec<u8>) -> Answer {
        let mut answer = Answer::default();
        if response.status >= 500 {
            return answer;
        }
        let any = |list: &[StringMatcher], name: &[u8]| list.iter().any(|matcher| matcher.matches(name));
        let fields = response.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()));
        let fields = fields.filter(|(name, _)| name != TO_REMOVE.as_bytes());
        if response.status == 200 {
            answer.verdict = Verdict::Allowed;
            let to_remove = Name::new(TO_REMOVE);
            let named = response.headers.values(&to_remove).flat_map(|line| line.split(|&b| b == b','));
            let named = named.filter_map(|name| removable(std::str::from_utf8(name.trim_ascii()).ok()?));
            answer.remove = named.collect();
            for (name, value) in fields {
                let Some(field) = std::str::from_utf8(&name).ok().and_then(|n| field(n, &value)) else { continue };
                if any(&self.to_upstream, &name) {
                    answer.set.push(field.clone());
                }
                if any(&self.append_to_upstream, &name) {
                    answer.add.push(field.clone());
                }
                if any(&self.to_metadata, &name) {
                    let text = String::from_utf8_lossy(&value).into_owned();
                    answer.metadata.insert(field.0.as_str().into(), text.into());
                }
                if any(&self.to_client_on_success, &name) {
                    answer.response.push(field);
                }
            }
            return answer;
        }
        let always = [&b"content-length"[..], b"www-authenticate", b"location"];
        let goes = |name: &[u8]| match self.to_client.is_empty() {
            true => name != b"host",
            false => any(&self.to_client, name) || always.contains(&name),
        };
        // What says how the body is framed is ours to say.
        let framing = [&b"content-length"[..], b"transfer-encoding", b"connection", b"keep-alive"];
        let fields = fields.filter(|(name, _)| goes(name) && !framing.contains(&&name[..]));
        answer.response = fields.filter_map(|(name, value)| field(std::str::from_utf8(&name).ok()?, &value)).collect();
        answer.verdict = Verdict::Denied(response.status, body);
        answer
    }
}

impl Answer {
    /// Changes a request that passes; whether anything of it has changed.
    pub fn apply(&self, head: &mut RequestHead) -> bool {
        for (name, value) in &self.set {
            head.set(name, value);
        }
        for (name, value) in &self.add {
            head.append(name, value);
        }
        for (name, value) in &self.append {
            if let Some(known) = head.headers.joined(name) {
                let joined = [&known[..], b",", value].concat();
                head.headers.set(name, &joined);
            }
        }
        for name in &self.remove {
            head.headers.remove(name);
        }
        !(self.set.is_empty() && self.append.is_empty() && self.remove.is_empty())
    }
}

/// A certificate in PEM, percent-encoded.
fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    if der.is_empty() {
        return String::new();
    }
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    let text = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
    text.chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() || c == '-' => c.to_string(),
            c => format!("%{:02X}", u32::from(c)),
        })
        .collect()
}

fn value_of(header: &core::HeaderValue) -> &[u8] {
    if header.value.is_empty() { &header.raw_value } else { header.value.as_bytes() }
}

/// A field that can stand in a message; what frames messages cannot be somebody else's to say.
fn field(name: &str, value: &[u8]) -> Option<(Name, Vec<u8>)> {
    let value = value.trim_ascii();
    let name = Name::new(name);
    let frames = matches!(name.as_str(), "content-length" | "transfer-encoding" | "connection" | "upgrade");
    let valid = name.is_valid() && !name.as_str().starts_with(':') && !frames;
    (valid && value.iter().all(|&b| b == b'\t' || (b >= b' ' && b != 0x7f))).then(|| (name, value.to_vec()))
}

/// A header that may be taken away: not what the request could not do without.
fn removable(name: &str) -> Option<Name> {
    let name = Name::new(name);
    (name.is_valid() && !name.as_str().starts_with(':') && name.as_str() != "host").then_some(name)
}

fn to_struct(value: &serde_json::Value) -> Option<maille_xds::types::Struct> {
    let fields = value.as_object()?.iter().map(|(key, value)| (key.clone(), to_value(value)));
    Some(maille_xds::types::Struct { fields: fields.collect() })
}

fn to_value(value: &serde_json::Value) -> maille_xds::types::Value {
    use maille_xds::types::{ListValue, ValueKind};
    let kind = match value {
        serde_json::Value::Null => ValueKind::NullValue(0),
        serde_json::Value::Bool(value) => ValueKind::BoolValue(*value),
        serde_json::Value::Number(number) => ValueKind::NumberValue(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => ValueKind::StringValue(text.clone()),
        serde_json::Value::Array(items) => {
            ValueKind::ListValue(ListValue { values: items.iter().map(to_value).collect() })
        }
        serde_json::Value::Object(_) => ValueKind::StructValue(to_struct(value).unwrap_or_default()),
    };
    maille_xds::types::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests;
