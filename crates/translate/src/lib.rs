//! Snapshot and proxy in, Envoy resources out: a pure function.

mod clusters;
mod context;
mod convert;
mod endpoints;
mod inbound_ports;
mod listeners;
mod policies;
mod proxy_headers;
mod proxy_node;
mod routes;
mod secrets;

use maille_model::{Proxy, Snapshot};
use maille_xds::types::Message;
use maille_xds::{TypeUrl, World};

pub(crate) use context::Context;
pub use proxy_node::{NodeError, proxy_from_node};

/// Everything a proxy should have. The same snapshot and proxy give the same bytes.
pub fn translate(snapshot: &Snapshot, proxy: &Proxy) -> World {
    let context = Context::new(snapshot, proxy);
    let mut world = World::new();
    let clusters = clusters::build(&context);
    put(&mut world, TypeUrl::Endpoint, endpoints::build(&context, &clusters), |a| &a.cluster_name);
    let built = listeners::build(&context);
    put(&mut world, TypeUrl::Secret, secrets::build(&context, &clusters, &built.listeners), |secret| &secret.name);
    put(&mut world, TypeUrl::Cluster, clusters, |cluster| &cluster.name);
    put(&mut world, TypeUrl::Route, routes::build(&context, &built.route_names), |routes| &routes.name);
    put(&mut world, TypeUrl::Listener, built.listeners, |listener| &listener.name);
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
