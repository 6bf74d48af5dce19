//! The two that are asked: ours and Envoy, each behind the same listeners with a server of its own.

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use maille_proxy::{Handle, Options, run_fixed};
use maille_xds::types::core::Node;
use maille_xds::{Resource, TypeUrl};

use crate::cases::{Case, Seen};
use crate::client::{ask, describe, patience};
use crate::envoy::Envoy;
use crate::peers::Peer;
use crate::server::Server;
use crate::setups;

/// How long more is waited for after all that is expected has come, in one attempt after the other.
const GRACE: [Duration; 3] = [Duration::from_millis(15), Duration::from_millis(150), Duration::from_millis(1000)];

pub(crate) struct Side {
    server: Server,
    listeners: HashMap<&'static str, SocketAddr>,
    log: tempfile::NamedTempFile,
    /// This machine's address, which stands in for a client's on this machine.
    own_address: String,
    _what: What,
}

#[allow(dead_code, reason = "they run for as long as the side does")]
enum What {
    Maille(Handle),
    Envoy(Envoy),
    Peer(Peer),
}

impl Side {
    pub(crate) fn maille() -> Side {
        Side::with(|listeners, clusters| {
            let mut options = Options::new(Node::default(), "");
            options.concurrency = 1;
            let resources = vec![
                (TypeUrl::Cluster, clusters.iter().map(|c| Resource::encode(c.name.as_str(), c)).collect()),
                (TypeUrl::Listener, listeners.iter().map(|l| Resource::encode(l.name.as_str(), l)).collect()),
            ];
            let handle = run_fixed(options, resources).unwrap();
            let status = handle.status();
            let until = Instant::now() + patience();
            while status.borrow().listening.len() + status.borrow().refused.len() < listeners.len() {
                assert!(Instant::now() < until, "{:?}", status.borrow().refused);
                std::thread::sleep(Duration::from_millis(2));
            }
            if !status.borrow().refused.is_empty() {
                eprintln!("{:#?}", status.borrow().refused);
            }
            What::Maille(handle)
        })
    }

    pub(crate) fn envoy(program: &Path) -> Side {
        Side::with(|listeners, clusters| What::Envoy(Envoy::start(program, listeners, clusters)))
    }

    /// nginx or HAProxy, if this machine has it.
    pub(crate) fn peer(name: &str) -> Option<Side> {
        let server = Server::start();
        let address = free(1)[0];
        let peer = Peer::start(name, address, server.address)?;
        let until = Instant::now() + patience();
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < until, "{name} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        let listeners = setups::NAMES.iter().map(|name| (*name, address)).collect();
        let log = tempfile::NamedTempFile::new().unwrap();
        Some(Side { server, listeners, log, own_address: own_address(), _what: What::Peer(peer) })
    }

    fn with(
        start: impl FnOnce(Vec<maille_xds::types::listener::Listener>, Vec<maille_xds::types::cluster::Cluster>) -> What,
    ) -> Side {
        let server = Server::start();
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut ports = free(setups::NAMES.len() + 1);
        let nobody = ports.pop().unwrap_or(server.address);
        let addresses: HashMap<&str, SocketAddr> = setups::NAMES.iter().copied().zip(ports).collect();
        let listeners = setups::NAMES.iter().map(|name| setups::listener(name, addresses[name], log.path())).collect();
        let what = start(listeners, setups::clusters(server.address, nobody));
        let until = Instant::now() + patience();
        let absent = || addresses.iter().find(|(_, address)| TcpStream::connect(address).is_err());
        while let (Some((name, _)), What::Envoy(_)) = (absent(), &what) {
            assert!(Instant::now() < until, "{name} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Side { server, listeners: addresses, log, own_address: own_address(), _what: what }
    }

    /// Asks all of them, one after the other, and says what was seen on both ends. `want` is what is expected of each, where that is known.
    pub(crate) fn ask_all(&self, cases: &[&Case], want: &[Option<&Seen>]) -> Vec<Seen> {
        let mut discarded = BTreeSet::new();
        let mut all = Vec::new();
        for (case, want) in cases.iter().zip(want) {
            let (mut seen, mut port) = self.ask(case, *want, GRACE[0]);
            // On a machine that has much to do, what should have come may still be on its way.
            for grace in &GRACE[1..] {
                if want.is_none_or(|want| want.talk().eq(seen.talk())) {
                    break;
                }
                eprintln!("{}: asked again, with more time", case.name);
                discarded.insert(port);
                (seen, port) = self.ask(case, *want, *grace);
            }
            all.push((seen, port));
        }
        let expected = want.iter().map(|want| want.map(Seen::logs)).sum();
        for (line, port) in self.logged(expected, &discarded) {
            if let Some((seen, _)) = all.iter_mut().find(|(_, from)| *from == port) {
                seen.lines.push(line);
            }
        }
        all.into_iter().map(|(seen, _)| seen).collect()
    }

    fn ask(&self, case: &Case, want: Option<&Seen>, grace: Duration) -> (Seen, u16) {
        let to = *self.listeners.get(case.setup.as_str()).unwrap_or_else(|| panic!("no setup {:?}", case.setup));
        if TcpStream::connect(to).is_err() {
            return (Seen { lines: vec!["this listener was refused".into()] }, 0);
        }
        self.server.expect(&case.reply, case.reply_closes);
        // For the proxy to notice that its idle connections are gone.
        std::thread::sleep(Duration::from_millis(5));
        let answer = ask(to, &case.send, want.map(|want| (want.responses(), want.end())), grace);
        if answer.bytes.starts_with(b"HTTP/1.1 101") {
            // It is the client who leaves a tunnel first.
            std::thread::sleep(Duration::from_millis(20));
        }
        let known = [
            (to.port().to_string(), "$PORT"),
            (self.server.address.port().to_string(), "$SERVER"),
            (self.own_address.clone(), "$OWN"),
        ];
        let mut lines = Vec::new();
        for got in self.server.got() {
            describe("server", &got, &known, &mut lines);
        }
        describe("client", &answer.bytes, &known, &mut lines);
        lines.retain(|line| case.show.wants(line));
        lines.push(format!("end: {}", answer.end));
        (Seen { lines }, answer.port)
    }

    /// The log's lines, each with the port of the client whose it is, without those that are `discarded`: as many as are
    /// expected, or as come.
    fn logged(&self, expected: Option<usize>, discarded: &BTreeSet<u16>) -> Vec<(String, u16)> {
        let line = |line: &str| {
            let (client, rest) = line.split_once(' ')?;
            Some((format!("log: {rest}"), client.parse::<SocketAddr>().ok()?.port()))
        };
        let lines = |text: &str| -> Vec<(String, u16)> {
            text.lines().filter_map(line).filter(|(_, port)| !discarded.contains(port)).collect()
        };
        let start = Instant::now();
        let (mut text, mut quiet) = (String::new(), Instant::now());
        loop {
            let now = std::fs::read_to_string(self.log.path()).unwrap();
            if now.len() != text.len() {
                (text, quiet) = (now, Instant::now());
            }
            let enough = expected.is_some_and(|expected| lines(&text).len() >= expected);
            if enough || start.elapsed() > patience() || (expected.is_none() && quiet.elapsed().as_secs() >= 2) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        lines(&text)
    }
}

/// What others see of this machine; the loopback address when there is no other.
fn own_address() -> String {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    // Nothing is sent: the system only says by which address it would be.
    let found = socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).and_then(|()| socket.local_addr());
    found.map_or_else(|_| "127.0.0.1".into(), |address| address.ip().to_string())
}

/// Ports of an address that only this process uses, and in it only who asks now, so that nobody else takes them meanwhile.
fn free(count: usize) -> Vec<SocketAddr> {
    static CALLS: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let call = CALLS.fetch_add(1, Ordering::Relaxed) % 60;
    let own = Ipv4Addr::new(127, 64 + high % 64, low, 1 + high / 64 + 4 * call);
    let sockets: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind((own, 0)).unwrap()).collect();
    sockets.iter().map(|socket| socket.local_addr().unwrap()).collect()
}
