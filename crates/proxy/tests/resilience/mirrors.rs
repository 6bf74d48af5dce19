//! Copies of requests: whole, and nobody's business.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use maille_xds::types::core::socket_address::PortSpecifier;
use maille_xds::types::core::{RuntimeFractionalPercent, address::Address};
use maille_xds::types::endpoint::lb_endpoint::HostIdentifier;
use maille_xds::types::kind::FractionalPercent;
use maille_xds::types::route::route_action::RequestMirrorPolicy;

use crate::support::{Backend, Config, Proxy};

/// A server that hands on whatever comes up to and including `THE END`, then answers.
fn listen() -> (u16, mpsc::Receiver<String>) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let (seen_in, seen) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in socket.incoming() {
            let (mut stream, seen_in) = (stream.unwrap(), seen_in.clone());
            std::thread::spawn(move || {
                let mut all = String::new();
                let mut some = [0; 4096];
                while !all.contains("THE END") {
                    match stream.read(&mut some) {
                        Ok(n) if n > 0 => all.push_str(&String::from_utf8_lossy(&some[..n])),
                        _ => break,
                    }
                }
                // Nobody may be listening any more.
                let _ = seen_in.send(all);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            });
        }
    });
    (port, seen)
}

fn mirrored(config: &mut Config, port: u16, percent: u32) {
    let hosts = &mut config.cluster.load_assignment.as_mut().unwrap().endpoints[0].lb_endpoints;
    if let Some(HostIdentifier::Endpoint(endpoint)) = &mut hosts[0].host_identifier
        && let Some(Address::SocketAddress(socket)) = &mut endpoint.address.as_mut().unwrap().address
    {
        socket.port_specifier = Some(PortSpecifier::PortValue(port.into()));
    }
    let share = FractionalPercent { numerator: percent, ..FractionalPercent::default() };
    config.route.request_mirror_policies = vec![RequestMirrorPolicy {
        cluster: "backends".into(),
        runtime_fraction: Some(RuntimeFractionalPercent { default_value: Some(share), ..Default::default() }),
        ..Default::default()
    }];
}

#[test]
fn a_body_is_copied_whole_however_late_it_comes() {
    for (framing, parts) in [
        ("content-length: 12", &["hello", "THE END"][..]),
        ("content-length: 12", &["helloTHE END"]),
        ("transfer-encoding: chunked", &["5\r\nhello\r\n", "7\r\nTHE END\r\n0\r\n\r\n"]),
    ] {
        let (port, seen) = listen();
        let proxy = Proxy::start(&[&Backend::absent()], |config| mirrored(config, port, 100));
        let mut stream = TcpStream::connect(proxy.http()).unwrap();
        stream.write_all(format!("POST / HTTP/1.1\r\nhost: shop:80\r\n{framing}\r\n\r\n").as_bytes()).unwrap();
        for part in parts {
            std::thread::sleep(Duration::from_millis(30));
            stream.write_all(part.as_bytes()).unwrap();
        }
        let both = [(); 2].map(|()| seen.recv_timeout(Duration::from_secs(20)).expect("a request"));
        let copy = both.iter().find(|request| request.contains("shop-shadow:80")).expect("a copy");
        let (head, body) = copy.split_once("\r\n\r\n").unwrap();
        let whole = ["helloTHE END", "c\r\nhelloTHE END\r\n0\r\n\r\n"];
        assert_eq!(body, whole[usize::from(framing.ends_with("chunked"))]);
        assert_eq!(head.matches(framing).count(), 1, "{head}");
        assert_eq!(head.matches("content-length").count() + head.matches("transfer-encoding").count(), 1, "{head}");
    }
}

#[test]
fn a_body_that_is_too_long_is_not_copied() {
    let (port, seen) = listen();
    let proxy = Proxy::start(&[&Backend::absent()], |config| mirrored(config, port, 100));
    let mut stream = TcpStream::connect(proxy.http()).unwrap();
    let body = "x".repeat(2 << 20) + "THE END";
    let head = format!("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).unwrap();
    let request = seen.recv_timeout(Duration::from_secs(20)).expect("the request itself");
    assert!(request.contains("host: shop\r\n"));
    assert!(seen.recv_timeout(Duration::from_millis(300)).is_err(), "there is a copy");
}

#[test]
fn nothing_is_copied_at_zero_percent() {
    let (port, seen) = listen();
    let proxy = Proxy::start(&[&Backend::absent()], |config| mirrored(config, port, 0));
    let mut stream = TcpStream::connect(proxy.http()).unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 7\r\n\r\nTHE END").unwrap();
    assert!(seen.recv_timeout(Duration::from_secs(20)).is_ok());
    assert!(seen.recv_timeout(Duration::from_millis(300)).is_err(), "there is a copy");
}
