//! Heads of requests and responses: framing has one reading, cuts change nothing, and what is written is what was read.

use maille_http::h1::{
    BodyLength, Error, Limits, RequestMeta, Version, parse_request, parse_response, request_framing, response_framing,
};
use maille_http::{HeaderId, Headers, RequestHead, ResponseHead};

use super::{Answer, ensure};

/// What heads are made of.
pub(super) const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b": ",
    b":",
    b" ",
    b"\t",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\xe9",
    b"\r\n\r\n",
    b"\r\n ",
    b",",
    b";",
    b"#",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding",
    b"chunked",
    b"gzip, ",
    b"Content-Length: 5\r\n",
    b"Content-Length",
    b"Host: x\r\n",
    b"Host",
    b"Connection: ",
    b"close",
    b"keep-alive",
    b"Upgrade: websocket\r\n",
    b"upgrade",
    b"h2c",
    b"TE: trailers\r\n",
    b"Expect: 100-continue\r\n",
    b"Cookie: a=b\r\n",
    b"X-Forwarded-For: 1.1.1.1\r\n",
    b"Proxy-Connection: close\r\n",
    b"Keep-Alive: 5\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"CONNECT ",
    b"OPTIONS * ",
    b"PRI ",
    b"http://",
    b"https://u:p@",
    b"//",
    b"/../",
    b"%2f",
    b"?q",
    b"[::1]:80",
    b":443",
    b"x-a: b\r\n",
    b" 200 OK",
    b" 204",
    b" 304 ",
    b" 101 ",
    b" 999 ",
];

const EVERYTHING: Limits = Limits { http10: true, chunked_length: true, keep_case: true, ..Limits::ENVOYS };
const NARROW: Limits = Limits { head_bytes: 96, fields: 4, ..Limits::ENVOYS };

/// Whether they are there makes another kind of head.
const SEEN: [HeaderId; 6] =
    [HeaderId::ContentLength, HeaderId::Upgrade, HeaderId::Te, HeaderId::Expect, HeaderId::Cookie, HeaderId::Host];

/// A head that was read, as plain values.
#[derive(Clone, Debug, PartialEq)]
struct Read {
    first_line: [Vec<u8>; 3],
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    body: BodyLength,
}

/// Reads a request in every mode.
pub(super) fn request(input: &[u8]) -> Answer {
    let mut kind = String::new();
    for limits in [Limits::ENVOYS, EVERYTHING, NARROW] {
        let parse = |raw: &[u8]| {
            let mut head = RequestHead::new();
            parse_request(raw, &limits, &mut head).map(|meta| meta.map(|meta| (meta, read_request(&head, &meta), head)))
        };
        let whole = parse(input);
        every_cut(input, |raw| parse(raw).map(|got| got.map(|(meta, read, _)| (meta, read))), |(meta, _)| meta.len)?;
        match whole {
            Ok(Some((meta, read, head))) => {
                framing(&input[..meta.len], &read, meta.body, &limits)?;
                // Like Envoy's, the codec leaves `http://x?q` a path of `?q`; it is for the path rules to put the slash there.
                if meta.objection.is_none() && !read.first_line[2].starts_with(b"?") {
                    written_request(&meta, &read, &head)?;
                }
                let fields = read.fields.len();
                kind += &format!(
                    "{:?} {} {} {} {:?} {fields};",
                    meta.body == BodyLength::Chunked,
                    meta.keep_alive,
                    meta.upgrade,
                    meta.absolute,
                    meta.objection
                );
                kind += &ids(&head.headers);
            }
            Ok(None) => kind += "more;",
            Err(error) => kind += &format!("{error:?};"),
        }
    }
    Ok(kind)
}

/// Reads a response, to HEAD and to others.
pub(super) fn response(input: &[u8]) -> Answer {
    let mut kind = String::new();
    for (limits, to_head) in [(Limits::ENVOYS, false), (Limits::ENVOYS, true), (EVERYTHING, false), (NARROW, false)] {
        let parse = |raw: &[u8]| {
            let mut head = ResponseHead::default();
            parse_response(raw, &limits, to_head, &mut head).map(|meta| meta.map(|meta| (meta, head)))
        };
        let read = |head: &ResponseHead, body| Read {
            first_line: [head.status.to_string().into_bytes(), Vec::new(), Vec::new()],
            fields: fields(&head.headers),
            body,
        };
        let plain = |raw: &[u8]| parse(raw).map(|got| got.map(|(meta, head)| (meta, read(&head, meta.body))));
        every_cut(input, plain, |(meta, _)| meta.len)?;
        match parse(input) {
            Ok(Some((meta, head))) => {
                let before = read(&head, meta.body);
                if !to_head && head.status >= 200 && !matches!(head.status, 204 | 304) {
                    framing(&input[..meta.len], &before, meta.body, &limits)?;
                }
                let mut out = Vec::new();
                head.write(&mut out);
                let body = if meta.body == BodyLength::UntilClose { BodyLength::Chunked } else { meta.body };
                let has_length = head.headers.has(HeaderId::ContentLength);
                response_framing(&mut out, head.status, to_head, body, has_length, !meta.keep_alive);
                let again = parse_with(&out, to_head)?;
                let mut want = Read { body, ..before };
                let mut got = read(&again, again_body(&out, to_head)?);
                // What is said of the connection ends with it, and a length of nothing may be added.
                for read in [&mut want, &mut got] {
                    read.fields.retain(|(name, value)| {
                        name != b"upgrade"
                            && name != b"connection"
                            && (name != b"content-length" || value.iter().any(|b| *b != b'0'))
                    });
                }
                ensure(want == got, || format!("read {want:?}, written and read again {got:?}"))?;
                kind += &format!("{} {:?} {};", head.status / 100, meta.body == BodyLength::Empty, meta.keep_alive);
                kind += &ids(&head.headers);
            }
            Ok(None) => kind += "more;",
            Err(error) => kind += &format!("{error:?};"),
        }
    }
    Ok(kind)
}

fn parse_with(out: &[u8], to_head: bool) -> Result<ResponseHead, String> {
    let mut head = ResponseHead::default();
    match parse_response(out, &EVERYTHING, to_head, &mut head) {
        Ok(Some(meta)) if meta.len == out.len() => Ok(head),
        other => Err(format!("what we write is not read whole: {other:?} of \"{}\"", out.escape_ascii())),
    }
}

fn again_body(out: &[u8], to_head: bool) -> Result<BodyLength, String> {
    let meta = parse_response(out, &EVERYTHING, to_head, &mut ResponseHead::default());
    meta.ok().flatten().map(|meta| meta.body).ok_or_else(|| "read once but not twice".to_owned())
}

/// Every start of an input is answered with "more", or as the whole is; what follows a head changes nothing.
fn every_cut<T: PartialEq + std::fmt::Debug>(
    input: &[u8],
    parse: impl Fn(&[u8]) -> Result<Option<T>, Error>,
    len: impl Fn(&T) -> usize,
) -> Result<(), String> {
    let whole = parse(input);
    let end = match &whole {
        Ok(Some(got)) => len(got),
        _ => input.len(),
    };
    ensure(end <= input.len(), || format!("a head of {end} bytes out of {}", input.len()))?;
    // Everywhere near the end, and here and there before it, elsewhere for inputs of another length.
    let step = 1 + input.len() / 24;
    for cut in (0..=input.len()).filter(|cut| (cut + end) % step == 0 || cut.abs_diff(end) < 3) {
        let got = parse(&input[..cut]);
        let fine = match (&got, &whole) {
            (Ok(None), Ok(Some(_))) => cut < end,
            (Ok(None), _) => true,
            (Ok(Some(_)), _) => cut >= end && got == whole,
            (Err(_), Err(_)) => true,
            (Err(_), Ok(_)) => false,
        };
        ensure(fine, || format!("the first {cut} bytes give {got:?}, all give {whole:?}"))?;
    }
    Ok(())
}

/// Reads the framing of an accepted head once more, line by line and naively: who does so must come to the same end.
fn framing(raw: &[u8], read: &Read, body: BodyLength, limits: &Limits) -> Result<(), String> {
    let text = raw.strip_suffix(b"\r\n").ok_or("a head without an end")?;
    let mut lines = Vec::new();
    for line in text.split_inclusive(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r\n").ok_or("a line that ends with LF alone, or not at all")?;
        ensure(!line.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)), || "a line with CR, LF or NUL in it".into())?;
        lines.push(line);
    }
    let values = |wanted: &str| -> Vec<Vec<u8>> {
        let pairs = lines.iter().filter_map(|line| {
            let colon = line.iter().position(|&b| b == b':')?;
            Some((line[..colon].trim_ascii().to_ascii_lowercase(), line[colon + 1..].trim_ascii().to_ascii_lowercase()))
        });
        pairs.filter(|(name, _)| name == wanted.as_bytes()).map(|(_, value)| value).collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    let fine = match body {
        BodyLength::Chunked => codings == [b"chunked"] && (lengths.is_empty() || limits.chunked_length),
        BodyLength::Exact(n) => {
            codings.is_empty() && lengths.len() == 1 && String::from_utf8_lossy(&lengths[0]).parse() == Ok(n)
        }
        BodyLength::Empty => codings.is_empty() && lengths.iter().all(|length| length.iter().all(|b| *b == b'0')),
        BodyLength::UntilClose => codings.is_empty() && lengths.is_empty(),
    };
    ensure(fine, || format!("read as {body:?}, but says {lengths:?} and {codings:?}"))?;
    // An upgrade goes on as it was spelled, and nothing beside it.
    let framing = |(name, value): &&(Vec<u8>, Vec<u8>)| match &name[..] {
        b"transfer-encoding" | b"keep-alive" => true,
        b"connection" => !value.eq_ignore_ascii_case(b"upgrade"),
        _ => false,
    };
    match read.fields.iter().find(framing) {
        Some(field) => Err(format!("{field:?} is sent on")),
        None => Ok(()),
    }
}

fn written_request(meta: &RequestMeta, read: &Read, head: &RequestHead) -> Result<(), String> {
    let mut out = Vec::new();
    head.write(&mut out);
    request_framing(&mut out, head.method(), meta.body, head.headers.has(HeaderId::ContentLength));
    let mut again = RequestHead::new();
    let limits = Limits { head_bytes: 1 << 20, fields: Limits::MAX_FIELDS, ..Limits::ENVOYS };
    let got = match parse_request(&out, &limits, &mut again) {
        Ok(Some(got)) if got.len == out.len() && got.objection.is_none() && got.version == Version::Http11 => got,
        other => return Err(format!("what we write is not read whole: {other:?} of \"{}\"", out.escape_ascii())),
    };
    let (mut want, mut now) = (read.clone(), read_request(&again, &got));
    for read in [&mut want, &mut now] {
        read.fields.retain(|(name, value)| name != b"content-length" || value.iter().any(|b| *b != b'0'));
    }
    ensure(want == now, || format!("read {want:?}, written and read again {now:?}"))?;
    ensure(meta.upgrade == got.upgrade && got.keep_alive, || "written, it is another kind of request".into())
}

fn read_request(head: &RequestHead, meta: &RequestMeta) -> Read {
    Read {
        first_line: [head.method().into(), head.authority().into(), head.path_and_query().into()],
        fields: fields(&head.headers),
        body: meta.body,
    }
}

fn fields(headers: &Headers) -> Vec<(Vec<u8>, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn ids(headers: &Headers) -> String {
    SEEN.iter().filter(|id| headers.has(**id)).map(|id| format!("{id:?} ")).collect()
}

/// What a connection begins with: once that can be told, more bytes change nothing, and whoever reads the request agrees.
pub(super) fn inspector(input: &[u8]) -> Answer {
    use maille_proxy::fuzzing::http_inspector;
    let whole = http_inspector(input);
    for cut in (0..=input.len()).step_by(1 + input.len() / 128) {
        let got = http_inspector(&input[..cut]);
        ensure(got.is_none() || got == whole, || format!("the first {cut} bytes are {got:?}, all are {whole:?}"))?;
    }
    let mut head = RequestHead::new();
    let limits = Limits { http10: true, ..Limits::ENVOYS };
    // Of empty lines before it the inspector takes fewer.
    if input.first().is_some_and(u8::is_ascii_alphabetic)
        && let Ok(Some(_)) = parse_request(input, &limits, &mut head)
    {
        ensure(whole != Some(""), || "a request, but not for the inspector".to_owned())?;
    }
    Ok(format!("{whole:?}"))
}
