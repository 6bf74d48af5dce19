//! What stands behind the proxies: an echo for streams, and an authorizer for CUSTOM policies, over HTTP/2, by gRPC or without.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use bytes::Bytes;
use maille_xds::types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use maille_xds::types::{Message as _, Status};

use crate::ask::Ask;

/// The header by which a request says what the authorizer is to answer, and the answer that lets it pass.
pub(crate) const TOLD: (&str, &str) = ("x-custom-id", "allow");

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
const PERMISSION_DENIED: i32 = 7;

pub(crate) struct Helpers {
    pub(crate) echo: SocketAddr,
    pub(crate) authorizer: SocketAddr,
}

impl Helpers {
    pub(crate) fn start() -> Helpers {
        Helpers { echo: serve(echo), authorizer: serve(judge) }
    }
}

/// What the authorizer says.
pub(crate) fn lets_pass(request: &Ask) -> bool {
    request.headers.iter().any(|(name, value)| (name.as_str(), value.as_str()) == TOLD)
}

fn serve(answer: fn(TcpStream)) -> SocketAddr {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 64];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

fn judge(stream: TcpStream) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(judge_one(request, respond));
        }
    });
}

async fn judge_one(request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let (head, mut body) = request.into_parts();
    let mut message = Vec::new();
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
        message.extend_from_slice(&chunk);
    }
    if head.uri.path() != CHECK {
        let told = head.headers.get(TOLD.0).is_some_and(|value| value == TOLD.1);
        let response = http::Response::builder().status(if told { 200 } else { 403 }).body(()).unwrap();
        let _ = respond.send_response(response, true);
        return;
    }
    let check = CheckRequest::decode(&message[5..]).unwrap();
    let request = check.attributes.and_then(|all| all.request).and_then(|request| request.http).unwrap();
    let told = request.headers.get(TOLD.0).is_some_and(|value| value == TOLD.1);
    let status = Status { code: if told { 0 } else { PERMISSION_DENIED }, ..Default::default() };
    let answer = CheckResponse { status: Some(status), ..Default::default() }.encode_to_vec();
    let framed = [&[0][..], &(answer.len() as u32).to_be_bytes(), &answer].concat();
    let response = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let Ok(mut stream) = respond.send_response(response, false) else { return };
    let _ = stream.send_data(framed.into(), false);
    let _ = stream.send_trailers(http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]));
}
