//! Who sees a resource, and which gateways a route is bound to.

use std::collections::BTreeSet;

use super::{dns_label, fqdn, is_dns_label};
use crate::validate::findings::{At, Problem};

/// Who `exportTo` belongs to: each has its own limits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exported {
    Routes,
    Service,
    PolicyForSomeWorkloads,
}

/// `exportTo`: `.`, `*`, `~` (services only) or namespaces, none of them twice.
pub(crate) fn export_to(namespace: &str, export_to: &[String], exported: Exported, at: &mut At<'_>) {
    let mut seen = BTreeSet::new();
    for (i, entry) in export_to.iter().enumerate() {
        let key = if entry == "." { namespace } else { entry };
        if seen.contains(key) {
            at.index(i).error(if key == entry {
                format!("`{entry}` is there twice")
            } else {
                format!("`.` and `{namespace}` are the same namespace")
            });
            continue;
        }
        let known = match key {
            "*" => true,
            "~" => exported == Exported::Service,
            // A resource without a namespace of its own may still say `.`.
            key => is_dns_label(key) || entry == ".",
        };
        if known {
            seen.insert(key);
        } else if key == "~" {
            at.index(i).error(
                Problem::new("`~` (nobody) is only for service entries").hint("use `.` to keep it in its namespace"),
            );
        } else {
            at.index(i).error(
                Problem::new(format!("`{entry}` is not a namespace")).hint("write `.`, `*` or the name of a namespace"),
            );
        }
    }
    if exported == Exported::PolicyForSomeWorkloads && !seen.is_empty() {
        if !seen.contains(namespace) {
            at.error(
                Problem::new("a destination rule with a workload selector only acts in its own namespace")
                    .hint("write `.` or leave exportTo out"),
            );
        } else if seen.len() > 1 {
            at.error("a destination rule with a workload selector can be exported to its own namespace only");
        }
    }
    if seen.contains("*") && export_to.len() > 1 {
        at.error(Problem::new("`*` already means every namespace").hint("remove the other entries, or `*`"));
    }
    if seen.contains("~") && export_to.len() > 1 {
        at.error(Problem::new("`~` means nobody, and cannot stand beside others").hint("remove one of them"));
    }
}

/// The namespace and gateways a route is bound to: `mesh`, `gateway`, `namespace/gateway`. `semantics` is set on
/// routes made from the Gateway API.
pub(crate) fn gateway_names(names: &[String], semantics: bool, at: &mut At<'_>) {
    for (i, name) in names.iter().enumerate() {
        let mut at = at.index(i);
        let Some((namespace, gateway)) = name.split_once('/') else {
            if let Some((gateway, rest)) = name.split_once('.') {
                let namespace = rest.split('.').next().unwrap_or_default();
                at.warn(
                    Problem::new(format!("`{name}` names a gateway in the old way"))
                        .hint(format!("write `{namespace}/{gateway}`")),
                );
            }
            at.check(fqdn(name));
            // Istio looks no further once a name has no namespace.
            return;
        };
        if namespace.is_empty() || gateway.is_empty() {
            at.error("the namespace or the name of the gateway beside `/` is empty");
            continue;
        }
        at.check(dns_label("namespace", namespace));
        if !semantics {
            at.check(dns_label("gateway name", gateway));
        }
    }
}
