//! Readers of the bookshop: a steady load through the gateway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HOST, HeaderValue};
use hyper::{StatusCode, Uri};
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

/// Returns when the page is there for the first time.
pub(super) async fn page_is_there(gateway: SocketAddr) {
    let client = Client::of(gateway);
    while page(&client).await != Ok(StatusCode::OK) {
        sleep(Duration::from_millis(100)).await;
    }
}

async fn page(client: &Client) -> Result<StatusCode, String> {
    let headers = [(HOST, HeaderValue::from_static("bookshop.example"))].into_iter().collect();
    client.ask(Uri::from_static("/productpage"), &headers).await.map(|(status, _)| status)
}
