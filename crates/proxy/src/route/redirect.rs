//! Where a redirect sends the client.

use maille_http::{HeaderId, RequestHead};

use crate::config::{PathRewrite, Redirect, Route};
use crate::route::rewrite::rewrite_path;

impl Redirect {
    /// The `location`, built as Envoy builds it.
    pub fn location(&self, route: &Route, head: &RequestHead) -> Vec<u8> {
        let scheme = self.scheme.as_deref().unwrap_or(head.scheme().as_str());
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let host = match &self.host {
            Some(host) => host.as_bytes(),
            None => own_host(head, scheme, !port.is_empty()),
        };
        let mut out = format!("{scheme}://").into_bytes();
        out.extend_from_slice(host);
        out.extend_from_slice(port.as_bytes());
        let path = self.path(route, head);
        if !path.starts_with(b"/") {
            out.push(b'/');
        }
        out.extend_from_slice(&path);
        out
    }

    fn path(&self, route: &Route, head: &RequestHead) -> Vec<u8> {
        let mut path = match &self.path {
            PathRewrite::None => head.path_and_query().to_vec(),
            // A query that the redirect itself has wins, and is never stripped.
            PathRewrite::Full(text) if text.contains(&b'?') => return text.to_vec(),
            PathRewrite::Full(text) => {
                let query = head.path_and_query().iter().position(|&b| b == b'?');
                let query = query.map_or(&b""[..], |at| &head.path_and_query()[at..]);
                [text, query].concat()
            }
            rewrite => {
                let mut head = head.clone();
                rewrite_path(rewrite, &route.matcher.path, &mut head, false);
                head.path_and_query().to_vec()
            }
        };
        if self.strip_query
            && let Some(at) = path.iter().position(|&b| b == b'?')
        {
            path.truncate(at);
        }
        path
    }
}

/// The request's own authority; its port goes when another one is set, or when it is the default one of a scheme that changes.
fn own_host<'a>(head: &'a RequestHead, scheme: &str, new_port: bool) -> &'a [u8] {
    let authority = head.authority();
    let at = if authority.first() == Some(&b'[') {
        authority.windows(2).rposition(|pair| pair == b"]:").map(|at| at + 1)
    } else {
        authority.iter().rposition(|&b| b == b':')
    };
    let Some(at) = at else { return authority };
    let came_by = head.headers.get(HeaderId::XForwardedProto).unwrap_or_default();
    let default_port = match came_by {
        b"https" => &b":443"[..],
        b"http" => b":80",
        _ => b"",
    };
    let elided = scheme.as_bytes() != came_by && &authority[at..] == default_port;
    if new_port || elided { &authority[..at] } else { authority }
}

/// Where a client is sent that must come by TLS.
pub fn tls_redirect(head: &RequestHead) -> Vec<u8> {
    [b"https://", head.authority(), head.path_and_query()].concat()
}
