//! Compiled configuration: immutable tables that say whole and without protobuf what the proxy is to do.
//!
//! [`crate::compile`] makes them from xDS and refuses what they cannot express. They are `Send + Sync` and shared as
//! `Arc`; a request keeps the tables it started with.

mod cluster;
mod endpoint;
mod ext_authz;
mod http;
mod jwt;
mod listener;
mod log;
mod matcher;
mod metadata;
mod rbac;
mod route;
mod tls;

pub use cluster::*;
pub use endpoint::*;
pub use ext_authz::*;
pub use http::*;
pub use jwt::*;
pub use listener::*;
pub use log::*;
pub use matcher::*;
pub use metadata::*;
pub use rbac::*;
pub use route::*;
pub use tls::*;
