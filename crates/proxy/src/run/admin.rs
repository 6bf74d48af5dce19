//! The admin endpoint: what is served, in words and JSON. Only on loopback, and only reading but for `/drain`.

use std::time::Duration;

use maille_http::RequestHead;
use maille_http::h1::{Limits, parse_request};
use maille_http::response::reason;
use maille_telemetry::metrics::{Filter, Registry};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Drain, Status};
use crate::snapshot::Snapshot;

/// A question to the main thread.
pub(super) struct Admin {
    pub(super) path: String,
    pub(super) answer: oneshot::Sender<(u16, String)>,
}

/// Whoever asks has this long.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn serve(socket: TcpListener, questions: mpsc::Sender<Admin>, drain: watch::Sender<Option<Drain>>) {
    loop {
        match socket.accept().await {
            Ok((stream, _)) => {
                let (questions, drain) = (questions.clone(), drain.clone());
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(LIMIT, one(stream, questions, drain)).await;
                });
            }
            Err(error) => {
                tracing::warn!("admin: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn one(mut stream: TcpStream, questions: mpsc::Sender<Admin>, drain: watch::Sender<Option<Drain>>) {
    let mut bytes = Vec::new();
    let mut head = RequestHead::new();
    loop {
        match parse_request(&bytes, &Limits { head_bytes: 8192, fields: 64, http10: true }, &mut head) {
            Ok(Some(_)) => break,
            Ok(None) => {}
            Err(_) => return,
        }
        let mut more = [0; 1024];
        match stream.read(&mut more).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&more[..n]),
            _ => return,
        }
    }
    let path = String::from_utf8_lossy(head.path()).into_owned();
    let (status, body) = match (head.method(), path.as_str()) {
        (b"POST", "/drain") => {
            let _ = drain.send(Some(Drain::All(LIMIT)));
            (200, "draining\n".to_owned())
        }
        (b"GET", _) => {
            let (answer, answered) = oneshot::channel();
            let _ = questions.send(Admin { path, answer }).await;
            answered.await.unwrap_or((503, "ending\n".into()))
        }
        _ => (405, "GET /ready, /stats, /config_dump; POST /drain\n".into()),
    };
    let head =
        format!("HTTP/1.1 {status} {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", reason(status), body.len());
    let _ = stream.write_all((head + &body).as_bytes()).await;
}

pub(super) fn answer(path: &str, status: &Status, snapshot: &Snapshot, registry: &Registry) -> (u16, String) {
    match path {
        "/ready" if status.ready => (200, "LIVE\n".into()),
        "/ready" => (503, "INITIALIZING\n".into()),
        "/stats" | "/stats/prometheus" => {
            let mut out = registry.collect().prometheus(Filter::default());
            let connected = u8::from(status.connected);
            out.push_str(&format!("# TYPE envoy_control_plane_connected_state gauge\nenvoy_control_plane_connected_state{{}} {connected}\n"));
            (200, out)
        }
        "/config_dump" => {
            let listeners: Vec<_> =
                status.listening.iter().map(|(name, a)| json!({"name": &**name, "address": a.to_string()})).collect();
            let mut clusters: Vec<_> = snapshot.clusters.iter().map(|(name, entry)| {
                let hosts: Vec<_> = entry.hosts.hosts().map(|h| json!({"address": h.address.to_string(), "weight": h.weight, "health": format!("{:?}", h.health)})).collect();
                json!({"name": &**name, "hosts": hosts})
            }).collect();
            clusters.sort_by_key(|c| c["name"].to_string());
            let mut routes: Vec<_> = snapshot.routes.keys().map(|name| name.to_string()).collect();
            routes.sort();
            let all =
                json!({"listeners": listeners, "clusters": clusters, "routes": routes, "refused": status.refused});
            (200, format!("{all:#}\n"))
        }
        _ => (404, "GET /ready, /stats, /config_dump; POST /drain\n".into()),
    }
}
