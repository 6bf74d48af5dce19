//! Leases from control planes of every temper.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A control plane that says this to the first request, and its connection with what it was asked.
async fn control(answer: &'static str) -> (SocketAddr, JoinHandle<(TcpStream, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its number");
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut asked = String::new();
        while !asked.ends_with('}') {
            let mut part = [0; 4096];
            let n = stream.read(&mut part).await.expect("a request");
            asked += &String::from_utf8_lossy(&part[..n]);
        }
        stream.write_all(answer.as_bytes()).await.expect("somebody listens");
        (stream, asked)
    });
    (address, serving)
}

async fn take(control: SocketAddr, token: &str, entry: &Value) -> Result<Lease, LeaseError> {
    let connecting = async { Ok(Box::new(TcpStream::connect(control).await?) as Box<dyn Stream>) };
    Lease::take(control, connecting, token, entry).await
}

const HELD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{}\n\r\n";

#[tokio::test]
async fn a_lease_is_held_until_either_side_goes() {
    let (address, serving) = control(HELD).await;
    let mut lease = take(address, "secret", &json!({"kind": "WorkloadEntry"})).await.expect("a lease");
    let (stream, asked) = serving.await.expect("a control plane");
    assert!(asked.starts_with("POST /v1/workloads HTTP/1.1\r\n"), "{asked}");
    assert!(
        asked.contains("authorization: Bearer secret\r\n") && asked.ends_with("{\"kind\":\"WorkloadEntry\"}"),
        "{asked}"
    );
    let early = tokio::time::timeout(Duration::from_millis(50), lease.ended()).await;
    assert!(early.is_err(), "it ended while it was held");
    drop(stream);
    lease.ended().await;

    let (address, serving) = control(HELD).await;
    let lease = take(address, "secret", &json!({})).await.expect("a lease");
    let (mut stream, _) = serving.await.expect("a control plane");
    drop(lease);
    assert_eq!(stream.read(&mut [0; 1]).await.expect("an end"), 0, "dropped is gone");
}

#[tokio::test]
async fn refusals_say_whether_to_try_again() {
    let rows = [
        ("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n", "does not accept the token"),
        ("HTTP/1.1 409 Conflict\r\ncontent-length: 5\r\n\r\ntaken", "refuses this workload: taken"),
        ("HTTP/1.1 422 Unprocessable Entity\r\ncontent-length: 0\r\n\r\n", "refuses this workload: 422"),
        ("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", "cannot be reached: it answers 503"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "cannot be reached"),
    ];
    for (answer, expected) in rows {
        let (address, _serving) = control(answer).await;
        let error = take(address, "secret", &json!({})).await.expect_err("no lease").to_string();
        assert!(error.contains(expected) && !error.contains("secret"), "{answer}: {error}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("its number");
    let error = take(nobody, "secret", &json!({})).await.expect_err("no lease").to_string();
    assert!(error.contains("is `maille up` running?"), "{error}");
}
