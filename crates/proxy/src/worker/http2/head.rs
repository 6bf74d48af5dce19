//! Heads of HTTP/2, as the `h2` crate has them, from and to the ones that the rest of the proxy has.
//!
//! One allocation holds the text of all fields that go out; what comes in is copied into memory that is used again.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, Version};
use maille_http::h1::{self, BodyLength, RequestMeta, ResponseMeta};
use maille_http::request::Scheme;
use maille_http::{HeaderId, Headers, RequestHead, ResponseHead};

/// What is wrong with a request that is well-formed HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    TooManyFields,
    TooLarge,
    NoHost,
    Host,
    Path,
}

impl Bad {
    pub(crate) fn status(self) -> u16 {
        match self {
            Bad::TooManyFields | Bad::TooLarge => 431,
            Bad::NoHost | Bad::Host | Bad::Path => 400,
        }
    }

    /// Envoy's response code details.
    pub(crate) fn details(self) -> &'static str {
        match self {
            Bad::TooManyFields => "http2.too_many_headers",
            Bad::TooLarge => "http2.headers_too_large",
            Bad::NoHost => "missing_host_header",
            Bad::Host => "http.invalid_authority",
            Bad::Path => "path_normalization_failed",
        }
    }
}

/// Takes over the head of a request. An extended CONNECT becomes the upgrade that it stands for.
pub(crate) fn request_from(
    parts: &http::request::Parts,
    ended: bool,
    limits: &h1::Limits,
    head: &mut RequestHead,
) -> Result<RequestMeta, Bad> {
    head.clear();
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    let uri = &parts.uri;
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    head.set_method(if protocol.is_some() { b"GET" } else { parts.method.as_str().as_bytes() });
    head.set_path(path.as_bytes());
    if uri.scheme_str() == Some("https") {
        head.set_scheme(Scheme::Https);
    }
    let mut size = path.len();
    let mut repeated = false;
    let mut host: Option<&[u8]> = None;
    let mut cookies: Option<Vec<u8>> = None;
    for (name, value) in &parts.headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        size += name.len() + value.len();
        match HeaderId::of(name) {
            HeaderId::Host => host = host.or(Some(value)),
            HeaderId::Cookie if parts.headers.len() > 1 => {
                // Crumbs are one field wherever they are read; so that they compress they may come apart.
                let all = cookies.get_or_insert_default();
                if !all.is_empty() {
                    all.extend_from_slice(b"; ");
                }
                all.extend_from_slice(value);
            }
            HeaderId::Upgrade | HeaderId::Connection | HeaderId::TransferEncoding => {}
            id => {
                repeated |= head.headers.has(id) && id.is_list(true);
                head.headers.push_parsed(name, value);
            }
        }
    }
    if repeated {
        head.headers.fold_lists(true);
    }
    if let Some(cookies) = cookies {
        head.headers.append_id(HeaderId::Cookie, &cookies);
    }
    if let Some(protocol) = protocol {
        head.headers.append_id(HeaderId::Upgrade, protocol.as_str().as_bytes());
    }
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes()).or(host);
    head.set_authority(authority.unwrap_or_default());
    if head.headers.len() > limits.fields {
        return Err(Bad::TooManyFields);
    }
    if size > limits.head_bytes {
        return Err(Bad::TooLarge);
    }
    match authority {
        None | Some(b"") => return Err(Bad::NoHost),
        Some(authority) if !maille_http::host::authority_is_valid(authority) => return Err(Bad::Host),
        Some(_) => {}
    }
    if !path.bytes().all(|b| matches!(b, b'!'..=b'~')) {
        return Err(Bad::Path);
    }
    let tunnel = protocol.is_some() || parts.method == Method::CONNECT;
    Ok(RequestMeta {
        len: 0,
        version: h1::Version::Http11,
        body: if tunnel { BodyLength::Empty } else { length(&head.headers, ended) },
        keep_alive: true,
        upgrade: protocol.is_some(),
        expects_continue: is_continue(&head.headers),
        absolute: false,
        objection: None,
    })
}

fn is_continue(headers: &Headers) -> bool {
    headers.get(HeaderId::Expect).is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

/// The length that a message says its body has; the stream's end is its end in any case.
fn length(headers: &Headers, ended: bool) -> BodyLength {
    let said = headers.get(HeaderId::ContentLength).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    match said {
        _ if ended => BodyLength::Empty,
        Some(n) if n > 0 => BodyLength::Exact(n),
        _ => BodyLength::Chunked,
    }
}

/// The head of a request as it goes out; `None` when it cannot be one.
pub(crate) fn request_to(head: &RequestHead) -> Option<http::Request<()>> {
    let upgrade = head.headers.get(HeaderId::Upgrade);
    let connect = head.method() == b"CONNECT";
    let method = match upgrade {
        Some(_) => Method::CONNECT,
        None => Method::from_bytes(head.method()).ok()?,
    };
    let mut uri = http::uri::Parts::default();
    uri.authority = Some(head.authority().try_into().ok()?);
    if !connect {
        uri.scheme = Some(match head.scheme() {
            Scheme::Http => http::uri::Scheme::HTTP,
            Scheme::Https => http::uri::Scheme::HTTPS,
        });
        let path = if head.path_and_query().is_empty() { b"/" } else { head.path_and_query() };
        uri.path_and_query = Some(path.try_into().ok()?);
    }
    let mut request = http::Request::new(());
    *request.method_mut() = method;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_parts(uri).ok()?;
    if let Some(protocol) = upgrade {
        let protocol = std::str::from_utf8(protocol).ok()?;
        request.extensions_mut().insert(h2::ext::Protocol::from(protocol));
    }
    *request.headers_mut() = fields_to(&head.headers);
    if upgrade.is_some() {
        // Without a body there is none to say; a stream that becomes a tunnel may not have one.
        request.headers_mut().remove(http::header::CONTENT_LENGTH);
    }
    Some(request)
}

/// Takes over the head of a response.
pub(crate) fn response_from(
    parts: &http::response::Parts,
    ended: bool,
    to_head: bool,
    limits: &h1::Limits,
    head: &mut ResponseHead,
) -> Option<ResponseMeta> {
    head.clear();
    head.status = parts.status.as_u16();
    let mut size = 0;
    let mut repeated = false;
    for (name, value) in &parts.headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        size += name.len() + value.len();
        match HeaderId::of(name) {
            HeaderId::Upgrade | HeaderId::Connection | HeaderId::TransferEncoding => {}
            id => {
                repeated |= head.headers.has(id) && id.is_list(false);
                head.headers.push_parsed(name, value);
            }
        }
    }
    if repeated {
        head.headers.fold_lists(false);
    }
    if head.headers.len() > limits.fields || size > limits.head_bytes || head.status == 101 {
        return None;
    }
    let bodiless = ended || to_head || head.status < 200 || matches!(head.status, 204 | 304);
    Some(ResponseMeta { len: 0, version: h1::Version::Http11, body: length(&head.headers, bodiless), keep_alive: true })
}

/// The head of a response as it goes out.
pub(crate) fn response_to(head: &ResponseHead) -> http::Response<()> {
    let mut response = http::Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.version_mut() = Version::HTTP_2;
    *response.headers_mut() = fields_to(&head.headers);
    response
}

/// Takes out of trailers what may not stand there.
pub(crate) fn clean_trailers(mut trailers: HeaderMap) -> HeaderMap {
    for name in [http::header::CONTENT_LENGTH, http::header::HOST, http::header::TE, http::header::TRAILER] {
        trailers.remove(name);
    }
    trailers
}

/// Fields as HTTP/2 has them.
pub(crate) fn fields_to(headers: &Headers) -> HeaderMap {
    let mut text = Vec::with_capacity(headers.wire_len());
    let mut ends = Vec::with_capacity(headers.len());
    for (name, value) in headers.iter() {
        if !is_of_the_connection(HeaderId::of(name)) {
            text.extend_from_slice(value);
            ends.push((HeaderName::from_lowercase(name), text.len()));
        }
    }
    let text = Bytes::from(text);
    let mut out = HeaderMap::with_capacity(ends.len());
    let mut start = 0;
    for (name, end) in ends {
        // Both have been checked where they came in; what a route adds, when it was compiled.
        if let Ok(name) = name
            && let Ok(value) = HeaderValue::from_maybe_shared(text.slice(start..end))
        {
            let _ = out.try_append(name, value);
        }
        start = end;
    }
    out
}

/// Fields as HTTP/1 has them.
pub(crate) fn fields_of(map: &HeaderMap) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in map {
        headers.push_parsed(name.as_str().as_bytes(), value.as_bytes());
    }
    headers
}

/// Whether a field belongs to a connection of HTTP/1.
fn is_of_the_connection(id: HeaderId) -> bool {
    use HeaderId::*;
    matches!(id, Connection | KeepAlive | ProxyConnection | TransferEncoding | Upgrade | Host)
}
