//! Who may pass: RBAC rules and JSON web tokens, asked about one request or connection. Pure: no I/O, no clock.

pub mod jwt;
pub mod rbac;
