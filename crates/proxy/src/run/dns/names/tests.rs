use super::*;
use crate::config::LocalityEndpoints;

const OPTIONS: DnsOptions = DnsOptions {
    refresh: Duration::from_secs(5),
    failure_refresh: None,
    jitter: Duration::ZERO,
    respect_ttl: false,
    family: DnsFamily::V4Only,
};

fn endpoint(address: EndpointAddress) -> Endpoint {
    Endpoint {
        address,
        hostname: "".into(),
        weight: 1,
        health: crate::config::Health::Healthy,
        metadata: None,
        others: Arc::default(),
    }
}

/// A cluster of these names.
fn names(names: &[&str], logical: bool, options: DnsOptions) -> Names {
    let endpoints = names.iter().map(|name| endpoint(EndpointAddress::Host((*name).into(), 80))).collect();
    let locality = LocalityEndpoints { locality: Default::default(), priority: 0, weight: None, endpoints };
    let endpoints = Arc::new(Endpoints { localities: vec![locality], ..Endpoints::default() });
    let discovery = match logical {
        true => Discovery::LogicalDns(endpoints, options),
        false => Discovery::StrictDns(endpoints, options),
    };
    Names::of(&discovery).unwrap()
}

fn found(addresses: &[&str], ttl: u64) -> Option<Found> {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Some(Found { addresses, ttl: Duration::from_secs(ttl) })
}

fn hosts(names: &Names) -> Vec<String> {
    let text = |endpoint: &Endpoint| match endpoint.address {
        EndpointAddress::Socket(address) => format!("{}={address}", endpoint.hostname),
        _ => "?".into(),
    };
    names.endpoints().localities.iter().flat_map(|locality| &locality.endpoints).map(text).collect()
}

#[test]
fn a_name_that_fails_takes_nobody_with_it() {
    let mut names = names(&["a", "b"], false, OPTIONS);
    names.take(0, found(&["10.0.0.1", "10.0.0.2"], 9), 0.0);
    assert_eq!(hosts(&names), ["a=10.0.0.1:80", "a=10.0.0.2:80"], "the other is still being asked for");
    names.take(1, found(&["10.0.1.1"], 9), 0.0);
    names.take(0, None, 0.0);
    names.take(1, found(&["10.0.1.2"], 9), 0.0);
    assert_eq!(hosts(&names), ["a=10.0.0.1:80", "a=10.0.0.2:80", "b=10.0.1.2:80"], "what a had stays");
    names.take(0, found(&["::1"], 9), 0.0);
    assert_eq!(hosts(&names).len(), 3, "an answer of the wrong family is none");
    names.take(0, found(&["10.0.0.3"], 9), 0.0);
    assert_eq!(hosts(&names), ["a=10.0.0.3:80", "b=10.0.1.2:80"]);
}

#[test]
fn a_logical_host_is_one_host() {
    let options = DnsOptions { family: DnsFamily::All, ..OPTIONS };
    let mut names = names(&["a"], true, options);
    names.take(0, found(&["10.0.0.1", "10.0.0.2", "::1", "::2", "::3"], 9), 0.0);
    assert_eq!(hosts(&names), ["a=[::1]:80"]);
    let endpoints = names.endpoints();
    let others: Vec<_> = endpoints.localities[0].endpoints[0].others.iter().map(SocketAddr::to_string).collect();
    assert_eq!(others, ["10.0.0.1:80", "[::2]:80", "10.0.0.2:80", "[::3]:80"]);
}

#[test]
fn when_to_ask_again() {
    let seconds = Duration::from_secs;
    let ttl = DnsOptions { respect_ttl: true, jitter: seconds(10), ..OPTIONS };
    let backing_off = DnsOptions { failure_refresh: Some((seconds(1), seconds(3))), ..OPTIONS };
    let good = || found(&["10.0.0.1"], 60);
    for (what, options, answers, random, want) in [
        ("the refresh rate", OPTIONS, vec![good()], 0.5, seconds(5)),
        ("the record's time to live, and some jitter", ttl, vec![good()], 0.5, seconds(65)),
        ("no time to live", ttl, vec![found(&["10.0.0.1"], 0)], 0.0, seconds(5)),
        ("a failure", OPTIONS, vec![None], 0.5, seconds(5)),
        ("a failure with a rate of its own", backing_off, vec![None], 1.0, seconds(1)),
        ("the next one", backing_off, vec![None, None], 1.0, seconds(2)),
        ("at most", backing_off, vec![None, None, None, None], 1.0, seconds(3)),
        ("jittered", backing_off, vec![None, None], 0.5, seconds(1)),
        ("not at once", backing_off, vec![None], 0.0, LEAST),
        ("a success ends it", backing_off, vec![None, None, good(), None], 1.0, seconds(1)),
    ] {
        let mut names = names(&["a"], false, options);
        let pauses: Vec<_> = answers.into_iter().map(|answer| names.take(0, answer, random).1).collect();
        assert_eq!(pauses.last(), Some(&want), "{what}");
    }
}

#[test]
fn families() {
    let both = ["10.0.0.1", "::1"];
    for (family, answer, want) in [
        (DnsFamily::V4Only, &both[..], "10.0.0.1"),
        (DnsFamily::V6Only, &both, "::1"),
        (DnsFamily::Auto, &both, "::1"),
        (DnsFamily::Auto, &both[..1], "10.0.0.1"),
        (DnsFamily::V4Preferred, &both, "10.0.0.1"),
        (DnsFamily::V4Preferred, &both[1..], "::1"),
        (DnsFamily::All, &both, "::1 10.0.0.1"),
    ] {
        let addresses = answer.iter().map(|address| address.parse().unwrap()).collect();
        let found: Vec<_> = wanted(addresses, family).iter().map(IpAddr::to_string).collect();
        assert_eq!(found.join(" "), want, "{family:?} {answer:?}");
    }
}
