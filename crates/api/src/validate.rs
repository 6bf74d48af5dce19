//! Whether a resource can be used, judged as Istio judges it: what is wrong with it, and what is probably not meant.
//!
//! One file a kind; what several fields have in common is said once, in [`rules`] and its siblings.

mod authorization_policy;
mod destination_rule;
mod findings;
mod gateway;
mod header;
mod jwks;
mod kubernetes;
mod mesh;
mod peer_authentication;
mod policy_target;
mod protocol;
mod re2;
mod request_authentication;
mod rules;
mod service_entry;
mod sidecar;
mod tls;
mod traffic_policy;
mod virtual_service;
mod workload;

use crate::mesh::MeshConfig;
use crate::meta::{Object, ObjectMeta, Spec};
use crate::security::AuthorizationPolicy;
use findings::{At, Problem};
pub use findings::{Finding, Findings};

/// Checks everything that can be known from one resource alone.
pub fn validate(object: &Object) -> Findings {
    let mut findings = Findings::default();
    metadata(object, &mut At::new(&mut findings, "metadata"));
    let meta = &object.meta;
    let at = &mut At::new(&mut findings, "spec");
    match &object.spec {
        Spec::Gateway(spec) => gateway::validate(meta, spec, at),
        Spec::VirtualService(spec) => virtual_service::validate(meta, spec, at),
        Spec::DestinationRule(spec) => destination_rule::validate(meta, spec, at),
        Spec::ServiceEntry(spec) => service_entry::validate(meta, spec, at),
        Spec::WorkloadEntry(spec) => workload::validate_entry(spec, at),
        Spec::WorkloadGroup(spec) => workload::validate_group(spec, at),
        Spec::Sidecar(spec) => sidecar::validate(meta, spec, at),
        Spec::PeerAuthentication(spec) => peer_authentication::validate(spec, at),
        Spec::RequestAuthentication(spec) => request_authentication::validate(spec, at),
        Spec::AuthorizationPolicy(spec) => authorization_policy::validate(spec, at),
        Spec::Service(spec) => kubernetes::validate_service(spec, at),
        Spec::Namespace(_) | Spec::Secret(_) | Spec::ConfigMap(_) => {}
    }
    findings
}

/// Checks the settings of the whole mesh; paths begin at the settings themselves.
pub fn validate_mesh(config: &MeshConfig) -> Findings {
    let mut findings = Findings::default();
    mesh::validate(config, &mut At::new(&mut findings, ""));
    findings
}

/// Set on what was made from the Gateway API, whose names follow other rules.
fn made_from_gateway_api(meta: &ObjectMeta, annotation: &str, value: &str) -> bool {
    meta.annotations.get(annotation).is_some_and(|found| found == value)
}

fn metadata(object: &Object, at: &mut At<'_>) {
    let meta = &object.meta;
    kubernetes::validate_names(object, at);
    if !object.kind().is_istio() {
        return;
    }
    for annotation in meta.annotations.keys() {
        let problem = match (annotation.as_str(), &object.spec) {
            (AuthorizationPolicy::DRY_RUN, Spec::AuthorizationPolicy(policy)) => {
                at.field("annotations").key(annotation).check(authorization_policy::dry_run(meta, policy));
                continue;
            }
            (AuthorizationPolicy::DRY_RUN, _) => "only an AuthorizationPolicy can be tried without effect",
            ("internal.istio.io/webhook-always-reject", _) => "this annotation asks for the resource to be refused",
            ("internal.istio.io/parents" | "internal.istio.io/parent-namespace", _) => {
                "this annotation is the mesh's own, and gives rights that nobody can give himself"
            }
            _ => continue,
        };
        at.field("annotations").key(annotation).error(Problem::new(problem).hint("remove it"));
    }
}
