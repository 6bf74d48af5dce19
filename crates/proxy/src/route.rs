//! Which filter chain a connection gets, which virtual host and route a request, and what a request becomes on its way.

mod chains;
mod hosts;
mod index;
mod matches;
mod paths;
mod redirect;
mod rewrite;
mod trie;

pub use chains::{Ambiguous, ChainMatch, Connection, FilterChains, SourceKind};
pub use hosts::{DuplicateDomain, HostIndex};
pub use index::RouteIndex;
pub use matches::{ClientTls, Request, query_parameter};
pub use redirect::tls_redirect;

#[cfg(test)]
mod tests;
