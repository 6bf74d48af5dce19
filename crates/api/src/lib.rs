//! The resources people write: types, defaults, positions, validation.
//!
//! [`parse::load`] turns a file's text into [`Object`]s and [`Diagnostic`]s; nothing in a file is ignored silently.
//! The types in [`networking`], [`security`] and [`mesh`] mirror Istio's API one to one, those in [`core`] Kubernetes'.

pub mod bytes;
pub mod core;
pub mod duration;
pub mod grpc;
pub mod mesh;
mod message;
pub mod meta;
pub mod networking;
pub mod parse;
pub mod security;
pub mod selector;
pub mod timestamp;
pub mod validate;

pub use bytes::Bytes;
pub use duration::Duration;
pub use meta::{Key, Kind, Object, ObjectMeta, Source, Spec};
pub use parse::{Diagnostic, Severity};

/// A JSON object without a schema (`google.protobuf.Struct`).
pub type Struct = serde_json::Map<String, serde_json::Value>;
