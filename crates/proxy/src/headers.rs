//! What routes do to headers, and the values that operators (`%REQ(x)%`, `%PROTOCOL%`, …) stand for.

mod cookies;
mod mutation;
mod values;

pub(crate) use cookies::cookie;
pub use mutation::{Addition, AppendAction, HeaderMutations, Level, Scratch};
pub use values::{LogValues, Protocol, StreamInfo};
