//! HTTP messages, the HTTP/1 codec, path and host rules, limits; no sockets.
//!
//! Everything here meets bytes from the network, so nothing here may panic: the lints below hold outside tests.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::string_slice)
)]

pub mod client_hello;
mod cursor;
pub mod h1;
pub mod headers;
pub mod host;
pub mod name;
pub mod path;
pub mod proxy_header;
pub mod request;
pub mod response;
mod words;

pub use headers::Headers;
pub use name::{HeaderId, HeaderIds, Name};
pub use request::RequestHead;
pub use response::ResponseHead;
