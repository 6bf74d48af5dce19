//! What every request becomes before routes see it: paths in one form, headers that nobody outside may set taken away, and ours set.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use maille_http::h1::{Error, RequestMeta, Version};
use maille_http::path::Outcome;
use maille_http::request::Scheme;
use maille_http::{HeaderId, HeaderIds, RequestHead, host};
use maille_telemetry::flags::ResponseFlags;

use super::client_cert;
use super::http::Client;
use super::record::Record;
use super::reply::Reply;
use super::scratch::Scratch;
use super::text;
use crate::config::{HttpManager, RouteTable, StripPort, Underscores};
use crate::headers::Protocol;

/// Checks and prepares a request; an error is the answer it gets instead of being routed.
pub(crate) fn prepare(
    client: &Client,
    manager: &HttpManager,
    scratch: &mut Scratch,
    meta: &RequestMeta,
    record: &mut Record,
) -> Result<(), Reply> {
    check(client, manager, scratch, meta)?;
    path(manager, scratch)?;
    authority(client, manager, scratch);
    underscores(manager, scratch)?;
    hop_by_hop(scratch);
    let edge = addresses(client, manager, scratch, meta, record);
    request_id(manager, scratch, edge);
    let tls = client.info.tls.as_deref();
    let headers = &mut scratch.request.headers;
    client_cert::forward(manager.forward_client_cert, manager.client_cert_details, tls, headers);
    Ok(())
}

/// Takes away what the route table says that only insiders may send.
pub(crate) fn internal_only(table: &RouteTable, head: &mut RequestHead) {
    if !table.internal_only_headers.is_empty() && !head.headers.has(HeaderId::XEnvoyInternal) {
        for name in &table.internal_only_headers {
            head.headers.remove(name);
        }
    }
}

fn check(client: &Client, manager: &HttpManager, scratch: &mut Scratch, meta: &RequestMeta) -> Result<(), Reply> {
    let malformed = |error: Error| {
        let reply = Reply::new(error.status(), error.details());
        Err(if manager.stream_error_on_invalid_message { reply.keep() } else { reply.close() })
    };
    if let Some(error) = meta.objection {
        return malformed(error);
    }
    if meta.absolute && scratch.request.scheme() == Scheme::Https && client.info.tls.is_none() {
        // What was meant for a protected connection came by an open one.
        let error = Error::HttpsOnPlaintext;
        scratch.request.clear();
        let body = maille_http::response::reason(error.status());
        let reply = Reply::new(error.status(), error.details()).body(body.as_bytes()).close();
        return Err(reply.flags(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR));
    }
    let connect = scratch.request.method() == b"CONNECT";
    if !connect
        && (scratch.request.path_and_query().first() != Some(&b'/')
            || (meta.absolute && !manager.http1.allow_absolute_url))
    {
        return Err(Reply::new(404, "absolute_path_rejected"));
    }
    if scratch.request.headers.get(HeaderId::XForwardedProto) == Some(b"") && !manager.use_remote_address {
        // Envoy knows no scheme then, and no route for it.
        return Err(Reply::new(404, "route_not_found").flags(ResponseFlags::NO_ROUTE_FOUND));
    }
    if !scratch.request.has_authority() && meta.version == Version::Http10 {
        match &manager.http1.default_host_for_http10 {
            Some(host) => scratch.request.set_authority(host.as_bytes()),
            None => return malformed(Error::MissingHost),
        }
    }
    if let Some(scheme) = manager.scheme_overwrite {
        scratch.request.set_scheme(scheme);
    }
    Ok(())
}

fn path(manager: &HttpManager, scratch: &mut Scratch) -> Result<(), Reply> {
    let path = scratch.request.path_and_query();
    if path.is_empty() {
        return Ok(());
    }
    let new = match manager.path.apply(path) {
        Outcome::Continue(std::borrow::Cow::Borrowed(_)) => return Ok(()),
        Outcome::Continue(std::borrow::Cow::Owned(new)) => new,
        Outcome::Redirect(path) => {
            scratch.request.set_path(&path);
            return Err(Reply::new(307, "path_normalization_failed").header(HeaderId::Location, path));
        }
        Outcome::Reject => {
            let reply = Reply::new(400, "path_normalization_failed");
            return Err(if manager.stream_error_on_invalid_message { reply.keep() } else { reply.close() });
        }
    };
    scratch.request.set_path(&new);
    Ok(())
}

fn authority(client: &Client, manager: &HttpManager, scratch: &mut Scratch) {
    if manager.strip_port == StripPort::No && !manager.strip_trailing_host_dot {
        return;
    }
    let (name, port) = host::split_digits(scratch.request.authority());
    let strip = match manager.strip_port {
        StripPort::No => false,
        StripPort::Matching => host::number(port) == Some(client.info.local.port().into()),
        StripPort::Any => host::number(port).is_some(),
    };
    let dot = manager.strip_trailing_host_dot && name.ends_with(b".");
    if strip || dot {
        let mut new = name.strip_suffix(b".").filter(|_| dot).unwrap_or(name).to_vec();
        if !strip && !port.is_empty() {
            new.push(b':');
            new.extend_from_slice(port);
        }
        scratch.request.set_authority(&new);
    }
}

fn underscores(manager: &HttpManager, scratch: &mut Scratch) -> Result<(), Reply> {
    let headers = &mut scratch.request.headers;
    match manager.underscores {
        Underscores::Allow => {}
        Underscores::Drop => headers.retain(|name, _, _| !name.contains(&b'_')),
        Underscores::Reject if headers.iter().any(|(name, _)| name.contains(&b'_')) => {
            scratch.request.clear();
            let reply = Reply::new(400, "http1.unexpected_underscore").body(&b"Bad Request"[..]).close();
            return Err(reply.flags(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR));
        }
        Underscores::Reject => {}
    }
    Ok(())
}

/// Fields that end here. The codec has dealt with Connection and what it names.
fn hop_by_hop(scratch: &mut Scratch) {
    let headers = &mut scratch.request.headers;
    if let Some(te) = headers.get(HeaderId::Te) {
        let trailers = te.split(|&b| b == b',').any(|coding| coding.trim_ascii() == b"trailers");
        headers.remove_id(HeaderId::Te);
        if trailers {
            headers.append_id(HeaderId::Te, b"trailers");
        }
    }
    if headers.has(HeaderId::Referer) {
        let mut values = headers.all(HeaderId::Referer);
        let good = values.next().is_some_and(is_referer) && values.next().is_none();
        drop(values);
        if !good {
            headers.remove_id(HeaderId::Referer);
        }
    }
    headers.remove_id(HeaderId::XEnvoyInternal);
}

/// A URL without fragment and user, or a relative reference without a fragment.
pub(crate) fn is_referer(value: &[u8]) -> bool {
    if value.contains(&b'#') {
        return false;
    }
    match value.windows(3).position(|w| w == b"://") {
        Some(at) => {
            let rest = &value[at + 3..];
            let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
            end > 0 && !rest[..end].contains(&b'@')
        }
        None => {
            let slash = value.iter().position(|&b| b == b'/').unwrap_or(value.len());
            !value[..slash].contains(&b':')
        }
    }
}

/// Finds out who the client is, tells the upstream, and takes away what only insiders may say. Says whether the request enters the mesh here.
fn addresses(
    client: &Client,
    manager: &HttpManager,
    scratch: &mut Scratch,
    meta: &RequestMeta,
    record: &mut Record,
) -> bool {
    let peer = client.info.remote;
    let headers = &mut scratch.request.headers;
    let own_scheme: &[u8] = if client.info.tls.is_some() { b"https" } else { b"http" };
    let (trusted, may_be_internal) = trusted_client(manager, headers, peer.ip());
    if manager.use_remote_address {
        if !manager.skip_xff_append {
            // A client on this machine goes by the machine's address, which means something to the next. Envoy knows no loopback address but these two.
            let local = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)].contains(&peer.ip());
            let address = if local { maille_net::own_address() } else { peer.ip() };
            append_forwarded_for(headers, address, &mut scratch.text);
        }
        if manager.xff_trusted_hops == 0 || !headers.has(HeaderId::XForwardedProto) {
            headers.set_id(HeaderId::XForwardedProto, own_scheme);
        }
        if manager.append_forwarded_port && (manager.xff_trusted_hops == 0 || !headers.has(HeaderId::XForwardedPort)) {
            forwarded_port(client, headers);
        }
    } else {
        if !headers.has(HeaderId::XForwardedProto) {
            headers.append_id(HeaderId::XForwardedProto, own_scheme);
        }
    }
    if manager.append_forwarded_port && !headers.has(HeaderId::XForwardedPort) {
        forwarded_port(client, headers);
    }
    if let Some(scheme) = manager.scheme_overwrite {
        headers.set_id(HeaderId::XForwardedProto, scheme.as_str().as_bytes());
    } else if !meta.absolute && client.protocol() != Protocol::Http2 {
        // Whoever names no scheme has the one that its connection had where it came in.
        let https = match headers.get(HeaderId::XForwardedProto) {
            Some(said) if said.eq_ignore_ascii_case(b"https") => true,
            Some(said) if said.eq_ignore_ascii_case(b"http") => false,
            _ => client.info.tls.is_some(),
        };
        scratch.request.set_scheme(if https { Scheme::Https } else { Scheme::Http });
    }
    let headers = &mut scratch.request.headers;
    let internal = may_be_internal
        && trusted.is_some_and(|address| manager.internal_addresses.iter().any(|range| range.contains(address)));
    let edge = !internal && manager.use_remote_address;
    if let Some(address) = trusted.filter(|address| *address != peer.ip()) {
        record.remote = (address, 0).into();
    }
    if internal {
        headers.set_id(HeaderId::XEnvoyInternal, b"true");
    } else {
        sanitize(headers, edge);
    }
    if let Some(via) = &manager.via {
        append_via(headers, via);
    }
    if let Some(address) = trusted.filter(|_| edge) {
        scratch.text.clear();
        text::push_address(&mut scratch.text, address);
        headers.set_id(HeaderId::XEnvoyExternalAddress, &scratch.text);
    }
    edge
}

/// Takes away what only the mesh itself may set.
fn sanitize(headers: &mut maille_http::Headers, edge: bool) {
    use HeaderId::*;
    const EDGE: HeaderIds = HeaderIds::of(&[
        XEnvoyDecoratorOperation,
        XEnvoyDownstreamServiceCluster,
        XEnvoyDownstreamServiceNode,
        XEnvoyOriginalPath,
        XEnvoyOriginalHost,
    ]);
    const ALWAYS: HeaderIds = HeaderIds::of(&[
        XEnvoyRetriableStatusCodes,
        XEnvoyRetriableHeaderNames,
        XEnvoyRetryOn,
        XEnvoyRetryGrpcOn,
        XEnvoyMaxRetries,
        XEnvoyUpstreamAltStatName,
        XEnvoyUpstreamRqTimeoutMs,
        XEnvoyUpstreamRqPerTryTimeoutMs,
        XEnvoyUpstreamRqTimeoutAltResponse,
        XEnvoyUpstreamStreamDurationMs,
        XEnvoyExpectedRqTimeoutMs,
        XEnvoyForceTrace,
        XEnvoyIpTags,
        XEnvoyOriginalUrl,
        XEnvoyHedgeOnPerTryTimeout,
    ]);
    if edge {
        headers.remove_all(EDGE);
    }
    headers.remove_all(ALWAYS);
}

/// The client's address as far as forwarding headers are believed, and whether they leave open that it is one of our own. Without
/// an address nobody says who the client is but the connection.
pub(crate) fn trusted_client(
    manager: &HttpManager,
    headers: &maille_http::Headers,
    peer: IpAddr,
) -> (Option<IpAddr>, bool) {
    if !manager.use_remote_address {
        return match forwarded_address(headers, manager.xff_trusted_hops) {
            Some((address, only)) => (Some(address), only),
            None => (None, false),
        };
    }
    let hops = manager.xff_trusted_hops.checked_sub(1);
    let told = hops.and_then(|skip| forwarded_address(headers, skip)).map(|(address, _)| address);
    (told.or(Some(peer)), !headers.has(HeaderId::XForwardedFor))
}

/// The address that the proxy `skip` hops before us saw, and whether it is the only one.
pub(crate) fn forwarded_address(headers: &maille_http::Headers, skip: u32) -> Option<(IpAddr, bool)> {
    let all = headers.joined(&HeaderId::XForwardedFor.into())?;
    let mut addresses = all.rsplit(|&b| b == b',');
    let last = addresses.nth(skip as usize)?.trim_ascii();
    let address = std::str::from_utf8(last).ok()?.parse().ok()?;
    Some((address, skip == 0 && addresses.next().is_none()))
}

fn forwarded_port(client: &Client, headers: &mut maille_http::Headers) {
    headers.set_id(HeaderId::XForwardedPort, text::decimal(client.info.local.port().into(), &mut [0; 20]));
}

/// Adds ourselves to the list of those who passed a message on.
pub(crate) fn append_via(headers: &mut maille_http::Headers, via: &str) {
    headers.fold(HeaderId::Via);
    let all = match headers.get(HeaderId::Via) {
        Some(others) if !others.is_empty() => [others, b", ", via.as_bytes()].concat(),
        _ => via.as_bytes().to_vec(),
    };
    headers.set_id(HeaderId::Via, &all);
}

pub(crate) fn append_forwarded_for(headers: &mut maille_http::Headers, address: IpAddr, all: &mut Vec<u8>) {
    all.clear();
    for value in headers.all(HeaderId::XForwardedFor).filter(|value| !value.is_empty()) {
        all.extend_from_slice(value);
        all.push(b',');
    }
    text::push_address(all, address);
    headers.set_id(HeaderId::XForwardedFor, all);
}

fn request_id(manager: &HttpManager, scratch: &mut Scratch, edge: bool) {
    let headers = &mut scratch.request.headers;
    let replace = edge && !manager.request_id.preserve_external;
    if !manager.request_id.generate || (headers.has(HeaderId::XRequestId) && !replace) {
        return;
    }
    headers.set_id(HeaderId::XRequestId, &uuid4());
}

/// A random UUID.
fn uuid4() -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // Version 4, variant 1.
    let bits = fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    // Where the two digits of each byte stand.
    const AT: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let mut out = [b'-'; 36];
    for (byte, at) in bits.to_be_bytes().into_iter().zip(AT) {
        out[at] = DIGITS[usize::from(byte >> 4)];
        out[at + 1] = DIGITS[usize::from(byte & 15)];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_one() {
        let id = uuid4();
        let text = std::str::from_utf8(&id).unwrap();
        assert_eq!(text.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(id[14], b'4');
        assert!(matches!(id[19], b'8' | b'9' | b'a' | b'b'));
        assert_ne!(id, uuid4());
    }

    #[test]
    fn referers() {
        for (value, good) in [
            ("http://a.example/b?c", true),
            ("/a/b", true),
            ("a:b", false),
            ("http://a/#b", false),
            ("http://u@a/", false),
            ("http://", false),
            ("/a:b", true),
        ] {
            assert_eq!(is_referer(value.as_bytes()), good, "{value}");
        }
    }
}
