//! Who has to show which JSON web token: Envoy's JWT filter, compiled.

use std::sync::Arc;
use std::time::Duration;

use maille_http::Name;

use crate::config::{RouteMatcher, StringMatcher};
use crate::policy::jwt::{Keys, Places};

/// A JWT filter.
#[derive(Clone, Debug)]
pub struct JwtFilter {
    /// Those who issue tokens, in the order of their names.
    pub providers: Vec<JwtProvider>,
    /// Where the tokens of all of them are looked for.
    pub places: Places,
    /// What is required of which requests; the first rule whose condition holds counts, and none requires nothing.
    pub rules: Vec<JwtRule>,
    /// Whether CORS preflights pass.
    pub bypass_cors_preflight: bool,
    /// Whether refusals have no body and no challenge.
    pub strip_failure_response: bool,
    /// The prefix of its metrics.
    pub stat_prefix: Arc<str>,
}

/// One who issues tokens.
#[derive(Clone, Debug)]
pub struct JwtProvider {
    /// Its name.
    pub name: Box<str>,
    /// What `iss` must be; anything when empty.
    pub issuer: Box<str>,
    /// One of which `aud` must contain; anything when empty. Without scheme and final slash.
    pub audiences: Vec<Box<str>>,
    /// What `sub` must be.
    pub subject: Option<StringMatcher>,
    /// Whether a token must expire.
    pub require_expiration: bool,
    /// How long a token may still be good.
    pub max_lifetime: Option<Duration>,
    /// Whether the token stays in the request.
    pub forward: bool,
    /// Where its tokens are looked for.
    pub places: Places,
    /// The header in which the payload goes on, and whether it is padded.
    pub payload_header: Option<(Name, bool)>,
    /// The key under which the payload is in the filter's metadata; empty is not at all.
    pub payload_in_metadata: Box<str>,
    /// The same, of the token's header.
    pub header_in_metadata: Box<str>,
    /// The same, of why the token was refused.
    pub failure_in_metadata: Box<str>,
    /// Claims that are lists written with spaces, and are lists in the metadata.
    pub space_delimited: Vec<Box<str>>,
    /// How wrong clocks may be, in seconds.
    pub clock_skew: u64,
    /// Claims that go on in headers: the path to each, and the header.
    pub claim_headers: Vec<(Vec<Box<str>>, Name)>,
    /// Whether the route is chosen anew afterwards.
    pub clear_route: bool,
    /// The keys; `None` when they could not be read, so that no token of it is good.
    pub keys: Option<Arc<Keys>>,
}

/// What is required of some requests.
#[derive(Clone, Debug)]
pub struct JwtRule {
    /// Of which.
    pub matcher: RouteMatcher,
    /// What; `None` is nothing.
    pub requires: Option<Requirement>,
}

/// What is required of a request. Numbers are of [`JwtFilter::providers`].
#[derive(Clone, Debug)]
pub enum Requirement {
    /// A good token of this provider; with audiences, those instead of the provider's.
    Provider(usize, Option<Vec<Box<str>>>),
    /// One of these.
    Any {
        /// What might be there.
        of: Vec<Requirement>,
        /// Whether no token at all is good as well.
        allow_missing: bool,
        /// Whether anything is good.
        allow_failed: bool,
    },
    /// All of these.
    All(Vec<Requirement>),
    /// Good tokens, if any, of whichever provider.
    AllowMissing,
    /// Anything; good tokens are made use of.
    AllowFailed,
}
