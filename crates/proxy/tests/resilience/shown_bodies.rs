//! Bodies that an authorizer looks at before the backend has them: what each of the two gets, and what is too much.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use maille_xds::types::pb::envoy::extensions::filters::http::ext_authz::v3::{BufferSettings, ExtAuthz};
use maille_xds::types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use maille_xds::types::{self, core};

use crate::policies::{ask_over_http, cluster, speaks};
use crate::support::{Backend, Proxy};

const PATIENCE: Duration = Duration::from_secs(10);

/// A request as a server saw it: its head, its body without framing, and what follows a chunked one.
struct Seen {
    head: String,
    body: String,
    trailers: String,
}

/// Reads whole requests, hands them on, and answers all of them alike.
fn server(status: &'static str) -> (Backend, mpsc::Receiver<Seen>) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let (seen_in, seen) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in socket.incoming() {
            let (mut stream, seen_in) = (BufReader::new(stream.unwrap()), seen_in.clone());
            std::thread::spawn(move || {
                while let Some(request) = read(&mut stream) {
                    // Nobody may be listening any more.
                    let _ = seen_in.send(request);
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                    let _ = stream.get_mut().write_all(answer.as_bytes());
                }
            });
        }
    });
    (Backend::at(address), seen)
}

fn read(from: &mut impl BufRead) -> Option<Seen> {
    let line = |from: &mut dyn BufRead| {
        let mut line = String::new();
        from.read_line(&mut line).ok().filter(|n| *n > 0).map(|_| line)
    };
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push_str(&line(from)?.to_ascii_lowercase());
    }
    let (mut body, mut trailers) = (Vec::new(), String::new());
    if let Some(length) = head.split("content-length: ").nth(1) {
        body.resize(length.split("\r\n").next()?.parse().ok()?, 0);
        from.read_exact(&mut body).ok()?;
    } else if head.contains("transfer-encoding: chunked") {
        loop {
            let size = usize::from_str_radix(line(from)?.trim(), 16).ok()?;
            if size == 0 {
                break;
            }
            let mut chunk = vec![0; size];
            from.read_exact(&mut chunk).ok()?;
            body.extend(chunk);
            line(from)?;
        }
        while !trailers.ends_with("\r\n\r\n") && trailers != "\r\n" {
            trailers.push_str(&line(from)?);
        }
    }
    Some(Seen { head, body: String::from_utf8(body).ok()?, trailers })
}

/// A POST in pieces, each sent when the one before has had time to arrive; the status of the answer.
fn post(client: &mut BufReader<TcpStream>, chunked: bool, pieces: &[&str]) -> u16 {
    post_with(client, chunked, pieces, "")
}

fn post_with(client: &mut BufReader<TcpStream>, chunked: bool, pieces: &[&str], trailers: &str) -> u16 {
    let stream = client.get_mut();
    let framing = match chunked {
        true => "transfer-encoding: chunked".to_owned(),
        false => format!("content-length: {}", pieces.iter().map(|piece| piece.len()).sum::<usize>()),
    };
    stream.write_all(format!("POST /x HTTP/1.1\r\nhost: shop\r\n{framing}\r\n\r\n").as_bytes()).unwrap();
    for piece in pieces {
        let piece = if chunked { format!("{:x}\r\n{piece}\r\n", piece.len()) } else { (*piece).to_owned() };
        // It may have been refused already.
        let _ = stream.write_all(piece.as_bytes());
        std::thread::sleep(Duration::from_millis(20));
    }
    if chunked {
        let _ = stream.write_all(format!("0\r\n{trailers}\r\n").as_bytes());
    }
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(client.read_line(&mut head).unwrap() > 0, "{head}");
    }
    if let Some(length) = head.split("content-length: ").nth(1) {
        let mut body = vec![0; length.split("\r\n").next().unwrap().parse().unwrap()];
        client.read_exact(&mut body).unwrap();
    }
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

fn proxy(backend: &Backend, authorizer: &Backend, max_request_bytes: u32, allow_partial_message: bool) -> Proxy {
    Proxy::start(&[backend], |config| {
        config.clusters = vec![cluster(authorizer, false)];
        let shown = BufferSettings { max_request_bytes, allow_partial_message, ..BufferSettings::default() };
        config.filters = vec![types::any(&ExtAuthz { with_request_body: Some(shown), ..ask_over_http() })];
    })
}

fn connect(proxy: &Proxy) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(proxy.http()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    BufReader::new(stream)
}

/// The most that is shown, whether a beginning will do, and the body in pieces; then the status, what is shown, and whether that is said to be
/// a part.
type Case = (u32, bool, &'static [&'static str], u16, &'static str, &'static str);

#[test]
fn an_authorizer_sees_the_body_and_the_backend_has_it_whole() {
    let ((backend, forwarded), (authorizer, asked)) = (server("200 OK"), server("200 OK"));
    let cases: &[Case] = &[
        (10, false, &["hello"], 200, "hello", "false"),
        (10, false, &["hel", "lo"], 200, "hello", "false"),
        (5, false, &["hello"], 200, "hello", "false"),
        (4, false, &["hello"], 413, "", ""),
        (4, false, &["hel", "lo", " and more"], 413, "", ""),
        (10, true, &["hel", "lo"], 200, "hello", "false"),
        (4, true, &["hello", " and more"], 200, "hell", "true"),
        (4, true, &["he", "llo", " and", " more"], 200, "hell", "true"),
    ];
    for (most, partial, pieces, status, shown, is_part) in cases {
        let proxy = proxy(&backend, &authorizer, *most, *partial);
        for chunked in [false, true] {
            let what = format!("{most} {partial} {pieces:?} {chunked}");
            assert_eq!(post(&mut connect(&proxy), chunked, pieces), *status, "{what}");
            if *status != 200 {
                assert!(asked.try_recv().is_err() && forwarded.try_recv().is_err(), "{what}");
                continue;
            }
            let asked = asked.recv_timeout(PATIENCE).expect(&what);
            assert_eq!(asked.body, *shown, "{what}");
            assert!(asked.head.starts_with("post /check/x "), "{what}: {}", asked.head);
            let said = format!("x-envoy-auth-partial-body: {is_part}\r\n");
            assert!(asked.head.contains(&said), "{what}: {}", asked.head);
            let forwarded = forwarded.recv_timeout(PATIENCE).expect(&what);
            assert_eq!(forwarded.body, pieces.concat(), "{what}");
            assert_eq!(forwarded.head.contains("transfer-encoding: chunked"), chunked, "{what}: {}", forwarded.head);
        }
    }
}

#[test]
fn a_connection_goes_on_after_a_body_that_was_looked_at() {
    let ((backend, forwarded), (authorizer, asked)) = (server("200 OK"), server("403 No"));
    let proxy = proxy(&backend, &authorizer, 100, false);
    for chunked in [false, true] {
        let mut client = connect(&proxy);
        for _ in 0..3 {
            assert_eq!(post(&mut client, chunked, &["some ", "body"]), 403);
            assert_eq!(asked.recv_timeout(PATIENCE).unwrap().body, "some body");
        }
    }
    assert!(forwarded.try_recv().is_err());
}

#[test]
fn trailers_follow_a_body_that_was_looked_at() {
    let ((backend, forwarded), (authorizer, asked)) = (server("200 OK"), server("200 OK"));
    for (most, trailed) in [(100, true), (4, true), (100, false)] {
        let http1 = core::Http1ProtocolOptions { enable_trailers: trailed, ..Default::default() };
        let proxy = Proxy::start(&[&backend], |config| {
            config.clusters = vec![cluster(&authorizer, false)];
            speaks(&mut config.cluster, ProtocolConfig::HttpProtocolOptions(http1.clone()));
            config.http1 = http1;
            let shown = BufferSettings { max_request_bytes: most, allow_partial_message: true, ..Default::default() };
            config.filters = vec![types::any(&ExtAuthz { with_request_body: Some(shown), ..ask_over_http() })];
        });
        // In one piece the trailers have come with what is read ahead.
        for pieces in [&["hello"][..], &["hel", "lo"]] {
            let what = format!("{most} {trailed} {pieces:?}");
            assert_eq!(post_with(&mut connect(&proxy), true, pieces, "x-sum: 1\r\n"), 200, "{what}");
            assert!("hello".starts_with(&asked.recv_timeout(PATIENCE).expect(&what).body), "{what}");
            let forwarded = forwarded.recv_timeout(PATIENCE).expect(&what);
            let trailers = if trailed { "x-sum: 1\r\n\r\n" } else { "\r\n" };
            assert_eq!((&*forwarded.body, &*forwarded.trailers), ("hello", trailers), "{what}");
        }
    }
}
