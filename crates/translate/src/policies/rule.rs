//! One rule of an AuthorizationPolicy as one policy of Envoy's RBAC.

use maille_api::security::authorization_policy::{self as api, Rule};
use maille_xds::types::rbac::{Permission, Policy, Principal};

use super::attributes::{Compared, From, Logic, To, Unknowable};
use super::trust_domain::TrustDomains;

/// What a rule is made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// The namespace of the policy.
    pub(super) namespace: &'a str,
    pub(super) domains: &'a TrustDomains<'a>,
    /// Connections, not requests: much is not known of them.
    pub(super) of_connection: bool,
    /// What it matches is let through. What is not known then takes the whole rule away, so that less is let through;
    /// otherwise it is left out, so that more is denied.
    pub(super) allows: bool,
}

/// The rule as Envoy has it; `None` when nothing of it can be matched, so that nothing may be.
pub(super) fn policy(rule: &Rule, wanted: &Wanted<'_>) -> Option<Policy> {
    let (mut base_from, mut base_to) = (Vec::new(), Vec::new());
    for when in &rule.when {
        let key = when.key.as_str();
        match (From::of_key(key, wanted.namespace), To::of_key(key)) {
            (Some(from), _) => base_from.extend(wanted.from(&from, &when.values, &when.not_values).ok()?),
            (_, Some(to)) => base_to.extend(wanted.to(&to, &when.values, &when.not_values).ok()?),
            _ => return None,
        }
    }
    let sources = rule.from.iter().map(|from| match &from.source {
        Some(source) => wanted.source(source),
        None => Ok(Vec::new()),
    });
    let operations = rule.to.iter().map(|to| match &to.operation {
        Some(operation) => wanted.operation(operation),
        None => Ok(Vec::new()),
    });
    Some(Policy {
        permissions: alternatives(operations, base_to).ok()?,
        principals: alternatives(sources, base_from).ok()?,
        ..Policy::default()
    })
}

/// One for each alternative, with what holds for all of them; without alternatives just that.
fn alternatives<T: Logic + Clone>(
    parts: impl ExactSizeIterator<Item = Result<Vec<T>, Unknowable>>,
    base: Vec<T>,
) -> Result<Vec<T>, Unknowable> {
    let all = |parts: Vec<T>| T::all_of(if parts.is_empty() { vec![T::any()] } else { parts });
    if parts.len() == 0 {
        return Ok(vec![all(base)]);
    }
    parts.map(|own| Ok(all(own?.into_iter().chain(base.clone()).collect()))).collect()
}

impl Wanted<'_> {
    fn source(&self, source: &api::Source) -> Result<Vec<Principal>, Unknowable> {
        let mut parts = Vec::new();
        for (attribute, values, not_values) in [
            (From::Principal, &source.principals, &source.not_principals),
            (From::RequestPrincipal, &source.request_principals, &source.not_request_principals),
            (From::ServiceAccount(self.namespace), &source.service_accounts, &source.not_service_accounts),
            (From::TrustDomain, &source.trust_domains, &source.not_trust_domains),
            (From::Namespace, &source.namespaces, &source.not_namespaces),
            (From::RemoteIp, &source.remote_ip_blocks, &source.not_remote_ip_blocks),
            (From::SourceIp, &source.ip_blocks, &source.not_ip_blocks),
        ] {
            parts.extend(self.from(&attribute, values, not_values)?);
        }
        Ok(parts)
    }

    fn operation(&self, operation: &api::Operation) -> Result<Vec<Permission>, Unknowable> {
        let mut parts = Vec::new();
        for (attribute, values, not_values) in [
            (To::Host, &operation.hosts, &operation.not_hosts),
            (To::Method, &operation.methods, &operation.not_methods),
            (To::Path, &operation.paths, &operation.not_paths),
            (To::DestinationPort, &operation.ports, &operation.not_ports),
        ] {
            parts.extend(self.to(&attribute, values, not_values)?);
        }
        Ok(parts)
    }

    fn from(&self, what: &From<'_>, values: &[String], not_values: &[String]) -> Result<Vec<Principal>, Unknowable> {
        let compare = |values: &[String]| match what {
            From::Principal => what.compare(&self.domains.principals(values), self.of_connection),
            From::TrustDomain => what.compare(&self.domains.domains(values), self.of_connection),
            _ => what.compare(values, self.of_connection),
        };
        self.both(compare(values), compare(not_values), what.is_whole())
    }

    fn to(&self, what: &To<'_>, values: &[String], not_values: &[String]) -> Result<Vec<Permission>, Unknowable> {
        let compare = |values: &[String]| what.compare(values, self.of_connection);
        self.both(compare(values), compare(not_values), what.is_whole())
    }

    /// One of the values, and none of the others.
    fn both<T: Logic>(&self, values: Compared<T>, not_values: Compared<T>, whole: bool) -> Result<Vec<T>, Unknowable> {
        let one = self.one_of(values, whole)?;
        let none = self.one_of(not_values, whole)?.map(T::not);
        Ok(one.into_iter().chain(none).collect())
    }

    fn one_of<T: Logic>(&self, compared: Compared<T>, whole: bool) -> Result<Option<T>, Unknowable> {
        let mut known = Vec::with_capacity(compared.len());
        for matcher in compared {
            match matcher {
                Ok(matcher) => known.push(matcher),
                Err(unknowable) if self.allows => return Err(unknowable),
                Err(_) => {}
            }
        }
        Ok(match known.len() {
            0 => None,
            _ if whole => known.pop(),
            _ => Some(T::one_of(known)),
        })
    }
}
