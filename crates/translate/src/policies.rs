//! Who may ask for what: the filters that enforce AuthorizationPolicy and RequestAuthentication.
//!
//! In the order in which they judge: what CUSTOM policies leave to somebody else, tokens, then AUDIT, DENY and ALLOW.

// What reads metadata a newer way is not in the Envoys that people run.
#[allow(deprecated)]
mod attributes;
mod ext_authz;
mod jwt;
mod matchers;
mod rbac;
mod rule;
mod trust_domain;

use maille_xds::types::hcm::HttpFilter;
use maille_xds::types::listener::Filter;

use crate::Context;
use trust_domain::TrustDomains;

/// The filters of one proxy, the same in each of its chains.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters {
    pub(crate) http: Vec<HttpFilter>,
    pub(crate) network: Vec<Filter>,
}

pub(crate) fn filters(context: &Context<'_>) -> Filters {
    let mesh = context.mesh();
    let domains = TrustDomains::new(&mesh.trust_domain, &mesh.trust_domain_aliases);
    let policies = context.snapshot.authorization(context.proxy);
    let mut filters = Filters::default();
    ext_authz::custom(context, &policies.custom, &domains, &mut filters);
    filters.http.extend(jwt::filter(context));
    rbac::enforced(&policies, &domains, &mut filters);
    filters
}
