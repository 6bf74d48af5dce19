//! Who may pass: RBAC rules and JSON web tokens, asked about one request or connection. Pure: no I/O, no clock.

mod admission;
pub mod ext_authz;
pub mod jwt;
pub mod rbac;

pub(crate) use admission::set as write_metadata;
pub use admission::{Refusal, Step, jwt as ask_for_token, rbac as ask_rules};
