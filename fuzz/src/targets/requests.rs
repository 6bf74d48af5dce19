//! What the worker reads out of a request beside its framing: who was before us, who the client is, how long it waits, its cookies and tokens.

use maille_http::{HeaderId, Headers, Name, RequestHead, ResponseHead};
use maille_proxy::config::{AuthzHttp, StringMatcher};
use maille_proxy::fuzzing;
use maille_proxy::policy::ext_authz::{Answer as Said, Verdict};

use super::{Answer, ensure};

/// What is said about clients and addresses.
pub(super) const CLIENT_WORDS: &[&[u8]] = &[
    b"\n",
    b",",
    b";",
    b"=",
    b"\"",
    b"\\",
    b"\\\"",
    b"By=",
    b"Hash=",
    b"URI=",
    b"DNS=",
    b"Subject=",
    b"spiffe://a/b",
    b"10.0.0.1",
    b"::1",
    b", ",
    b"CN=a,O=b",
    b"\r",
    b"\0",
    b"\xff",
];

/// What cookies, parameters, times and tokens are made of.
pub(super) const VALUE_WORDS: &[&[u8]] = &[
    b"\n",
    b"a=",
    b"b=",
    b"; ",
    b";",
    b"\"",
    b"=",
    b"&",
    b"?",
    b"%61",
    b"%",
    b"+",
    b"1S",
    b"99999999m",
    b"100000000n",
    b"0u",
    b"H",
    b"Bearer ",
    b"bearer ",
    b"token=",
    b"://",
    b"#",
    b"@",
    b"/",
];

/// What authorizers' answers are made of.
pub(super) const AUTHZ_WORDS: &[&[u8]] = &[
    b"\x0a\x02\x08\0",
    b"\x0a\x02\x08\x07",
    b"\x1a",
    b"\x12",
    b"\x0a",
    b"\x0a\x05x-abc",
    b"\x12\x01b",
    b"content-length",
    b"host",
    b":path",
    b"transfer-encoding",
    b"\r\n",
    b"\0",
    b"\x08\xc8\x01",
    b"\xff\xff\xff\xff\x0f",
];

/// The first byte says which hop is meant, the lines are `x-forwarded-for`: the address is the one that stands there.
pub(super) fn forwarded(input: &[u8]) -> Answer {
    let Some((hops, text)) = input.split_first() else { return Ok("nothing".into()) };
    let hops = u32::from(hops % 4);
    // What stands in a header has no line break.
    let text: Vec<u8> = text.iter().map(|&b| if matches!(b, b'\r' | 0) { b' ' } else { b }).collect();
    let lines: Vec<&[u8]> = text.split(|&b| b == b'\n').collect();
    let got = fuzzing::forwarded_address(&lines, hops);
    if let Some((address, only)) = got {
        let all = lines.join(&b","[..]);
        let parts: Vec<&[u8]> = all.split(|&b| b == b',').map(<[u8]>::trim_ascii).collect();
        let at = parts.len().checked_sub(1 + hops as usize).ok_or("a hop that is not there")?;
        let read = std::str::from_utf8(parts[at]).ok().and_then(|text| text.parse().ok());
        ensure(read == Some(address), || format!("{address}, but {:?} stands there", parts[at].escape_ascii()))?;
        ensure(only == (parts.len() == 1), || format!("the only one: {only}, of {}", parts.len()))?;
    }
    Ok(format!("{:?} {hops}", got.map(|(address, only)| (address.is_ipv4(), only))))
}

/// Four lines: a name, a URI and a subject of a certificate, and what the client says of others before it. Whoever reads the header finds one more entry
/// than the client's, with each of ours once.
pub(super) fn client_cert(input: &[u8]) -> Answer {
    let mut lines = input.splitn(4, |&b| b == b'\n').map(|line| String::from_utf8_lossy(line).into_owned());
    let mut next = || lines.next().unwrap_or_default();
    let (dns, uri, subject, said) = (next(), next(), next(), next());
    let own = fuzzing::client_cert(&dns, &uri, &subject, None).ok_or("no header")?;
    let entries = entries(&own);
    let [entry] = entries.as_slice() else {
        return Err(format!("{} entries in {}", entries.len(), own.escape_ascii()));
    };
    let keys: Vec<&[u8]> = entry.iter().map(|(key, _)| key.as_slice()).collect();
    ensure(keys == [&b"Hash"[..], b"Subject", b"URI", b"DNS"], || format!("keys of {}", own.escape_ascii()))?;
    ensure(own.iter().all(|b| !matches!(b, b'\r' | b'\n' | 0)), || format!("a line break in {}", own.escape_ascii()))?;
    let both = fuzzing::client_cert(&dns, &uri, &subject, Some(&said)).ok_or("no header")?;
    ensure(both.ends_with(&own), || "ours does not come last".to_owned())?;
    Ok(format!("{} {}", own.contains(&b'"'), both.len() > own.len()))
}

/// Reads a header as its format has it: entries by commas, pairs by semicolons, neither within quotes.
fn entries(text: &[u8]) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
    let (mut all, mut entry) = (Vec::new(), Vec::new());
    let (mut key, mut value, mut in_key, mut quoted, mut escaped) = (Vec::new(), Vec::new(), true, false, false);
    for b in text.iter().chain(b",") {
        match b {
            _ if escaped => {
                escaped = false;
                value.push(*b);
            }
            b'\\' if quoted => escaped = true,
            b'"' if !in_key => quoted = !quoted,
            b',' | b';' if !quoted => {
                entry.push((std::mem::take(&mut key), std::mem::take(&mut value)));
                in_key = true;
                if *b == b',' {
                    all.push(std::mem::take(&mut entry));
                }
            }
            b'=' if in_key => in_key = false,
            _ if in_key => key.push(*b),
            _ => value.push(*b),
        }
    }
    all
}

/// The first line is `grpc-timeout`, the others are cookies, and all of it is a query and a referer.
pub(super) fn values(input: &[u8]) -> Answer {
    let mut lines = input.split(|&b| b == b'\n');
    let timeout = fuzzing::grpc_timeout(lines.next().unwrap_or_default());
    if let Some(timeout) = timeout {
        let text = fuzzing::to_grpc_timeout(timeout);
        let again = fuzzing::grpc_timeout(text.as_bytes()).ok_or_else(|| format!("{text} cannot be read"))?;
        // Written in whole units of what still fits eight digits.
        ensure(again <= timeout && timeout - again < std::time::Duration::from_secs(3600), || {
            format!("{text}: {again:?} of {timeout:?}")
        })?;
    }
    let mut headers = Headers::new();
    lines.for_each(|line| headers.append_id(HeaderId::Cookie, line));
    let mut head = RequestHead::new();
    head.headers = headers;
    let (hashed, token) = (fuzzing::hashed_cookie(&head, b"a"), fuzzing::token_cookie(&head, b"a"));
    let same = hashed == token.filter(|value| !value.is_empty());
    ensure(same, || format!("the cookie is {hashed:?} or {token:?}"))?;
    let parameter = maille_proxy::route::query_parameter(input, b"a").map(|value| value.len().min(3));
    let pairs = fuzzing::query(&String::from_utf8_lossy(input)).len().min(5);
    Ok(format!(
        "{} {:?} {parameter:?} {pairs} {}",
        timeout.is_some(),
        hashed.map(|v| v.len().min(3)),
        fuzzing::is_referer(input)
    ))
}

/// A path and then header lines: what was found and taken out is not found again.
pub(super) fn tokens(input: &[u8]) -> Answer {
    let mut lines = input.split(|&b| b == b'\n');
    let mut head = RequestHead::new();
    let path = lines.next().unwrap_or_default();
    if path.contains(&b'#') {
        return Ok("a fragment, which is refused before".into());
    }
    head.set_path(path);
    for (i, line) in lines.take(16).enumerate() {
        let name = ["authorization", "x-token", "cookie"][i % 3];
        head.headers.append(&Name::new(name), line);
    }
    let before = head.path().to_vec();
    let found = fuzzing::tokens(&mut head);
    ensure(fuzzing::tokens(&mut head.clone()).is_empty(), || {
        format!("found again in {:?}", head.path_and_query().escape_ascii())
    })?;
    ensure(head.path() == before, || "the path itself has changed".to_owned())?;
    Ok(format!("{}", found.len().min(9)))
}

/// An authorizer's answer, over gRPC and over HTTP: whatever it says, it frames nothing and breaks out of no line.
pub(super) fn authorizer(input: &[u8]) -> Answer {
    let grpc = fuzzing::authz_answer(input);
    harmless(&grpc)?;
    let mut response = ResponseHead::new(if input.len().is_multiple_of(2) { 200 } else { 403 });
    for line in input.split(|&b| b == b'\n').take(16) {
        let (name, value) = line.split_at(line.iter().position(|&b| b == b':').unwrap_or(line.len()));
        if let Ok(name) = std::str::from_utf8(name)
            && Name::new(name).is_valid()
        {
            response.headers.append(&Name::new(name), value.get(1..).unwrap_or_default());
        }
    }
    let any = || vec![StringMatcher::Prefix(b""[..].into())];
    let http = AuthzHttp {
        cluster: "authz".into(),
        path_prefix: "".into(),
        headers: Vec::new(),
        to_upstream: any(),
        append_to_upstream: any(),
        to_client: Vec::new(),
        to_client_on_success: any(),
        to_metadata: any(),
    };
    let said = http.answer(&response, Vec::new());
    harmless(&said)?;
    let kind = match grpc.verdict {
        Verdict::Allowed => "allowed".to_owned(),
        Verdict::Denied(status, _) => format!("denied {}", status / 100),
        Verdict::Failed => "failed".to_owned(),
    };
    Ok(format!("{kind} {} {} {}", grpc.set.len().min(2), grpc.remove.len().min(2), said.set.len().min(2)))
}

fn harmless(said: &Said) -> Result<(), String> {
    for (name, value) in said.set.iter().chain(&said.append).chain(&said.add).chain(&said.response) {
        let frames = ["content-length", "transfer-encoding", "connection", "upgrade"].contains(&name.as_str());
        let breaks = value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0));
        ensure(name.is_valid() && !frames && !breaks, || format!("{name}: {}", value.escape_ascii()))?;
    }
    let needed = said.remove.iter().find(|name| name.as_str() == "host" || name.as_str().starts_with(':'));
    ensure(needed.is_none(), || format!("{needed:?} taken away"))?;
    match said.verdict {
        Verdict::Denied(status, _) => ensure((200..600).contains(&status), || format!("status {status}")),
        _ => Ok(()),
    }
}
