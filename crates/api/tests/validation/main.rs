//! What validation says, rule by rule: each case is the spec of a resource and the fields that are found fault with.

mod destination_rule;
mod gateway;
mod kubernetes;
mod mesh;
mod security;
mod service_entry;
mod sidecar;
mod virtual_service;
mod workload;

use maille_api::parse::{Parsed, documents};
use maille_api::validate::{Findings, validate};

/// A spec in YAML, and what is said about it: `error PATH` and `warn PATH`, errors first; nothing for what is fine.
type Case<'a> = (&'a str, &'a [&'a str]);

fn check(kind: &str, cases: &[Case<'_>]) {
    check_with(kind, "metadata: {name: own, namespace: shop}", cases);
}

fn check_with(kind: &str, metadata: &str, cases: &[Case<'_>]) {
    let version = kind.parse::<maille_api::Kind>().expect("a kind of ours").api_version();
    for (spec, expected) in cases {
        let text = format!("apiVersion: {version}\nkind: {kind}\n{metadata}\nspec: {spec}\n");
        let found = documents(&text, "case");
        let [Ok(Parsed { object, .. })] = found.as_slice() else {
            panic!("this does not even parse: {text}\n{found:?}")
        };
        let findings = validate(object);
        assert_eq!(said(&findings), *expected, "{kind}: {spec}\n{findings:#?}");
        let messages = findings.errors.iter().chain(&findings.warnings).map(|finding| &finding.message);
        assert!(messages.clone().all(|message| !message.is_empty()));
    }
}

fn said(findings: &Findings) -> Vec<String> {
    let errors = findings.errors.iter().map(|finding| format!("error {}", finding.path));
    errors.chain(findings.warnings.iter().map(|finding| format!("warn {}", finding.path))).collect()
}
