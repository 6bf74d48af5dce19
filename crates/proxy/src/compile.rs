//! From xDS messages to compiled configuration, or a refusal that names resource, field and reason.
//!
//! Every message is taken apart field by field, without `..`: a field that nobody has thought about does not compile.
//! A field that is set and that we neither honour nor know to make no difference is refused.
//! [`unsupported`] then names what compiles but cannot be served yet.

#![allow(deprecated, reason = "deprecated fields are fields: control planes set them")]

mod access_log;
mod at;
mod cluster;
mod endpoint;
mod ext_authz;
mod filters;
mod http;
mod jwt;
mod listener;
mod load_balancing;
mod matcher;
mod rbac;
mod route;
mod route_action;
mod template;
mod tls;
pub mod unsupported;

pub use at::Refused;
pub use cluster::cluster;
pub use endpoint::endpoints;
pub use listener::listener;
pub(crate) use matcher::json;
pub use route::routes;
pub use tls::secret;

use maille_xds::Resource;
use maille_xds::types::Message;

/// A resource's message.
pub fn decode<M: Message + Default>(resource: &Resource) -> Result<M, Refused> {
    M::decode(resource.body.as_ref()).map_err(|error| Refused {
        resource: resource.name.to_string(),
        field: String::new(),
        reason: format!("the bytes are not this type of message: {error}"),
    })
}

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;
