//! Handshakes, on either side, and what is known afterwards.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use maille_identity::verify::PeerVerifier;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::{AcceptedAlert, Acceptor};
use rustls::{Connection, HandshakeKind};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{Carries, ClientContext, ServerContext, TlsInfo, TlsStream};

/// More than this is no ClientHello.
const HELLO: usize = 64 * 1024;

/// Receives a client's handshake. `first` has come already.
pub(crate) async fn accept(
    mut tcp: TcpStream,
    first: &[u8],
    context: &ServerContext,
) -> io::Result<(TlsStream, TlsInfo)> {
    let mut acceptor = Acceptor::default();
    let mut received = first.to_vec();
    let mut total = 0;
    let accepted = loop {
        total += received.len();
        let mut rest = received.as_slice();
        while !rest.is_empty() && acceptor.read_tls(&mut rest)? > 0 {}
        match acceptor.accept() {
            Ok(Some(accepted)) => break accepted,
            Ok(None) if total > HELLO => return Err(io::ErrorKind::InvalidData.into()),
            Ok(None) => {}
            Err((error, alert)) => return refuse(&mut tcp, error, alert).await,
        }
        received.clear();
        received.reserve(4096);
        tcp.readable().await?;
        match tcp.try_read_buf(&mut received) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
            _ => {}
        }
    };
    drop(received);
    let choice = context.choose(&accepted.client_hello());
    let session = match accepted.into_connection(choice.config) {
        Ok(session) => session,
        Err((error, alert)) => return refuse(&mut tcp, error, alert).await,
    };
    let mut stream = TlsStream::new(tcp, Connection::Server(session));
    poll_fn(|cx| stream.poll_handshake(cx)).await?;
    verify_again(&stream, context.verifier(), None)?;
    let mut info = TlsInfo::of(&stream, context.verifier());
    info.local = Some(choice.local);
    Ok((stream, info))
}

/// Makes a handshake with a server.
pub(crate) async fn connect(
    tcp: TcpStream,
    context: &ClientContext,
    name: ServerName<'static>,
    carries: Carries,
) -> io::Result<TlsStream> {
    let session = context.connect(name.clone(), carries).map_err(invalid)?;
    let mut stream = TlsStream::new(tcp, Connection::Client(session));
    poll_fn(|cx| stream.poll_handshake(cx)).await?;
    verify_again(&stream, Some(context.verifier()), Some(&name))?;
    Ok(stream)
}

/// Tells a client why it is not served.
async fn refuse<T>(tcp: &mut TcpStream, error: rustls::Error, mut alert: AcceptedAlert) -> io::Result<T> {
    let mut bytes = Vec::new();
    // Writing to memory does not fail.
    let _ = alert.write_all(&mut bytes);
    let _ = tcp.write_all(&bytes).await;
    Err(invalid(error))
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A session that is taken up again shows no certificate: what was shown then is checked as of now.
fn verify_again(
    stream: &TlsStream,
    verifier: Option<&Arc<PeerVerifier>>,
    name: Option<&ServerName<'_>>,
) -> io::Result<()> {
    let state = stream.state();
    match (verifier, state.peer_certificates()) {
        (Some(verifier), Some(chain)) if state.handshake_kind() == Some(HandshakeKind::Resumed) => {
            verifier.check(chain, name, name.is_some(), UnixTime::now()).map_err(invalid)
        }
        _ => Ok(()),
    }
}
