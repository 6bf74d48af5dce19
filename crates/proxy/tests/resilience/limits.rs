//! Circuit breakers: who waits, who is turned away and what is said then.

use std::io::{Read, Write};
use std::time::Duration;

use maille_xds::types::cluster::circuit_breakers::thresholds::RetryBudget;
use maille_xds::types::kind::Percent;
use maille_xds::types::route::RetryPolicy;
use maille_xds::types::{self, UInt32Value};

use crate::support::{Backend, Proxy, wait};

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

fn retries(on: &str, most: u32) -> Option<RetryPolicy> {
    Some(RetryPolicy { retry_on: on.into(), num_retries: number(most), ..RetryPolicy::default() })
}

#[test]
fn requests_wait_for_the_only_connection_and_those_too_many_are_turned_away() {
    let backend = Backend::start();
    let proxy = Proxy::start(&[&backend], |config| {
        config.limits().max_connections = number(1);
        config.limits().max_pending_requests = number(1);
    });
    let mut first = proxy.send("/held");
    backend.wait_for_requests(1);
    // One of these waits, the other is too many.
    let mut others = [proxy.send("/a"), proxy.send("/b")];
    let mut turned_away = None;
    wait("one is turned away", || {
        let answers = others.iter_mut().map(|sent| sent.answer_within(Duration::from_millis(20)));
        turned_away = answers.enumerate().find_map(|(i, answer)| Some((i, answer?)));
        turned_away.is_some()
    });
    let (which, answer) = turned_away.unwrap();
    assert!(answer.is_overflow(), "{answer:?}");
    let path = ["/a", "/b"][which];
    assert_eq!(proxy.logged(path), "UO upstream_reset_before_response_started{overflow} -");
    assert_eq!(backend.see(|state| state.requests), 1);
    backend.release();
    assert_eq!(first.answer().status, 200);
    assert_eq!(others[1 - which].answer().status, 200);
    assert_eq!(backend.see(|state| (state.requests, state.connections)), (2, 1));
}

#[test]
fn without_room_to_wait_only_an_idle_connection_will_do() {
    let backend = Backend::start();
    let proxy = Proxy::start(&[&backend], |config| config.limits().max_pending_requests = number(0));
    let answer = proxy.get("/");
    assert!(answer.is_overflow(), "{answer:?}");
    assert_eq!(backend.see(|state| state.connections), 0);
}

#[test]
fn requests_over_the_limit_are_turned_away_by_every_worker() {
    let backend = Backend::start();
    let proxy = Proxy::start(&[&backend], |config| {
        config.limits().max_requests = number(1);
        config.workers = 2;
    });
    let mut first = proxy.send("/held");
    backend.wait_for_requests(1);
    for i in 0..20 {
        let answer = proxy.get(&format!("/{i}"));
        assert!(answer.is_overflow(), "{answer:?}");
    }
    assert_eq!(proxy.logged("/7").split(' ').next(), Some("UO"));
    backend.release();
    assert_eq!(first.answer().status, 200);
    // The place is free as soon as the worker has seen the end of the response.
    wait("there is room again", || proxy.get("/").status == 200);
    assert_eq!(proxy.get("/").status, 200);
}

#[test]
fn waiting_ends_with_the_routes_timeout() {
    let backend = Backend::start();
    let proxy = Proxy::start(&[&backend], |config| {
        config.limits().max_connections = number(1);
        config.route.timeout = Some(types::Duration { seconds: 0, nanos: 50_000_000 });
    });
    let mut first = proxy.send("/held");
    backend.wait_for_requests(1);
    let answer = proxy.get("/late");
    assert_eq!((answer.status, answer.body.as_str()), (504, "upstream request timeout"));
    assert!(proxy.logged("/late").starts_with("UT response_timeout"));
    backend.release();
    assert_eq!(first.answer().status, 200);
    assert_eq!(proxy.get("/").status, 200, "who gave up waiting is in nobody's way");
}

#[test]
fn a_client_that_goes_away_makes_room_to_wait() {
    let backend = Backend::start();
    let proxy = Proxy::start(&[&backend], |config| {
        config.limits().max_connections = number(1);
        config.limits().max_pending_requests = number(1);
    });
    let mut first = proxy.send("/held");
    backend.wait_for_requests(1);
    let mut waiting = proxy.send("/");
    assert!(waiting.answer_within(Duration::from_millis(50)).is_none());
    drop(waiting);
    let mut next = None;
    wait("there is room", || {
        let mut sent = proxy.send("/");
        let answer = sent.answer_within(Duration::from_millis(100));
        assert!(answer.as_ref().is_none_or(|answer| answer.is_overflow()), "{answer:?}");
        next = answer.is_none().then_some(sent);
        next.is_some()
    });
    backend.release();
    assert_eq!(first.answer().status, 200);
    assert_eq!(next.unwrap().answer().status, 200);
}

#[test]
fn each_host_may_have_one_connection_whatever_the_limit() {
    let backends = [Backend::start(), Backend::start(), Backend::start()];
    let proxy = Proxy::start(&backends.each_ref(), |config| config.limits().max_connections = number(1));
    let mut held: Vec<_> = (0..3).map(|_| proxy.send("/held")).collect();
    backends.iter().for_each(|backend| backend.wait_for_requests(1));
    backends.iter().for_each(Backend::release);
    assert!(held.iter_mut().all(|sent| sent.answer().status == 200));
    // From then on it is these, one at a time.
    for _ in 0..9 {
        assert_eq!(proxy.get("/").status, 200);
    }
    assert!(backends.iter().all(|backend| backend.see(|state| state.connections) == 1));
}

#[test]
fn a_connection_is_closed_after_so_many_requests() {
    for (most, connections) in [(Some(1), 5), (Some(2), 3), (Some(5), 1), (None, 1), (Some(0), 1)] {
        let backend = Backend::start();
        let proxy = Proxy::start(&[&backend], |config| {
            #[allow(deprecated, reason = "what Istio set for years")]
            let limit = &mut config.cluster.max_requests_per_connection;
            *limit = most.and_then(number);
        });
        for _ in 0..5 {
            assert_eq!(proxy.get("/").status, 200);
        }
        assert_eq!(backend.see(|state| state.connections), connections, "at most {most:?} requests each");
    }
}

#[test]
fn retries_have_a_limit_of_their_own() {
    let budget = |percent, least| RetryBudget {
        budget_percent: Some(Percent { value: percent }),
        min_retry_concurrency: number(least),
        ..RetryBudget::default()
    };
    // (retries at a time, budget) -> requests that come, response flag
    let cases = [
        (0, None, 1, "UO"),
        (1, None, 3, "URX"),
        (0, Some(budget(0.0, 0)), 1, "UO"),
        (0, Some(budget(0.0, 1)), 3, "URX"),
        (0, Some(budget(100.0, 0)), 3, "URX"),
    ];
    for (most, retry_budget, requests, flag) in cases {
        let backend = Backend::start();
        backend.answer_with(503);
        let proxy = Proxy::start(&[&backend], |config| {
            config.limits().max_retries = number(most);
            config.limits().retry_budget = retry_budget;
            config.route.retry_policy = retries("5xx", 2);
        });
        let answer = proxy.get("/it");
        // It is the server's answer that the client gets.
        assert_eq!((answer.status, answer.body.as_str()), (503, "ok"), "{most} {retry_budget:?}");
        assert_eq!(backend.see(|state| state.requests), requests, "{most} {retry_budget:?}");
        let logged = proxy.logged("/it");
        assert_eq!(logged, format!("{flag} via_upstream {}", backend.address));
        backend.answer_with(200);
        assert_eq!(proxy.get("/").status, 200);
    }
}

#[test]
fn a_connection_that_fails_is_retried_within_the_limit() {
    let backend = Backend::absent();
    let proxy = Proxy::start(&[&backend], |config| {
        config.limits().max_retries = number(0);
        config.route.retry_policy = retries("connect-failure", 2);
    });
    let answer = proxy.get("/it");
    let told = "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
    assert!(answer.status == 503 && answer.body.starts_with(told), "{answer:?}");
    assert_eq!(answer.header("x-envoy-overloaded"), None);
    let logged = proxy.logged("/it");
    let flags = logged.split(' ').next().unwrap();
    assert!(flags.split(',').eq(["UF", "UO"]) || flags.split(',').eq(["UO", "UF"]), "{logged}");
}

#[test]
fn forwarded_connections_have_the_same_limit() {
    let backend = Backend::start();
    let proxy = Proxy::start(&[&backend], |config| config.limits().max_connections = number(1));
    let mut first = proxy.connect();
    write!(first, "GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut bytes = [0; 12];
    first.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"HTTP/1.1 200");
    assert_eq!(proxy.connect().read(&mut bytes).unwrap_or(0), 0, "closed without a word");
    drop(first);
    wait("there is room again", || {
        let mut next = proxy.connect();
        write!(next, "GET / HTTP/1.1\r\n\r\n").is_ok() && next.read(&mut bytes).is_ok_and(|n| n > 0)
    });
}

#[test]
fn one_host_gets_only_so_many_connections() {
    let (one, other) = (Backend::start(), Backend::start());
    let proxy = Proxy::start(&[&one, &other], |config| {
        let breakers = config.cluster.circuit_breakers.as_mut().unwrap();
        breakers.per_host_thresholds =
            vec![types::cluster::circuit_breakers::Thresholds { max_connections: number(2), ..Default::default() }];
    });
    let mut sent: Vec<_> = (0..8).map(|_| proxy.send("/held")).collect();
    one.wait_for_requests(2);
    other.wait_for_requests(2);
    one.release();
    other.release();
    assert!(sent.iter_mut().all(|sent| sent.answer().status == 200));
    for backend in [&one, &other] {
        assert_eq!(backend.see(|state| (state.requests, state.connections)), (4, 2));
    }
}

#[test]
fn connections_go_to_only_so_many_hosts() {
    let (one, other) = (Backend::start(), Backend::start());
    let proxy = Proxy::start(&[&one, &other], |config| config.limits().max_connection_pools = number(1));
    let answers: Vec<_> = (0..4).map(|_| proxy.get("/")).collect();
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 2);
    assert_eq!(answers.iter().filter(|answer| answer.is_overflow()).count(), 2);
    assert_eq!(one.see(|state| state.connections) + other.see(|state| state.connections), 1);
}
