//! JSON web tokens of a request: found, judged, and what becomes of the request.
//!
//! The order in which tokens and requirements are tried, and what is said of a failure, are Envoy's
//! (jwt_authn: extractor.cc, authenticator.cc, verifier.cc).

mod extract;
mod keys;
mod requirement;
mod status;
#[cfg(test)]
mod tests;
mod token;
mod verified;

pub use extract::{Looks, Places};
pub use keys::Keys;
pub use requirement::Granted;
pub(crate) use requirement::audience;
pub use status::Status;
pub use token::{MAX_TOKEN, Token};
