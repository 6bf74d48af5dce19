//! RequestAuthentication: which tokens are trusted. Reference: <https://istio.io/latest/docs/reference/config/security/request_authentication/>.

use crate::duration::Duration;
use crate::message::{message, proto_enum};
use crate::selector::{PolicyTargetReference, WorkloadSelector};

message! {
    /// The tokens that workloads know how to judge. A request without one is let through, with a bad one it is not.
    pub struct RequestAuthentication {
        pub selector: Option<WorkloadSelector>,
        pub target_ref: Option<PolicyTargetReference>,
        pub target_refs: Vec<PolicyTargetReference>,
        pub jwt_rules: Vec<JwtRule>,
    }
}

message! {
    /// One issuer of tokens: its keys, where its tokens are found, and what becomes of what they say.
    pub struct JwtRule {
        pub issuer: String,
        pub audiences: Vec<String>,
        pub jwks_uri: String,
        pub jwks: String,
        pub from_headers: Vec<JwtHeader>,
        pub from_params: Vec<String>,
        pub output_payload_to_header: String,
        pub from_cookies: Vec<String>,
        pub forward_original_token: bool,
        pub output_claim_to_headers: Vec<ClaimToHeader>,
        pub timeout: Option<Duration>,
        pub space_delimited_claims: Vec<String>,
        pub presence: JwtRequirement,
    }
}

message! {
    /// A header that carries a token, after a prefix.
    pub struct JwtHeader {
        pub name: String,
        pub prefix: String,
    }
}

message! {
    /// A claim that the workload reads as a header.
    pub struct ClaimToHeader {
        pub header: String,
        pub claim: String,
    }
}

proto_enum! {
    /// Whether a request may do without this issuer's token.
    pub enum JwtRequirement {
        Optional = 0 "OPTIONAL",
        Required = 1 "REQUIRED",
    }
}
