//! Readers of the bookshop: a steady load through the gateway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{StatusCode, Uri};
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::client::Client;

/// Requests a second.
const RATE: u32 = 40;

/// Asks for the page until it is dropped. Answers are not looked at: the access logs tell what came of them.
pub(super) async fn generate(gateway: SocketAddr) {
    let client = Arc::new(Client::of(gateway));
    let mut ticks = interval_at(Instant::now(), Duration::from_secs(1) / RATE);
    // Requests that could not be sent in time are not made up for: the load stays a load.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let client = client.clone();
        tokio::spawn(async move { page(&client).await });
    }
}

/// Returns when so many workloads are in the mesh, and the page is there.
pub(super) async fn shop_is_open(control: SocketAddr, workloads: usize, gateway: SocketAddr) {
    let client = Client::of(control);
    while joined(&client, control).await != Some(workloads) {
        sleep(Duration::from_millis(100)).await;
    }
    let client = Client::of(gateway);
    while page(&client).await != Ok(StatusCode::OK) {
        sleep(Duration::from_millis(100)).await;
    }
}

/// How many workloads the control plane counts.
async fn joined(client: &Client, control: SocketAddr) -> Option<usize> {
    let token = maille_control::token::find(control.port()).ok()?;
    let bearer = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    let host = HeaderValue::from_str(&control.to_string()).ok()?;
    let headers = [(HOST, host), (AUTHORIZATION, bearer)].into_iter().collect();
    let (_, body) = client.ask(Uri::from_static("/v1/status"), &headers).await.ok()?;
    let status: Value = serde_json::from_slice(&body).ok()?;
    Some(status["workloads"].as_array()?.len())
}

async fn page(client: &Client) -> Result<StatusCode, String> {
    let headers = [(HOST, HeaderValue::from_static("bookshop.example"))].into_iter().collect();
    client.ask(Uri::from_static("/productpage"), &headers).await.map(|(status, _)| status)
}
