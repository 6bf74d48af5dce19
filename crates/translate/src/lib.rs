//! Snapshot and proxy in, Envoy resources out: a pure function.

mod clusters;
mod context;
mod convert;
mod endpoints;
mod inbound_ports;
mod proxy_headers;
mod proxy_node;
pub mod routes;
mod secrets;

use maille_model::{Proxy, Snapshot};
use maille_xds::types::Message;
use maille_xds::{TypeUrl, World};

pub(crate) use context::Context;
pub use proxy_node::{NodeError, proxy_from_node};

// Listeners join here as `put(&mut world, TypeUrl::Listener, listeners::build(&context), ..)`, and the route
// configurations they name as `put(&mut world, TypeUrl::Route, routes::routes(snapshot, proxy, &names), ..)`.

/// Everything a proxy should have. The same snapshot and proxy give the same bytes.
pub fn translate(snapshot: &Snapshot, proxy: &Proxy) -> World {
    let context = Context::new(snapshot, proxy);
    let mut world = World::new();
    let clusters = clusters::build(&context);
    put(&mut world, TypeUrl::Endpoint, endpoints::build(&context, &clusters), |a| &a.cluster_name);
    put(&mut world, TypeUrl::Secret, secrets::build(&context, &clusters, &[]), |secret| &secret.name);
    put(&mut world, TypeUrl::Cluster, clusters, |cluster| &cluster.name);
    world
}

/// Encodes messages into the world. Of two with one name the first stays.
fn put<M: Message>(world: &mut World, type_url: TypeUrl, messages: Vec<M>, name: impl Fn(&M) -> &str) {
    for message in &messages {
        if world.get(type_url, name(message)).is_none() {
            world.encode(type_url, name(message), message);
        }
    }
}
