use maille_http::h1::{Limits, parse_request};

use super::*;

fn request(headers: &str) -> RequestHead {
    let mut head = RequestHead::default();
    let limits = Limits { head_bytes: 4096, fields: 20, http10: true, ..Limits::ENVOYS };
    parse_request(format!("GET / HTTP/1.1\r\nhost: h\r\n{headers}\r\n").as_bytes(), &limits, &mut head)
        .unwrap()
        .unwrap();
    head
}

fn percent(numerator: u32) -> Fraction {
    Fraction { numerator, denominator: 100 }
}

fn fault(delay: Option<(FaultDelay, Fraction)>, abort: Option<(FaultAbort, Fraction)>) -> Fault {
    Fault { delay, abort, headers: Vec::new(), max_active: None }
}

#[test]
fn what_requests_say_of_their_faults() {
    let all = fault(Some((FaultDelay::Header, percent(100))), Some((FaultAbort::Header, percent(100))));
    let none = fault(Some((FaultDelay::Header, percent(0))), Some((FaultAbort::Header, percent(0))));
    for (fault, headers, pause, answer) in [
        (&all, "", None, None),
        (&all, "x-envoy-fault-delay-request: 20\r\n", Some(20), None),
        (&all, "x-envoy-fault-delay-request: soon\r\n", None, None),
        (&all, "x-envoy-fault-delay-request: 20\r\nx-envoy-fault-delay-request-percentage: 0\r\n", None, None),
        (&all, "x-envoy-fault-abort-request: 503\r\n", None, Some((503, None))),
        (&all, "x-envoy-fault-abort-request: 999\r\n", None, None),
        (&all, "x-envoy-fault-abort-grpc-request: 14\r\n", None, Some((200, Some(14)))),
        (&all, "x-envoy-fault-abort-request: 503\r\nx-envoy-fault-abort-grpc-request: 14\r\n", None, Some((503, None))),
        (&all, "x-envoy-fault-abort-request: 503\r\nx-envoy-fault-abort-request-percentage: 0\r\n", None, None),
        (&none, "x-envoy-fault-abort-request: 503\r\nx-envoy-fault-abort-request-percentage: 100\r\n", None, None),
        (&none, "x-envoy-fault-delay-request: 20\r\n", None, None),
    ] {
        let (request, active) = (request(headers), Active::default());
        let mut faults = Faults::new(fault, &active, &request).unwrap();
        assert_eq!(faults.delay(&request), pause.map(Duration::from_millis), "{headers}");
        let got = faults.abort(&request).map(|reply| (reply.status, reply.grpc_status));
        assert_eq!(got, answer, "{headers}");
    }
}

#[test]
fn so_many_faults_at_a_time_and_no_more() {
    let request = request("");
    let limited = Fault {
        max_active: Some(2),
        ..fault(Some((FaultDelay::Fixed(Duration::ZERO), percent(100))), Some((FaultAbort::Http(500), percent(100))))
    };
    let active = Active::default();
    let begin = || {
        let mut faults = Faults::new(&limited, &active, &request).unwrap();
        let delayed = faults.delay(&request).is_some();
        // Who waits already is one of them.
        assert_eq!(faults.abort(&request).is_some(), delayed);
        (faults, delayed)
    };
    let (first, second, third) = (begin(), begin(), begin());
    assert_eq!((first.1, second.1, third.1), (true, true, false));
    drop(first);
    assert!(begin().1);
    drop((second, third));
    assert_eq!(active.load(Ordering::Relaxed), 0);
}
