//! Load balancing beside a real Envoy with the very same configuration: the same key finds the same host, and where chance decides, each host gets the
//! same share. `ENVOY` names the binary, else it is `envoy` on the PATH; without one these tests say so and pass.

mod cases;
mod support;

use std::collections::BTreeMap;

use cases::{Case, Key, Want, cases};
use support::{Backends, Both, Client};

/// How many keys have to find the same host.
const KEYS: usize = 300;
/// How many requests shares are taken of.
const REQUESTS: usize = 2000;

#[test]
fn the_same_choices_as_envoys() {
    let backends = Backends::start(9);
    let cases = cases();
    let Some(both) = Both::start(&backends, &cases) else { return };
    let mut wrong = Vec::new();
    for case in &cases {
        let found = match case.want {
            Want::SameHost => same_host(&both, case),
            Want::SameShare => same_share(&both, case),
        };
        wrong.extend(found.err().map(|why| format!("{}: {why}", case.name)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn same_host(both: &Both, case: &Case) -> Result<(), String> {
    let mut hosts = BTreeMap::new();
    let [mut ours, mut envoy] = both.clients();
    let mut differ = Vec::new();
    for n in 0..KEYS {
        let [ours, envoy] = [&mut ours, &mut envoy].map(|client| ask(client, case, n));
        if ours != envoy {
            differ.push(format!("key {n}: ours {ours}, Envoy's {envoy}"));
        }
        *hosts.entry(envoy).or_insert(0) += 1;
    }
    match (differ.first(), hosts.len()) {
        (Some(first), _) => Err(format!("{} of {KEYS} keys differ: {first}; {hosts:?}", differ.len())),
        (None, 1) if !matches!(case.key, Key::None) => Err(format!("all keys find one host: {hosts:?}")),
        _ => Ok(()),
    }
}

fn same_share(both: &Both, case: &Case) -> Result<(), String> {
    let count = |mut client: Client| {
        let mut hosts: BTreeMap<String, usize> = BTreeMap::new();
        for n in 0..REQUESTS {
            *hosts.entry(ask(&mut client, case, n)).or_default() += 1;
        }
        hosts
    };
    let [ours, envoy] = both.clients();
    let (ours, envoy) = std::thread::scope(|scope| {
        let envoy = scope.spawn(|| count(envoy));
        (count(ours), envoy.join().unwrap())
    });
    let share =
        |hosts: &BTreeMap<String, usize>, host: &str| hosts.get(host).map_or(0.0, |n| *n as f64 / REQUESTS as f64);
    let far = ours.keys().chain(envoy.keys()).find(|host| (share(&ours, host) - share(&envoy, host)).abs() > 0.07);
    match far {
        Some(host) => Err(format!("host {host}: ours {ours:?}, Envoy's {envoy:?}")),
        None => Ok(()),
    }
}

/// Which backend answers the n-th key.
fn ask(client: &mut Client, case: &Case, n: usize) -> String {
    let (query, header) = match case.key {
        Key::None => (String::new(), String::new()),
        Key::Header => (String::new(), format!("x-key: key-{n}\r\n")),
        Key::Headers => (String::new(), format!("x-key: b{n}\r\nx-key: a{n}\r\n")),
        Key::TwoHeaders => (String::new(), format!("x-key: {}\r\nx-other: {n}\r\n", n % 7)),
        Key::Cookie => (String::new(), format!("cookie: a=b; user=\"me{n}\"\r\n")),
        Key::Query => (format!("?a=1&key=q{n}"), String::new()),
        Key::Source => (String::new(), format!("x-forwarded-for: 10.1.{}.{}\r\n", n / 250, n % 250 + 1)),
    };
    client.get(&format!("/{}/{query}", case.name), &header)
}

#[test]
fn hosts_that_are_full_hand_on_as_envoys() {
    let backends = Backends::start(4);
    let cases = cases::bounded();
    let Some(both) = Both::start(&backends, &cases) else { return };
    for case in &cases {
        for key in 0..6 {
            let header = format!("x-key: key-{key}\r\n");
            // Each is held while the next one is sent, so that every choice sees all those before it.
            let [ours, envoy] = [0, 1].map(|which| {
                let mut held: Vec<Client> = Vec::new();
                let mut hosts = Vec::new();
                for _ in 0..12 {
                    let mut client = both.client(which);
                    client.send(&format!("/{}/held", case.name), &header);
                    hosts.push(backends.next_held());
                    held.push(client);
                }
                backends.release();
                held.iter_mut().for_each(|client| drop(client.receive()));
                both.settle();
                hosts
            });
            assert_eq!(ours, envoy, "{} key {key}", case.name);
            assert!(ours.iter().any(|host| *host != ours[0]), "nobody handed on: {ours:?}");
        }
    }
}

#[test]
fn connections_are_hashed_as_envoys() {
    let backends = Backends::start(5);
    let cases = cases::connections();
    let Some(both) = Both::start(&backends, &cases) else { return };
    for case in &cases {
        let mut hosts = std::collections::BTreeSet::new();
        for n in 0..200u8 {
            let [ours, envoy] = [0, 1].map(|which| both.connect_from(which, &case.name, [127, 1, 1, n + 1]));
            assert_eq!(ours, envoy, "{} from 127.1.1.{}", case.name, n + 1);
            hosts.insert(ours);
        }
        assert!(hosts.len() > 1, "{}: all go to one", case.name);
    }
}
