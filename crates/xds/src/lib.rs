//! The wire: Envoy protobuf types, ADS server and client, ACK/NACK, warming order.
//!
//! [`types`] are Envoy's messages under short names; [`World`] is everything one proxy should have. [`server`] and
//! [`client`] decide what to say next and do no I/O; [`service`] and [`client::connect`] put them on a gRPC stream.

pub mod certificates;
pub mod client;
pub mod json;
pub mod server;
pub mod service;
pub mod types;

mod type_url;
mod world;

pub use type_url::TypeUrl;
pub use world::{Resource, Resources, World};
