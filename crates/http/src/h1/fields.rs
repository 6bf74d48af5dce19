//! The fields of a head, requests' and responses' alike: tokens, then the framing rules.

use super::{Error, Limits};
use crate::headers::Headers;
use crate::name::HeaderId;

/// What the fields said about framing and the connection.
#[derive(Default)]
pub(super) struct Framing {
    pub(super) content_length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
}

/// Most heads have no more fields than this. Room for more costs more than reading such a head does.
const FEW: usize = 24;

/// Reads fields from `buf` up to and with the empty line. Framing fields are taken out; the rest goes to `headers`; `host` gets the Host fields.
/// `None` when the end has not come yet.
pub(super) fn parse(
    buf: &[u8],
    limits: &Limits,
    headers: &mut Headers,
    of_request: bool,
    host: impl FnMut(&mut Headers, &[u8]) -> Result<(), Error>,
) -> Result<Option<(usize, Framing)>, Error> {
    let mut space = [httparse::EMPTY_HEADER; FEW];
    let room = space.get_mut(..limits.fields.min(FEW)).unwrap_or_default();
    match httparse::parse_headers(buf, room) {
        Err(httparse::Error::TooManyHeaders) if limits.fields > FEW => {
            parse_many(buf, limits, headers, of_request, host)
        }
        tokens => read(buf, tokens, limits, headers, of_request, host),
    }
}

/// The same for heads with more fields.
#[cold]
#[inline(never)]
fn parse_many(
    buf: &[u8],
    limits: &Limits,
    headers: &mut Headers,
    of_request: bool,
    host: impl FnMut(&mut Headers, &[u8]) -> Result<(), Error>,
) -> Result<Option<(usize, Framing)>, Error> {
    let mut space = [httparse::EMPTY_HEADER; Limits::MAX_FIELDS];
    let room = space.get_mut(..limits.fields.min(Limits::MAX_FIELDS)).unwrap_or_default();
    read(buf, httparse::parse_headers(buf, room), limits, headers, of_request, host)
}

/// What httparse finds: bytes of the fields with the empty line, and the fields.
type Tokens<'b, 'h> = httparse::Result<(usize, &'h [httparse::Header<'b>])>;

fn read(
    buf: &[u8],
    tokens: Tokens<'_, '_>,
    limits: &Limits,
    headers: &mut Headers,
    of_request: bool,
    mut host: impl FnMut(&mut Headers, &[u8]) -> Result<(), Error>,
) -> Result<Option<(usize, Framing)>, Error> {
    let (len, fields) = match tokens {
        Ok(httparse::Status::Complete(done)) => done,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Error::TooManyFields),
        Err(_) => return Err(Error::Syntax),
    };
    check_line_ends(buf.get(..len).unwrap_or_default(), fields)?;

    let mut framing = Framing::default();
    let mut transfer_encodings = 0;
    let mut connection = 0;
    let mut repeated = false;
    for field in fields {
        if limits.keep_case {
            headers.remember_spelling(field.name.as_bytes());
        }
        let begun = headers.begin(field.name.as_bytes());
        match begun.id {
            HeaderId::Host => {
                headers.abandon(begun);
                host(headers, field.value)?;
            }
            HeaderId::ContentLength => {
                if framing.content_length.replace(content_length(field.value)?).is_some() {
                    return Err(Error::ContentLength);
                }
                headers.finish(begun, field.value);
            }
            HeaderId::TransferEncoding => {
                headers.abandon(begun);
                transfer_encodings += 1;
                framing.chunked = field.value.eq_ignore_ascii_case(b"chunked");
            }
            HeaderId::Connection => {
                headers.abandon(begun);
                connection += 1;
            }
            HeaderId::KeepAlive => headers.abandon(begun),
            HeaderId::ProxyConnection => {
                headers.abandon(begun);
                let mut options = field.value.split(|&b| b == b',').map(<[u8]>::trim_ascii);
                framing.close |= options.any(|option| option.eq_ignore_ascii_case(b"close"));
            }
            HeaderId::Other => headers.finish(begun, field.value),
            id => {
                repeated |= headers.has(id) && id.is_list(of_request);
                headers.finish(begun, field.value);
            }
        }
    }
    if repeated {
        // What Envoy keeps as one is one for whoever is behind us as well.
        headers.fold_lists(of_request);
    }
    if transfer_encodings > 0 && framing.content_length.is_some() {
        if !limits.chunked_length {
            return Err(Error::ContentLengthAndTransferEncoding);
        }
        // Whoever sent this may have meant the length: nothing that follows is taken for a message.
        headers.remove_id(HeaderId::ContentLength);
        framing.content_length = None;
        framing.close = true;
    }
    if transfer_encodings > 1 || (transfer_encodings == 1 && !framing.chunked) {
        return Err(Error::TransferEncoding);
    }
    if connection > 0 {
        connection_options(fields, headers, &mut framing)?;
    }
    if headers.has(HeaderId::Upgrade) && !framing.upgrade {
        headers.remove_id(HeaderId::Upgrade);
    }
    Ok(Some((len, framing)))
}

/// httparse takes a bare LF for a line end; we do not, since others read on.
pub(super) fn check_line_ends(head: &[u8], fields: &[httparse::Header<'_>]) -> Result<(), Error> {
    let mut at = 0;
    for field in fields {
        // An empty value may be a slice of anywhere; from the name on, the line is scanned as it stands.
        let from = at + field.name.len() + 1 + leading_space(head, at + field.name.len() + 1) + field.value.len();
        at = from + leading_space(head, from);
        if head.get(at..at + 2) != Some(b"\r\n") {
            return Err(Error::Syntax);
        }
        at += 2;
    }
    match head.get(at..) {
        Some(b"\r\n") => Ok(()),
        _ => Err(Error::Syntax),
    }
}

fn leading_space(head: &[u8], from: usize) -> usize {
    head.get(from..).unwrap_or_default().iter().take_while(|b| matches!(b, b' ' | b'\t')).count()
}

/// Digits only, and few enough that no reader overflows.
fn content_length(value: &[u8]) -> Result<u64, Error> {
    if value.is_empty() || value.len() > 18 {
        return Err(Error::ContentLength);
    }
    value.iter().try_fold(0u64, |n, b| match b {
        b'0'..=b'9' => Ok(n * 10 + u64::from(b - b'0')),
        _ => Err(Error::ContentLength),
    })
}

/// Obeys Connection: options for us, and names of fields that end here. Nobody may name away what the next hop relies on.
fn connection_options(
    fields: &[httparse::Header<'_>],
    headers: &mut Headers,
    framing: &mut Framing,
) -> Result<(), Error> {
    const MAX_OPTIONS: usize = 10;
    let mut count = 0;
    let mut upgrade = None;
    let values = fields.iter().filter(|f| f.name.eq_ignore_ascii_case("connection")).map(|f| f.value);
    for option in values.flat_map(|v| v.split(|&b| b == b',')).map(<[u8]>::trim_ascii).filter(|o| !o.is_empty()) {
        count += 1;
        if count >= MAX_OPTIONS {
            return Err(Error::Connection);
        }
        match option {
            o if o.eq_ignore_ascii_case(b"close") => framing.close = true,
            o if o.eq_ignore_ascii_case(b"keep-alive") => framing.keep_alive = true,
            o if o.eq_ignore_ascii_case(b"upgrade") => upgrade = Some(o),
            o => {
                let name = o.to_ascii_lowercase();
                match HeaderId::of(&name) {
                    // TE says of itself that it belongs to the connection; it is cleaned of all but `trailers` where requests are prepared.
                    HeaderId::Connection | HeaderId::Te => {}
                    HeaderId::XForwardedFor
                    | HeaderId::XForwardedHost
                    | HeaderId::XForwardedProto
                    | HeaderId::Host
                    | HeaderId::ContentLength
                    | HeaderId::TransferEncoding
                    | HeaderId::Authorization
                    | HeaderId::Cookie => return Err(Error::Connection),
                    _ if name.first() == Some(&b':') => return Err(Error::Connection),
                    _ => headers.retain(|field, _, _| field != name),
                }
            }
        }
    }
    if let Some(spelled) = upgrade
        && headers.has(HeaderId::Upgrade)
    {
        // Both go on together, or neither does. There are readers who look at the spelling.
        framing.upgrade = true;
        headers.push_parsed(b"connection", spelled);
    }
    Ok(())
}
