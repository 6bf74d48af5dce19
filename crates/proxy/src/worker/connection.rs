//! A new connection: which listener and filter chain it belongs to.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use maille_telemetry::flags::ResponseFlags;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::inspect::{self, Facts, Rejected};
use super::io::{Input, Stream};
use super::istio::Counted;
use super::listening::Admission;
use super::registry::Registered;
use super::turns::Share;
use super::{Worker, http, tcp};
use crate::config::{DownstreamTls, DownstreamTransport, FilterChain, Listener, ListenerFilterKind, Network};
use crate::headers::{LogValues, StreamInfo};
use crate::route::Connection;
use crate::tls::{self, TlsInfo};

/// What is known of a connection from the start.
pub(crate) struct ConnectionInfo {
    /// Its number on this worker.
    pub(crate) id: u64,
    /// The client, as far as a PROXY protocol header says.
    pub(crate) remote: SocketAddr,
    /// The other end of the socket.
    pub(crate) direct: SocketAddr,
    /// Where the client wanted to go.
    pub(crate) local: SocketAddr,
    /// Where it came in.
    pub(crate) own: SocketAddr,
    /// The name the client asked for, by the first bytes of a TLS connection; empty is none.
    pub(crate) server_name: Box<str>,
    /// What was seen of the rest of its first bytes, as filter chains match it.
    pub(crate) transport_protocol: &'static str,
    pub(crate) application_protocols: Vec<Box<str>>,
    /// What TLS has agreed on, where we are its end.
    pub(crate) tls: Option<Rc<TlsInfo>>,
    pub(crate) chain: Arc<FilterChain>,
    pub(crate) listener: Arc<Listener>,
    /// Its turns.
    pub(crate) share: Rc<Share>,
    /// Counts it at its listener and in the process.
    pub(crate) admission: Admission,
    /// Where its requests were counted lately.
    pub(crate) counted: Counted,
}

/// How long a handshake may take when the configuration sets no limit: a client that sends a byte a minute would keep a
/// connection for ever.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// Serves a connection on a task of its own.
pub(crate) fn start(
    worker: &Rc<Worker>,
    stream: TcpStream,
    remote: SocketAddr,
    address: SocketAddr,
    admission: Admission,
) {
    let snapshot = worker.snapshot();
    let Some(listener) = snapshot.bound.get(&address) else { return };
    let Ok(own) = stream.local_addr() else { return };
    let restores = |listener: &Listener| {
        inspect::active(listener, own.port()).any(|kind| *kind == ListenerFilterKind::OriginalDst)
    };
    let mut local = own;
    if (listener.use_original_dst || restores(listener))
        && let Some(original) = maille_net::original_dst(&stream)
    {
        local = original;
    }
    let listener = if listener.use_original_dst && local != own {
        owner(&snapshot.listeners, local).unwrap_or(listener)
    } else {
        listener
    };
    let facts = Facts {
        remote,
        local,
        server_name: Box::default(),
        transport_protocol: "raw_buffer",
        application_protocols: Vec::new(),
    };
    let arrival =
        Arrival { stream: Stream::Plain(stream), input: Input::default(), own, direct: remote, facts, admission };
    if inspect::reads(listener, local.port()) {
        tokio::task::spawn_local(look(worker.clone(), listener.clone(), arrival));
    } else {
        arrival.serve(worker, listener, None);
    }
}

/// A connection that nobody serves yet.
struct Arrival {
    stream: Stream,
    /// What has come of it.
    input: Input,
    /// Where it came in.
    own: SocketAddr,
    /// The other end of the socket.
    direct: SocketAddr,
    facts: Facts,
    admission: Admission,
}

/// Lets the listener filters look at a connection, and serves it.
async fn look(worker: Rc<Worker>, listener: Arc<Listener>, mut arrival: Arrival) {
    let registered = worker.register(&listener);
    let Arrival { stream, input, facts, .. } = &mut arrival;
    let port = facts.local.port();
    let looked = inspect::inspect(&listener, port, stream, input, &worker.blocks, facts);
    let looked = match listener.filters_timeout {
        Some(limit) => timeout(limit, looked).await.ok(),
        None => Some(looked.await),
    };
    match looked {
        Some(Ok(())) => {}
        // A server that speaks first has a client that waits for it.
        None if listener.continue_on_filters_timeout => {}
        None => {
            arrival.admission.metrics.downstream_pre_cx_timeout().inc();
            return arrival.input.release(&worker.blocks);
        }
        Some(Err(Rejected::Gone)) => return arrival.input.release(&worker.blocks),
        Some(Err(Rejected::Malformed(what))) => {
            tracing::debug!(listener = %listener.name, remote = %arrival.direct, "refused: {what}");
            return arrival.input.release(&worker.blocks);
        }
    }
    arrival.serve(&worker, &listener, Some(registered));
}

impl Arrival {
    /// Serves the connection by the filter chain that is for it.
    fn serve(self, worker: &Rc<Worker>, listener: &Arc<Listener>, registered: Option<Registered>) {
        thread_local!(static NEXT_ID: Cell<u64> = const { Cell::new(0) });
        let Arrival { stream, mut input, own, direct, facts, admission } = self;
        let offered: Vec<&str> = facts.application_protocols.iter().map(|name| &**name).collect();
        let connection = Connection {
            destination: facts.local,
            source: facts.remote,
            direct_source: direct,
            server_name: &facts.server_name,
            transport_protocol: facts.transport_protocol,
            application_protocols: &offered,
        };
        let Some(chain) = listener.chain(&connection) else {
            tracing::debug!(listener = %listener.name, remote = %direct, "no filter chain matches");
            admission.metrics.no_filter_chain_match().inc();
            log(
                worker,
                listener,
                &StreamInfo {
                    response_flags: ResponseFlags::NO_ROUTE_FOUND,
                    response_code_details: "filter_chain_not_found",
                    downstream_remote: Some(facts.remote),
                    downstream_direct_remote: Some(direct),
                    downstream_local: Some(facts.local),
                    server_name: &facts.server_name,
                    ..StreamInfo::default()
                },
            );
            return input.release(&worker.blocks);
        };
        let id = NEXT_ID.get() + 1;
        NEXT_ID.set(id);
        let info = ConnectionInfo {
            id,
            remote: facts.remote,
            direct,
            local: facts.local,
            own,
            server_name: facts.server_name,
            transport_protocol: facts.transport_protocol,
            application_protocols: facts.application_protocols,
            tls: None,
            chain: chain.clone(),
            listener: listener.clone(),
            share: Rc::default(),
            admission,
            counted: Counted::default(),
        };
        match (&chain.transport, stream) {
            (DownstreamTransport::Plaintext, stream) => carry(worker, stream, input, info, registered),
            (DownstreamTransport::Tls(tls), Stream::Plain(tcp)) => {
                spawn(registered, secure(worker.clone(), tls.clone(), tcp, input, info));
            }
            // There is no TLS in TLS.
            (DownstreamTransport::Tls(_), Stream::Tls(_)) => {}
        }
    }
}

/// Goes on with a connection on a task of its own, so that what has been needed so far is let go. `registered` counts the
/// connection until the task does.
fn spawn(registered: Option<Registered>, task: impl Future<Output = ()> + 'static) {
    match registered {
        None => drop(tokio::task::spawn_local(task)),
        Some(registered) => drop(tokio::task::spawn_local(async move {
            drop(registered);
            task.await;
        })),
    }
}

/// Receives a client's handshake, and serves it.
async fn secure(
    worker: Rc<Worker>,
    tls: Arc<DownstreamTls>,
    tcp: TcpStream,
    mut input: Input,
    mut info: ConnectionInfo,
) {
    let registered = worker.register(&info.listener);
    let context = worker.snapshot().servers.get(&tls.id).cloned().flatten();
    let Some(context) = context else {
        tracing::debug!(listener = %info.listener.name, chain = %info.chain.name, "its secrets are not there");
        return input.release(&worker.blocks);
    };
    let limit = info.chain.transport_timeout.unwrap_or(HANDSHAKE);
    let made = timeout(limit, async {
        if input.is_empty() {
            // In vain only when it has failed, which is found out below.
            let _ = tcp.readable().await;
        }
        worker.turns.wait(&info.share).await;
        tls::accept(tcp, input.peek(), &context).await
    });
    let made = made.await;
    input.release(&worker.blocks);
    let (stream, known) = match made {
        Ok(Ok(made)) => made,
        Ok(Err(error)) => {
            let reason = tls::reason(&error);
            tracing::debug!(listener = %info.listener.name, remote = %info.direct, %reason, "no TLS with a client");
            info.admission.metrics.ssl_connection_error().inc();
            return log(&worker, &info.listener, &StreamInfo { downstream_failure: &reason, ..info.stream() });
        }
        Err(_) => {
            tracing::debug!(listener = %info.listener.name, remote = %info.direct, "a TLS handshake took too long");
            info.admission.metrics.downstream_cx_transport_socket_connect_timeout().inc();
            let why = "transport_socket_timeout";
            return log(&worker, &info.listener, &StreamInfo { connection_termination_details: why, ..info.stream() });
        }
    };
    if info.server_name.is_empty() {
        info.server_name = known.sni.clone();
    }
    let metrics = &info.admission.metrics;
    metrics.ssl_handshake().inc();
    if known.session_resumed {
        metrics.ssl_session_reused().inc();
    }
    if known.peer.is_none() {
        metrics.ssl_no_certificate().inc();
    }
    info.tls = Some(Rc::new(known));
    carry(&worker, Stream::Tls(Box::new(stream)), input, info, Some(registered));
}

/// Writes to the listener's own logs: of connections that nobody serves.
fn log(worker: &Worker, listener: &Listener, stream: &StreamInfo<'_>) {
    if !listener.access_logs.is_empty() {
        let stream = StreamInfo { start: SystemTime::now(), hostname: &worker.hostname, ..stream.clone() };
        worker.logs.write(&listener.access_logs, &LogValues { request: None, response: None, stream: &stream });
    }
}

/// Carries what is in a connection, or in the TLS of it.
fn carry(worker: &Rc<Worker>, stream: Stream, mut input: Input, info: ConnectionInfo, registered: Option<Registered>) {
    let chain = info.chain.clone();
    match &chain.network {
        Network::Http(manager) => http::start(worker, stream, input, manager, info, registered),
        Network::Tcp(proxy) => spawn(registered, tcp::serve(worker.clone(), stream, input, proxy.clone(), info)),
        Network::Close => input.release(&worker.blocks),
    }
}

impl ConnectionInfo {
    /// As filter chains see it, with what the client offers.
    pub(crate) fn as_seen<'a>(&'a self, application_protocols: &'a [&'a str]) -> Connection<'a> {
        Connection {
            destination: self.local,
            source: self.remote,
            direct_source: self.direct,
            server_name: &self.server_name,
            transport_protocol: self.transport_protocol,
            application_protocols,
        }
    }

    /// As logs see it.
    fn stream(&self) -> StreamInfo<'_> {
        StreamInfo {
            downstream_remote: Some(self.remote),
            downstream_direct_remote: Some(self.direct),
            downstream_local: Some(self.local),
            connection_id: self.id,
            server_name: &self.server_name,
            filter_chain_name: &self.chain.name,
            ..StreamInfo::default()
        }
    }

    /// Whether whoever connects to an address gets here again, and again. `listens` knows the addresses that are
    /// accepted on: a listener that only has the name of an address accepts nothing there.
    pub(crate) fn comes_back(&self, to: SocketAddr, listens: impl Fn(SocketAddr) -> bool) -> bool {
        comes_back(self.own.ip(), to, listens)
    }
}

fn comes_back(own: IpAddr, to: SocketAddr, listens: impl Fn(SocketAddr) -> bool) -> bool {
    let anywhere = |ip: IpAddr| listens(SocketAddr::new(ip, to.port()));
    let here = to.ip() == own || to.ip().is_loopback() || to.ip().is_unspecified();
    listens(to) || (here && (anywhere(Ipv4Addr::UNSPECIFIED.into()) || anywhere(Ipv6Addr::UNSPECIFIED.into())))
}

/// The listener that a destination belongs to: its own address, else the one for any address at that port.
fn owner(listeners: &ahash::AHashMap<Arc<str>, Arc<Listener>>, destination: SocketAddr) -> Option<&Arc<Listener>> {
    let addresses = |l: &Listener| std::iter::once(l.address).chain(l.additional_addresses.clone());
    let exact = listeners.values().find(|l| addresses(l).any(|a| a == destination));
    exact.or_else(|| {
        listeners.values().find(|l| {
            !l.use_original_dst && addresses(l).any(|a| a.ip().is_unspecified() && a.port() == destination.port())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_come_back() {
        let bound = ["0.0.0.0:15001", "10.0.0.7:9000"].map(|a| a.parse::<SocketAddr>().unwrap());
        for (to, back) in [
            ("10.0.0.7:9000", true),
            ("10.0.0.7:15001", true),
            ("127.0.0.1:15001", true),
            ("10.0.0.8:15001", false),
            ("10.0.0.7:3306", false),
            ("10.0.0.8:9000", false),
        ] {
            let own = "10.0.0.7".parse().unwrap();
            assert_eq!(comes_back(own, to.parse().unwrap(), |a| bound.contains(&a)), back, "{to}");
        }
    }
}
