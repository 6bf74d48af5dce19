//! Who else is asked whether a request may pass: Envoy's ext_authz filter, compiled.

use std::sync::Arc;
use std::time::Duration;

use maille_http::Name;

use crate::config::{MetadataMatcher, StringMatcher};

/// An ext_authz filter; about connections it asks by gRPC alone.
#[derive(Clone, Debug)]
pub struct ExtAuthz<S = AuthzService> {
    /// Who is asked, and how.
    pub service: S,
    /// How long the answer may take; `None` is for ever.
    pub timeout: Option<Duration>,
    /// Whether requests pass when nobody answers.
    pub failure_mode_allow: bool,
    /// Whether such requests say so in `x-envoy-auth-failure-mode-allowed`.
    pub failure_mode_header: bool,
    /// The status of the refusal when nobody answers.
    pub status_on_error: u16,
    /// How much of the body is shown.
    pub body: Option<BodyShown>,
    /// Which requests are asked about: those of whose metadata this holds.
    pub enabled: Option<MetadataMatcher>,
    /// Whether the route is chosen anew when the answer changes the request.
    pub clear_route: bool,
    /// Whether the client's certificate is shown.
    pub include_certificate: bool,
    /// Whether the name in the TLS hello is shown.
    pub include_server_name: bool,
    /// The headers that are shown; all when absent.
    pub allowed: Option<Vec<StringMatcher>>,
    /// Headers that are not shown all the same.
    pub disallowed: Vec<StringMatcher>,
    /// The namespaces of metadata that are shown.
    pub metadata_namespaces: Vec<Box<str>>,
    /// The prefix of its metrics.
    pub stat_prefix: Arc<str>,
}

/// Who is asked, and how.
#[derive(Clone, Debug)]
pub enum AuthzService {
    /// By gRPC.
    Grpc(AuthzGrpc),
    /// An HTTP request that resembles the one asked about; 200 lets it pass.
    Http(Box<AuthzHttp>),
}

impl AuthzService {
    /// The cluster that is asked.
    pub fn cluster(&self) -> &Arc<str> {
        match self {
            AuthzService::Grpc(grpc) => &grpc.cluster,
            AuthzService::Http(http) => &http.cluster,
        }
    }
}

/// Asking `envoy.service.auth.v3.Authorization` over HTTP/2.
#[derive(Clone, Debug)]
pub struct AuthzGrpc {
    /// The cluster.
    pub cluster: Arc<str>,
    /// What the request's authority is.
    pub authority: Box<str>,
}

/// Asking by HTTP.
#[derive(Clone, Debug)]
pub struct AuthzHttp {
    /// The cluster.
    pub cluster: Arc<str>,
    /// What stands before the path.
    pub path_prefix: Box<str>,
    /// Headers that are set.
    pub headers: Vec<(Name, Box<[u8]>)>,
    /// Headers of the answer that replace the request's.
    pub to_upstream: Vec<StringMatcher>,
    /// Headers of the answer that are added to the request's.
    pub append_to_upstream: Vec<StringMatcher>,
    /// Headers of a refusal that go to the client; all but the host when empty.
    pub to_client: Vec<StringMatcher>,
    /// Headers of a consent that are added to the response.
    pub to_client_on_success: Vec<StringMatcher>,
    /// Headers of a consent that are written into the metadata.
    pub to_metadata: Vec<StringMatcher>,
}

/// How much of the body is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyShown {
    /// Bytes.
    pub max: u32,
    /// Whether the beginning of a larger body will do; else the request is answered 413.
    pub partial: bool,
    /// Whether it is shown as bytes rather than as text.
    pub as_bytes: bool,
}

impl BodyShown {
    /// How much has to be there before anybody is asked.
    pub fn most(&self) -> usize {
        // Without a beginning that will do, it must be seen whether there is more.
        self.max as usize + usize::from(!self.partial)
    }
}
