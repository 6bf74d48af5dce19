//! What the worker reads out of a request beside its framing: who was before us, who the client is, how long it waits, its cookies and tokens.

use maille_http::{HeaderId, Headers, Name, RequestHead, ResponseHead};
use maille_proxy::config::{AuthzHttp, DnsFamily, StringMatcher};
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

/// What requests say of their times and retries.
pub(super) const TERMS_WORDS: &[&[u8]] = &[
    b"\n",
    b"0",
    b"1",
    b"250",
    b"15000",
    b"15001",
    b"4294967295",
    b"4294967296",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-1",
    b"+1",
    b" 7 ",
    b"1e3",
    b"503",
    b"5xx",
    b"gateway-error,reset",
    b"retriable-4xx",
    b"unavailable",
    b"retriable-status-codes",
    b"retriable-headers",
    b",",
    b"\xff",
];

/// What DNS messages are made of.
pub(super) const DNS_WORDS: &[&[u8]] = &[
    b"\x84\x00",
    b"\x00\x01",
    b"\x00\x02",
    b"\xc0\x0c",
    b"\x04name\x00",
    b"\x00\x01\x00\x01",
    b"\x00\x1c\x00\x01",
    b"\x00\x05\x00\x01",
    b"\x00\x00\x00\x3c",
    b"\xff\xff\xff\xff",
    b"\x00\x04\x0a\x00\x00\x01",
    b"\x00\x10",
    b"\x00\x29",
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
    let cookie = fuzzing::cookie(&head, b"a");
    ensure(cookie.is_none_or(|value| !value.contains(&b';')), || format!("the cookie is {cookie:?}"))?;
    let parameter = maille_proxy::route::query_parameter(input, b"a").map(|value| value.len().min(3));
    let pairs = fuzzing::query(&String::from_utf8_lossy(input)).len().min(5);
    Ok(format!(
        "{} {:?} {parameter:?} {pairs} {}",
        timeout.is_some(),
        cookie.map(|v| v.len().min(3)),
        fuzzing::is_referer(input)
    ))
}

/// Header lines of a request from inside, one of each name in turn: the times it says are those that hold, one try is no longer than all of them,
/// and what it said goes no further.
pub(super) fn terms(input: &[u8]) -> Answer {
    const NAMES: [&str; 12] = [
        "x-envoy-upstream-rq-timeout-ms",
        "x-envoy-upstream-rq-per-try-timeout-ms",
        "x-envoy-upstream-stream-duration-ms",
        "x-envoy-max-retries",
        "x-envoy-retry-on",
        "x-envoy-retry-grpc-on",
        "x-envoy-retriable-status-codes",
        "x-envoy-retriable-header-names",
        "x-envoy-upstream-rq-timeout-alt-response",
        "x-envoy-fault-delay-request",
        "x-envoy-fault-abort-request",
        "x-envoy-fault-abort-grpc-request",
    ];
    let mut head = RequestHead::new();
    head.headers.append(&Name::new("x-envoy-internal"), b"true");
    let mut first = [const { None::<&[u8]> }; NAMES.len()];
    // What stands in a header has no control characters.
    let input: Vec<u8> = input.iter().map(|&b| if b < b' ' && b != b'\n' { b' ' } else { b }).collect();
    for (i, line) in input.split(|&b| b == b'\n').take(NAMES.len()).enumerate().filter(|(_, line)| !line.is_empty()) {
        head.headers.append(&Name::new(NAMES[i]), line);
        first[i] = Some(line);
    }
    let number = |at: usize| -> Option<u64> {
        let text = std::str::from_utf8(first[at]?).ok()?.trim();
        let digits = text.strip_prefix('+').unwrap_or(text);
        (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
    };
    let millis = |at: usize| number(at).map(std::time::Duration::from_millis);
    let limit = |at: usize| millis(at).map(|time| (!time.is_zero()).then_some(time));
    let (pause, abort) = fuzzing::own_faults(&head);
    ensure(pause == millis(9), || format!("a pause of {pause:?}"))?;
    let status = number(10).filter(|status| (200..600).contains(status)).map(|status| (status as u16, None));
    let status = status.or_else(|| Some((200, Some(number(11)? as u32))));
    ensure(abort == status, || format!("{abort:?} instead of {status:?}"))?;

    let said = fuzzing::own_terms(&mut head);
    let (all, one, stream) = said.times;
    ensure(all == limit(0).unwrap_or(Some(std::time::Duration::from_secs(15))), || format!("{all:?} for all"))?;
    ensure(stream == limit(2), || format!("{stream:?} for the stream"))?;
    ensure(one.is_none() || one == limit(1).flatten(), || format!("{one:?} for one try"))?;
    ensure(one.zip(all).is_none_or(|(one, all)| one < all), || format!("{one:?} for one try, {all:?} for all"))?;
    let most = number(3).map_or(1, |most| u32::try_from(most).unwrap_or(u32::MAX));
    ensure(said.retries.is_none_or(|retries| retries == most), || format!("{:?} retries", said.retries))?;
    let left = NAMES[..9].iter().find(|name| head.headers.values(&Name::new(name)).next().is_some());
    ensure(left.is_none(), || format!("{left:?} goes on"))?;
    Ok(format!("{} {} {stream:?} {:?}", all.is_some(), one.is_some(), said.retries).chars().take(24).collect())
}

/// The first byte chooses a family and a kind of cluster, the rest is a DNS message: the hosts are the addresses that it has of the family, and it is
/// asked again neither at once nor never.
pub(super) fn dns(input: &[u8]) -> Answer {
    let Some((choice, message)) = input.split_first() else { return Ok("nothing".into()) };
    let families = [DnsFamily::V4Only, DnsFamily::V6Only, DnsFamily::V4Preferred, DnsFamily::Auto, DnsFamily::All];
    let (family, logical) = (families[usize::from(choice >> 1) % families.len()], choice % 2 == 1);
    let Some(got) = fuzzing::resolved(message, family, logical) else { return Ok("no message".into()) };
    let of = |v4: bool| got.said.iter().filter(|(address, _)| address.is_ipv4() == v4).count();
    let (v4, v6) = (of(true), of(false));
    let wanted = match family {
        DnsFamily::V4Only => v4,
        DnsFamily::V6Only => v6,
        DnsFamily::V4Preferred => {
            if v4 > 0 {
                v4
            } else {
                v6
            }
        }
        DnsFamily::Auto => {
            if v6 > 0 {
                v6
            } else {
                v4
            }
        }
        DnsFamily::All => v4 + v6,
    };
    let places = got.hosts.iter().flat_map(|(first, others)| others.iter().chain([first]));
    let places: Vec<_> = places.collect();
    ensure(places.len() == wanted, || format!("{} addresses of {wanted} ({v4} and {v6})", places.len()))?;
    ensure(got.hosts.len() == if logical { wanted.min(1) } else { wanted }, || format!("{} hosts", got.hosts.len()))?;
    let known = |at: &std::net::SocketAddr| at.port() == 80 && got.said.iter().any(|(said, _)| *said == at.ip());
    ensure(places.iter().all(|at| known(at)), || format!("{places:?} of {:?}", got.said))?;
    let most = got.said.iter().map(|(_, seconds)| *seconds).min().unwrap_or_default().max(10);
    let (least, most) = (std::time::Duration::from_millis(100), std::time::Duration::from_secs(u64::from(most) + 1));
    ensure((least..=most).contains(&got.again), || format!("asked again after {:?}", got.again))?;
    Ok(format!("{family:?} {logical} {} {}", v4.min(3), v6.min(3)))
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
