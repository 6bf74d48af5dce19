//! Whom a policy is for: a selector, or resources it names, but not both.

use super::findings::{At, Problem};
use super::rules;
use crate::selector::{PolicyTargetReference, WorkloadSelector};

/// The kinds a policy can be attached to, by group.
const TARGETS: [(&str, &str); 4] = [
    ("core", "Service"),
    ("networking.istio.io", "ServiceEntry"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
];
const TARGETS_MAX: usize = 16;

pub(super) fn validate(
    selector: Option<&WorkloadSelector>,
    target: Option<&PolicyTargetReference>,
    targets: &[PolicyTargetReference],
    at: &mut At<'_>,
) {
    let set = usize::from(selector.is_some()) + usize::from(target.is_some()) + usize::from(!targets.is_empty());
    if set > 1 {
        at.error(
            Problem::new("only one of `selector`, `targetRef` and `targetRefs` can be set")
                .hint("split the policy into two"),
        );
    }
    self::selector(selector, at);
    if let Some(target) = target {
        reference(target, &mut at.field("targetRef"));
    }
    if targets.len() > TARGETS_MAX {
        at.field("targetRefs").error(format!("there are {} targets, at most {TARGETS_MAX} are allowed", targets.len()));
    }
    for (i, target) in targets.iter().enumerate() {
        reference(target, &mut at.field("targetRefs").index(i));
    }
}

pub(super) fn selector(selector: Option<&WorkloadSelector>, at: &mut At<'_>) {
    let Some(selector) = selector else { return };
    rules::selector_labels(&selector.match_labels, &mut at.field("selector").field("matchLabels"));
    if selector.match_labels.is_empty() {
        at.field("selector").warn(
            Problem::new("the selector has no labels, so the policy is for every workload of the namespace")
                .hint("add labels, or remove the selector"),
        );
    }
}

fn reference(target: &PolicyTargetReference, at: &mut At<'_>) {
    if target.name.is_empty() {
        at.field("name").error("the name of the target is missing");
    }
    if !target.namespace.is_empty() {
        at.field("namespace")
            .error(Problem::new("a policy can only be for targets of its own namespace").hint("remove it"));
    }
    let group = if target.group.is_empty() { "core" } else { &target.group };
    if !TARGETS.contains(&(group, &target.kind)) {
        at.field("kind").error(
            Problem::new(format!("a policy cannot be for `{}` of `{group}`", target.kind))
                .hint("it can be for a Service, a ServiceEntry, or a Gateway or GatewayClass of the Gateway API"),
        );
    }
}
