use std::net::Ipv4Addr;

use maille_http::h1::{Limits, parse_request};

use super::*;

const ASKING: Asking = Asking {
    client: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
    connection: (
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)), 5000),
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 8)), 80),
    ),
};

fn request(text: &str) -> RequestHead {
    let mut head = RequestHead::default();
    let limits = Limits { head_bytes: 4096, fields: 20, http10: true, ..Limits::ENVOYS };
    parse_request(format!("GET {text}\r\n\r\n").as_bytes(), &limits, &mut head).unwrap().unwrap();
    head
}

fn policy(on: HashOn, terminal: bool) -> HashPolicy {
    HashPolicy { on, terminal }
}

fn header(name: &str) -> HashOn {
    HashOn::Header(maille_http::Name::new(name), None)
}

fn cookie(ttl: Option<u64>) -> HashOn {
    HashOn::Cookie {
        name: "user".into(),
        ttl: ttl.map(std::time::Duration::from_secs),
        path: "/p".into(),
        attributes: vec![("SameSite".into(), "Lax".into()), ("Secure".into(), "".into())],
    }
}

fn of(policies: &[HashPolicy], text: &str) -> (Option<u64>, Vec<String>) {
    let mut cookies = Vec::new();
    let hash = hash(policies, &request(text), ASKING, &mut cookies);
    (hash, cookies.into_iter().map(|line| String::from_utf8(line).unwrap()).collect())
}

fn xx(text: &str) -> u64 {
    xxh64(text.as_bytes(), 0)
}

#[test]
fn what_is_hashed() {
    let header_a = || policy(header("a"), false);
    let first_a = || policy(header("a"), true);
    let b = || policy(header("b"), false);
    for (what, policies, text, want) in [
        ("a header", vec![header_a()], "/ HTTP/1.1\r\nhost: h\r\na: x", Some(xx("x"))),
        ("no such header", vec![header_a()], "/ HTTP/1.1\r\nhost: h", None),
        (
            "several values, in any order",
            vec![header_a()],
            "/ HTTP/1.1\r\nhost: h\r\na: y\r\na: x",
            Some(xxh64(b"y", xx("x"))),
        ),
        ("the host", vec![policy(header(":authority"), false)], "/ HTTP/1.1\r\nhost: h", Some(xx("h"))),
        (
            "two headers",
            vec![header_a(), b()],
            "/ HTTP/1.1\r\nhost: h\r\na: x\r\nb: y",
            Some(xx("x").rotate_left(1) ^ xx("y")),
        ),
        ("the first is enough", vec![first_a(), b()], "/ HTTP/1.1\r\nhost: h\r\na: x\r\nb: y", Some(xx("x"))),
        ("the first is not there", vec![first_a(), b()], "/ HTTP/1.1\r\nhost: h\r\nb: y", Some(xx("y"))),
        (
            "enough, by something before",
            vec![b(), first_a(), policy(HashOn::SourceIp, false)],
            "/ HTTP/1.1\r\nhost: h\r\nb: y",
            Some(xx("y")),
        ),
        ("the client", vec![policy(HashOn::SourceIp, false)], "/ HTTP/1.1\r\nhost: h", Some(xx("10.0.0.1"))),
        (
            "a parameter",
            vec![policy(HashOn::Query("q".into()), false)],
            "/?p=1&q=2&q=3 HTTP/1.1\r\nhost: h",
            Some(xx("2")),
        ),
        ("no such parameter", vec![policy(HashOn::Query("q".into()), false)], "/?p=1 HTTP/1.1\r\nhost: h", None),
        (
            "a cookie",
            vec![policy(cookie(Some(5)), false)],
            "/ HTTP/1.1\r\nhost: h\r\ncookie: x=1; user=\"me\"",
            Some(xx("me")),
        ),
        ("no such cookie, and none to be made", vec![policy(cookie(None), false)], "/ HTTP/1.1\r\nhost: h", None),
    ] {
        assert_eq!(of(&policies, text), (want, Vec::new()), "{what}");
    }
}

#[test]
fn a_cookie_is_made_for_who_has_none() {
    let value = format!("{:016x}", xx("10.0.0.9:500010.0.0.8:80"));
    for (ttl, age) in [(10, "; Max-Age=10"), (0, "")] {
        let (hash, cookies) = of(&[policy(cookie(Some(ttl)), false)], "/ HTTP/1.1\r\nhost: h");
        assert_eq!(hash, Some(xx(&value)));
        assert_eq!(cookies, [format!("user=\"{value}\"{age}; Path=/p; SameSite=Lax; Secure; HttpOnly")]);
    }
}
