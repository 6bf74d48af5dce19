//! What every response becomes on its way to the client, whoever made it.

use maille_http::{HeaderId, Headers, h1};

use super::http::Client;
use super::overload::Level;
use super::request::append_via;
use super::scratch::Scratch;
use crate::config::{HeaderCase, HttpManager, ServerHeader};

/// Sets the headers that the connection manager is responsible for.
pub(crate) fn finish_headers(client: &Client, manager: &HttpManager, scratch: &mut Scratch) {
    let headers = &mut scratch.response.headers;
    if !headers.has(HeaderId::Date) {
        client.worker.clock.with_date(|date| headers.append_id(HeaderId::Date, date));
    }
    let ours = match manager.server_header {
        ServerHeader::Overwrite => true,
        ServerHeader::AppendIfAbsent => !headers.has(HeaderId::Server),
        ServerHeader::PassThrough => false,
    };
    if ours {
        headers.set_id(HeaderId::Server, manager.server_name.as_bytes());
    }
    if let Some(via) = &manager.via {
        append_via(headers, via);
    }
    if manager.request_id.in_response
        && let Some(id) = scratch.request.headers.get(HeaderId::XRequestId)
    {
        headers.set_id(HeaderId::XRequestId, id);
    }
}

/// Whether the connection ends with this response, as far as we have a say.
pub(crate) fn must_close(client: &Client, manager: &HttpManager) -> bool {
    if client.worker.overload.level() > Level::Fine {
        client.metrics.downstream_cx_overload_disable_keepalive().inc();
        return true;
    }
    client.worker.is_draining(client.info.listener.direction)
        || client.registered.slot.is_outdated()
        || manager.timeouts.max_connection_duration.is_some_and(|life| {
            client.worker.clock.seconds() >= client.born.saturating_add(super::http::seconds(Some(life)))
        })
        || manager.max_requests_per_connection.is_some_and(|most| client.requests >= most)
}

/// Spells the names of a written head as the client is to see them; `as_read` is the upstream's head, if it is its.
pub(crate) fn header_case(manager: &HttpManager, head: &mut [u8], as_read: Option<&Headers>) {
    if manager.http1.header_case == HeaderCase::Proper {
        h1::proper_case(head);
    }
    if let Some(as_read) = as_read {
        h1::original_case(head, as_read);
    }
}
