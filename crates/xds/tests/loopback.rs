//! Our client against our server, over loopback sockets.

#[path = "support/server.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use maille_xds::client::{self, Connection, Update};
use maille_xds::types::core::Node;
use maille_xds::{Resource, TypeUrl, World};
use support::Server;

fn world(words: &[(TypeUrl, &str, &str)]) -> World {
    let mut world = World::new();
    for (type_url, name, body) in words {
        world.insert(*type_url, Resource::from_body(*name, body.as_bytes().to_vec().into()));
    }
    world
}

fn show(update: &Update) -> String {
    let mut parts = vec![update.type_url.short().to_string()];
    parts.extend(update.added.iter().map(|r| format!("+{}={}", r.name, String::from_utf8_lossy(&r.body))));
    parts.extend(update.removed.iter().map(|name| format!("-{name}")));
    parts.join(" ")
}

fn options(server: &Server) -> client::Options {
    let mut options = client::Options::new(server.uri(), Node { id: "tester".into(), ..Default::default() });
    options.backoff = client::Backoff { base: Duration::from_millis(5), max: Duration::from_millis(20) };
    options
}

/// The next update, accepted.
async fn next(client: &mut client::Client) -> String {
    let update = client.next().await.expect("the client runs until it is dropped");
    let text = show(&update);
    client.ack(update.receipt);
    text
}

const CDS: TypeUrl = TypeUrl::Cluster;
const LDS: TypeUrl = TypeUrl::Listener;
const RDS: TypeUrl = TypeUrl::Route;

#[tokio::test]
async fn updates_arrive_in_order_and_refusals_are_reported() {
    let server = Server::start(world(&[(LDS, "x", "l1"), (CDS, "a", "c1"), (RDS, "r", "r1")])).await;
    let mut client = client::connect(options(&server)).unwrap();
    client.subscribe_all(CDS);
    client.subscribe_all(LDS);
    client.subscribe(RDS, ["r"]);
    assert_eq!(next(&mut client).await, "cds +a=c1");
    assert_eq!(next(&mut client).await, "lds +x=l1");
    assert_eq!(next(&mut client).await, "rds +r=r1");
    assert_eq!(*client.connection().borrow(), Connection::Connected);

    server.set(world(&[(LDS, "x", "l1"), (CDS, "b", "c1"), (RDS, "r", "r2")]));
    assert_eq!(next(&mut client).await, "cds +b=c1");
    let update = client.next().await.unwrap();
    assert_eq!(show(&update), "rds +r=r2");
    client.nack(update.receipt, "route configuration r: virtual_hosts[0].domains is empty", ["r"]);
    let refusal = server.refusal().await;
    assert_eq!(refusal, "tester refused rds r: route configuration r: virtual_hosts[0].domains is empty");

    server.set(world(&[(LDS, "x", "l1"), (CDS, "b", "c1"), (RDS, "r", "r3")]));
    assert_eq!(next(&mut client).await, "rds +r=r3");
    assert_eq!(next(&mut client).await, "cds -a");
}

#[tokio::test]
async fn a_restarted_server_sends_only_what_changed() {
    let server = Server::start(world(&[(LDS, "x", "l1"), (CDS, "a", "c1")])).await;
    let mut client = client::connect(options(&server)).unwrap();
    client.subscribe_all(CDS);
    client.subscribe_all(LDS);
    client.subscribe(RDS, ["r"]);
    assert_eq!(next(&mut client).await, "cds +a=c1");
    assert_eq!(next(&mut client).await, "lds +x=l1");
    assert_eq!(next(&mut client).await, "rds -r");
    server.wait_until_settled().await;

    let mut connection = client.connection();
    let port = server.stop().await;
    connection.wait_for(|now| matches!(now, Connection::Disconnected(_))).await.unwrap();
    let server =
        Server::start_on(port, world(&[(LDS, "x", "l1"), (CDS, "a", "c1"), (CDS, "b", "c1"), (RDS, "r", "r1")])).await;
    assert_eq!(next(&mut client).await, "cds +b=c1");
    assert_eq!(next(&mut client).await, "rds +r=r1");
    server.wait_until_settled().await;
}

#[tokio::test]
async fn a_server_without_a_world_answers_nothing_until_it_has_one() {
    let server = Server::start(None).await;
    let mut client = client::connect(options(&server)).unwrap();
    client.subscribe_all(CDS);
    server.wait_for_client().await;
    tokio::task::yield_now().await;
    server.set(world(&[(CDS, "a", "c1")]));
    assert_eq!(next(&mut client).await, "cds +a=c1");
}

#[tokio::test]
async fn an_address_that_cannot_be_used_is_refused_by_name() {
    for (uri, why) in [
        ("127.0.0.1:15010", "scheme"),
        ("https://127.0.0.1:15010", "scheme"),
        ("http://127.0.0.1", "port"),
        ("http:// x", "invalid"),
    ] {
        let error = client::connect(client::Options::new(uri, Node::default())).err().unwrap().to_string();
        assert!(error.contains(uri) && error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn large_worlds_come_in_parts() {
    let big = "x".repeat(600_000);
    let names: Vec<String> = (0..8).map(|n| format!("c{n}")).collect();
    let words: Vec<_> = names.iter().map(|name| (CDS, name.as_str(), big.as_str())).collect();
    let server = Server::start(world(&words)).await;
    let mut client = client::connect(options(&server)).unwrap();
    client.subscribe_all(CDS);
    let mut seen = Vec::new();
    let mut updates = 0;
    while seen.len() < 8 {
        let update = client.next().await.unwrap();
        updates += 1;
        seen.extend(update.added.iter().map(|resource| resource.name.clone()));
        client.ack(update.receipt);
    }
    assert_eq!(seen, names.iter().map(|name| Arc::from(name.as_str())).collect::<Vec<_>>());
    assert_eq!(updates, 3);
}
