use std::net::Ipv4Addr;

use tokio::net::TcpListener;

use super::*;

fn v4(_: SocketAddr) -> io::Result<TcpSocket> {
    TcpSocket::new_v4()
}

/// Nobody answers there: a socket whose queue of connections is full, and the connections that fill it.
async fn silent() -> (SocketAddr, Vec<TcpStream>, TcpListener) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
        filling.push(stream.unwrap());
    }
    (address, filling, listener)
}

async fn refusing() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_refuses_or_is_silent() {
    let good = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let good_address = good.local_addr().unwrap();
    let (silent, _filling, _listener) = silent().await;
    for (first, others) in [
        (good_address, vec![]),
        (refusing().await, vec![refusing().await, good_address]),
        (silent, vec![good_address]),
        (silent, vec![silent, refusing().await, good_address]),
    ] {
        let stream = connect(first, &others, v4).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good_address, "{first} {others:?}");
    }
}

#[tokio::test]
async fn when_all_refuse_that_is_the_answer() {
    let error = connect(refusing().await, &[refusing().await], v4).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}
